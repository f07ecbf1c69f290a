"""What a sound file's header says of its length, compared with the bytes that are there.

Programs that write to a pipe do not know the length when they write the header, a crash leaves a header that was never
completed, and a copy may end in the middle. The bytes count, not the header: `repaired` finds the field that says how
many bytes of samples follow, and gives the file as it would be if the field were right.

Sources: RFC 2361 and EBU Tech 3306 (RIFF, RF64), Sony's W64, Apple's AIFF and CAF, Sun's AU.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from voxrill.runtime.audio.sound_kinds import AIFF, AU, CAF, FLAC, MP3, MP4, OGG, W64, WAV, SoundKind, after_id3

_NO_LENGTH = 0x7FFF0000
"""Bytes of samples in a 32-bit field from which the number may stand for "as long as it lasts": ffmpeg writes
0xFFFFFFFF, sox 0x7FFFFFFF less the header, OpenAI another one."""

_MOST_CHUNKS = 10_000
"""Chunks that are looked at: a hostile file can have millions of empty ones."""

_OGG_TAIL = 1 << 16
"""Bytes in which the last page of an OGG file begins: a page has at most 65,307."""

_OGG_FLAGS, _OGG_LAST = 5, 4
"""Where a page's flags are, and the flag of the last page."""

_MP3_FRAME = 1024
"""Bytes among which the table lies: 36 bytes after the frame's first at most, but a frame before it may be damaged."""

Order = Literal["little", "big"]


@dataclass(frozen=True)
class SamplesField:
    """Where a header says how many bytes of samples there are.

    at, width, order: of the field. start: where the samples begin. extra: bytes that the field counts beside samples.
    promised: what it says of the samples, in bytes; None if it says that it does not know.
    """

    at: int
    width: int
    order: Order
    start: int
    extra: int
    promised: int | None

    def holding(self, size: int) -> bytes:
        """The field as it should be for `size` bytes of samples; the largest number if that has no room."""
        return min(size + self.extra, (1 << 8 * self.width) - 1).to_bytes(self.width, self.order)


@dataclass(frozen=True)
class Checked:
    """A file whose header was compared with its bytes.

    file: to be read instead of it. missing: bytes that the header promises and that are not there; present: bytes of
    samples that are. wrong: the header promises too little. cut: it was cut off, by how much nobody knows. counted: the
    header gives an exact number of samples, which only decoding can compare.
    """

    file: BinaryIO
    missing: int = 0
    present: int = 0
    wrong: bool = False
    cut: bool = False
    counted: bool = False


def repaired(file: BinaryIO, kind: SoundKind) -> Checked:
    """Compare the header of an open file with the bytes that are there, and put it right."""
    end = file.seek(0, os.SEEK_END)
    if kind is MP4:
        return Checked(file, cut=_is_cut_mp4(file, end))
    if kind is OGG:
        return Checked(file, cut=_is_cut_ogg(file, end))
    if kind in (FLAC, MP3):
        return Checked(file, counted=kind is FLAC or _counts_frames(file))
    field = _samples_field(file, kind, end)
    if field is None:
        return Checked(file)
    present = max(0, end - field.start)
    if field.promised is None:
        return Checked(_patched(file, field, present), present=present)
    if field.promised > present:
        return Checked(_patched(file, field, present), field.promised - present, present)
    if kind is WAV and not _chunks_follow(file, field, end):
        return Checked(_patched(file, field, present), present=present, wrong=present - field.promised > 1)
    return Checked(file, present=field.promised)


def _samples_field(file: BinaryIO, kind: SoundKind, end: int) -> SamplesField | None:
    find = {WAV: _in_wav, W64: _in_w64, AIFF: _in_aiff, AU: _in_au, CAF: _in_caf}.get(kind)
    return None if find is None else find(file, end)


def _in_wav(file: BinaryIO, end: int) -> SamplesField | None:
    form = _read(file, 0, 4)
    order: Order = "big" if form == b"RIFX" else "little"
    sizes = None  # where RF64 keeps the 64-bit sizes for which the chunks' own fields are too small
    for name, at, size in _chunks(file, 12, end, order):
        if name == b"ds64":
            sizes = at + 16  # after the chunk's name and size, and the whole file's size
        elif name == b"data" and form == b"RF64" and size == 0xFFFFFFFF and sizes is not None:
            long = int.from_bytes(_read(file, sizes, 8), "little")
            return SamplesField(sizes, 8, "little", at + 8, 0, long if 0 < long < 1 << 63 else None)
        elif name == b"data":
            unknown = size == 0 or (size >= _NO_LENGTH and at + 8 + size > end)
            return SamplesField(at + 4, 4, order, at + 8, 0, None if unknown else size)
    return None


