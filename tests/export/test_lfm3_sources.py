"""Checkpoints of LFM3-Audio: the hub's layout and the GGUF pair give the same tensors; what does not fit is refused."""

import json
import shutil

import numpy as np
import pytest

from tests.export.lfm3_golden import arrays, weights
from tests.export.lfm3_sources import vocabulary, write_hub, write_pair
from voxrill.runtime.errors import BundleError, CheckpointError, UsageError

torch = pytest.importorskip("torch", reason="the export extra is not installed")


@pytest.fixture
def opened(exporter):
    from voxrill.export.opening import open_any

    return open_any


@pytest.fixture
def gguf():
    return pytest.importorskip("gguf", reason="the export extra is not installed")


def same(checkpoint, tolerance):
    """That a checkpoint's tensors are the golden ones, each within a share of its largest number."""
    assert len(list(checkpoint.weights)) >= len(list(weights()))
    for name in (*weights(), "depth_embeddings.weight", "head_norm.weight"):
        wanted, found = weights().read(name), checkpoint.weights.read(name)
        assert checkpoint.weights.shape(name) == tuple(found.shape) == tuple(wanted.shape), name
        assert (found - wanted).abs().max() <= tolerance * wanted.abs().max(), name


def test_the_layout_of_the_hub(opened, tmp_path):
    checkpoint = opened(write_hub(tmp_path / "hub"))
    same(checkpoint, 0)
    assert [file.parent.name for file in checkpoint.files] == ["hub", "audio_tokenizer"]


@pytest.mark.parametrize(
    "kind, tolerance", [("F32", 0), ("F16", 0), ("BF16", 2**-7), ("Q8_0", 0.01), ("Q4_0", 0.15)], ids=str
)
def test_a_gguf_pair(opened, gguf, tmp_path, kind, tolerance):
    checkpoint = opened(write_pair(tmp_path / "pair", kind))
    same(checkpoint, tolerance)
    assert checkpoint.name == "tiny-lfm3-audio"


def test_a_pair_has_the_same_sizes_tasks_and_tokens(opened, gguf, exporter, tmp_path):
    from voxrill.export.families import detect_family
    from voxrill.export.lfm3.graphs import read_model_spec
    from voxrill.runtime.engine.tokenizer import Tokenizer

    hub, pair = opened(write_hub(tmp_path / "hub")), opened(write_pair(tmp_path / "pair"))
    assert read_model_spec(hub) == read_model_spec(pair)
    (tmp_path / "tokenizer.json").write_bytes(pair.tokenizer())
    made, given = Tokenizer(tmp_path / "tokenizer.json"), Tokenizer(tmp_path / "hub" / "tokenizer.json")
    text = "It's 12345 o'clock; WE'LL ... <|im_end|>\n\n ok"
    assert made.encode(text) == given.encode(text) and made.decode(made.encode(text)) == text
    assert made.ids == given.ids
    tasks = detect_family(pair).tasks  # the pair states how frames are drawn
    assert (tasks.chat.audio.temperature, tasks.chat.audio.top_k, tasks.chat.audio.penalty) == (0.5, 8, 1.1)
    assert detect_family(hub).tasks.speak.audio.top_k == 128


def test_a_file_of_a_pair_finds_the_other(opened, gguf, tmp_path):
    folder = write_pair(tmp_path / "pair")
    shutil.copy(folder / "tiny-backbone.gguf", folder / "other-backbone.gguf")
    with pytest.raises(CheckpointError, match=r"several files of one kind: other-backbone\.gguf, tiny-backbone\.gguf"):
        opened(folder)
    assert opened(folder / "tiny-backbone.gguf").name == "tiny-lfm3-audio"


@pytest.mark.parametrize(
    "half, lacking", [("backbone", "no mmproj file"), ("mmproj", "no backbone")], ids=["backbone", "mmproj"]
)
def test_half_a_pair(opened, gguf, tmp_path, half, lacking):
    with pytest.raises(CheckpointError, match=f"only one half of a GGUF pair: {lacking}"):
        opened(write_pair(tmp_path / "pair", halves=(half,)))


def test_a_gguf_of_another_model(opened, gguf, tmp_path):
    with pytest.raises(CheckpointError, match=r"is a GGUF file of llama\.cpp, of the architecture llama"):
        opened(write_pair(tmp_path / "pair", halves=("backbone",), architecture="llama"))
    with pytest.raises(CheckpointError, match="LFM3-Omni"):
        opened(write_pair(tmp_path / "omni", halves=("backbone",), architecture="lfm3-d1-omni"))


def test_a_gguf_that_is_cut_short(opened, gguf, tmp_path):
    file = write_pair(tmp_path / "pair") / "tiny-mmproj.gguf"
    file.write_bytes(file.read_bytes()[: 1 << 16])
    with pytest.raises(CheckpointError, match=r"tiny-mmproj.gguf is not a readable GGUF file .*cut short"):
        opened(file.parent)


