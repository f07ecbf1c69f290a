"""Tables of what the benchmark measured.

In: the content of `results.json`. Out: Markdown tables, which also read well in a terminal. Every figure is the median
of its samples: wall time, with the processor time of the process in brackets. The contenders of one table were loaded
together and asked in turn, so compare only figures of one table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contenders import BANDWIDTH, PRODUCTS, SMALL_PAGES
from benchmarks.groups import CODEC, FRAME, GROUPS, STEP, STEP_WITH_HEAD, BenchStage
from benchmarks.protocol import Json

BASELINE = "llama.cpp Q4_0"
FRAME_SECONDS = 0.08
NONE = "–"


@dataclass(frozen=True)
class ReportRow:
    """One stage in a table: its label, and its unit: ms for a call, or x for seconds per second of sound."""

    label: str
    stage: str
    args: Json
    unit: str = "ms"


class ReportGroup:
    """One group's figures, for one number of threads."""

    def __init__(self, record: Json, threads: int) -> None:
        self.threads = threads
        self.loads = [load for load in record["loads"] if load["threads"] == threads]
        self._samples = [sample for sample in record["samples"] if sample["threads"] == threads]

    @property
    def contenders(self) -> list[str]:
        """Contenders with any figure, in the order in which they were asked."""
        listed = self._samples or self.loads
        names = dict.fromkeys(entry["contender"] for entry in listed)
        return [name for name in names if not name.startswith(BANDWIDTH)]

    def rows(self) -> list[ReportRow]:
        """Every stage that was measured."""
        samples = [sample for sample in self._samples if not sample["contender"].startswith(BANDWIDTH)]
        found = {json.dumps([sample["stage"], sample["args"]]): sample for sample in samples}
        return [_row(sample["stage"], sample["args"]) for sample in found.values()]

    def sample(self, contender: str, stage: str, args: Json) -> Json | None:
        """The samples of one contender in one stage."""
        for sample in self._samples:
            if (sample["contender"], sample["stage"], sample["args"]) == (contender, stage, args):
                found: Json = sample
                return found
        return None

    def seconds(self, contender: str, row: ReportRow, clock: str = "wall") -> float | None:
        """Median seconds of a call, or per second of sound, as the row says."""
        sample = self.sample(contender, row.stage, row.args)
        if sample is None:
            return None
        pairs = zip(sample[clock], sample["amount"], strict=True)
        return float(median(time / amount if row.unit == "x" else time for time, amount in pairs))

    def rate(self, contender: str, row: ReportRow) -> float | None:
        """Bytes a second that a contender reads in a stage whose amount is bytes."""
        sample = self.sample(contender, row.stage, row.args)
        if sample is None:
            return None
        return float(median(amount / wall for wall, amount in zip(sample["wall"], sample["amount"], strict=True)))

    def bandwidth(self) -> float | None:
        """Bytes a second that the threads read, measured in the same rounds as the step: the better kind of pages."""
        rates = [self.rate(name, row_of(STEP_WITH_HEAD)) for name in (BANDWIDTH, SMALL_PAGES)]
        return max((rate for rate in rates if rate), default=None)

    def bandwidths(self) -> str:
        """The rates of both kinds of pages, in words; empty where they were not measured."""
        names = {BANDWIDTH: "huge pages", SMALL_PAGES: "small ones"}
        rates = {what: self.rate(name, row_of(STEP_WITH_HEAD)) for name, what in names.items()}
        return ", ".join(f"{rate / 1e9:.1f} GB/s from {what}" for what, rate in rates.items() if rate)

    def peak(self, contender: str) -> float | None:
        """The most memory of any stage, in bytes."""
        return max((s["peak"] for s in self._samples if s["contender"] == contender), default=None)


def row_of(stage: BenchStage) -> ReportRow:
    """A stage as a row."""
    return _row(stage.name, stage.args)


def _row(stage: str, args: Json) -> ReportRow:
    """A stage's label and unit in a table."""
    labels: dict[str, Callable[[], str]] = {
        "decode": lambda: f"step at {args['context']}{', with text head' if args['head'] else ''}",
        "prefill": lambda: f"prefill of {args['positions']}",
        "product": lambda: f"{args['bits']} bits, a scale for {args['block'] or 'all'} rows",
        "frame": lambda: "depthformer, one frame",
        "encoder": lambda: f"encoder, {args['seconds']:g} s of sound",
        "spoken_step": lambda: "step and depthformer, one frame",
        "codec": lambda: "codec, one frame",
        "first_text": lambda: f"{args['seconds']:g} s question to first token",
        "first_audio": lambda: f"{args['seconds']:g} s question to first sound",
        "speech": lambda: "interleaved speech, time per second of sound",
    }
    return ReportRow(labels[stage](), stage, args, "x" if stage == "speech" else "ms")


