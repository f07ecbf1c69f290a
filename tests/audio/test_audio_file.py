"""Reading and resampling sound: each bad input has its one-line error, and the bytes count, not the header."""

import errno
import io

import numpy as np
import pytest
import soundfile

from tests.sound_files import assert_one_line_with_remedy, tone
from voxrill.runtime.audio import audio_file
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.sinc_resampler import resample
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.errors import AudioFileError, UsageError

# Reading


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
def test_any_rate_becomes_16_khz(tmp_path, rate):
    path = tmp_path / "tone.wav"
    soundfile.write(path, tone(rate=rate), rate, subtype="FLOAT")
    waveform = read_audio(path)
    assert waveform.dtype == np.float32 and waveform.ndim == 1
    assert abs(waveform.size - 8000) <= 1
    middle = slice(1000, 7000)  # the ends ring
    np.testing.assert_allclose(waveform[middle], tone()[middle], atol=1e-3)


@pytest.mark.parametrize(
    ("name", "tolerance"),
    [("a.wav", 1e-4), ("a.flac", 1e-4), ("a.ogg", 0.05), ("a.mp3", 0.05)],
)
def test_formats_round_trip(tmp_path, name, tolerance):
    soundfile.write(tmp_path / name, tone(), 16000)
    waveform = read_audio(str(tmp_path / name))
    assert waveform.size >= 8000
    np.testing.assert_allclose(waveform[1000:7000], tone()[1000:7000], atol=tolerance)


def test_stereo_is_averaged(tmp_path):
    left = tone()
    soundfile.write(tmp_path / "s.wav", np.stack([left, -left / 2], axis=1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "s.wav"), left / 4, atol=1e-6)


def test_an_open_file_is_read(tmp_path):
    data = io.BytesIO()
    soundfile.write(data, tone(), 16000, format="WAV")
    data.seek(0)
    np.testing.assert_allclose(read_audio(data), tone(), atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 44100])
@pytest.mark.parametrize("block", [100, 4096])
def test_reading_in_blocks_equals_the_whole(tmp_path, monkeypatch, rate, block):
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, rate).astype(np.float32)
    soundfile.write(tmp_path / "n.wav", sound, rate, subtype="FLOAT")
    monkeypatch.setattr(audio_file, "_BLOCK_FRAMES", block)
    np.testing.assert_allclose(read_audio(tmp_path / "n.wav"), resample(sound, rate, 16000), atol=1e-6)


@pytest.mark.parametrize("promised", [0, 10, 10**6])
def test_a_header_that_misstates_its_length_does_no_harm(promised):
    blocks = [tone(0.1), tone(0.2), tone(0.3)]
    collected = audio_file._collect(iter(blocks), promised, "x.wav")
    np.testing.assert_array_equal(collected, np.concatenate(blocks))


def test_a_sound_too_long_for_memory_is_an_error_of_ours(tmp_path, monkeypatch):
    soundfile.write(tmp_path / "a.wav", tone(), 16000)

    def refuse(*_args, **_kwargs):
        raise MemoryError

    monkeypatch.setattr(audio_file.np, "empty", refuse)
    with pytest.raises(AudioFileError, match="memory") as caught:
        read_audio(tmp_path / "a.wav")
    assert_one_line_with_remedy(caught.value)


def missing(folder):
    return folder / "missing.wav"


def directory(folder):
    return folder


def empty(folder):
    (folder / "empty.wav").touch()
    return folder / "empty.wav"


def text(folder):
    (folder / "text.wav").write_text("not a sound at all\n" * 50)
    return folder / "text.wav"


def random_bytes(folder):
    (folder / "random.wav").write_bytes(np.random.default_rng(0).bytes(4096))
    return folder / "random.wav"


def headerless(folder):
    (folder / "samples.raw").write_bytes(bytes(4096))
    return folder / "samples.raw"


def cut_header(folder):
    soundfile.write(folder / "whole.wav", tone(), 16000)
    (folder / "cut.wav").write_bytes((folder / "whole.wav").read_bytes()[:20])
    return folder / "cut.wav"


def no_samples(folder):
    soundfile.write(folder / "none.wav", np.empty(0, np.float32), 16000)
    return folder / "none.wav"


def nan(folder):
    soundfile.write(folder / "nan.wav", np.array([0.1, np.nan], np.float32), 16000, subtype="FLOAT")
    return folder / "nan.wav"


def infinite(folder):
    soundfile.write(folder / "inf.wav", np.array([0.1, np.inf], np.float32), 44100, subtype="FLOAT")
    return folder / "inf.wav"


def nul_in_name(_folder):
    return "a\0b.wav"


