"""Writing a bundle never costs a user a file: only a bundle is replaced, only when asked to, and in one step."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import clean_environment, contents
from tests.places import PEBBLE, ROOT
from voxrill.runtime.bundle import atomic_folder
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.manifest import MANIFEST_FILE
from voxrill.runtime.bundle.pack import pack
from voxrill.runtime.bundle.replacing import replacing_bundle
from voxrill.runtime.errors import BundleError, UsageError

WEB = {"name": "My page", "start_url": "/", "format": 2, "icons": []}
"""A web application's manifest.json, with a key of ours by chance."""


@pytest.fixture
def bundle(tmp_path) -> Path:
    """The built-in bundle, in a folder where nothing else is."""
    shutil.copytree(PEBBLE, tmp_path / "place" / "bundle")
    return tmp_path / "place" / "bundle"


@pytest.fixture
def packed(tmp_path) -> Path:
    """The same in one file."""
    pack(open_bundle(PEBBLE), tmp_path / "pebble.voxrill")
    return tmp_path / "pebble.voxrill"


# What may be replaced


def web_application(folder):
    shutil.rmtree(folder)
    (folder / "src").mkdir(parents=True)
    (folder / MANIFEST_FILE).write_text(json.dumps(WEB))
    (folder / "src" / "app.js").write_text("let years")


def a_bundle_with_a_file_of_the_user(folder):
    (folder / "notes.txt").write_text("years")


def a_bundle_with_a_link(folder):
    (folder / "photos").symlink_to(folder.parent)


def a_bundle_with_a_recording_beside_its_compiled_form(folder):
    (folder / "compiled" / "SM8650").mkdir(parents=True)
    for name in ("compiled.json", "decoder.onnx", "decoder_qnn.bin", "song.wav"):
        (folder / "compiled" / "SM8650" / name).write_text("{}")


def an_older_bundle(folder):
    manifest = json.loads((folder / MANIFEST_FILE).read_bytes())
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest | {"format": 1}))


def a_file(folder):
    shutil.rmtree(folder)
    folder.write_text("years")


def a_broken_link(folder):
    shutil.rmtree(folder)
    folder.symlink_to("nowhere")


STRANGERS = {
    "web-application": (web_application, "is not a bundle that this Voxrill knows"),
    "notes": (a_bundle_with_a_file_of_the_user, "holds notes.txt, which its manifest does not list"),
    "link": (a_bundle_with_a_link, "holds photos"),
    "recording": (a_bundle_with_a_recording_beside_its_compiled_form, "holds compiled/SM8650/song.wav"),
    "older": (an_older_bundle, "bundle format 1"),
    "file": (a_file, "is not a bundle"),
    "broken-link": (a_broken_link, "is not a bundle"),
}


@pytest.mark.parametrize(("make", "says"), STRANGERS.values(), ids=STRANGERS)
@pytest.mark.parametrize("options", [(), ("--force",)], ids=["plain", "force"])
def test_what_is_not_a_bundle_of_ours_is_left_alone(cli, bundle, packed, make, says, options):
    make(bundle)
    cli.refuses("unpack", packed, "-o", bundle, *options, saying=(says, "nothing in it was touched"))


def test_quantize_and_export_ask_before_they_compute(cli, bundle, monkeypatch, tmp_path):
    pytest.importorskip("onnx", reason="the quantize extra is not installed")
    from voxrill.quantize import bundle as quantizing

    monkeypatch.setattr(quantizing, "large_weights", None)  # not reached
    float32 = shutil.copytree(bundle, tmp_path / "float32")
    manifest = json.loads((float32 / MANIFEST_FILE).read_bytes())
    graphs = {name: {"file": graph["file"]} for name, graph in manifest["graphs"].items()}
    (float32 / MANIFEST_FILE).write_text(json.dumps(manifest | {"graphs": graphs}))
    says = ("is a bundle already", "--force")
    cli.refuses("quantize", float32, "-o", bundle, saying=says)
    cli.refuses("export", "nowhere", "-o", bundle, saying=says)
    cli.refuses("unpack", "nowhere", "-o", bundle, saying="no packed bundle at nowhere")
    web_application(bundle)
    for command in (("quantize", float32), ("export", "nowhere")):
        cli.refuses(*command, "-o", bundle, "--force", saying="is not a bundle that this Voxrill knows")


