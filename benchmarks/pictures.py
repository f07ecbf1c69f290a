"""The pictures of the README and of docs/: a terminal, the parts of a turn, and the speed beside the peers.

In: real commands of the built-in model, a talk with a virtual user, and the figures in benchmarks/processors/. Out:
docs/pictures/. The talk needs PulseAudio, and a machine that does nothing else: its times are drawn.

    python -m benchmarks.pictures               # all of them; or some: terminal, turn, peers
"""

from __future__ import annotations

import argparse
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from benchmarks.processors import processors
from benchmarks.protocol import Json
from benchmarks.talk.sound_server import WIRE_RATE, SoundServer
from benchmarks.talk.virtual_user import VirtualUser
from benchmarks.worker import ROOT
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.picture import figure_class, save_picture

FOLDER = ROOT / "docs" / "pictures"
QUESTION = ROOT / "examples" / "question.wav"

COMMANDS = (
    "voxrill transcribe examples/question.wav",
    "voxrill chat examples/question.wav -o answer.wav",
    "voxrill control examples/commands.toml examples/question.wav --dry-run",
)
"""What the terminal shows, and then a talk."""

COLUMNS = 80
_FONT = re.compile(r"@font-face \{\{.*?\}\}\n", re.DOTALL)
"""Rich's picture would load a font from elsewhere; the reader's own will do."""


_CONTROL = re.compile(r"(\r?\n|\r|\x1b\[\d*[AK]|\x1b\[\?25[lh])")


def settled(output: str) -> str:
    """What stands on the screen in the end, after all lines that were drawn over.

    Args:
        output: of a program that goes up (`A`) and clears a line (`K`) before it writes there again, as rich does.
    """
    lines, row = [""], 0
    for piece in _CONTROL.split(output):
        if piece.endswith("\n"):
            row += 1
            lines += [""] * (row == len(lines))
        elif piece.endswith("A"):
            row = max(row - 1, 0)
        elif piece.endswith("K"):
            lines[row] = ""
        elif not _CONTROL.fullmatch(piece):
            lines[row] += piece
    return "\n".join(lines).rstrip("\n")


def shown(session: Sequence[tuple[str, str]]) -> str:
    """A terminal as SVG.

    Args:
        session: each command, and what it wrote on a terminal, colours and all.
    """
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    for command, output in session:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(settled(output)))
    return console.export_svg(title="voxrill", code_format=_FONT.sub("", CONSOLE_SVG_FORMAT), unique_id="terminal")


def typed(words: Sequence[str], folder: Path, during: Callable[[], None] | None = None, **more: str) -> str:
    """What a command writes on a terminal.

    Args:
        words: after `python -m`.
        folder: in which it runs.
        during: done while it runs; then it gets Ctrl-C.
        more: variables of its environment.
    """
    ours, its = pty.openpty()
    environment = {**os.environ, "COLUMNS": str(COLUMNS), "TERM": "xterm-256color", **more}
    with subprocess.Popen(
        [sys.executable, "-m", *words], cwd=folder, env=environment, stdin=its, stdout=its, stderr=its
    ) as process:
        os.close(its)
        if during is not None:
            during()
            process.send_signal(signal.SIGINT)
        said = b""
        with suppress(OSError):  # the other end is closed
            while piece := os.read(ours, 1 << 16):
                said += piece
    os.close(ours)
    return said.decode()


def talk(folder: Path) -> tuple[str, Json]:
    """A talk of one question: what the terminal showed, and the turn's trace."""
    question = read_audio(QUESTION, WIRE_RATE)
    with SoundServer("pictures") as server:
        wire = server.wire("pictures")

        def ask() -> None:
            while not server.listeners(wire):
                time.sleep(0.1)
            with VirtualUser(wire) as user:
                time.sleep(1.0)  # the listener learns what silence is here
                user.say(question)
                time.sleep(len(question) / WIRE_RATE + 6.0)

        text = typed(["voxrill", "talk", "--save", "saved"], folder, ask, **wire.program)
    saved = json.loads((folder / "saved" / "turn-0001.json").read_text(encoding="utf-8"))
    return text, saved["trace"]


def draw_terminal(talked: str, folder: Path) -> None:
    """The commands, which run in `folder`, and a talk that was had."""
    (folder / "examples").symlink_to(ROOT / "examples")
    session = [(command, typed(shlex.split(command), folder)) for command in COMMANDS]
    write_text(FOLDER / "terminal.svg", shown([*session, ("voxrill talk", talked)]))


