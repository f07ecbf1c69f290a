"""From trained stages to a checkpoint: `python build.py CHECKPOINT`.

In: the cache with `joint.pt` and `detokenizer.pt`. Out: a checkpoint folder in the published layout, float16.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from codec import Detokenizer, detokenizer_config
from network import Pebble, write_checkpoint


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--stage", default="joint", help="the stage whose weights are taken")
    args = parser.parse_args()
    model, detokenizer = Pebble(), Detokenizer()
    model.load_state_dict(torch.load(args.cache / f"{args.stage}.pt", weights_only=False)["model"])
    detokenizer.load_state_dict(torch.load(args.cache / "detokenizer.pt", weights_only=False)["model"])
    write_checkpoint(model, detokenizer, detokenizer_config(), args.checkpoint)


if __name__ == "__main__":
    main()
