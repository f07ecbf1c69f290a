"""Is a bundle ready for the NPU of an RK3588? Its encoder and codec are built and simulated by Rockchip's toolkit.

In: a float32 bundle of the npu flavour, and the interpreter of an environment with rknn-toolkit2. Out: for each graph,
in float16 and in 8 bits, how far the simulated outputs are from the CPU's over several steps, each of which starts from
its own last state, and which nodes the NPU would not run. This is a simulator: it does not show that a board runs the
graph, or how fast.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from voxrill.devices.providers import CPU, session_options
from voxrill.export.npu_check import TOLERANCE, Array, GraphSession, choose_graphs, largest_difference, state_loop
from voxrill.export.rknn_session import find_interpreter, simulated
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.compiled import npu_graphs
from voxrill.runtime.bundle.contract import AUDIO_ENCODER
from voxrill.runtime.bundle.manifest import FLOAT32
from voxrill.runtime.errors import UsageError
from voxrill.runtime.progress import Progress, no_progress

Precision = Literal["float16", "int8"]
PRECISIONS: tuple[Precision, ...] = ("float16", "int8")


@dataclass(frozen=True)
class Built:
    """One graph in one precision.

    seconds: to start the toolkit and to build; difference: see `TOLERANCE`; refused: nodes that the toolkit cannot run;
    on_cpu: nodes that the processor would run, both as `name (operator)`. In 8 bits the ranges are chosen with the same
    inputs that the graph is then tried with.
    """

    precision: Precision
    seconds: float
    difference: float
    refused: list[str]
    on_cpu: list[str]

    @property
    def good(self) -> bool:
        """Whether every node can run, and the numbers agree with the CPU's."""
        return not self.refused and self.difference <= TOLERANCE


@dataclass
class RknnCheck:
    """What was found for one graph."""

    graph: str
    forms: list[Built] = field(default_factory=list)

    @property
    def ready(self) -> bool:
        """Whether it is good in one precision."""
        return any(form.good for form in self.forms)


class _RecordedSession:
    """A session whose feeds are kept."""

    def __init__(self, session: GraphSession) -> None:
        self._session = session
        self.feeds: list[dict[str, Array]] = []

    def run(self, names: list[str], feeds: dict[str, Array]) -> list[Array]:
        """Run once."""
        self.feeds.append(feeds)
        return self._session.run(names, feeds)


def rknn_graphs(bundle: Bundle) -> list[str]:
    """The graphs to check, without the backbone: it is too large in float16, and Rockchip has another tool for it.

    Raises:
        UsageError: the bundle is of the cpu flavour, or quantised.
    """
    names = [name for name in npu_graphs(bundle) if name in (AUDIO_ENCODER, bundle.manifest.model.codec.graph)]
    for name in names:
        precision = bundle.manifest.graphs[name].precision
        if precision != FLOAT32:
            raise UsageError(
                f"{name} is in {precision}, and Rockchip's toolkit takes float32 only, because it quantises by itself",
                "Give it the float32 bundle",
            )
    return names


def check_for_rknn(
    bundle: Bundle, python: Path, only: Sequence[str] = (), progress: Progress = no_progress
) -> list[RknnCheck]:
    """Check the encoder and codec of `bundle`, or those in `only`.

    Raises:
        UsageError: not a float32 bundle of the npu flavour, `only` names another graph, or `python` has no toolkit.
        BundleError: the toolkit does not take a graph.
    """
    chosen = choose_graphs(rknn_graphs(bundle), only)
    interpreter = find_interpreter(python)
    checks = [RknnCheck(name) for name in chosen]
    total = len(checks) * len(PRECISIONS)
    for index, check in enumerate(checks):
        path, loop = bundle.path(bundle.manifest.graphs[check.graph].file), partial(state_loop, bundle, check.graph)
        on_cpu = _RecordedSession(ort.InferenceSession(str(path), session_options(), providers=[CPU]))
        expected = loop(on_cpu)
        for done, precision in enumerate(PRECISIONS, index * len(PRECISIONS)):
            progress(f"{check.graph} in {precision}", done, total)
            start = time.perf_counter()
            with simulated(interpreter, path, on_cpu.feeds if precision == "int8" else ()) as session:
                seconds = round(time.perf_counter() - start, 2)
                difference = largest_difference(expected, loop(session))
                check.forms.append(Built(precision, seconds, difference, session.refused, session.on_cpu))
    progress("done", total, total)
    return checks
