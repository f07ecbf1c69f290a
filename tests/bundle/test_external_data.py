"""A graph keeps its weights in files that its bundle lists, and in no other, however the graph is written."""

import shutil
from pathlib import Path

import msgspec
import pytest

from tests.places import PEBBLE
from voxrill.runtime.bundle.bundle import file_entry, open_bundle
from voxrill.runtime.bundle.external_data import external_locations
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, encode_manifest, read_manifest
from voxrill.runtime.errors import BundleError

OUTSIDE = "../outside/text.dat"
"""As long as the name that the built-in bundle's text head gives, so that it can stand in its place."""


@pytest.fixture
def bundle(tmp_path) -> Path:
    """The built-in bundle, in a folder where nothing else is."""
    shutil.copytree(PEBBLE, tmp_path / "bundle")
    return tmp_path / "bundle"


def change_a_graph(bundle, graph, content):
    """Another graph, whose size and hash the manifest gives."""
    (bundle / graph).write_bytes(content)
    manifest = read_manifest(bundle)
    files = manifest.files | {graph: file_entry(bundle / graph)}
    (bundle / MANIFEST_FILE).write_bytes(encode_manifest(msgspec.structs.replace(manifest, files=files)))


def test_what_the_built_in_bundle_s_graphs_name():
    found = {graph.name: external_locations(graph) for graph in PEBBLE.glob("*.onnx")}
    assert found.pop("text_head.onnx") == {"text_head.onnx.data"}
    assert set(map(len, found.values())) == {0}


@pytest.mark.parametrize("command", ["verify", "inspect", "tune", "quantize", "chat", "pack"])
def test_weights_outside_the_bundle_are_refused_before_they_are_read(cli, bundle, tmp_path, command):
    (tmp_path / "outside").mkdir()
    shutil.copy(bundle / "text_head.onnx.data", tmp_path / "outside" / "text.dat")  # it would load
    whole = (bundle / "text_head.onnx").read_bytes()
    change_a_graph(bundle, "text_head.onnx", whole.replace(b"text_head.onnx.data", OUTSIDE.encode()))
    words = {
        "chat": ("--text", "lights on", "--output", "text", "--bundle", bundle),
        "quantize": (bundle, "-o", "small"),
        "pack": (bundle, "-o", "packed"),
    }.get(command, (bundle,))
    says = f"text_head.onnx keeps weights in '{OUTSIDE}', which the manifest does not list"
    cli.refuses(command, *words, saying=says)


def test_a_file_that_lies_in_the_bundle_and_is_not_listed(bundle):
    (bundle / "more.onnx.data_file").write_bytes(b"x")
    whole = (bundle / "text_head.onnx").read_bytes()
    change_a_graph(bundle, "text_head.onnx", whole.replace(b"text_head.onnx.data", b"more.onnx.data_file"))
    with pytest.raises(BundleError, match=r"keeps weights in 'more\.onnx\.data_file'"):
        open_bundle(bundle)


# However it is written


def number(value, length=0):
    """A varint, of at least so many bytes."""
    encoded = bytearray()
    while value > 0x7F or len(encoded) + 1 < length:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def field(tag, content, length=0):
    return number(tag << 3 | 2, length) + number(len(content), length) + content


KEY, VALUE = field(1, b"location"), field(2, b"../evil")
ENTRY = field(13, KEY + VALUE)
TENSORS = {
    "plain": ENTRY,
    "value-first": field(13, VALUE + KEY),
    "twice": field(13, field(2, b"fine") + KEY + VALUE),
    "long-numbers": field(13, field(1, b"location", 5) + field(2, b"../evil", 9), 4),
    "after-weights": field(9, bytes(3000)) + ENTRY,
    "after-numbers": number(1 << 3)
    + number(7)
    + number(200 << 3 | 1)
    + bytes(8)
    + number(201 << 3 | 5)
    + bytes(4)
    + ENTRY,
}
PATHS = {
    "initializer": (7, 5),
    "sparse-values": (7, 15, 1),
    "sparse-indices": (7, 15, 2),
    "attribute": (7, 1, 5, 5),
    "attributes": (7, 1, 5, 10),
    "sparse-attribute": (7, 1, 5, 22, 1),
    "sparse-attributes": (7, 1, 5, 23, 2),
    "subgraph": (7, 1, 5, 6, 5),
    "subgraphs": (7, 1, 5, 11, 1, 5, 5),
    "function": (25, 7, 5, 5),
    "function-attribute": (25, 11, 5),
    "training": (20, 1, 5),
    "training-algorithm": (20, 2, 1, 5, 6, 5),
}


def written(folder, content):
    (folder / "graph.onnx").write_bytes(content)
    return folder / "graph.onnx"


def around(path, content):
    for tag in reversed(path):
        content = field(tag, content)
    return content


@pytest.mark.parametrize("tensor", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS)
def test_every_way_to_name_a_file(tmp_path, path, tensor):
    found = external_locations(written(tmp_path, around(path, tensor)))
    assert "../evil" in found and found <= {"../evil", "fine"}


@pytest.mark.parametrize(("path", "tensor"), [(PATHS["subgraphs"], ENTRY), (PATHS["function"], TENSORS["twice"])])
def test_onnx_reads_it_in_the_same_way(tmp_path, path, tensor):
    """The numbers of the fields above are ONNX's own."""
    onnx = pytest.importorskip("onnx", reason="the quantize extra is not installed")
    model = onnx.load(str(written(tmp_path, around(path, tensor))), load_external_data=False)
    assert '"../evil"' in str(model)


def test_other_words_are_no_locations(tmp_path):
    other = field(13, field(1, b"offset") + field(2, b"location")) + field(8, b"location")
    assert external_locations(written(tmp_path, around(PATHS["initializer"], other))) == set()
    assert external_locations(written(tmp_path, b"")) == set()


BROKEN = {
    "cut": around(PATHS["initializer"], ENTRY)[:-1],
    "endless-number": b"\xff" * 20,
    "longer-than-its-place": field(7, number(5 << 3 | 2) + number(100) + ENTRY),
    "group": number(7 << 3 | 3),
    "beyond-the-end": number(1 << 3 | 1) + bytes(3),
    "deep": around((7, *(1, 5, 6) * 60, 5), ENTRY),
    "no-text": around(PATHS["initializer"], field(13, KEY + field(2, b"\xff\xfe"))),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_what_is_not_protobuf_is_refused(bundle, content):
    with pytest.raises(ValueError, match=r".+"):
        external_locations(written(bundle, content))
    change_a_graph(bundle, "decoder.onnx", content)
    (bundle / "graph.onnx").unlink()
    with pytest.raises(BundleError, match=r"decoder\.onnx is not an ONNX graph"):
        open_bundle(bundle)
