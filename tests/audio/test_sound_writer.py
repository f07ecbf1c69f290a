"""Writing sound: every format, and no file is half written."""

import errno
import io
import os
import stat
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import soundfile

from tests.sound_files import assert_one_line_with_remedy, tone
from voxrill.runtime.audio import sound_writer
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.sound_writer import SoundWriter, made_by_us, write_sound
from voxrill.runtime.errors import AudioFileError, UsageError


def test_what_is_written_is_read_back(tmp_path):
    path = tmp_path / "a.wav"
    write_sound(path, tone(), 16000)
    info = soundfile.info(path)
    assert (info.samplerate, info.channels, info.subtype, info.frames) == (16000, 1, "PCM_16", 8000)
    np.testing.assert_allclose(read_audio(path), tone(), atol=1e-4)


def test_samples_and_header_are_those_of_libsndfile_but_rounded(tmp_path):
    write_sound(tmp_path / "ours.wav", tone(), 24000)
    soundfile.write(tmp_path / "theirs.wav", tone(), 24000)
    ours, theirs = ((tmp_path / name).read_bytes() for name in ("ours.wav", "theirs.wav"))
    assert ours[:4] + ours[8:44] == theirs[:4] + theirs[8:44]
    assert int.from_bytes(ours[4:8], "little") == len(ours) - 8
    samples = np.frombuffer(ours[44 : len(theirs)], "<i2")
    np.testing.assert_array_equal(samples, np.rint(tone() * np.float32(32767)))
    assert ours[len(theirs) :] == b"LIST\x14\0\0\0INFOISFT\x08\0\0\0Voxrill\0"


def test_loud_samples_are_clipped(tmp_path):
    write_sound(tmp_path / "a.wav", np.array([2.0, -2.0], np.float32), 16000)
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav"), [1.0, -1.0], atol=1e-4)


def test_streaming_equals_writing_at_once(tmp_path):
    sound = tone()
    write_sound(tmp_path / "whole.wav", sound, 24000)
    with SoundWriter(tmp_path / "parts.wav", 24000) as writer:
        for part in np.array_split(sound, 7):
            writer.write(part)
    assert writer.samples_written == sound.size
    assert (tmp_path / "parts.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts.wav", "whole.wav"]


def test_nothing_shows_under_the_name_until_it_is_whole(tmp_path):
    with SoundWriter(tmp_path / "a.wav", 16000) as writer:
        writer.write(tone())
        assert not (tmp_path / "a.wav").exists()
    assert (tmp_path / "a.wav").exists()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_error_within_leaves_nothing_and_keeps_the_old_file(tmp_path, error):
    path = tmp_path / "a.wav"
    path.write_bytes(b"the old one")
    with pytest.raises(error), SoundWriter(path, 16000) as writer:
        writer.write(tone())
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

    monkeypatch.setattr(sound_writer, "open", open_on_full_disk, raising=False)
    with pytest.raises(AudioFileError, match="No space left") as caught:
        write_sound(tmp_path / "a.wav", tone(0.1), 16000)
    assert_one_line_with_remedy(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_failed_rename_leaves_nothing(tmp_path, monkeypatch):
    def refuse(*_args):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(AudioFileError, match="Cannot write"):
        write_sound(tmp_path / "a.wav", tone(), 16000)
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_to_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "no" / "such" / "a.wav"):
        with pytest.raises(AudioFileError) as caught:
            write_sound(path, tone(), 16000)
        assert_one_line_with_remedy(caught.value)


@pytest.mark.parametrize(
    "waveform",
    [np.array([np.nan], np.float32), np.zeros((4, 2), np.float32)],
    ids=["nan", "stereo"],
)
def test_samples_that_cannot_be_written_are_refused(tmp_path, waveform):
    with pytest.raises(AudioFileError):
        write_sound(tmp_path / "a.wav", waveform, 16000)
    assert list(tmp_path.iterdir()) == []


def test_a_file_past_4_gb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(sound_writer, "_MAX_WAV_BYTES", 1000)
    with pytest.raises(AudioFileError, match="4 GB"):
        write_sound(tmp_path / "a.wav", tone(), 16000)
    assert list(tmp_path.iterdir()) == []


def test_writing_outside_the_block_is_refused(tmp_path):
    with pytest.raises(UsageError, match="not open"):
        SoundWriter(tmp_path / "a.wav", 16000).write(tone())


