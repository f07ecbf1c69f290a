"""The whole recipe, stage after stage: `make pebble`. Every stage resumes where it stopped.

In: the synthesisers (those of Debian that synthesise.py names; the folder of natural.py, named by PEBBLE_KOKORO), and
with --people a folder of recordings. Out, under the cache folder: `checkpoint/` in the published layout, its bundles
`float32/`, `int8/` and `int4/`. `package.py` then makes the files of the package. With --only one stage runs; it
begins with the committed checkpoint.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from codec import CODEBOOKS, Detokenizer, detokenizer_config, train_detokenizer
from data import NATURAL_SETS
from natural import make_shards
from network import Pebble, write_checkpoint
from safetensors.torch import load_file
from train import (
    CHECKPOINT,
    train_answers,
    train_encoder,
    train_further,
    train_hearing,
    train_joint,
    train_speech,
    train_voice,
)
from training import mix

MINUTES = {
    "detokenizer": 20,
    "speech": 25,
    "encoder": 35,
    "joint": 110,
    "voice": 110,
    "hearing": 60,
    "answers": 40,
    "further": 75,
}
ALONE = ("hearing", "answers", "further")
"""Stages that can begin with the committed checkpoint."""

HALFWAY = 0.5
"""How far the checkpoint goes from the committed one to the mean of a stage alone: better than all the way."""


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the minutes each stage may take at most")
    parser.add_argument("--people", type=Path, help="a folder of recordings of people; see people.py")
    parser.add_argument("--only", choices=ALONE, help="only this stage, from the committed checkpoint on")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stages: dict[str, Callable[[Path, float], object]] = {
        "detokenizer": train_detokenizer,
        "speech": train_speech,
        "encoder": partial(train_encoder, people=args.people),
        "joint": partial(train_joint, people=args.people),
        "voice": partial(train_voice, people=args.people),
        "hearing": partial(train_hearing, people=args.people),
        "answers": partial(train_answers, people=args.people),
        "further": partial(train_further, people=args.people),
    }
    wanted = [args.only] if args.only else [stage for stage in stages if stage != "further"]
    for name in ("natural", "natural-development"):
        make_shards(list(NATURAL_SETS[name]()), args.cache / name)
    if args.only:
        args.cache.mkdir(parents=True, exist_ok=True)
        shutil.copy(CODEBOOKS, args.cache)
    for name in wanted:
        print(f"stage {name}", flush=True)
        stages[name](args.cache, 60 * args.scale * MINUTES[name])
    build(args.cache, args.cache / "checkpoint", args.only)
    _voxrill("export", args.cache / "checkpoint", "-o", args.cache / "float32", "--force")
    for name in ("int8", "int4"):
        recipe = Path(__file__).with_name(f"{name}.toml")
        _voxrill("quantize", args.cache / "float32", "-o", args.cache / name, "--recipe", recipe, "--force")


def _voxrill(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "voxrill", *map(str, arguments)], check=True)


def build(cache: Path, checkpoint: Path, only: str | None = None) -> None:
    """Write the checkpoint of the trained stages in float16. With `only` the committed detokenizer is kept.

    After a stage alone that keeps a mean, the weights lie between the committed checkpoint and that mean: better than
    either, as means of a network's own descendants often are (Wortsman et al. 2022, robust fine-tuning).
    """
    model, detokenizer = Pebble(), Detokenizer()
    run = _run(cache / f"{only or 'answers'}.pt")
    if only and run.get("mean"):
        model.begin_from(CHECKPOINT)
        mix(model.state_dict(), run["mean"], HALFWAY)
    else:
        model.load_state_dict(run["model"])
    kept = CHECKPOINT / "audio_detokenizer" / "model.safetensors"
    detokenizer.load_state_dict(load_file(kept) if only else _run(cache / "detokenizer.pt")["model"])
    write_checkpoint(model, detokenizer, detokenizer_config(), checkpoint)


def _run(path: Path) -> dict[str, Any]:
    """What `training.Run` kept of a stage."""
    kept: dict[str, Any] = torch.load(path, weights_only=False)
    return kept


if __name__ == "__main__":
    main()
