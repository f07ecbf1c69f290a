"""What the user said, in words: for the view, made in small steps while the answer is played.

In: the sound of a question. Out: its transcript. The answer does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.events import TextEvent

Transcribing = Generator[None, None, str]
"""One small step each time; at the end the transcript, empty where there is none."""

Transcribe = Callable[[Floats], Transcribing]
"""Begins to transcribe sound (n,) at 16 kHz."""


def transcriber(model: Engine) -> Transcribe:
    """How `model` transcribes a question, in a conversation of its own."""

    def transcribe(samples: Floats) -> Transcribing:
        conversation = Conversation(model.parts, model.manifest.tasks.transcribe)
        text = ""
        try:
            for event in conversation.steps(audio=samples, output="text", trim=False):
                text += event.text if isinstance(event, TextEvent) else ""
                yield
        except VoxrillError:  # such as a question that is too long: the view does without
            return ""
        return text.strip()

    return transcribe
