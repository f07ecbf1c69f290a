"""The graphs for onnxruntime-genai: sound takes its place among words, and a frame is spelled step by step."""

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the quantize extra is not installed")
import onnxruntime as ort  # noqa: E402

from benchmarks import genai_graphs  # noqa: E402

HIDDEN, DIM, INNER = 64, 512, 96
SHAPES = {
    "depth_linear.weight": [8 * DIM, HIDDEN],
    "depthformer.layers.0.feed_forward.w1.weight": [INNER, DIM],
    "depthformer.layers.0.operator.qkv_proj.weight": [768, DIM],
    "depthformer.layers.1.operator.qkv_proj.weight": [768, DIM],
}


def session(model):
    return ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def test_sound_takes_the_place_of_its_token():
    table = np.arange(140 * 4, dtype=np.float16).reshape(140, 4)
    sound = np.full((2, 4), -1, np.float32)
    tokens = np.array([[5, genai_graphs.AUDIO_TOKEN, genai_graphs.AUDIO_TOKEN, 7]])
    (rows,) = session(genai_graphs._embeddings(table)).run(None, {"input_ids": tokens, "audio_features": sound})
    np.testing.assert_array_equal(rows[0], np.stack([table[5], sound[0], sound[1], table[7]]))


@pytest.fixture(scope="module")
def step():
    """One step of the depthformer: number, code before, projection and cache to its outputs."""
    depthformer = session(genai_graphs._Depthformer(SHAPES).model())
    hidden = np.random.default_rng(0).standard_normal((1, HIDDEN), np.float32)

    def run(number, code, slices, keys, values):
        feeds = {
            "hidden_states": hidden,
            "depth_slices_in": slices,
            "step_idx": np.array(number),
            "prev_token": np.array([code]),
            "past_keys": keys,
            "past_values": values,
            "seqlens_k": np.array([number], np.int32),
            "total_seq_len": np.array(number + 1, np.int32),
        }
        return depthformer.run(["logits", "depth_slices", "new_keys", "new_values"], feeds)

    return run


def frame(step, first_code=None):
    """The logits of every step of a frame."""
    slices, keys = np.zeros((1, 8, DIM), np.float32), np.zeros((2, 1, 8, 0, DIM // 32), np.float32)
    values, code, found = keys, 0, []
    for number in range(8):
        logits, given, keys, values = step(number, code, slices, keys, values)
        slices = given if number == 0 else slices
        code = int(logits.argmax()) if number or first_code is None else first_code
        found.append(logits)
    assert keys.shape == values.shape == (2, 1, 8, 8, DIM // 32)
    return np.concatenate(found)


def test_a_frame_is_spelled_step_by_step(step):
    logits = frame(step)
    assert logits.shape == (8, genai_graphs.CODES) and np.isfinite(logits).all()
    assert len({row.tobytes() for row in logits}) == 8  # each codebook has its own head
    other = frame(step, first_code=(int(logits[0].argmax()) + 1) % genai_graphs.CODES)
    assert np.array_equal(other[0], logits[0]) and not np.array_equal(other[1], logits[1])
