"""The silence around speech: every way in hears the words whatever is around them, and hears nothing in nothing."""

import json
from pathlib import Path

import msgspec
import numpy as np
import pytest
import soundfile

import voxrill
from tests.places import CLIPS, ROOT
from tests.silence import AROUND, NAMES, SAID, room_noise, surrounded
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.protocols import BLOCK
from voxrill.runtime.audio.segments import LEAST, spans, speech_in
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.audio.voice_activity import AutomaticGain, VoiceActivity
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.manifest import Taught
from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.errors import UsageError

COMMANDS = ROOT / "examples" / "commands.toml"
LIGHTS = next(clip for clip in SAID if clip["words"] == "bathroom lights on")
MUSIC = CLIPS / "33-music.flac"
"""Heard as it is, Pebble takes it for a command."""

NOTHING = {
    "digital silence": np.zeros(2 * SAMPLE_RATE, np.float32),
    "a room": room_noise(2 * SAMPLE_RATE, -50, 0),
    "music": read_audio(MUSIC),
    "a tone": tone(),
}
"""Sounds without speech."""

around = pytest.mark.parametrize("around", AROUND, ids=NAMES)
around_a_file = pytest.mark.parametrize("around", [AROUND[0], (1.0, -50.0), (3.0, None)], ids=str)
"""A few of them: each command loads its model."""
nothing = pytest.mark.parametrize("sound", NOTHING.values(), ids=NOTHING)


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


@pytest.fixture(scope="module")
def untrimmed():
    """Pebble as though it had been taught with long sound."""
    bundle = open_builtin()
    taught = msgspec.structs.replace(bundle.manifest.taught, trim_silence=False)
    return voxrill.Model(Bundle(bundle.directory, msgspec.structs.replace(bundle.manifest, taught=taught)), 1)


@pytest.fixture(scope="module")
def control(pebble):
    return pebble.control(COMMANDS)


def answered(model, sound, **options):
    *_, end = model.chat(audio=sound, **options, sample_rate=SAMPLE_RATE)
    return end.result.text.strip()


@pytest.fixture
def encoded(monkeypatch):
    """The number of samples of every sound that an encoder receives."""
    lengths, encode = [], AudioEncoder.encode

    def counted(encoder, waveform):
        lengths.append(len(waveform))
        return encode(encoder, waveform)

    monkeypatch.setattr(AudioEncoder, "encode", counted)
    return lengths


def lines(ran):
    assert ran.status == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


# The library


@around
def test_words_and_answers_are_right_whatever_is_around_them(pebble, around):
    """Without the cut, one second of silence makes all 13 answers and most words wrong."""
    clips = SAID[::2]
    sounds = [surrounded(clip, around) for clip in clips]
    heard = [pebble.transcribe(sound, sample_rate=SAMPLE_RATE).text for sound in sounds]
    assert sum(text == clip["words"] for text, clip in zip(heard, clips, strict=True)) >= len(clips) - 1
    answers = [answered(pebble, sound) for sound in sounds]
    assert sum(text == clip["reply"] for text, clip in zip(answers, clips, strict=True)) >= len(clips) - 1


@around
def test_every_call_hears_the_speech(pebble, control, around):
    sound = surrounded(LIGHTS, around)
    found = pebble.transcribe(sound, sample_rate=SAMPLE_RATE)
    assert found.text == LIGHTS["words"] and found.duration == pytest.approx(len(sound) / SAMPLE_RATE, abs=1e-3)
    (segment,) = found.segments
    assert around[0] <= segment.start < segment.end <= found.duration + 0.032
    assert [event.text for event in pebble.transcribe_stream(sound, tentative=False, sample_rate=SAMPLE_RATE)] == [
        LIGHTS["words"]
    ]
    assert pebble.classify(sound, sample_rate=SAMPLE_RATE).label == "lights"
    understood = control.hear(sound, sample_rate=SAMPLE_RATE)
    assert understood.accepted and understood.words == LIGHTS["words"]
    *_, end = pebble.translate(sound, "German", sample_rate=SAMPLE_RATE)
    *_, wanted = pebble.translate(surrounded(LIGHTS, AROUND[0]), "German", sample_rate=SAMPLE_RATE)
    assert end.result.text == wanted.result.text and end.result.text.strip()
    conversation = pebble.conversation()
    *_, end = conversation.ask(audio=sound, sample_rate=SAMPLE_RATE)
    assert end.result.text.strip() == LIGHTS["reply"]


