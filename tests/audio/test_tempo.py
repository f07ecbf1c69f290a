"""Speech faster and slower: its length, its pitch, its loudness and its words."""

import numpy as np
import pytest

import voxrill
from tests.places import CLIPS
from tests.silence import SAID
from voxrill.runtime.audio.audio_file import SAMPLE_RATE, read_audio
from voxrill.runtime.audio.tempo import Tempo

RATE = 24_000
SPEEDS = [0.25, 0.5, 0.8, 1.1, 1.25, 2.0, 4.0]

speeds = pytest.mark.parametrize("speed", SPEEDS)


def changed(sound, speed, rate=RATE, piece=1920):
    tempo = Tempo(rate, speed)
    pieces = [tempo.push(sound[start : start + piece]) for start in range(0, len(sound), piece)]
    return np.concatenate([*pieces, tempo.finish()])


def voice(hertz, seconds=1.0, rate=RATE):
    """A voice-like sound: many harmonics, the higher ones quieter."""
    at = np.arange(round(seconds * rate)) / rate
    return sum(np.sin(2 * np.pi * hertz * n * at) / n for n in range(1, 12)).astype(np.float32) / 8


def pitch(sound, rate=RATE):
    """Hz, by where the sound is most like itself."""
    middle = sound[len(sound) // 2 - 1024 :][:2048].astype(np.float64)
    likeness = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    shortest = rate // 500
    return rate / (shortest + np.argmax(likeness[shortest : rate // 60]))


@speeds
@pytest.mark.parametrize("hertz", [85, 120, 210, 330])
def test_the_pitch_is_kept(speed, hertz):
    sound = voice(hertz)
    made = changed(sound, speed)
    assert len(made) == round(len(sound) / speed)
    assert pitch(made) == pytest.approx(pitch(sound), rel=0.015)
    # No beats and no gaps where segments meet: every 20 ms are as loud as before, but where the sound fades out.
    middle = made[480 : -round(0.04 * RATE / min(speed, 1))]
    loudness = np.sqrt(np.mean(np.square(middle[: len(middle) // 480 * 480].reshape(-1, 480)), axis=1))
    np.testing.assert_allclose(loudness, np.sqrt(np.mean(np.square(sound))), rtol=0.15)


@pytest.mark.parametrize("piece", [1, 7, 480, 100_000])
@pytest.mark.parametrize("speed", [0.6, 1.7])
def test_pieces_of_any_length_make_the_same_sound(piece, speed):
    sound = voice(150, 0.2) * np.linspace(0, 1, 4800, dtype=np.float32)
    np.testing.assert_array_equal(changed(sound, speed, piece=piece), changed(sound, speed))


@speeds
def test_what_is_kept_does_not_grow(speed):
    tempo, kept, made = Tempo(RATE, speed), [], 0
    for _ in range(40):
        made += len(tempo.push(voice(140, 0.25)))
        kept.append(len(tempo._kept))
    assert max(kept) < 0.5 * RATE
    assert made > 9.5 * RATE / speed  # it comes as it is made, and not at the end


def test_the_usual_speed_changes_nothing():
    sound = voice(200)
    assert np.array_equal(changed(sound, 1.0), sound)


@pytest.mark.parametrize("samples", [0, 1, 100, 719])
@speeds
def test_sounds_shorter_than_a_segment(samples, speed):
    made = changed(voice(200)[:samples], speed)
    assert len(made) == round(samples / speed) and np.isfinite(made).all()


def test_silence_stays_silent_and_noise_stays_as_loud():
    assert not changed(np.zeros(RATE, np.float32), 1.5).any()
    noise = np.random.default_rng(0).normal(0, 0.1, RATE).astype(np.float32)
    assert changed(noise, 0.7).std() == pytest.approx(0.1, rel=0.15)


@pytest.mark.parametrize("speed", [0.8, 1.25])
def test_its_words_are_understood(speed):
    """Clips that are understood at their own speed are so at others; ffmpeg's atempo, too, loses one of fifteen."""
    with_words = [(clip["words"], read_audio(CLIPS / clip["file"])) for clip in SAID[:15]]
    model = voxrill.load(threads=1)

    def heard(sound):
        return model.transcribe(sound, sample_rate=SAMPLE_RATE).text

    understood = [(words, sound) for words, sound in with_words if heard(sound) == words]
    right = sum(heard(changed(sound, speed, SAMPLE_RATE)) == words for words, sound in understood)
    assert len(understood) >= 12 and right >= len(understood) - 2
