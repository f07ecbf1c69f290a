"""A manifest may say anything: what cannot be is refused by name, before anything is computed from it."""

import copy
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

import voxrill
from tests.places import PEBBLE
from voxrill.runtime.bundle.consistency import check_manifest
from voxrill.runtime.bundle.contract import StaticShapes
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, MANIFEST_LIMIT, decode_manifest, read_manifest
from voxrill.runtime.errors import BundleError
from voxrill.runtime.upkeep.tuning import outputs

CONTENT = json.loads((PEBBLE / MANIFEST_FILE).read_bytes())

NUMBERS = (-1, 0, 1, 2, 7, 1000, 10**6, 2**31, 2**63 - 1, -(2**63), 10**25, 0.5, -0.0, 1e308, -1e308)
OTHERS = (None, True, "", "x", "\x00", "\x1b[2J", "a" * 2000, "../x", [], {}, [0], [-1, -1], [10**9] * 4, ["x"])
STATIC = ({"mel_frames": 0}, {"prefill": 0}, {"context": -1}, {"prefill": 64, "context": 32}, {"wider_prefill": [8]})


def leaves(value, path=()):
    """Every value of the manifest with the way to it, those in lists and tables too."""
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in inner:
        yield from leaves(below, (*path, key))


def changed(path, value):
    """The manifest's JSON with another value at one place."""
    content = copy.deepcopy(CONTENT)
    at = content
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    return json.dumps(content).encode()


def refusal(raw):
    """What is said of a manifest; empty if it is taken. Anything but a `BundleError` fails the test."""
    try:
        check_manifest(decode_manifest(raw, "m"), "m")
    except BundleError as error:
        return str(error)
    return ""


PATHS = [path for path, _ in leaves(CONTENT) if path]


def test_the_manifest_itself_is_taken():
    assert len(PATHS) > 150
    assert refusal(json.dumps(CONTENT).encode()) == ""


@pytest.mark.parametrize("part", sorted({path[0] for path in PATHS}))
def test_every_value_is_taken_or_refused_by_name(part):
    for path in (path for path in PATHS if path[0] == part):
        for value in (*NUMBERS, *OTHERS):
            said = refusal(changed(path, value))
            assert said == "" or (said.startswith("m ") and len(said) < 1000), (path, value)


def value_at(path):
    at = CONTENT
    for key in path:
        at = at[key]
    return at


@pytest.mark.parametrize(
    "path", [path for path in PATHS if path[0] == "model"], ids=lambda path: ".".join(map(str, path))
)
def test_numbers_out_of_range_are_refused(path):
    """Negative sizes, and sizes that no memory holds, of everything the model is made of."""
    if isinstance(value_at(path), int | float):
        for value in (-1, -(2**63), 2**63 - 1, 10**25, 1e308, -1e308, None, "x"):
            assert refusal(changed(path, value)), value


@pytest.mark.parametrize("static", STATIC)
def test_fixed_shapes_that_cannot_be(static):
    npu = json.loads(changed(("flavour",), "npu")) | {"static": static}
    assert "$.static" in refusal(json.dumps(npu).encode()) or "prefill" in refusal(json.dumps(npu).encode())


def test_a_flavour_and_its_shapes_go_together():
    assert "npu flavour without fixed shapes" in refusal(changed(("flavour",), "npu"))
    assert "cpu flavour with fixed shapes" in refusal(changed(("static",), {"mel_frames": 80}))
    assert StaticShapes().prefills  # what npu bundles have


WORDS, SOUNDS = CONTENT["text_embeddings"], CONTENT["audio_embeddings"]
ROWS, WIDTH = WORDS["shape"]
FRAMES = SOUNDS["shape"][0]
ROOM = CONTENT["files"][WORDS["file"]]["size"] - ROWS * WIDTH  # where the last table of one byte a value may begin

CROSS = {
    "table-rows": (
        ("text_embeddings", "shape"),
        [ROWS - 1, WIDTH],
        f"shape [{ROWS - 1}, {WIDTH}], not [{ROWS}, {WIDTH}]",
    ),
    "table-width": (("audio_embeddings", "shape"), [FRAMES, WIDTH + 1], f"not [{FRAMES}, {WIDTH}]"),
    "table-end": (("text_embeddings", "offset"), ROOM + 1, "reaches beyond text_head.onnx.data"),
    "scales-end": (("audio_embeddings", "scales"), SOUNDS["scales"] + 1, "reaches beyond audio_embeddings.i8"),
    "no-scales": (("audio_embeddings", "scales"), None, "without scales"),
    "end-of-audio": (("model", "codes", "end_of_audio"), 257, "ends audio with the code 257 of 257"),
    "codec": (("model", "codec", "graph"), "decoder", "names decoder as the codec"),
    "no-codec": (("model", "codec", "graph"), "mimi_decoder", "names no file for the graph mimi_decoder"),
    "hop": (("model", "codec", "hop"), 1281, "a hop of 1281"),
    "no-hop": (("model", "codec", "n_fft"), 0, "an n_fft of 0"),
    "state-twice": (("model", "codec", "state", 1, "name"), "past_conv.0", "twice"),
    "state-name": (("model", "codec", "state", 1, "name"), "present_conv.1", "begin with past_"),
    "state-shape": (("model", "codec", "state", 0, "shape"), [1, 1 << 20, 1 << 20], "the shape [1, 1048576, 1048576]"),
    "state-symbol": (("model", "codec", "state", 0, "shape"), [1, "n"], "the shape [1, 'n']"),
    "capitals": (("files", "Tokenizer.json"), CONTENT["files"]["tokenizer.json"], "differ only in capitals"),
    "files": (("files",), {f"a{n}": {"size": 0, "sha256": "0" * 64} for n in range(2000)}, "more than 1000 files"),
    "graph": (("graphs", "../x"), {"file": "decoder.onnx"}, "$.graphs"),
    "escape": (("tasks", "chat", "system"), "\x1b]0;title\x07", "$.tasks.chat.system"),
}