WAYS_IN = {
    "transcribe": lambda model, sound, **options: model.transcribe(sound, **options),
    "chat": lambda model, sound, **options: list(model.chat(audio=sound, **options)),
    "ask": lambda model, sound, **options: list(model.conversation().ask(audio=sound, **options)),
    "translate": lambda model, sound, **options: list(model.translate(sound, "German", **options)),
    "classify": lambda model, sound, **options: model.classify(sound, **options),
    "control": lambda model, sound, **options: model.control(COMMANDS).hear(sound, **options),
}


@pytest.mark.parametrize("way_in", WAYS_IN.values(), ids=WAYS_IN)
def test_the_switch(pebble, untrimmed, encoded, way_in):
    """The caller's word counts, and the model's where the caller says nothing."""
    sound = surrounded(LIGHTS, (1.0, None))

    def received(model, **options):
        encoded.clear()
        way_in(model, sound, sample_rate=SAMPLE_RATE, **options)
        return sum(encoded)

    assert received(untrimmed) == received(untrimmed, trim=False) == received(pebble, trim=False) == len(sound)
    speech = received(pebble)
    assert SAMPLE_RATE / 2 < speech < len(sound) - SAMPLE_RATE
    assert received(untrimmed, trim=True) == received(pebble, trim=True) == speech


def test_models_hear_everything_unless_they_say_otherwise(untrimmed):
    assert Taught().trim_silence is False and open_builtin().manifest.taught.trim_silence
    sound = surrounded(LIGHTS, (1.0, None))
    assert untrimmed.parts.waveform(sound, sample_rate=SAMPLE_RATE) is sound


@nothing
def test_where_nobody_speaks_nothing_is_heard_and_nothing_done(pebble, control, sound):
    found = pebble.transcribe(sound, sample_rate=SAMPLE_RATE)
    assert (found.text, found.segments, found.finish_reason) == ("", (), "stop")
    assert answered(pebble, sound) == ""
    assert not control.hear(sound, sample_rate=SAMPLE_RATE).accepted
    *_, end = pebble.translate(sound, "German", sample_rate=SAMPLE_RATE)
    assert end.result.text.strip() == ""


def test_silence_is_no_command_however_little_certainty_is_asked_for(pebble):
    control = pebble.control(COMMANDS, threshold=0.0)
    assert control.hear(surrounded(LIGHTS, (1.0, None)), sample_rate=SAMPLE_RATE).accepted
    for sound in NOTHING.values():
        assert not control.hear(sound, sample_rate=SAMPLE_RATE).accepted


# Sound of any length


def test_a_long_sound_is_transcribed_whole(pebble):
    """Ten minutes, with a command at the beginning, in the middle and at the end."""
    clips = [LIGHTS, SAID[0], SAID[7]]
    silence = room_noise(290 * SAMPLE_RATE, -60, 1)
    sounds = [read_audio(CLIPS / clip["file"]) for clip in clips]
    whole = np.concatenate([sounds[0], silence, sounds[1], silence, sounds[2]])
    found = pebble.transcribe(whole, sample_rate=SAMPLE_RATE)
    assert found.text == " ".join(clip["words"] for clip in clips)
    assert [segment.text for segment in found.segments] == [clip["words"] for clip in clips]
    begins = [0, len(sounds[0]) + len(silence), len(whole) - len(sounds[2])]
    assert all(abs(s.start - at / SAMPLE_RATE) < 0.5 for s, at in zip(found.segments, begins, strict=True))
    assert found.duration == pytest.approx(len(whole) / SAMPLE_RATE)
    assert found.tokens and found.stages["decoder"] > 0 and found.first_text < found.seconds


def test_a_model_that_hears_everything_hears_a_short_sound_whole(untrimmed):
    sound = read_audio(CLIPS / LIGHTS["file"])
    found = untrimmed.transcribe(sound, sample_rate=SAMPLE_RATE)
    assert [(s.number, s.start, s.text) for s in found.segments] == [(1, 0.0, LIGHTS["words"])]
    assert found.segments[0].end == found.duration == round(len(sound) / SAMPLE_RATE, 4)
    long = np.concatenate([sound, np.zeros(30 * SAMPLE_RATE, np.float32)])
    assert untrimmed.transcribe(long, sample_rate=SAMPLE_RATE).segments[0].end < 3


