"""The command translate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.answers import chat
from voxrill.commands.options import (
    AudioTemperature,
    AudioTopK,
    ForceOption,
    JsonOption,
    Loading,
    MaxOption,
    OutOption,
    SeedOption,
    TextTemperature,
    TextTopK,
    TrimOption,
    loads_model,
)
from voxrill.runtime.apps.translation import translation_prompt


@loads_model
def translate(
    file: Annotated[Path, typer.Argument(help="Sound file of any kind and rate; - reads it from stdin.")],
    to: Annotated[str, typer.Option(help="The language, by its English name. Pebble knows German, in writing.")],
    out: OutOption = None,
    force: ForceOption = False,
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "text",
    trim: TrimOption = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
) -> None:
    """Say in another language what a sound file says."""
    chat(
        audio=file,
        system=translation_prompt(to),
        out=out,
        force=force,
        output=output,
        trim=trim,
        loading=loading,
        json=json,
        max_new_tokens=max_new_tokens,
        seed=seed,
        text_temperature=text_temperature,
        text_top_k=text_top_k,
        audio_temperature=audio_temperature,
        audio_top_k=audio_top_k,
    )
