"""How well a folder is searched: `python -m benchmarks.documents [SENTENCE_MODEL]`. It needs no other model.

In: `examples/documents/`, its questions, and the folder of a sentence-transformers model in ONNX, or none. Out, for
each threshold: how many questions have a passage with their answer among the first 1, 3 and 5, and how many find a
passage at all; and the time that the sentence model takes. Documents and questions are our own, and there are few. The
figures can compare two ways of searching. They do not hold for other documents.
"""

from __future__ import annotations

import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from voxrill.runtime.apps.documents.embeddings import Embedder
from voxrill.runtime.apps.documents.index import BEST, RELEVANT, FoundPassage, Index
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.manifest import TOKENIZER_FILE
from voxrill.runtime.engine.tokenizer import Tokenizer

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
RANKS = (1, 3, BEST)
THRESHOLDS = (0.0, 0.3, 0.4, RELEVANT, 0.5)


@dataclass(frozen=True)
class Searched:
    """What the questions find with one threshold.

    hits: by rank, the questions with their answer among that many first passages; found: the questions with an answer
    that find a passage; invented: the questions without an answer that find one.
    """

    hits: dict[int, int]
    found: int
    invented: int


def questions() -> tuple[list[tuple[str, str, int]], list[str]]:
    """(question, file, line) of the questions with an answer, and the questions without one."""
    content = tomllib.loads((EXAMPLES / "questions.toml").read_text(encoding="utf-8"))
    return [(entry["ask"], entry["file"], entry["line"]) for entry in content["answered"]], content["unanswered"]


def measure(index: Index, relevant: float = RELEVANT) -> Searched:
    """Ask an index of `examples/documents` all questions."""
    answered, unanswered = questions()
    results = [(index.search(ask, BEST, relevant), file, line) for ask, file, line in answered]
    hits = {rank: sum(_holds(found[:rank], file, line) for found, file, line in results) for rank in RANKS}
    invented = sum(bool(index.search(ask, BEST, relevant)) for ask in unanswered)
    return Searched(hits, sum(bool(found) for found, _, _ in results), invented)


def _holds(found: Sequence[FoundPassage], file: str, line: int) -> bool:
    return any(passage.file == file and passage.first <= line <= passage.last for passage in found)


def main(sentences: str | None = None) -> None:
    """Print the table."""
    answered, unanswered = questions()
    tokenizer = Tokenizer(open_builtin().path(TOKENIZER_FILE))
    embedder = None if sentences is None else Embedder(Path(sentences))
    with TemporaryDirectory() as folder:
        place = Path(folder) / "index.sqlite3"
        with Index(EXAMPLES / "documents", tokenizer.count, "pebble", place, embedder) as index:
            began = time.process_time()
            passages = index.update().embedded
            made = time.process_time() - began
            print(f"{len(answered)} questions with an answer, {len(unanswered)} without")
            for relevant in THRESHOLDS:
                began = time.process_time()
                searched = measure(index, relevant)
                asked = (time.process_time() - began) / (len(answered) + len(unanswered))
                hits = ", ".join(f"{hits} in the first {rank}" for rank, hits in searched.hits.items())
                found = f"{searched.found} find something, and so do {searched.invented} without an answer"
                print(f"threshold {relevant}: {hits}; {found}")
            if passages:
                print(f"processor time: {1000 * made / passages:.0f} ms a passage, {1000 * asked:.0f} ms a question")


if __name__ == "__main__":
    main(*sys.argv[1:])
