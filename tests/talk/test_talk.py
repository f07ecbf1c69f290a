"""The live loop on fake devices: held-out questions are answered; pauses, interruptions and faults are survived."""

import dataclasses
import errno
import shutil
from unittest.mock import Mock

import msgspec
import numpy as np
import pytest
import soundfile

import voxrill
from tests.talking import SPOKEN, Scene, silence, spoken
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK_SECONDS, Block
from voxrill.runtime.engine.context import Spoken, Tokens
from voxrill.runtime.errors import DataError, UsageError, VoxrillWarning
from voxrill.runtime.talk.listener import Ended, Interrupted, Paused, Resumed, Typed
from voxrill.runtime.talk.recording import Recorder, describe
from voxrill.runtime.talk.replay import differences, read_recording, replay
from voxrill.runtime.talk.responder import ResponderOptions


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


def test_spoken_questions_are_answered_aloud(pebble):
    scene = Scene(pebble)
    turns = [scene.ask(clip) for clip in SPOKEN[:8]]
    right = [turn.answer.text.strip() == clip["reply"] for turn, clip in zip(turns, SPOKEN, strict=False)]
    assert sum(right) >= 7
    for turn, heard in zip(turns, scene.player.heard, strict=True):
        assert np.array_equal(heard, turn.answer.waveform())
        assert turn.heard is None
        assert turn.trace.underruns == 0
        assert turn.trace.speculated
        assert turn.trace.false_starts == 0


def test_the_answer_waits_at_the_endpoint(pebble):
    scene = Scene(pebble)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: any(isinstance(signal, Paused) for signal in scene.signals))
    scene.hear(silence(0.1))
    assert scene.player.begun == []
    scene.hear_until(lambda: any(isinstance(signal, Ended) for signal in scene.signals))
    assert len(scene.player.begun) == 1  # in the very block that ended the turn
    assert scene.player.busy()


def test_a_false_start_leaves_no_trace_in_the_answer(pebble):
    clip = spoken(SPOKEN[0])
    broken = (clip[:14_000], silence(0.3), clip[14_000:])
    answers, positions = [], []
    for speculate in (True, False):
        scene = Scene(pebble, ResponderOptions(speculate=speculate))
        scene.hear(silence(0.5), *broken)
        scene.hear_until(lambda scene=scene: scene.turns)
        assert sum(isinstance(signal, Resumed) for signal in scene.signals) >= 1
        assert len(scene.player.begun) == 1
        assert scene.turns[0].trace.speculated is speculate
        answers.append(scene.turns[0])
        positions.append(scene.conversation.context.positions)
    assert positions[0] == positions[1]
    assert answers[0].trace.false_starts >= 1
    assert answers[1].trace.false_starts == 0
    assert answers[0].answer.tokens == answers[1].answer.tokens
    assert answers[0].answer.codes == answers[1].answer.codes
    assert np.array_equal(answers[0].utterance.samples, answers[1].utterance.samples)


@pytest.mark.parametrize(
    ("silence_due", "most"), [pytest.param(0.0, 0.3, id="finished"), pytest.param(None, 0.6, id="not known")]
)
def test_a_finished_question_is_answered_at_its_first_pause(pebble, silence_due, most):
    """Its answer is heard in the block after the one that paused; the sound that was judged is that of the answer."""
    asked = []

    def judge(sound, options):
        asked.append((sound, options.within))
        return silence_due

    scene = Scene(pebble, judge=judge)
    turn = scene.ask(SPOKEN[0])
    assert turn.answer.text.strip() == SPOKEN[0]["reply"] and turn.trace.speculated
    assert turn.trace.endpoint - turn.trace.voice_end < most
    assert np.array_equal(asked[-1][0], turn.utterance.samples) and 0.3 < asked[-1][1] < 0.5


def test_an_unfinished_question_is_waited_for_and_judged_again(pebble):
    """A silence of 0.9 s would end the question; with patience it goes on, and both parts are one question."""
    clip, said = spoken(SPOKEN[0]), [2.0, 0.0]
    scene = Scene(pebble, judge=lambda *_asked: said.pop(0) if said else 0.0)
    scene.hear(silence(0.5), clip[:14_000], silence(0.9), clip[14_000:])
    scene.hear_until(lambda: scene.turns)
    assert len(scene.turns) == 1 and not said
    assert len(scene.turns[0].utterance.samples) > len(clip) + 14_000 - 4_000