PARTS = (
    ("silence is waited for", "voice_end", "endpoint", "tab:gray"),
    ("the question is heard", "encoding", "encoded", "tab:blue"),
    ("prompt and question are taken in", "encoded", "prefilled", "tab:blue"),
    ("the first words are written", "prefilled", "spelled", "tab:blue"),
    ("the first sound is made", "spelled", "first_frame", "tab:blue"),
    ("it waits for the end of the turn", "first_frame", "queued", "tab:gray"),
    ("it goes to the loudspeaker", "queued", "played", "tab:orange"),
)
"""What a reader sees of a turn: words, the two times of its trace, and a colour."""


def draw_turn(trace: Json, path: Path) -> None:
    """The parts of one turn, from the user's last sound on.

    Args:
        trace: a `TurnTrace`, as `voxrill talk --save` writes it.
        path: of the picture.
    """
    parts = [
        (words, 1000 * (trace[begin] - trace["voice_end"]), 1000 * (trace[end] - trace["voice_end"]), colour)
        for words, begin, end, colour in PARTS
        if trace[begin] is not None and trace[end] is not None and trace[end] >= trace[begin]
    ]
    figure = figure_class("demo")(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots()
    for number, (_, begin, end, colour) in enumerate(parts):
        axes.barh(number, max(end - begin, 2.0), left=begin, color=colour)
        axes.text(max(end, begin + 2.0) + 4, number, f"{end - begin:.0f} ms", va="center", fontsize=9)
    axes.set_yticks(range(len(parts)), [words for words, *_ in parts])
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("ms after the user's last sound")
    axes.set_title("One turn of a talk with the built-in model", fontsize=11)
    save_picture(figure, path)


COMPARED = (
    "step at 200, with text head",
    "prefill of 100",
    "4 s question to first sound",
    "interleaved speech, time per second of sound",
)
"""What the peers are compared in."""

OURS = "voxrill int4"


def draw_peers(found: Sequence[Json], path: Path) -> None:
    """Time beside ours on each processor, where a peer was measured: shorter is faster.

    Args:
        found: files of benchmarks/processors/.
        path: of the picture.
    """
    parts = [(one["name"], label, _beside(one["figures"].get(label, {}))) for one in found for label in COMPARED]
    parts = [part for part in parts if any(not name.startswith("voxrill") for name in part[2])]
    rows = -(-len(parts) // 2)
    figure = figure_class("demo")(figsize=(10, 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, squeeze=False).flat
    for axes, (processor, label, ratios) in zip(panels, parts, strict=False):
        _bars(axes, ratios)
        axes.set_title(f"{processor}: {label.partition(',')[0]}", fontsize=9)
    for axes in panels:  # an odd one out
        axes.set_axis_off()
    figure.suptitle(f"Time beside {OURS} (1.0); the true shapes, random weights, two threads")
    save_picture(figure, path, dpi=90)


def _beside(figures: dict[str, float]) -> dict[str, float]:
    """Each contender's time by ours. Of our own recipes, two are shown."""
    names = [name for name in figures if name in (OURS, "voxrill small") or not name.startswith("voxrill")]
    return {name: figures[name] / figures[OURS] for name in names if OURS in figures}


def _bars(axes: Any, ratios: dict[str, float]) -> None:
    colours = ["tab:blue" if name.startswith("voxrill") else "tab:gray" for name in ratios]
    axes.barh(list(ratios), list(ratios.values()), color=colours)
    for number, ratio in enumerate(ratios.values()):
        axes.text(ratio, number, f" {ratio:.2f}", va="center", fontsize=8)
    axes.tick_params(axis="y", labelsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("which", nargs="*", default=["terminal", "turn", "peers"])
    which = parser.parse_args().which
    FOLDER.mkdir(exist_ok=True)
    if "peers" in which:
        draw_peers(processors(), FOLDER / "peers.png")
    if {"terminal", "turn"}.isdisjoint(which):
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        typed(["voxrill", "pebble"], folder)  # the built-in model is introduced once on a machine
        talked, trace = talk(folder)
        if "terminal" in which:
            draw_terminal(talked, folder)
    if "turn" in which:
        draw_turn(trace, FOLDER / "turn.png")


if __name__ == "__main__":
    main()
