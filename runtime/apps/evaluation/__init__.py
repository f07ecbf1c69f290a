"""Evaluation: a bundle's answers to a set of data, scored beside those of other programs, with the time they took."""
