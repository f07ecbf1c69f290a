"""Vectors of an index's passages: made for passages that have none, and searched.

In: the index's database and a sentence model. Out: the passages nearest to a question. The database holds the vectors
as float16. They are read in pieces, so memory does not grow with the folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import numpy as np

from voxrill.runtime.apps.documents.database import transaction
from voxrill.runtime.apps.documents.embeddings import Embedder, Floats
from voxrill.runtime.progress import Progress

TOGETHER = 64
"""Passages whose vectors are written in one transaction: if the process is killed, the work on these is lost."""

_PIECE = 4096
"""Vectors that are compared at once: 3 MB if each has 384 numbers."""

_STORED = np.float16


class Nearest:
    """What a sentence model adds to an index."""

    def __init__(self, database: sqlite3.Connection, embedder: Embedder) -> None:
        self._database = database
        self._embedder = embedder

    def update(self, progress: Progress) -> int:
        """Make the vectors that are missing or another model's; returns how many."""
        wanted = self._database.execute(
            "SELECT words.rowid FROM words LEFT JOIN vectors ON passage = words.rowid AND model = ?"
            " WHERE passage IS NULL ORDER BY words.rowid",
            (self._embedder.identity,),
        ).fetchall()
        for start in range(0, len(wanted), TOGETHER):
            progress("embedding", start, len(wanted))
            self._embed([row[0] for row in wanted[start : start + TOGETHER]])
        return len(wanted)

    def _embed(self, wanted: Sequence[int]) -> None:
        marks = ",".join("?" * len(wanted))
        query = f"SELECT rowid, heading, text FROM words WHERE rowid IN ({marks})"
        rows = self._database.execute(query, wanted).fetchall()
        if not rows:
            return  # another process has deleted them
        vectors = self._embedder.passages([f"{heading}\n{text}".strip() for _, heading, text in rows])
        with transaction(self._database):
            for (passage, _, text), vector in zip(rows, vectors.astype(_STORED), strict=True):
                self._database.execute(  # another process may have changed the passage meanwhile
                    "INSERT OR REPLACE INTO vectors SELECT rowid, ?, ? FROM words WHERE rowid = ? AND text = ?",
                    (self._embedder.identity, vector.tobytes(), passage, text),
                )

    def search(self, question: str, most: int) -> dict[int, float]:
        """The nearest passages, nearest first, with the cosines of their vectors."""
        asked = self._embedder.question(question)
        rows = self._database.execute("SELECT passage, vector FROM vectors WHERE model = ?", (self._embedder.identity,))
        best: list[tuple[float, int]] = []
        while piece := rows.fetchmany(_PIECE):
            nearness = _vectors([row[1] for row in piece], asked.size) @ asked
            # Only the best of each piece can be among the best of all; ties go to the older passage, in every run.
            largest = np.argsort(-nearness, kind="stable")[:most]
            best += [(float(nearness[at]), piece[at][0]) for at in largest]
            best = sorted(best, key=lambda one: (-one[0], one[1]))[:most]
        return {passage: cosine for cosine, passage in best}


def _vectors(stored: Sequence[object], size: int) -> Floats:
    """Vectors of `size` numbers as they are kept, (vectors, size); a damaged index holds others."""
    whole = [vector for vector in stored if isinstance(vector, bytes) and len(vector) == size * _STORED().itemsize]
    if len(whole) < len(stored):
        raise sqlite3.DatabaseError("a passage's vector is not one")
    return np.frombuffer(b"".join(whole), _STORED).reshape(len(whole), size).astype(np.float32)