def test_an_interruption_keeps_what_was_heard(pebble):
    scene = Scene(pebble, ResponderOptions(turns=3), barge_in=True)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 24_000)
    scene.hear(spoken(SPOKEN[1]))
    interruption = next(signal for signal in scene.signals if isinstance(signal, Interrupted))
    scene.hear_until(lambda: len(scene.turns) == 2)
    first, second = scene.turns
    frame = pebble.codec.spec.frame_samples
    assert first.heard == interruption.heard == len(scene.player.heard[0])
    assert 24_000 < first.heard < first.answer.samples
    assert first.answer.text and SPOKEN[0]["reply"].startswith(first.answer.text.strip())
    assert second.heard is None
    kept = sum(piece.codes.shape[1] for piece in spoken_pieces(scene.conversation)) - len(second.answer.codes)
    assert first.heard // frame - 1 <= kept <= first.heard // frame


def test_a_single_voiced_block_holds_the_answer_only_for_a_moment(pebble):
    scene = Scene(pebble, barge_in=True)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 24_000)
    scene.listener._voice_activity = Says(1.0, 0.0)
    before = scene.player.played()
    scene.hear(silence(BLOCK_SECONDS))
    played = scene.player.played()
    scene.hear(silence(BLOCK_SECONDS))
    assert scene.player.played() == played > before  # held while the next block came
    scene.hear_until(lambda: scene.turns)
    assert scene.turns[0].heard is None and scene.player.played() == scene.turns[0].answer.samples


def test_an_answer_that_is_held_goes_on_when_the_microphone_is_away(pebble):
    scene = Scene(pebble, barge_in=True)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 24_000)
    scene.listener._voice_activity = Says(1.0)
    scene.hear(silence(BLOCK_SECONDS))
    assert scene.player.held
    scene.listener.hear_nothing()
    assert not scene.player.held


def spoken_pieces(conversation):
    end = conversation.context.end_of_audio
    return [piece for piece in conversation.context.pieces if isinstance(piece, Spoken) and piece.codes[0, 0] != end]


def record(scene, folder):
    recorder = Recorder(folder, describe(scene.model, scene.conversation, scene.mind_options), scene.shown.append)
    recorder.hear(scene.blocks)
    for signal in scene.signals:
        recorder.signal(signal)
    for turn in scene.turns:
        recorder.keep(turn)
    return recorder


@pytest.fixture(scope="module")
def eventful(pebble):
    """A talk with a false start, an interruption, something typed, and turns that are forgotten."""
    scene = Scene(pebble, ResponderOptions(turns=2, seed=7), barge_in=True)
    clip = spoken(SPOKEN[0])
    scene.hear(silence(0.5), clip[:14_000], silence(0.3), clip[14_000:])
    scene.hear_until(lambda: scene.player.played() > 30_000)
    scene.hear(spoken(SPOKEN[1]))
    scene.hear_until(lambda: len(scene.turns) == 2)
    scene.responder.inbox.put(Typed("kitchen lights on", scene.now))
    scene.hear_until(lambda: len(scene.turns) == 3)
    scene.ask(SPOKEN[2])
    return scene


def test_a_recorded_talk_is_replayed_to_the_bit(pebble, eventful, tmp_path):
    record(eventful, tmp_path / "talk").close()
    recording = read_recording(tmp_path / "talk")
    again = list(replay(recording, pebble))
    assert differences(recording, pebble) == []
    assert [turn.recorded.heard is not None for turn in again] == [True, False, False, False]
    assert [turn.recorded.typed for turn in again] == [None, None, "kitchen lights on", None]
    assert sum(turn.forgotten for turn in again) == 2
    assert all(turn.codes for turn in again)
    assert [turn.same for turn in again] == [True] * 4
    other = msgspec.structs.replace(recording.turns[0], codes=[[0]])
    changed = dataclasses.replace(recording, turns=[other, *recording.turns[1:]])
    assert not next(replay(changed, pebble)).same


