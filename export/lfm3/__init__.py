"""LFM3-Audio: its sizes, names and graphs."""
