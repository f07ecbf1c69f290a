"""The index's file: an SQLite database with a write-ahead log. SQLite's errors become ours.

A file may be damaged, or somebody may have made it look like an index. So its tables have to be exactly ours, without
triggers and views, and every value that is read has to have its type.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from voxrill.runtime.errors import DataError, UsageError, VoxrillError

Row = TypeVar("Row", bound=tuple[Any, ...])

APPLICATION = 0x766F7864  # "voxd", so that another program's database is not taken for an index
PATIENCE = 60.0  # seconds to wait for another process that is writing
RETRY = 0.01  # seconds between two attempts where SQLite does not wait by itself

LARGEST_NUMBER = 2**63 - 1  # that SQLite keeps

_ELSEWHERE = "Give another place: --index FILE"
_AGAIN = "Remove it if it was an index: it is made again"

SCHEMA = """
CREATE TABLE files (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    read_ns INTEGER NOT NULL, hash TEXT NOT NULL, made_by TEXT NOT NULL
);
CREATE TABLE passages (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files, first INTEGER NOT NULL, last INTEGER NOT NULL
);
CREATE INDEX passages_of_file ON passages (file);
CREATE VIRTUAL TABLE words USING fts5(name, heading, text, tokenize = 'porter unicode61 remove_diacritics 2');
"""

VECTORS = """
CREATE TABLE IF NOT EXISTS vectors (
    passage INTEGER PRIMARY KEY REFERENCES passages, model TEXT NOT NULL, vector BLOB NOT NULL
)
"""
"""The vectors of passages, in float16 numbers, and the sentence model that made each."""


def open_database(place: Path) -> sqlite3.Connection:
    """Open an index's file, or make it. Only its owner may read it: it holds the documents' text.

    Raises:
        DataError: it is something else.
        UsageError: it cannot be written.
        VoxrillError: this Python's SQLite lacks FTS5.
    """
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch(mode=0o600)
    except OSError as error:
        raise UsageError(f"{place} cannot be written: {error.strerror}", _ELSEWHERE) from None
    if not place.is_file():
        raise UsageError(f"{place} is not a regular file", _ELSEWHERE)
    with told(place):
        database = sqlite3.connect(place, timeout=PATIENCE, isolation_level=None, check_same_thread=False)
        try:
            _prepare(database, place)
        except BaseException:
            database.close()
            raise
    return database


def _prepare(database: sqlite3.Connection, place: Path) -> None:
    database.execute("PRAGMA trusted_schema = OFF")
    _write_ahead(database)
    database.execute("PRAGMA synchronous = NORMAL")  # with WAL a power cut may lose the last files, never the index
    with transaction(database):
        (application,) = database.execute("PRAGMA application_id").fetchone()
        (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application != APPLICATION and tables:
            raise DataError(f"{place} is another program's database", _ELSEWHERE)
        if not tables:
            for statement in SCHEMA.split(";\n"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(VECTORS)
        if _tables(database) != _our_tables():
            raise DataError(f"{place} is not an index as this Voxrill makes it", _AGAIN)


def _our_tables() -> set[tuple[str, str, str]]:
    with closing(sqlite3.connect(":memory:")) as database:
        for statement in (*SCHEMA.split(";\n"), VECTORS):
            database.execute(statement)
        return _tables(database)


def _tables(database: sqlite3.Connection) -> set[tuple[str, str, str]]:
    """Kind, name and SQL of everything in a database, without the tables that FTS5 makes for itself."""
    rows = database.execute("SELECT type, name, coalesce(sql, '') FROM sqlite_master").fetchall()
    return {(kind, name, sql) for kind, name, sql in rows if kind != "table" or not str(name).startswith("words_")}


def _write_ahead(database: sqlite3.Connection) -> None:
    """Switch to the write-ahead log. SQLite needs the file for itself then, and does not wait for it, so we do."""
    until = time.monotonic() + PATIENCE
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(RETRY)


@contextmanager
def transaction(database: sqlite3.Connection) -> Iterator[None]:
    """All of the `with` block happens, or nothing; another process that wants to write waits meanwhile."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


@contextmanager
def told(place: Path) -> Iterator[None]:
    """SQLite's errors as one line each."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if "no such module" in str(error):
            raise VoxrillError(
                "this Python's SQLite was built without FTS5, its search by words",
                "Use a Python that has it: those of python.org, Debian, Homebrew, conda and uv do",
            ) from None
        raise UsageError(f"the index {place} cannot be used: {error}", _ELSEWHERE) from None
    except (sqlite3.DatabaseError, UnicodeDecodeError, msgspec.ValidationError) as error:
        # UnicodeDecodeError: SQLite's own message quoted the bytes of a damaged name.
        raise DataError(f"{place} is not an index that can be read ({error})", _AGAIN) from None


def checked_row(row: Any, kind: type[Row]) -> Row:
    """A row of the index, with its types checked: SQLite lets a column hold values of any type.

    Raises:
        msgspec.ValidationError: a value has another type; `told` makes a `DataError` of it.
    """
    found: Row = msgspec.convert(row, kind)
    return found


def quoted(word: str) -> str:
    """A word, quoted so that FTS5 does not read it as an operator."""
    return '"' + word.replace('"', '""') + '"'
