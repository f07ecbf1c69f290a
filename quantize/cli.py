"""The commands that make a bundle small and say what it cost: quantize, compare.

What they need beyond the runtime (onnx, jiwer, matplotlib) is imported when they run, not before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from voxrill.runtime.audio_file import as_waveform
from voxrill.runtime.bundle import Bundle, open_bundle
from voxrill.runtime.errors import AudioFileError, MissingDependency, UsageError
from voxrill.runtime.model import load
from voxrill.runtime.steps import Progress, step_progress

if TYPE_CHECKING:
    from voxrill.quantize.compare import Comparison

SOUND_FILES = (".wav", ".flac", ".ogg", ".mp3")

_err = Console(stderr=True, highlight=False, markup=False, emoji=False)
_out = Console(highlight=False, markup=False, emoji=False)


def register(app: typer.Typer) -> None:
    """Add this room's commands to the command line."""
    for command in (quantize, compare):
        app.command()(command)


def quantize(
    bundle: Annotated[Path, typer.Argument(help="Float32 bundle folder, as voxrill export wrote it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Bundle folder to write.")],
    recipe: Annotated[str, typer.Option(help="int8, int4, or a recipe file (TOML).")] = "int8",
    fast_prefill: Annotated[
        bool, typer.Option("--fast-prefill", help="Add an 8-bit decoder for prefill: sooner answers, more memory.")
    ] = False,
) -> None:
    """Make a smaller bundle: 8-bit or 4-bit weights."""
    write = quantiser(recipe, fast_prefill)
    opened = open_bundle(bundle)
    with step_progress(_err, "quantize") as progress:
        made = write(opened, out, progress)
    before, after = opened.manifest.size, made.manifest.size
    _err.print(f"wrote {out}: {after / 1e6:.1f} MB, {before / after:.1f} times smaller", soft_wrap=True)


def quantiser(recipe: str, fast_prefill: bool = False) -> Callable[[Bundle, Path, Progress], Bundle]:
    """What quantises a float32 bundle into a folder, by a recipe that is read now; see `quantize_bundle`.

    Raises:
        MissingDependency: the extra `quantize` is not installed.
        UsageError: there is no such recipe, or it is not a valid one.
    """
    try:
        from voxrill.quantize.bundle import quantize_bundle
        from voxrill.quantize.recipe import read_recipe
    except ImportError as error:
        raise MissingDependency("quantize", error.name or "") from None
    chosen = read_recipe(recipe)

    def write(bundle: Bundle, target: Path, progress: Progress) -> Bundle:
        return quantize_bundle(bundle, target, chosen, progress, fast_prefill)

    return write


def compare(
    first: Annotated[Path, typer.Argument(help="The bundle that counts as right, as a rule the float32 one.")],
    second: Annotated[Path, typer.Argument(help="The bundle in question.")],
    audio: Annotated[Path, typer.Option(help="Folder of sound files; NAME.txt beside NAME.wav holds its words.")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw the figures into this PNG.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only so many files; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads per graph; 0: one per physical core.")] = 0,
) -> None:
    """Show what quantising did: graph by graph, and in the words and codes that come out."""
    try:
        from voxrill.quantize import compare as comparing

        if plot is not None:
            from voxrill.quantize.plot import draw
    except ImportError as error:
        raise MissingDependency("quantize", error.name or "") from None
    files = _sound_files(audio)[: limit or None]
    sounds = [as_waveform(file) for file in files]
    texts = [file.with_suffix(".txt") for file in files]
    references = [text.read_text(encoding="utf-8").strip() if text.is_file() else "" for text in texts]
    with step_progress(_err, "compare") as progress:
        found = comparing.compare(
            load(first, threads), load(second, threads), sounds, references, lambda n: progress("", n, len(sounds))
        )
    if json:
        sys.stdout.buffer.write(msgspec.json.encode(asdict(found)) + b"\n")
    else:
        for table in _tables(found):
            _out.print(table)
    if plot is not None:
        draw(found, plot)
        _err.print(f"wrote {plot}")


def _sound_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder", "Give a folder of sound files")
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SOUND_FILES)
    if not files:
        raise AudioFileError(f"{folder} holds no sound files", f"It takes {', '.join(SOUND_FILES)}")
    return files


def _tables(found: Comparison) -> Iterator[Table]:
    graphs = Table("graph", "mean cosine", "worst cosine", "largest error", title=f"{found.sounds} sounds")
    for name, summary in found.graphs.items():
        graphs.add_row(
            name,
            f"{summary['cosine']:.6f}",
            f"{summary['worst_cosine']:.6f}",
            f"{100 * summary['largest_error']:.2f} %",
        )
    yield graphs
    ends = Table("end to end", "", show_header=False)
    for name, value in found.end_to_end.items():
        shown = f"{value:.4f}" if name.endswith("distance") else f"{100 * value:.2f} %"
        ends.add_row(name.replace("_", " "), shown)
    ends.add_row("text tokens kept, step by step", f"{100 * found.text_tokens_kept:.2f} %")
    flipped = " ".join(f"{100 * share:.2f}" for share in found.codes_flipped)
    ends.add_row("codes flipped, step by step, % by codebook", flipped)
    before, after = found.sizes
    ends.add_row("size", f"{before / 1e6:.1f} MB, {after / 1e6:.1f} MB")
    yield ends
