"""Answer a recorded talk's questions again, without a microphone, and compare the answers.

In: the folder of a recording, and the same bundle. Out: for every turn, what was made then and now. On the same machine
and build the codes must be the same to the bit, whatever was begun early or interrupted in the talk.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.sound_writer import WAV_HEADER_BYTES
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import ContextFull, DataError, UsageError, VoxrillError
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.recording import EVENTS, FORMAT, MICROPHONE, build
from voxrill.runtime.talk.responder import ResponderOptions

_REMEDY = "Give a folder that was written by: voxrill talk --record FOLDER"

Count = Annotated[int, Meta(ge=0)]


class Header(msgspec.Struct):
    """The first line of a recording."""

    format: int
    voxrill: str
    onnxruntime: str
    numpy: str
    bundle: str
    model: str
    threads: Annotated[int, Meta(ge=0, le=1024)]
    system: str
    options: ResponderOptions
    output: Output = "both"
    providers: list[str] = []


class RecordedTurn(msgspec.Struct):
    """A turn of a recording; other lines have no `turn`. start, end: samples of the microphone; None if typed."""

    turn: int | None = None
    start: Count | None = None
    end: Count | None = None
    typed: str | None = None
    seed: Count = 0
    text: str = ""
    tokens: list[int] = []
    codes: list[list[int]] = []
    heard: Count | None = None
    forgotten: int = 0
    error: str | None = None

    @property
    def made(self) -> int:
        """Number of text tokens and frames."""
        return len(self.tokens) + len(self.codes)


@dataclass(frozen=True)
class Recording:
    """A recording that was read, without the sound of its microphone, which may be hours long."""

    directory: Path
    header: Header
    turns: list[RecordedTurn]

    def heard(self, turn: RecordedTurn) -> Floats | None:
        """The sound (n,) of a turn's question; None if it was typed.

        Raises:
            DataError: the microphone's file cannot be read, or does not reach so far.
        """
        if turn.start is None or turn.end is None:
            return None
        count, path = turn.end - turn.start, self.directory / MICROPHONE
        try:
            samples = np.fromfile(path, "<f4", max(0, count), offset=WAV_HEADER_BYTES + 4 * turn.start)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})", _REMEDY) from None
        if len(samples) < count or count <= 0:
            raise DataError(f"{path} does not hold the sound of turn {turn.turn}", "Record the talk again")
        return samples


@dataclass(frozen=True)
class Replayed:
    """One turn: the recorded one, and the text, tokens and codes that were made now."""

    recorded: RecordedTurn
    text: str
    tokens: list[int]
    codes: list[list[int]]
    forgotten: int
    error: str | None

    @property
    def same(self) -> bool:
        """Whether all that was made now is as it was recorded."""
        fields = ("text", "tokens", "codes", "forgotten", "error")
        return all(getattr(self, field) == getattr(self.recorded, field) for field in fields)


def read_recording(directory: Path) -> Recording:
    """Read the folder that `--record` wrote. A last line that was cut off is left out.

    Raises:
        DataError: it is not a recording, or one of another format.
    """
    try:
        first, *lines = (directory / EVENTS).read_bytes().splitlines(keepends=True) or [b""]
        header = msgspec.json.decode(first, type=Header)
        turns = [msgspec.json.decode(line, type=RecordedTurn) for line in lines if line.endswith(b"\n")]
        (directory / MICROPHONE).stat()
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{directory} is not a recording that can be read ({error})", _REMEDY) from None
    if header.format != FORMAT:
        raise DataError(f"{directory} is a recording of format {header.format}", "Replay it with the Voxrill it names")
    return Recording(directory, header, [turn for turn in turns if turn.turn is not None])


def differences(recording: Recording, model: Engine) -> list[str]:
    """What is different from when the recording was made, and can make the codes differ.

    Raises:
        UsageError: the bundle is another one.
    """
    header = recording.header
    now = build(model)
    if now["bundle"] != header.bundle:
        raise UsageError(
            f"the recording was made with another bundle ({header.model}, {header.bundle[:12]})",
            "Give that bundle: --bundle FOLDER",
        )
    return [
        f"{name} was {getattr(header, name)} and is {now[name]}"
        for name in ("voxrill", "onnxruntime", "numpy", "threads", "providers")
        if now[name] != getattr(header, name)
    ]


def replay(recording: Recording, model: Engine) -> Iterator[Replayed]:
    """Make every turn again, one by one.

    Raises:
        DataError: the sound of a question is missing.
    """
    conversation = model.conversation(system=recording.header.system, output=recording.header.output)
    for turn in recording.turns:
        yield _replay(conversation, turn, recording)


def _replay(conversation: Conversation, turn: RecordedTurn, recording: Recording) -> Replayed:
    options = recording.header.options
    while conversation.prepare():
        pass
    answer = TalkAnswer(conversation, recording.heard(turn), turn.typed, turn.seed, options.max_new_tokens)
    error = _make(answer, turn)
    forgotten = conversation.forget(0 if isinstance(error, ContextFull) else options.budget, options.turns)
    return Replayed(turn, answer.text, answer.tokens, answer.codes, forgotten, str(error) if error else None)


def _make(answer: TalkAnswer, turn: RecordedTurn) -> VoxrillError | None:
    """Make the answer as far as it was made then, and cut it where it was cut then."""
    try:
        while answer.finish_reason is None and (turn.heard is None or answer.made < turn.made):
            answer.step()
        if turn.heard is not None:
            answer.cut(turn.heard)
    except VoxrillError as error:
        return error
    return None
