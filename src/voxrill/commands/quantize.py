"""The commands that make a bundle small and show what that costs: quantize, sensitivity, compare.

They import what they need beyond the runtime (onnx, jiwer, matplotlib) only when they run.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from voxrill.commands.options import ForceOption, open_path
from voxrill.commands.output import err, print_json
from voxrill.commands.output import out as stdout
from voxrill.commands.output_files import check_output
from voxrill.devices.kernels import own_products
from voxrill.model import load
from voxrill.quantize.recipe import Bits, By, check_block, read_recipe
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.audio.sound_folder import sound_files
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.errors import DataError, UsageError, needs_extra
from voxrill.runtime.input_file import LARGEST_TEXT, read_text
from voxrill.runtime.picture import check_picture
from voxrill.runtime.progress import Progress, step_progress

if TYPE_CHECKING:
    from voxrill.quantize.choose import BitsChosen
    from voxrill.quantize.compare import Comparison
    from voxrill.quantize.sensitivity import MeasuredGroup


def quantize(
    bundle: Annotated[Path, typer.Argument(help="Float32 bundle folder, as voxrill export wrote it.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Bundle folder to write.")],
    recipe: Annotated[str, typer.Option(help="int8, int4, mixed, small, smallest, or a recipe file (TOML).")] = "int8",
    fast_prefill: Annotated[
        bool,
        typer.Option(
            "--fast-prefill",
            help="Add an 8-bit decoder for prefill: sooner answers, more memory. It is not loaded where Voxrill's own "
            "products run (voxrill doctor): there the decoder serves both.",
        ),
    ] = False,
    audio: Annotated[
        Path | None, typer.Option(help="Folder of spoken questions, for a recipe with gptq or static.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only so many files of --audio; 0 takes all.")] = 32,
    force: ForceOption = False,
) -> None:
    """Make a smaller bundle: weights of 8 to 2 bits."""
    sounds = [as_waveform(file) for file in _sound_files(audio)[: limit or None]] if audio else []
    write = quantiser(recipe, fast_prefill, sounds, force)
    opened = open_path(bundle)
    with step_progress(err, "quantize", lines=True) as progress:
        made = write(opened, out, progress)
    before, after = opened.manifest.size, made.manifest.size
    err.print(f"wrote {out}: {after / 1e6:.1f} MB, {before / after:.1f} times smaller", soft_wrap=True)
    if fast_prefill and own_products().fast:
        err.print("here the added decoder is not loaded: Voxrill's own products prefill from the first", soft_wrap=True)


def quantiser(
    recipe: str, fast_prefill: bool = False, sounds: Sequence[NDArray[np.float32]] = (), force: bool = False
) -> Callable[[Bundle, Path, Progress], Bundle]:
    """A function that quantises a float32 bundle into a folder. The recipe is read now; see `quantize_bundle`.

    Raises:
        MissingDependency: the extra `quantize` is not installed.
        UsageError: there is no such recipe, or it needs sounds and there are none.
        DataError: it is not a valid one.
    """
    with needs_extra("quantize"):
        from voxrill.quantize.bundle import quantize_bundle
    chosen = read_recipe(recipe)
    if chosen.wants_sounds and not sounds:
        raise UsageError(
            "the recipe (gptq or static) needs recorded questions to measure the model with",
            "Run voxrill quantize on the float32 bundle, with --audio FOLDER",
        )

    def write(bundle: Bundle, target: Path, progress: Progress) -> Bundle:
        return quantize_bundle(bundle, target, chosen, progress, fast_prefill, sounds, force)

    return write


def sensitivity(
    bundle: Annotated[Path, typer.Argument(help="Float32 bundle folder, as voxrill export wrote it.")],
    audio: Annotated[Path, typer.Option(help="Folder of sound files to measure with.")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Recipe file (TOML) to write.")] = None,
    force: ForceOption = False,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="What the bundle may have, such as 0.45GB or 5MB: each weight gets 2, 3, 4 or 8 bits, so that the "
            "measured cost is least. Without it: 4 or 8.",
        ),
    ] = None,
    by: Annotated[
        By | None,
        typer.Option(help="Measure each weight, layer or kind (every layer's) together.", show_default="auto"),
    ] = None,
    graph: Annotated[list[str] | None, typer.Option(help="Only this graph's weights; may be repeated.")] = None,
    block: Annotated[int, typer.Option(help="Rows that share a scale in 2 to 4 bits.")] = 128,
    limit: Annotated[int, typer.Option(min=0, help="Only so many files; 0 takes all.")] = 16,
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw cost against size into this PNG.")] = None,
    threads: Annotated[int, typer.Option(min=0, help="Threads per graph; 0: one per physical core.")] = 0,
) -> None:
    """Measure how many bits each weight needs, and write a recipe."""
    with needs_extra("quantize"):
        from voxrill.quantize.choose import as_toml, choose, path
        from voxrill.quantize.groups import take_inventory
        from voxrill.quantize.sensitivity import measure

        if plot is not None:
            from voxrill.quantize.plot import draw_choices

            check_output(plot, force=force)
            check_picture(plot)
    size = None if budget is None else _bytes(budget)
    bits: tuple[Bits, ...] = (4, 8) if size is None else (2, 3, 4, 8)
    opened = open_path(bundle)
    check_block(block, "--block")
    check_output(out, force=force)
    sounds = [as_waveform(file) for file in _sound_files(audio)[: limit or None]]
    inventory = take_inventory(opened, by, graph or ())
    with step_progress(err, "sensitivity", lines=True) as progress:
        found = measure(opened, inventory.groups, sounds, bundle.absolute().parent, block, threads, progress, bits)
    chosen = choose(found, inventory, size)
    if json:
        print_json([_row(one, given) for one, given in zip(found, chosen.bits, strict=True)])
    else:
        stdout.print(_sensitivity_table(found, chosen))
    if plot is not None:
        draw_choices(path(found, inventory), chosen, plot)
        err.print(f"wrote {plot}", soft_wrap=True)
    if out is not None:
        about = f"Chosen by measurement on {bundle.absolute().name}, {len(sounds)} sounds; the rest in 8 bits."
        write_text(out, as_toml(found, chosen, about, block))
        fewer = sum(given < max(one.costs) for one, given in zip(found, chosen.bits, strict=True))
        about = f"{fewer} of {len(found)} groups in fewer than 8 bits, a bundle of about {chosen.size / 1e6:.3g} MB"
        err.print(f"wrote {out}: {about}", soft_wrap=True)


def _bytes(words: str) -> int:
    """Bytes from words such as 0.45GB.

    Raises:
        UsageError: they are none.
    """
    found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([kMG])B", words.strip())
    if found is None:
        raise UsageError(f"--budget {words} is not a size", "Give a number with its unit: 0.45GB, 5MB or 800kB")
    return round(float(found[1]) * {"k": 1e3, "M": 1e6, "G": 1e9}[found[2]])


def _row(one: MeasuredGroup, bits: int) -> dict[str, object]:
    about = {"graph": one.group.graph, "name": one.group.pattern, "weights": len(one.group.weights), "bits": bits}
    costs = {f"cost_{number}_bits": cost for number, cost in one.costs.items()}
    return {**about, **costs, **{f"bytes_{number}_bits": size for number, size in one.sizes.items()}}


def _sensitivity_table(found: Sequence[MeasuredGroup], chosen: BitsChosen) -> Table:
    """The groups whose fewest bits cost most for each saved byte come first."""
    title = "Cost: divergence from float32, in nats (the codec: error power)"
    numbers = sorted(found[0].costs)
    columns = [f"{'cost in ' * (number == numbers[0])}{number}{' bits' * (number == numbers[0])}" for number in numbers]
    table = Table("graph", "weights", *columns, "MB in 8", "bits", title=title)

    def rank(pair: tuple[MeasuredGroup, int]) -> float:
        costs, sizes = pair[0].costs, pair[0].sizes
        return (costs[numbers[0]] - costs[8]) / (sizes[8] - sizes[numbers[0]])

    for one, bits in sorted(zip(found, chosen.bits, strict=True), key=rank, reverse=True):
        costs = [f"{one.costs[number]:.2g}" for number in numbers]
        table.add_row(one.group.graph, one.group.pattern, *costs, f"{one.sizes[8] / 1e6:.2f}", str(bits))
    return table


def compare(
    first: Annotated[Path, typer.Argument(help="The bundle that counts as right, as a rule the float32 one.")],
    second: Annotated[Path, typer.Argument(help="The bundle in question.")],
    audio: Annotated[Path, typer.Option(help="Folder of sound files; NAME.txt beside NAME.wav holds its words.")],
    json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for machines.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Also draw the figures into this PNG.")] = None,
    limit: Annotated[int, typer.Option(min=0, help="Only so many files; 0 takes all.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Threads per graph; 0: one per physical core.")] = 0,
) -> None:
    """Show what quantising changed, graph by graph and in the answers."""
    with needs_extra("quantize"):
        from voxrill.quantize import compare as comparing

        if plot is not None:
            from voxrill.quantize.plot import draw

            check_output(plot)
            check_picture(plot)
    files = _sound_files(audio)[: limit or None]
    sounds = [as_waveform(file) for file in files]
    texts = [file.with_suffix(".txt") for file in files]
    references = [read_text(text, LARGEST_TEXT).strip() if text.is_file() else "" for text in texts]
    with step_progress(err, "compare") as progress:
        found = comparing.compare(
            load(first, threads), load(second, threads), sounds, references, lambda n: progress("", n, len(sounds))
        )
    if json:
        print_json(asdict(found))
    else:
        for table in _tables(found):
            stdout.print(table)
    if plot is not None:
        draw(found, plot)
        err.print(f"wrote {plot}")


def _sound_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder", "Give a folder of sound files")
    return sound_files(folder)


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
    for name, value in found.codec.items():
        ends.add_row(
            f"codec alone, {name.removesuffix('_db').replace('_', ' ').replace('snr', 'SNR')}", f"{value:.1f} dB"
        )
    ends.add_row("text tokens kept, step by step", f"{100 * found.text_tokens_kept:.2f} %")
    flipped = " ".join(f"{100 * share:.2f}" for share in found.codes_flipped)
    ends.add_row("codes flipped, step by step, % by codebook", flipped)
    before, after = found.sizes
    ends.add_row("size", f"{before / 1e6:.1f} MB, {after / 1e6:.1f} MB")
    yield ends
