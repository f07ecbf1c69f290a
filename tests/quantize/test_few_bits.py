"""Bundles with weights of 2 and 3 bits: whole, near the float32 model, and refused if they were tampered with."""

import json
import re
import shutil
import warnings

import numpy as np
import pytest

import voxrill
from tests.places import ROOT
from voxrill.runtime.bundle.bundle import open_bundle, verify_files
from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.manifest import Blocks, Table
from voxrill.runtime.bundle.pack import pack, unpack
from voxrill.runtime.errors import BundleError, HashMismatch
from voxrill.runtime.upkeep.smoke import smoke_run

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from onnx import numpy_helper  # noqa: E402

from voxrill.quantize.bundle import quantize_bundle  # noqa: E402
from voxrill.quantize.k_quant import to_k_quant  # noqa: E402
from voxrill.quantize.recipe import Recipe, Rule  # noqa: E402
from voxrill.quantize.weights import unpacked  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:weights of 3 bits:voxrill.VoxrillWarning")

FEW = (("decoder", "*"), ("depthformer", "depthformer.layers.*"), ("text_head", "*"))


@pytest.fixture(scope="module", params=[2, 3, 4], ids=["2 bits", "3 bits", "4 bits"])
def bits(request):
    return request.param


@pytest.fixture(scope="module")
def small(bits, bundles, tmp_path_factory):
    """A bundle of few bits, head included."""
    recipe = Recipe("test", (Rule(8), *(Rule(bits, graph, name, 32, "k_quant") for graph, name in FEW)))
    return quantize_bundle(open_bundle(bundles["lfm2.5"]), tmp_path_factory.mktemp("few") / "small", recipe)


def load(bundle, graph):
    return onnx.load(str(bundle.path(bundle.manifest.graphs[graph].file)))


def test_a_bundle_of_few_bits_is_whole_and_runs(small, bits):
    verify_files(small)
    assert smoke_run(small)
    assert {small.manifest.graphs[name].precision for name in ("decoder", "text_head")} == {f"int{bits}"}
    assert small.manifest.graphs["decoder"].products == (f"MatMulNBits {bits}",)
    assert small.manifest.graphs["audio_encoder"].products == ("DynamicQuantizeMatMul 8",)
    proto = load(small, "decoder")
    operators = {(node.domain, node.op_type) for node in proto.graph.node if node.op_type == "MatMulNBits"}
    assert operators == {("voxrill" if bits == 3 else "com.microsoft", "MatMulNBits")}


def cosine(a, b):
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def test_stages_stay_near_float32(small, bits, models):
    """Random weights 64 wide are far harder on few bits than trained ones: this finds wrong arithmetic only."""
    wanted, got = models["lfm2.5"].parts, voxrill.load(small.directory, threads=1).parts
    rows = wanted.embed_tokens(list(range(40, 80)))
    assert cosine(rows, got.embed_tokens(list(range(40, 80)))) > {2: 0.9, 3: 0.97, 4: 0.99}[bits]
    hidden = wanted.backbone.forward(rows, wanted.backbone.new_state())
    assert cosine(hidden, got.backbone.forward(rows, got.backbone.new_state())) > {2: 0.3, 3: 0.6, 4: 0.85}[bits]
    logits = [parts.backbone.logits(hidden[-1]) for parts in (wanted, got)]
    assert cosine(*logits) > {2: 0.9, 3: 0.97, 4: 0.99}[bits]


def test_the_table_of_text_embeddings_is_the_heads_own_weight(small, bits, bundles, tmp_path):
    """Rows of the table are the columns that the head multiplies with, unpacked."""
    # A copy: other bundles may share the file by hard links, and onnx reads no such file.
    for path in bundles["lfm2.5"].glob("text_head.onnx*"):
        shutil.copy(path, tmp_path)
    source = onnx.load(str(tmp_path / "text_head.onnx"))
    weight = next(
        numpy_helper.to_array(t)
        for t in source.graph.initializer
        if t.dims[0] == small.manifest.text_embeddings.shape[0]
    )
    matrix = to_k_quant(weight.T, bits, 32)
    head = {t.name: numpy_helper.to_array(t) for t in load(small, "text_head").graph.initializer}
    assert any(np.array_equal(values, matrix.packed) for values in head.values())
    ids = np.array([[3, 0], [len(weight) - 1, 7]])
    rows = small.table(small.manifest.text_embeddings).rows(ids)
    wanted = unpacked(matrix, weight.shape[1]).T[ids]
    assert rows.shape == (2, 2, weight.shape[1]) and np.abs(rows - wanted).max() <= 1e-3 * np.abs(wanted).max()