@pytest.mark.parametrize(("path", "value", "says"), CROSS.values(), ids=CROSS)
def test_values_that_do_not_go_together(path, value, says):
    assert says in refusal(changed(path, value))


# Which key, which byte


STRUCTS = [
    path
    for path, value in leaves(CONTENT)
    if isinstance(value, dict) and path not in ((), ("graphs",), ("files",), ("tools",), ("taught", "labels"))
]


@pytest.mark.parametrize("path", STRUCTS, ids=lambda path: ".".join(map(str, path)))
def test_an_unknown_key_is_named_with_its_place(path):
    said = refusal(changed((*path, "surprise"), 1))
    place = "[...]" if path[0] in ("files", "graphs") else str(path[-1])  # msgspec names no key of a table
    assert "`surprise`" in said and place in said and "Remove it" in said


def test_a_byte_order_mark_is_named():
    said = refusal(b"\xef\xbb\xbf" + json.dumps(CONTENT).encode())
    assert "byte order mark (BOM)" in said and "UTF-8 without one" in said


RAW = {
    "empty": b"",
    "null": b"null",
    "no-format": b"{}",
    "format-text": b'{"format": "2"}',
    "format-huge": b'{"format": ' + b"9" * 5000 + b"}",
    "deep": b'{"format": 2, "x": ' + b"[" * 200_000,
    "deep-format": b'{"format": ' + b"[" * 200_000,
    "utf-16": json.dumps(CONTENT).encode("utf-16"),
    "zeros": bytes(100),
    "large": json.dumps(CONTENT).encode() + b" " * MANIFEST_LIMIT,
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW)
def test_what_is_not_a_manifest(raw):
    assert refusal(raw)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no such pipes")
@pytest.mark.parametrize("make", [lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero"), Path.mkdir])
def test_a_manifest_that_is_no_file_is_not_opened(tmp_path, make):
    make(tmp_path / MANIFEST_FILE)
    with pytest.raises(BundleError, match=r"has no readable manifest\.json"):
        read_manifest(tmp_path)


# What is taken, runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The built-in bundle, to give it other manifests."""
    return Path(shutil.copytree(PEBBLE, tmp_path_factory.mktemp("hostile") / "bundle"))


EXTREMES = {
    "n_fft": (("model", "log_mel", "n_fft"), 1 << 16),
    "sample_rate": (("model", "log_mel", "sample_rate"), 768_000),
    "stride": (("model", "log_mel", "window_stride"), 1),
    "positions": (("model", "backbone", "max_positions"), 1 << 24),
    "one-position": (("model", "backbone", "max_positions"), 1),
    "layers": (("model", "backbone", "layer_types"), ["full_attention"] * 1024),
    "hidden": (("model", "backbone", "hidden_size"), 160 << 4),
    "end-of-audio": (("model", "codes", "end_of_audio"), 0),
    "rate": (("model", "codec", "sample_rate"), 768_000),
    "hop": (("model", "codec", "hop"), 1),
    "frame": (("model", "codec", "frame_samples"), 1 << 20),
    "interleave": (("model", "interleave", "text"), 4096),
    "unaligned": (("text_embeddings", "offset"), 3),
    "tokens": (("tasks", "chat", "max_new_tokens"), 1),
}


@pytest.mark.parametrize(("path", "value"), EXTREMES.values(), ids=EXTREMES)
def test_what_is_taken_runs_or_is_refused(folder, path, value):
    (folder / MANIFEST_FILE).write_bytes(changed(path, value))
    question = np.sin(np.arange(16_000, dtype=np.float32) / 20) / 3
    try:
        model = voxrill.load(folder, threads=1)
        outputs(model)
        list(model.chat(audio=question, max_new_tokens=6, sample_rate=16_000))
    except voxrill.VoxrillError:
        pass


@pytest.mark.parametrize(
    "path, value, saying",
    [
        (("model", "backbone", "window"), 1 << 24, "has layers with a window of 16777216 positions"),
        (("model", "encoder", "state"), [{"name": "x", "dtype": "float32", "shape": [1]}], "names begin with past_"),
        (
            ("model", "encoder", "state"),
            [{"name": "past_x", "dtype": "float32", "shape": [1 << 40]}],
            "gives past_x of the audio encoder's state the shape",
        ),
        (("model", "encoder", "state"), [{"name": "past_x", "dtype": "float32", "shape": [1]}] * 2, "state twice"),
        (("model", "log_mel", "normalize"), "affine", "offset and divisor belong to normalize 'affine'"),
    ],
)
def test_what_only_some_families_have(path, value, saying):
    assert saying in refusal(changed(path, value))
