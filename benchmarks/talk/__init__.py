"""Measures talk: a virtual user asks recorded questions at real speed, and a recording shows the waits.

The programs under test are the real ones. Each has a process of its own, on sound devices of a private PulseAudio. They
are `voxrill talk`, and the cascade that one would build without such a model.
"""
