"""Every kind of sound that can be read; headers that lie about the length; pipes; channels that cancel each other."""

import hashlib
import io
import os
import threading
import warnings

import numpy as np
import pytest
import soundfile

from tests.sound_files import assert_one_line_with_remedy, by_ffmpeg, encoded, needs_ffmpeg, tone, wav_bytes
from voxrill.runtime.audio import audio_file, ffmpeg
from voxrill.runtime.audio.audio_file import open_sound, read_audio, read_pieces
from voxrill.runtime.audio.pcm import PcmJoiner, pcm16
from voxrill.runtime.audio.sound_kinds import KINDS, SOUND_FILES, kind_of
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.errors import AudioFileError, VoxrillWarning

BY_LIBRARY = {
    "WAV": ("WAV", None),
    "RIFX": ("WAV", "BIG"),
    "RF64": ("RF64", None),
    "W64": ("W64", None),
    "AIFF": ("AIFF", None),
    "AU": ("AU", None),
    "little AU": ("AU", "LITTLE"),
    "CAF": ("CAF", None),
    "NIST": ("NIST", None),
    "FLAC": ("FLAC", None),
}


def read(data):
    return read_audio(io.BytesIO(data))


def notices(data):
    with open_sound(io.BytesIO(data)) as sound:
        samples = sound.waveform()
    return len(samples), sound.notices


# Kinds


@pytest.mark.parametrize(("form", "endian"), BY_LIBRARY.values(), ids=BY_LIBRARY)
def test_kinds_without_loss(form, endian):
    data = encoded(tone(), form, "PCM_16", endian=endian)
    np.testing.assert_allclose(read(data), tone(), atol=1e-4)
    assert notices(data) == (8000, [])


@pytest.mark.parametrize(
    ("form", "subtype", "rate"),
    [
        ("OGG", "VORBIS", 16000),
        ("OGG", "OPUS", 16000),
        ("MP3", "MPEG_LAYER_III", 44100),
        ("MP3", "MPEG_LAYER_III", 22050),
        ("MP3", "MPEG_LAYER_III", 8000),  # MPEG 2.5
    ],
)
def test_kinds_with_loss(form, subtype, rate):
    data = encoded(tone(rate=rate), form, subtype, rate=rate)
    heard = read(data)
    assert np.corrcoef(heard[1000:7000], tone()[1000:7000])[0, 1] > 0.99
    assert notices(data)[1] == []


@pytest.mark.parametrize("tag", [b"ID3\x04\x00\x00\x00\x00\x01\x00" + bytes(128), b""], ids=["tag", "no tag"])
@pytest.mark.parametrize("form", ["MP3", "FLAC"])
def test_a_tag_before_the_sound_is_passed_over(form, tag):
    assert len(read(tag + encoded(tone(), form))) == 8000


def test_a_kind_is_known_by_its_bytes_whatever_the_name(tmp_path):
    (tmp_path / "music.txt").write_bytes(encoded(tone(), "FLAC"))
    assert len(read_audio(tmp_path / "music.txt")) == 8000


@pytest.mark.parametrize(
    "head",
    [
        "Ein Text".encode("utf-16"),
        b"#EXTM3U\nhttp://example.org/a.ts\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"RIFF\x00\x00\x00\x00AVI LIST",
        b"FORM\x00\x00\x00\x008SVXVHDR",
        b"\x00\x00\x00\x18moov\x00\x00\x00\x00",
        b"",
        b"\xff",
    ],
)
def test_what_is_no_kind_of_ours_is_not_handed_to_any_decoder(head):
    assert kind_of(head) is None


def test_every_kind_has_a_reader_and_names():
    assert all(kind.by_library or kind.demuxer for kind in KINDS)
    assert len(set(SOUND_FILES)) == len(SOUND_FILES)
    assert {".wav", ".flac", ".ogg", ".mp3", ".opus", ".m4a", ".webm", ".aiff", ".caf", ".w64"} <= set(SOUND_FILES)


# Headers that lie

SIZE = 2 * 32_000  # bytes of the two seconds below


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFF0000, 0xFFFFFFFF - 36])
def test_a_header_without_a_length_promises_nothing(size):
    assert notices(wav_bytes(tone(2), size)) == (32_000, [])


@pytest.mark.parametrize("size", [SIZE + 1, SIZE + 2, SIZE + 100])
def test_a_size_that_is_too_large_by_a_few_bytes(size):
    found, (notice,) = notices(wav_bytes(tone(2), size))
    assert found == 32_000 and "cut off" in notice


