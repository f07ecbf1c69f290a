"""Talking: a microphone on one side, a loudspeaker on the other, and the model between them.

In: blocks of sound as they are captured. Out: sound to be played, and events for a view. Microphone and loudspeaker are
protocols (`audio/protocols.py`), so that everything else runs without a sound card, and in tests without waiting.

Two threads share the work. The listening thread reads the microphone and finds out what the user does (`listening`,
`listener`). The calling thread answers (`loop`, `responder`, `reply`). They share the floor (`floor`) and a queue of
signals, and nothing else.
"""
