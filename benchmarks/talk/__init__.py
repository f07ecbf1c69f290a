"""Talking measured: a virtual user asks recorded questions at real speed, and the waits are read off a recording.

The programs under test are the real ones, each in a process of its own, on sound devices of a private PulseAudio.
Beside `voxrill talk` runs the cascade that one would build without such a model.
"""
