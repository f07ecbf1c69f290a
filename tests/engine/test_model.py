"""The public Python interface: events, conversations, speech as a stream, and how answers end."""

import numpy as np
import pytest

import voxrill
from tests import signals
from tests.told import said, told
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine import state
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.depthformer import Depthformer
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Token
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import AudioFileError, ContextFull, UsageError

SOUND = (signals.speech_like(20_000, 0), 16_000)  # the random models answer this one aloud


def test_public_names_are_pinned():
    assert set(voxrill.__all__) == {
        "Answer", "AnswerFailed", "AnswerOptions", "AnswerText", "AssistantSaid", "AudioDeviceError",
        "AudioDeviceLost", "AudioEvent", "AudioFileError", "BundleError", "Call", "CheckpointError", "ChipError",
        "Citation", "Classification", "ContextFull", "Conversation", "DataError", "DeviceError", "EndEvent", "Event",
        "ExportError", "HashMismatch", "HookError", "MissingDependency", "Model", "NewerFormat", "NotEnoughMemory",
        "Notice", "ProfileError", "ProviderError", "ProviderRefused", "Result", "SegmentEvent", "SoundSink", "Speech",
        "StateChanged", "TalkEvent", "TalkSession", "TentativeEvent", "TextEvent", "ToolCalled", "Transcript",
        "TranscriptEvent", "TurnEnded", "Understood", "UnknownText", "UsageError", "UserHeard", "UserSaid",
        "UserSpeaking", "VoxrillError", "VoxrillWarning", "__version__", "load", "pebble_world", "tool",
    }  # fmt: skip


ROUTES = [
    pytest.param({"text": "Hi."}, "text", id="text-to-text"),
    pytest.param({"text": "Hi."}, "both", id="text-to-speech"),
    pytest.param({"audio": SOUND}, "text", id="speech-to-text"),
    pytest.param({"audio": SOUND}, "both", id="speech-to-speech"),
    pytest.param({"audio": SOUND, "text": "Briefly."}, "text", id="speech-and-text-to-text"),
    pytest.param({"audio": SOUND, "text": "Briefly."}, "both", id="speech-and-text-to-speech"),
]


@pytest.mark.parametrize(("question", "output"), ROUTES)
def test_all_six_combinations(model, question, output):
    events = list(model.chat(**question, output=output, max_new_tokens=30, seed=1))
    *parts, end = events
    assert isinstance(end, voxrill.EndEvent)
    kinds = {type(event) for event in parts}
    assert kinds == ({voxrill.TextEvent} if output == "text" else {voxrill.TextEvent, voxrill.AudioEvent})
    times = [event.at for event in events]
    assert times == sorted(times)
    result = end.result
    assert result.tokens == [event.token for event in parts if isinstance(event, voxrill.TextEvent)]
    sounds = [event.samples for event in parts if isinstance(event, voxrill.AudioEvent)]
    assert np.array_equal(np.concatenate([np.zeros(0, np.float32), *sounds]), result.samples)
    assert len(result.samples) == result.codes.shape[1] * model.codec.spec.frame_samples
    steps = len(result.tokens) + result.codes.shape[1] + result.skipped_frames
    assert steps <= 30
    assert end.finish_reason == result.finish_reason


def test_output_audio_holds_the_text_back_but_remembers_it(model):
    *parts, end = model.chat(audio=SOUND, output="audio", max_new_tokens=30, seed=1)
    assert parts
    assert all(isinstance(event, voxrill.AudioEvent) for event in parts)
    assert end.result.tokens


def test_interleaved_follows_the_pattern(model):
    pattern = model.manifest.model.interleave
    context = model.conversation().context
    with context.turn("user"):
        context.add_text("Hi.")
    context.open_turn("assistant")
    steps = list(Generation(context, GenerationOptions("interleaved", max_new_tokens=pattern.text + pattern.audio + 1)))
    kinds = [type(step) for step in steps]
    frames = [step for step in steps if isinstance(step, Frame)]
    assert not any(frame.ends for frame in frames), "choose a prompt whose answer does not end in the first round"
    assert kinds == [Token] * pattern.text + [Frame] * pattern.audio + [Token]


