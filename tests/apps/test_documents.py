"""Documents without a model: reading, cutting, the index and what becomes of it, searching, and citations."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from threading import Barrier

import pytest

from benchmarks.documents import EXAMPLES, measure
from tests.command_line import clean_environment
from voxrill.runtime.apps.documents import database, folder
from voxrill.runtime.apps.documents import index as indexing
from voxrill.runtime.apps.documents.citations import LONGEST, Citation, CitationFilter
from voxrill.runtime.apps.documents.index import Index, default_place
from voxrill.runtime.apps.documents.passages import OVERLAP, SIZE, split
from voxrill.runtime.apps.documents.reader import Unreadable, read_blocks
from voxrill.runtime.errors import DataError, UsageError, VoxrillError


def count(text):
    return len(text.split())


@pytest.fixture
def docs(tmp_path):
    """A folder of documents."""
    (tmp_path / "docs").mkdir()
    return tmp_path / "docs"


@pytest.fixture
def opened(docs, tmp_path):
    """Its index, not brought up to date."""
    with Index(docs, count, "words", tmp_path / "index.sqlite3") as index:
        yield index


def rows(place):
    """All that an index holds, file by file; the file must be whole."""
    database = sqlite3.connect(place)
    try:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        assert database.execute("SELECT id FROM passages ORDER BY id").fetchall() == (
            database.execute("SELECT rowid FROM words ORDER BY rowid").fetchall()
        )
        return database.execute(
            "SELECT files.name, hash, first, last, heading, text FROM files LEFT JOIN passages ON file = files.id"
            " LEFT JOIN words ON words.rowid = passages.id ORDER BY files.name, first, last"
        ).fetchall()
    finally:
        database.close()


# Reading


MARKDOWN = "# One\n\nA line\nand more.\n\nTwo\n---\nText. # no heading\n\n```\n# a comment\n```\n### Three ##\nEnd."
RST = "=====\nTitle\n=====\n\nA paragraph\nof two lines.\n\nSection\n-------\nMore.\n"
HTML = "<head><title>x</title></head>\n<h1>One\n</h1><p>A <b>bold</b>\nword.<script>no()</script>\n<ul><li>Two<li>Three"


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        (
            "a.md",
            MARKDOWN,
            [
                (1, 1, "One", True),
                (3, 4, "A line\nand more.", False),
                (6, 7, "Two", True),
                (8, 8, "Text. # no heading", False),
                (10, 12, "```\n# a comment\n```", False),
                (13, 13, "Three", True),
                (14, 14, "End.", False),
            ],
        ),
        (
            "a.rst",
            RST,
            [
                (1, 3, "Title", True),
                (5, 6, "A paragraph\nof two lines.", False),
                (8, 9, "Section", True),
                (10, 10, "More.", False),
            ],
        ),
        ("a.txt", "# no heading\n=====\n", [(1, 2, "# no heading\n=====", False)]),
        (
            "a.txt",
            "one\x0cpage\r\n\r\ntwo\x1b[2J\u2028three",
            [(1, 1, "one page", False), (3, 3, "two [2J\u2028three", False)],
        ),
        (
            "a.HTML",
            HTML,
            [
                (1, 1, "x", True),
                (2, 2, "One", True),
                (3, 4, "A bold word.", False),
                (5, 5, "Two", False),
                (5, 5, "Three", False),
            ],
        ),
        ("a.html", "&lt;b&gt; & caf&eacute;", [(1, 1, "<b> & café", False)]),
        ("a.txt", "", []),
        ("a.html", "", []),
    ],
    ids=["markdown", "rst", "txt", "controls", "html", "entities", "empty", "empty-html"],
)
def test_blocks_and_their_lines(name, content, wanted):
    blocks = read_blocks(name, content.encode())
    assert [(block.first, block.last, block.text, block.heading) for block in blocks] == wanted


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_unicode_however_it_is_encoded(encoding):
    (block,) = read_blocks("a.txt", "über\n".encode(encoding))
    assert block.text == "über"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"\x7fELF\0\1\2", "binary"), (b"\x89PNG\0\xff", "binary"), (b"caf\xe9", "UTF-8"), (b"\xff\xfea", "UTF-8")],
)
def test_what_is_no_text_is_refused(content, reason):
    with pytest.raises(Unreadable, match=reason):
        read_blocks("a.txt", content)


# Passages


def numbered(paragraphs, words):
    """Paragraphs of so many words each, all words different, an empty line between two."""
    return "\n\n".join(" ".join(f"w{p}x{w}" for w in range(words)) for p in range(paragraphs))


def test_passages_fit_overlap_and_leave_nothing_out():
    text = numbered(40, 35)
    passages = list(split(read_blocks("a.txt", text.encode()), count))
    lines = text.split("\n")
    for passage in passages:
        assert count(passage.text) <= SIZE
        assert passage.text.split() == " ".join(lines[passage.first - 1 : passage.last]).split()
    for before, after in pairwise(passages):
        assert before.first < after.first <= before.last < after.last  # the last paragraph, 35 of at most 40 words
        assert count(" ".join(lines[after.first - 1 : before.last])) <= OVERLAP
    assert {word for passage in passages for word in passage.text.split()} == set(text.split())


def test_passages_end_at_headings():
    passages = list(split(read_blocks("a.md", b"before\n# One\nfirst\n\nsecond\n# Empty\n# Two\nthird"), count))
    assert [(p.first, p.last, p.heading) for p in passages] == [(1, 1, ""), (2, 5, "One"), (7, 8, "Two")]


@pytest.mark.parametrize(
    "text",
    ["\n".join(f"{n} " + "word " * 30 for n in range(40)), "word " * 3000, "x" * 20_000, "水" * 5000],
    ids=["lines", "one-line", "one-word", "no-spaces"],
)
@pytest.mark.parametrize("name", ["a.txt", "a.html"])
def test_a_paragraph_beyond_every_size_is_cut(name, text):
    by_characters = lambda part: -(-len(part) // 4)  # noqa: E731
    passages = list(split(read_blocks(name, text.encode()), by_characters, 200, 0))
    assert len(passages) > 1 and all(by_characters(p.text) <= 200 for p in passages)
    assert "".join("".join(p.text.split()) for p in passages) == "".join(text.split())
    if name == "a.txt":
        lines = text.split("\n")
        for passage in passages:
            assert passage.text.split()[0] in lines[passage.first - 1]
            assert passage.text.split()[-1] in lines[passage.last - 1]


# The index


def test_only_what_changed_is_read(docs, opened, monkeypatch):
    for name in ("a.txt", "b.txt", "c.txt"):
        (docs / name).write_text(f"words of {name}")
        os.utime(docs / name, (1, 1))
    assert opened.update().read == ["a.txt", "b.txt", "c.txt"]
    read = []
    monkeypatch.setattr(indexing, "content", lambda docs, name: read.append(name) or folder.content(docs, name))
    assert opened.update().unchanged == ["a.txt", "b.txt", "c.txt"] and read == []
    (docs / "b.txt").write_text("other words")
    os.utime(docs / "c.txt", (2, 2))  # touched only
    (docs / "a.txt").unlink()
    update = opened.update()
    assert (update.read, update.unchanged, update.forgotten) == (["b.txt"], ["c.txt"], ["a.txt"])
    assert read == ["b.txt", "c.txt"]
    assert [row[0] for row in rows(opened.place)] == ["b.txt", "c.txt"]
    assert opened.search("other")


def test_a_change_that_size_and_time_do_not_show_is_seen_while_the_file_is_young(docs, opened):
    path = docs / "a.txt"
    path.write_text("black")
    opened.update()
    status = path.stat()
    path.write_text("white")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert opened.update().read == ["a.txt"]
    assert opened.search("white") and not opened.search("black")


def test_another_tokenizer_makes_its_own_passages(docs, opened):
    (docs / "a.txt").write_text(numbered(10, 30))
    opened.update()
    with Index(docs, lambda text: 2 * count(text), "other", opened.place) as other:
        assert other.update().read == ["a.txt"]
        assert all(2 * count(row[-1]) <= SIZE for row in rows(other.place))


def test_what_cannot_be_read_is_named_and_the_rest_is_read(docs, opened):
    (docs / "sub").mkdir()
    (docs / "sub" / "good.MD").write_text("# Good\nwords")
    (docs / "empty.txt").touch()
    (docs / "photo.jpg").write_bytes(b"\xff\xd8\0")
    (docs / "binary.txt").write_bytes(bytes(100))
    (docs / ".hidden.txt").write_text("secret")
    os.mkfifo(docs / "pipe.txt")
    (docs / "gone.txt").symlink_to("nowhere")
    (docs / "loop").symlink_to(docs)
    update = opened.update()
    assert update.read == ["empty.txt", "sub/good.MD"]
    assert update.refused == {
        "binary.txt": "binary, not text",
        "gone.txt": "No such file or directory",
        "loop": "a link to a folder",
        "photo.jpg": "not .txt, .md, .rst, .html, .htm",
        "pipe.txt": "not a regular file",
    }
    assert not opened.search("secret")


def test_a_document_that_turns_binary_is_forgotten(docs, opened):
    (docs / "a.txt").write_text("words")
    (docs / "b.txt").write_text("more")
    opened.update()
    (docs / "a.txt").write_bytes(b"\0\0")
    update = opened.update()
    assert update.forgotten == ["a.txt"] and "a.txt" in update.refused
    assert not opened.search("words")


def test_a_document_that_is_too_large(docs, opened, monkeypatch):
    monkeypatch.setattr(folder, "LARGEST", 1 << 20)
    (docs / "a.txt").write_bytes(b"x" * ((1 << 20) + 1))
    with pytest.raises(UsageError, match=r"a\.txt \(larger than 1 MB\)"):
        opened.update()


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_a_name_that_is_no_text(docs, opened):
    (docs / "good.txt").write_text("words")
    (Path(os.fsdecode(bytes(docs))) / os.fsdecode(b"caf\xe9.txt")).write_text("x")
    assert list(opened.update().refused.values()) == ["its name is not UTF-8"]


def test_an_index_is_for_its_owner_only(opened):
    assert opened.place.stat().st_mode & 0o777 == 0o600


def test_the_index_of_a_folder_lies_in_the_cache(docs, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = default_place(docs)
    assert place != default_place(tmp_path) and place == default_place(docs / ".." / "docs")
    if sys.platform == "linux":
        assert place.is_relative_to(tmp_path / "cache" / "voxrill")


@pytest.mark.parametrize("content", [b"years of work" * 100, b"SQLite format 3\0 and nothing"], ids=["text", "cut"])
def test_a_file_that_is_no_index_is_left_alone(docs, tmp_path, content):
    (tmp_path / "thesis").write_bytes(content)
    with pytest.raises(DataError, match="thesis is not an index"):
        Index(docs, count, "words", tmp_path / "thesis")
    assert (tmp_path / "thesis").read_bytes() == content


def test_another_program_s_database_is_left_alone(docs, tmp_path):
    other = sqlite3.connect(tmp_path / "mail.sqlite3")
    other.execute("CREATE TABLE mails (text)")
    other.close()
    with pytest.raises(DataError, match="another program's database"):
        Index(docs, count, "words", tmp_path / "mail.sqlite3")


def test_sqlite_without_full_text_search_is_explained(docs, tmp_path, monkeypatch):
    monkeypatch.setattr(database, "SCHEMA", database.SCHEMA.replace("fts5", "fts_missing"))
    with pytest.raises(VoxrillError, match=r"built without FTS5.*python\.org"):
        Index(docs, count, "words", tmp_path / "index.sqlite3")


def test_a_place_that_cannot_be_written(docs, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be written"):
        Index(docs, count, "words", tmp_path / "file" / "index.sqlite3")


# Killed, and two at once


UPDATE = """
import os, signal, sys
from pathlib import Path
from voxrill.runtime.apps.documents.index import Index
folder, place, statements = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
with Index(folder, lambda text: len(text.split()), "words", place) as index:
    def counted(statement):
        global statements
        statements -= 1
        if statements == 0:
            os.kill(os.getpid(), signal.SIGKILL)
    if statements:
        index._database.set_trace_callback(counted)
    index.update()
