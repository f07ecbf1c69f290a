"""LFM3's backbone in several shapes, held to what transformers 5.24 computes (tests/golden/make_lfm3.py)."""

import json

import numpy as np
import pytest

from tests.export.lfm3_golden import GOLDEN

torch = pytest.importorskip("torch", reason="the export extra is not installed")

SHAPES = ("published-like", "wide-heads", "other-ropes", "bare")
CHUNKS = {"whole": [45], "steps": [1] * 45, "odd": [3, 1, 17, 2, 22], "prefill": [40, *[1] * 5]}


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "backbones.npz") as arrays:
        return dict(arrays)


def backbone(golden, shape):
    from voxrill.export.lfm3 import modules
    from voxrill.export.lfm3.sizes import Lfm3Sizes, backbone_config
    from voxrill.export.lfm3.tensors import Lfm3Tensors
    from voxrill.export.tensors import Tensors

    prefix = f"{shape}/weights/"
    stored = {n.removeprefix(prefix): v.astype(np.float32) for n, v in golden.items() if n.startswith(prefix)}

    class Stored(Tensors):
        def __contains__(self, name):
            return name in stored

        def __iter__(self):
            return iter(stored)

        def shape(self, name):
            return stored[name].shape

        def dtype(self, name):
            return "float32"

        def read(self, name):
            return torch.from_numpy(stored[name])

    weights = Lfm3Tensors([Stored()], shape)
    config = backbone_config(weights, json.loads(str(golden[f"{shape}/config"])))
    sizes = Lfm3Sizes(config, None, None, None)
    return weights, modules.decoder(weights, sizes), modules.decoder(weights, sizes, True)


def empty(decoder, rows):
    config, state = decoder.backbone, []
    stack = config.stack
    for kind in stack.kinds:
        if kind == "conv":
            state.append(torch.zeros(1, stack.hidden, stack.kernel - 1))
        else:
            count = rows if kind == "full_attention" else config.window - 1
            state += [torch.zeros(1, stack.kv_heads, count, stack.head_dim)] * 2
    return state


def check(found, golden, shape, weights):
    logits = found @ weights.read("lfm.embed_tokens.weight").t()
    assert np.abs(found.numpy() - golden[f"{shape}/hidden"]).max() < 2e-5
    assert np.abs(logits.numpy() - golden[f"{shape}/logits"]).max() < 1e-4


@pytest.mark.parametrize("chunks", CHUNKS.values(), ids=list(CHUNKS))
@pytest.mark.parametrize("shape", SHAPES)
def test_prefill_and_steps(exporter, golden, shape, chunks):
    weights, decoder, _ = backbone(golden, shape)
    rows = weights.read("lfm.embed_tokens.weight")[torch.from_numpy(golden[f"{shape}/ids"])]
    state, hidden, done = empty(decoder, 50), [], 0
    for count in chunks:
        mask = torch.ones(1, done + count, dtype=torch.int64)
        with torch.inference_mode():
            some, *state = decoder(rows[None, done : done + count], mask, *state)
        hidden.append(some[0])
        done += count
    check(torch.cat(hidden), golden, shape, weights)


@pytest.mark.parametrize("shape", SHAPES)
def test_padded_prefill_of_fixed_shapes(exporter, golden, shape):
    """The npu flavour: calls of 8 positions, the last of them padded; the new rows are put into the buffers here."""
    weights, _, decoder = backbone(golden, shape)
    rows = weights.read("lfm.embed_tokens.weight")[torch.from_numpy(golden[f"{shape}/ids"])]
    width, context, done, hidden = 8, 64, 0, []
    state = empty(decoder, context)
    while done < len(rows):
        valid = min(width if done != 16 else 3, len(rows) - done)  # one call in the middle is padded, too
        call = torch.zeros(1, width, rows.shape[1])
        call[0, :valid] = rows[done : done + valid]
        mask = torch.zeros(1, context + width, dtype=torch.int64)
        mask[0, :done], mask[0, context : context + valid] = 1, 1
        with torch.inference_mode():
            some, *present = decoder(call, mask, *state)
        for number, new in enumerate(present):
            if new.shape == state[number].shape:
                state[number] = new
            else:
                state[number] = state[number].clone()
                state[number][:, :, done : done + valid] = new[:, :, :valid]
        hidden.append(some[0, :valid])
        done += valid
    check(torch.cat(hidden), golden, shape, weights)
