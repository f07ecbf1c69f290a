"""Help, examples and completion: whole lines, every example is a command that parses, nothing heavy is imported."""

import os
import shlex
import subprocess
import sys

import pytest

import voxrill
from tests.command_line import clean_environment
from voxrill.commands.examples import EXAMPLES
from voxrill.commands.index import COMMANDS, GROUPS, load_command

FOR_COMPLETION = "import voxrill.__main__, sys; sys.argv = ['voxrill']\ntry: voxrill.__main__.main()\nfinally: "


def test_short_options(cli):
    assert cli("-V").out == f"voxrill {voxrill.__version__}\n"
    assert cli("-h").out == cli("--help").out != ""


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_short_help_and_examples(cli, command):
    ran = cli(command, "-h")
    assert ran.status == 0 and ran.out == cli(command, "--help").out
    assert "Examples:\n" in ran.out and all(f"    {line}\n" in ran.out for line in EXAMPLES[command])


@pytest.mark.parametrize("arguments", [("--help",), ("eval", "--help"), ("bench", "--help")], ids=" ".join)
@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_no_line_of_help_is_cut_off(cli, monkeypatch, arguments, columns):
    monkeypatch.setenv("COLUMNS", columns)
    ran = cli(*arguments)
    assert "..." not in ran.out.partition("\n")[2] and "\N{HORIZONTAL ELLIPSIS}" not in ran.out


def test_the_panels_hold_every_line_whole(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    shown = " ".join(cli("-h").out.split())
    for group, commands in GROUPS.items():
        assert f"{group}:" in shown
        assert all(f"{name} {entry.help}" in shown for name, entry in commands.items())


def pipe(line):
    """The commands of a line of the shell, as lists of words."""
    parts = [[]]
    for word in shlex.split(line):
        parts.append([]) if word == "|" else parts[-1].append(word)
    return parts


EVERY_EXAMPLE = {
    line: words for lines in EXAMPLES.values() for line in lines for words in pipe(line) if words[0] == "voxrill"
}


def test_every_command_has_examples():
    assert list(EXAMPLES) == list(COMMANDS)


@pytest.mark.parametrize("words", EVERY_EXAMPLE.values(), ids=EVERY_EXAMPLE)
def test_an_example_is_a_command_line(words):
    """Parsed as it would be run: an unknown option or a missing argument raises."""
    _, name, *rest = words
    command = load_command(name)
    if name == "eval":
        command = command.commands[rest.pop(0)]
    assert command.make_context(name, rest).params


# Completion


def completed(cwd, script, **asked):
    """What the shell is offered, and which modules that took."""
    done = subprocess.run(
        [sys.executable, "-c", f"{FOR_COMPLETION}{script}"],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=clean_environment(_VOXRILL_COMPLETE="complete_bash", **asked),
        timeout=60,
    )
    assert done.stderr in ("", "[]\n"), done.stderr
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("voxrill ", list(COMMANDS)),
        ("voxrill tra", ["transcribe", "translate"]),
        ("voxrill nothing", []),
        ("voxrill talk --ba", ["--barge-in"]),
        ("voxrill eval ", ["asr", "tts", "chat", "voicebench"]),
        ("voxrill eval asr --norm", ["--normaliser"]),
    ],
)
def test_the_shell_completes_commands_and_options(tmp_path, words, wanted):
    last = len(words.split(" ")) - 1
    assert completed(tmp_path, "pass", COMP_WORDS=words, COMP_CWORD=str(last)) == wanted


def test_completing_a_command_imports_none(tmp_path):
    heavy = "print([name for name in sys.modules if name in ('numpy', 'rich', 'onnxruntime')], file=sys.stderr)"
    assert completed(tmp_path, heavy, COMP_WORDS="voxrill s", COMP_CWORD="1")[0] == "speak"


def test_the_script_for_the_shell(tmp_path):
    environment = clean_environment(_VOXRILL_COMPLETE="source_bash")
    done = subprocess.run(
        [sys.executable, "-m", "voxrill"], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=60
    )
    assert done.returncode == 0 and "complete -o default -F _voxrill_completion voxrill" in done.stdout
    assert os.listdir(tmp_path) == []
