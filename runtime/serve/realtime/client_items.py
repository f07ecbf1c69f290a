"""The items that a client adds to a conversation: what is in them, for the model and as they are shown again.

In: an item of the interface. Out: who says what, sounds decoded; or the error that says which part cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from voxrill.runtime.audio.protocols import RATE, Floats
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.emitter import new_id
from voxrill.runtime.serve.realtime.items import Item, message
from voxrill.runtime.serve.realtime.messages import ItemPart, MessageItem
from voxrill.runtime.serve.uploads import from_base64
from voxrill.runtime.talk.listener import Utterance

_MOST_SECONDS = 30.0
"""Seconds of sound that may wait for an answer: as long as a turn."""

_NOTHING = np.zeros(0, np.float32)


@dataclass(frozen=True)
class Told:
    """What someone said or wrote, as the model is told it. sounds: with their places in the item's content."""

    item: str
    role: str
    text: str
    sounds: tuple[tuple[int, Utterance], ...] = ()

    @property
    def samples(self) -> Floats:
        """What was said, (n,) at 16 kHz."""
        return np.concatenate([_NOTHING, *(utterance.samples for _, utterance in self.sounds)])


def read_message(item: MessageItem, hear: Callable[[bytes], Utterance]) -> tuple[Told, Item]:
    """What a message tells, and the item as it is shown. hear: makes a turn of a sound's bytes.

    Raises:
        ApiError: a part of it cannot be, or it is empty.
    """
    name = item.id or new_id("item")
    texts, sounds, content = list[str](), list[tuple[int, Utterance]](), list[dict[str, Any]]()
    for place, part in enumerate(item.content):
        shown, text = _shown(item.role, part, f"item.content[{place}]")
        content.append(shown)
        if item.role == "user" and part.type in ("input_audio", "audio") and part.audio is not None:
            sounds.append((place, hear(from_base64(part.audio, f"item.content[{place}].audio"))))
        elif text:
            texts.append(text)
    if not sounds and not "".join(texts).strip():
        raise ApiError(400, "This message is empty. Send some words, or sound.", "empty_text", "item.content")
    return Told(name, item.role, "\n".join(texts), tuple(sounds)), message(name, item.role, content)


def _shown(role: str, part: ItemPart, param: str) -> tuple[dict[str, Any], str]:
    """A part as it is shown, and its text."""
    if part.type == "input_image":
        raise ApiError(400, "This model sees no pictures. Send text or sound.", "invalid_value", f"{param}.type")
    if part.type in ("input_audio", "audio", "output_audio"):
        if part.audio is None and part.transcript is None:
            raise ApiError(400, "This part has neither audio nor a transcript. Send one.", "invalid_value", param)
        kind = "input_audio" if role == "user" else "output_audio"
        return {"type": kind, "transcript": part.transcript}, part.transcript or ""
    if part.text is None:
        raise ApiError(400, "This part has no text. Send it in `text`.", "invalid_value", f"{param}.text")
    return {"type": "output_text" if role == "assistant" else "input_text", "text": part.text}, part.text


def joined(asked: Sequence[Told]) -> Told:
    """Several messages of the user's as one question: all that was said, and then all that was written."""
    sounds = tuple(sound for told in asked for sound in told.sounds)
    return Told("", "user", "\n".join(told.text for told in asked if told.text), sounds)


def check_waiting(waiting: Sequence[Told]) -> None:
    """Raise ApiError if too much sound waits to be answered."""
    if sum(len(told.samples) for told in waiting) > _MOST_SECONDS * RATE:
        raise ApiError(
            400,
            f"More than {_MOST_SECONDS:g} seconds of sound would wait. Send response.create before more.",
            "too_long",
        )
