"""LFM3-Audio's bundle in onnxruntime, held to llama.cpp's answers with a tiny model, and to itself in pieces."""

import logging

import numpy as np
import pytest

import voxrill
from tests.export.lfm3_golden import expected
from tests.export.lfm3_sources import write_hub
from voxrill.runtime.bundle.contract import StaticShapes
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.generate import Generation, GenerationOptions, Token
from voxrill.runtime.engine.languages import prompt_in

BOOKS = np.arange(12)


@pytest.fixture(scope="session")
def lfm3_bundle(exporter, made_once):
    """The cpu bundle of the golden model; not to be changed."""
    return made_once("lfm3-cpu", lambda folder: export(exporter, made_once, folder, None))


def export(exporter, made_once, folder, static):
    from voxrill.export.opening import open_any

    logging.disable()
    try:
        checkpoint = open_any(made_once("lfm3", write_hub))
        exporter.export_bundle(checkpoint, folder, exporter.ExportOptions(static))
    finally:
        logging.disable(logging.NOTSET)


@pytest.fixture(scope="session")
def lfm3(lfm3_bundle):
    with voxrill.load(lfm3_bundle, threads=1) as model:
        yield model


class Told:
    """A backbone's state, and what comes out of it."""

    def __init__(self, model):
        self.parts, self.state = model.parts, model.parts.backbone.new_state()

    def rows(self, rows):
        return self.parts.backbone.forward(rows, self.state)[-1]

    def tokens(self, ids):
        return self.rows(self.parts.embed_tokens([int(i) for i in ids]))

    def greedy(self, hidden, steps):
        found, ids = [], []
        for _ in range(steps):
            logits = self.parts.backbone.logits(hidden).astype(np.float64)
            found.append(logits - logits.max() - np.log(np.exp(logits - logits.max()).sum()))
            ids.append(int(logits.argmax()))
            hidden = self.tokens(ids[-1:])
        return np.stack(found), ids


def test_the_family_is_lfm3(lfm3):
    manifest = lfm3.manifest
    assert (manifest.family, manifest.tasks.speak.voices) == ("lfm3-audio", ("female", "male"))
    assert list(manifest.graphs) == ["audio_encoder", "decoder", "text_head", "depth_decoder", "codec_decoder"]
    assert len(manifest.tasks.languages) == 18


@pytest.mark.parametrize("chunks", [[29], [1] * 29, [7, 2, 20]], ids=["whole", "steps", "chunks"])
def test_text_after_a_written_prompt(lfm3, chunks):
    """The prompt is longer than the window of 8."""
    told, ids = Told(lfm3), list(expected()["text_prompt"])
    for count in chunks:
        hidden = told.tokens([ids.pop(0) for _ in range(count)])
    logprobs, ids = told.greedy(hidden, 8)
    assert np.abs(logprobs - expected()["text_logprobs"]).max() < 1e-4
    assert ids == expected()["text_ids"].tolist()


def test_text_after_a_spoken_clip(lfm3):
    golden, told = expected(), Told(lfm3)
    told.tokens(golden["asr_prompt_before"])
    told.rows(lfm3.parts.encoder.embed(golden["mel"].T.astype(np.float16).astype(np.float32)))
    logprobs, ids = told.greedy(told.tokens(golden["asr_prompt_after"]), 8)
    assert np.abs(logprobs - golden["asr_logprobs"]).max() < 2e-4
    assert ids == golden["asr_ids"].tolist()


def test_frames_of_speech(lfm3):
    golden, told = expected(), Told(lfm3)
    books = 12, lfm3.manifest.model.codes.vocab_size
    penalty, hidden = np.ones(books, np.float32), told.tokens(golden["tts_prompt"])
    for order, codes, wanted in zip(golden["tts_permutations"], golden["tts_codes"], golden["tts_hidden"], strict=True):
        assert np.abs(hidden - wanted).max() < 1e-4
        drawn = lfm3.graphs["depth_decoder"].run(
            {
                "hidden_state": hidden[None],
                "temperature": np.ones(1, np.float32),
                "top_k": np.ones(1, np.int64),
                "gumbel": np.zeros(books, np.float32),
                "permutation": order,
                "penalty": penalty,
            }
        )["codes"]
        assert drawn.tolist() == codes.tolist()
        penalty[BOOKS, drawn] = 1.1
        hidden = told.rows(lfm3.parts.embed_frames(drawn[:, None]))