def test_a_bundle_is_replaced_when_asked(cli, bundle, packed):
    wanted = contents(bundle)
    (bundle / "tokenizer.json").write_text("damaged")
    cli.refuses("unpack", packed, "-o", bundle, saying=("is a bundle already", "--force"))
    assert cli("unpack", packed, "-o", bundle, "--force").status == 0
    assert contents(bundle) == wanted
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("name", [".", ".."])
def test_a_place_needs_a_name(cli, packed, name):
    cli.refuses("unpack", packed, "-o", name, "--force", saying="is not a name for a bundle")


def test_an_empty_folder_is_taken(cli, packed, tmp_path):
    (tmp_path / "empty").mkdir()
    assert cli("unpack", packed, "-o", "empty").status == 0
    assert contents(tmp_path / "empty") == contents(PEBBLE)


def test_a_file_that_comes_while_the_bundle_is_made(bundle):
    before = contents(bundle)
    with pytest.raises(UsageError, match=r"holds notes\.txt"), replacing_bundle(bundle, force=True):
        (bundle / "notes.txt").write_text("years")
    (bundle / "notes.txt").unlink()
    assert contents(bundle) == before


def test_a_link_to_a_bundle_is_replaced_and_not_the_bundle(bundle):
    before, link = contents(bundle), bundle.parent / "link"
    link.symlink_to("bundle")
    with replacing_bundle(link, force=True) as partial:
        (partial / "new").write_text("new")
    assert contents(bundle) == before
    assert not link.is_symlink() and contents(link).keys() == {"new"}


# In one step


def write_new(bundle):
    """A whole other bundle in the place of `bundle`: the same, without the list of tools."""
    with replacing_bundle(bundle, force=True) as partial:
        for file in PEBBLE.iterdir():
            if file.is_file() and file.name != MANIFEST_FILE:
                shutil.copy(file, partial / file.name)
        manifest = json.loads((PEBBLE / MANIFEST_FILE).read_bytes())
        (partial / MANIFEST_FILE).write_text(json.dumps(manifest | {"tools": {}}))


KILLED = """
import os, signal, sys
from pathlib import Path
from tests.bundle.test_replacing import write_new
from voxrill.runtime.bundle import atomic_folder

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

exchange, rename = atomic_folder.exchange, Path.rename

def exchange_and_die(one, other):
    exchange(one, other)
    killed()

def rename_but_for_the_new(path, target):
    if path.name.endswith(".partial"):
        killed()
    return rename(path, target)

moment = sys.argv[2]
if moment == "before":
    atomic_folder.exchange = killed
if moment == "after":
    atomic_folder.exchange = exchange_and_die
if moment == "between":
    atomic_folder.exchange = lambda *_: False
    Path.rename = rename_but_for_the_new
write_new(Path(sys.argv[1]))
"""


def kill_at(moment, bundle):
    command = [sys.executable, "-c", KILLED, bundle, moment]
    ran = subprocess.run(command, cwd=ROOT, env=clean_environment(), timeout=120)
    assert ran.returncode == -signal.SIGKILL


