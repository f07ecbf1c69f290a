"""Products of our own: against numpy, against onnxruntime's, and every instruction set against plain C++."""

import gc

import numpy as np
import onnxruntime as ort
import pytest

from tests.kernels.products import BITS, BLOCKS, RandomProduct, activations
from voxrill.devices import kernels

pytestmark = pytest.mark.usefixtures("library")

SHAPES = (
    (2048, 2048), (2048, 6144), (2048, 512), (2048, 8192), (8192, 2048),  # the backbone
    (2048, 1024), (1024, 1536), (1024, 1024), (1024, 2816), (2816, 1024), (1024, 2049),  # the depthformer
    (512, 512), (512, 2048), (2048, 512), (512, 1282),  # encoder and codec
)  # fmt: skip
"""Columns and rows of the products of both families' graphs."""
ODD = ((1, 1), (31, 17), (33, 15), (100, 33), (257, 16), (300, 50))
"""Columns and rows that fill no block and no group."""

NEAR = 2e-6
"""How far a product may be from numpy's in float64, as a part of the sum of magnitudes: float32 rounds each block."""


def magnitude(product, x, every=1):
    """The sum of the magnitudes of what a product adds up."""
    return np.abs(x).astype(np.float64) @ np.abs(product.weight(every)).T + 1e-30


def check(product, x, each_set, threads=1, every=1):
    """The result of each instruction set is near numpy's, and all are the same to the bit."""
    session, wanted, bound = product.session(threads), product.reference(x, every), NEAR * magnitude(product, x, every)
    found = {name: session.run(None, {"x": x})[0] for name in each_set()}
    for name, y in found.items():
        assert y.dtype == np.float32 and y.shape == (len(x), product.rows)
        assert (np.abs(y[:, ::every] - wanted) <= bound).all(), name
        assert y.tobytes() == found[kernels.SLOW].tobytes(), name


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", ODD, ids=lambda shape: "x".join(map(str, shape)))
def test_odd_sizes(bits, shape, each_set):
    for block in BLOCKS:
        for asymmetric in (True, False):
            product = RandomProduct(*shape, bits, block, asymmetric)
            for rows in (1, 3):
                check(product, activations(product, rows), each_set)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("shape", sorted(set(SHAPES)), ids=lambda shape: "x".join(map(str, shape)))
def test_the_models_shapes(bits, shape, each_set):
    product = RandomProduct(*shape, bits, 128)
    check(product, activations(product, 1), each_set, threads=2, every=61)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("rows", [*range(1, 17), 100, 253])
def test_rows_of_activations(bits, rows, each_set):
    """All ways to cut rows into tiles; more than are rounded at once; rounded by several threads.

    A thread takes three groups of 16 rows of the weight, the last one two, of which the second is not full.
    """
    product = RandomProduct(128, 549, bits, 32)
    check(product, activations(product, rows), each_set, threads=2)


@pytest.mark.parametrize("bits", BITS)
def test_a_row_s_result_does_not_depend_on_the_others(bits):
    product = RandomProduct(256, 549, bits, 64)
    x, session = activations(product, 29), product.session(2)
    together = session.run(None, {"x": x})[0]
    assert all(np.array_equal(session.run(None, {"x": x[i : i + 1]})[0][0], together[i]) for i in range(len(x)))


@pytest.mark.parametrize("bits", BITS)
def test_extreme_weights_and_activations(bits, each_set):
    """The largest sums that can occur: every weight and activation at an end of its range."""
    product = RandomProduct(512, 32, bits, 256)
    product.values[::2], product.values[1::2] = 0, (1 << bits) - 1
    product.points[:, 0], product.points[:, 1] = 0, (1 << bits) - 1
    x = np.full((3, 512), 1.0, np.float32)
    x[1], x[2, ::2] = -1, -1
    check(product, x, each_set)
    check(product, x * np.float32(1e30), each_set)
    check(product, x * np.float32(1e-25), each_set)


def test_activations_round_to_the_nearest_even(each_set):
    product = RandomProduct(32, 16, 8, 32)
    x = np.array([[127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5] * 4], np.float32)
    check(product, x, each_set)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("bits", BITS)
def test_what_is_not_finite_makes_its_row_nan_and_nothing_else(bad, bits, each_set):
    product = RandomProduct(128, 33, bits, 32)
    x, session = activations(product, 14), product.session()
    for name in each_set():
        clean = session.run(None, {"x": x})[0]
        spoilt = x.copy()
        spoilt[5, 77] = bad
        y = session.run(None, {"x": spoilt})[0]
        assert np.isnan(y[5]).all(), name
        assert np.array_equal(np.delete(y, 5, 0), np.delete(clean, 5, 0)), name


def test_tiny_activations_count_as_zero(each_set):
    product = RandomProduct(32, 16, 4, 32)
    x = np.array([[1e-45] * 32, [2.0**-101] * 32, [0] * 32, [2.0**-99] * 32], np.float32)
    session = product.session()
    for name in each_set():
        y = session.run(None, {"x": x})[0]
        assert not y[:3].any() and y[3].any(), name


@pytest.mark.parametrize("size", [1e-9, 1e-3, 1e6])
def test_scales_keep_their_precision_in_16_bits(size, each_set):
    """Scales in float32 become float16 times a power of two, so that small ones lose nothing."""
    product = RandomProduct(64, 32, 8, 32)
    given = product.initializers()
    given["scales"] = given["scales"] * np.float32(size)
    x, session = activations(product, 2), product.session(initializers=given)
    for name in each_set():
        y = session.run(None, {"x": x})[0] / np.float64(size)
        assert np.max(np.abs(y - product.reference(x)) / magnitude(product, x)) < 2.0**-11 + NEAR, name


