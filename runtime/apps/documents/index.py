"""The index of a folder: its documents' passages in one SQLite file, searched by words (FTS5, BM25).

In: a folder and the model's tokenizer. Out: the passages that answer a question best, with file and lines. An update
reads only files that changed (by size and time, then by hash), each in its own transaction with a write-ahead log. If
it is killed at any moment, the index holds fewer files and is still correct. Two processes may update it at once.

The English stemmer decides which forms of a word are the same. Search works badly in languages that write no spaces
between words. With a sentence model (`embeddings`) the index also finds passages that say the same in other words:
their vectors are kept beside them, and the two rankings are merged.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from voxrill.runtime.apps.documents import passages
from voxrill.runtime.apps.documents.database import (
    LARGEST_NUMBER,
    checked_row,
    open_database,
    quoted,
    told,
    transaction,
)
from voxrill.runtime.apps.documents.embeddings import Embedder
from voxrill.runtime.apps.documents.folder import content, list_files, status
from voxrill.runtime.apps.documents.nearest import Nearest
from voxrill.runtime.apps.documents.passages import Passage
from voxrill.runtime.apps.documents.questions import search_words
from voxrill.runtime.apps.documents.reader import READABLE, Unreadable, read_blocks
from voxrill.runtime.errors import UsageError
from voxrill.runtime.progress import Progress, no_progress
from voxrill.runtime.user_folders import user_cache

RELEVANT = 0.45
"""The share of a question's words that a passage must hold; rare words count for more. With this value, 3 of 44
questions that have an answer in the folder find nothing, and so do all 16 questions that have none. With 0.4 it is 2 of
44 and 13 of 16, with 0.5 it is 5 and 16. (`python -m benchmarks.documents`: a small set of our own, on which this value
was chosen.)"""

SIMILAR = 0.4
"""A passage that holds too few of the words is still relevant if its vector and the question's have this cosine. With
all-MiniLM-L6-v2 and the questions above, 43 of the 44 find something, and none of the 16. With 0.3 it is 44 and 2.
Other models need other values."""

BEST = 5
"""Passages that a search gives at most, unless the caller says otherwise."""

CANDIDATES = 20
"""Passages that each of two kinds of search gives; the best of both are chosen."""

FUSION = 60
"""A larger number makes the first ranks count for less; this is the paper's (see `Index.search`)."""

_READING = 1
"""One more whenever a change to our code reads or cuts documents differently: old indexes are then made again."""
_YOUNG = 2_000_000_000
"""Nanoseconds within which a file can change twice and keep its time: FAT counts in steps of 2 s."""


@dataclass(frozen=True)
class FoundPassage:
    """A passage that was found: lines `first` to `last` of `file` (its path within the folder).

    coverage: the share of the question's words in it, 0 to 1 (see `RELEVANT`). similarity: the cosine of its vector and
    the question's, at most 1 (see `SIMILAR`); 0 without a sentence model.
    """

    file: str
    first: int
    last: int
    heading: str
    text: str
    coverage: float
    similarity: float = 0.0


@dataclass
class Update:
    """What an update did: files by name; the refused ones with the reason.

    embedded: the number of passages that a sentence model read.
    """

    read: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    embedded: int = 0


@dataclass(frozen=True)
class _Stamp:
    """A file as it was read: its bytes, times in ns, the hash of its content, and what cut it into passages."""

    size: int
    mtime_ns: int
    read_ns: int
    hash: str
    made_by: str