# Other formats


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "opus", "mp3"])
def test_every_format_is_what_it_is_called_and_names_its_maker(tmp_path, suffix):
    path = tmp_path / f"a.{suffix.upper()}"
    with SoundWriter(path, 24000) as writer:
        for part in np.array_split(tone(rate=24000), 7):
            writer.write(part)
        assert not path.exists()
    kind = {"opus": "OGG"}.get(suffix, suffix.upper())
    assert soundfile.info(path).format == kind
    assert soundfile.info(path).frames == 12000
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
    assert made_by_us(path)
    heard = read_audio(path)
    assert abs(len(heard) - 8000) <= 1
    assert np.corrcoef(heard[1000:7000], tone()[1000:7000])[0, 1] > 0.99


def test_a_recording_of_somebody_else_is_not_ours(tmp_path):
    for suffix in ("wav", "flac", "ogg", "mp3"):
        soundfile.write(tmp_path / f"a.{suffix}", tone(), 16000)
        assert not made_by_us(tmp_path / f"a.{suffix}")
    (tmp_path / "notes.txt").write_text("Voxrill")
    assert not made_by_us(tmp_path / "notes.txt")
    assert not made_by_us(tmp_path / "missing.wav")


@pytest.mark.parametrize("name", ["a.m4a", "a.docx", "a.aiff", "a.wave"])
def test_a_format_that_cannot_be_written_is_refused_by_name(tmp_path, name):
    with pytest.raises(AudioFileError, match=name[1:]) as caught:
        SoundWriter(tmp_path / name, 16000)
    assert ".wav, .flac, .ogg, .opus, .mp3" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_a_format_cannot_hold_is_refused(tmp_path):
    with pytest.raises(AudioFileError, match="OPUS cannot hold 22050 Hz"), SoundWriter(tmp_path / "a.opus", 22050):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["flac", "ogg", "mp3"])
def test_a_full_disk_leaves_nothing_of_any_format(tmp_path, monkeypatch, suffix, capfd):
    """libsndfile's callbacks meet the error: it must not be swallowed, nor printed as a traceback."""
    monkeypatch.setattr(sound_writer, "open", lambda path, mode: RoomFor(1000, path), raising=False)
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 200_000).astype(np.float32)
    with pytest.raises(AudioFileError, match="No space left"):
        write_sound(tmp_path / f"a.{suffix}", noise, 16000)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def RoomFor(room, path):
    file = FullDisk(path, "x+")
    file.room = room
    return file


def test_after_an_error_nothing_more_is_written_even_if_the_caller_goes_on(tmp_path):
    with SoundWriter(tmp_path / "a.wav", 16000) as writer:
        writer.write(tone())
        with pytest.raises(AudioFileError, match="NaN"):
            writer.write(np.array([np.nan], np.float32))
        writer._encoder.write = None  # not a disk, but it fails
        with pytest.raises(TypeError):
            writer.write(tone())
        with pytest.raises(UsageError, match="not open"):
            writer.write(tone())
    assert list(tmp_path.iterdir()) == []


# What lies at the name


def test_a_symbolic_link_stays_one_and_its_file_keeps_its_permissions(tmp_path):
    (tmp_path / "real.wav").write_bytes(b"old")
    (tmp_path / "real.wav").chmod(0o600)
    (tmp_path / "link.wav").symlink_to(tmp_path / "real.wav")
    write_sound(tmp_path / "link.wav", tone(), 16000)
    assert (tmp_path / "link.wav").is_symlink()
    assert len(read_audio(tmp_path / "real.wav")) == 8000
    assert stat.S_IMODE((tmp_path / "real.wav").stat().st_mode) == 0o600


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_is_written_to_and_stays(tmp_path):
    """Its header has no length, and nothing follows the samples."""
    pipe = tmp_path / "pipe.wav"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as other:
        read = other.submit(pipe.read_bytes)
        write_sound(pipe, tone(), 16000)
        data = read.result(timeout=30)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert data[40:44] == b"\xff" * 4 and len(data) == 44 + 2 * 8000
    np.testing.assert_allclose(read_audio(io.BytesIO(data)), tone(), atol=1e-4)


def test_a_device_is_not_replaced(tmp_path):
    before = os.stat(os.devnull)
    write_sound(os.devnull, tone(), 16000)
    assert os.stat(os.devnull).st_ino == before.st_ino and os.stat(os.devnull).st_rdev == before.st_rdev
