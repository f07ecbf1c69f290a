"""Attention of our own with an 8-bit KV cache: against numpy, onnxruntime's, and every instruction set to the bit."""

import numpy as np
import onnxruntime as ort
import pytest

from voxrill.devices import kernels

pytest.importorskip("onnx", reason="graphs are made with onnx")

from tests.kernels.attention import HEADS, NAMES, attention_model, inputs

pytestmark = pytest.mark.usefixtures("library")

LFM = HEADS[0]


def session(sizes, own=True, threads=2):
    """The operator alone."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 4
    if own:
        kernels.register(options)
    return ort.InferenceSession(attention_model(sizes), options, providers=["CPUExecutionProvider"])


def reference(sizes, given):
    """In float64: the mixed values, and both caches."""
    heads, kv_heads, width = sizes
    new, total = given["query"].shape[1], int(given["total"][0])
    caches = []
    for name in ("key", "value"):
        rows = given[name][0].reshape(new, kv_heads, width).transpose(1, 0, 2)
        cache = given[f"past_{name}"].copy()
        cache[0, :, total - new : total] = np.clip(np.rint(rows / given[f"{name}_scales"]), -128, 127)
        caches.append(cache)
    keys, values = (
        np.repeat(cache[0, :, :total] * given[name].astype(np.float64), heads // kv_heads, 0)
        for cache, name in zip(caches, NAMES[7:], strict=True)
    )
    queries = given["query"][0].reshape(new, heads, width).transpose(1, 0, 2)
    scores = queries @ keys.transpose(0, 2, 1) / np.sqrt(width)
    scores[:, ~np.tri(new, total, total - new, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = weights / weights.sum(-1, keepdims=True) @ values
    return mixed.transpose(1, 0, 2).reshape(1, new, -1), *caches


def check(sizes, given, each_set, near=5e-4):
    """Each set is near numpy's result, as a part of the largest value, and all are the same to the bit."""
    runner, (mixed, *caches) = session(sizes), reference(sizes, given)
    bound = near * np.abs(caches[1] * given["value_scales"]).max()
    found = {name: runner.run(None, given) for name in each_set()}
    for name, (out, *written) in found.items():
        assert np.abs(out - mixed).max() <= bound, name
        assert out.tobytes() == found[kernels.SLOW][0].tobytes(), name
        for cache, wanted in zip(written, caches, strict=True):
            np.testing.assert_array_equal(cache, wanted)


@pytest.mark.parametrize("sizes", HEADS, ids=str)
@pytest.mark.parametrize("known", [0, 1, 2, 3, 5, 126, 127, 128, 129, 511, 1100, 5000])
def test_one_position_after_any_number(sizes, known, each_set):
    check(sizes, inputs(sizes, known, 1), each_set)


@pytest.mark.parametrize("sizes", HEADS, ids=str)
@pytest.mark.parametrize("known", [0, 3, 250, 1025])
@pytest.mark.parametrize("new", [2, 3, 7, 33])
def test_some_positions_at_once(sizes, known, new, each_set):
    check(sizes, inputs(sizes, known, new), each_set)


def test_a_position_does_not_see_those_after_it():
    given, runner = inputs(LFM, 200, 5), session(LFM)
    whole = runner.run(None, given)[0]
    given["key"][0, 4], given["value"][0, 4] = 9, 9
    other = runner.run(None, given)[0]
    np.testing.assert_array_equal(other[0, :4], whole[0, :4])
    assert (other[0, 4] != whole[0, 4]).any()


@pytest.mark.parametrize(("size", "near"), [(0, 5e-4), (1e-30, 5e-4), (1e-3, 5e-4), (30, 0.05)])
def test_queries_of_any_size(size, near, each_set):
    """Zeros attend to all alike; large ones to few."""
    given = inputs(LFM, 700, 2)
    given["query"] *= np.float32(size)
    check(LFM, given, each_set, near)


