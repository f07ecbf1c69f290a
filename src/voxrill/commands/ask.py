"""The command that answers from documents: ask.

The answer goes to stdout as it is made, and then the sources. With --json all of it goes there as JSON. Everything else
goes to stderr.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from voxrill.commands.options import (
    STDIN,
    ForceOption,
    JsonOption,
    Loading,
    OutOption,
    TextWish,
    TrimOption,
    loads_model,
    sound_source,
    stdin_text,
)
from voxrill.commands.output import STDOUT, err, print_json, sound_sink
from voxrill.commands.output_files import check_sound_output
from voxrill.model import Model
from voxrill.runtime.apps.documents import asking
from voxrill.runtime.apps.documents.answer import NOTHING_FOUND, Answer, AnswerText
from voxrill.runtime.apps.documents.index import BEST, Update, refusals
from voxrill.runtime.apps.documents.prompt import QuotedSource, source
from voxrill.runtime.engine.options import AnswerKeywords
from voxrill.runtime.errors import UsageError
from voxrill.runtime.printable import as_unicode, printable
from voxrill.runtime.progress import step_progress


@loads_model
def ask(
    question: Annotated[str | None, typer.Argument(help="The question; - reads it from stdin.")] = None,
    docs: Annotated[Path | None, typer.Option(help="Folder of documents: .txt, .md, .rst, .html.")] = None,
    audio: Annotated[Path | None, typer.Option(help="The question as sound, alone or with a text.")] = None,
    trim: TrimOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    quote: Annotated[bool, typer.Option("--quote", help="Show the passages themselves, and no answer.")] = False,
    passages: Annotated[int, typer.Option(min=1, help="Passages at most, for the model or to show.")] = BEST,
    index: Annotated[
        Path | None, typer.Option(help="File of the index; without one, a file in your cache.", show_default=False)
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option(
            help="Folder of a sentence-transformers model in ONNX: finds passages that use other words, too.",
            show_default=False,
        ),
    ] = None,
    snapshot: Annotated[
        Path | None, typer.Option(help="Instead of --docs: a file that voxrill snapshot --document FILE --ask wrote.")
    ] = None,
    loading: Loading = Loading(),
    voice: Annotated[str | None, typer.Option(help="A voice of the model; inspect lists them.")] = None,
    json: JsonOption = False,
    wish: TextWish = TextWish(),
) -> None:
    """Answer a question from your own documents, citing file and lines."""
    if (docs is None) == (snapshot is None):
        raise UsageError("ask needs one source of answers", "Give either --docs FOLDER or --snapshot FILE")
    if quote and (out is not None or docs is None):
        raise UsageError("--quote only shows passages of --docs", "Leave out -o and --snapshot")
    if out == STDOUT:
        raise UsageError("the answer's text goes to stdout already", "Give -o the name of a file")
    check_sound_output(out, [audio, snapshot], force=force)
    spoken = None if audio is None else sound_source(audio)
    model = loading.model()
    text = stdin_text() if question == STDIN else question
    aloud = out is not None
    options: AnswerKeywords = {**wish.text_keywords(), "audio_temperature": None, "audio_top_k": None}
    if snapshot is not None:
        answer, update = (
            asking.ask_snapshot(model, text, spoken, snapshot, trim=trim, voice=voice, aloud=aloud, **options),
            Update(),
        )
    else:
        assert docs is not None
        if not quote:
            asking.check_reader(model)
        asked = asking.heard(model, text, spoken, trim)
        with asking.open_index(model, docs, index, embeddings) as opened:
            with step_progress(err, "reading") as progress:
                update = opened.update(progress)
            if update.refused:
                err.print(f"files that were not read: {refusals(update.refused)}", style="dim", soft_wrap=True)
            if quote:
                _show([source(found) for found in opened.search(asked.words, passages)], asked.words, update, json)
                return
            answer = asking.ask(model, asked, opened, passages, voice=voice, aloud=aloud, **options)
    _play(answer, model, out, json)
    _report(answer, out, update, json)


def _play(answer: Answer, model: Model, out: str | None, json: bool) -> None:
    """Text goes to stdout and sound to `out`, as they are made."""
    ended = False
    with sound_sink(out, model.sample_rate) as write:
        for piece in answer:
            if isinstance(piece, AnswerText):
                if not json:
                    print(piece.text, end="", flush=True)
                continue
            if not json and not ended:
                print(flush=True)
                ended = True
            write(piece)
    if not json and not ended:
        print(flush=True)


def _report(answer: Answer, out: str | None, update: Update, json: bool) -> None:
    if json:
        print_json(
            {
                "question": answer.question,
                "found": answer.found,
                "text": answer.text,
                "citations": answer.citations,
                "removed": answer.removed,
                "sources": _listed(answer.sources),
                "left_out": [left.citation for left in answer.left_out],
                "refused": _refused(update),
                "finish_reason": answer.finish_reason,
                "first_text_seconds": answer.first_text,
                "audio_seconds": round(answer.audio_seconds, 4),
                "seconds": round(answer.seconds, 4),
                "out": out and as_unicode(out),
            }
        )
        return
    if answer.sources:
        print("\nSources:")
        for number, given in enumerate(answer.sources, 1):
            print(f"[{number}] {printable(str(given.citation))}")
    if answer.left_out:
        left = ", ".join(str(left.citation) for left in answer.left_out)
        err.print(f"these passages did not fit into the model's context: {left}", style="yellow", soft_wrap=True)
    if answer.removed:
        err.print(
            f"removed, because there is no such source: {' '.join(answer.removed)}", style="yellow", soft_wrap=True
        )
    if answer.finish_reason != "stop":
        err.print(f"the answer ended early: {answer.finish_reason}", style="dim")
    if out is not None:
        err.print(f"wrote {out} ({answer.audio_seconds:.2f} s of sound)", style="dim", soft_wrap=True)


def _show(sources: list[QuotedSource], question: str, update: Update, json: bool) -> None:
    """The passages as they stand in the documents."""
    if json:
        found = {"question": question, "found": bool(sources), "sources": _listed(sources)}
        print_json({**found, "refused": _refused(update)})
        return
    if not sources:
        print(NOTHING_FOUND)
    for number, given in enumerate(sources, 1):
        print(f"[{number}] {printable(str(given.citation))}\n{given.text}\n")


def _listed(sources: Any) -> list[dict[str, Any]]:
    return [
        {
            "number": number,
            "file": given.citation.file,
            "first": given.citation.first,
            "last": given.citation.last,
            "heading": given.heading,
            "text": given.text,
        }
        for number, given in enumerate(sources, 1)
    ]


def _refused(update: Update) -> list[dict[str, str]]:
    return [{"file": as_unicode(name), "reason": reason} for name, reason in update.refused.items()]