def test_speech_streams_and_is_computed_once(model):
    speech = model.speak("Hi.", max_new_tokens=80, seed=1)
    heard = [event.samples for event in speech]
    assert len(heard) > 1
    again = [event.samples for event in speech]
    assert len(heard) == len(again)
    offline = model.codec.decode(speech.result.codes)
    streamed = np.concatenate([np.zeros(0, np.float32), *heard])
    assert streamed.shape == offline.shape
    assert np.abs(streamed - offline).max(initial=0.0) <= 1e-5


def test_speech_is_saved_as_it_sounds(model, tmp_path):
    import soundfile

    speech = model.speak("Hi.", max_new_tokens=80, seed=1)
    speech.save(tmp_path / "reply.wav")
    speech.save(tmp_path / "reply.mp3")
    assert soundfile.info(tmp_path / "reply.mp3").format == "MP3"
    with pytest.raises(AudioFileError, match="m4a"):
        speech.save(tmp_path / "reply.m4a")
    written, rate = soundfile.read(tmp_path / "reply.wav")
    assert rate == model.sample_rate == 24_000
    assert np.abs(written - np.clip(speech.samples, -1, 1)).max(initial=0.0) < 1e-4


def test_the_same_seed_gives_the_same_codes(model):
    def codes(seed):
        return model.speak("Hi.", max_new_tokens=80, seed=seed).result

    first, same = codes(11), codes(11)
    assert first.tokens == same.tokens
    assert np.array_equal(first.codes, same.codes)
    *_, chat = model.chat(text="Hi.", max_new_tokens=40, seed=1)
    *_, other = model.chat(text="Hi.", max_new_tokens=40, seed=2)
    assert not np.array_equal(chat.result.codes, other.result.codes)


def test_turns_are_remembered(model):
    conversation = model.conversation()
    list(conversation.ask(text="Turn on the kitchen light.", max_new_tokens=20, seed=0))
    known = conversation.context.positions
    *_, with_history = conversation.ask(text="And the hall?", max_new_tokens=20, seed=0)
    *_, without = model.chat(text="And the hall?", max_new_tokens=20, seed=0)
    assert with_history.result.prompt_positions > known > without.result.prompt_positions
    assert with_history.result.tokens != without.result.tokens


def test_a_listener_may_leave_and_the_conversation_goes_on(model):
    conversation = model.conversation()
    events = conversation.ask(text="Tell me a story.", max_new_tokens=40, seed=0)
    for _ in range(5):
        next(events)
    *_, end = conversation.ask(text="Stop. What time is it?", max_new_tokens=10, seed=0)
    assert end.result.tokens
    with pytest.raises(StopIteration):
        next(events)


def test_contexts_with_one_beginning_do_not_disturb_each_other(model, npu_models):
    for loaded in (model, *npu_models.values()):
        contexts = [Context(loaded.parts) for _ in range(3)]
        for context in contexts:
            context.add_text("The same beginning.")
        one, two, three = contexts
        one.advance()
        for other in (two, three):
            other.restore(one.content())
        two.add_text(" One end.")
        first = two.advance()
        three.add_text(" Another end.")
        three.advance()
        one.add_text(" One end.")
        assert np.array_equal(one.advance(), first)


def test_a_context_can_go_back(model, npu_models):
    for loaded in (model, *npu_models.values()):
        context = Context(loaded.parts)
        context.add_text("The same beginning.")
        context.advance()
        context.add_text(" One")
        mark = context.mark()
        context.add_text(" end.")
        first = context.advance()
        context.rewind(mark)
        context.add_text(" other end, and longer than the first.")
        context.advance()
        context.rewind(mark)
        context.add_text(" end.")
        assert np.array_equal(context.advance(), first)


def test_a_growing_cache_gives_the_same_numbers(model, monkeypatch):
    rows = np.random.default_rng(0).standard_normal((75, model.manifest.model.backbone.hidden_size), np.float32)
    backbone = model.parts.backbone
    wide = backbone.new_state()
    wanted = np.concatenate([backbone.forward(part, wide) for part in (rows[:40], *rows[40:, None])])
    monkeypatch.setattr(state, "FIRST_CAPACITY", 2)
    small = backbone.new_state()
    parts = [backbone.forward(part, small) for part in (rows[:3], rows[3:4], rows[4:40], *rows[40:, None])]
    assert np.allclose(np.concatenate(parts), wanted, atol=1e-5 * np.abs(wanted).max())
    assert small.length == wide.length == 75