def test_a_recording_cut_short_is_replayed_as_far_as_it_goes(pebble, eventful, tmp_path):
    recorder = record(eventful, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "talk")  # what a crash would leave
    recorder.close()
    events = tmp_path / "talk" / "events.jsonl"
    events.write_bytes(events.read_bytes()[:-100])
    assert [turn.same for turn in replay(read_recording(tmp_path / "talk"), pebble)] == [True] * 3
    samples, rate = soundfile.read(tmp_path / "talk" / "microphone.wav", dtype="float32")
    assert rate == 16_000
    assert np.array_equal(samples, np.concatenate(eventful.blocks))


def test_a_full_disk_ends_the_recording_and_not_the_talk(pebble, tmp_path, monkeypatch):
    scene = Scene(pebble)
    recorder = record(scene, tmp_path / "talk")
    full = OSError(errno.ENOSPC, "No space left on device")
    recorder._sound.close()
    monkeypatch.setattr(recorder, "_sound", Mock(write=Mock(side_effect=full), close=Mock(side_effect=full)))
    recorder.hear([silence(0.032)])
    recorder.hear([silence(0.032)])
    recorder.close()
    assert scene.notices() == ["The recording ends here (No space left on device); the talk goes on"]


def test_what_is_no_recording_is_refused(pebble, eventful, tmp_path):
    with pytest.raises(DataError, match="voxrill talk --record"):
        read_recording(tmp_path)
    record(eventful, tmp_path / "talk").close()
    with pytest.raises(UsageError, match="not empty"):
        Recorder(tmp_path / "talk", {}, eventful.shown.append)
    recording = read_recording(tmp_path / "talk")
    recording.header.bundle = "of another model"
    with pytest.raises(UsageError, match="--bundle"):
        differences(recording, pebble)


def test_typed_questions_are_answered_aloud(pebble):
    scene = Scene(pebble)
    scene.responder.inbox.put(Typed("kitchen lights on", 0.0))
    scene.hear_until(lambda: scene.turns)
    assert scene.said().strip() == "kitchen lights on"
    assert np.array_equal(scene.player.heard[0], scene.turns[0].answer.waveform())


def test_the_microphone_is_ignored_while_the_answer_plays(pebble):
    scene = Scene(pebble)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 0)
    scene.hear(spoken(SPOKEN[1])[:16_000])
    scene.hear_until(lambda: scene.turns)
    assert not any(isinstance(signal, Interrupted) for signal in scene.signals)
    assert len(scene.player.heard[0]) == scene.turns[0].answer.samples
    assert scene.ask(SPOKEN[2]).answer.text.strip() == SPOKEN[2]["reply"]


def test_a_user_who_speaks_before_the_answer_is_heard_interrupts_it(pebble):
    scene = Scene(pebble, ResponderOptions(turns=3, speculate=False), steps=0)
    scene.hear(silence(0.5), spoken(SPOKEN[0]), silence(1.0), spoken(SPOKEN[1]))
    scene.steps = 1000
    scene.hear_until(lambda: len(scene.turns) == 2)
    assert [turn.heard for turn in scene.turns] == [0, None]
    assert scene.turns[0].answer.text == ""
    assert len(scene.player.heard) == 1


def test_a_slow_machine_loses_no_turn(pebble):
    scene = Scene(pebble, steps=2)
    turns = [scene.ask(clip) for clip in SPOKEN[:3]]
    assert [turn.number for turn in turns] == [1, 2, 3]
    assert all(turn.answer.finish_reason == "stop" for turn in turns)


class Says:
    """A detector that hears what it is told to."""

    def __init__(self, *probabilities):
        self.probabilities = list(probabilities)

    def __call__(self, _samples):
        return self.probabilities.pop(0) if len(self.probabilities) > 1 else self.probabilities[0]

    def reset(self):
        pass


def test_a_user_who_never_stops_is_answered_and_told(pebble):
    options = EndpointOptions(longest=3.0)
    scene = Scene(pebble, endpointer=Endpointer(options), voice_activity=Says(1.0))
    scene.hear(silence(10.0))
    assert len(scene.turns) == 1  # and no other begins before it was quiet
    assert len(scene.turns[0].utterance.samples) == pytest.approx(3 * 16_000, abs=1024)
    assert scene.notices() == ["You spoke for 3 seconds without a pause. This answers what you said so far"]
    scene.listener._voice_activity = Says(*[0.0] * 20, *[1.0] * 20, 0.0)
    scene.hear(silence(6.0))
    assert len(scene.turns) == 2


