"""A packed bundle is used as it is: unpacked once into the user's cache, checked, and never twice at a time."""

import hashlib
import shutil
import threading
import time
from pathlib import Path

import pytest

import voxrill
from tests.command_line import contents
from tests.places import PEBBLE, QUESTION
from voxrill.runtime.bundle import packed as packing
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.manifest import MANIFEST_FILE

KEY = hashlib.sha256((PEBBLE / MANIFEST_FILE).read_bytes()).hexdigest()


@pytest.fixture
def cache(monkeypatch, tmp_path_factory):
    """An empty cache of this user; the folder of what is unpacked."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder / "voxrill" / "bundles"


@pytest.fixture
def pack(cli, cache):
    """Pebble, packed: `m.voxrill`."""
    assert cli("pack", PEBBLE, "-o", "m.voxrill").status == 0
    return "m.voxrill"


def opened(pack):
    said = []
    bundle = packing.open_packed(pack, said.append)
    return bundle, said


def test_python_takes_a_packed_bundle_as_the_command_line_does(cache, pack, capfdbinary):
    with voxrill.load(PEBBLE, threads=1) as model:
        wanted = model.transcribe(QUESTION).text
    for _ in range(2):
        with voxrill.load(pack, threads=1) as model:
            assert wanted and model.transcribe(QUESTION).text == wanted
    assert contents(cache / KEY) == contents(PEBBLE)
    assert not any(capfdbinary.readouterr())
    Path("no.voxrill").write_bytes(b"something else")
    with pytest.raises(voxrill.BundleError, match="not a whole packed bundle"):
        voxrill.load("no.voxrill")


def test_a_packed_bundle_is_unpacked_once_and_says_so(cli, cache, pack, tmp_path):
    ask = ("transcribe", QUESTION, "--threads", 1, "--bundle")
    wanted = cli(*ask, PEBBLE)
    first, second = cli(*ask, pack), cli(*ask, pack)
    assert first.out == second.out == wanted.out
    assert first.err.count("\n") == 1 and f"unpacking {pack} into {cache / KEY}, once" in first.err
    assert second.err == ""
    assert contents(cache / KEY) == contents(PEBBLE)
    shutil.move(pack, tmp_path / "other.voxrill")
    assert cli(*ask, "other.voxrill").err == ""  # it is known by its content


@pytest.mark.parametrize("words", [("inspect",), ("verify",), ("plan", "--device", "pi5")], ids=lambda words: words[0])
def test_every_command_takes_one(cli, pack, words):
    assert cli(words[0], pack, *words[1:]).status == 0


def test_in_the_order_of_the_readme(cli, pack, monkeypatch):
    """pack, copy, unpack, and the environment names what was unpacked."""
    assert cli("unpack", pack, "-o", "model").status == 0
    monkeypatch.setenv("VOXRILL_BUNDLE", "model")
    assert cli("transcribe", QUESTION).status == 0
    monkeypatch.setenv("VOXRILL_BUNDLE", pack)
    assert cli("transcribe", QUESTION).status == 0


@pytest.mark.parametrize(
    "spoil",
    [
        lambda folder: (folder / "decoder.onnx").unlink(),
        lambda folder: (folder / "tokenizer.json").write_text("{}"),
        lambda folder: (folder / MANIFEST_FILE).write_text("{}"),
    ],
    ids=["a file is gone", "a file is changed", "another manifest"],
)
def test_what_is_not_whole_any_more_is_unpacked_again(cache, pack, spoil, tmp_path):
    opened(tmp_path / pack)
    spoil(cache / KEY)
    bundle, said = opened(tmp_path / pack)
    assert len(said) == 1 and contents(bundle.directory) == contents(PEBBLE)


def test_a_manifest_of_another_bundle_is_not_taken(cache, pack, bundles, tmp_path):
    shutil.copytree(bundles["lfm2"], cache / KEY)
    assert opened(tmp_path / pack)[0].sha256 == open_bundle(PEBBLE).sha256


def test_a_pack_that_was_changed_is_refused_and_leaves_nothing(cli, cache, pack, tmp_path):
    content = bytearray((tmp_path / pack).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / pack).write_bytes(content)
    ran = cli("transcribe", QUESTION, "--bundle", pack)
    assert ran.status == 2 and ran.raw == b"" and f"{pack} is not a whole packed bundle" in ran.err
    assert list(cache.iterdir()) == []


def test_a_file_that_is_no_pack(cli, cache, tmp_path):
    (tmp_path / "a.txt").write_text("no pack")
    cli.refuses("transcribe", QUESTION, "--bundle", "a.txt", saying="a.txt is not a whole packed bundle")


def test_a_cache_that_cannot_be_made_names_the_way_round(cli, pack, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    cli.refuses("transcribe", QUESTION, "--bundle", pack, saying=("your cache", "voxrill unpack", "--bundle FOLDER"))


def test_two_at_once_unpack_it_once(cache, pack, monkeypatch, tmp_path):
    """The second one waits until the first is done: here, until it has been seen to wait."""
    said, begun, unpack = [], threading.Event(), packing.unpack

    def slow(*arguments):
        begun.set()
        while second.is_alive() and not waiting.is_set():
            time.sleep(0.01)
        return unpack(*arguments)

    waiting, lock = threading.Event(), packing.lock_folder

    def watched(folder, wait):
        if begun.is_set():
            waiting.set()
        return lock(folder, wait)

    monkeypatch.setattr(packing, "unpack", slow)
    monkeypatch.setattr(packing, "lock_folder", watched)
    first, second = (
        threading.Thread(target=packing.open_packed, args=(tmp_path / pack, said.append), daemon=True) for _ in range(2)
    )
    second.start()
    assert begun.wait(60)
    first.start()
    for thread in (second, first):
        thread.join(60)
    assert len(said) == 1 and contents(cache / KEY) == contents(PEBBLE)
