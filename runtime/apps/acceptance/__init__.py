"""Acceptance: a bundle of the real weights, held to outputs of those weights that others have published."""
