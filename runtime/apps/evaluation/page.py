"""An evaluation as one HTML file: tables, charts and the worst answers.

In: an evaluation. Out: a page in light and dark colours. The page fetches nothing, and every text in it is escaped.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from html import escape
from pathlib import Path

from voxrill.devices.processor import cores, processor
from voxrill.runtime.apps.evaluation.charts import share_chart, wait_chart
from voxrill.runtime.apps.evaluation.figures import Row
from voxrill.runtime.apps.evaluation.items import Item, Outcome
from voxrill.runtime.apps.evaluation.running import Evaluation
from voxrill.runtime.apps.evaluation.tables import CAPTION, cells_of, heads_of
from voxrill.runtime.apps.evaluation.tasks import WER, EvaluationTask
from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.printable import as_unicode
from voxrill.runtime.version import VERSION

WORST = 30
"""Wrong answers of ours that the page shows."""

COMPARED = 400
"""Words of an answer that are compared with the right ones, at most: the time grows with the cube of their number."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --paper: #fff; --line: #d5dae2; --soft: #5c6675;
  --bad: #fbdcdc; --good: #d9f2df; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ee; --paper: #14171c; --line: #363d48; --soft: #9aa5b4;
  --bad: #5a2328; --good: #1d4a2b; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.scroll { overflow-x: auto; } .soft { color: var(--soft); }
table { border-collapse: collapse; } td, th { border-bottom: 1px solid var(--line); padding: .35rem .7rem;
  text-align: right; vertical-align: top; } td:first-child, th:first-child, .text th, .text td { text-align: left; }
.figures td { white-space: nowrap; }
del { background: var(--bad); } ins { background: var(--good); text-decoration: none; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--ink) !important; }
"""


def write_page(file: Path, evaluation: Evaluation, data: Path) -> None:
    """Write the page; the file appears when it is complete.

    Raises:
        MissingDependency: there is nothing to draw its charts with.
        OSError: it cannot be written.
    """
    with atomic_write(file) as part:
        part.write_text(page(evaluation, data), encoding="utf-8")


def page(evaluation: Evaluation, data: Path) -> str:
    """The page."""
    task, rows = evaluation.task, evaluation.rows
    title = escape(f"{task.name}: {as_unicode(data)}")
    parts = [
        f"<h1>{title}</h1>",
        f'<p class="soft">{escape(_about(evaluation))}</p>',
        _table(heads_of(rows), [cells_of(row, heads_of(rows)) for row in rows], "figures"),
        f'<p class="soft">{escape(CAPTION)}</p>',
        *_charts(rows, evaluation.contestants()),
        *_worst(task, evaluation.contestants()),
    ]
    head = (
        '<meta charset="utf-8"><meta name="generator" content="Voxrill">'
        f'<meta name="viewport" content="width=device-width"><title>{title}</title>'
    )
    top = f'<!DOCTYPE html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>'
    return f"{top}\n<body>{''.join(parts)}</body></html>\n"


def marked(wanted: str, found: str) -> str:
    """The words that were found, as HTML: missing words are struck out, and wrong words are marked."""
    right, said = wanted.split()[:COMPARED], found.split()[:COMPARED]
    parts = []
    for kind, a, b, c, d in SequenceMatcher(None, right, said, autojunk=False).get_opcodes():
        if kind == "equal":
            parts.append(escape(" ".join(said[c:d])))
            continue
        parts += [f"<del>{escape(' '.join(right[a:b]))}</del>"] if b > a else []
        parts += [f"<ins>{escape(' '.join(said[c:d]))}</ins>"] if d > c else []
    return " ".join(parts)


def _about(evaluation: Evaluation) -> str:
    task, model = evaluation.task, evaluation.task.model
    precisions = "+".join(sorted({graph.precision for graph in model.manifest.graphs.values()}))
    known = {"normaliser": evaluation.normaliser, **evaluation.settings}
    settings = ", ".join(f"{name} {value}" for name, value in known.items() if value is not None)
    bundle = f"{model.manifest.name} ({precisions}, {model.bundle.sha256[:12]})"
    where = f"Voxrill {VERSION} on {processor()}, {model.threads or cores()} threads"
    return (
        f"{bundle} with {where}; {len(task.items)} items; "
        f"{settings}; {time.strftime('%Y-%m-%d %H:%M')}. Peers' times are those that they state, on their own machines."
    )


def _charts(rows: Sequence[Row], contestants: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    figures = list(dict.fromkeys(name for row in rows for name in row.figures))
    drawn = [f"<h2>{escape(name)}</h2>{share_chart(rows, name)}" for name in figures]
    waits = {
        name: [one.seconds for one in outcomes.values() if one.seconds is not None]
        for name, outcomes in contestants.items()
    }
    if any(waits.values()):
        drawn.append(f"<h2>Answers within a time</h2>{wait_chart(waits)}")
    return drawn


def _worst(task: EvaluationTask, contestants: Mapping[str, Mapping[str, Outcome]]) -> list[str]:
    """Our wrong answers, the worst ones first, each beside the peers' answers."""
    ours, *_ = contestants.values()
    wrong = sorted(((_wrongness(task, item, ours), item) for item in task.items), key=lambda pair: -pair[0])
    shown = [item for share, item in wrong if share > 0][:WORST]
    if not shown:
        return []
    normalise = task.normalise
    lines = []
    for item in shown:
        wanted = normalise(item.wanted)
        answers = [outcomes.get(item.id, Outcome(item.id)) for outcomes in contestants.values()]
        cells = [escape(one.error) or marked(wanted, normalise(one.text)) for one in answers]
        lines.append("".join(f"<td>{cell}</td>" for cell in (escape(item.id), escape(wanted), *cells)))
    heads = "".join(f"<th>{escape(head)}</th>" for head in ("", "right", *contestants))
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return [f'<h2>Wrong answers</h2><div class="scroll"><table class="text"><tr>{heads}</tr>{body}</table></div>']


def _wrongness(task: EvaluationTask, item: Item, outcomes: Mapping[str, Outcome]) -> float:
    """How wrong an answer is by its task's first figure: errors for each word, or 1 for an answer that is not right."""
    marks = task.marks([item], [outcomes.get(item.id, Outcome(item.id))])
    if not marks:
        return 0.0
    name, [(part, whole)] = next(iter(marks.items()))
    if not whole:
        return 0.0
    # Word errors count what is wrong, and all other figures count what is right.
    return part / whole if name == WER else 1.0 - part / whole


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    top = "".join(f"<th>{escape(head)}</th>" for head in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{_cell(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f'<div class="scroll"><table class="{kind}"><tr>{top}</tr>{lines}</table></div>'


def _cell(text: str) -> str:
    above, _, below = escape(text).partition("\n")
    return f'{above}<br><span class="soft">{below}</span>' if below else above
