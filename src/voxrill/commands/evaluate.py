"""The commands eval asr, eval tts, eval chat and eval voicebench.

The table goes to stdout. With --json, a line for each answer and a last line of figures go there. Progress goes to
stderr.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from voxrill.commands.failures import Failures
from voxrill.commands.options import (
    JsonOption,
    Loading,
    MaxOption,
    SystemOption,
    loads_model,
)
from voxrill.commands.output import err, print_json
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_output
from voxrill.runtime.apps.evaluation import evaluating
from voxrill.runtime.apps.evaluation.evaluating import SEED, Wish
from voxrill.runtime.apps.evaluation.page import write_page
from voxrill.runtime.apps.evaluation.prompts import read_questions, read_texts
from voxrill.runtime.apps.evaluation.recordings import file_name, read_recordings
from voxrill.runtime.apps.evaluation.running import Evaluation
from voxrill.runtime.apps.evaluation.tables import CAPTION, table
from voxrill.runtime.apps.evaluation.tasks import ModelKeywords
from voxrill.runtime.apps.evaluation.voicebench import read_voicebench, response_files, unscored, write_responses
from voxrill.runtime.picture import figure_class
from voxrill.runtime.progress import step_progress

DataOption = Annotated[
    Path, typer.Option("--data", help="File or folder; docs/guides/evaluate.md says what it may hold.")
]
PeerOption = Annotated[
    list[str] | None,
    typer.Option("--peer", help="NAME=FILE: another program's answers as JSON Lines; may be given several times."),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option("-o", "--out", help="JSON Lines of answers. After an interruption, the same command goes on."),
]
ReportOption = Annotated[Path | None, typer.Option("--report", help="HTML file to write.")]
NormaliserOption = Annotated[
    str | None,
    typer.Option(
        "--normaliser",
        help="How to normalise texts: english or basic (Whisper's), characters (each is a word), or none.  "
        "[default: english; characters for a Japanese model]",
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", help="The name of this bundle's rows; without it, the bundle's name.")
]
LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="Items at most, of each subset.")]
SeedOption = Annotated[int, typer.Option("--seed", help="The same seed gives the same answers.")]


group = typer.Typer(
    name="eval",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    help="Score answers and their times beside other programs'.",
)
"""The command eval, with a command for each kind of evaluation."""


@dataclass(frozen=True)
class Shown:
    """How results are shown: as JSON, in a report, and what else is done with them."""

    json: bool
    report: Path | None
    more: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Common:
    """The options that every evaluation has."""

    peer: PeerOption = None
    out: ResultsOption = None
    report: ReportOption = None
    normaliser: NormaliserOption = None
    name: NameOption = None
    limit: LimitOption = None
    system: SystemOption = None
    max_new_tokens: MaxOption = None
    seed: SeedOption = SEED
    json: JsonOption = False

    @property
    def wish(self) -> Wish:
        """What is evaluated, and how."""
        options: ModelKeywords = {"system": self.system, "max_new_tokens": self.max_new_tokens, "seed": self.seed}
        return Wish(self.peer or (), self.out, self.normaliser, self.name, self.limit, options)

    def shown(self, more: Callable[[], None] = lambda: None) -> Shown:
        """How its results are shown."""
        return Shown(self.json, self.report, more)


@group.command()
@loads_model
def asr(
    data: DataOption,
    loading: Loading = Loading(),
    common: Common = Common(),
) -> None:
    """Transcribe recordings whose words are known: word error rate."""
    items = read_recordings(data)
    _run(evaluating.asr(loading.model(), items, common.wish), data, common.shown())


@group.command()
@loads_model
def tts(
    data: DataOption,
    judge: Annotated[
        str,
        typer.Option(
            help="Who hears it: pocketsphinx, pocketsphinx-texts (it chooses one of the texts), bundle, none."
        ),
    ] = "pocketsphinx",
    judge_file: Annotated[
        Path | None, typer.Option(help="JSON Lines of id and text: what another recogniser heard in --sounds.")
    ] = None,
    sounds: Annotated[Path | None, typer.Option(help="Folder to keep every sound in, as ID.wav.")] = None,
    voice: Annotated[str | None, typer.Option(help="A voice of the model; inspect lists them.")] = None,
    loading: Loading = Loading(),
    common: Common = Common(),
) -> None:
    """Say texts, and have another recogniser write down what it hears: word error rate of the round trip."""
    items = read_texts(data)
    if sounds is not None:
        for item in items:
            check_output(sounds / f"{file_name(item.id)}.wav", [data], makes_folder=True)
    model = loading.model()
    made = evaluating.tts(model, items, common.wish, voice=voice, judge=judge, judge_file=judge_file, sounds=sounds)
    _run(made, data, common.shown())


@group.command()
@loads_model
def chat(
    data: DataOption,
    output: Annotated[str, typer.Option(help="Answer in text, or in text and aloud: text or both.")] = "both",
    judge: Annotated[
        str, typer.Option(help="Who hears what is said aloud: pocketsphinx, pocketsphinx-texts, bundle, none.")
    ] = "none",
    loading: Loading = Loading(),
    common: Common = Common(),
) -> None:
    """Answer spoken questions whose answers are known."""
    items = read_questions(data)
    _run(
        evaluating.chat(loading.model(), items, common.wish, output=output, judge=judge),
        data,
        common.shown(),
    )


@group.command()
@loads_model
def voicebench(
    data: DataOption,
    responses: Annotated[Path | None, typer.Option(help="Folder for VoiceBench's own result files.")] = None,
    output: Annotated[str, typer.Option(help="Answer in text, or in text and aloud: text or both.")] = "text",
    modality: Annotated[str, typer.Option(help="Ask aloud or in writing: audio or text.")] = "audio",
    loading: Loading = Loading(),
    common: Common = Common(),
) -> None:
    """Answer VoiceBench's questions: scored here if no judge is needed, or written for VoiceBench's own judge."""
    items = read_voicebench(data, modality)
    model = loading.model()
    made = evaluating.voicebench(model, items, common.wish, output=output, modality=modality)
    if responses is not None:
        for path in response_files(responses, made.name, modality, items).values():
            check_output(path, [data], makes_folder=True)
    _run(made, data, common.shown(lambda: _responses(made, responses, modality)))


def _run(evaluation: Evaluation, data: Path, shown: Shown) -> None:
    """Ask, score and show.

    Raises:
        UsageError: something cannot be written.
        DataError: an item failed; that is said at the end.
    """
    check_output(evaluation.out, [data], resumed=True)
    check_output(shown.report, [data, evaluation.out])
    if shown.report is not None:
        figure_class("eval")  # refused before the answers take their hours
    for peer in evaluation.peers:
        if peer.others:
            err.print(f"{peer.name}: {peer.others} of its lines answer no item of the data", style="yellow")
    failures = Failures(len(evaluation.task.items))
    with step_progress(err, evaluation.task.name) as evaluation.progress, closing(iter(evaluation)) as answers:
        for outcome in answers:
            if outcome.error:
                failures.tell(f"{outcome.id}: {outcome.error}")
            if shown.json:
                print_json({"event": "answer", **msgspec.to_builtins(outcome)})
    _show(evaluation, data, shown)
    failures.check()


def _show(evaluation: Evaluation, data: Path, shown: Shown) -> None:
    if evaluation.found_before:
        err.print(
            f"{evaluation.found_before} of {len(evaluation.task.items)} items were answered by an earlier run",
            style="dim",
        )
    rows = evaluation.rows
    if shown.json:
        print_json({"event": "rows", "task": evaluation.task.name, "rows": [row.as_json() for row in rows]})
    else:
        stdout.print(table(rows, f"{evaluation.task.name}: {data}"))
        err.print(CAPTION, style="dim")
    if shown.report is not None:
        write_page(shown.report, evaluation, data)
        err.print(f"wrote {shown.report}", soft_wrap=True)
    shown.more()


def _responses(evaluation: Evaluation, folder: Path | None, modality: str) -> None:
    """Write VoiceBench's result files, and name the subsets that need its own judge."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        files = write_responses(folder, evaluation.name, modality, evaluation.task.items, evaluation.outcomes)
        err.print(f"wrote {len(files)} of VoiceBench's result files to {folder}", soft_wrap=True)
    for subset, evaluator in unscored(evaluation.task.items).items():
        err.print(f"{subset} is not scored here: use VoiceBench's evaluate.py --evaluator {evaluator}", soft_wrap=True)
