"""How well a folder is searched: `python -m benchmarks.documents [SENTENCE_MODEL]`. No other model is needed.

In: `examples/documents/`, the questions to it, and the folder of a sentence-transformers model in ONNX, or none. Out:
how many questions have a passage with their answer among the first 1, 3 and 5, and how many find anything at all, by
threshold; what the sentence model costs. Documents and questions are our own and few: the figures tell two ways of
searching apart, and do not carry over to other documents.
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
    """With one threshold: questions answered among the first so many passages, and those that found any passage.

    hits: by rank; found: of the questions that have an answer; invented: of those that have none.
    """

    hits: dict[int, int]
    found: int
    invented: int


def questions() -> tuple[list[tuple[str, str, int]], list[str]]:
    """(question, file, line) of those with an answer, and the questions without one."""
    content = tomllib.loads((EXAMPLES / "questions.toml").read_text(encoding="utf-8"))
    return [(entry["ask"], entry["file"], entry["line"]) for entry in content["answered"]], content["unanswered"]


def measure(index: Index, relevant: float = RELEVANT) -> Searched:
    """Ask everything of an index of `examples/documents`."""
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
                print(f"threshold {relevant}: {hits}; {searched.found} found something, {searched.invented} wrongly")
            if passages:
                print(f"{1000 * made / passages:.0f} ms of processor time a passage, {1000 * asked:.0f} ms a question")


if __name__ == "__main__":
    main(*sys.argv[1:])
