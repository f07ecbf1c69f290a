"""A packed bundle survives a journey; damage on the way is noticed, and a hostile one costs neither disk nor memory."""

import hashlib
import json
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.command_line import contents
from tests.places import PEBBLE
from voxrill.runtime.bundle import pack as packing
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, MANIFEST_LIMIT
from voxrill.runtime.errors import BundleError


@pytest.fixture
def packed(cli):
    """The built-in bundle, packed: `b.voxrill`."""
    ran = cli("pack", PEBBLE, "-o", "b.voxrill")
    assert ran.status == 0 and "wrote b.voxrill" in ran.err
    return Path("b.voxrill")


def flip_a_byte(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)


# Packing and unpacking


def test_what_was_packed_comes_out_the_same(cli, packed):
    ran = cli("unpack", "b.voxrill", "-o", "out/there")
    assert ran.status == 0 and "wrote out/there" in ran.err
    assert contents(Path("out/there")) == contents(PEBBLE)
    assert [path.name for path in Path("out").iterdir()] == ["there"]


def test_a_packed_bundle_is_a_plain_zip_with_the_manifest_first(packed):
    with zipfile.ZipFile(packed) as archive:
        entries = archive.infolist()
    assert entries[0].filename == MANIFEST_FILE
    assert {entry.compress_type for entry in entries} == {zipfile.ZIP_STORED}


def test_packing_replaces_an_older_file(cli, packed):
    whole = packed.read_bytes()
    packed.write_bytes(b"old")
    cli.refuses("pack", PEBBLE, "-o", packed, saying=("exists already", "--force"))
    assert cli("pack", PEBBLE, "-o", packed, "--force").status == 0
    assert packed.read_bytes() == whole


def cut_short(packed):
    packed.write_bytes(packed.read_bytes()[:-100_000])


def flip_a_weight(packed):
    flip_a_byte(packed, packed.stat().st_size // 2)


def rewrite(packed, name, change):
    """The archive again, whole, but for one file."""
    with zipfile.ZipFile(packed) as archive:
        files = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    files[name] = change(files[name])
    with zipfile.ZipFile(packed, "w") as archive:
        for file, data in files.items():
            if data is not None:
                archive.writestr(file, data)


def change_a_file(packed):
    rewrite(packed, "decoder.onnx", lambda data: data[:-1] + b"x")


def lose_a_file(packed):
    rewrite(packed, "decoder.onnx", lambda data: None)


def name_a_file_outside(packed):
    rewrite(packed, MANIFEST_FILE, lambda data: data.replace(b'"tokenizer.json"', b'"../evil"'))
    rewrite(packed, "tokenizer.json", lambda data: data)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("../evil", "x")


def be_newer(packed):
    rewrite(packed, MANIFEST_FILE, lambda data: data.replace(b'"format": 2', b'"format": 3'))


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (cut_short, "b.voxrill is not a whole packed bundle"),
        (flip_a_weight, "b.voxrill is not a whole packed bundle"),
        (change_a_file, "decoder.onnx does not have the SHA-256"),
        (lose_a_file, "b.voxrill is not a whole packed bundle"),
        (name_a_file_outside, "a name that no file of a bundle may have: '../evil'"),
        (be_newer, "bundle format 3"),
        (lambda packed: packed.write_bytes(b"no zip at all"), "b.voxrill is not a whole packed bundle"),
        (Path.unlink, "there is no packed bundle at b.voxrill"),
    ],
    ids=["cut", "flipped-byte", "changed-file", "lost-file", "outside", "newer", "no-zip", "missing"],
)
def test_a_damaged_pack_leaves_nothing(cli, packed, damage, says):
    damage(packed)
    cli.refuses("unpack", packed, "-o", "new", saying=says)


def test_unpacking_over_something_is_refused(cli, packed, tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "notes.txt").write_text("years")
    cli.refuses("unpack", packed, "-o", "there", saying="there exists and is not a bundle")


