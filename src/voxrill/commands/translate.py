"""The command translate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.answers import answer_question
from voxrill.commands.loudspeaker import SoundOutput
from voxrill.commands.options import AnswerWish, JsonOption, Loading, TrimOption, loads_model
from voxrill.runtime.apps.translation import translation_prompt


@loads_model
def translate(
    file: Annotated[Path, typer.Argument(help="Sound file of any kind and rate; - reads it from stdin.")],
    to: Annotated[str, typer.Option(help="The language, by its English name. Pebble knows German, in writing.")],
    sound: SoundOutput = SoundOutput(),
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "text",
    trim: TrimOption = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    wish: AnswerWish = AnswerWish(),
) -> None:
    """Say in another language what a sound file says."""
    answer_question(
        file,
        None,
        sound,
        output,
        trim,
        loading,
        json,
        lambda model: translation_prompt(to, model.parts.tokenizer),
        wish,
    )
