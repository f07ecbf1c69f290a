"""Sound files that tests write: whole, with a header that lies, in every kind that is read."""

import io
import shutil
import struct
import subprocess

import numpy as np
import pytest
import soundfile

from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.sound_writer import wav_header

needs_ffmpeg = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")


def tone(seconds=0.5, rate=16000, hz=440.0):
    """A tone (n,) float32 at half of full scale."""
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def assert_one_line_with_remedy(error):
    """A message is one line, and says what to do."""
    assert error.remedy
    assert "\n" not in str(error)


def encoded(samples, form, subtype=None, rate=16000, endian=None):
    """The bytes of a file that libsndfile writes."""
    out = io.BytesIO()
    soundfile.write(out, samples, rate, format=form, subtype=subtype, endian=endian)
    return out.getvalue()


def wav_bytes(samples, data_size=None, after=b""):
    """A 16-bit WAV file at 16 kHz whose header says that its samples take `data_size` bytes (None: what they take)."""
    pcm = pcm16(samples).tobytes()
    header = bytearray(wav_header(16000, len(pcm)))
    if data_size is not None:
        header[40:44] = struct.pack("<I", data_size)
    return bytes(header) + pcm + after


def by_ffmpeg(samples, path, *options, rate=16000):
    """Have ffmpeg write `path` in the format that its suffix asks for."""
    command = ["ffmpeg", "-v", "error", "-y", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-", *options, path]
    subprocess.run(command, input=samples.tobytes(), check=True, timeout=60)
    return path