def test_rows_that_do_not_fill_their_blocks(tmp_path, bits):
    """40 numbers in blocks of 16: three blocks, the last one half full."""
    weight = np.random.default_rng(0).standard_normal((40, 9)).astype(np.float32)
    matrix = to_k_quant(weight, bits, 16)
    parts = [matrix.packed, matrix.scales, matrix.zero_points]
    offsets = [0, matrix.packed.nbytes, matrix.packed.nbytes + matrix.scales.nbytes]
    (tmp_path / "table").write_bytes(b"".join(part.tobytes() for part in parts))
    blocks = Blocks(bits, 16, "float32", offsets[2])
    table = Table("table", 0, (9, 40), "uint8", scales=offsets[1], blocks=blocks)
    assert table.end == (tmp_path / "table").stat().st_size
    assert np.array_equal(EmbeddingTable(tmp_path / "table", table).rows([8, 2]), unpacked(matrix, 40).T[[8, 2]])


def test_the_page_of_the_contract_reads_the_same_table(small):
    page = (ROOT / "docs" / "models" / "bundle.md").read_text(encoding="utf-8")
    code = next(block for block in re.findall(r"```py\n(.*?)```", page, re.DOTALL) if "def blocks_of" in block)
    said = json.loads((small.directory / "manifest.json").read_text())
    known = {"np": np, "bundle": small.directory, "manifest": said, "model": said["model"]}
    exec(code, known)
    ids = [0, 5, 9]
    assert np.array_equal(known["text_rows"][ids], small.table(small.manifest.text_embeddings).rows(ids))


def test_three_bits_that_take_the_memory_of_four_are_told(small, bits, without_library):
    without_library("none")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        voxrill.load(small.directory, threads=1).close()
    assert [str(one.message).startswith("weights of 3 bits") for one in told] == [True] * (bits == 3)


def test_it_travels_in_one_file(small, tmp_path):
    pack(small, tmp_path / "small.pack")
    assert unpack(tmp_path / "small.pack", tmp_path / "again").sha256 == small.sha256


@pytest.fixture
def copy(small, tmp_path):
    """A copy whose manifest a test may change: `lie(change)`."""

    def lie(change):
        pack(small, tmp_path / "small.pack")
        folder = unpack(tmp_path / "small.pack", tmp_path / "copy", force=True).directory
        said = json.loads((folder / "manifest.json").read_bytes())
        change(said)
        (folder / "manifest.json").write_text(json.dumps(said))
        return folder

    return lie


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda table: table["blocks"].update(zero_points=10**9), "reaches beyond"),
        (lambda table: table.update(scales=10**9), "reaches beyond"),
        (lambda table: table.pop("blocks"), "lacks blocks"),
        (lambda table: table.update(dtype="int8"), "has blocks"),
        (lambda table: table.update(transposed=True), "blocks"),
        (lambda table: table.update(scales=None), "without scales"),
        (lambda table: table["blocks"].update(bits=5), "not valid"),
        (lambda table: table["blocks"].update(size=48), "not valid"),
        (lambda table: table["blocks"].update(size=256, bits=4), "reaches beyond"),
    ],
    ids=["zeros", "scales", "none", "int8", "transposed", "no-scales", "bits", "size", "block"],
)
def test_a_manifest_that_lies_about_its_table(copy, bits, change, words):
    if words == "reaches beyond" and "size" in change.__code__.co_consts and bits == 4:
        pytest.skip("its row of 64 numbers fills a block of 64")
    with pytest.raises(BundleError, match=words):
        open_bundle(copy(lambda said: change(said["text_embeddings"])))


def test_a_graph_that_was_cut_short_or_changed(small, tmp_path):
    pack(small, tmp_path / "small.pack")
    folder = unpack(tmp_path / "small.pack", tmp_path / "copy").directory
    path = folder / small.manifest.graphs["decoder"].file
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(BundleError, match="cut short"):
        open_bundle(folder)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(HashMismatch, match="SHA-256"):
        open_bundle(folder)
