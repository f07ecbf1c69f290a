"""The KV cache in 8 bits, on Pebble: the same words from a quarter of the memory."""

import shutil

import msgspec
import numpy as np
import onnxruntime
import pytest

from tests.places import CLIPS, PEBBLE
from voxrill.commands.plan import bundle_model
from voxrill.devices import overflow
from voxrill.model import Model
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.bundle.bundle import open_bundle, write_manifest
from voxrill.runtime.bundle.contract import DECODER, present_name, state_bytes
from voxrill.runtime.engine import session
from voxrill.runtime.engine.state import FIRST_CAPACITY
from voxrill.runtime.errors import BundleError, DataError, UsageError
from voxrill.runtime.upkeep import tuning
from voxrill.runtime.upkeep.snapshot import open_snapshot, save_snapshot

onnx = pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from onnx import TensorProto, helper  # noqa: E402

from voxrill.quantize.bundle import with_cache  # noqa: E402
from voxrill.quantize.kv_cache import channel_sizes, hold_cache_in_int8, measure_scales  # noqa: E402
from voxrill.quantize.recipe import read_recipe  # noqa: E402

PAST = ("past_key_values.2.key", "past_key_values.2.value")
SOUNDS = sorted(CLIPS.glob("*-known.flac"))[:3]


@pytest.fixture(scope="module")
def plain():
    with Model(open_bundle(PEBBLE)) as model:
        yield model


@pytest.fixture(scope="module")
def bundle(plain, tmp_path_factory):
    """Pebble with an int8 cache, whose factors are measured on what it says itself."""
    folder = tmp_path_factory.mktemp("cache") / "pebble"
    shutil.copytree(PEBBLE, folder)
    hold_cache_in_int8(folder / "decoder.onnx", measure_scales(plain))
    manifest = plain.manifest
    write_manifest(folder, msgspec.structs.replace(manifest, model=with_cache(manifest.model, "int8")))
    return open_bundle(folder)


@pytest.fixture(scope="module")
def model(bundle):
    with Model(bundle) as model:
        yield model


@pytest.fixture
def rows(model):
    """Embeddings (40, hidden) of a text that goes on and on."""
    ids = model.parts.tokenizer.encode("what is the weather")
    return model.parts.embed_tokens((ids * 40)[:40])


def fed(model, rows, *counts):
    """A state that was given `rows` in calls of so many positions, and the last hidden state."""
    backbone = model.parts.backbone
    state = backbone.new_state()
    hidden = [backbone.forward(part, state) for part in np.split(rows, np.cumsum(counts)[:-1])]
    return state, hidden[-1][-1]


def test_it_hears_and_answers_the_same_words(plain, model):
    for sound in SOUNDS:
        assert model.transcribe(sound).text == plain.transcribe(sound).text
        answers = [list(one.chat(audio=sound, seed=0))[-1].result.text for one in (plain, model)]
        assert answers[0] == answers[1]


def attention(path):
    """A graph of one attention: four heads, which share two heads of keys and values, eight channels wide."""
    node = helper.make_node(
        "GroupQueryAttention",
        ["query", "key", "value", *PAST, "last", "total"],
        ["mixed", *map(present_name, PAST)],
        "attention",
        domain="com.microsoft",
        num_heads=4,
        kv_num_heads=2,
    )
    cache = (1, 2, "capacity", 8)
    ins = [("query", 1, (1, "new", 32)), ("key", 1, (1, "new", 16)), ("value", 1, (1, "new", 16))]
    ins += [(name, TensorProto.FLOAT, cache) for name in PAST]
    ins += [(name, TensorProto.INT32, (1,)) for name in ("last", "total")]
    outs = [("mixed", 1, (1, "new", 32)), *((present_name(name), 1, cache) for name in PAST)]
    described = ([helper.make_tensor_value_info(*tensor) for tensor in side] for side in (ins, outs))
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(helper.make_graph([node], "g", *described), opset_imports=opsets, ir_version=10), path)


def attended(session, rows, counts):
    """What the attention mixes and leaves in its cache, when `rows` come in calls of so many positions."""
    dtype = {"tensor(float)": np.float32, "tensor(int8)": np.int8}[session.get_inputs()[3].type]
    cache = {name: np.zeros((1, 2, 64, 8), dtype) for name in PAST}
    mixed, total = [], 0
    for part in np.split(rows, np.cumsum(counts)[:-1], axis=1):
        total += part.shape[1]
        feed = {"query": part[..., :32], "key": part[..., 32:48], "value": part[..., 48:]}
        counted = {"last": np.array([total - 1], np.int32), "total": np.array([total], np.int32)}
        out, *present = session.run(None, {**feed, **counted, **cache})
        cache = dict(zip(PAST, present, strict=True))
        mixed.append(out)
    return np.concatenate(mixed, 1), cache


@pytest.mark.parametrize("counts", [(40,), (8, 32), (7, 33), (33, 7), (20, 1, 19)], ids=str)
def test_few_and_many_positions_at_once_leave_the_same_bytes(tmp_path, counts):
    rows = np.random.default_rng(0).standard_normal((1, 40, 64)).astype(np.float32)
    attention(path := str(tmp_path / "decoder.onnx"))
    exact, whole = attended(onnxruntime.InferenceSession(path), rows, counts)
    scales = {name: channel_sizes(name, whole[name][0]) / 127 for name in PAST}
    hold_cache_in_int8(tmp_path / "decoder.onnx", scales)
    onnx.checker.check_model(path)
    session = onnxruntime.InferenceSession(path)
    one, of_one = attended(session, rows, [1] * 40)
    mixed, cache = attended(session, rows, counts)
    np.testing.assert_allclose(mixed, one, atol=1e-5)
    assert np.abs(mixed - exact).max() < 0.03
    for name in PAST:
        np.testing.assert_array_equal(cache[name], of_one[name])
        assert np.abs(cache[name][0] * scales[name] - whole[name][0]).max() <= 0.5001 * scales[name].max()


