"""The echo canceller and its gate in twenty simulated rooms: does the loop interrupt itself, and is the user heard?

In: spoken sounds, as the answer and as the user. Out: a row for each room. Rooms are boxes, by the image method; the
loudspeaker of every fourth one distorts, and that of every fifth is a wireless one, half a second late and never
equally late, which no canceller follows. The answer plays alone for 10 s, then the user
speaks into it, near or far.

    python -m benchmarks.talk.rooms [--people FOLDER] [--json]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.talk.measuring import voiced
from benchmarks.talk.questions import read_questions
from benchmarks.talk.sound_server import WIRE_RATE
from voxrill.runtime.audio.echo import FRAME, Cancel, canceller
from voxrill.runtime.audio.echo_gate import EchoGate
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.live_voice import PIECE, LiveVoice
from voxrill.runtime.audio.protocols import BLOCK, RATE, Floats
from voxrill.runtime.audio.sinc_resampler import resample

SPEED = 343.0
"""Metres a second."""

ALONE, BOTH = 10.0, 4.0
"""Seconds for which the answer plays alone, and with the user."""

TAIL = 0.25
"""Seconds of a room's echo."""

_SOUNDS = 40
"""Spoken sounds that are taken."""

_LEARNING = 2.0
"""Seconds that are not counted in the echo's loss."""


@dataclass(frozen=True)
class Room:
    """A box, and what is in it.

    size, speaker, mouth, ear: metres. walls: the part of a wave's pressure that a wall sends back. latency: seconds
    until the loudspeaker sounds. echo, noise: levels at the ear, full scale 1. distorts, wireless: the loudspeaker.
    """

    size: tuple[float, float, float]
    speaker: tuple[float, float, float]
    mouth: tuple[float, float, float]
    ear: tuple[float, float, float]
    walls: float
    latency: float
    echo: float
    noise: float
    distorts: bool
    wireless: bool


@dataclass(frozen=True)
class RoomResult:
    """What happened in a room.

    loss: dB by which the echo is lower after the canceller. open: the gate, before the user speaks. interrupted: turns
    that the answer's own echo began. heard: the user was noticed while the answer played. delay: seconds from the
    user's first voiced sample to the answer being held.
    """

    room: str
    loss: float
    open: bool
    interrupted: int
    heard: bool
    delay: float | None


def rooms(count: int = 20) -> dict[str, Room]:
    """Rooms by name, always the same; near and far in turn."""
    found = {}
    for number in range(count):
        draw = np.random.default_rng(number)
        size = draw.uniform((2.5, 2.5, 2.3), (8.0, 6.0, 3.2))
        ear = size * draw.uniform(0.3, 0.6, 3)
        away, far = draw.uniform(0.15, 0.6), bool(number % 2)
        mouth = np.clip(ear + (draw.uniform(1.5, 3.0) if far else 0.5) * np.array([1.0, 0.0, 0.1]), 0.1, size - 0.1)
        distorts, wireless = number % 4 == 3, number % 5 == 4
        name = f"{number + 1}, {'far' if far else 'near'}{', distorts' * distorts}{', wireless' * wireless}"
        found[name] = Room(
            size=_place(size),
            speaker=_place(ear + away * np.array([0.0, 1.0, 0.0])),
            mouth=_place(mouth),
            ear=_place(ear),
            walls=float(draw.uniform(0.5, 0.9)),
            latency=0.5 if wireless else float(draw.uniform(0.02, 0.12)),
            echo=float(draw.uniform(0.02, 0.1)),
            noise=float(10 ** draw.uniform(-4.0, -3.0)),
            distorts=distorts,
            wireless=wireless,
        )
    return found


def _place(metres: NDArray[np.float64]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in metres)
    return x, y, z


def impulse(room: Room, source: tuple[float, float, float]) -> Floats:
    """The room's answer (n,) at the ear to a click at `source`: the image method (Allen and Berkley, 1979)."""
    response = np.zeros(round(TAIL * RATE))
    farthest = [int(TAIL * SPEED / (2 * side)) + 1 for side in room.size]
    steps = np.meshgrid(*(np.arange(-most, most + 1) for most in farthest), [0, 1], [0, 1], [0, 1], indexing="ij")
    cells, flips = steps[:3], steps[3:]
    squared, bounces = np.zeros(cells[0].shape), np.zeros(cells[0].shape)
    for cell, flip, side, at, ear in zip(cells, flips, room.size, source, room.ear, strict=True):
        squared += ((1 - 2 * flip) * at + 2 * cell * side - ear) ** 2
        bounces += np.abs(cell - flip) + np.abs(cell)
    metres = np.maximum(np.sqrt(squared), 0.05)
    late = np.rint(metres / SPEED * RATE).astype(int)
    inside = late < len(response)
    np.add.at(response, late[inside], (room.walls**bounces / metres)[inside])
    return np.asarray(response / np.abs(response).max(), np.float32)


