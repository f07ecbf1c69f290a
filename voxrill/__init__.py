"""Voxrill: LFM2-Audio, a speech-and-text model, on the device.

import voxrill

model = voxrill.load()  # the small built-in model; load("bundle/") is one that voxrill export wrote
print(model.transcribe("question.wav").text)
model.speak("Kitchen lights on.").save("reply.wav")
for event in model.chat(audio="question.wav"):
    ...
"""

from voxrill.runtime.apps.classify import Classification
from voxrill.runtime.apps.control import Understood
from voxrill.runtime.apps.grammar import Call
from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent, TranscriptEvent
from voxrill.runtime.builtin import pebble_world
from voxrill.runtime.conversation import Conversation
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result, TextEvent
from voxrill.runtime.manifest import Sampling
from voxrill.runtime.model import Model, Speech, load

__version__ = "0.1.0"

__all__ = [
    "AudioEvent",
    "Call",
    "Classification",
    "Conversation",
    "EndEvent",
    "Event",
    "Model",
    "Result",
    "Sampling",
    "SegmentEvent",
    "Speech",
    "TentativeEvent",
    "TextEvent",
    "TranscriptEvent",
    "Understood",
    "VoxrillError",
    "__version__",
    "load",
    "pebble_world",
]