def test_samples_of_speech(lfm3):
    codes = expected()["tts_codes"].T
    samples = lfm3.parts.codec.decode(codes)
    assert samples.shape == (15_360,)
    assert np.abs(samples - expected()["tts_wave"]).max() < 1e-5
    stream = lfm3.parts.codec.stream()
    pieces = np.concatenate([*(stream.push(codes[:, i : i + 1]) for i in range(8)), stream.flush()])
    assert np.abs(samples - pieces).max() < 1e-5


@pytest.mark.parametrize("piece", [160, 512, 1600, 16_000])
def test_a_sound_is_encoded_as_it_comes(lfm3, piece):
    encoder, sound = lfm3.parts.encoder, expected()["pcm16"].astype(np.float32) / 32768
    stream, rows, come = encoder.stream(), [], 0
    assert encoder.streams
    for start in range(0, len(sound), piece):
        rows.append(stream.push(sound[start : start + piece]))
        come = min(len(sound), start + piece)
        # A row is there as soon as its last frame is: 95 ms for the first, then one every 80 ms.
        assert sum(map(len, rows)) == max(0, (come - 240) // 1280)
    left = stream.flush()
    assert len(left) <= 1
    assert np.abs(np.concatenate([*rows, left]) - encoder.encode(sound)).max() < 1e-4


def test_going_back_brings_the_window_back(lfm3):
    told = Told(lfm3)
    told.tokens(range(40, 70))
    mark = told.state.mark()
    first = told.tokens([5, 6, 7])
    told.state.rewind(mark)
    told.tokens([9] * 20)
    told.state.rewind(mark)
    assert np.array_equal(told.tokens([5, 6, 7]), first)


def test_an_offloaded_conversation_goes_on(lfm3):
    told = Told(lfm3)
    told.tokens(range(40, 70))
    content = {name: array.copy() for name, array in told.state.content().items()}
    first = told.tokens([5])
    told.state.offload()
    told.state.length -= 1
    told.state.reload(content)
    assert np.array_equal(told.tokens([5]), first)


def kinds(lfm3, **options):
    context = Context(lfm3.parts)
    context.add_tokens([40, 41, 42])
    return list(Generation(context, GenerationOptions(max_new_tokens=60, **options)))


def test_marks_and_placeholders_are_never_written(lfm3):
    """The golden model is random: some of its likeliest tokens are marks."""
    unwritten = lfm3.parts.unwritten
    assert len(unwritten) == 6
    for seed in range(3):
        steps = kinds(lfm3, mode="sequential", text=voxrill.runtime.bundle.manifest.Sampling(3.0), seed=seed,
                      text_only=True, unwritten=tuple(range(60, 270)))  # fmt: skip
        assert all(step.id < 60 for step in steps if isinstance(step, Token))


def test_an_answer_is_interleaved_from_its_first_token(lfm3):
    *_, end = lfm3.chat(text="hello", max_new_tokens=40, seed=1)
    assert end.result.finish_reason in ("length", "stop", "audio_ended")
    told = lfm3.conversation()
    list(told.ask(text="hello", max_new_tokens=1))
    ids = [i for piece in told.context.pieces if hasattr(piece, "ids") for i in piece.ids]
    (mixed,) = lfm3.parts.tokenizer.special(["<|mixed_start|>"])
    assert ids.count(mixed) == 1


def test_speech_begins_with_sound_and_ends_with_it(lfm3):
    speech = lfm3.speak("hello", voice="male", max_new_tokens=20, seed=3)
    result = speech.result
    assert not result.tokens and result.codes.shape[0] == 12
    assert len(speech.samples) == result.codes.shape[1] * 1920


def test_earlier_codes_are_penalised(lfm3):
    """Greedy: with the largest factor no code that a codebook had comes again while others are left."""
    from voxrill.runtime.bundle.manifest import Sampling
    from voxrill.runtime.engine.sampling import Sampler

    hidden, depth = Told(lfm3).tokens(expected()["tts_prompt"]), lfm3.parts.depthformer
    free = depth.frame(hidden, Sampling(), Sampler())
    strict = Sampling(penalty=100.0, penalty_frames=4096)
    again = depth.frame(hidden, strict, Sampler(), [free])
    assert (free != again).any()
    assert np.array_equal(depth.frame(hidden, Sampling(penalty=100.0, penalty_frames=1), Sampler(), [free, again]),
                          depth.frame(hidden, strict, Sampler(), [again]))  # fmt: skip


def test_any_codebook_ends_the_sound(lfm3):
    spec = lfm3.manifest.model.codes
    codes = np.zeros(12, np.int64)
    assert not spec.ends(codes)
    codes[7] = spec.end_of_audio
    assert spec.ends(codes)


def test_the_same_seed_gives_the_same_answer(lfm3):
    first, second, other = (lfm3.speak("hello", max_new_tokens=6, seed=seed).result for seed in (1, 1, 2))
    assert np.array_equal(first.codes, second.codes)
    assert first.codes.shape != other.codes.shape or (first.codes != other.codes).any()


@pytest.mark.slow
def test_the_npu_flavour_computes_the_same(exporter, made_once, lfm3):
    static = StaticShapes(mel_frames=16, prefill=8, context=64)
    bundle = made_once("lfm3-npu", lambda folder: export(exporter, made_once, folder, static))
    golden = expected()
    with voxrill.load(bundle, threads=1) as model:
        sound = golden["pcm16"].astype(np.float32) / 32768
        assert np.abs(model.parts.encoder.encode(sound) - lfm3.parts.encoder.encode(sound)).max() < 1e-4
        told = Told(model)
        logprobs, ids = told.greedy(told.tokens(golden["text_prompt"]), 8)
        assert np.abs(logprobs - golden["text_logprobs"]).max() < 1e-4
        assert ids == golden["text_ids"].tolist()
        assert np.abs(model.parts.codec.decode(golden["tts_codes"].T) - golden["tts_wave"]).max() < 1e-5


def said(steps):
    *_, end = steps
    return end.result.tokens, end.result.codes.tolist()


QUESTION = {"output": "both", "max_new_tokens": 30, "seed": 4}


def sound():
    return expected()["pcm16"].astype(np.float32) / 32768


def heard(conversation, samples, piece=512):
    for start in range(0, len(samples), piece):
        conversation.hear(samples[start : start + piece])
    return conversation


def test_a_question_is_heard_while_it_is_spoken(lfm3):
    conversation = heard(lfm3.conversation(), sound())
    assert conversation.hears
    assert len(conversation.context._waiting) == 0  # all that is complete was prefilled
    before = conversation.context.positions
    answer = said(conversation.steps(**QUESTION))
    prompt = said(lfm3.conversation().steps(audio=sound(), **QUESTION))
    assert answer == prompt
    end = [piece for piece in conversation.context.pieces if hasattr(piece, "rows")]
    assert [len(piece.rows) for piece in end] == [13]
    # One row at most was left, then the marks between question and answer.
    marks = len(lfm3.parts.tokenizer.closing) + len(lfm3.parts.tokenizer.openings["assistant"]) + 1
    assert end and conversation.context.positions - before <= 1 + marks + 30 + len(lfm3.parts.tokenizer.closing)


def test_the_user_goes_on_after_a_pause(lfm3):
    conversation = heard(lfm3.conversation(), sound()[:9000])
    next(conversation.steps(**QUESTION))
    conversation.hear_on()
    heard(conversation, sound()[9000:])
    assert said(conversation.steps(**QUESTION)) == said(lfm3.conversation().steps(audio=sound(), **QUESTION))


def test_turns_that_were_heard_follow_each_other(lfm3):
    asked, listened = lfm3.conversation(), lfm3.conversation()
    for _ in range(2):
        assert said(heard(listened, sound()).steps(**QUESTION)) == said(asked.steps(audio=sound(), **QUESTION))
    assert listened.turns == asked.turns == 2
    assert said(listened.steps(text="ok", **QUESTION)) == said(asked.steps(text="ok", **QUESTION))


def test_a_question_that_was_heard_can_be_forgotten(lfm3):
    conversation = lfm3.conversation()
    conversation.prepare()
    before = conversation.context.positions
    heard(conversation, sound()).unhear()
    assert conversation.context.positions == before
    said(heard(conversation, sound()).steps(**QUESTION))
    conversation.retract()
    assert conversation.context.positions == before
    assert said(conversation.steps(text="ok", **QUESTION)) == said(lfm3.conversation().steps(text="ok", **QUESTION))


def test_no_question_was_heard(lfm3):
    with pytest.raises(voxrill.UsageError, match="there is no question"):
        lfm3.conversation().steps()


@pytest.mark.parametrize("name, bits", [("int8", 8), ("int4", 4), ("mixed", 4)], ids=str)
def test_recipes_know_the_graphs(name, bits):
    """The golden model's layers are too small to be quantised; those of the published model are not."""
    pytest.importorskip("onnx", reason="the quantize extra is not installed")
    from voxrill.quantize.recipe import read_recipe

    recipe = read_recipe(name)
    assert recipe.rule("depth_decoder", "depthformer.layers.0.feed_forward.w1.weight").bits == bits
    assert recipe.rule("depth_decoder", "depth_linear.weight").bits == 8
    assert recipe.rule("codec_decoder", "in_proj.weight").bits == 32


def test_it_is_quantised_like_every_family(lfm3_bundle, lfm3, tmp_path):
    pytest.importorskip("onnx", reason="the quantize extra is not installed")
    from voxrill.quantize.bundle import quantize_bundle
    from voxrill.quantize.recipe import read_recipe
    from voxrill.runtime.bundle.bundle import open_bundle

    small = quantize_bundle(open_bundle(lfm3_bundle), tmp_path / "int8", read_recipe("int8"))
    precisions = {name: graph.precision for name, graph in small.manifest.graphs.items()}
    assert precisions["codec_decoder"] == "float32" and precisions["depth_decoder"] != "float32"
    state = small.manifest.specs()["decoder"].state
    assert {tensor.dtype for tensor in state if "kv_capacity" in tensor.shape} == {"int8"}
    assert {tensor.dtype for tensor in state if "kv_capacity" not in tensor.shape} == {"float32"}
    with voxrill.load(small.directory, threads=1) as model:
        rows, golden = model.parts.encoder.encode(sound()), lfm3.parts.encoder.encode(sound())
        assert np.abs(rows - golden).max() < 0.3 * np.abs(golden).max()
        wanted, found = (Told(one).tokens(expected()["text_prompt"]) for one in (lfm3, model))
        assert np.abs(wanted - found).max() < 0.5 * np.abs(wanted).max()
        assert model.speak("hello", max_new_tokens=4, seed=1).result.prompt_positions
        pytest.importorskip("jiwer", reason="the quantize extra is not installed")
        from voxrill.quantize.compare import compare

        assert compare(lfm3, model, [sound()])


def test_languages_and_voices(lfm3):
    assert len(lfm3.languages) == 18 and lfm3.languages[0] == "en"
    assert lfm3.reciting("Male").system == "Perform TTS in English using a male voice."
    said = []
    tasks = lfm3.manifest.tasks
    for name in ("de", "DE-at", "German", "de_DE"):
        said.append(prompt_in(tasks, tasks.speak, name))
    assert set(said) == {"Perform TTS in German using a {voice} voice."}
    assert prompt_in(tasks, tasks.transcribe, "ja") == "Perform ASR in Japanese."
    assert prompt_in(tasks, tasks.transcribe, None) is None
    with pytest.raises(voxrill.UsageError, match=r"does not know the language 'xx'\. It knows: en, ar, da"):
        lfm3.speak("hello", language="xx")
    with pytest.raises(voxrill.UsageError, match="a system prompt and a language were given"):
        lfm3.transcribe((sound(), 16_000), language="de", system="Perform ASR.")
    with pytest.raises(voxrill.UsageError, match="no voice 'child'"):
        lfm3.speak("hello", voice="child")
    first, second = (lfm3.speak("hallo", language=name, max_new_tokens=4, seed=1).result for name in ("de", "fr"))
    assert first.prompt_positions != second.prompt_positions or (first.codes != second.codes).any()
    assert lfm3.transcribe((sound(), 16_000), language="fi", max_new_tokens=3).tokens


def test_the_commands_take_a_language(cli, lfm3_bundle, tmp_path):
    cli("speak", "hello", "-o", "out.wav", "--language", "de", "--bundle", str(lfm3_bundle), "--max-new-tokens", "4")
    assert (tmp_path / "out.wav").is_file()
    cli.refuses("speak", "hello", "-o", "out2.wav", "--language", "xx", "--bundle", str(lfm3_bundle),
                saying="does not know the language 'xx'")  # fmt: skip


def test_golden_vectors_are_made_and_held_to(cli, lfm3_bundle, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "q.wav", expected()["pcm16"], 16_000)
    cli("golden", "vectors", "--audio", "q.wav", "--bundle", str(lfm3_bundle))
    assert cli("golden", "vectors", "--bundle", str(lfm3_bundle)).status == 0


def test_calls_begin_with_the_token_for_them(lfm3, monkeypatch):
    """The golden tokenizer has another name for it, so its bundle has none; one that has it writes it first."""
    from msgspec.structs import replace

    from voxrill.export.lfm3.tasks import TASKS, with_calls
    from voxrill.runtime.apps.calling import LISTING, Caller, Functions
    from voxrill.runtime.apps.functions import Function
    from voxrill.runtime.bundle.manifest import CallMarks
    from voxrill.runtime.progress import result_of

    assert lfm3.manifest.tasks.calls is None
    assert with_calls(TASKS, b'"content": "<tool_call>"').calls == CallMarks("<additional_tools>", "<tool_call>")
    assert with_calls(TASKS, b'"<|tool_call|>"').calls is None
    offered = [Function("stop")]
    plain, (mark,) = Functions(lfm3, offered), lfm3.parts.tokenizer.special(["<|tool_call_start|>"])
    assert plain.listing.startswith(LISTING) and plain.prompts[0].written.tokens[0][0] != mark
    calls = CallMarks("<additional_tools>", "<|tool_call_start|>")
    monkeypatch.setattr(lfm3, "manifest", replace(lfm3.manifest, tasks=replace(lfm3.manifest.tasks, calls=calls)))
    marked = Functions(lfm3, offered)
    assert marked.listing.startswith("<additional_tools>\n")
    assert [tokens[0] for tokens in marked.prompts[0].written.tokens] == [mark]
    assert result_of(Caller(lfm3).steps(marked, None, "please stop", must=True)).name == "stop"


def test_a_plan_of_a_bundle(lfm3):
    from voxrill.commands.plan import bundle_model
    from voxrill.devices.known import known_model
    from voxrill.devices.profile import read_profile
    from voxrill.devices.stages import StageSeconds

    shape, machine = bundle_model(lfm3.manifest), read_profile("pi5").machine(8)
    assert shape.hears and not known_model("int4").hears
    stages = StageSeconds(shape, machine, 2)
    # How long the question was changes nothing: it is taken in while it is spoken.
    assert stages.first_audio(question=4.0) == stages.first_audio(question=20.0) > stages.sound() > 0