def figure(seconds: float | None, cpu: float | None, unit: str = "ms") -> str:
    """Wall time and, in brackets, processor time."""
    if seconds is None or cpu is None:
        return NONE
    scale = 1.0 if unit == "x" else 1000.0
    return f"{_short(seconds * scale)} ({_short(cpu * scale)})"


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{digits}f}"


def ratio(value: float | None, baseline: float | None) -> str:
    """How many times faster than the baseline."""
    return f"{baseline / value:.2f}x" if value and baseline else NONE


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns."""
    lines = [list(header), *map(list, rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]

    def text(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells[1:], widths[1:], strict=True))]
        return f"| {' | '.join(padded)} |"

    rule = "|" + "|".join("-" * (width + 1) + (":" if i else "-") for i, width in enumerate(widths)) + "|"
    return "\n".join([f"**{title}**", "", text(lines[0]), rule, *map(text, lines[1:]), ""])


def load_table(record: Json, group: ReportGroup, contenders: Json) -> str:
    """Size, load time and memory after loading."""
    rows = []
    for name in group.contenders:
        loads = [load for load in group.loads if load["contender"] == name]
        resident = median(load["memory"].get("resident", 0) for load in loads)
        mapped = median(load["memory"].get("mapped", 0) for load in loads)
        huge = median(load["memory"].get("huge", 0) + load["memory"].get("huge_files", 0) for load in loads)
        times = figure(median(load["wall"] for load in loads), median(load["cpu"] for load in loads), "x")
        size = contenders[name].get("bytes")
        rows.append([name, _gigabytes(size), times, _gigabytes(resident), _gigabytes(mapped), _gigabytes(huge)])
    header = ["", "size, GB", "load, s", "resident, GB", "of it mapped", "on huge pages"]
    return table(f"{record['about']}, {_threads(group)}", header, rows)


def _threads(group: ReportGroup) -> str:
    return f"{group.threads} thread{'s' if group.threads > 1 else ''}"


def _gigabytes(size: float | None) -> str:
    return NONE if size is None else f"{size / 1e9:.2f}"


def made_table(made: Json) -> str:
    """How long it took to make bundles and other files; empty if nothing was made."""
    rows = [[what, figure(took["wall"], took["cpu"], "x"), _gigabytes(took["peak"])] for what, took in made.items()]
    return table("making it, once", ["", "time, s", "peak memory, GB"], rows) if rows else ""


def decode_table(record: Json, group: ReportGroup, contenders: Json) -> str:
    """The step: time, share of what the memory allows, and speed against llama.cpp."""
    bandwidth = group.bandwidth()
    with_head, without = (row_of(stage) for stage in (STEP_WITH_HEAD, STEP))
    baseline = group.seconds(BASELINE, with_head)
    rows = []
    for name in group.contenders:
        read = contenders[name].get("read_per_step", {}).get("step_with_head")
        seconds = group.seconds(name, with_head)
        share = f"{100 * read / bandwidth / seconds:.0f} %" if read and bandwidth and seconds else NONE
        figures = [
            figure(group.seconds(name, row), group.seconds(name, row, "cpu"), row.unit) for row in (with_head, without)
        ]
        rows.append([name, _gigabytes(read), *figures, share, ratio(seconds, baseline)])
    rate = f"; the memory gives {group.bandwidths()}" if bandwidth else ""
    header = ["ms", "reads, GB", "with text head", "without", "share of read limit", f"against {BASELINE}"]
    return table(f"{record['about']}, {_threads(group)}{rate}", header, rows)


def product_table(record: Json, group: ReportGroup) -> str:
    """The kernels by themselves: time of a chain, and how close they come to the memory's rate."""
    rows = []
    for row in group.rows():
        kernels, memory = (group.rate(name, row) for name in (PRODUCTS, BANDWIDTH))
        if kernels and memory:
            time = figure(group.seconds(PRODUCTS, row), group.seconds(PRODUCTS, row, "cpu"))
            rates = [f"{rate / 1e9:.1f}" for rate in (kernels, memory)]
            rows.append([row.label, time, *rates, f"{100 * kernels / memory:.0f} %"])
    header = ["", "ms", "reads, GB/s", "the memory, GB/s", "share"]
    return table(f"{record['about']}, {_threads(group)}", header, rows)


