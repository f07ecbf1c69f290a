"""The room for INT8 and INT4 recipes: float32 graphs in, smaller graphs out.

Nothing here yet but the room.
"""
