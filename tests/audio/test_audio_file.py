"""Reading, resampling and writing sound: each bad input has its one-line error, no file is half written."""

import errno
import io
import os

import numpy as np
import pytest
import soundfile

from voxrill.runtime.audio import audio_file
from voxrill.runtime.audio.audio_file import WavWriter, as_waveform, read_audio, resample, write_wav
from voxrill.runtime.errors import AudioFileError, UsageError


def tone(seconds=0.5, rate=16000, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def assert_one_line_with_remedy(error):
    assert error.remedy
    assert "\n" not in str(error)


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


@pytest.mark.parametrize("promised", [0, 10, 2**63 - 1])
def test_a_header_that_misstates_its_length_does_no_harm(promised):
    blocks = [tone(0.1), tone(0.2), tone(0.3)]
    collected = audio_file._collect(iter(blocks), 16000, 16000, promised, "x.wav")
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
    with pytest.raises(AudioFileError, match="not a sound file"):
        read_audio(io.BytesIO())


def test_a_truncated_file_gives_what_is_there_or_an_error(tmp_path):
    for name in ("a.wav", "a.flac", "a.ogg", "a.mp3"):
        soundfile.write(tmp_path / name, tone(2.0), 16000)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        try:
            assert 0 < read_audio(tmp_path / name).size < 2.1 * 16000
        except AudioFileError as error:
            assert_one_line_with_remedy(error)


@pytest.mark.parametrize("rate", [0, -1, 16000.5, "16000", True])
def test_senseless_rates_are_refused(tmp_path, rate):
    with pytest.raises(UsageError, match="sample rate"):
        read_audio(tmp_path / "a.wav", rate)
    with pytest.raises(UsageError, match="sample rate"):
        as_waveform((tone(), rate))


# Arrays


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_integers_are_scaled_to_one(dtype):
    full = np.iinfo(dtype)
    samples = np.array([0, full.max, full.min, full.max // 2], dtype=dtype)
    np.testing.assert_allclose(as_waveform(samples), [0, 1, -1, 0.5], atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_are_taken_as_they_are(dtype):
    waveform = as_waveform(tone().astype(dtype))
    assert waveform.dtype == np.float32
    np.testing.assert_allclose(waveform, tone(), atol=1e-3)


def test_a_pair_or_an_argument_names_the_rate():
    sound = tone(rate=44100)
    np.testing.assert_array_equal(as_waveform((sound, 44100)), as_waveform(sound, 44100))
    assert abs(as_waveform((sound, 44100)).size - 8000) <= 1


def test_channels_of_an_array_are_averaged():
    stereo = np.stack([tone(), np.zeros(8000, np.float32)], axis=1)
    np.testing.assert_allclose(as_waveform(stereo), tone() / 2, atol=1e-7)
    np.testing.assert_array_equal(as_waveform(tone()[:, None]), tone())


@pytest.mark.parametrize(
    ("audio", "says"),
    [
        (np.empty(0, np.float32), "no samples"),
        (np.empty((5, 0), np.float32), "no samples"),
        (np.array([np.nan], np.float32), "NaN"),
        (np.array([1e300]), "infinite"),
        (np.zeros((2, 16000), np.float32), "Transpose"),
        (np.zeros((2, 2, 2), np.float32), "shape"),
        (np.float32(0.5) * np.ones(()), "not understood"),
        (np.zeros(10, np.uint8), "uint8"),
        (np.zeros(10, complex), "complex"),
        (["a", "list"], "list"),
        (None, "NoneType"),
        ((16000, np.zeros(10)), "int"),
        ((np.zeros(10),), "tuple"),
        ((np.zeros(1, np.float32), 192000), "shorter"),
    ],
    ids=str,
)
def test_bad_arrays_are_refused_with_a_remedy(audio, says):
    with pytest.raises(AudioFileError, match=says) as caught:
        as_waveform(audio)
    assert_one_line_with_remedy(caught.value)


def test_a_rate_beside_a_source_that_has_its_own_is_refused():
    for audio in ("a.wav", (tone(), 16000)):
        with pytest.raises(UsageError, match="own sample rate"):
            as_waveform(audio, 16000)


def test_resample_at_the_same_rate_is_the_same_array():
    sound = tone()
    assert resample(sound, 16000, 16000) is sound


# Writing


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "a.wav"
    write_wav(path, tone(), 16000)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 8000)
    np.testing.assert_allclose(read_audio(path), tone(), atol=1e-4)


def test_the_header_is_that_of_libsndfile_and_samples_are_rounded(tmp_path):
    write_wav(tmp_path / "ours.wav", tone(), 24000)
    soundfile.write(tmp_path / "theirs.wav", tone(), 24000)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("ours.wav", "theirs.wav"))
    assert ours[:44] == theirs[:44] and len(ours) == len(theirs)
    np.testing.assert_array_equal(np.frombuffer(ours[44:], "<i2"), np.rint(tone() * np.float32(32767)))


def test_loud_samples_are_clipped(tmp_path):
    write_wav(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), [1.0, -1.0], atol=1e-4)


def test_streaming_equals_writing_at_once(tmp_path):
    sound = tone()
    write_wav(tmp_path / "whole.wav", sound, 24000)
    with WavWriter(tmp_path / "parts.wav", 24000) as wav:
        for part in np.array_split(sound, 7):
            wav.write(part)
    assert wav.samples_written == sound.size
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.wav", "whole.wav"]


def test_nothing_shows_under_the_name_until_it_is_whole(tmp_path):
    with WavWriter(tmp_path / "a.wav", 16000) as wav:
        wav.write(tone())
        assert not (tmp_path / "a.wav").exists()
    assert (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_within_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.wav"
    path.write_bytes(b"the old one")
    with pytest.raises(error), WavWriter(path, 16000) as wav:
        wav.write(tone())
        raise error
    assert [p.name for p in tmp_path.iterdir()] == ["a.wav"]
    assert path.read_bytes() == b"the old one"


class FullDisk(io.FileIO):
    """A file on a disk with room for so many bytes."""

    room = 0

    def write(self, data):
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(data)


@pytest.mark.parametrize("room", [0, 44, 1000], ids=["header", "first samples", "later samples"])
@pytest.mark.parametrize("buffered", [False, True])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch, room, buffered):
    def open_on_full_disk(path, mode):
        raw = FullDisk(path, mode.replace("b", ""))
        raw.room = room
        return io.BufferedWriter(raw) if buffered else raw

    monkeypatch.setattr(audio_file, "open", open_on_full_disk, raising=False)
    with pytest.raises(AudioFileError, match="No space left") as caught:
        write_wav(tmp_path / "a.wav", tone(0.1), 16000)
    assert_one_line_with_remedy(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(AudioFileError, match="Cannot write"):
        write_wav(tmp_path / "a.wav", tone(), 16000)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "such" / "a.wav"):
        with pytest.raises(AudioFileError) as caught:
            write_wav(path, tone(), 16000)
        assert_one_line_with_remedy(caught.value)


@pytest.mark.parametrize(
    "waveform",
    [np.array([np.nan], np.float32), np.zeros((4, 2), np.float32)],
    ids=["nan", "stereo"],
)
def test_samples_that_cannot_be_written_are_refused(tmp_path, waveform):
    with pytest.raises(AudioFileError):
        write_wav(tmp_path / "a.wav", waveform, 16000)
    assert list(tmp_path.iterdir()) == []


def test_a_file_past_4_gb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio_file, "_MAX_WAV_BYTES", 1000)
    with pytest.raises(AudioFileError, match="4 GB"):
        write_wav(tmp_path / "a.wav", tone(), 16000)
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_the_block_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not open"):
        WavWriter(tmp_path / "a.wav", 16000).write(tone())