def test_a_file_is_as_good_as_its_samples(pebble, tmp_path):
    sound = surrounded(LIGHTS, (20.0, -50.0))
    soundfile.write(tmp_path / "long.wav", sound, SAMPLE_RATE, "FLOAT")
    one, other = pebble.transcribe(tmp_path / "long.wav"), pebble.transcribe(sound, sample_rate=SAMPLE_RATE)
    assert (one.text, one.segments, one.duration) == (other.text, other.segments, other.duration)


def test_a_wrong_option_is_refused_before_the_sound_is_read(pebble):
    with pytest.raises(TypeError, match=r"transcribe\(\) got an unexpected keyword argument 'voice'"):
        pebble.transcribe("not there.wav", voice="US female")
    with pytest.raises(UsageError, match="max_new_tokens"):
        pebble.transcribe("not there.wav", max_new_tokens=0)


# The cut itself


def test_silence_between_words_is_shortened_and_the_words_kept():
    one, other = (read_audio(CLIPS / clip["file"]) for clip in (LIGHTS, SAID[0]))
    found = speech_in(np.concatenate([one, np.zeros(5 * SAMPLE_RATE, np.float32), other]))
    assert len(one) + len(other) - SAMPLE_RATE < len(found) < len(one) + len(other) + SAMPLE_RATE


def test_speech_of_any_length_is_one_piece():
    """Nothing of it is heard twice, as a transcript's neighbouring segments are."""
    clip = read_audio(CLIPS / LIGHTS["file"])
    assert len(speech_in(np.tile(clip, 20))) <= 20 * len(clip)


def test_a_click_is_no_speech():
    click = np.zeros(SAMPLE_RATE, np.float32)
    click[8000:8080] = 0.9
    assert len(speech_in(click)) == 0 and spans(click) == [] and LEAST > 0.1


@pytest.mark.parametrize("level", [-20, -30, -40, -50, -60])
def test_quiet_speech_is_found_as_loud_speech_is(level):
    """At -50 dB the network alone finds the beginnings up to a third of a second late, at -60 dB it misses some."""

    def first_blocks(level):
        for clip in SAID:
            sound = surrounded(clip, (1.0, None))
            loud = np.sqrt(np.mean(np.square(read_audio(CLIPS / clip["file"]))))
            quantised = np.rint(sound / loud * 10 ** (level / 20) * 32767) / 32768
            (span,) = spans(quantised.astype(np.float32))
            yield span.first

    late = [quiet - loud for quiet, loud in zip(first_blocks(level), first_blocks(-20), strict=True)]
    assert max(late) <= 2


def test_quiet_words_are_understood(pebble):
    """26 held-out commands at -50 dB after a second of silence, in 16 bits."""
    right = 0
    for clip in SAID:
        loud = np.sqrt(np.mean(np.square(read_audio(CLIPS / clip["file"]))))
        sound = np.rint(surrounded(clip, (1.0, None)) / loud * 10 ** (-50 / 20) * 32767) / 32768
        right += pebble.transcribe(sound.astype(np.float32), sample_rate=SAMPLE_RATE).text == clip["words"]
    assert right >= 22


def test_a_recording_is_searched_for_whispers_which_hardly_look_like_speech():
    blocks = iter([0.05] * 20 + [0.3] * 30 + [0.05] * 30)
    (span,) = spans(np.zeros(80 * BLOCK, np.float32), voice=lambda samples: next(blocks))
    assert (span.first, span.last, span.voiced) == (20, 49, 30)


def test_whispered_words_are_understood(pebble, recipe):
    """26 held-out commands with noise in place of the voice, between two seconds of a quiet room."""
    whispered = recipe("augment").whispered
    right = 0
    for seed, clip in enumerate(SAID):
        sound = whispered(read_audio(CLIPS / clip["file"]), np.random.default_rng(seed))
        sound = np.pad(sound, SAMPLE_RATE) + room_noise(len(sound) + 2 * SAMPLE_RATE, -70, seed)
        right += pebble.transcribe(sound.astype(np.float32), sample_rate=SAMPLE_RATE).text == clip["words"]
    assert right >= 18


@pytest.mark.parametrize("level", [-20, -50, -80])
def test_noise_does_not_become_speech_by_being_amplified(level):
    assert len(speech_in(room_noise(5 * SAMPLE_RATE, level, 2))) == 0
    assert len(speech_in(read_audio(MUSIC) * np.float32(10 ** ((level + 20) / 20)))) == 0


