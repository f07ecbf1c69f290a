"""Where a model's nodes run and their time goes, by execution provider: no fallback stays unseen.

In: a model that was loaded with a folder for onnxruntime's records. Out: nodes and milliseconds by graph and provider.
A plugin takes nodes together and runs them as one, so nodes are counted as they were handed out, times as they ran.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from voxrill.runtime.model import Model
from voxrill.runtime.tuning import outputs

ROUNDS = 4
"""Times that all graphs run. The median of a node's calls counts, so the first, which is slow, does not."""

_TIMED = "_kernel_time"


@dataclass(frozen=True)
class Share:
    """What one provider (full name) does of one graph: nodes by operator, milliseconds of one call."""

    graph: str
    provider: str
    nodes: Counter[str]
    milliseconds: float


def report(model: Model) -> list[Share]:
    """Run all graphs of a model, which must have been loaded with `profile`, and share out their nodes and time."""
    for _ in range(ROUNDS):
        outputs(model)
    shares = []
    for name, graph in model.graphs.items():
        given, taken = graph.assigned(), _milliseconds(graph.end_profile())
        shares += [Share(name, provider, nodes, taken[provider]) for provider, nodes in given.items()]
    return shares


def _milliseconds(record: Path) -> defaultdict[str, float]:
    """Milliseconds of one call by provider: the medians of all nodes' calls, added up."""
    calls: dict[tuple[str, str], list[float]] = {}
    for provider, node, microseconds in _calls(record):
        calls.setdefault((provider, node), []).append(microseconds)
    taken: defaultdict[str, float] = defaultdict(float)
    for (provider, _), times in calls.items():
        taken[provider] += median(times) / 1e3
    return taken


def _calls(record: Path) -> Iterator[tuple[str, str, float]]:
    """Provider, node and microseconds of every call that onnxruntime recorded."""
    events: list[dict[str, Any]] = msgspec.json.decode(record.read_bytes())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_TIMED):
            yield event["args"]["provider"], event["name"], event["dur"]
