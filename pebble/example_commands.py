"""The whole world as a file of commands: `python example_commands.py` writes examples/commands.toml.

In: `world.toml`. Out: its commands and slots in the form of a file for `voxrill control`. A slot of the world may hold
slots; a file of commands has them written out.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from textwrap import fill, indent

from world import REFUSAL, WORLD, World, slots_of

from voxrill.runtime.atomic_write import write_text

FILE = Path(__file__).parent.parent / "examples" / "commands.toml"
HEAD = """\
# Commands for the built-in model: voxrill control commands.toml question.wav
# runtime/apps/grammar.py explains every key. These commands are only printed and confirmed. To make a command do
# something, give it run = ["program", "{slot}"] or call = "module:function".
# It is all that the built-in model was taught. A shorter file is safer: keep the commands that you want.
# pebble/example_commands.py writes this file.
"""
WIDTH = 120
COARSE = {"percent": 5}
"""Steps of numbers: a file with every per cent would have 50,000 sentences."""
NO_COMMANDS = ("sums", "talk", "facts")
"""Intents of questions: they have an answer, and nothing to do."""


def _declared(world: World, slot: str) -> str:
    """A slot in TOML: a range, a list, or a table with the words for each value."""
    values = world.values(slot)
    numbers = [value.number for value in values if value.number is not None]
    if numbers:
        steps = {after - before for before, after in pairwise(numbers)}
        step = COARSE.get(slot) or (steps.pop() if len(steps) == 1 else 0)
        if not step:
            return f"{slot} = {_list(numbers)}"
        return f"{slot} = {{ from = {numbers[0]}, to = {numbers[-1]}{f', step = {step}' if step > 1 else ''} }}"
    said: dict[str, list[str]] = {}
    for value in values:
        said.setdefault(value.shown, []).append(value.said)
    if all(words == [shown] for shown, words in said.items()):
        return f"{slot} = {_list(said)}"
    return "\n".join([f"[slots.{slot}]", *(f"{json.dumps(shown)} = {_list(words)}" for shown, words in said.items())])


def _list(values: Iterable[object]) -> str:
    """An array in lines of at most `WIDTH`."""
    items = ", ".join(json.dumps(value) for value in values)
    if len(items) < WIDTH - 20:
        return f"[{items}]"
    lines = fill(items.replace(", ", ",\n").replace(" ", "\0").replace("\n", " "), WIDTH - 4, break_long_words=False)
    return "[\n" + indent(lines.replace("\0", " "), "    ") + ",\n]"


def text(world: World) -> str:
    """The file."""
    ours = {
        name: pattern
        for name, pattern in world.patterns.items()
        if pattern.intent not in NO_COMMANDS and "{miles}" not in pattern.confirm
    }
    used = dict.fromkeys(slot for pattern in ours.values() for phrase in pattern.say for slot in slots_of(phrase))
    slots = sorted((_declared(world, slot) for slot in used), key=lambda slot: slot.startswith("["))
    lines = [HEAD, f"ask_back = {json.dumps(REFUSAL)}", "", "[slots]", *slots]
    for name, pattern in ours.items():
        lines += ["", f"[commands.{name}]", f"say = {_list(pattern.say)}", f"confirm = {json.dumps(pattern.confirm)}"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    write_text(FILE, text(WORLD))
