"""The model that ships inside the package: taken where no other is named, and said to be.

Nothing here asks whether the model is good.
"""

import json
import re
import runpy
import shutil
from pathlib import Path

import msgspec
import pytest
import soundfile
from rich.console import Console

import voxrill
from tests.places import ROOT
from voxrill.commands import answers, options
from voxrill.runtime.apps.classify import Classifier
from voxrill.runtime.bundle import builtin
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.manifest import Taught, decode_manifest
from voxrill.runtime.serve.limits import Limits

QUESTION = ROOT / "examples" / "question.wav"
PEBBLE = Path(voxrill.__file__).resolve().parent / "pebble"
TAUGHT = open_builtin().manifest.taught
NOTE = options.builtin_note(open_builtin().manifest)
REINSTALL = "pip install --force-reinstall voxrill"

RUNS = {
    "transcribe": ("transcribe", QUESTION),
    "transcribe-json": ("transcribe", QUESTION, QUESTION, "--json"),
    "speak": ("speak", "kitchen lights on", "-o", "a.wav"),
    "speak-json": ("speak", "kitchen lights on", "-o", "a.wav", "--json"),
    "speak-raw": ("speak", "kitchen lights on", "-o", "-"),
    "chat": ("chat", "--audio", QUESTION, "-o", "b.wav"),
    "chat-json": ("chat", "--text", "kitchen lights on", "--json"),
    "inspect": ("inspect",),
    "inspect-json": ("inspect", "--json"),
    "verify": ("verify",),
    "verify-json": ("verify", "--json"),
    "pack": ("pack", "-o", "pebble.voxrill"),
}
every_run = pytest.mark.parametrize("run", RUNS.values(), ids=RUNS)


def named(run):
    """The same command with the bundle named."""
    return (
        (*run, PEBBLE / "bundle") if run[0] in ("inspect", "verify", "pack") else (*run, "--bundle", PEBBLE / "bundle")
    )


@pytest.fixture
def installed(monkeypatch, tmp_path) -> Path:
    """Where the command line finds the built-in model's files: a folder to put them in."""
    monkeypatch.setattr(builtin, "_folder", lambda: tmp_path / "pebble")
    return tmp_path / "pebble"


# Running it


@every_run
def test_it_runs_where_no_bundle_is_named_and_says_so_once(cli, run):
    ran = cli(*run)
    assert ran.status == 0
    assert ran.err.endswith(NOTE + "\n")  # after the answer, which is why it was run
    assert ran.err.count("Pebble") == 1
    assert b"Pebble" not in ran.raw


@every_run
def test_nothing_is_said_of_a_bundle_that_is_named(cli, run):
    ran = cli(*named(run))
    assert ran.status == 0 and "Pebble" not in ran.err


@every_run
def test_nothing_is_said_of_a_bundle_from_the_environment(cli, monkeypatch, run):
    monkeypatch.setenv("VOXRILL_BUNDLE", str(PEBBLE / "bundle"))
    ran = cli(*run)
    assert ran.status == 0 and "Pebble" not in ran.err


@pytest.mark.parametrize("run", [RUNS["transcribe"], RUNS["chat"], RUNS["verify"]], ids=lambda run: run[0])
def test_the_environment_comes_first(cli, monkeypatch, run):
    monkeypatch.setenv("VOXRILL_BUNDLE", "nowhere")
    cli.refuses(*run, saying="no bundle at nowhere")


def test_it_is_the_same_model_as_by_its_name(cli):
    assert cli(*RUNS["transcribe"]).out == cli(*named(RUNS["transcribe"])).out
    assert cli(*RUNS["inspect"]).out == cli(*named(RUNS["inspect"])).out
    assert cli(*RUNS["verify"]).out.startswith(f"{PEBBLE / 'bundle'}: ")


def test_the_sound_is_written(cli):
    assert cli(*RUNS["speak"]).status == cli(*RUNS["chat"]).status == 0
    assert soundfile.info("a.wav").samplerate == soundfile.info("b.wav").samplerate == 24_000


def test_the_note_names_the_list_the_refusal_and_the_way_to_the_real_model():
    for part in ("voxrill pebble", TAUGHT.refusal, "voxrill export LiquidAI/LFM2.5-Audio-1.5B", "--bundle bundle"):
        assert part in NOTE
    assert NOTE.count("\n") == 1


def test_from_python(cli):
    model = voxrill.load(threads=1)
    assert model.bundle.directory == PEBBLE / "bundle"
    assert model.transcribe(QUESTION).text + "\n" == cli(*RUNS["transcribe"]).out


