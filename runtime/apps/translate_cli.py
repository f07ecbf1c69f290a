"""The command translate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from voxrill.runtime.apps.translation import translation_prompt
from voxrill.runtime.cli import (
    AudioTemperature,
    AudioTopK,
    BundleOption,
    JsonOption,
    MaxOption,
    OutOption,
    ProviderOption,
    SeedOption,
    StrictOption,
    TextTemperature,
    TextTopK,
    ThreadsOption,
    chat,
)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(translate)


def translate(
    file: Annotated[Path, typer.Argument(help="Sound file: WAV, FLAC, OGG or MP3, any rate.")],
    to: Annotated[str, typer.Option(help="The language, by its English name. Pebble knows German, in writing.")],
    out: OutOption = None,
    output: Annotated[str, typer.Option(help="What to answer with: text, audio or both.")] = "text",
    bundle: BundleOption = None,
    json: JsonOption = False,
    max_new_tokens: MaxOption = None,
    seed: SeedOption = None,
    text_temperature: TextTemperature = None,
    text_top_k: TextTopK = None,
    audio_temperature: AudioTemperature = None,
    audio_top_k: AudioTopK = None,
    threads: ThreadsOption = 0,
    provider: ProviderOption = None,
    strict: StrictOption = False,
) -> None:
    """Say in another language what a sound file says. What comes out is only as good as the model at this."""
    chat(
        audio=file,
        system=translation_prompt(to),
        out=out,
        output=output,
        bundle=bundle,
        json=json,
        max_new_tokens=max_new_tokens,
        seed=seed,
        text_temperature=text_temperature,
        text_top_k=text_top_k,
        audio_temperature=audio_temperature,
        audio_top_k=audio_top_k,
        threads=threads,
        provider=provider,
        strict=strict,
    )
