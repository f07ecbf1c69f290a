"""Clocks that jump, as when a machine learns the time of day from the network, do nothing to a conversation.

What waits, measures or counts in the live loop reads clocks that only go forward. That is proved from the source: a
clock that jumped in a test would show one path at one moment.
"""

import ast
import time

import pytest

from tests.places import ROOT

LIVE = ("runtime/audio", "runtime/talk", "runtime/serve/realtime", "runtime/serve/wyoming")
JUMPING = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "time.ctime", "time.clock_gettime"} | {
    f"{name}.{reads}" for name in ("datetime", "date", "datetime.datetime") for reads in ("now", "today", "utcnow")
}


def clocks_read(source):
    """Dotted names in a module that read the time of day, imported ones included."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in JUMPING:
            yield ast.unparse(node)
        if isinstance(node, ast.ImportFrom) and node.module == "time":
            yield from (f"time.{name.name}" for name in node.names if f"time.{name.name}" in JUMPING)


@pytest.mark.parametrize("room", LIVE)
def test_no_module_of_the_live_loop_reads_the_time_of_day(room):
    files = sorted((ROOT / room).rglob("*.py"))
    assert files
    assert {str(file): found for file in files if (found := list(clocks_read(file.read_text())))} == {}


def test_the_proof_finds_such_a_clock():
    assert list(clocks_read("import time\nfrom time import time_ns\nuntil = time.time() + 3\n")) == [
        "time.time_ns",
        "time.time",
    ]


@pytest.mark.parametrize("clock", ["perf_counter", "monotonic"])
def test_the_clocks_that_are_read_go_forward_only(clock):
    assert time.get_clock_info(clock).monotonic