def test_the_gain():
    gain = AutomaticGain()
    loud, quiet = np.full(512, 0.5, np.float32), np.full(512, 0.001, np.float32)
    assert np.array_equal(gain(np.zeros(512, np.float32)), np.zeros(512))
    assert gain(quiet)[0] == pytest.approx(0.1)  # by 40 dB, no more
    assert np.array_equal(gain(loud), loud)  # at once, and loud sound is left as it is
    assert gain(quiet)[0] == quiet[0]
    for _ in range(round(15 / 0.032)):
        gain(quiet)
    assert gain(quiet)[0] > 0.05  # 15 seconds later one can whisper


def test_a_detector_begins_anew_with_its_gain():
    detector = VoiceActivity(auto_gain=True)
    sound = surrounded(LIGHTS, (0.5, None))[: 60 * 512].reshape(-1, 512)
    first = [detector(block) for block in sound]
    detector.reset()
    assert [detector(block) for block in sound] == first


# The commands


@pytest.fixture
def file(tmp_path):
    """Writes the lights' clip with silence or a room around it."""

    def write(around):
        soundfile.write(tmp_path / "a.wav", surrounded(LIGHTS, around), SAMPLE_RATE)
        return "a.wav"

    return write


@around_a_file
def test_every_command_hears_the_speech(cli, file, around):
    name, wanted = file(around), LIGHTS["words"]
    assert cli("transcribe", name).out == f"{wanted}\n"
    (one,) = lines(cli("transcribe", name, "--json"))
    assert one["text"] == wanted
    (segment,) = json.loads(cli("transcribe", name, "--format", "json").out)["segments"]
    assert segment["text"] == wanted and segment["start"] >= around[0]
    assert cli("chat", "--audio", name).out.strip() == LIGHTS["reply"]
    assert cli("control", COMMANDS, name, "--dry-run").out == "lights room=bathroom state=on\n"
    assert cli("classify", name).out.startswith("lights\t")
    assert cli("translate", name, "--to", "German").out.strip()
    Path("notes").mkdir(exist_ok=True)
    Path("notes/lights.txt").write_text("The bathroom lights are on the second switch.\n")
    found = json.loads(cli("ask", "--audio", name, "--docs", "notes", "--index", "i.db", "--quote", "--json").out)
    assert found["question"] == wanted and found["found"]


@around_a_file
def test_evaluations_hear_the_speech(cli, file, around):
    pytest.importorskip("jiwer", reason="the eval extra is not installed")
    pytest.importorskip("whisper_normalizer", reason="the eval extra is not installed")
    line = {"audio_filepath": file(around), "text": LIGHTS["words"], "answer": LIGHTS["reply"]}
    Path("asr.jsonl").write_text(json.dumps(line) + "\n")
    for command in ("asr", "chat"):
        found = lines(cli("eval", command, "--data", "asr.jsonl", "--json"))
        assert found[0]["text"].strip() == LIGHTS["words" if command == "asr" else "reply"]


@nothing
def test_no_command_makes_words_of_nothing(cli, sound, tmp_path):
    soundfile.write("a.wav", sound, SAMPLE_RATE)
    assert cli("transcribe", "a.wav").out == "\n"
    assert cli("chat", "--audio", "a.wav").out == "\n"
    ran = cli("control", COMMANDS, "a.wav", "--json")
    (one,) = [json.loads(line) for line in ran.out.splitlines()]
    assert one["accepted"] is False and one["answer"] == "sorry i only know the house"


@pytest.mark.parametrize(
    "words",
    [("transcribe",), ("chat", "--audio"), ("control", COMMANDS, "--dry-run"), ("classify",)],
    ids=lambda words: words[0],
)
def test_commands_can_be_told_to_hear_silence_too(cli, file, encoded, words):
    name = file((1.0, None))
    whole = len(surrounded(LIGHTS, (1.0, None)))
    for option, most in (("--no-trim", whole), ("--trim", whole - SAMPLE_RATE)):
        encoded.clear()
        assert cli(*words, name, option).status == 0
        assert most - SAMPLE_RATE < max(encoded) <= most


def test_what_cuts_by_itself_has_no_such_switch(cli, file):
    name = file((1.0, None))
    for more in (["--format", "srt"], ["-o", "a.srt"]):
        cli.refuses("transcribe", name, "--no-trim", *more, saying=("--no-trim", "--format"))
    cli.refuses("transcribe", "--live", "--no-trim", saying="--no-trim")
    cli.refuses("transcribe", ".", "--no-trim", saying="--no-trim")
    cli.refuses("control", COMMANDS, "--live", "--trim", saying="--trim")
