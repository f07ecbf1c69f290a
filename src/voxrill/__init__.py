"""Voxrill: LFM2-Audio, a speech-and-text model, on the device.

import voxrill

model = voxrill.load()  # the small built-in model; load("bundle/") is one that voxrill export wrote
print(model.transcribe("question.wav").text)
model.speak("Kitchen lights on.").save("reply.wav")
for event in model.chat(audio="question.wav"):
    ...

Errors are imported at once, because they load nothing else. Every other name is imported when it is first used, so that
`import voxrill` alone loads neither numpy nor onnxruntime.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from voxrill.runtime.errors import (
    AudioDeviceError,
    AudioDeviceLost,
    AudioFileError,
    BundleError,
    CheckpointError,
    ChipError,
    ContextFull,
    DataError,
    DeviceError,
    ExportError,
    HashMismatch,
    HookError,
    MissingDependency,
    NewerFormat,
    NotEnoughMemory,
    ProfileError,
    ProviderError,
    ProviderRefused,
    UnknownText,
    UsageError,
    VoxrillError,
    VoxrillWarning,
)
from voxrill.runtime.version import VERSION as __version__

# From 1.29 on onnxruntime tells its maker that it ran: it writes an id under the user's home, and looks up a host. Only
# this stops both, and only before onnxruntime is imported. This line runs before any module of ours does, and processes
# that are started from here inherit it.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

if TYPE_CHECKING:
    from voxrill.model import Model, load
    from voxrill.runtime.apps.classify import Classification
    from voxrill.runtime.apps.control import Understood
    from voxrill.runtime.apps.documents.answer import Answer, AnswerText
    from voxrill.runtime.apps.documents.citations import Citation
    from voxrill.runtime.apps.grammar import Call
    from voxrill.runtime.apps.talk_tools import tool
    from voxrill.runtime.apps.transcript import SegmentEvent, TentativeEvent, Transcript, TranscriptEvent
    from voxrill.runtime.audio.own_sink import SoundSink
    from voxrill.runtime.bundle.builtin import pebble_world
    from voxrill.runtime.engine.conversation import Conversation
    from voxrill.runtime.engine.engine import Speech
    from voxrill.runtime.engine.options import AnswerOptions
    from voxrill.runtime.events import AudioEvent, EndEvent, Event, Result, TextEvent
    from voxrill.runtime.talk.events import (
        AnswerFailed,
        AssistantSaid,
        Notice,
        StateChanged,
        TalkEvent,
        ToolCalled,
        TurnEnded,
        UserHeard,
        UserSaid,
        UserSpeaking,
    )
    from voxrill.runtime.talk.session import TalkSession

_HOMES = {
    "voxrill.model": ("Model", "load"),
    "voxrill.runtime.apps.classify": ("Classification",),
    "voxrill.runtime.apps.control": ("Understood",),
    "voxrill.runtime.apps.documents.answer": ("Answer", "AnswerText"),
    "voxrill.runtime.apps.documents.citations": ("Citation",),
    "voxrill.runtime.apps.grammar": ("Call",),
    "voxrill.runtime.apps.transcript": ("SegmentEvent", "TentativeEvent", "Transcript", "TranscriptEvent"),
    "voxrill.runtime.bundle.builtin": ("pebble_world",),
    "voxrill.runtime.engine.conversation": ("Conversation",),
    "voxrill.runtime.engine.engine": ("Speech",),
    "voxrill.runtime.engine.options": ("AnswerOptions",),
    "voxrill.runtime.events": ("AudioEvent", "EndEvent", "Event", "Result", "TextEvent"),
    "voxrill.runtime.apps.talk_tools": ("tool",),
    "voxrill.runtime.audio.own_sink": ("SoundSink",),
    "voxrill.runtime.talk.events": (
        "AnswerFailed",
        "AssistantSaid",
        "Notice",
        "StateChanged",
        "TalkEvent",
        "ToolCalled",
        "TurnEnded",
        "UserHeard",
        "UserSaid",
        "UserSpeaking",
    ),
    "voxrill.runtime.talk.session": ("TalkSession",),
}
"""Public names by the module that defines them."""

__all__ = [
    "Answer",
    "AnswerFailed",
    "AnswerOptions",
    "AnswerText",
    "AssistantSaid",
    "AudioDeviceError",
    "AudioDeviceLost",
    "AudioEvent",
    "AudioFileError",
    "BundleError",
    "Call",
    "CheckpointError",
    "ChipError",
    "Citation",
    "Classification",
    "ContextFull",
    "Conversation",
    "DataError",
    "DeviceError",
    "EndEvent",
    "Event",
    "ExportError",
    "HashMismatch",
    "HookError",
    "MissingDependency",
    "Model",
    "NewerFormat",
    "NotEnoughMemory",
    "Notice",
    "ProfileError",
    "ProviderError",
    "ProviderRefused",
    "Result",
    "SegmentEvent",
    "SoundSink",
    "Speech",
    "StateChanged",
    "TalkEvent",
    "TalkSession",
    "TentativeEvent",
    "TextEvent",
    "ToolCalled",
    "Transcript",
    "TranscriptEvent",
    "TurnEnded",
    "Understood",
    "UnknownText",
    "UsageError",
    "UserHeard",
    "UserSaid",
    "UserSpeaking",
    "VoxrillError",
    "VoxrillWarning",
    "__version__",
    "load",
    "pebble_world",
    "tool",
]


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(import_module(module), name)
            globals()[name] = value  # the next look-up does not come here
            return value
    raise AttributeError(f"module 'voxrill' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
