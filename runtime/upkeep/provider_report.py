"""Where a model's nodes run and their time goes, by execution provider: no fallback stays unseen.

In: a model that was loaded with a folder for onnxruntime's records. Out: nodes and milliseconds by graph and provider.
A plugin takes nodes together and runs them as one, so nodes are counted as they were handed out, times as they ran.
What a provider that is a part of onnxruntime was handed is not told, so its nodes are counted as they ran, too.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.upkeep.tuning import outputs

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


def report(model: Engine) -> list[Share]:
    """Run all graphs of a model, which must have been loaded with `profiling`, and share out their nodes and time."""
    for _ in range(ROUNDS):
        outputs(model)
    shares = []
    for name, graph in model.graphs.items():
        given, calls = graph.assigned(), list(_calls(graph.end_profiling()))
        if graph.provider.plugin is None and not graph.on_cpu:
            given |= _nodes(calls, graph.provider.full_name)
        taken = _milliseconds(calls)
        shares += [Share(name, provider, nodes, taken[provider]) for provider, nodes in given.items()]
    return shares


@dataclass(frozen=True)
class _Call:
    """One call of a node."""

    provider: str
    node: str
    operator: str
    microseconds: float


def _nodes(calls: list[_Call], provider: str) -> dict[str, Counter[str]]:
    """The nodes that a provider ran, by operator; without it if there were none."""
    operators = {call.node: call.operator for call in calls if call.provider == provider}
    return {provider: Counter(operators.values())} if operators else {}


def _milliseconds(calls: list[_Call]) -> defaultdict[str, float]:
    """Milliseconds of one call by provider: the medians of all nodes' calls, added up."""
    times: dict[tuple[str, str], list[float]] = {}
    for call in calls:
        times.setdefault((call.provider, call.node), []).append(call.microseconds)
    taken: defaultdict[str, float] = defaultdict(float)
    for (provider, _), of_node in times.items():
        taken[provider] += median(of_node) / 1e3
    return taken


def _calls(record: Path) -> Iterator[_Call]:
    """Every call that onnxruntime recorded."""
    events: list[dict[str, Any]] = msgspec.json.decode(record.read_bytes())
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_TIMED):
            about = event["args"]
            yield _Call(about["provider"], event["name"], about["op_name"], event["dur"])
