"""Predicted against measured: what `devices/stages.py` predicts for this benchmark's machine, beside every sample.

In: `results-lfm2.5.json`. Out: a table and a plot. Samples that a constant of the planner was fitted to are marked, and
are no test. All others are. The bandwidth is from the benchmark's own probe, with one thread and with two.

    python -m benchmarks.prediction
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.protocol import Json
from benchmarks.report import ReportGroup, ReportRow, table, threads_of
from voxrill.devices.known import KV_BYTES, known_model, model
from voxrill.devices.stages import Machine, ModelShape, StageSeconds, widths_of
from voxrill.runtime.picture import save_picture

RESULTS = Path(__file__).with_name("results-lfm2.5.json")
PLOT = Path(__file__).with_name("prediction-lfm2.5.png")

PROMPT = 70
"""Positions around the question here: the tokenizer of the random checkpoint has few words and spells the prompt out.
This is an estimate, made when the measured time to first sound was known."""
GROUPS = ("decode", "growth", "prefill", "speech")
PRECISIONS = ("float32", "int8", "mixed", "int4", "int4-fast-prefill")
FITTED = (
    ("decode", "float32", 1, {"context": 200, "head": False}),
    ("decode", "float32", 1, {"context": 200, "head": True}),
    ("prefill", "int8", 1, {"positions": 100}),
    ("prefill", "int4", 1, {"positions": 100}),
    ("encoder", "int8", 1, {"seconds": 4.0}),
    ("encoder", "int8", 1, {"seconds": 30.0}),
)
"""Stage, precision, threads and arguments of the samples that gave the constants."""
COLOURS = {"decode": "tab:blue", "prefill": "tab:orange", "encoder": "tab:green"}


@dataclass(frozen=True)
class Point:
    """One stage: seconds a call as predicted and as measured; for speech, per second of sound."""

    row: ReportRow
    precision: str
    threads: int
    predicted: float
    measured: float

    @property
    def fitted(self) -> bool:
        """Whether a constant was fitted to it."""
        return (self.row.stage, self.precision, self.threads, self.row.args) in FITTED

    @property
    def error(self) -> float:
        """Error as a share of the measured time. Above 0 the prediction is too slow."""
        return self.predicted / self.measured - 1


def machine(content: Json) -> Machine:
    """The benchmark's machine, with the bandwidth measured beside the step."""
    one, two = (ReportGroup(content["groups"]["decode"], threads).bandwidth() or 0.0 for threads in (1, 2))
    return Machine(25e9, two, one, 2, 2.6, 128, 32, matrix_units=True)


def predict(stages: StageSeconds, row: ReportRow) -> float:
    """The planner's prediction for a stage of the benchmark."""
    calls: dict[str, Any] = {
        "decode": lambda: stages.step(row.args["context"], row.args["head"]),
        "prefill": lambda: stages.prefill(row.args["positions"]),
        "encoder": lambda: stages.encoder(row.args["seconds"]),
        "frame": stages.frame,
        "codec": stages.codec,
        "first_audio": lambda: stages.first_audio(PROMPT, row.args["seconds"]),
        "speech": stages.speech,
    }
    return float(calls[row.stage]())


def points(content: Json) -> Iterator[Point]:
    """Every stage that was measured and can be predicted."""
    for name in GROUPS:
        record = content["groups"][name]
        for group in (ReportGroup(record, threads) for threads in threads_of(record)):
            for precision in PRECISIONS:
                stages = StageSeconds(_model(content, precision), machine(content), group.threads)
                for row in group.rows():
                    seconds = group.seconds(f"voxrill {precision}", row)
                    if seconds is not None:
                        yield Point(row, precision, group.threads, predict(stages, row), seconds)


def _model(content: Json, precision: str) -> Any:
    """The planner's model; for a bundle with a second decoder, a model from the sizes in the results."""
    if precision != "int4-fast-prefill":
        return _measured(known_model(precision))
    found = content["contenders"][f"voxrill {precision}"]
    graphs = {name: (size, widths_of(found["precision"][name])) for name, size in found["graphs"].items()}
    known = _measured(known_model("int4"))
    return model(precision, graphs, known.kv_bytes, known.memory)


def _measured(shape: ModelShape) -> ModelShape:
    """The model as it was measured: every recipe had a float32 KV cache then."""
    return replace(shape, kv_bytes=KV_BYTES, kv_cache="float32")


def report(found: list[Point]) -> str:
    """Every point, then a summary of those that are a test."""
    rows = [
        [
            f"{point.row.label}, {point.precision}, {point.threads}" + (" (fitted)" if point.fitted else ""),
            f"{1000 * point.predicted:.1f}",
            f"{1000 * point.measured:.1f}",
            f"{100 * point.error:+.0f} %",
        ]
        for point in found
    ]
    parts = [table("predicted against measured", ["stage, precision, threads", "predicted, ms", "ms", "error"], rows)]
    for stage in dict.fromkeys(point.row.stage for point in found):
        errors = [abs(point.error) for point in found if point.row.stage == stage and not point.fitted]
        middle, worst = 100 * median(errors), 100 * max(errors)
        parts.append(f"{stage}: {len(errors)} tests, median {middle:.0f} %, worst {worst:.0f} %")
    return "\n".join(parts)


def plot(found: list[Point], path: Path) -> None:
    """Predicted over measured, with bands of 20 and 30 %."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 8), layout="constrained")
    axes = figure.subplots()
    ends = [2.0, 8000.0]
    for share, alpha in ((0.3, 0.12), (0.2, 0.2)):
        low, high = ([end * factor for end in ends] for factor in (1 - share, 1 + share))
        axes.fill_between(ends, low, high, color="gray", alpha=alpha, label=f"within {100 * share:.0f} %", linewidth=0)
    axes.plot(ends, ends, color="black", linewidth=0.8)
    for label, some in _kinds(found).items():
        hollow = label.endswith("fitted on")
        axes.scatter(
            [1000 * point.measured for point in some],
            [1000 * point.predicted for point in some],
            label=label,
            edgecolors="black" if hollow else COLOURS.get(label, "tab:red"),
            facecolors="none" if hollow else COLOURS.get(label, "tab:red"),
        )
    axes.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=ends, ylim=ends)
    axes.set_title("LFM2.5-Audio-1.5B, random weights, every precision, 1 and 2 threads")
    axes.legend()
    save_picture(figure, path, dpi=100)


def _kinds(found: list[Point]) -> dict[str, list[Point]]:
    """Points by their label in the legend."""
    kinds: dict[str, list[Point]] = {}
    for point in found:
        label = point.row.stage if point.row.stage in COLOURS else "other stages"
        kinds.setdefault("fitted on" if point.fitted else label, []).append(point)
    return kinds


def main() -> None:
    """Print the table and draw the plot."""
    found = list(points(json.loads(RESULTS.read_text(encoding="utf-8"))))
    print(report(found))
    plot(found, PLOT)


if __name__ == "__main__":
    main()
