"""The exported graphs, driven by the runtime, against what the reference implementation computed (tests/golden)."""

import json

import numpy as np
import pytest

from tests import signals
from tests.checkpoints import fingerprint
from tests.places import ROOT
from voxrill.runtime.audio.log_mel import LogMel
from voxrill.runtime.engine import backbone
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Token

FAMILIES = ("lfm2", "lfm2.5")
RELATIVE = 1e-4  # embeddings, hidden states, text logits
LOG_MEL = 1e-3  # the reference's own float32 rounding on synthetic sound; the RMS is a hundred times smaller
AUDIO_LOGITS = 1e-3
FULL_SCALE = 1e-3
TEXT_TIE, AUDIO_TIE = 1e-4, 1e-3  # below this margin a greedy choice is a near-tie
TEXT, AUDIO = 1, 3


class Golden:
    """One family's golden file."""

    def __init__(self, family):
        self.family = family
        self.arrays = np.load(ROOT / "tests" / "golden" / f"{family}.npz")
        self.meta = json.loads(str(self.arrays["meta"]))

    def __getitem__(self, name):
        return self.arrays[name]


GOLDEN = {family: Golden(family) for family in FAMILIES}


def cases(kind):
    return [pytest.param(family, case, id=f"{family}-{case['name']}") for family in FAMILIES
            for case in GOLDEN[family].meta[kind]]  # fmt: skip


def close(actual, wanted, relative=RELATIVE):
    scale = np.abs(wanted).max(initial=1e-6)
    difference = np.abs(actual.astype(np.float64) - wanted).max(initial=0.0)
    assert difference <= relative * scale, f"largest difference {difference:.2g} of {scale:.2g}"


def add_turn(context, turn):
    with context.turn(turn["role"]):
        for part in turn["parts"]:
            if "text" in part:
                context.add_text(part["text"])
            elif "audio" in part:
                context.add_audio(signals.speech_like(part["audio"]["samples"], part["audio"]["seed"]))
            else:
                text, codes = iter(part["reply"]["text"]), iter(part["reply"]["codes"])
                for modality in part["reply"]["modality"]:
                    add_step(context, next(text) if modality == TEXT else next(codes))


def add_step(context, step):
    if isinstance(step, int):
        context.add_tokens([step])
    else:
        context.add_frames(np.array(step)[:, None])


def prompt(model, turns):
    context = Context(model.parts)
    for turn in turns:
        add_turn(context, turn)
    context.open_turn("assistant")
    return context


@pytest.mark.parametrize("family", FAMILIES)
def test_the_checkpoint_is_the_one_the_reference_ran(family, tiny_checkpoints):
    for file, wanted in GOLDEN[family].meta["checkpoint"]["fingerprints"].items():
        assert fingerprint(tiny_checkpoints[family] / file) == wanted


@pytest.mark.parametrize(("family", "case"), cases("sounds"))
def test_log_mel(family, case):
    golden = GOLDEN[family]
    mel = LogMel()(signals.speech_like(case["samples"], case["seed"]))
    assert len(mel) == case["mel_frames"]
    wanted = golden[f"{case['name']}/mel"].T
    difference = mel[golden[f"{case['name']}/mel_index"]] - wanted
    assert np.abs(difference).max() <= LOG_MEL
    assert np.sqrt(np.square(difference).mean()) <= LOG_MEL / 10


@pytest.mark.parametrize(("family", "case"), cases("sounds"))
def test_audio_embeddings_from_one_sample_to_sixty_seconds(models, family, case):
    golden = GOLDEN[family]
    embeddings = models[family].parts.encoder.encode(signals.speech_like(case["samples"], case["seed"]))
    assert len(embeddings) == case["embeddings"]
    close(embeddings[golden[f"{case['name']}/embeddings_index"]], golden[f"{case['name']}/embeddings"])


@pytest.mark.parametrize("chunk", [backbone.PREFILL_CHUNK, 16, 7], ids=lambda c: f"chunks-of-{c}")
@pytest.mark.parametrize(("family", "case"), cases("prefills"))
def test_prefill(models, family, case, chunk, monkeypatch):
    monkeypatch.setattr(backbone, "PREFILL_CHUNK", chunk)
    golden, name = GOLDEN[family], case["name"]
    context = prompt(models[family], case["turns"])
    hidden = context.hidden_states()
    assert len(hidden) == case["positions"]
    close(hidden, golden[f"{name}/hidden"])
    close(context.logits(hidden[-1]), golden[f"{name}/text_logits"])


