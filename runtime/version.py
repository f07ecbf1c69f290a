"""The version of Voxrill. It is written here and nowhere else: the packaging reads this file without running it."""

VERSION = "0.2.0"

MAKER = "Voxrill"
"""What files say of the program that made them."""