def test_a_full_disk_while_packing(cli, packed, monkeypatch):
    def full(*_arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(packing, "_copy_checked", full)
    says = ("cannot be written", "No space left on device")
    cli.refuses("pack", PEBBLE, "-o", packed, "--force", saying=says)
    cli.refuses("unpack", packed, "-o", "new", saying=says)


# A hostile pack


LARGE = 64 << 20
"""Bytes of a file that a few kB say they hold."""


def manifest(**files):
    """The built-in bundle's manifest with other files listed, and some of its own."""
    content = json.loads((PEBBLE / MANIFEST_FILE).read_bytes())
    return json.dumps(content | {"files": content["files"] | files}).encode()


def entry(data):
    return {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_pack(packed, method=zipfile.ZIP_STORED, **files):
    """The built-in bundle's files, and others in their place or beside them."""
    with zipfile.ZipFile(packed, "w") as archive:
        for path in PEBBLE.iterdir():
            if path.is_file() and path.name not in files:
                archive.write(path, path.name)
        for name, data in files.items():
            archive.writestr(name, data, method)


def a_bomb_in_the_place_of_a_file(packed):
    write_pack(packed, zipfile.ZIP_DEFLATED, **{"tokenizer.json": bytes(LARGE)})


def a_bomb_in_the_place_of_the_manifest(packed):
    write_pack(packed, zipfile.ZIP_DEFLATED, **{MANIFEST_FILE: bytes(LARGE)})


def a_bomb_that_the_manifest_lists(packed):
    write_pack(packed, **{MANIFEST_FILE: manifest(more=entry(bytes(LARGE)))})
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("more", bytes(LARGE), zipfile.ZIP_LZMA)


def a_larger_file_than_the_manifest_says(packed):
    write_pack(packed, more=bytes(LARGE), **{MANIFEST_FILE: manifest(more=entry(bytes(5)))})


def a_smaller_file_than_the_manifest_says(packed):
    write_pack(packed, more=bytes(5), **{MANIFEST_FILE: manifest(more=entry(bytes(6)))})


def a_large_manifest(packed):
    write_pack(packed, **{MANIFEST_FILE: manifest() + bytes(MANIFEST_LIMIT)})


def entries_that_share_their_bytes(packed):
    data = bytes(1 << 20)
    names = [f"more{number}" for number in range(64)]
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(MANIFEST_FILE, manifest(**dict.fromkeys(names, entry(data))))
        for path in PEBBLE.iterdir():
            if path.is_file() and path.name != MANIFEST_FILE:
                archive.write(path, path.name)
        archive.writestr(names[0], data)
        shared = archive.getinfo(names[0])
        for name in names[1:]:
            other = zipfile.ZipInfo(name)
            for field in ("header_offset", "file_size", "compress_size", "CRC"):
                setattr(other, field, getattr(shared, field))
            archive.filelist.append(other)


def thousands_of_entries(packed):
    with zipfile.ZipFile(packed, "a") as archive:
        for number in range(20_000):
            empty = zipfile.ZipInfo(f"{number:060}")
            empty.header_offset = empty.CRC = 0
            archive.filelist.append(empty)
        archive._didModify = True


def a_zip64_field_that_is_cut_off(packed):
    """The directory says that the size stands in a further field, and that field ends before it."""
    data = bytearray(packed.read_bytes())
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = b"\xff" * 4
    packed.write_bytes(data)
    with zipfile.ZipFile(packed, "a") as archive:
        archive.filelist[-1].extra = b"\x01\x00\x02\x00\xff\xff"
        archive._didModify = True


def with_entry(**fields):
    """A pack whose directory says something else of one file."""

    def damage(packed):
        with zipfile.ZipFile(packed, "a") as archive:
            for field, value in fields.items():
                setattr(archive.getinfo("tokenizer.json"), field, value)
            archive._didModify = True

    return damage


HOSTILE = {
    "bomb": (a_bomb_in_the_place_of_a_file, "tokenizer.json is compressed"),
    "bomb-manifest": (a_bomb_in_the_place_of_the_manifest, "manifest.json is compressed"),
    "bomb-listed": (a_bomb_that_the_manifest_lists, "more is compressed"),
    "larger": (a_larger_file_than_the_manifest_says, f"more has {LARGE} bytes, not 5"),
    "smaller": (a_smaller_file_than_the_manifest_says, "more has 5 bytes, not 6"),
    "large-manifest": (a_large_manifest, "its manifest.json has"),
    "shared-bytes": (entries_that_share_their_bytes, "together are larger"),
    "thousands": (thousands_of_entries, "its directory is too long"),
    "encrypted": (with_entry(flag_bits=1), "tokenizer.json is encrypted"),
    "strongly": (with_entry(flag_bits=0x40), "not a whole packed bundle"),
    "patched": (with_entry(flag_bits=0x20), "not a whole packed bundle"),
    "method": (with_entry(compress_type=99), "tokenizer.json is compressed"),
    "size": (with_entry(file_size=1 << 50, compress_size=1 << 50), f"tokenizer.json has {1 << 50} bytes"),
    "place": (with_entry(header_offset=1 << 62), "not a whole packed bundle"),
    "zip64": (a_zip64_field_that_is_cut_off, "not a whole packed bundle"),
}


@pytest.mark.parametrize(("make", "says"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pack_costs_neither_disk_nor_memory(packed, tmp_path, make, says):
    make(packed)
    written = []
    tracemalloc.start()
    with pytest.raises(BundleError, match=says):
        packing.unpack(packed, tmp_path / "new", lambda name, _done: written.append(name))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 24 << 20
    assert "more" not in written
    assert [path.name for path in tmp_path.iterdir()] == [packed.name]


NAMES = {
    "stream": "file:stream",
    "device": "con",
    "device-with-suffix": "Aux.txt",
    "absolute": "/etc/evil",
    "above": "a/../../evil",
    "backslash": "..\\evil",
    "double": "a//b",
    "dot": "./a",
    "end": "evil.",
    "space": "evil ",
    "escape": "\x1b[2Jevil",
    "long": "a" * 300,
    "deep": "a/" * 20 + "a",
    "manifest": "Manifest.json",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_name_that_means_something_else_elsewhere(cli, packed, name):
    write_pack(packed, **{MANIFEST_FILE: manifest(**{name: entry(b"x")}), name: b"x"})
    said = cli.refuses("unpack", packed, "-o", "new", saying="a name that no file of a bundle may have")
    assert "\x1b" not in said


def test_names_that_differ_only_in_capitals(cli, packed):
    write_pack(
        packed,
        Tokenizer=b"x",
        tokenizer=b"x",
        **{MANIFEST_FILE: manifest(Tokenizer=entry(b"x"), tokenizer=entry(b"x"))},
    )
    cli.refuses("unpack", packed, "-o", "new", saying="differ only in capitals")


def test_a_damaged_directory_of_a_pack(packed, tmp_path):
    """Every byte that is changed there is refused as a bundle's error, or changes nothing that counts."""
    whole = packed.read_bytes()
    start = whole.index(b"PK\x01\x02")
    random = np.random.default_rng(0)
    for number in range(150):
        data = bytearray(whole)
        data[random.integers(start, len(data))] = random.integers(256)
        packed.write_bytes(data)
        try:
            packing.unpack(packed, tmp_path / f"new{number}")
        except BundleError:
            assert not (tmp_path / f"new{number}").exists()