def stage_table(record: Json, group: ReportGroup, baseline: str | None) -> str:
    """Stages by contenders. With a baseline, also how many times faster than the baseline."""
    header = ["ms", *group.contenders]
    rows = []
    for row in group.rows():
        against = group.seconds(baseline, row) if baseline else None
        cells = [row.label]
        for name in group.contenders:
            seconds = group.seconds(name, row)
            text = figure(seconds, group.seconds(name, row, "cpu"), row.unit)
            cells.append(f"{text} {ratio(seconds, against)}" if against and seconds and name != baseline else text)
        rows.append(cells)
    return table(f"{record['about']}, {_threads(group)}", header, rows)


def budget_rows(speech: ReportGroup, decode: ReportGroup | None) -> list[list[str]]:
    """The cost of 80 ms of sound after the end of the text: a step without text head, a frame, its codec."""
    if decode is None:
        return []
    rows = []
    for name in speech.contenders:
        parts = [decode.seconds(name, row_of(STEP))]
        parts += [speech.seconds(name, row_of(stage)) for stage in (FRAME, CODEC)]
        if all(parts):
            total = sum(part or 0.0 for part in parts)
            peak = speech.peak(name)
            rows.append([name, *(_short(1000 * (part or 0.0)) for part in parts), _short(total / FRAME_SECONDS)])
            rows[-1].append(_gigabytes(peak))
    return rows


def budget_table(speech: ReportGroup, decode: ReportGroup | None) -> str:
    """`budget_rows` as a table; empty without figures."""
    rows = budget_rows(speech, decode)
    header = ["ms", "step", "frame", "codec", "time per second of sound", "peak memory, GB"]
    return table(f"speech once the text has ended, {_threads(speech)}", header, rows) if rows else ""


def skipped_list(groups: Json) -> str:
    """Everything that was asked for and not measured, with the reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, record in groups.items():
        for skip in record["skipped"]:
            what = f"{name}: {_row(skip['stage'], skip['args']).label}" if "stage" in skip else f"all of {name}"
            found.setdefault((skip["contender"], skip["reason"]), []).append(what)
    rows = [f"- {contender}, {'; '.join(what)}: {reason}" for (contender, reason), what in found.items()]
    return "\n".join(["**Not measured**", "", *rows, ""]) if rows else ""


def head(content: Json) -> str:
    """The machine, and how to read what follows."""
    facts = content["machine"]
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    return (
        f"{facts['processor']}, {facts['cores']} cores, {', '.join(facts['flags'])}; {facts['memory_gb']} GB; "
        f"{facts.get('pages', 'pages not noted')}; "
        f"{facts['system']}; Python {facts['python']}, {packages}.\n\n"
        f"Family {content['settings']['family']}, random weights. Medians; wall time, processor time in brackets."
        f"{_quick(content)}\n"
    )


def _quick(content: Json) -> str:
    """A warning about groups that have one sample of everything."""
    names = ", ".join(name for name, record in content["groups"].items() if record.get("quick"))
    return f" Of one sample each, which shows that it works but not how fast: {names}." if names else ""


def tables(content: Json) -> str:
    """Every table that has figures."""
    groups, contenders = content["groups"], content["contenders"]
    parts = [head(content)]
    for group in GROUPS:
        record = groups.get(group.name)
        for threads in threads_of(record):
            figures = ReportGroup(record, threads)
            if group.name == "load":
                parts.append(load_table(record, figures, contenders))
            elif group.name == "decode":
                parts.append(decode_table(record, figures, contenders))
            elif group.name == "products":
                parts.append(product_table(record, figures))
            else:
                parts.append(stage_table(record, figures, _baseline(group.name, figures)))
            if group.name == "speech":
                decode = groups.get("decode")
                parts.append(budget_table(figures, ReportGroup(decode, threads) if decode else None))
    parts.append(made_table(content.get("made", {})))
    parts.append(skipped_list(groups))
    return "\n".join(part for part in parts if part)


def threads_of(record: Json | None) -> list[int]:
    """The numbers of threads a group was measured with."""
    entries = (record["samples"] or record["loads"]) if record else []
    return sorted({entry["threads"] for entry in entries})


def _baseline(group: str, figures: ReportGroup) -> str | None:
    """What a group's contenders are compared with."""
    torch = [name for name in figures.contenders if name.startswith("torch")]
    wanted = torch if group.startswith("reference") else [BASELINE]
    return next((name for name in wanted if name in figures.contenders), None)
