"""Progress where there is no terminal: a line a stage, with what is left; nothing with --quiet."""

import io

import pytest
from rich.console import Console

from voxrill.commands import output
from voxrill.commands.quiet import be_quiet
from voxrill.runtime.progress import Lines, remaining, step_progress


def test_a_line_for_each_stage_with_what_is_left():
    told, clock = [], iter([0.0, 0.0, 60.0, 61.0, 150.0])
    lines = Lines("export", told.append, lambda: next(clock))
    for done, stage in enumerate(["encoder", "decoder", "decoder", "codec"]):
        lines.step(stage, min(done, 2) if stage != "decoder" else 1, 4)
    assert told == [
        "export: encoder, 0 of 4",
        "export: decoder, 1 of 4, about 3 min left",
        "export: codec, 2 of 4, about 1 min left",
    ]


def test_a_long_stage_is_told_at_each_tenth():
    told = []
    lines = Lines("transcribing", told.append, lambda: 0.0)
    for done in range(101):
        lines.step("transcribing", done, 100)
    assert len(told) == 11 and told[0].startswith("transcribing, 0 of 100")


@pytest.mark.parametrize(
    ("elapsed", "done", "words"), [(10, 0, ""), (10, 4, ""), (10, 1, "about 30 s left"), (300, 2, "about 5 min left")]
)
def test_the_time_that_is_left(elapsed, done, words):
    assert remaining(elapsed, done, 4) == words


@pytest.mark.parametrize("lines", [False, True])
def test_only_long_work_fills_a_log(lines):
    console = Console(file=io.StringIO())
    with step_progress(console, "export", lines) as progress:
        progress("decoder", 0, 2)
    assert console.file.getvalue() == ("export: decoder, 0 of 2\n" if lines else "")


def test_quiet_has_no_progress(capsys):
    be_quiet(True)
    try:
        with step_progress(output.err, "export", lines=True) as progress:
            progress("decoder", 0, 2)
    finally:
        be_quiet(False)
    assert capsys.readouterr().err == ""