def default_place(folder: Path) -> Path:
    """Where the index of a folder is kept: in the user's cache, so that the folder may be read-only and stays clean."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return user_cache() / "documents" / f"{name}.sqlite3"


class Index:
    """The index of a folder's documents; `Model.documents` opens one. Opening reads nothing, `update` does.

    `updated` says what the last update did.

    Args:
        folder: where the documents are; hidden files and folders are left out, links to folders are not followed.
        count: counts the tokens of a text, for the model that will read the passages.
        tokenizer: identifies that model's tokenizer; passages that another tokenizer measured are made again.
        place: the index's file; None for one in the user's cache.
        embedder: finds passages that say the same in other words; vectors of another embedder are made again.

    Raises:
        UsageError: there is no such folder, or the file is something else than an index.
        VoxrillError: this Python's SQLite lacks FTS5.
    """

    def __init__(
        self,
        folder: Path,
        count: passages.Count,
        tokenizer: str,
        place: Path | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", "Give the folder that holds the documents")
        self.folder = folder
        self.place = place or default_place(folder)
        self._count = count
        self._made_by = f"{tokenizer} {passages.SIZE} {passages.OVERLAP} {_READING}"
        self.updated = Update()
        self._database = open_database(self.place)
        self._nearest = None if embedder is None else Nearest(self._database, embedder)

    def __enter__(self) -> Index:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def update(self, progress: Progress = no_progress) -> Update:
        """Take in new and changed files; forget files that are gone or that cannot be read any more.

        Raises:
            UsageError: no file of the folder can be read (the message says why), or the index cannot be written.
        """
        found = list_files(self.folder)
        self.updated = update = Update(refused=found.refused)
        with told(self.place):
            for done, name in enumerate(found.files):
                progress(name, done, len(found.files))
                try:
                    (update.read if self._take_in(name) else update.unchanged).append(name)
                except Unreadable as reason:
                    update.refused[name] = str(reason)
            kept = {*update.read, *update.unchanged}
            for row in self._database.execute("SELECT name FROM files").fetchall():
                (name,) = checked_row(row, tuple[str])
                if name not in kept:
                    with transaction(self._database):
                        self._forget(name)
                    update.forgotten.append(name)
        if not kept:
            raise UsageError(_nothing(self.folder, update.refused), f"Documents end in {', '.join(READABLE)}")
        if self._nearest is not None:
            with told(self.place):
                update.embedded = self._nearest.update(progress)
        return update

    def search(
        self, question: str, best: int = BEST, relevant: float = RELEVANT, similar: float = SIMILAR
    ) -> list[FoundPassage]:
        """The passages that answer a question best, best first; none if no passage is relevant.

        The search is by words, and with a sentence model by vectors, too. A passage's rank r in each adds 1 / (60 + r)
        to its score (reciprocal rank fusion, Cormack, Clarke and Buettcher 2009).
        """
        if not question.strip():
            return []
        with told(self.place):
            # Both searches keep passages below their threshold, too: one that the other search finds relevant is shown
            # with both figures.
            coverage = self._by_words(search_words(question), best)
            near = {} if self._nearest is None else self._nearest.search(question, max(best, CANDIDATES))
            scores: dict[int, float] = {}
            for ranked, least in ((coverage, relevant), (near, similar)):
                for rank, (passage, value) in enumerate(ranked.items(), 1):
                    if value >= least:
                        scores[passage] = scores.get(passage, 0.0) + 1 / (FUSION + rank)
            chosen = sorted(scores, key=lambda passage: -scores[passage])[:best]
            return [self._found(passage, coverage.get(passage, 0.0), near.get(passage, 0.0)) for passage in chosen]

    def _by_words(self, words: Sequence[str], best: int) -> dict[int, float]:
        """The best passages by BM25, best first, each with the share of the question's words in it."""
        if not words:
            return {}
        wanted = best if self._nearest is None else max(best, CANDIDATES)
        rows = self._database.execute(
            "SELECT words.rowid FROM words JOIN passages ON passages.id = words.rowid"
            " JOIN files ON files.id = passages.file"
            " WHERE words MATCH ? ORDER BY bm25(words), files.name, first LIMIT ?",
            (" OR ".join(map(quoted, words)), wanted),
        ).fetchall()
        candidates = [row[0] for row in rows]
        # BM25 orders the passages, but its scores cannot be compared between folders. Whether a passage is relevant is
        # decided by the share of the question's words in it.
        weights = {word: self._weight(word) for word in words}
        held = {word: self._holding(word, candidates) for word in words}
        whole = sum(weights.values())
        return {
            passage: sum(weights[word] for word in words if passage in held[word]) / whole for passage in candidates
        }

    def _found(self, passage: int, coverage: float, similarity: float) -> FoundPassage:
        row = self._database.execute(
            "SELECT files.name, first, last, heading, text FROM words JOIN passages ON passages.id = words.rowid"
            " JOIN files ON files.id = passages.file WHERE words.rowid = ?",
            (passage,),
        ).fetchone()
        return FoundPassage(*checked_row(row, tuple[str, int, int, str, str]), coverage, similarity)

    def _weight(self, word: str) -> float:
        """How much a word counts: rare words count for more, and a word that no passage holds counts most.

        BM25's own weights differ more: by them, one strange word outweighs all others in a folder of two passages.
        """
        (whole,) = self._database.execute("SELECT count(*) FROM passages").fetchone()
        (holding,) = self._database.execute(
            "SELECT count(*) FROM words WHERE words MATCH ?", (quoted(word),)
        ).fetchone()
        return math.log(1 + (whole + 1) / (holding + 1))

    def _holding(self, word: str, candidates: Sequence[int]) -> set[int]:
        """The candidates that hold a word, in any form that has the same stem."""
        marks = ",".join("?" * len(candidates))
        query = f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({marks})"
        return {row[0] for row in self._database.execute(query, (quoted(word), *candidates))}

    def _take_in(self, name: str) -> bool:
        """Bring one file up to date; True if its content is new to the index.

        Raises:
            Unreadable: it cannot be taken in.
        """
        read_ns = time.time_ns()
        now, before = status(self.folder, name), self._stamp(name)
        made = before is not None and before.made_by == self._made_by
        if made and before and _untouched(before, now):
            return False
        # From here on the file may change again. The stamp has the time from before the reading, so that the next
        # update sees such a change.
        whole = content(self.folder, name)
        stamp = _Stamp(now.st_size, _kept_time(now), read_ns, hashlib.sha256(whole).hexdigest(), self._made_by)
        same = made and before is not None and before.hash == stamp.hash
        cut = [] if same else list(passages.split(read_blocks(name, whole), self._count))
        with transaction(self._database):
            if same:
                self._database.execute(
                    "UPDATE files SET size = ?, mtime_ns = ?, read_ns = ? WHERE name = ?",
                    (stamp.size, stamp.mtime_ns, stamp.read_ns, name),
                )
            else:
                self._forget(name)
                self._add(name, stamp, cut)
        return not same

    def _stamp(self, name: str) -> _Stamp | None:
        query = "SELECT size, mtime_ns, read_ns, hash, made_by FROM files WHERE name = ?"
        row = self._database.execute(query, (name,)).fetchone()
        return None if row is None else _Stamp(*checked_row(row, tuple[int, int, int, str, str]))

    def _add(self, name: str, stamp: _Stamp, cut: Sequence[Passage]) -> None:
        file = self._database.execute(
            "INSERT INTO files (name, size, mtime_ns, read_ns, hash, made_by) VALUES (?, ?, ?, ?, ?, ?)",
            (name, stamp.size, stamp.mtime_ns, stamp.read_ns, stamp.hash, stamp.made_by),
        ).lastrowid
        for passage in cut:
            row = self._database.execute(
                "INSERT INTO passages (file, first, last) VALUES (?, ?, ?)", (file, passage.first, passage.last)
            ).lastrowid
            self._database.execute(
                "INSERT INTO words (rowid, name, heading, text) VALUES (?, ?, ?, ?)",
                (row, name, passage.heading, passage.text),
            )

    def _forget(self, name: str) -> None:
        of_file = "SELECT id FROM passages WHERE file IN (SELECT id FROM files WHERE name = ?)"
        # Words and vectors first: they are found through the passages.
        self._database.execute(f"DELETE FROM words WHERE rowid IN ({of_file})", (name,))
        self._database.execute(f"DELETE FROM vectors WHERE passage IN ({of_file})", (name,))
        self._database.execute(f"DELETE FROM passages WHERE id IN ({of_file})", (name,))
        self._database.execute("DELETE FROM files WHERE name = ?", (name,))


def _untouched(before: _Stamp, now: os.stat_result) -> bool:
    """Whether a file is as it was: same size and time, and the time was old enough when the file was read."""
    # A file that was read right after its last change may have changed again without a new time: it is hashed next
    # time.
    same = (before.size, before.mtime_ns) == (now.st_size, _kept_time(now))
    return same and before.mtime_ns + _YOUNG < before.read_ns


def _kept_time(now: os.stat_result) -> int:
    """When a file changed, in ns. SQLite has no room for dates after 2262, so they become its last one."""
    return max(-LARGEST_NUMBER, min(now.st_mtime_ns, LARGEST_NUMBER))


def _nothing(folder: Path, refused: dict[str, str]) -> str:
    if not refused:
        return f"{folder} holds no documents: it is empty"
    return f"{folder} holds no documents: {refusals(refused)}"


NAMED = 5
"""Refused files that a message names; it counts the others."""


def refusals(refused: dict[str, str]) -> str:
    """The refused files and the reasons, as a part of a sentence."""
    named = [f"{name} ({reason})" for name, reason in list(refused.items())[:NAMED]]
    more = [f"and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
    return ", ".join(named + more)
