"""A recorded talk once more, without its microphone: the same questions, and whether the answers are the same.

In: the folder of a recording, and the same bundle. Out: for every turn, what was made then and now. On the same
machine and build the codes must be the same to the bit, whatever was begun on suspicion or interrupted meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.conversation import Conversation, Output
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import ContextFull, DataError, UsageError, VoxrillError
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.recording import EVENTS, FORMAT, MICROPHONE, WAV_HEADER, build
from voxrill.runtime.talk.responder import ResponderOptions


class Header(msgspec.Struct):
    """The first line of a recording."""

    format: int
    voxrill: str
    onnxruntime: str
    numpy: str
    bundle: str
    model: str
    threads: int
    system: str
    options: ResponderOptions
    output: Output = "both"
    providers: list[str] = []


class RecordedTurn(msgspec.Struct):
    """A turn of a recording; other lines have no `turn`."""

    turn: int | None = None
    start: int | None = None
    end: int | None = None
    typed: str | None = None
    seed: int = 0
    text: str = ""
    tokens: list[int] = []
    codes: list[list[int]] = []
    heard: int | None = None
    forgotten: int = 0
    error: str | None = None

    @property
    def made(self) -> int:
        """Text tokens and frames."""
        return len(self.tokens) + len(self.codes)


@dataclass(frozen=True)
class Recording:
    """A recording that was read. `microphone` (samples,) is mapped, not loaded."""

    header: Header
    turns: list[RecordedTurn]
    microphone: Floats


@dataclass(frozen=True)
class Replayed:
    """One turn made again: the recorded one, and the text, tokens and codes of now."""

    recorded: RecordedTurn
    text: str
    tokens: list[int]
    codes: list[list[int]]
    forgotten: int
    error: str | None

    @property
    def same(self) -> bool:
        """Whether all is as it was."""
        fields = ("text", "tokens", "codes", "forgotten", "error")
        return all(getattr(self, field) == getattr(self.recorded, field) for field in fields)


def read_recording(directory: Path) -> Recording:
    """Read the folder that `--record` wrote; a last line that was cut short is left out.

    Raises:
        DataError: it is no recording, or of another format.
    """
    remedy = "Give a folder that was written by: voxrill talk --record FOLDER"
    try:
        first, *lines = (directory / EVENTS).read_bytes().splitlines(keepends=True) or [b""]
        header = msgspec.json.decode(first, type=Header)
        turns = [msgspec.json.decode(line, type=RecordedTurn) for line in lines if line.endswith(b"\n")]
        sound = np.memmap(directory / MICROPHONE, np.uint8, "r")[WAV_HEADER:]
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise DataError(f"{directory} is not a recording that can be read ({error})", remedy) from None
    if header.format != FORMAT:
        raise DataError(f"{directory} is a recording of format {header.format}", "Replay it with the Voxrill it names")
    samples = sound[: len(sound) // 4 * 4].view("<f4")
    return Recording(header, [turn for turn in turns if turn.turn is not None], samples)


def differences(recording: Recording, model: Engine) -> list[str]:
    """What is not as it was when the recording was made, so that other codes would be no wonder.

    Raises:
        UsageError: it is another bundle altogether.
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
    """Make every turn again, one by one."""
    conversation = model.conversation(system=recording.header.system, output=recording.header.output)
    for turn in recording.turns:
        yield _replay(conversation, turn, recording)


def _replay(conversation: Conversation, turn: RecordedTurn, recording: Recording) -> Replayed:
    options = recording.header.options
    while conversation.prepare():
        pass
    audio = None if turn.start is None else np.array(recording.microphone[turn.start : turn.end])
    answer = TalkAnswer(conversation, audio, turn.typed, turn.seed, options.max_new_tokens)
    error = _make(answer, turn)
    forgotten = conversation.forget(0 if isinstance(error, ContextFull) else options.budget, options.turns)
    return Replayed(turn, answer.text, answer.tokens, answer.codes, forgotten, str(error) if error else None)


def _make(answer: TalkAnswer, turn: RecordedTurn) -> VoxrillError | None:
    """Make the answer as far as it was made then, and cut it where it was cut."""
    try:
        while answer.finish_reason is None and (turn.heard is None or answer.made < turn.made):
            answer.step()
        if turn.heard is not None:
            answer.cut(turn.heard)
    except VoxrillError as error:
        return error
    return None
