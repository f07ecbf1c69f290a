"""The index of a folder: its documents' passages in one SQLite file, searched by words (FTS5, BM25).

In: a folder and the model's tokenizer. Out: the passages that answer a question best, with file and lines. Bringing the
index up to date touches only files that changed (size and time, then the hash), each in a transaction of its own with a
write-ahead log: killed at any moment, it is an index of fewer files. Two processes may do so at once.

Words are found in every form that the English stemmer takes for the same. Languages that put no spaces between words
are hardly found at all. With a sentence model (`embeddings`) passages that say the same in other words are found too:
their vectors are kept beside them, and the two ranks are merged.
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

import platformdirs

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

RELEVANT = 0.45
"""How much of a question a passage must speak of: the part of its words that it holds, rare words counting for more.
Of 44 questions with an answer in the folder 3 then find nothing, and of 16 without one all. (`python -m
benchmarks.documents`, a small set of our own, on which this was chosen; at 0.4 it is 2 and 13, at 0.5 5 and all.)"""

SIMILAR = 0.4
"""How near to a question a passage must lie that speaks of too little of it: the cosine of their vectors. With
all-MiniLM-L6-v2 and the questions above 43 of 44 find something, and of the 16 none; at 0.3 it is 44 and 2. Other
models' cosines lie elsewhere."""

BEST = 5
"""Passages that are found at most, unless told otherwise."""

CANDIDATES = 20
"""Passages of each kind of search of which the best are chosen, where there are two."""

FUSION = 60
"""How little a rank counts (the paper's number)."""

_READING = 1
"""Counts up when documents are read or cut otherwise than before, so that old indexes are made again."""
_YOUNG = 2_000_000_000
"""Nanoseconds within which a file may change twice and show one time (FAT's clock)."""


@dataclass(frozen=True)
class FoundPassage:
    """A passage that was found: lines `first` to `last` of `file` (its path within the folder).

    coverage: how much of the question it speaks of, 0 to 1 (see `RELEVANT`). similarity: how near to it it lies, at
    most 1 (see `SIMILAR`); 0 without a sentence model.
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
    """What bringing an index up to date did: files by name, the refused ones with the reason.

    embedded: passages that a sentence model read.
    """

    read: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    forgotten: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    embedded: int = 0


@dataclass(frozen=True)
class _Stamp:
    """What is known of a file as it was read: bytes, times in ns, hash of the content, and what cut it."""

    size: int
    mtime_ns: int
    read_ns: int
    hash: str
    made_by: str


def default_place(folder: Path) -> Path:
    """Where the index of a folder is kept: in the user's cache, so that the folder may be read-only and stays clean."""
    name = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return Path(platformdirs.user_cache_dir("voxrill", appauthor=False)) / "documents" / f"{name}.sqlite3"


class Index:
    """The index of a folder's documents; `Model.documents` opens one. Opening reads nothing, `update` does.

    `updated` says what the last update did.

    Args:
        folder: where the documents are; hidden files and folders are left out, linked folders not followed.
        count: tokens of a text, of the model that will read the passages.
        tokenizer: what tells its tokenizer from others: passages of another one are made again.
        place: the index's file; None for one in the user's cache.
        embedder: also finds passages that say the same in other words; vectors of another one are made again.

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
        """Let go of the file."""
        self._database.close()

    def update(self, progress: Progress = no_progress) -> Update:
        """Take in new and changed files, forget those that are gone or cannot be read any more.

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
        """The passages that answer a question best, best first; none where no passage speaks of enough of it.

        By words, by vectors where there is a sentence model, or by both: each rank r adds 1 / (60 + r) to a passage's
        score (reciprocal rank fusion, Cormack, Clarke and Buettcher 2009).
        """
        if not question.strip():
            return []
        with told(self.place):
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
        """The best passages by BM25, best first, with how much of the question each speaks of."""
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
        """How much a word counts: the rarer in the folder, the more; one that is nowhere counts most.

        Gentler than BM25's own weights, by which one strange word outweighs all others in a folder of two passages.
        """
        (whole,) = self._database.execute("SELECT count(*) FROM passages").fetchone()
        (holding,) = self._database.execute(
            "SELECT count(*) FROM words WHERE words MATCH ?", (quoted(word),)
        ).fetchone()
        return math.log(1 + (whole + 1) / (holding + 1))

    def _holding(self, word: str, candidates: Sequence[int]) -> set[int]:
        """Which of the candidates hold a word, in whatever form the stemmer takes for the same."""
        marks = ",".join("?" * len(candidates))
        query = f"SELECT rowid FROM words WHERE words MATCH ? AND rowid IN ({marks})"
        return {row[0] for row in self._database.execute(query, (quoted(word), *candidates))}

    def _take_in(self, name: str) -> bool:
        """Bring one file up to date; whether its content was not in the index.

        Raises:
            Unreadable: it cannot be taken in.
        """
        read_ns = time.time_ns()
        now, before = status(self.folder, name), self._stamp(name)
        made = before is not None and before.made_by == self._made_by
        if made and before and _untouched(before, now):
            return False
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
        self._database.execute(f"DELETE FROM words WHERE rowid IN ({of_file})", (name,))
        self._database.execute(f"DELETE FROM vectors WHERE passage IN ({of_file})", (name,))
        self._database.execute(f"DELETE FROM passages WHERE id IN ({of_file})", (name,))
        self._database.execute("DELETE FROM files WHERE name = ?", (name,))


def _untouched(before: _Stamp, now: os.stat_result) -> bool:
    """Whether size and time say that a file is as it was, and were old enough to tell when it was read."""
    same = (before.size, before.mtime_ns) == (now.st_size, _kept_time(now))
    return same and before.mtime_ns + _YOUNG < before.read_ns


def _kept_time(now: os.stat_result) -> int:
    """When a file changed, in ns; a date that SQLite has no room for (after 2262) is as near to it as can be."""
    return max(-LARGEST_NUMBER, min(now.st_mtime_ns, LARGEST_NUMBER))


def _nothing(folder: Path, refused: dict[str, str]) -> str:
    if not refused:
        return f"{folder} holds no documents: it is empty"
    return f"{folder} holds no documents: {refusals(refused)}"


NAMED = 5
"""Refused files that a sentence names; the rest it counts."""


def refusals(refused: dict[str, str]) -> str:
    """The files that were not taken in, and why, as part of a sentence."""
    named = [f"{name} ({reason})" for name, reason in list(refused.items())[:NAMED]]
    more = [f"and {len(refused) - NAMED} more"] if len(refused) > NAMED else []
    return ", ".join(named + more)
