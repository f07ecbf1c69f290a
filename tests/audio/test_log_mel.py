"""The log-mel front end by its properties; the reference's numbers are compared where the goldens are."""

import msgspec
import numpy as np
import pytest

from tests.places import ROOT
from voxrill.runtime.audio.log_mel import LogMel, LogMelConfig, MelStream, mel_filterbank
from voxrill.runtime.errors import AudioFileError


@pytest.fixture(scope="module")
def log_mel():
    return LogMel()


def noise(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def direct_log_mel(waveform):
    """The definition written out frame by frame in float64, the window centred within n_fft."""
    waveform = waveform.astype(np.float64)
    emphasised = np.append(waveform[:1], waveform[1:] - 0.97 * waveform[:-1])
    padded = np.pad(emphasised, 256)
    window = np.pad(0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 399), 56)
    frames = [padded[start : start + 512] * window for start in range(0, len(waveform) // 160 * 160, 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    mel = np.log(power @ mel_filterbank(16000, 512, 128).T + 2.0**-24)
    normal = (mel - mel.mean(axis=0)) / (mel.std(axis=0, ddof=1) + 1e-5)
    return np.vstack([normal, np.zeros(128)])


@pytest.mark.parametrize("samples", [480, 16000, 16161, 40000])
def test_equals_the_definition(log_mel, samples):
    waveform = noise(samples)
    np.testing.assert_allclose(log_mel(waveform), direct_log_mel(waveform), atol=3e-4)


def test_blocks_leave_no_seam(log_mel, monkeypatch):
    waveform = noise(16000 * 3)
    whole = log_mel(waveform)
    monkeypatch.setattr("voxrill.runtime.audio.log_mel._BLOCK_FRAMES", 7)
    np.testing.assert_allclose(log_mel(waveform), whole, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 2, 159, 160, 161, 319, 320, 321, 399, 400, 401, 479, 480, 511, 512, 513, 800])
def test_every_edge_length(log_mel, samples):
    mel = log_mel(noise(samples))
    assert mel.shape == (samples // 160 + 1, 128)
    assert mel.dtype == np.float32 and mel.flags.c_contiguous
    assert np.isfinite(mel).all()
    assert not mel[-1].any()
    assert mel.any() == (samples >= 320)  # one frame has no deviation


def test_each_band_has_mean_zero_and_deviation_one(log_mel):
    mel = log_mel(noise(32000))[:-1]
    np.testing.assert_allclose(mel.mean(axis=0), 0.0, atol=1e-5)
    np.testing.assert_allclose(mel.std(axis=0, ddof=1), 1.0, atol=1e-4)


def test_loudness_is_normalised_away(log_mel):
    waveform = noise(16000)
    assert np.abs(log_mel(waveform) - log_mel(waveform * 4)).mean() < 1e-3  # all but the log's guard


def test_digital_silence_is_zero(log_mel):
    assert not log_mel(np.zeros(16000, np.float32)).any()


def test_the_input_is_left_alone_and_calls_share_nothing(log_mel):
    waveform = noise(8000)
    before = waveform.copy()
    first = log_mel(waveform)
    np.testing.assert_array_equal(waveform, before)
    log_mel(noise(8000, seed=1))
    np.testing.assert_array_equal(log_mel(waveform), first)


@pytest.mark.parametrize(
    ("waveform", "says"),
    [
        (np.empty(0, np.float32), "no samples"),
        (np.array([0.0, np.nan], np.float32), "NaN"),
        (np.array([0.0, -np.inf], np.float32), "infinite"),
        (np.zeros((100, 2), np.float32), "one dimension"),
    ],
    ids=["empty", "nan", "inf", "stereo"],
)
def test_bad_waveforms_are_refused_with_a_remedy(log_mel, waveform, says):
    with pytest.raises(AudioFileError, match=says) as caught:
        log_mel(waveform)
    assert caught.value.remedy and "\n" not in str(caught.value)


def test_filters_have_unit_area_and_do_not_overlap_beyond_neighbours():
    filters = mel_filterbank(16000, 512, 40)
    assert filters.shape == (40, 257) and filters.dtype == np.float32
    assert (filters >= 0).all()
    wide = filters[20:]  # narrow ones hold too few bins for their sum to be an area
    np.testing.assert_allclose(wide.sum(axis=1) * 16000 / 512, 1.0, atol=2e-2)
    assert not (filters[:-2] * filters[2:]).any()


def test_filters_are_slaney():
    # librosa 0.11: filters.mel(sr=16000, n_fft=512, n_mels=128, norm="slaney")
    filters = mel_filterbank(16000, 512, 128)
    assert filters[0, 1] == pytest.approx(0.028377, abs=1e-6)
    assert filters[-1].argmax() == 250


def test_config_round_trips_as_json():
    config = LogMelConfig(features=80)
    assert msgspec.json.decode(msgspec.json.encode(config), type=LogMelConfig) == config
    assert (config.window_samples, config.hop_samples, config.frames(16000)) == (400, 160, 101)


@pytest.mark.parametrize(
    "fields",
    [
        {"window": "hamming"},
        {"normalize": "all_features"},
        {"sample_rate": 0},
        {"n_fft": 256},
        {"window_stride": 0.0},
        {"colour": 1},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_config_refuses_what_it_cannot_compute(fields):
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(fields, LogMelConfig)


def affine(**more):
    return LogMelConfig(
        n_fft=400, preemphasis=0.0, log_guard=1e-12, normalize="affine", offset=4.0, divisor=4.0, **more
    )


def test_affine_features_are_llama_cpps():
    golden = np.load(ROOT / "tests" / "golden" / "lfm3" / "expected.npz")
    sound = golden["pcm16"].astype(np.float32) / 32768
    mel = LogMel(affine(features=16))(sound)
    assert mel.shape == golden["mel"].T.shape == (affine().frames(len(sound)), 16)
    assert np.abs(mel - golden["mel"].T).max() < 1e-4


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 559, 560, 561, 5000])
@pytest.mark.parametrize("piece", [1, 160, 777])
def test_affine_features_of_pieces_are_those_of_the_whole(samples, piece):
    if piece == 1 and samples > 600:
        return
    sound = np.random.default_rng(samples).standard_normal(samples).astype(np.float32)
    stream = MelStream(affine())
    pieces = [stream.push(sound[start : start + piece]) for start in range(0, samples, piece)]
    mel = np.concatenate([*pieces, stream.flush()])
    assert len(mel) == affine().frames(samples)
    assert np.array_equal(mel, LogMel(affine())(sound))
    padded = np.concatenate([sound, np.zeros(400 + 160 * (len(mel) - 1) - samples, np.float32)])
    assert np.array_equal(mel, LogMel(affine())(padded))


def test_affine_features_need_their_numbers():
    with pytest.raises(ValueError, match="offset and divisor belong to normalize 'affine'"):
        LogMelConfig(normalize="affine", preemphasis=0.0)
    with pytest.raises(ValueError, match="knows no preemphasis"):
        LogMelConfig(normalize="affine", offset=4.0, divisor=4.0)
