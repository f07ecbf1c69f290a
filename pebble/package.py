"""What ships: `python package.py` makes `src/voxrill/pebble/` from the committed checkpoint and the world.

In: `checkpoint/` here (with --cache it is first copied from a training run's cache). Out: `src/voxrill/pebble/bundle/`,
made with the ordinary export and the recipe int8.toml; and `src/voxrill/pebble/world.json`, a JSON list of `{"say",
"reply"}` in the order of the world, with one entry on each line.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from codec import CODEBOOKS
from world import LISTED

from voxrill.export.bundle import export_bundle
from voxrill.export.checkpoint import open_checkpoint
from voxrill.quantize.bundle import quantize_bundle
from voxrill.quantize.recipe import read_recipe
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.bundle.bundle import Bundle

HERE = Path(__file__).resolve().parent
CHECKPOINT = HERE / "checkpoint"
SHIPPED = HERE.parent / "src" / "voxrill" / "pebble"


def world_json() -> str:
    """The text of `world.json`."""
    entries = (json.dumps({"say": sentence.command, "reply": sentence.reply}) for sentence in LISTED)
    return "[\n" + ",\n".join(entries) + "\n]\n"


def make_bundle(checkpoint: Path, target: Path) -> Bundle:
    """The bundle that ships, in the folder `target`: export, then INT8."""
    with tempfile.TemporaryDirectory() as folder:
        exported = export_bundle(open_checkpoint(checkpoint), Path(folder) / "float32")
        return quantize_bundle(exported, target, read_recipe(str(Path(__file__).with_name("int8.toml"))), force=True)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, help="take the checkpoint from this cache of a training run")
    args = parser.parse_args()
    if args.cache:
        shutil.rmtree(CHECKPOINT, ignore_errors=True)
        shutil.copytree(args.cache / "checkpoint", CHECKPOINT)
        shutil.copy(args.cache / CODEBOOKS.name, CODEBOOKS)
    bundle = make_bundle(CHECKPOINT, SHIPPED / "bundle")
    write_text(SHIPPED / "world.json", world_json())
    print(f"wrote {SHIPPED}: {bundle.manifest.size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