def test_a_long_tail_of_low_weights_counts(each_set):
    """16,000 positions that weigh 1 in 100,000 each are a seventh of the sum."""
    sizes, given = (1, 1, 32), inputs((1, 1, 32), 16_000, 1)
    for name in ("past_key", "query", "key"):
        given[name][:] = 0
    given["key_scales"][:], given["query"][..., 0] = 1, np.sqrt(32) * np.log(1e5) / 127
    given["past_key"][0, 0, 77, 0] = 127
    check(sizes, given, each_set, near=1e-3)


def test_the_ends_of_the_range(each_set):
    """The largest sums that can occur, and new keys and values beyond what the cache can hold."""
    for first, second in ((-128, -128), (127, -128), (-128, 127)):
        given = inputs(HEADS[5], 300, 1)
        given["past_key"][:], given["past_value"][:] = first, second
        given["key_scales"][:] = 0.05
        given["query"][:], given["key"][:], given["value"][:] = 1, 1e9, -1e9
        check(HEADS[5], given, each_set)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_query_that_is_not_finite_spoils_its_head_only(bad, each_set):
    given, runner = inputs(LFM, 300, 3), session(LFM)
    spoilt = given | {"query": given["query"].copy()}
    spoilt["query"][0, 1, 5 * 64 + 7] = bad
    for name in each_set():
        clean, found = (runner.run(None, one)[0].reshape(3, 32, 64) for one in (given, spoilt))
        assert np.isnan(found[1, 5]).all(), name
        found[1, 5] = clean[1, 5]
        np.testing.assert_array_equal(found, clean)


@pytest.mark.parametrize("new", [1, 5])
@pytest.mark.parametrize("sizes", HEADS[:2], ids=str)
def test_without_the_library_onnxruntime_computes_the_same(sizes, new):
    given = inputs(sizes, 321, new)
    try:
        theirs = session(sizes, own=False)
    except ort.capi.onnxruntime_pybind11_state.Fail as error:
        pytest.skip(f"this onnxruntime has no 8-bit KV cache: {error}")
    (mixed, *caches), (out, *others) = theirs.run(None, given), session(sizes).run(None, given)
    assert np.abs(mixed - out).max() < 5e-4 * np.abs(127 * given["value_scales"]).max()
    for one, other in zip(caches, others, strict=True):
        np.testing.assert_array_equal(one[:, :, : 321 + new], other[:, :, : 321 + new])


def test_the_result_does_not_depend_on_the_threads():
    given = inputs(LFM, 3000, 1)
    one, many = (session(LFM, threads=threads).run(None, given)[0] for threads in (1, 4))
    assert one.tobytes() == many.tobytes()


def test_it_writes_into_the_cache_that_it_is_given():
    given, runner = inputs(LFM, 100, 1), session(LFM)
    _, keys, values = reference(LFM, given)
    binding = runner.io_binding()
    for name, array in given.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("mixed")
    for name, past in (("keys", "past_key"), ("values", "past_value")):
        binding.bind_output(name, "cpu", 0, np.int8, given[past].shape, given[past].ctypes.data)
    runner.run_with_iobinding(binding)
    np.testing.assert_array_equal(given["past_key"], keys)
    np.testing.assert_array_equal(given["past_value"], values)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"total": np.array([400], np.int32)}, "total must be"),
        ({"total": np.array([0], np.int32)}, "total must be"),
        ({"last": np.array([7], np.int32)}, "total must be"),
        ({"key": np.zeros((1, 2, 512), np.float32)}, "key has 1024 elements instead of 512"),
        ({"value_scales": np.zeros(511, np.float32)}, "value_scales has 511 elements"),
        ({"past_value": np.zeros((1, 8, 20, 64), np.int8)}, "past_value has"),
        ({"query": np.zeros((1, 1, 2047), np.float32)}, "query must be"),
        ({"query": np.zeros((2, 1, 2048), np.float32)}, "query must be"),
        ({"past_key": np.zeros((1, 4, 104, 64), np.int8)}, "the cache must be"),
    ],
)
def test_what_does_not_fit_is_refused(change, why):
    with pytest.raises(Exception, match=rf"voxrill::GroupQueryAttention: {why}"):
        session(LFM).run(None, inputs(LFM, 100, 1) | change)
