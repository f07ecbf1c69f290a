"""The version of Voxrill. It is written here and nowhere else: the packaging reads this file without running it."""

VERSION = "0.1.0"