@pytest.mark.parametrize("read", [read_audio, as_waveform])
@pytest.mark.parametrize(
    ("make", "says"),
    [
        (missing, "no file"),
        (directory, "folder"),
        (empty, "empty"),
        (text, "not a sound file we can read"),
        (random_bytes, "not a sound file we can read"),
        (headerless, "not a sound file we can read"),
        (cut_header, "not a sound file we can read"),
        (no_samples, "no samples"),
        (nan, "NaN"),
        (infinite, "infinite"),
        (nul_in_name, "Cannot open"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_files_are_refused_with_a_remedy(tmp_path, read, make, says):
    with pytest.raises(AudioFileError, match=says) as caught:
        read(make(tmp_path))
    assert_one_line_with_remedy(caught.value)


def test_an_empty_open_file_is_refused():
    with pytest.raises(AudioFileError, match="the open file is empty"):
        read_audio(io.BytesIO())


@pytest.mark.parametrize("rate", [0, -1, 16000.5, "16000", True])
def test_senseless_rates_are_refused(tmp_path, rate):
    with pytest.raises(UsageError, match="sample rate"):
        read_audio(tmp_path / "a.wav", rate)
    with pytest.raises(UsageError, match="sample rate"):
        as_waveform((tone(), rate))


# Arrays


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.dtype(">i2")])
def test_integers_are_scaled_to_one(dtype):
    full = np.iinfo(dtype)
    samples = np.array([0, full.max, full.min, full.max // 2], dtype=dtype)
    np.testing.assert_allclose(as_waveform(samples, 16000), [0, 1, -1, 0.5], atol=1e-2 if dtype == np.int8 else 1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(dtype):
    waveform = as_waveform(tone().astype(dtype), 16000)
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(), atol=1e-3)


def test_a_pair_or_an_argument_names_the_rate():
    sound = tone(rate=44100)
    np.testing.assert_array_equal(as_waveform((sound, 44100)), as_waveform(sound, 44100))
    assert abs(as_waveform((sound, 44100)).size - 8000) <= 1


def test_channels_of_an_array_are_averaged():
    stereo = np.stack([tone(), np.zeros(8000, np.float32)], axis=1)
    np.testing.assert_allclose(as_waveform(stereo, 16000), tone() / 2, atol=1e-7)
    np.testing.assert_array_equal(as_waveform(tone()[:, None], 16000), tone())


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (np.empty(0, np.float32), "no samples"),
        (np.empty((5, 0), np.float32), "no samples"),
        (np.array([np.nan], np.float32), "NaN"),
        (np.array([1e300]), "infinite"),
        (np.zeros((2, 16000), np.float32), "Transpose"),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.array(0.5), "not understood"),
        (np.zeros(10, np.uint16), "uint16"),
        (np.zeros(10, np.int64), "int64"),
        (np.zeros(10, bool), "bool"),
        (np.array([12000.0, -9000.0]), "up to 12000"),
        (np.zeros(10, complex), "complex"),
        (["a", "list"], "list"),
        (None, "NoneType"),
        ((16000, np.zeros(10)), "int"),
        ((np.zeros(10),), "tuple"),
    ],
    ids=str,
)
def test_bad_arrays_are_refused_with_a_remedy(audio, says):
    with pytest.raises(AudioFileError, match=says) as caught:
        as_waveform(audio, 16000 if isinstance(audio, np.ndarray) else None)
    assert_one_line_with_remedy(caught.value)


def test_a_rate_beside_a_source_that_has_its_own_is_refused():
    for audio in ("a.wav", (tone(), 16000)):
        with pytest.raises(UsageError, match="own sample rate"):
            as_waveform(audio, 16000)


class Failing(io.BytesIO):
    """A file on a disk that gives an error after so many bytes."""

    def __init__(self, content, readable):
        super().__init__(content)
        self.readable_bytes = readable
        self.name = "worn.wav"

    def read(self, size=-1):
        if self.tell() + (size if size >= 0 else len(self.getvalue())) > self.readable_bytes:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(size)


@pytest.mark.parametrize("readable", [0, 4096, 200_000], ids=["at once", "after the header", "in the middle"])
def test_an_error_of_the_disk_is_one_of_the_sound(readable):
    content = io.BytesIO()
    soundfile.write(content, np.zeros(160_000, np.int16), 16_000, format="WAV")
    with pytest.raises(AudioFileError, match=r"worn\.wav cannot be read: Input/output error"):
        read_audio(Failing(content.getvalue(), readable))


def test_an_error_of_the_disk_while_a_sound_is_hashed():
    content = io.BytesIO()
    soundfile.write(content, np.zeros(160_000, np.int16), 16_000, format="WAV")
    file = Failing(content.getvalue(), 1 << 30)
    with audio_file.open_sound(file) as sound:
        file.readable_bytes = 100
        with pytest.raises(AudioFileError, match=r"worn\.wav cannot be read"):
            sound.sha256()
