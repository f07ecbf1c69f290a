"""Fine-tuned weights laid over a checkpoint: what a trainer saved without config, tokenizer and codec.

In: a safetensors file, or a folder with one (or with shards and their index), in the published layout or in
transformers', whole or in part. Out: a `WeightChange`, which replaces the tensors that it has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from voxrill.export.checkpoint import CONFIG_FILE, WEIGHTS_FILE, has_weights, stored_weights
from voxrill.export.recognise import ADAPTER_FILE, other_format
from voxrill.export.tensors import OverlaidTensors, StoredTensors, Tensors, TiedTensors
from voxrill.export.transformers_layout import published_names
from voxrill.runtime.errors import CheckpointError
from voxrill.runtime.printable import printable

UNUSED = ("codebook_offsets", "audio_loss_weights", "audio_embedding.to_logits.weight")
"""Names that a trainer saves, and that no graph needs: a base may lack them."""

ADAPTER_PREFIX = "base_model.model."
"""Before every name of a LoRA adapter."""

_SHOWN = 20
"""Names that an error lists."""


@dataclass(frozen=True)
class WeightsOverlay:
    """Weights to lay over a checkpoint's; `place` is what the user named."""

    place: Path
    stored: StoredTensors
    kind: ClassVar[Literal["weights", "lora"]] = "weights"

    @property
    def name(self) -> str:
        """The file's or the folder's own name."""
        return printable(self.place.resolve().name)

    @cached_property
    def sha256(self) -> str:
        """Hash of the files' bytes, in order."""
        return self.stored.sha256()

    def over(self, base: Tensors, twins: Mapping[str, str]) -> Tensors:
        """The tensors of `base`, replaced by those that this has.

        Raises:
            CheckpointError: `base` lacks a name, or has another shape or kind of numbers under it.
        """
        tensors = TiedTensors(published_names(self.stored), twins)
        check_fits(self.place, tensors, base)
        return OverlaidTensors(base, tensors)

    def about(self, base: Tensors) -> str:
        """What is replaced, and from which type of numbers to which, in one line."""
        types = Counter(self.stored.dtype(name) for name in self.stored)
        given = ", ".join(f"{count} in {dtype}" for dtype, count in sorted(types.items()))
        others = sorted({base.dtype(name) for name in base if _floating(base, name)} - set(types))
        cast = f"; the base has {', '.join(others)}" if others else ""
        return (
            f"{self.name} replaces {len(list(self.stored))} tensors ({given}{cast}). Every weight is cast to float32."
        )


def open_overlay(place: Path) -> WeightsOverlay:
    """Open what `--weights` names: a safetensors file, or a folder with weights.

    Raises:
        CheckpointError: there are no weights, they are of another format, or they are empty.
    """
    if place.is_dir():
        _check_folder(place)
        stored = stored_weights(place)
    elif place.is_file():
        refused = other_format(place.parent, [place.name])
        if refused:
            raise refused
        stored = StoredTensors(place)
    else:
        raise CheckpointError(f"there is no file or folder {place}", "Give a safetensors file, or a folder with one")
    if not list(stored):
        raise CheckpointError(f"{place} holds no tensors", "Give the weights that the training has saved")
    if any(name.startswith(ADAPTER_PREFIX) for name in stored):
        raise CheckpointError(f"{place} is a LoRA adapter", "Merge it by giving its folder with --lora")
    return WeightsOverlay(place, stored)


def _check_folder(folder: Path) -> None:
    if (folder / ADAPTER_FILE).is_file() and not has_weights(folder):
        raise CheckpointError(f"{folder} is a LoRA adapter", f"Merge it with: --lora {folder}")
    if not has_weights(folder):
        raise other_format(folder, (path.name for path in folder.iterdir())) or CheckpointError(
            f"{folder} has no {WEIGHTS_FILE}", "Give the folder that the trainer's save_model wrote, or a file of it"
        )


def check_fits(place: Path, over: Tensors, base: Tensors) -> None:
    """Refuse weights of another model.

    Args:
        place: named in errors.
        over: what replaces.
        base: what is replaced.

    Raises:
        CheckpointError: `base` lacks a name, or has another shape or kind of numbers under it.
    """
    names = [name for name in over if name in base or name not in UNUSED]
    lacking = [name for name in names if name not in base]
    if lacking:
        raise CheckpointError(
            f"{place} has {len(lacking)} tensors that the base lacks: {shown(lacking)}",
            f"Give the base that it was trained from: the checkpoint with {CONFIG_FILE}",
        )
    for name in names:
        if over.shape(name) != base.shape(name):
            raise CheckpointError(
                f"tensor {name} has shape {list(over.shape(name))} in {place}, and {list(base.shape(name))} in the "
                "base",
                "Give the base that it was trained from",
            )
        if _floating(over, name) != _floating(base, name):
            raise CheckpointError(
                f"tensor {name} is {over.dtype(name)} in {place}, and {base.dtype(name)} in the base",
                "Give weights that are not quantised: bfloat16, float16 or float32",
            )


def shown(names: Iterable[str]) -> str:
    """The first names of a list, and how many more there are."""
    listed = list(names)
    more = len(listed) - _SHOWN
    return ", ".join(listed[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


def _floating(tensors: Tensors, name: str) -> bool:
    return "float" in tensors.dtype(name)
