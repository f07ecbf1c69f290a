"""What is kept of a talk: a recording, a folder of turns, traces, lines of JSON."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from voxrill.commands.output import print_json
from voxrill.devices.memory import private_memory
from voxrill.runtime.audio.protocols import RATE
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.talk.events import View
from voxrill.runtime.talk.listener import Signal, WakeChange, Woke
from voxrill.runtime.talk.loop import TalkSinks
from voxrill.runtime.talk.recording import Recorder, describe
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import ResponderOptions
from voxrill.runtime.talk.saving import Saver
from voxrill.runtime.talk.trace import TurnTrace


@contextmanager
def talk_sinks(
    model: Engine,
    conversation: Conversation,
    responder: ResponderOptions,
    view: View,
    record: Path | None,
    save: Path | None,
    traces: list[TurnTrace],
    json: bool,
) -> Iterator[TalkSinks]:
    """The sinks for what the user wants to keep; files are closed at the end of the `with` block."""
    recorder = None if record is None else Recorder(record, describe(model, conversation, responder), view.show)
    saver = None if save is None else Saver(save, model.sample_rate, view.show)

    def keep(turn: TalkTurn) -> None:
        traces.append(turn.trace)
        if recorder:
            recorder.keep(turn)
        if saver:
            saver.keep(turn)
        if json:
            print_json(_summary(turn))

    def tell(signal: Signal | WakeChange) -> None:
        if recorder:
            recorder.signal(signal)
        if json and isinstance(signal, WakeChange):
            print_json({"state": "listening" if isinstance(signal, Woke) else "asleep", "at": signal.end / RATE})

    try:
        yield TalkSinks(recorder.hear, tell, keep) if recorder else TalkSinks(signal=tell, turn=keep)
    finally:
        if recorder:
            recorder.close()


def _summary(turn: TalkTurn) -> dict[str, Any]:
    return {
        "turn": turn.number,
        "typed": turn.typed,
        "transcript": turn.transcript,
        "text": turn.answer.text,
        "interrupted": turn.heard is not None,
        "error": str(turn.error) if turn.error else None,
        "waited": turn.trace.waited,
        "underruns": turn.trace.underruns,
        "private_memory": private_memory(),
        "trace": asdict(turn.trace),
    }
