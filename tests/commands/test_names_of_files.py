"""Names of files that a terminal would obey: every command shows them, and none acts."""

import json
import re
import shutil

import pytest

import voxrill
from tests.places import PEBBLE, QUESTION, ROOT
from voxrill.commands.output import out
from voxrill.runtime.printable import as_unicode, printable, printable_text, safe_json

NAME = "a\x1b]0;owned\x07\x9b2J\u202etxt.\u2066\rb\nc"
SHOWN = r"a\x1b]0;owned\x07\x9b2J\u202etxt.\u2066\x0db\x0ac"
OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")

COMMANDS = {
    "transcribe": ("transcribe", "{hostile}"),
    "transcribe-folder": ("transcribe", "{folder}"),
    "transcribe-two": ("transcribe", "{sound}", "{sound}"),
    "chat": ("chat", "--audio", "{hostile}"),
    "chat-out": ("chat", "--text", "hello", "-o", "{folder}/x.wav"),
    "speak": ("speak", "hello", "-o", "{folder}/made.wav"),
    "ask": ("ask", "kettle?", "--docs", "{folder}", "--quote"),
    "ask-json": ("ask", "kettle?", "--docs", "{folder}", "--quote", "--json"),
    "ask-nowhere": ("ask", "kettle?", "--docs", "{hostile}", "--quote"),
    "control": ("control", "{hostile}", "{sound}"),
    "control-sound": ("control", "{commands}", "{sound}", "{sound}"),
    "classify": ("classify", "{hostile}", "--labels", "on,off"),
    "eval": ("eval", "asr", "--data", "{hostile}"),
    "eval-folder": ("eval", "asr", "--data", "{folder}"),
    "inspect": ("inspect", "{hostile}"),
    "verify": ("verify", "{bundle}"),
    "verify-json": ("verify", "{bundle}", "--json"),
    "pack": ("pack", "{bundle}", "-o", "{folder}/made.voxrill"),
    "unpack": ("unpack", "{hostile}", "-o", "x"),
    "tune": ("tune", "{hostile}"),
    "plan": ("plan", "{hostile}"),
    "quantize": ("quantize", "{hostile}", "-o", "x"),
    "accept": ("accept", "{bundle}", "--published", "{hostile}"),
    "golden": ("golden", "{hostile}"),
    "replay": ("replay", "{hostile}"),
}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Files and folders of that name, by what a command calls them."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / NAME
    folder.mkdir()
    (folder / f"{NAME}.txt").write_text("The kettle boils.")
    (folder / f"{NAME}.html").symlink_to("nowhere")
    sound = folder / f"{NAME}.wav"
    shutil.copy(QUESTION, sound)
    shutil.copytree(PEBBLE, tmp_path / f"{NAME} bundle")
    return {
        "hostile": tmp_path / f"none {NAME}",
        "folder": folder,
        "sound": sound,
        "commands": ROOT / "examples" / "commands.toml",
        "bundle": tmp_path / f"{NAME} bundle",
    }


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_what_a_terminal_obeys(command, places, cli):
    ran = cli(*(word.format(**places) for word in COMMANDS[command]))
    assert not OBEYED.search(ran.out + ran.err), ran
    assert "owned" in "".join((ran.out + ran.err).split())  # tables fold long names


def test_json_has_the_true_name(places, cli):
    ran = cli("ask", "kettle?", "--docs", places["folder"], "--quote", "--json")
    (source,) = json.loads(ran.out)["sources"]
    assert source["file"] == f"{NAME}.txt"


def test_a_name_as_a_terminal_and_as_json_get_it():
    assert printable(NAME) == SHOWN
    assert printable_text(NAME) == SHOWN.replace(r"\x0a", "\n")
    assert printable("caf\udce9") == as_unicode("caf\udce9") == "caf\ufffd"
    assert as_unicode(NAME) == NAME
    for text in (NAME, "plain", "café", "\x7f"):
        encoded = safe_json(json.dumps(text, ensure_ascii=False).encode())
        assert json.loads(encoded) == text and not OBEYED.search(encoded.decode())


def test_errors_and_tables_are_safe(capsys):
    assert str(voxrill.VoxrillError(f"there is no {NAME[:-2]}")).isprintable()
    out.print(NAME)
    out.print(f"[bold]{NAME}", style="red")
    assert not OBEYED.search(capsys.readouterr().out)
