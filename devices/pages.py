"""Huge pages for weights: memory on few large pages is found faster than on many small ones. Linux only.

In: this process's memory, before and after a model was loaded. Out: what was mapped in between, on huge pages, moved
by a thread while the model already works. What that gains depends on the processor: two threads of one AMD EPYC read
31 GB/s from pages of 4 KB and 61 GB/s from pages of 2 MB, two of another 80 GB/s from both.

Where the kernel or a container forbids it, nothing happens and nothing is said; `voxrill doctor` shows what this
machine allows. Arrays of 4 MB and more are not touched: numpy asks for huge pages by itself when it makes them.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import numpy as np
from numpy.typing import NDArray

from voxrill.devices.cgroups import PROC, lines_of
from voxrill.devices.memory import available_memory

OFF_VARIABLE = "VOXRILL_NO_HUGE_PAGES"
"""If this is set to anything, pages stay as they are."""

SETTINGS = Path("/sys/kernel/mm/transparent_hugepage")
NEVER = "never"

WORTH = 64 << 20
"""Bytes of a model that gains. A smaller one lies in the caches for the most part."""

SPARE = 256 << 20
"""Bytes of memory that stay available: for a huge page, the kernel makes room even by dropping files from memory."""

_HUGEPAGE, _COLLAPSE = 14, 25
"""MADV_HUGEPAGE: memory that is written from now on, and what the kernel's own thread finds in time. MADV_COLLAPSE
(Linux 6.1): memory that is written already, at once."""

_PIECE = 64 << 20
"""Bytes of one collapse. Every call waits for all cores once, so that calls of 2 MB take ten times as long in all."""

_RESIDENT = 0.5
"""Share of a huge page that must be in use. Collapsing fills it up, and what is not in use takes memory then."""

Span = tuple[int, int]
"""Addresses: the first, and the one behind the last."""


@dataclass(frozen=True)
class PageSetting:
    """What the kernel says: bytes of a page and of a huge page, and who gets huge pages (always, madvise, never)."""

    page: int
    huge: int
    who: str


def page_setting(settings: Path = SETTINGS) -> PageSetting | None:
    """The kernel's setting; None where it has no transparent huge pages."""
    size, who = lines_of(settings / "hpage_pmd_size"), lines_of(settings / "enabled")
    if not size or not who:
        return None
    chosen = [word[1:-1] for word in who[0].split() if word.startswith("[")]
    return PageSetting(mmap.PAGESIZE, int(size[0]), chosen[0] if chosen else NEVER)


def gains(size: int) -> bool:
    """Whether a model of `size` bytes comes to lie on huge pages here."""
    if sys.platform != "linux" or size < WORTH or os.environ.get(OFF_VARIABLE):
        return False
    setting = page_setting()
    return setting is not None and setting.who != NEVER


def huge_memory(proc: Path = PROC) -> int | None:
    """Bytes of this process on huge pages, mapped files among them; None where the system does not say."""
    words = [line.split() for line in lines_of(proc / "self" / "smaps_rollup")]
    found = [1024 * int(line[1]) for line in words if line[0] in ("AnonHugePages:", "FilePmdMapped:")]
    return sum(found) if found else None


def share_moved(size: int = WORTH) -> float:
    """The share of a test's memory that comes to lie on huge pages here."""
    pages = HugePages(size)
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.write(bytes(size))  # a zero that is written takes a page, too
        before = huge_memory() or 0
        pages.begin()
        pages.wait()
        return max(0, (huge_memory() or 0) - before) / size


class HugePages:
    """Moves what this process maps from now on to huge pages, in a thread, once `begin` is called.

    Args:
        expected: bytes of what is to be loaded. If that is little, nothing happens.
    """

    def __init__(self, expected: int) -> None:
        self._setting = page_setting() if gains(expected) else None
        self._before = list(_private_memory()) if self._setting else []
        self._stopped = Event()
        self._thread: Thread | None = None

    def begin(self) -> None:
        """Begin to move what was mapped since."""
        if self._setting is not None:
            self._thread = Thread(target=self._move, args=(self._setting,), name="voxrill-pages", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait until everything is moved, for measurements."""
        if self._thread is not None:
            self._thread.join()

    def stop(self) -> None:
        """Move no more, and wait for the piece that is under way."""
        self._stopped.set()
        self.wait()

    def _move(self, setting: PageSetting) -> None:
        with suppress(OSError, ValueError, AttributeError):  # a system that hides its memory, or has no such calls
            # Memory may be given back meanwhile. The kernel then refuses, or works on what lies there now: no harm.
            for start, end in _whole(_without(_private_memory(), self._before), setting.huge):
                _advise(start, end, _HUGEPAGE)
                for at in range(start, end, max(_PIECE, setting.huge)):
                    if self._stopped.is_set() or (available_memory() or 0) < SPARE:
                        return
                    _collapse(at, min(end, at + max(_PIECE, setting.huge)), setting)


def _collapse(start: int, end: int, setting: PageSetting) -> None:
    """Collapse the huge pages between two addresses that are in use."""
    pages = _resident(start, end, setting.page)
    used = pages.reshape(-1, setting.huge // setting.page).mean(1) >= _RESIDENT
    edges = np.flatnonzero(np.diff(used, prepend=False, append=False))
    for first, behind in edges.reshape(-1, 2).tolist():
        _advise(start + first * setting.huge, start + behind * setting.huge, _COLLAPSE)


def _resident(start: int, end: int, page: int) -> NDArray[np.bool_]:
    """Which pages are in memory; none where the kernel does not say."""
    found = np.zeros((end - start) // page, np.uint8)
    _libc().mincore(ctypes.c_void_p(start), ctypes.c_size_t(end - start), ctypes.c_void_p(found.ctypes.data))
    return (found & 1).astype(np.bool_)


def _advise(start: int, end: int, advice: int) -> None:
    """Tell the kernel what is wanted; what it cannot do, it leaves as it is."""
    _libc().madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), advice)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _private_memory(proc: Path = PROC) -> Iterator[Span]:
    """What this process has mapped for itself alone, to write to, and from no file."""
    for line in lines_of(proc / "self" / "maps"):
        addresses, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights.startswith("rw") and rights.endswith("p") and inode == "0" and name[:1] != ["[stack]"]:
            start, _, end = addresses.partition("-")
            yield int(start, 16), int(end, 16)


def _whole(spans: Iterator[Span], size: int) -> Iterator[Span]:
    """The whole pages of `size` bytes in each span."""
    for start, end in spans:
        start, end = -(-start // size) * size, end // size * size
        if start < end:
            yield start, end


def _without(spans: Iterator[Span], gone: list[Span]) -> Iterator[Span]:
    """What of `spans` is in none of `gone`. Both are sorted, and their own spans do not overlap."""
    for start, end in spans:
        for before in gone:
            if before[0] < end and before[1] > start:
                if start < before[0]:
                    yield start, before[0]
                start = before[1]
        if start < end:
            yield start, end
