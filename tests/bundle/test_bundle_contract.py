"""docs/models/bundle.md is complete and true: its code runs a bundle, its tables are the contract's."""

import re
import shutil

import msgspec
import numpy as np
import pytest

import voxrill
from tests.places import PEBBLE, ROOT
from voxrill.runtime.audio.log_mel import LogMelConfig
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.contract import (
    AudioCodesSpec,
    BackboneSpec,
    CodecSpec,
    EncoderSpec,
    InterleaveSpec,
    ModelSpec,
    TensorSpec,
    graph_specs,
)
from voxrill.runtime.bundle.manifest import MANIFEST_FILE, Manifest, Taught
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Token
from voxrill.runtime.upkeep.golden import ARRAYS, REST, SOUND_FRAMES, STEPS, differences, make_vectors, read_vectors

PAGE = ROOT / "docs" / "models" / "bundle.md"
GOLDEN = ROOT / "docs" / "golden"
LARGEST = 300_000  # bytes of the vectors in the repository

SIZES = {
    7001: "hidden_size",
    7013: "vocab_size",
    7019: "kv_heads",
    7027: "head_dim",
    7039: "conv_cache",
    7043: "codebooks",
    7057: "codes.vocab_size",
    7069: "log_mel.features",
    7081: "n_fft + 2",
}
"""Stand for the sizes that a manifest gives; each is met once."""


CODEC_STATE = ("conv.0", "key_values.1.key", "key_values.1.value")


def example(hop):
    """A model of every kind of layer, each of whose sizes is one of `SIZES`."""
    hidden, vocab, heads, dim, cache, books, codes, features, stft = SIZES
    backbone = BackboneSpec(hidden, vocab, ("conv", "full_attention"), heads, dim, cache, 0)
    codec = CodecSpec(
        graph=contract.AUDIO_DETOKENIZER if hop else contract.MIMI_DECODER,
        sample_rate=0,
        frame_samples=2 * hop,
        state=tuple(TensorSpec(f"past_{kind}", "float32", ("as in codec.state",)) for kind in CODEC_STATE),
        n_fft=stft - 2 if hop else 0,
        hop=hop,
    )
    return ModelSpec(
        backbone,
        EncoderSpec(8),
        AudioCodesSpec(books, codes, 0),
        codec,
        InterleaveSpec(6, 12),
        LogMelConfig(features=features),
    )


def table():
    """The graphs' inputs and outputs as the page shows them."""
    lines = ["| graph | | name | type | shape |", "|---|---|---|---|---|"]
    for spec in (graph_specs(example(1)) | graph_specs(example(0))).values():
        for side, tensors in (("in", spec.inputs), ("out", spec.outputs)):
            for tensor in tensors:
                name = re.sub(r"\.[01]\b", ".N", tensor.name)
                sizes = ", ".join(str(SIZES.get(size, size)) for size in tensor.shape)
                lines.append(f"| `{spec.name}` | {side} | `{name}` | {tensor.dtype} | ({sizes}) |")
    return "\n".join(lines)


def test_the_table_is_the_contract():
    shown = PAGE.read_text(encoding="utf-8").split("<!-- graphs -->")[1].split("<!-- /graphs -->")[0].strip()
    assert shown == table(), f"the page should show:\n\n{table()}"


def test_the_page_names_special_tokens_and_keys():
    page = PAGE.read_text(encoding="utf-8")
    assert f"bundle format {contract.FORMAT_VERSION}" in page
    for token in contract.SPECIAL_TOKENS.values():
        assert f"`{token}`" in page
    for name in ("format", "files", "graphs", "taught", "text_embeddings", "audio_embeddings", "static"):
        assert name in {field.name for field in msgspec.structs.fields(Manifest)} and f"`{name}`" in page
    for spec in (BackboneSpec, AudioCodesSpec, CodecSpec, InterleaveSpec, Taught):
        assert all(f"`{field.name}`" in page for field in msgspec.structs.fields(spec)), spec


