"""Talking: a microphone on one side, a loudspeaker on the other, and the model between them.

In: blocks of sound as they are captured. Out: sound to be played, and events for whoever watches. The edges are
protocols (`edges.py`), so that everything else runs without a sound card, and in tests without waiting.
"""