@pytest.mark.parametrize("size", [SIZE - 2, SIZE - 8, SIZE - 9, SIZE - 100, SIZE // 2, 4])
def test_a_size_that_is_too_small_loses_nothing(size):
    found, (notice,) = notices(wav_bytes(tone(2), size))
    assert found == 32_000 and "more sound than its header says" in notice


@pytest.mark.parametrize(
    "after", [b"LIST\x04\x00\x00\x00INFO", b"bext\x03\x00\x00\x00abc\x00", b"ID3\x03" + bytes(300), b"TAG" + bytes(125)]
)
def test_what_follows_the_samples_is_not_heard(after):
    assert notices(wav_bytes(tone(2), after=after)) == (32_000, [])


def test_an_odd_chunk_without_its_padding():
    data = bytearray(wav_bytes(tone(2)))
    odd = b"junk\x03\x00\x00\x00abc\x00"
    assert notices(bytes(data[:36] + odd + data[36:])) == (32_000, [])


def test_a_million_empty_chunks_are_not_walked_through():
    data = wav_bytes(tone(0.1))[:12] + b"junk\x00\x00\x00\x00" * 1_000_000
    reads = []
    file = io.BytesIO(data)
    file.seek = lambda *where: reads.append(where) or io.BytesIO.seek(file, *where)
    with pytest.raises(AudioFileError):
        read_audio(file)
    assert len(reads) < 100_000


COUNTED = {name: how for name, how in BY_LIBRARY.items() if name != "NIST"}  # its header is not looked at


@pytest.mark.parametrize(("form", "endian"), COUNTED.values(), ids=COUNTED)
def test_a_file_cut_in_half_gives_its_half_and_says_so(form, endian):
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000).astype(np.float32)
    data = encoded(noise, form, "PCM_16", endian=endian)
    with pytest.warns(VoxrillWarning, match=r"cut off: 1\.\d+ s of the 2\.000 s"):
        heard = read(data[: len(data) // 2])
    assert 6000 < len(heard) < 16_000
    np.testing.assert_allclose(heard, noise[: len(heard)], atol=1e-4)


def test_half_of_an_mp3_and_of_an_ogg_says_so():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 160_000).astype(np.float32)
    for form, says in (("MP3", "cut off"), ("OGG", "no end")):
        data = encoded(noise, form)
        with pytest.warns(VoxrillWarning, match=says):
            assert 40_000 < len(read(data[: len(data) // 2])) < 120_000


def test_damage_on_the_way_is_told_and_what_was_before_is_kept():
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    data = bytearray(encoded(noise, "FLAC"))
    middle = len(data) // 2
    data[middle : middle + 20_000] = bytes(20_000)
    with open_sound(io.BytesIO(bytes(data))) as sound:
        heard = sound.waveform()
    assert sound.damaged and 10_000 < len(heard) < 40_000
    np.testing.assert_allclose(heard, noise[: len(heard)], atol=1e-4)
    assert len(sound.notices) == 1


def test_a_disk_that_fails_on_the_way_is_an_error_and_no_traceback(capfd):
    file = io.BytesIO(wav_bytes(tone(10)))
    whole = file.read

    def failing(size=-1):
        if file.tell() > 100_000:
            raise OSError(5, "Input/output error")
        return whole(size)

    file.read = failing
    with pytest.raises(AudioFileError, match="Input/output error"):
        read_audio(file)
    assert capfd.readouterr().err == ""


# Pipes, and files that are open


def test_an_open_file_is_left_open_and_hashed_as_it_is(tmp_path):
    (tmp_path / "a.wav").write_bytes(wav_bytes(tone(2), 0))
    with open(tmp_path / "a.wav", "rb") as file:
        with open_sound(file) as sound:
            pieces = sound.pieces()
            first = next(pieces)
            assert sound.sha256() == hashlib.sha256((tmp_path / "a.wav").read_bytes()).hexdigest()
            assert len(np.concatenate([first, *pieces])) == 32_000
        assert not file.closed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("in_memory", [100, 1 << 20], ids=["on disk", "in memory"])
def test_a_named_pipe_is_opened_once(tmp_path, monkeypatch, in_memory):
    monkeypatch.setattr(audio_file, "_IN_MEMORY", in_memory)
    os.mkfifo(tmp_path / "pipe")
    data = encoded(tone(2), "FLAC")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=[data])
    writer.start()
    with open_sound(tmp_path / "pipe") as sound:
        assert sound.seconds == 2 and sound.sha256() == hashlib.sha256(data).hexdigest()
        assert len(sound.waveform()) == 32_000
    writer.join()


def test_a_pipe_that_never_ends_is_refused_by_its_beginning():
    class Endless(io.RawIOBase):
        def readable(self):
            return True

        def readinto(self, buffer):
            buffer[:] = bytes(len(buffer))
            return len(buffer)

    with pytest.raises(AudioFileError, match="not a sound file"):
        read_audio(io.BufferedReader(Endless()))


def test_a_device_is_no_sound_file():
    with pytest.raises(AudioFileError, match="is a device"):
        read_audio(os.devnull)


# Channels


@pytest.mark.parametrize("scale", [-1.0, -0.9])
def test_channels_that_cancel_each_other_are_heard_as_a_person_does(tmp_path, scale):
    """The louder one: the mean would be silence, or nearly."""
    stereo = np.stack([scale * tone(3), tone(3)], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 16000, subtype="FLOAT")
    with pytest.warns(VoxrillWarning, match="channels cancel each other"):
        heard = read_audio(tmp_path / "a.wav")
    np.testing.assert_allclose(np.abs(heard), np.abs(tone(3)), atol=1e-6)
    with pytest.warns(VoxrillWarning, match="channels cancel each other"):
        np.testing.assert_allclose(np.abs(as_waveform(stereo, 16000)), np.abs(tone(3)), atol=1e-6)


@pytest.mark.parametrize("right", [np.zeros(16_000), tone(1), tone(1, hz=700.0), -0.5 * tone(1)])
def test_other_channels_are_averaged_without_a_word(right):
    stereo = np.stack([tone(1), right.astype(np.float32)], axis=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_allclose(as_waveform(stereo, 16000), stereo.mean(axis=1), atol=1e-7)


def test_noise_below_hearing_may_cancel():
    noise = 1e-4 * np.random.default_rng(0).standard_normal(16_000).astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.abs(as_waveform(np.stack([noise, -noise], axis=1), 16000)).max() == 0


# Chunks of samples


@pytest.mark.parametrize("frame_bytes", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("seed", range(3))
def test_joined_chunks_are_the_stream_and_never_end_within_a_sample(frame_bytes, seed):
    random = np.random.default_rng(seed)
    stream = random.bytes(1000 * frame_bytes)
    cuts = np.sort(random.integers(0, len(stream), 300))
    joiner, joined = PcmJoiner(frame_bytes), b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        part = joiner(stream[start:end])
        assert len(part) % frame_bytes == 0
        joined += part
        assert len(joined) + joiner.waiting == end
    assert joined == stream and joiner.waiting == 0


def test_the_rest_of_a_stream_is_not_the_beginning_of_another():
    joiner = PcmJoiner()
    assert joiner(b"abc") == b"ab" and joiner.waiting == 1
    joiner.reset()
    assert joiner(pcm16(tone(0.001)).tobytes()) == pcm16(tone(0.001)).tobytes()


# What ffmpeg decodes

M4A = ("-c:a", "aac")
BY_FFMPEG = {
    "a.m4a": M4A,
    "a.mp4": (*M4A, "-movflags", "+faststart"),
    "a.3gp": M4A,
    "a.aac": M4A,
    "a.webm": ("-c:a", "libopus"),
    "a.mka": ("-c:a", "libopus"),
    "a.caf": ("-c:a", "alac"),
    "a.spx": ("-c:a", "libspeex", "-f", "ogg"),
    "a.wav": ("-c:a", "adpcm_g726"),
}


def made_by_ffmpeg(folder, name, seconds=2):
    options = BY_FFMPEG[name]
    rate = 8000 if "g726" in options[-1] else 16000
    try:
        return by_ffmpeg(tone(seconds, rate=rate), folder / name, *options, rate=rate)
    except ffmpeg.subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg cannot write {name}")


@needs_ffmpeg
@pytest.mark.parametrize("name", BY_FFMPEG)
@pytest.mark.parametrize("how", ["path", "memory"])
def test_kinds_that_ffmpeg_decodes(tmp_path, name, how):
    path = made_by_ffmpeg(tmp_path, name)
    heard = read_audio(path if how == "path" else io.BytesIO(path.read_bytes()))
    assert abs(len(heard) - 32_000) < 4000
    spectrum = np.abs(np.fft.rfft(heard[8000:24_000]))
    assert abs(int(spectrum.argmax()) - 440) <= 1  # Hz, as a second was taken


@needs_ffmpeg
def test_a_phone_memo_cut_off_is_told_or_refused(tmp_path):
    """With its index at the beginning there is something to read, with its index at the end there is nothing."""
    data = made_by_ffmpeg(tmp_path, "a.mp4").read_bytes()
    with pytest.warns(VoxrillWarning, match="no end"):
        assert 4000 < len(read(data[: len(data) * 2 // 3])) < 32_000
    data = made_by_ffmpeg(tmp_path, "a.m4a").read_bytes()
    with pytest.raises(AudioFileError, match="not a sound file") as caught:
        read(data[: len(data) * 2 // 3])
    assert_one_line_with_remedy(caught.value)


@needs_ffmpeg
def test_a_sound_longer_than_is_allowed_ends_ffmpeg(tmp_path):
    path = made_by_ffmpeg(tmp_path, "a.m4a", seconds=20)
    with pytest.raises(AudioFileError, match="longer than 5 seconds"):
        read_audio(path, longest=5)
    assert children() == []


@needs_ffmpeg
def test_ffmpeg_is_ended_when_nobody_reads_on(tmp_path):
    pieces = read_pieces(made_by_ffmpeg(tmp_path, "a.m4a", seconds=20))
    next(pieces)
    assert len(children()) == 1
    pieces.close()
    assert children() == []


def children():
    """Processes that this one started, dead ones that nobody waited for included."""
    with open(f"/proc/self/task/{os.getpid()}/children") as found:
        return [pid for pid in found.read().split() if command(pid) == "ffmpeg"]


def command(pid):
    with open(f"/proc/{pid}/comm") as name:
        return name.read().strip()


def test_without_ffmpeg_the_hint_names_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "memo.m4a").write_bytes(b"\0\0\0\x20ftypM4A " + bytes(100))
    with pytest.raises(
        AudioFileError, match=r"memo.m4a is M4A, which ffmpeg decodes, and there is no ffmpeg"
    ) as caught:
        read_audio(tmp_path / "memo.m4a")
    assert_one_line_with_remedy(caught.value)


AU_HEADER = "".join(f"\\{byte:03o}" for byte in np.array([24, -1, 6, 16_000, 1], ">i4").tobytes())
STUBBORN = {
    "silent": "exec sleep 600",
    "no sound": "exit 1",
    "garbage": "printf 'not what was asked for, but longer than a header'",
    "endless": f"printf '.snd{AU_HEADER}'; exec cat /dev/zero",
}


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
@pytest.mark.parametrize("how", STUBBORN)
def test_a_decoder_that_misbehaves_is_ended(tmp_path, monkeypatch, how):
    """A stand-in for ffmpeg that says nothing, fails, lies or never stops."""
    program = tmp_path / "ffmpeg"
    program.write_text(f"#!/bin/sh\n{STUBBORN[how]}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(ffmpeg, "STALL_SECONDS", 0.5)
    with pytest.raises(AudioFileError, match="longer than 10" if how == "endless" else "not a sound file"):
        read_audio(io.BytesIO(b"\0\0\0\x20ftypM4A " + bytes(100)), longest=10)


@pytest.mark.skipif(os.name == "nt", reason="the stand-in is a shell script")
def test_ffmpeg_is_told_what_it_may_do_and_given_no_keys(tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" >{tmp_path}/asked\nenv >{tmp_path}/environment\nexit 1\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("VOXRILL_API_KEY", "secret")
    with pytest.raises(AudioFileError):
        read_audio(io.BytesIO(b"\0\0\0\x20ftypM4A " + bytes(100)))
    asked = (tmp_path / "asked").read_text().splitlines()
    given = asked[: asked.index("-i")]
    for option, value in (("-protocol_whitelist", "file"), ("-f", "mov"), ("-max_alloc", str(64 << 20))):
        assert given[given.index(option) + 1] == value
    assert "-nostdin" in given and asked[asked.index("-i") + 1].startswith("file:/")
    assert "secret" not in (tmp_path / "environment").read_text()


@needs_ffmpeg
@pytest.mark.skipif(not hasattr(ffmpeg.os, "memfd_create"), reason="Linux alone limits another process")
def test_ffmpegs_memory_and_processor_time_are_bounded(tmp_path, monkeypatch):
    limits, end = [], ffmpeg._end

    def look(process):
        limits.append(limits_of(process.pid))
        end(process)

    monkeypatch.setattr(ffmpeg, "_end", look)
    with pytest.raises(AudioFileError, match="longer"):
        read_audio(made_by_ffmpeg(tmp_path, "a.m4a", seconds=5), longest=2)
    assert limits[0]["Max address space"] == str(1 << 30)
    assert limits[0]["Max cpu time"] == "61"


def limits_of(pid):
    with open(f"/proc/{pid}/limits") as lines:
        return {line[:26].strip(): line[26:].split()[0] for line in lines}