def test_the_hidden_state_is_that_of_the_float_cache(plain, model, rows):
    (_, exact), (_, found) = fed(plain, rows, 30, *[1] * 10), fed(model, rows, 30, *[1] * 10)
    assert 0 < np.linalg.norm(found - exact) < 0.05 * np.linalg.norm(exact)


def test_the_cache_takes_a_quarter_in_memory_and_in_plans(plain, model):
    small, large = (one.manifest.specs()[DECODER] for one in (model, plain))
    assert 4 * (state_bytes(small, 2) - state_bytes(small, 1)) == state_bytes(large, 2) - state_bytes(large, 1)
    assert model.parts.backbone.new_state().nbytes == state_bytes(small, FIRST_CAPACITY)
    plans = [bundle_model(one.manifest, 4096) for one in (model, plain)]
    assert 4 * plans[0].kv_bytes == plans[1].kv_bytes
    assert plans[0].memory < plans[1].memory


def test_the_state_grows_goes_back_and_leaves_the_memory(model, rows):
    state, _ = fed(model, np.tile(rows, (26, 1)), 500, 520)
    mark, backbone = state.mark(), model.parts.backbone
    before = {name: tensor.copy() for name, tensor in state.content().items()}
    backbone.forward(rows, state)  # beyond the first capacity
    assert state.nbytes > model.parts.backbone.new_state().nbytes
    state.rewind(mark)
    for name, tensor in state.content().items():
        np.testing.assert_array_equal(tensor, before[name])
    hidden = backbone.forward(rows[:1], state)
    state.rewind(mark)
    state.offload()
    state.reload(before)
    np.testing.assert_array_equal(backbone.forward(rows[:1], state), hidden)


def test_a_snapshot_holds_it_and_one_of_a_float_cache_is_refused(plain, model, tmp_path):
    save_snapshot(model, None, tmp_path / "small")
    conversation = open_snapshot(model, tmp_path / "small")
    fresh = model.conversation()
    fresh.prefill_prompt()
    for name, tensor in fresh.context.content().items():
        found = conversation.context.content()[name]
        assert found.dtype == tensor.dtype
        np.testing.assert_array_equal(found, tensor)
    save_snapshot(plain, None, tmp_path / "large")
    assert (tmp_path / "small").stat().st_size < 0.6 * (tmp_path / "large").stat().st_size
    with pytest.raises(UsageError, match="made with another bundle"):
        open_snapshot(model, tmp_path / "large")


def test_an_older_onnxruntime_is_refused_in_words(bundle, monkeypatch):
    monkeypatch.setattr(session.ort, "__version__", "1.26.0")
    monkeypatch.setattr(overflow, "products_overflow", lambda: False)
    with pytest.raises(BundleError, match=r"int8 KV cache, which onnxruntime 1\.26\.0 cannot run"):
        Model(bundle)
    Model(open_bundle(PEBBLE)).close()


def test_the_factor_of_a_key_does_not_depend_on_its_position():
    """Pairs of channels turn with the position: their whole length may come to lie in either of them."""
    random = np.random.default_rng(0)
    keys = random.standard_normal((2, 5, 8))
    first, second = np.split(keys, 2, axis=-1)
    angles = random.uniform(0, 6, 4)
    cos, sin = np.cos(angles), np.sin(angles)
    turned = np.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    sizes = channel_sizes("past_key_values.2.key", keys)
    np.testing.assert_allclose(channel_sizes("past_key_values.2.key", turned), sizes)
    assert (sizes >= np.abs(turned).max(1, keepdims=True) - 1e-9).all()
    assert (channel_sizes("past_key_values.2.value", keys) == np.abs(keys).max(1, keepdims=True)).all()


def test_what_was_heard_fits_into_factors_measured_on_it(plain):
    conversation = plain.conversation()
    for _ in conversation.ask(audio=SOUNDS[0], max_new_tokens=8, seed=0):
        pass
    scales = measure_scales(plain, [as_waveform(SOUNDS[0])])
    for name, rows in conversation.context.content().items():
        if name in scales:
            assert (channel_sizes(name, rows[0]) <= 127 * scales[name]).all()


def test_a_model_that_says_nothing_is_measured_on_noise(plain, monkeypatch):
    monkeypatch.setattr(plain, "reciting", lambda: plain.conversation(output="text"))
    scales = measure_scales(plain)
    assert set(scales) == {
        tensor.name for tensor in plain.manifest.specs()[DECODER].state if "key_values" in tensor.name
    }


def test_the_tuned_form_has_the_same_cache(model, bundle, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning, "sweep", lambda *_: {1: {"prefill": 1.0, "step": 1.0, "frame": 1.0}})
    tuning.tune(bundle)
    with Model(bundle) as tuned:
        assert "decoder" in tuned.tuned.graphs
        assert tuned.transcribe(SOUNDS[0]).text == model.transcribe(SOUNDS[0]).text


@pytest.mark.parametrize("bits", [4, 16])
def test_other_widths_are_refused(tmp_path, bits):
    (tmp_path / "r.toml").write_text(f'about = "x"\nweights = []\n[kv_cache]\nbits = {bits}\n')
    with pytest.raises(DataError, match=r"r\.toml cannot be read: Invalid enum value"):
        read_recipe(str(tmp_path / "r.toml"))
