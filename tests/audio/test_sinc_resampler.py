"""Sound on its way to the model is resampled as the model's reference resamples it."""

import numpy as np
import pytest
import soundfile

from tests.places import ROOT
from tests.signals import noise
from voxrill.runtime.audio.audio_file import HIGHEST_RATE, read_audio
from voxrill.runtime.audio.sinc_resampler import SincResampler, resample
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.errors import AudioFileError, UsageError

TO = 16_000
GOLDEN = np.load(ROOT / "tests" / "golden" / "resampled.npz")
RATES = [int(name) for name in GOLDEN.files if name != "version"]


@pytest.mark.parametrize("rate", RATES)
def test_it_computes_what_torchaudio_computes(rate):
    """Sample by sample, the ends too."""
    ours = resample(noise(rate // 20 + 7, rate), rate, TO)
    np.testing.assert_allclose(ours, GOLDEN[str(rate)], rtol=0, atol=2e-6)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("rate", RATES)
def test_pieces_give_the_same_bits(rate):
    """Pieces of any length, empty ones too; afterwards it is ready for another sound."""
    sound = noise(rate // 4, 1)
    resampler = SincResampler(rate, TO)
    chance = np.random.default_rng(0)
    for _ in range(2):
        cuts = np.sort(chance.integers(0, sound.size + 1, 30))
        pieces = [resampler(piece) for piece in np.split(sound, cuts)]
        whole = np.concatenate([*pieces, resampler.rest()])
        np.testing.assert_array_equal(whole, resample(sound, rate, TO))


@pytest.mark.parametrize("samples", [0, 1, 2, 100])
@pytest.mark.parametrize("rate", [8_000, 44_100, 96_000])
def test_the_length_is_rounded_up(rate, samples):
    assert resample(noise(samples, 2), rate, TO).size == -(-samples * TO // rate)


def test_what_is_held_back_and_kept_is_small():
    """Not even a millisecond waits for later sound, and nothing grows."""
    resampler = SincResampler(44_100, TO)
    heard = made = 0
    for piece in np.split(noise(441 * 200, 3), 200):
        heard, made = heard + piece.size, made + resampler(piece).size
        assert heard * TO / 44_100 - made < TO / 1000
        assert resampler._heard.size < 60


def test_equal_rates_change_nothing():
    sound = noise(100, 4)
    assert resample(sound, TO, TO) is sound and SincResampler(TO, TO)(sound) is sound


def test_a_file_is_heard_as_the_reference_hears_it(tmp_path):
    soundfile.write(tmp_path / "noise.wav", noise(44_100 // 20 + 7, 44_100), 44_100, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "noise.wav"), GOLDEN["44100"], rtol=0, atol=2e-6)


def test_a_rate_that_no_sound_has_is_refused(tmp_path):
    """The resampler's weights grow with the rate: a forged header would take all memory."""
    soundfile.write(tmp_path / "forged.wav", noise(100, 5), 2**31 - 2, subtype="FLOAT")
    with pytest.raises(AudioFileError, match="2147483646 samples a second"):
        read_audio(tmp_path / "forged.wav")
    with pytest.raises(UsageError, match="makes no sense"):
        as_waveform(noise(100, 5), HIGHEST_RATE + 1)
    assert as_waveform(noise(1000, 5), HIGHEST_RATE).size == 21