def _in_w64(file: BinaryIO, end: int) -> SamplesField | None:
    """Names are GUIDs of 16 bytes, sizes count the 24 bytes of name and size, and chunks begin at multiples of 8."""
    at = 40
    for _ in range(_MOST_CHUNKS):
        name, size = _read(file, at, 4), int.from_bytes(_read(file, at + 16, 8), "little")
        if name == b"data":
            return SamplesField(at + 16, 8, "little", at + 24, 24, size - 24 if 24 < size < 1 << 63 else None)
        at += max(24, -(-size // 8) * 8)
        if at + 24 > end:
            return None
    return None


def _in_aiff(file: BinaryIO, end: int) -> SamplesField | None:
    """The chunk of samples begins with 8 bytes of its own: an offset and a block size."""
    for name, at, size in _chunks(file, 12, end, "big"):
        if name == b"SSND":
            unknown = size <= 8 or (size >= _NO_LENGTH and at + 8 + size > end)
            return SamplesField(at + 4, 4, "big", at + 16, 8, None if unknown else size - 8)
    return None


def _in_au(file: BinaryIO, _end: int) -> SamplesField | None:
    order: Order = "big" if _read(file, 0, 4) == b".snd" else "little"
    start, size = (int.from_bytes(_read(file, at, 4), order) for at in (4, 8))
    return SamplesField(8, 4, order, start, 0, None if size in (0, 0xFFFFFFFF) else size)


def _in_caf(file: BinaryIO, end: int) -> SamplesField | None:
    """Sizes have 8 bytes, and the chunk of samples begins with a count of edits of 4."""
    at = 8
    for _ in range(_MOST_CHUNKS):
        name, size = _read(file, at, 4), int.from_bytes(_read(file, at + 4, 8), "big", signed=True)
        if name == b"data":
            return SamplesField(at + 4, 8, "big", at + 16, 4, size - 4 if size > 4 else None)
        at += 12 + max(0, size)
        if at + 12 > end:
            return None
    return None


def _chunks(file: BinaryIO, at: int, end: int, order: Order) -> Iterator[tuple[bytes, int, int]]:
    """Name, place and size of the chunks of RIFF and AIFF; a chunk of an odd size is followed by a byte of padding."""
    for _ in range(_MOST_CHUNKS):
        if at + 8 > end:
            return
        head = _read(file, at, 8)
        size = int.from_bytes(head[4:], order)
        yield head[:4], at, size
        at += 8 + size + size % 2


def _chunks_follow(file: BinaryIO, field: SamplesField, end: int) -> bool:
    """Whether what comes after the samples that the header counts can be something else than more samples."""
    after = field.start + (field.promised or 0)
    if after >= end or _read(file, after, 3) in (b"ID3", b"TAG"):  # a tag, which is no chunk
        return True
    # Some programs leave the byte of padding out.
    return any(_is_chain(file, at, end, field.order) for at in {after, after + after % 2})


def _is_chain(file: BinaryIO, at: int, end: int, order: Order) -> bool:
    if at == end:
        return True
    return (
        all(
            name.isascii() and name.decode("ascii").isprintable() and place + 8 + size <= end
            for name, place, size in _chunks(file, at, end, order)
        )
        and end - at >= 8
    )  # fewer bytes are no chunk


def _is_cut_mp4(file: BinaryIO, end: int) -> bool:
    """Whether the last box promises more bytes than there are."""
    at = 0
    for _ in range(_MOST_CHUNKS):
        if at + 8 > end:
            break
        size = int.from_bytes(_read(file, at, 4), "big")
        if size == 1:  # the true size has 8 bytes, behind the name
            size = int.from_bytes(_read(file, at + 8, 8), "big")
        if size == 0:  # to the end
            return False
        at += max(8, size)
    return at > end


def _is_cut_ogg(file: BinaryIO, end: int) -> bool:
    """Whether the last page is not marked as the last one."""
    tail = _read(file, max(0, end - _OGG_TAIL), _OGG_TAIL)
    page = tail.rfind(b"OggS")
    return page < 0 or len(tail) <= page + _OGG_FLAGS or not tail[page + _OGG_FLAGS] & _OGG_LAST


def _counts_frames(file: BinaryIO) -> bool:
    """Whether an MP3 file's first frame holds a table that counts the frames. Without one, readers only guess."""
    frame = _read(file, after_id3(file), _MP3_FRAME)
    return b"Xing" in frame or b"Info" in frame


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


def _patched(file: BinaryIO, field: SamplesField, size: int) -> BinaryIO:
    return PatchedFile(file, field.at, field.holding(size))  # type: ignore[return-value]


class PatchedFile:
    """An open file in which some bytes are read as others. It has what decoders need of a file, no more."""

    def __init__(self, file: BinaryIO, at: int, data: bytes) -> None:
        self._file, self._at, self._data = file, at, data

    def read(self, size: int = -1) -> bytes:
        """As of a file."""
        where = self._file.tell()
        found = self._file.read(size)
        first, last = max(where, self._at), min(where + len(found), self._at + len(self._data))
        if first >= last:
            return found
        # Of the bytes read, those from `first` to `last` lie within the patch.
        new = self._data[first - self._at : last - self._at]
        return found[: first - where] + new + found[last - where :]

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """As of a file."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """As of a file."""
        return self._file.tell()