def page_code(bundle):
    """The page's code, run on a bundle: its names."""
    blocks = re.findall(r"^```py\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    names = {"bundle": str(bundle)}
    exec(compile("\n".join(blocks), str(PAGE), "exec"), names)
    return names


@pytest.fixture(scope="module")
def golden():
    return read_vectors(GOLDEN)


def nearly(found, wanted, tolerance):
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= tolerance


def hold(page, golden):
    """Every stage of the page's code, on the golden input, against the golden output."""
    arrays, rest = golden.arrays, golden.rest
    share = {name: bound * np.abs(arrays[name]).max() for name, bound in rest.tolerances.items() if name in arrays}
    nearly(page["log_mel"](arrays["waveform"] / np.float32(32768)), arrays["log_mel"], rest.tolerances["log_mel"])
    nearly(page["encode"](arrays["log_mel"]), arrays["audio_embeddings"], share["audio_embeddings"])
    rows = page["prompt"](rest.system, arrays["audio_embeddings"])
    nearly(rows, arrays["inputs_embeds"], share["inputs_embeds"])
    backbone = page["Backbone"]()
    hidden = backbone.forward(arrays["inputs_embeds"])
    nearly(hidden, arrays["hidden_state"], share["hidden_state"])
    nearly(page["logits"](arrays["hidden_state"]), arrays["logits"], share["logits"])
    assert np.array_equal(page["frame"](arrays["hidden_state"]), arrays["frame_codes"])
    drawn = page["frame"](arrays["hidden_state"], rest.temperature, rest.top_k, arrays["gumbel"])
    assert np.array_equal(drawn, arrays["drawn_codes"])
    hold_steps(
        page, list(page["interleaved"](backbone, hidden, STEPS)), rest.order, arrays["tokens"], arrays["codes"].T
    )
    codec = page["Codec"]()
    frames = arrays["codes"][:, :SOUND_FRAMES]
    sound = [codec.push(frames[:, at : at + 1]) for at in range(frames.shape[1])]
    nearly(np.concatenate([*sound, codec.flush()]), arrays["sound"], rest.tolerances["sound"])


def hold_steps(page, steps, order, tokens, frames):
    assert "".join("T" if kind == "token" else "A" for kind, _ in steps) == order
    assert [token for kind, token in steps if kind == "token"] == list(tokens)
    last = page["model"]["codes"]["end_of_audio"]
    played = [frame.tolist() for kind, frame in steps if kind == "frame" and frame.max() < last]
    assert played == [frame.tolist() for frame in frames]


def test_the_page_s_code_computes_the_golden_vectors(golden):
    hold(page_code(open_builtin().path(MANIFEST_FILE).parent), golden)


def test_the_page_s_code_computes_what_the_runtime_does(model):
    """Both families, on random weights, interleaved and sequential."""
    page = page_code(model.bundle.path(MANIFEST_FILE).parent)
    hold(page, make_vectors(model, 0.1 * np.random.default_rng(0).standard_normal(20_000, np.float32)))
    orders = [hold_sequential(page, model, text) for text in ("Hello", "Hi")]
    assert set("".join(orders)) == {"T", "A"}  # one of them is answered with sound


def hold_sequential(page, model, text):
    """The steps that page and runtime take after `text`."""
    context = Context(model.parts)
    context.add_text(text)
    backbone = page["Backbone"]()
    hidden = backbone.forward(context.waiting)
    wanted = list(Generation(context, GenerationOptions("sequential", max_new_tokens=40)))
    tokens = [step.id for step in wanted if isinstance(step, Token)]
    frames = [step.codes for step in wanted if isinstance(step, Frame) and model.codec.decodes(step.codes)]
    order = "".join("T" if isinstance(step, Token) else "A" for step in wanted)
    hold_steps(page, list(page["sequential"](backbone, hidden, 40)), order, tokens, frames)
    return order


def test_the_runtime_computes_the_golden_vectors(golden):
    found = differences(voxrill.load(threads=1), golden)
    assert [one.stage for one in found] == list(golden.rest.tolerances)
    assert all(one.passes for one in found), found


def test_the_vectors_are_small():
    assert sum((GOLDEN / name).stat().st_size for name in (ARRAYS, REST)) < LARGEST


def test_golden_vectors_on_the_command_line(cli, tmp_path):
    clip = ROOT / "tests" / "pebble" / "04-known.flac"
    assert "bathroom lights on" in cli("golden", "made", "--audio", clip).out
    assert cli("golden", "made").out.count("ok\t") == len(read_vectors(tmp_path / "made").rest.tolerances)
    arrays = dict(np.load(tmp_path / "made" / ARRAYS))
    np.savez(tmp_path / "made" / ARRAYS, **{**arrays, "sound": arrays["sound"] + 0.1})
    ran = cli("golden", "made", "--json")
    assert ran.status == 2 and "sound: further from" in ran.err
    assert [line["stage"] for line in map(msgspec.json.decode, ran.out.splitlines()) if not line["passes"]] == ["sound"]


@pytest.mark.parametrize("name", ["waveform", "hidden_state", "frame_codes", "gumbel", "audio_embeddings", "codes"])
@pytest.mark.parametrize("change", ["missing", "kind", "dimensions", "size"])
def test_arrays_that_do_not_fit_are_refused_by_name(cli, tmp_path, name, change):
    shutil.copytree(GOLDEN, tmp_path / "made")
    arrays = dict(np.load(GOLDEN / ARRAYS))
    if change == "missing":
        del arrays[name]
    elif change == "size" and name == "waveform":
        return  # a shorter sound is another question, and differs
    else:
        array = arrays[name]
        arrays[name] = {"kind": array > 0, "dimensions": array[None], "size": array[..., :7][:7]}[change]
    np.savez(tmp_path / "made" / ARRAYS, **arrays)
    cli.refuses("golden", "made", "--bundle", PEBBLE, saying=name)


def test_damaged_vectors_are_refused(cli, tmp_path):
    shutil.copytree(GOLDEN, tmp_path / "made")
    whole = (GOLDEN / ARRAYS).read_bytes()
    np.save(tmp_path / "one.npy", np.zeros(3))
    one = (tmp_path / "one.npy").read_bytes()
    for damaged in (b"", b"x" * 50, one, whole[:1000], whole[:-100], whole[:2000] + bytes(500) + whole[2500:]):
        (tmp_path / "made" / ARRAYS).write_bytes(damaged)
        cli.refuses("golden", "made", "--bundle", PEBBLE, saying="holds no golden vectors that can be read")


def test_other_bundles_and_broken_vectors_are_refused(cli, tmp_path):
    cli.refuses("golden", "missing", saying="--audio FILE")
    shutil.copytree(GOLDEN, tmp_path / "other")
    rest = tmp_path / "other" / REST
    rest.write_text(rest.read_text().replace(read_vectors(GOLDEN).rest.bundle, "0" * 64))
    ran = cli("golden", "other")
    assert ran.status == 2 and ran.raw == b""
    assert "another bundle" in ran.err and "--audio FILE" in ran.err
