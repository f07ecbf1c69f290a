"""A checkpoint with fine-tuned weights and a LoRA adapter laid over it.

In: the base, and what the user named. Out: the base with those changes, and a line on each for the user. Everything is
checked here, before the long work: names, shapes, ranks.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.lora import open_adapter
from voxrill.export.overlay import open_overlay


def fine_tuned(
    checkpoint: Checkpoint, weights: Path | None = None, lora: Path | None = None
) -> tuple[Checkpoint, list[str]]:
    """The checkpoint with `weights` laid over it, and then the adapter `lora` merged.

    Returns:
        the changed checkpoint, and one line on each change.

    Raises:
        CheckpointError: a change cannot be read, or does not fit.
    """
    said = []
    if weights is not None:
        overlay = open_overlay(weights)
        said.append(overlay.about(checkpoint.weights))
        checkpoint = replace(checkpoint, changes=(*checkpoint.changes, overlay))
    if lora is not None:
        adapter = open_adapter(lora)
        said.append(adapter.about())
        checkpoint = replace(checkpoint, changes=(*checkpoint.changes, adapter))
    if said:
        checkpoint.weights  # noqa: B018  # lays the changes over the base, which checks that they fit
    return checkpoint, said
