"""The published sizes of LFM3-Audio: names and shapes of a whole checkpoint, without its numbers.

Where VOXRILL_PUBLISHED_LFM3 names a folder with `keys_lfm3_audio.tsv`, `config_codec.json` and
`config_feature_extractor.json`, the list of the published tensors and the published configs are compared, too.
"""

import csv
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch", reason="the export extra is not installed")

from tests.export.lfm3_true_size import published_sizes, shapes  # noqa: E402
from voxrill.export.lfm3.graphs import LOG_MEL, plan_graphs, read_model_spec  # noqa: E402
from voxrill.export.lfm3.names import our_name  # noqa: E402
from voxrill.export.lfm3.sizes import FSQ_LEVELS, Lfm3Sizes  # noqa: E402
from voxrill.export.lfm3.tensors import DEPTH_TABLE, Lfm3Tensors  # noqa: E402
from voxrill.export.tensors import Tensors  # noqa: E402
from voxrill.runtime.bundle.contract import StaticShapes  # noqa: E402
from voxrill.runtime.errors import CheckpointError  # noqa: E402


class Shapes(Tensors):
    """Tensors without numbers."""

    def __init__(self):
        self._shapes = dict(shapes(published_sizes()))

    def __contains__(self, name):
        return name in self._shapes

    def __iter__(self):
        return iter(self._shapes)

    def shape(self, name):
        return self._shapes[name]

    def dtype(self, name):
        return "bfloat16"

    def read(self, name):
        raise AssertionError("no numbers")


@pytest.fixture(scope="module")
def tensors():
    return Lfm3Tensors([Shapes()], "the published sizes")


@pytest.fixture(scope="module")
def published():
    folder = os.environ.get("VOXRILL_PUBLISHED_LFM3")
    if not folder:
        pytest.skip("VOXRILL_PUBLISHED_LFM3 names no folder with the published names and configs of LFM3-Audio")
    return Path(folder)


def test_the_sizes_are_read_off_the_tensors(tensors):
    """All but the kinds of attention, which no shape shows, and which the config or the usual pattern says."""
    wanted = published_sizes()
    assert Lfm3Sizes.read(tensors, {}) == wanted
    config = {"lfm": {"layer_types": wanted.backbone.stack.kinds, "sliding_window": 100}}
    assert Lfm3Sizes.read(tensors, config).backbone == replace(wanted.backbone, window=100)


def test_how_many_numbers_it_has(tensors):
    heard = [name for name in tensors if name.startswith(("encoder.", "mlp."))]
    assert len(heard) == 176  # as a community's extraction of the published file has it
    assert sum(torch.Size(tensors.shape(name)).numel() for name in tensors) == pytest.approx(2.01e9, rel=0.01)


def test_the_pieces_of_an_npu_bundle_are_whole_rows(tensors):
    checkpoint = SimpleNamespace(weights=tensors, config={})
    static = StaticShapes(mel_frames=12, prefill=8, context=64)
    with pytest.raises(CheckpointError, match=r"cannot take 12 frames\. Give --mel-frames a multiple of 8"):
        plan_graphs(checkpoint, read_model_spec(checkpoint), static)


def test_every_published_tensor_has_our_name_and_shape(published, tensors):
    with (published / "keys_lfm3_audio.tsv").open(encoding="utf-8") as lines:
        listed = list(csv.DictReader(lines, delimiter="\t"))
    assert len(listed) > 500
    for row in listed:
        name, stated = row["gguf_name"], row["torch_shape"]
        if "?" in stated or name == "a.gen.wav.quant.first.codebook.weight":
            continue  # a codec that nobody has seen, and the table that is computed
        ours = our_name(name)
        assert ours is not None, name
        sizes = tuple(2048 if size == "H" else int(size) for size in stated.split("x"))
        found = tensors.shape(DEPTH_TABLE if ours.startswith("depth_embeddings") else ours)
        assert found == ((sizes[0] * sizes[1], sizes[2]) if ours.startswith("depth_embeddings") else sizes), name


def test_the_published_configs_are_what_is_computed(published):
    sizes = published_sizes()
    codec = json.loads((published / "config_codec.json").read_text(encoding="utf-8"))
    assert tuple(codec["fsq_levels"]) == FSQ_LEVELS
    assert (codec["n_q"], codec["decoder_window"]) == (sizes.codec.codebooks, sizes.codec.window)
    spec = sizes.codec.spec()
    assert (codec["sampling_rate"], codec["frame_samples"]) == (spec.sample_rate, spec.frame_samples)
    assert (codec["stft_n_fft"], codec["stft_hop_length"]) == (spec.n_fft, spec.hop)
    assert codec["quantizer_dim"] == sizes.codec.inner
    heard = json.loads((published / "config_feature_extractor.json").read_text(encoding="utf-8"))
    assert (heard["n_fft"], heard["hop_length"]) == (LOG_MEL.n_fft, LOG_MEL.hop_samples)
    assert heard["feature_size"] == LOG_MEL.features
    assert (heard["normalization_offset"], heard["normalization_divisor"]) == (LOG_MEL.offset, LOG_MEL.divisor)
    assert 10 ** heard["log_floor"] == pytest.approx(LOG_MEL.log_guard)
    assert heard["encoder_stride"] == sizes.encoder.subsampling