def sounding(samples: Floats, response: Floats, level: float) -> Floats:
    """Samples (n,) in a room, at a level (RMS where it is voiced)."""
    there = np.convolve(samples, response)[: len(samples)]
    loud = np.abs(there) > 0.05 * np.abs(there).max()
    return np.asarray(there * level / np.sqrt(np.mean(there[loud] ** 2)), np.float32)


def visit(name: str, room: Room, answer: Floats, user: Floats, cancel: Cancel) -> RoomResult:
    """Play `answer` (n,) in a room, and have `user` (m,) speak into it."""
    length, begins = round((ALONE + BOTH) * RATE) // BLOCK * BLOCK, round(ALONE * RATE)
    played = np.resize(answer, length).astype(np.float32)
    cone = np.tanh(6.0 * played) / 6.0 if room.distorts else played
    late = np.concatenate([np.zeros(round(room.latency * RATE), np.float32), cone])[:length]
    if room.wireless:  # its latency swings by 5 ms every 0.7 s
        times = np.arange(length)
        late = np.interp(times + 0.005 * RATE * np.sin(2 * np.pi * times / (0.7 * RATE)), times, late)
    echo = sounding(late, impulse(room, room.speaker), room.echo)
    near = np.zeros(length, np.float32)
    near[begins : begins + len(user)] = user[: length - begins]
    near = sounding(near, impulse(room, room.mouth), 0.05)
    hiss = room.noise * np.random.default_rng(0).standard_normal(length)
    heard = (echo + near + hiss).astype(np.float32)

    gate, left, raw = EchoGate(), [], []
    opened = False
    for at in range(0, length - FRAME + 1, FRAME):
        frame, known = heard[at : at + FRAME], played[at : at + FRAME]
        raw.append(cancel(frame, known))
        left.append(gate(known, frame, raw[-1]))
        opened = gate.open if at < begins else opened
    alone = slice(round(_LEARNING * RATE), begins)
    loss = _decibels(heard[alone]) - _decibels(np.concatenate(raw)[alone])
    first = begins + (voiced(near[begins:], RATE) or (0, 0))[0]
    interrupted, held, began = _followed(np.concatenate(left), first)
    delay = None if held is None or began is None else (held - first) / RATE
    return RoomResult(name, round(loss, 1), opened, interrupted, began is not None, delay)


def _followed(sound: Floats, first: int) -> tuple[int, int | None, int | None]:
    """Turns that begin before sample `first`; where the answer is held after it, and where a turn begins."""
    voice, endpointer = LiveVoice(), Endpointer(EndpointOptions())
    interrupted, held, began = 0, None, None
    for at in range(0, len(sound) - BLOCK + 1, BLOCK):
        glances = [at + end for end in range(PIECE, BLOCK + 1, PIECE) if voice.begins(sound[at : at + end])]
        decision = endpointer.hear(voice(sound[at : at + BLOCK]))
        seen = [*glances, *([at + BLOCK] if endpointer.suspecting or decision == "began" else [])]
        if at + BLOCK > first and held is None:
            held = next((place for place in seen if place > first), None)
        if decision == "began":
            if at + BLOCK <= first:
                interrupted += 1
                endpointer.reset()
            elif began is None:
                began = at + BLOCK
    return interrupted, held, began


def _decibels(samples: Floats) -> float:
    return float(10 * np.log10(np.mean(np.square(samples, dtype=np.float64)) + 1e-12))


def table(results: Sequence[RoomResult]) -> Table:
    """A row for each room."""
    drawn = Table(title="the answer plays alone for 10 s, then the user speaks into it", title_justify="left")
    for column in ("room", "echo lower by, dB", "user may interrupt", "interrupts itself", "user heard", "held, ms"):
        drawn.add_column(column, justify="left" if column == "room" else "right")
    for one in results:
        delay = "-" if one.delay is None else f"{1000 * one.delay:.0f}"
        told = ["yes" if word else "no" for word in (one.open, one.heard)]
        drawn.add_row(one.room, f"{one.loss:.1f}", told[0], str(one.interrupted), told[1], delay)
    return drawn


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--people", type=Path, help="folder of spoken sounds; without one, Pebble's held-out ones")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    sounds = [resample(one.samples, WIRE_RATE, RATE) for one in read_questions(args.people, _SOUNDS)]
    visited = [
        visit(name, room, np.concatenate(sounds[number:] + sounds[:number]), sounds[-1 - number], canceller())
        for number, (name, room) in enumerate(rooms().items())
    ]
    if args.json:
        print(json.dumps([asdict(one) for one in visited]))
    else:
        Console(width=120, highlight=False, markup=False).print(table(visited))


if __name__ == "__main__":
    main()
