"""A run: every item is asked once, and the outcomes are kept and scored beside those of peers.

In: a task, peers, perhaps a file of results. Out: outcomes as they are made, then rows. A later run with the same file
asks only what is missing in it, and refuses a file that was made with other settings. The first item is asked once
before it is timed, as a warm-up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from voxrill.runtime.apps.batch import ResultsFile, made_with, short_hash
from voxrill.runtime.apps.evaluation.figures import Row, rows_of
from voxrill.runtime.apps.evaluation.items import Item, Outcome, read_json_lines
from voxrill.runtime.apps.evaluation.peers import Peer
from voxrill.runtime.apps.evaluation.tasks import EvaluationTask
from voxrill.runtime.bundle.bundle import hash_file
from voxrill.runtime.errors import DataError, VoxrillError
from voxrill.runtime.input_file import decoded
from voxrill.runtime.progress import Progress, no_progress


@dataclass
class Evaluation:
    """Iterate it for outcomes as they are made; `rows` and `outcomes` finish what is left.

    name: the name of our own rows; normaliser: the task's; settings: what shapes an answer besides model and options;
    out: a file of results as JSON Lines, which a later run continues; heard: texts of another judge, which replace the
    texts of our outcomes.
    """

    task: EvaluationTask
    name: str
    normaliser: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    peers: Sequence[Peer] = ()
    out: Path | None = None
    heard: Mapping[str, Outcome] | None = None
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        self._outcomes: dict[str, Outcome] = {}
        self.found_before = 0

    def __iter__(self) -> Generator[Outcome, None, None]:
        """Answer the items without an answer, one at a time."""
        made = short_hash(self._made())
        with ExitStack() as stack:
            results = stack.enter_context(ResultsFile(self.out, made, "list of results")) if self.out else None
            # An answer is only taken over if its question is the same: a changed sound is asked again.
            hashes = {item.id: _hash(item) for item in self.task.items}
            if results is not None and self.out is not None:
                self._take_over(self.out, [item for item in self.task.items if results.has(item.id, hashes[item.id])])
            left = [item for item in self.task.items if item.id not in self._outcomes]
            self._warm_up(left)
            for number, item in enumerate(left):
                self.progress(item.id, number, len(left))
                outcome = self._answer(item)
                if results is not None:
                    results.add(_record(outcome, hashes[item.id], made))
                self._outcomes[item.id] = outcome
                yield outcome

    @property
    def outcomes(self) -> Mapping[str, Outcome]:
        """Our outcomes by item; with `heard`, they have its texts."""
        if len(self._outcomes) < len(self.task.items):
            for _ in self:
                pass
        if self.heard is None:
            return self._outcomes
        empty = Outcome("", error="not judged")
        return {
            name: msgspec.structs.replace(one, text=self.heard.get(name, empty).text)
            for name, one in self._outcomes.items()
        }

    @property
    def rows(self) -> list[Row]:
        """Our rows, then the peers'."""
        ours = rows_of(self.task, self.name, self.outcomes)
        return ours + [row for peer in self.peers for row in rows_of(self.task, peer.name, peer.outcomes)]

    def contestants(self) -> dict[str, Mapping[str, Outcome]]:
        """The outcomes of all contestants by name, ours first."""
        return {self.name: self.outcomes} | {peer.name: peer.outcomes for peer in self.peers}

    def _made(self) -> dict[str, Any]:
        options = {"task": self.task.name, **self.task.options, **self.settings}
        return made_with(self.task.model.bundle, options)

    def _take_over(self, out: Path, done: Sequence[Item]) -> None:
        """Take over the outcomes of an earlier run; if an item has several, the last one counts."""
        found: dict[str, Outcome] = {}
        for number, fields in read_json_lines(out):
            outcome = decoded(partial(msgspec.convert, fields, Outcome), f"{out} line {number}", "Give another --out")
            found[outcome.id] = outcome
        missing = [item.id for item in done if item.id not in found]
        if missing:
            raise DataError(f"{out} says that {missing[0]} was answered, and has no answer", "Give another --out")
        self.found_before = len(done)
        self._outcomes.update((item.id, found[item.id]) for item in done)

    def _warm_up(self, items: Sequence[Item]) -> None:
        """Answer once and forget it: the first answer of a process is slower, as memory and threads are new."""
        if items:
            self.progress("warming up", 0, len(items))
            self._answer(items[0])

    def _answer(self, item: Item) -> Outcome:
        try:
            return self.task.answer(item)
        except VoxrillError as error:
            return Outcome(item.id, error=str(error))


def _record(outcome: Outcome, sha256: str, made: str) -> dict[str, Any]:
    return {"file": outcome.id, "sha256": sha256, "made_with": made, **msgspec.to_builtins(outcome)}


def _hash(item: Item) -> str:
    """The hash of a question: its sound, the place in it, its words."""
    sound = hash_file(item.audio) if item.audio else ""
    asked = [sound, item.offset, item.duration, item.prompt]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()
