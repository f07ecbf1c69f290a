"""What the live loop costs the model: answers of a forced length, made idle and made beside an open loop, in turn.

In: a bundle. Out: wall and processor time for a second of speech, idle and live, and their ratio; medians. Idle: no
device is open. Live: microphone, loudspeaker and the listening thread of `voxrill talk` are open on a private
PulseAudio, and the answer is played. Nobody speaks.

    python -m benchmarks.talk.live [--bundle BUNDLE] [--seconds 3] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.talk.forced import endless_conversation, steps_of
from benchmarks.talk.sound_server import SoundServer
from voxrill.commands.options import Loading
from voxrill.devices.processor import processor
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.live_voice import LiveVoice
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.events import AudioEvent, StageEvent
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Listener
from voxrill.runtime.talk.listening_thread import listening

SETTLING = 3.0
"""Seconds after the devices are open: PulseAudio's first sound takes one or two, and keeps a core busy meanwhile."""

KINDS = ("idle", "live")


def answer(conversation: Conversation, steps: int, play: Callable[[Floats], None]) -> dict[str, float]:
    """Seconds for a second of speech, after prefill: wall and processor time."""
    while conversation.prepare():
        pass
    made = TalkAnswer(conversation, tone(), None, 1, steps)
    wall, cpu = time.perf_counter(), time.process_time()
    while made.finish_reason is None:
        event = made.step()
        if isinstance(event, StageEvent) and event.stage == "prefilled":
            wall, cpu = time.perf_counter(), time.process_time()
        elif isinstance(event, AudioEvent):
            play(event.samples)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    seconds = made.samples / conversation.sample_rate
    conversation.retract()
    return {"wall": wall / seconds, "cpu": cpu / seconds}


def _open_loop(stack: ExitStack, model: Engine, system: AudioSystem, seconds: float) -> Callable[[Floats], None]:
    """Open what `voxrill talk` opens; what plays an answer's sound."""
    speaker = stack.enter_context(Speaker(system, model.sample_rate))
    microphone = stack.enter_context(DeviceMicrophone(system))
    floor, voice = Floor(speaker), LiveVoice()
    listener = Listener(
        voice, Endpointer(EndpointOptions()), floor, lambda _signal: None, barge_in=True, begins=voice.begins
    )
    stack.enter_context(listening(microphone, listener, lambda _signal: None, lambda _level: None))
    time.sleep(SETTLING)
    ticket = floor.question()
    floor.begin(ticket, 0.5, seconds)
    return lambda samples: floor.push(ticket, samples)


def measure(model: Engine, seconds: float, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Samples by kind, taken in turn."""
    codec = model.codec.spec
    steps = steps_of(seconds, codec.frame_samples / codec.sample_rate, model.parts.spec.interleave)
    conversation, system = endless_conversation(model), AudioSystem()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    answer(conversation, steps, lambda _samples: None)
    for _ in range(rounds):
        found["idle"].append(answer(conversation, steps, lambda _samples: None))
        with ExitStack() as stack:
            found["live"].append(answer(conversation, steps, _open_loop(stack, model, system, seconds)))
    return found


def figures(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of each kind, and of the rounds' ratios live to idle."""
    medians = {
        kind: {name: statistics.median(one[name] for one in samples) for name in ("wall", "cpu")}
        for kind, samples in found.items()
    }
    ratio = {
        name: statistics.median(
            live[name] / idle[name] for idle, live in zip(found["idle"], found["live"], strict=True)
        )
        for name in ("wall", "cpu")
    }
    return {**medians, "ratio": ratio}


def table(known: dict[str, Any], title: str) -> Table:
    """A row of wall and processor time for each kind, and one of their ratios."""
    drawn = Table(title=title, title_justify="left")
    for column in ("seconds for a second of speech", "wall", "processor"):
        drawn.add_column(column, justify="right" if column != "seconds for a second of speech" else "left")
    for name, row in known.items():
        drawn.add_row("live / idle" if name == "ratio" else name, *(f"{row[part]:.3f}" for part in ("wall", "cpu")))
    return drawn


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with SoundServer("live") as server:
        os.environ.update(server.wire("live").program)  # before PortAudio starts
        found = measure(Loading(args.bundle, args.threads).model(), args.seconds, args.rounds)
    known = figures(found)
    if args.json:
        print(json.dumps({"processor": processor(), **known, "samples": found}))
    else:
        Console(width=120, highlight=False, markup=False).print(table(known, processor()))


if __name__ == "__main__":
    main()