def test_scales_in_16_bits(each_set):
    check(RandomProduct(128, 40, 4, 32, half=True), np.ones((2, 128), np.float32), each_set)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_it_is_the_product_that_onnxruntime_computes(bits, asymmetric):
    """The same weights in the other domain, with an error of the same size against the unrounded product."""
    product = RandomProduct(512, 256, bits, 64, asymmetric)
    x = activations(product, 5)
    exact = x.astype(np.float64) @ product.weight().T
    try:
        theirs = product.session(domain="com.microsoft")
    except ort.capi.onnxruntime_pybind11_state.Fail as error:
        pytest.skip(f"this onnxruntime has no such product: {error}")
    error, other = (
        np.linalg.norm(session.run(None, {"x": x})[0] - exact) / np.linalg.norm(exact)
        for session in (product.session(), theirs)
    )
    assert error <= max(1.05 * other, 0.01)


def test_any_rank_and_no_rows(each_set):
    product = RandomProduct(64, 20, 4, 32)
    x, session = activations(product, 6), product.session()
    flat = session.run(None, {"x": x})[0]
    assert np.array_equal(session.run(None, {"x": x.reshape(2, 1, 3, 64)})[0], flat.reshape(2, 1, 3, 20))
    assert np.array_equal(session.run(None, {"x": x[0]})[0], flat[0])
    assert session.run(None, {"x": x[:0]})[0].shape == (0, 20)


def test_a_wrong_x_is_refused():
    session = RandomProduct(64, 20, 4, 32).session()
    with pytest.raises(Exception, match="the last dimension of A is not K"):
        session.run(None, {"x": np.ones((1, 63), np.float32)})


@pytest.mark.parametrize("domain", [kernels.DOMAIN, "com.microsoft"])
@pytest.mark.parametrize("asymmetric", [True, False])
def test_a_bias_is_added(asymmetric, domain, each_set):
    """Under onnxruntime's name, too: it fuses a product and a sum, as graphs of other people have them, into that."""
    product = RandomProduct(64, 100, 4, 32, asymmetric)
    x, bias = activations(product, 30), np.random.default_rng(2).standard_normal(100).astype(np.float32)
    given, alone = product.initializers(), product.session(2)
    inputs = {name: given.get(name) for name in ("B", "scales", "zero_points")} | {"g_idx": None, "bias": bias}
    session = product.session(2, domain, own=True, initializers=inputs)
    for name in each_set():
        assert np.array_equal(session.run(None, {"x": x})[0], alone.run(None, {"x": x})[0] + bias), name


@pytest.mark.parametrize("name", ["bias", "g_idx"])
def test_a_bias_of_another_size_and_an_order_of_columns_are_refused(name):
    product = RandomProduct(64, 20, 4, 32)
    inputs = product.initializers() | {"g_idx": None, "bias": np.zeros(21, np.float32)}
    if name == "g_idx":
        inputs = product.initializers() | {"g_idx": np.zeros(64, np.int32)}
    with pytest.raises(Exception, match=rf"voxrill::MatMulNBits: {name}"):
        product.session(initializers=inputs)


@pytest.mark.parametrize("name", ["B", "scales", "zero_points"])
@pytest.mark.parametrize("length", ["shorter", "longer"])
def test_weights_of_another_size_are_refused(name, length):
    product = RandomProduct(64, 20, 4, 32)
    given = product.initializers()
    array = given[name].reshape(-1)
    given[name] = array[:-1] if length == "shorter" else np.append(array, array[:1])
    with pytest.raises(Exception, match=rf"{name} has .* elements instead of"):
        product.session(initializers=given)


@pytest.mark.parametrize("attribute", [{"bits": 5}, {"block": 16}, {"block": 48}, {"columns": 0}, {"rows": -1}])
def test_what_is_not_known_is_refused(attribute):
    product = RandomProduct(64, 20, 4, 32)
    given = product.initializers()
    for name, value in attribute.items():
        setattr(product, name, value)
    with pytest.raises(Exception, match=r"voxrill::MatMulNBits: .* must be"):
        product.session(initializers=given)


def test_two_graphs_share_a_weight_and_the_last_one_frees_it():
    product = RandomProduct(256, 64, 4, 32, seed=42)
    before = kernels.memory()
    sessions = [product.session(), product.session()]
    both = kernels.memory()
    assert (both.weights - before.weights, both.shared - before.shared) == (1, 1)
    assert both.bytes - before.bytes == 256 * 64 // 2
    x = activations(product, 1)
    y = sessions.pop().run(None, {"x": x})[0]
    gc.collect()
    assert np.array_equal(sessions[0].run(None, {"x": x})[0], y)
    sessions.clear()
    gc.collect()
    assert kernels.memory().weights == before.weights


def test_weights_that_differ_in_one_bit_are_not_shared():
    product = RandomProduct(256, 64, 4, 32, seed=43)
    first, x = product.session(), activations(product, 1)
    given = product.initializers()
    given["B"] = given["B"].copy()
    given["B"][7, 3, 5] ^= 1
    other = product.session(initializers=given)
    assert np.flatnonzero(first.run(None, {"x": x})[0] != other.run(None, {"x": x})[0]).tolist() == [7]