# Its world


def test_the_world_for_machines(cli):
    ran = cli("pebble", "--json")
    assert ran.status == 0 and ran.err == ""
    assert json.loads(ran.out) == json.loads((PEBBLE / "world.json").read_bytes())
    assert {item["say"]: item["reply"] for item in json.loads(ran.out)} == voxrill.pebble_world()


def test_the_world_for_grep(cli):
    ran = cli("pebble")
    assert ran.status == 0 and ran.err == ""
    assert [tuple(line.split("\t")) for line in ran.out.splitlines()] == list(voxrill.pebble_world().items())


def test_the_world_for_people(cli, monkeypatch):
    monkeypatch.setattr(answers, "stdout", Console(force_terminal=True, width=100, color_system=None))
    ran = cli("pebble")
    assert ran.status == 0
    assert re.search(r"turn on the kitchen lights +│ kitchen lights on ", ran.out)
    assert f"{len(voxrill.pebble_world())} commands" in ran.out and TAUGHT.refusal in ran.out


def test_its_words_are_the_model_s():
    encode = voxrill.load(threads=1).parts.tokenizer.encode
    for text in (TAUGHT.refusal, *voxrill.pebble_world(), *voxrill.pebble_world().values()):
        encode(text)  # refuses words that the model does not know


# What it was taught is data


def test_a_model_is_asked_as_its_manifest_says(tmp_path):
    """The same weights with another manifest: nothing else tells Pebble from another model."""
    bundle = open_builtin()

    def model(taught):
        return voxrill.Model(Bundle(bundle.directory, msgspec.structs.replace(bundle.manifest, taught=taught)), 1)

    commands = tmp_path / "commands.toml"
    commands.write_text('[commands.on]\nsay = ["lights on"]\n')
    other = model(Taught(labels={"style": ("calm", "excited", "music")}, refusal="hello", turns=3))
    assert Classifier(other, task="style").labels == ("calm", "excited", "music")
    assert other.control(commands).ask_back == "hello"
    none = model(Taught())
    with pytest.raises(voxrill.VoxrillError, match="no labels to tell apart"):
        Classifier(none, task="style")
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    from voxrill.runtime.serve.service import Service

    assert Service(other, Limits()).turns == 3
    assert Service(none, Limits()).turns is None


def test_a_manifest_without_teaching_is_read_and_one_with_more_is_refused():
    raw = msgspec.json.decode((PEBBLE / "bundle" / "manifest.json").read_bytes())
    taught = raw.pop("taught")
    assert decode_manifest(msgspec.json.encode(raw), "here").taught == Taught()
    with pytest.raises(voxrill.BundleError, match="unknown field `colour`"):
        decode_manifest(msgspec.json.encode(raw | {"taught": taught | {"colour": "red"}}), "here")


# A broken installation


@every_run
def test_an_installation_without_the_model(cli, installed, run):
    cli.refuses(*run, saying=("the built-in model is not whole", "no bundle at", REINSTALL, "--bundle FOLDER"))


def test_an_installation_with_a_changed_file(cli, installed):
    shutil.copytree(PEBBLE, installed)
    (installed / "bundle" / "tokenizer.json").write_text("{}")
    cli.refuses(
        *RUNS["transcribe"], saying=("the built-in model is not whole", "tokenizer.json has 2 bytes", REINSTALL)
    )


@pytest.mark.parametrize("raw", [None, b"[", b'[{"say": "hello"}]'], ids=["missing", "no-json", "no-reply"])
@pytest.mark.parametrize("options", [(), ("--json",)], ids=["text", "json"])
def test_an_installation_without_the_world(cli, installed, raw, options):
    installed.mkdir()
    if raw is not None:
        (installed / "world.json").write_bytes(raw)
    cli.refuses("pebble", *options, saying=("the built-in model is not whole", "world.json cannot be read", REINSTALL))


# The demo


def test_the_demo(monkeypatch, capfd, tmp_path):
    pytest.importorskip("matplotlib", reason="the demo extra is not installed")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("VOXRILL_BUNDLE", "nowhere")
    runpy.run_path(str(ROOT / "examples" / "demo.py"))["main"](tmp_path)
    out = capfd.readouterr().out
    assert [line.split()[2] for line in out.splitlines() if line.startswith("$ ")] == ["transcribe", "chat", "speak"]
    assert (tmp_path / "spectrogram.png").read_bytes().startswith(b"\x89PNG")
    assert soundfile.info(tmp_path / "answer.wav").samplerate == 24_000
    assert (tmp_path / "sentence.wav").is_file()