"""


def updating(folder, place, statements=0):
    command = [sys.executable, "-c", UPDATE, str(folder), str(place), str(statements)]
    return subprocess.Popen(command, env=clean_environment())


def write_documents(docs, files):
    for number in range(files):
        (docs / f"{number:03}.txt").write_text(f"file number {number}\n\n{numbered(12, 30)}\n")


def test_killed_at_any_statement_it_is_an_index_of_whole_files(docs, tmp_path):
    write_documents(docs, 8)
    with Index(docs, count, "words", tmp_path / "whole.sqlite3") as index:
        index.update()
    whole = rows(tmp_path / "whole.sqlite3")
    place, before = tmp_path / "killed.sqlite3", -1
    for statements in (9, 23, 40, 57, 61):  # within the second file's rows, and later; each goes on from the last
        process = updating(docs, place, statements)
        assert process.wait(60) == -signal.SIGKILL
        kept = rows(place)
        names = {row[0] for row in kept}
        assert kept == [row for row in whole if row[0] in names]
        assert before <= len(names) < 8
        before = len(names)
    assert before > 0
    assert updating(docs, place).wait(60) == 0
    assert rows(place) == whole


def test_two_processes_at_once_make_one_index(docs, tmp_path):
    write_documents(docs, 40)
    with Index(docs, count, "words", tmp_path / "whole.sqlite3") as index:
        index.update()
    both = [updating(docs, tmp_path / "shared.sqlite3") for _ in range(2)]
    assert [process.wait(120) for process in both] == [0, 0]
    assert rows(tmp_path / "shared.sqlite3") == rows(tmp_path / "whole.sqlite3")


def test_an_index_is_opened_by_many_at_once(tmp_path):
    """Each wants the new file alone for a moment."""
    together = Barrier(4)

    def enter(place):
        together.wait()
        database.open_database(place).close()

    with ThreadPoolExecutor(4) as pool:
        for number in range(20):
            list(pool.map(enter, [tmp_path / f"{number}.sqlite3"] * 4))


# Searching


def test_the_examples_are_found(tmp_path):
    """The figures of docs/performance.md and of `RELEVANT`, with words for tokens."""
    with Index(EXAMPLES / "documents", count, "words", tmp_path / "index.sqlite3") as index:
        index.update()
        assert measure(index, relevant=0.0).hits == {1: 34, 3: 40, 5: 41}
        searched = measure(index)
    assert searched.hits == {1: 36, 3: 38, 5: 38}
    assert (searched.found, searched.invented) == (41, 0)


@pytest.mark.parametrize(
    "question", ["", "?!", "what is it", "zebra", '"', "AND OR NOT", "*", "a" * 100_000, "\0", "²", "ª"]
)
def test_a_question_of_nothing_finds_nothing(docs, opened, question):
    (docs / "a.txt").write_text("The kettle is in the kitchen.")
    opened.update()
    assert opened.search(question) == []


def test_one_strange_word_hides_nothing(docs, opened):
    (docs / "a.txt").write_text("Descaling: fill the kettle with vinegar.")
    opened.update()
    assert opened.search("How do I descale the kettle quickly?")


def test_words_are_found_in_other_forms(docs, opened):
    (docs / "a.txt").write_text("Descaling kettles in the Café.")
    opened.update()
    (found,) = opened.search("How do I descale the kettle of the cafe?")
    assert (found.file, found.first, found.last, found.coverage) == ("a.txt", 1, 1, 1.0)


# Citations


SOURCES = (Citation("kettle.md", 3, 9), Citation("my notes/a b.txt", 4, 4))


@pytest.mark.parametrize(
    ("written", "kept", "removed"),
    [
        ("Boil it [1].", "Boil it [kettle.md, lines 3-9].", []),
        ("Boil it [1, 2]!", "Boil it [kettle.md, lines 3-9] [my notes/a b.txt, line 4]!", []),
        ("Boil it [3]. Rinse [0].", "Boil it. Rinse.", ["[3]", "[0]"]),
        ("Boil it [2; 7].", "Boil it [my notes/a b.txt, line 4].", ["[7]"]),
        ("See [kettle.md, lines 4-5].", "See [kettle.md, lines 4-5].", []),
        ("See [kettle.md lines 9 – 9]", "See [kettle.md, line 9]", []),
        ("See [kettle.md, lines 4-10].", "See.", ["[kettle.md, lines 4-10]"]),
        ("See [kettle.md, lines 9-3].", "See.", ["[kettle.md, lines 9-3]"]),
        ("See [other.md, line 3].", "See.", ["[other.md, line 3]"]),
        ("See [other.md].", "See.", ["[other.md]"]),
        ("See [page iv], [sic] [x].", "See [page iv], [sic] [x].", []),
        ("See [¹] [①] [٣].", "See.", ["[¹]", "[①]", "[3]"]),
        ("See [1", "See", ["[1"]),
        ("See [the kettle", "See the kettle", []),
        ("See [[9]1].", "See 1].", ["[9]"]),
        ("See [a [1].", "See a [kettle.md, lines 3-9].", []),
        (f"See [1{' ' * LONGEST}x].", "See x].", [f"[1{' ' * (LONGEST - 1)}"]),
        ("One [1]\n\nTwo\n\n [1]\n", "One [kettle.md, lines 3-9]\n\nTwo\n\n [kettle.md, lines 3-9]\n", []),
    ],
)
def test_citations_that_do_not_exist_are_taken_out(written, kept, removed):
    checking = CitationFilter(SOURCES)
    assert "".join(map(checking.push, written)) + checking.flush() == kept
    assert checking.removed == removed


PARTS = ("[", "]", "1", "2", "3", ", ", " ", "kettle.md", ", lines 3-9", "line 4", "word", "\n", "[1]", ".txt")


def test_however_it_comes_the_text_is_the_same_and_cites_what_exists():
    chance = random.Random(0)
    cited = 0
    for _ in range(3000):
        written = "".join(chance.choices(PARTS, k=chance.randint(1, 30)))
        outcomes = set()
        for size in (1, 3, len(written)):
            checking = CitationFilter(SOURCES)
            pieces = [written[at : at + size] for at in range(0, len(written), size)]
            outcomes.add("".join(map(checking.push, pieces)) + checking.flush())
        (text,) = outcomes
        assert "[" not in re.sub(r"\[[^\[\]]*\]", "", text)
        for within in re.findall(r"\[([^\[\]]*)\]", text):
            if re.search(r"\d|\.md|\.txt", within):
                assert exists(within, SOURCES)
                cited += 1
    assert cited > 3000


def exists(citation, sources):
    """Whether the text of a citation is of lines that are among the sources'."""
    file, first, last = re.fullmatch(r"(.+), lines? (\d+)(?:-(\d+))?", citation).groups()
    lines = set(range(int(first), int(last or first) + 1))
    return bool(lines) and any(file == s.file and lines <= set(range(s.first, s.last + 1)) for s in sources)


def test_text_is_handed_out_as_soon_as_it_is_certain():
    checking = CitationFilter(SOURCES)
    assert [checking.push(piece) for piece in ("Boil", " it ", "[1", "]", ".")] == [
        "Boil",
        " it",
        "",
        " [kettle.md, lines 3-9]",
        ".",
    ]
