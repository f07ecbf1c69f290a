"""The command for people who write a port of their own: golden.

What was written or compared goes to stdout, as text or JSON.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.options import (
    ForceOption,
    JsonOption,
    Loading,
    loads_model,
    sound_source,
)
from voxrill.commands.output import print_json
from voxrill.commands.output_files import check_output
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.printable import printable
from voxrill.runtime.upkeep.golden import (
    GOLDEN_FILES,
    GoldenDifference,
    differences,
    make_vectors,
    read_vectors,
    save_vectors,
)


@loads_model
def golden(
    folder: Annotated[Path, typer.Argument(help="Where the golden vectors are, or are to be written.")],
    force: ForceOption = False,
    loading: Loading = Loading(),
    audio: Annotated[Path | None, typer.Option(help="A spoken question: write what is computed of it.")] = None,
    json: JsonOption = False,
) -> None:
    """Compare this device with golden vectors, or write some."""
    if audio is not None:
        for name in GOLDEN_FILES:
            check_output(folder / name, [audio], force=force, makes_folder=True)
        made = make_vectors(loading.model(), as_waveform(sound_source(audio)))
        size = save_vectors(made, folder)
        if json:
            print_json({"folder": str(folder), "bytes": size, "text": made.rest.text})
        else:
            print(f"{printable(folder)}: {size / 1000:.0f} kB, {made.rest.text!r}")
        return
    vectors = read_vectors(folder)
    found = differences(loading.model(), vectors)
    for one in found:
        _tell(one, json)
    if not all(one.passes for one in found):
        names = ", ".join(one.stage for one in found if not one.passes)
        raise VoxrillError(f"{names}: further from the golden vectors than allowed", "Compare versions and processor")


def _tell(difference: GoldenDifference, json: bool) -> None:
    if json:
        print_json({**asdict(difference), "passes": difference.passes})
    else:
        verdict = "ok" if difference.passes else "differs"
        print(f"{verdict}\t{difference.stage}\t{difference.error:.3g}\tof {difference.tolerance:g}")