@pytest.mark.parametrize(("family", "case"), cases("forced"))
def test_forced_sequences_reach_every_graph(models, family, case):
    golden, name, model = GOLDEN[family], case["name"], models[family]
    prefill = next(p for p in golden.meta["prefills"] if p["name"] == case["prefill"])
    context = prompt(model, prefill["turns"])
    hidden = [context.advance()]
    text_rows, frame_rows = [], []
    for step in case["steps"]:
        if isinstance(step, int):
            text_rows.append(context.logits(hidden[-1]))
        else:
            frame_rows.append(model.parts.depthformer.logits(hidden[-1], np.array(step)))
        add_step(context, step)
        hidden.append(context.advance())
    text_rows.append(context.logits(hidden[-1]))
    close(np.stack(hidden), golden[f"{name}/hidden"])
    close(np.stack(text_rows), golden[f"{name}/text_logits"])
    frames = np.stack(frame_rows)
    close(frames[golden[f"{name}/frame_logits_index"]], golden[f"{name}/frame_logits"], AUDIO_LOGITS)
    best = np.take_along_axis(frames, golden[f"{name}/frame_top_codes"].astype(np.int64), -1)
    close(best, golden[f"{name}/frame_top_values"], AUDIO_LOGITS)


def generate(context, mode, limit):
    """The stream as the goldens store it: text ids, codes, modality; and why it ended."""
    generation = Generation(context, GenerationOptions(mode, max_new_tokens=limit))
    steps = list(generation)
    text = [step.id for step in steps if isinstance(step, Token)]
    codes = [step.codes.tolist() for step in steps if isinstance(step, Frame)]
    return text, codes, [TEXT if isinstance(step, Token) else AUDIO for step in steps], generation.finish_reason


def assert_same_stream(golden, name, case, features, stream):
    """Identical to the reference's up to where it would loop, or to a choice that was a near-tie."""
    text, codes, modality, finish_reason = stream
    wanted_text = golden[f"{name}/text"].tolist()
    wanted_modality = golden[f"{name}/modality"].tolist()
    if case["mode"] == "sequential" and features["end"] == "im_end":  # the reference yields it, we end on it
        wanted_text, wanted_modality = wanted_text[:-1], wanted_modality[:-1]
    if features["returns_after_text_end"]:
        assert finish_reason == "audio_ended"
        assert len(modality) < len(wanted_modality)
        wanted_modality = wanted_modality[: len(modality)]
        wanted_text = wanted_text[: len(text)]
    else:
        assert finish_reason == ("stop" if features["end"] == "im_end" else "length")
    if near_tie(golden, name, text, codes):
        return
    assert modality == wanted_modality
    assert text == wanted_text
    assert codes == golden[f"{name}/codes"].tolist()[: len(codes)]


def near_tie(golden, name, text, codes):
    """Whether the first choice that differs from the reference's was a near-tie (it is printed if so)."""
    margins = [*zip(text, golden[f"{name}/text"], golden[f"{name}/text_margins"], strict=False)]
    for ours, theirs, margin in margins:
        if ours != theirs and margin < TEXT_TIE:
            print(f"{name}: near-tie in text, margin {margin:.1g}")
            return True
    for ours, theirs, margin in zip(codes, golden[f"{name}/codes"], golden[f"{name}/audio_margins"], strict=False):
        different = np.flatnonzero(np.array(ours) != theirs)
        if len(different) and margin[different[0]] < AUDIO_TIE:
            print(f"{name}: near-tie in audio, margin {margin[different[0]]:.1g}")
            return True
    return False


@pytest.mark.parametrize(("family", "case"), cases("streams"))
def test_greedy_streams_are_identical(models, family, case):
    golden, name = GOLDEN[family], case["name"]
    context = prompt(models[family], case["turns"])
    stream = generate(context, case["mode"], case["limit"])
    assert_same_stream(golden, name, case, case["features"], stream)


@pytest.mark.parametrize(("family", "case"), cases("conversations"))
def test_a_second_turn_goes_on_from_the_first(models, family, case):
    """The state is carried on, not built anew: the reference prefills the whole history again."""
    golden, name = GOLDEN[family], case["name"]
    context = prompt(models[family], case["turns"])
    first = generate(context, case["mode"], case["limit"])
    assert_same_stream(golden, f"{name}/first", case, case["features"][0], first)
    context.close_turn()
    add_turn(context, case["follow_up"])
    context.open_turn("assistant")
    second = generate(context, case["mode"], case["limit"])
    assert_same_stream(golden, f"{name}/second", case, case["features"][1], second)


