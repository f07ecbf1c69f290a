"""The pictures: what a terminal shows in the end, and plots that hold what they are given."""

import re
import sys

import pytest

from benchmarks.pictures import PARTS, draw_peers, draw_turn, settled, shown, typed


@pytest.mark.parametrize(
    ("output", "left"),
    [
        ("one\r\ntwo\r\n", "one\ntwo"),
        ("listening\r\x1b[2Kyou: lights on\r\nspeaking\r\x1b[2K\x1b[1A\x1b[2Kyou: lights on\r\n", "you: lights on"),
        ("\x1b[?25l\x1b[32mgreen\x1b[0m\x1b[?25h", "\x1b[32mgreen\x1b[0m"),
    ],
    ids=["lines", "drawn over", "colours stay"],
)
def test_what_stands_on_the_screen_in_the_end(output, left):
    assert settled(output) == left


def test_a_terminal_is_drawn_and_loads_nothing():
    picture = shown([("voxrill speak", "\x1b[2mwrote answer.wav\x1b[0m\r\n")])
    assert "answer.wav" in picture and "voxrill" in picture
    assert not re.search(r"url\(http|@font-face|href=", picture)


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_a_command_is_on_a_terminal(tmp_path):
    (tmp_path / "asks.py").write_text("import sys; print(sys.stdout.isatty(), sys.stderr.isatty())")
    assert settled(typed(["asks"], tmp_path)) == "True True"


@pytest.fixture
def texts(monkeypatch):
    """Every text of the figures that are drawn."""
    pytest.importorskip("matplotlib")
    from matplotlib.text import Text

    found = []
    set_text = Text.set_text
    monkeypatch.setattr(Text, "set_text", lambda self, text: (found.append(str(text)), set_text(self, text))[1])
    return found


def test_a_turn_is_drawn(tmp_path, texts):
    times = dict.fromkeys([name for _, begin, end, _ in PARTS for name in (begin, end)], None)
    draw_turn(times | {"voice_end": 10.0, "endpoint": 10.102}, tmp_path / "turn.png")
    assert (tmp_path / "turn.png").stat().st_size > 1000
    assert "102 ms" in texts and not any("sound is made" in text for text in texts)


def test_peers_are_drawn_beside_ours_where_there_are_any(tmp_path, texts):
    figures = {"prefill of 100": {"voxrill int4": 10.0, "voxrill int8": 8.0, "other": 25.0}}
    alone = {"prefill of 100": {"voxrill int4": 10.0}}
    draw_peers([{"name": "A", "figures": figures}, {"name": "B", "figures": alone}], tmp_path / "peers.png")
    assert {" 1.00", " 2.50", "A: prefill of 100"} <= set(texts)
    assert not {" 0.80", "B: prefill of 100"} & set(texts)