def test_noise_and_silence_are_no_questions(pebble):
    noise = np.random.default_rng(0).normal(0, 0.05, 16_000 * 10).astype(np.float32)
    scene = Scene(pebble)
    scene.hear(noise, silence(10))
    assert scene.signals == []
    assert len(scene.listener._kept) <= 20


def test_clipping_is_told_once_a_turn(pebble):
    scene = Scene(pebble)
    turn = scene.hear(silence(0.5), np.clip(30 * spoken(SPOKEN[0]), -1, 1), silence(1.0))
    assert turn is None
    assert [text.split(":")[0] for text in scene.notices()] == ["The microphone is too loud and clips"]


def test_a_turn_cut_off_by_a_lost_microphone_is_answered(pebble):
    scene = Scene(pebble)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    lost = len(scene.blocks) + 200
    scene.blocks.extend(scene.listener.hear(Block(silence(0.032), 512 * lost, scene.now)))
    assert isinstance(scene.signals[-1], Ended)
    assert scene.notices() == ["The microphone gave no sound for 6.4 seconds"]
    for _ in range(100):
        scene.responder.step()
    assert scene.said().strip() == SPOKEN[0]["reply"]


def test_a_typed_word_that_is_not_known_is_told(pebble):
    scene = Scene(pebble)
    scene.responder.inbox.put(Typed("what is the zeitgeist", 0.0))
    with pytest.warns(VoxrillWarning, match="zeitgeist"):
        scene.hear_until(lambda: scene.turns)
    assert [turn.answer.text.strip() for turn in scene.turns] == ["sorry i only know the house"]


def test_the_oldest_turns_are_forgotten_whole(pebble):
    options = ResponderOptions(budget=150)
    scene = Scene(pebble, options)
    numbers = []
    for _ in range(12):
        scene.responder.inbox.put(Typed("kitchen lights on", scene.now))
        scene.hear_until(
            lambda: scene.responder._reply is None and scene.responder.inbox.empty() and not scene.responder._unprepared
        )
        numbers.append((scene.conversation.turns, scene.conversation.context.positions))
    assert max(positions for _, positions in numbers) <= 150 + 10
    assert max(turns for turns, _ in numbers) >= 3
    assert sum(turn.forgotten for turn in scene.turns) >= 3
    assert any("oldest" in text for text in scene.notices())
    tokens = [piece.ids for piece in scene.conversation.context.pieces if isinstance(piece, Tokens)]
    system = pebble.parts.tokenizer.encode(scene.conversation.system)
    assert tuple(system) in tokens[:3]


def test_what_was_forgotten_leaves_no_trace(pebble):
    long, short = pebble.conversation(), pebble.conversation()
    for conversation in (long, short):
        while conversation.prepare():
            pass
    list(long.ask(text="kitchen lights on"))
    list(long.ask(text="hall lights off"))
    assert long.forget(10_000, turns=1) == 1
    assert long.forget(10_000, turns=1) == 0
    prompt = len(short.context.pieces) - 1  # without the opening of the user's turn
    assert short.forget(0) == 1
    for piece in long.context.pieces[prompt:]:
        short.context.add(piece)
    assert long.context.positions == short.context.positions
    *_, after = long.ask(text="dim the kitchen lights")
    *_, wanted = short.ask(text="dim the kitchen lights")
    assert after.result.tokens == wanted.result.tokens


def test_many_turns_grow_nothing(pebble):
    scene = Scene(pebble, ResponderOptions(turns=0), voice_activity=Says(0.0))
    clip = spoken(SPOKEN[0])
    sizes = []
    for _ in range(60):
        scene.listener._voice_activity = Says(*[1.0] * 60, 0.0)
        scene.hear(clip)
        scene.hear_until(lambda: scene.responder._reply is None and not scene.responder._unprepared and scene.turns)
        sizes.append((len(scene.conversation.context.pieces), scene.conversation.context.positions))
        scene.turns.clear()
        assert len(scene.listener._kept) <= 20
    assert len(set(sizes[1:])) == 1


def test_marks_are_dropped_as_the_answer_plays(pebble):
    scene = Scene(pebble)
    scene.hear(silence(0.5), spoken(SPOKEN[0]))
    scene.hear_until(lambda: scene.player.played() > 40_000)
    answer = scene.responder._reply.answer
    assert len(answer._marks) <= len(answer.codes) - 40_000 // pebble.codec.spec.frame_samples + 3
