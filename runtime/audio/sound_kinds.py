"""The kinds of sound file that can be read: one list for files, folders, pipes and uploads.

A kind is known by how its bytes begin, never by its name: a name may say anything, and ffmpeg would follow a playlist
that is called a recording. Suffixes only say what is looked for in a folder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 16
"""Bytes from which a kind is known."""


@dataclass(frozen=True)
class SoundKind:
    """One kind.

    name: for messages. suffixes: what such files are called. by_library: libsndfile reads it. demuxer: the only one
    that ffmpeg may use for it; of a kind that libsndfile reads, for the encodings that libsndfile lacks.
    """

    name: str
    suffixes: tuple[str, ...]
    by_library: bool = True
    demuxer: str = ""


WAV = SoundKind("WAV", (".wav", ".wave"), demuxer="wav")  # with AAC, GSM, ADPCM
FLAC = SoundKind("FLAC", (".flac",))
OGG = SoundKind("OGG", (".ogg", ".oga", ".opus"), demuxer="ogg")  # with Speex
MP3 = SoundKind("MP3", (".mp3",))
AIFF = SoundKind("AIFF", (".aiff", ".aif", ".aifc"))
AU = SoundKind("AU", (".au", ".snd"))
CAF = SoundKind("CAF", (".caf",), demuxer="caf")  # with AAC or Opus, as from iPhones
W64 = SoundKind("W64", (".w64",))
NIST = SoundKind("NIST", (".sph",))
MP4 = SoundKind("M4A", (".m4a", ".m4b", ".mp4", ".3gp"), by_library=False, demuxer="mov")
WEBM = SoundKind("WebM", (".webm", ".mka"), by_library=False, demuxer="matroska")
AAC = SoundKind("AAC", (".aac",), by_library=False, demuxer="aac")
AMR = SoundKind("AMR", (".amr",), by_library=False, demuxer="amr")

KINDS = (WAV, FLAC, OGG, MP3, AIFF, AU, CAF, W64, NIST, MP4, WEBM, AAC, AMR)

SOUND_FILES = tuple(suffix for kind in KINDS for suffix in kind.suffixes)
"""Suffixes of the files that are looked for in a folder, in lower case."""

READABLE = ", ".join(kind.name for kind in KINDS if kind.by_library)
"""The kinds that need no ffmpeg, for messages."""

BY_FFMPEG = ", ".join(kind.name for kind in KINDS if not kind.by_library)

_BEGINNINGS = {
    b"RIFX": WAV,
    b"RF64": WAV,
    b"riff\x2e\x91\xcf\x11": W64,
    b".snd": AU,
    b"dns.": AU,
    b"caff": CAF,
    b"NIST_1A": NIST,
    b"fLaC": FLAC,
    b"OggS": OGG,
    b"\x1aE\xdf\xa3": WEBM,
    b"#!AMR": AMR,
}
"""Kinds that one run of bytes gives away."""

_ID3_HEADER = 10  # bytes


def sniff(file: BinaryIO) -> SoundKind | None:
    """The kind of an open file, which is left at its beginning; None if it is none of ours."""
    tag = after_id3(file)
    file.seek(tag)
    kind = kind_of(file.read(HEAD_BYTES))
    file.seek(0)
    return kind if not tag or kind in (FLAC, AAC) else MP3


def after_id3(file: BinaryIO) -> int:
    """Bytes that a tag of titles and pictures takes before the sound; 0 without one."""
    file.seek(0)
    head = file.read(_ID3_HEADER)
    if not head.startswith(b"ID3") or len(head) < _ID3_HEADER:
        return 0
    # The size has 7 bits a byte, so that no byte of it is 0xFF, with which a frame begins.
    size = sum(byte << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))
    return _ID3_HEADER + size


def kind_of(head: bytes) -> SoundKind | None:
    """The kind of a file that begins with these bytes (16 are enough); None if it is none of ours."""
    for beginning, kind in _BEGINNINGS.items():
        if head.startswith(beginning):
            return kind
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return WAV
    if head.startswith(b"FORM") and head[8:12] in (b"AIFF", b"AIFC"):
        return AIFF
    if head[4:8] == b"ftyp":
        return MP4
    if head.startswith(b"ID3"):
        return MP3
    return _mpeg_kind(head)


def _mpeg_kind(head: bytes) -> SoundKind | None:
    """MP3 (MPEG 1, 2 or 2.5, layer II or III) or AAC, which have no magic bytes: only 11 or 12 bits that are set."""
    if len(head) < 4 or head[0] != 0xFF:
        return None
    if head[1] & 0xF6 == 0xF0:
        return AAC
    version, layer = head[1] >> 3 & 3, head[1] >> 1 & 3
    bit_rate, sample_rate = head[2] >> 4, head[2] >> 2 & 3
    # Layer 3 stands for layer I, which nobody uses. UTF-16 text (FF FE) would look like it.
    if head[1] & 0xE0 == 0xE0 and version != 1 and layer in (1, 2) and bit_rate != 15 and sample_rate != 3:
        return MP3
    return None