def test_the_goldens_hold_every_way_of_ending():
    features = [f for g in GOLDEN.values() for case in g.meta["streams"] for f in [case["features"]]]
    modes = {(case["route"], case["mode"]) for g in GOLDEN.values() for case in g.meta["streams"]}
    assert {"text->text", "text->speech", "speech->text", "speech->speech", "speech+text->text",
            "speech+text->speech"} <= {route for route, _ in modes}  # fmt: skip
    for wanted in ("audio_start", "text_end", "end_of_audio", "stray_2048", "returns_after_text_end", "closes"):
        assert any(f[wanted] for f in features), wanted
    assert {f["end"] for f in features} == {"im_end", "limit"}


def windows(golden, name, samples):
    return np.concatenate([samples[start : start + length] for start, length in golden[f"{name}/windows"]])


@pytest.mark.parametrize(("family", "case"), cases("waveforms"))
def test_waveforms(models, family, case):
    golden, name, codec = GOLDEN[family], case["name"], models[family].codec
    codes = signals.codes(case["frames"], case["codes_seed"]).astype(np.int64)
    samples = codec.decode(codes)
    assert len(samples) == case["frames"] * codec.spec.frame_samples
    wanted = golden[f"{name}/samples"]
    assert 0.01 < np.abs(wanted).max() < 10, "the golden sound must be of a sensible level"
    assert np.abs(windows(golden, f"{name}/samples", samples) - wanted).max() <= FULL_SCALE
    if case["streaming"]:
        # Past 10 s the reference's stream departs from its own offline decode: its ring of 250 keys is written two
        # at a time, so that the first of each two steps misses its oldest key. We equal its offline decode.
        streamed = golden[f"{name}/streamed"]
        own = np.abs(windows(golden, f"{name}/streamed", samples) - streamed)
        until_window = np.concatenate(
            [np.arange(start, start + length) for start, length in golden[f"{name}/streamed/windows"]]
        ) < int(10 * codec.spec.sample_rate)  # fmt: skip
        assert own[until_window].max() <= FULL_SCALE
        assert own.max() <= 5e-3, "the reference's own two decodes differ by 3.3e-3 on this sound"


@pytest.mark.parametrize("family", FAMILIES)
def test_streamed_sound_equals_offline_and_past_sound_never_changes(models, family):
    codec = models[family].codec
    codes = signals.codes(160, 7).astype(np.int64)  # 12.8 s: past Mimi's window of 10 s
    whole = codec.decode(codes)
    for sizes in ([1] * 160, [3, 1, 7, 2, 90, 57]):
        stream, pieces, start = codec.stream(), [], 0
        for size in sizes:
            pieces.append(stream.push(codes[:, start : start + size]))
            start += size
            sound = np.concatenate(pieces)
            assert len(sound) <= start * codec.spec.frame_samples
        sound = np.concatenate([*pieces, stream.flush()])
        assert sound.shape == whole.shape
        assert np.abs(sound - whole).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("prefill", ["prefill/text", "prefill/audio", "prefill/text_audio"])
def test_the_npu_flavour_gives_the_same_hidden_states(npu_models, family, prefill):
    golden, model = GOLDEN[family], npu_models[family]
    case = next(p for p in golden.meta["prefills"] if p["name"] == prefill)
    context = prompt(model, case["turns"])
    hidden = context.hidden_states()
    close(hidden, golden[f"{prefill}/hidden"])
    close(context.logits(hidden[-1]), golden[f"{prefill}/text_logits"])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_npu_flavour_speaks_the_same_stream(models, npu_models, family):
    case = next(c for c in GOLDEN[family].meta["streams"] if c["features"]["end_of_audio"])
    streams = [
        generate(prompt(model[family], case["turns"]), case["mode"], case["limit"]) for model in (models, npu_models)
    ]
    assert streams[0] == streams[1]
    codes = signals.codes(9, 3).astype(np.int64)
    sounds = [model[family].codec.decode(codes) for model in (models, npu_models)]
    assert np.abs(sounds[0] - sounds[1]).max() <= 1e-5 * np.abs(sounds[0]).max()
