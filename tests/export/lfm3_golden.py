"""The golden model of LFM3-Audio as tensors by our names, its sizes, and what llama.cpp computed with it."""

import json
from functools import cache

import numpy as np

from tests.places import ROOT

GOLDEN = ROOT / "tests" / "golden" / "lfm3"


@cache
def expected():
    """Golden outputs by name."""
    with np.load(GOLDEN / "expected.npz") as arrays:
        return dict(arrays)


@cache
def arrays():
    """Golden weights by their stored names."""
    with np.load(GOLDEN / "weights.npz") as stored:
        return {name.split("/", 1)[1]: stored[name].astype(np.float32) for name in stored.files}


@cache
def tiny():
    return json.loads((GOLDEN / "tiny_config.json").read_text(encoding="utf-8"))


def config():
    """The golden model's config.json, as far as its tensors do not say it."""
    text, heard = tiny()["text"], tiny()["audio_in"]
    return {
        "model_type": "lfm3_audio",
        "architectures": ["Lfm3AudioForConditionalGeneration"],
        "codebooks": 12,
        "maskgit_steps": 3,
        "interleaved_n_text": 6,
        "interleaved_n_audio": 12,
        "encoder": {"dim_in": heard["mels"], "sliding_window": heard["window"]},
        "lfm": {
            "layer_types": text["layer_types"],
            "sliding_window": text["window"],
            "norm_eps": text["eps"],
            "max_position_embeddings": 4096,
        },
    }


@cache
def weights():
    """The golden weights by our names."""
    import torch

    from voxrill.export.lfm3.tensors import Lfm3Tensors
    from voxrill.export.tensors import Tensors

    class Given(Tensors):
        def __contains__(self, name):
            return name in arrays()

        def __iter__(self):
            return iter(arrays())

        def shape(self, name):
            return arrays()[name].shape

        def dtype(self, name):
            return "float32"

        def read(self, name):
            return torch.from_numpy(arrays()[name])

    return Lfm3Tensors([Given()], "the golden model")