def test_a_question_that_does_not_fit_was_never_asked(npu_models):
    for loaded in npu_models.values():
        conversation = loaded.conversation()
        with pytest.raises(ContextFull, match="this model holds 256"):
            list(conversation.ask(text="word " * 300))
        with pytest.raises(AudioFileError, match="log-mel frames"):
            list(conversation.ask(audio=signals.speech_like(100_000, 1), sample_rate=16_000))
        *_, end = conversation.ask(text="Short.", max_new_tokens=5)
        assert end.result.tokens


def test_a_full_context_ends_the_answer(npu_models):
    for loaded in npu_models.values():
        *_, end = loaded.chat(text="x" * 150, output="text", max_new_tokens=500)
        assert end.finish_reason in ("context_full", "stop")


def test_written_answers_never_begin_to_speak(model):
    *_, end = model.chat(text="Hello.", output="text", max_new_tokens=60, system="")
    assert model.parts.tokenizer.ids["audio_start"] not in end.result.tokens
    assert end.result.codes.shape[1] == 0


def test_misuse_is_answered_at_once(model):
    with pytest.raises(UsageError, match="no question"):
        model.chat()
    with pytest.raises(UsageError, match="empty"):
        model.speak("  ")
    with pytest.raises(UsageError, match="at least 1"):
        model.chat(text="Hello.", max_new_tokens=0)
    with pytest.raises(AudioFileError):
        model.chat(audio=np.zeros(0, np.float32), sample_rate=16_000)


CALLS = {
    "transcribe": lambda model, **wrong: model.transcribe(SOUND, **wrong),
    "transcribe_stream": lambda model, **wrong: model.transcribe_stream(SOUND, **wrong),
    "speak": lambda model, **wrong: model.speak("Hi.", **wrong),
    "chat": lambda model, **wrong: model.chat(text="Hi.", **wrong),
    "translate": lambda model, **wrong: model.translate(SOUND, "German", **wrong),
    "ask": lambda model, **wrong: model.conversation().ask(text="Hi.", **wrong),
    "ask documents": lambda model, **wrong: model.ask("Why?", documents="nowhere", **wrong),
    "steps": lambda model, **wrong: model.conversation().steps(text="Hi.", **wrong),
    "evaluate": lambda model, **wrong: model.evaluate("asr", "nowhere", **wrong),
}


@pytest.mark.parametrize("call", CALLS)
def test_a_wrong_keyword_is_refused_at_the_call_by_its_own_name(models, call):
    name = call.partition(" ")[0]
    with pytest.raises(TypeError, match=rf"^{name}\(\) got an unexpected keyword argument 'max_new_tokns'; it takes "):
        CALLS[call](models["lfm2"], max_new_tokns=3)


@pytest.mark.parametrize("call", ["transcribe", "transcribe_stream"])
def test_text_has_no_sampling_of_sound(models, call):
    with pytest.raises(TypeError, match="audio_temperature"):
        CALLS[call](models["lfm2"], audio_temperature=1.0)


def test_voices(models):
    known, free = models["lfm2.5"], models["lfm2"]
    with pytest.raises(UsageError, match="US male, US female, UK male, UK female"):
        known.speak("Hello.", voice="martian")
    assert known.speak("Hello.", voice="uk MALE", max_new_tokens=3, seed=0).result
    assert free.speak("Hello.", voice="A tired robot", max_new_tokens=3, seed=0).result


def test_a_voice_needs_a_place_in_the_system_prompt(models, monkeypatch):
    known = models["lfm2.5"]
    with pytest.raises(UsageError, match=r"no place for a voice\. Write \{voice\}"):
        known.speak("Hello.", voice="UK male", system="Speak slowly.")
    with told(monkeypatch) as pieces:
        assert known.speak("Hello.", voice="uk male", system="Be {voice}.", max_new_tokens=1).result
        assert known.speak("Hello.", system="", max_new_tokens=1).result
    assert said(known, pieces).count("Be UK male.") == said(known, pieces).count("system") == 1