def test_names_of_a_newer_converter(opened, gguf, tmp_path):
    folder = write_pair(tmp_path / "pair", change=lambda name: name.replace("attn_gate", "attn_sigmoid"))
    saying = r"\d+ tensors whose names Voxrill does not know: a\.gen\.code\.blk\.0\.attn_sigmoid\.weight, .*update"
    with pytest.raises(CheckpointError, match=saying):
        opened(folder)


def test_blocks_that_cannot_be_read(opened, gguf, tmp_path, monkeypatch):
    def refused(*_):
        raise NotImplementedError

    checkpoint = opened(write_pair(tmp_path / "pair", "Q4_0"))
    monkeypatch.setattr("gguf.quants.dequantize", refused)
    with pytest.raises(CheckpointError, match=r"is quantised as Q4_0, which cannot be read\. Give a file in BF16"):
        checkpoint.weights.read("depthformer.layers.0.feed_forward.w1.weight")


def test_unknown_and_missing_tensors_of_the_hub(opened, tmp_path):
    def renamed(tensors):
        tensors["encoder.stem.out.weight"] = tensors.pop("encoder.downsample.out.weight")

    with pytest.raises(CheckpointError, match=r"1 tensors whose names Voxrill does not know: encoder\.stem\.out\.wei"):
        opened(write_hub(tmp_path / "renamed", renamed))
    checkpoint = opened(write_hub(tmp_path / "less", lambda tensors: tensors.pop("mask_embedding.weight", None)
                                  or tensors.pop("mask_embedding")))  # fmt: skip
    with pytest.raises(CheckpointError, match="has no tensor for mask_embedding"):
        checkpoint.weights.read("mask_embedding")


def test_a_shape_that_does_not_fit(opened, tmp_path):
    from voxrill.export.lfm3 import modules
    from voxrill.export.lfm3.sizes import Lfm3Sizes

    def cut(tensors):
        tensors["mlp.model.3.bias"] = tensors["mlp.model.3.bias"][:-1].copy()

    checkpoint = opened(write_hub(tmp_path / "hub", cut))
    sizes = Lfm3Sizes.read(checkpoint.weights, checkpoint.config)
    with pytest.raises(CheckpointError, match=r"tensor mlp\.model\.3\.bias has shape \[63\], not \[64\]"):
        modules.encoder(checkpoint.weights, sizes)


def test_norms_of_codebooks_that_differ(opened, tmp_path):
    def changed(tensors):
        tensors["depth_embeddings.5.embedding_norm.weight"] = np.ones(32, np.float32)

    with pytest.raises(CheckpointError, match="a norm of its own for each codebook"):
        opened(write_hub(tmp_path / "hub", changed)).weights.read("head_norm.weight")


def test_omni_is_refused_by_name(opened, tmp_path):
    with pytest.raises(CheckpointError, match="LFM3-Omni, which sees as well as hears"):
        opened(write_hub(tmp_path / "a", model_type="lfm3_omni", architectures=["Lfm3OmniForConditionalGeneration"]))
    with pytest.raises(CheckpointError, match="LFM3-Omni"):
        opened(write_hub(tmp_path / "b", lambda tensors: tensors.update({
            "model.depth_decoder.layers.0.ffn_norm.weight": np.ones(32, np.float32)})))  # fmt: skip


def test_features_of_another_kind(opened, tmp_path):
    from voxrill.export.lfm3.graphs import read_model_spec

    checkpoint = opened(write_hub(tmp_path / "hub", preprocessor={"center": True}))
    with pytest.raises(CheckpointError, match=r"preprocessor\.center = True; only False is supported"):
        read_model_spec(checkpoint)


def test_a_tokenizer_without_the_marks(opened, exporter, tmp_path):
    folder = write_hub(tmp_path / "hub")
    written = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    spelled = json.dumps(written).replace("<|mixed_start|>", "<|mixed_begin|>")
    (folder / "tokenizer.json").write_text(spelled, encoding="utf-8")
    with pytest.raises(BundleError, match=r"the tokenizer has no token <\|mixed_start\|>"):
        exporter.export_bundle(opened(folder), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_another_family_does_not_fit(opened, exporter, tmp_path):
    with pytest.raises(UsageError, match=r"is not of the family lfm2\.5-audio\. It is of lfm3-audio"):
        exporter.detect_family(opened(write_hub(tmp_path / "hub")), "lfm2.5-audio")


def test_the_command_refuses_in_one_line(cli, exporter, gguf, tmp_path):
    write_pair(tmp_path / "pair", halves=("mmproj",))
    cli.refuses("export", "pair", "-o", "bundle", saying="pair has only one half of a GGUF pair: no backbone")


def test_the_golden_arrays_have_every_part():
    assert len(vocabulary()) == 270 and len(arrays()) == len(list(weights()))