@pytest.mark.skipif(sys.platform != "linux", reason="names are exchanged on Linux")
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_kill_leaves_a_whole_bundle(bundle, moment):
    old = open_bundle(bundle).sha256
    kill_at(moment, bundle)
    found = open_bundle(bundle)
    verify_files(found)
    assert (found.sha256 == old) == (moment == "before")
    assert len(list(bundle.parent.iterdir())) == 2  # what the killed run left
    write_new(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_where_names_cannot_be_exchanged_the_old_bundle_is_named_and_put_back(cli, bundle):
    before = contents(bundle)
    kill_at("between", bundle)
    assert not bundle.exists()
    cli.refuses("inspect", bundle, saying=(f"there is no bundle at {bundle}", "mv", ".bundle.old"))
    with pytest.raises(ZeroDivisionError), replacing_bundle(bundle):
        raise ZeroDivisionError
    assert contents(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


@pytest.mark.parametrize("exchanges", [True, False], ids=["exchange", "two-renames"])
def test_a_failure_while_the_new_bundle_takes_its_place(bundle, monkeypatch, exchanges):
    before, rename = contents(bundle), Path.rename

    def rename_but_for_the_new(path, target):
        if path.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    def refused(*_):
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "rename", rename_but_for_the_new)
    monkeypatch.setattr(atomic_folder, "exchange", refused if exchanges else lambda *_: False)
    with pytest.raises(BundleError, match="Input/output error"), replacing_bundle(bundle, force=True) as partial:
        (partial / "new").write_text("new")
    assert contents(bundle) == before
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_what_is_written_is_on_the_disk_before_it_takes_the_place(bundle, packed, monkeypatch):
    events, fsync, exchange = [], os.fsync, atomic_folder.exchange

    def noted(file):
        events.append(os.fstat(file).st_ino)
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(atomic_folder, "exchange", lambda *names: events.append("exchange") or exchange(*names))
    write_new(bundle)
    placed = events.index("exchange")
    assert {path.stat().st_ino for path in bundle.iterdir()} <= set(events[:placed])
    assert bundle.parent.stat().st_ino in events[placed:]
    events.clear()
    pack(open_bundle(bundle), packed)
    assert events == [packed.stat().st_ino, packed.parent.stat().st_ino]


# Several at once


def test_two_runs_do_not_break_each_other(bundle):
    with replacing_bundle(bundle, force=True) as one:
        (one / "file").write_text("one")
        with replacing_bundle(bundle, force=True) as other:
            assert other != one and one.exists()
            shutil.copytree(PEBBLE, other, dirs_exist_ok=True)
        assert (one / "file").read_text() == "one"
        shutil.copytree(PEBBLE, one, dirs_exist_ok=True)
        (one / "file").unlink()
    verify_files(open_bundle(bundle))
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]


def test_the_second_of_two_runs_to_a_new_place_is_told(bundle):
    place = bundle.parent / "new"
    with (
        pytest.raises(UsageError, match="is a bundle already"),
        replacing_bundle(place),
        replacing_bundle(place) as other,
    ):
        shutil.copytree(PEBBLE, other, dirs_exist_ok=True)
    verify_files(open_bundle(place))
    assert sorted(path.name for path in bundle.parent.iterdir()) == ["bundle", "new"]


@pytest.fixture
def first(monkeypatch, bundle):
    """Another run takes the new place between the look at it and the renaming."""
    rename = Path.rename

    def second(path, target):
        if path.name.endswith(".partial") and not target.exists():
            shutil.copytree(bundle, target)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second)
    return bundle.parent / "new"


def test_a_run_that_is_overtaken_is_told(first):
    before = contents(first.parent / "bundle")
    with pytest.raises(UsageError, match="is a bundle already"), replacing_bundle(first) as partial:
        (partial / "file").write_text("mine")
    assert contents(first) == before


def test_a_run_that_is_overtaken_replaces_when_asked(first):
    with replacing_bundle(first, force=True) as partial:
        (partial / "file").write_text("mine")
    assert [path.read_text() for path in first.iterdir()] == ["mine"]
    assert sorted(path.name for path in first.parent.iterdir()) == ["bundle", "new"]


def test_another_run_clears_the_new_folder_away_before_it_is_locked(bundle, monkeypatch):
    lock, cleared = atomic_folder.lock_folder, []

    def late(folder, wait=False):
        if wait and not cleared:
            cleared.append(folder)
            folder.rmdir()
        return lock(folder, wait)

    monkeypatch.setattr(atomic_folder, "lock_folder", late)
    write_new(bundle)
    assert cleared and [path.name for path in bundle.parent.iterdir()] == ["bundle"]


WRITING = """
import sys, time
from pathlib import Path
from voxrill.runtime.bundle.replacing import replacing_bundle
with replacing_bundle(Path(sys.argv[1]), force=True) as partial:
    (partial / "new").write_text("new")
    print("ready", flush=True)
    time.sleep(60)
"""


def test_a_living_run_s_folder_is_kept_and_a_dead_one_s_is_removed(bundle):
    with subprocess.Popen(
        [sys.executable, "-c", WRITING, bundle], stdout=subprocess.PIPE, env=clean_environment()
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        write_new(bundle)
        assert len(list(bundle.parent.iterdir())) == 2
        process.kill()
    for _ in range(100):  # the lock goes with the process
        write_new(bundle)
        if len(list(bundle.parent.iterdir())) == 1:
            break
        time.sleep(0.1)
    assert [path.name for path in bundle.parent.iterdir()] == ["bundle"]