def test_text_sampling_follows_the_distribution():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(0)
    draws = [sampler.token(logits, Sampling(temperature=1.0)) for _ in range(4000)]
    assert np.allclose(np.bincount(draws, minlength=4) / 4000, [0.5, 0.3, 0.15, 0.05], atol=0.03)
    top_two = {sampler.token(logits, Sampling(temperature=1.0, top_k=2)) for _ in range(500)}
    assert top_two == {0, 1}
    assert sampler.token(logits, Sampling(), banned=(0,)) == 1


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, {0}), (0.5, {0}), (0.51, {0, 1}), (0.9, {0, 1, 2}), (1.0, {0, 1, 2, 3})]
)
def test_top_p_keeps_the_likeliest_that_have_it_together(top_p, kept):
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(0)
    assert {sampler.token(logits, Sampling(temperature=1.0, top_p=top_p)) for _ in range(600)} == kept


def test_top_p_counts_what_temperature_and_top_k_left():
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    sampler = Sampler(0)
    drawn = {sampler.token(logits, Sampling(temperature=1.0, top_k=2, top_p=0.6)) for _ in range(300)}
    assert drawn == {0}  # of the two that are left, the likelier one has 62 %
    assert len({sampler.token(logits, Sampling(temperature=9.0, top_p=0.6)) for _ in range(300)}) > 1


def test_the_sampling_keywords_reach_the_sampler(model, monkeypatch):
    seen = set()
    token, frame = Sampler.token, Depthformer.frame

    def spy(self, logits, sampling, banned=None):
        seen.add(("text", sampling.temperature, sampling.top_k, sampling.top_p))
        return token(self, logits, sampling, banned)

    def spy_frame(self, hidden, sampling, *more):
        seen.add(("audio", sampling.temperature, sampling.top_k))
        return frame(self, hidden, sampling, *more)

    monkeypatch.setattr(Sampler, "token", spy)
    monkeypatch.setattr(Depthformer, "frame", spy_frame)
    wished = {"temperature": 0.7, "top_k": 9, "top_p": 0.8, "audio_temperature": 0.6, "audio_top_k": 3}
    list(model.chat(text="Hello.", max_new_tokens=30, seed=1, **wished))
    assert seen == {("text", 0.7, 9, 0.8), ("audio", 0.6, 3)}
    seen.clear()
    list(model.chat(text="Hello.", max_new_tokens=30, seed=1, temperature=0.7))
    usual = model.manifest.tasks.chat
    assert {one[2] for one in seen if one[0] == "text"} == {usual.text.top_k}
    assert {one[1:] for one in seen if one[0] == "audio"} == {(usual.audio.temperature, usual.audio.top_k)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 0}, {"top_p": 1.5},
        {"audio_temperature": 101}, {"audio_top_k": -2}, {"seed": -1}, {"max_new_tokens": 0},
    ],
    ids=str,
)  # fmt: skip
def test_options_out_of_range_are_refused_by_name(model, wrong):
    with pytest.raises(UsageError, match=rf"^{next(iter(wrong))} is .*\. Give "):
        model.chat(text="Hello.", **wrong)


def test_audio_sampling_follows_the_distribution(model):
    """Frequencies of the first codebook's draws against the softmax of its own logits, top-k cut off."""
    depthformer = model.parts.depthformer
    hidden = np.random.default_rng(0).standard_normal(model.manifest.model.backbone.hidden_size).astype(np.float32)
    logits = depthformer.logits(hidden, np.zeros(model.manifest.model.codes.codebooks, np.int64))[0]
    top = np.argsort(logits)[-4:]
    weights = np.exp(logits[top] / 0.7 - (logits[top] / 0.7).max())
    sampler, sampling = Sampler(0), Sampling(temperature=0.7, top_k=4)
    draws = np.array([depthformer.frame(hidden, sampling, sampler)[0] for _ in range(400)])
    assert set(draws) <= set(top)
    frequencies = [(draws == code).mean() for code in top]
    assert np.allclose(frequencies, weights / weights.sum(), atol=0.1)


def test_stage_times_are_in_the_result(model):
    *_, end = model.chat(audio=SOUND, max_new_tokens=30, seed=1)
    wanted = {"log_mel", "audio_encoder", "decoder", "text_head", "depthformer", model.manifest.model.codec.graph}
    assert wanted <= set(end.result.stages)
    assert sum(end.result.stages.values()) <= 1000 * end.result.seconds
