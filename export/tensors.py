"""Named tensors, wherever they come from: files of safetensors, and views that rename, tie or change them.

In: files, or other `Tensors`. Out: float32 tensors by their published names, read one at a time, so that an export of
the 1.5 B model never holds more than one graph's weights.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from voxrill.runtime.errors import CheckpointError

_DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
"""Safetensors' names of the floating types that weights may have, and torch's."""


class Tensors(ABC):
    """Tensors by name."""

    @abstractmethod
    def __contains__(self, name: str) -> bool: ...

    @abstractmethod
    def __iter__(self) -> Iterator[str]: ...

    @abstractmethod
    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""

    @abstractmethod
    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in, as torch or safetensors call it, without reading it."""

    @abstractmethod
    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""

    def load(
        self,
        module: nn.Module,
        names: dict[str, str] | None = None,
        given: dict[str, torch.Tensor] | None = None,
    ) -> None:
        """Fill `module` (built on the meta device) in float32, and set it to inference.

        Args:
            module: what to fill. Its parameters have the file's names, unless `names` maps them.
            names: parameter name to the file's name, where the two differ.
            given: parameters that are computed, and not in the file.

        Raises:
            CheckpointError: a tensor is missing or has a wrong shape; the message names it and both shapes.
        """
        state = dict(given or {})
        for key, wanted in module.state_dict().items():
            if key in state:
                continue
            name = (names or {}).get(key, key)
            if self.shape(name) != tuple(wanted.shape):
                raise CheckpointError(
                    f"tensor {name} has shape {list(self.shape(name))}, not {list(wanted.shape)}",
                    "Download the checkpoint again: config.json and the weights do not belong together",
                )
            state[key] = self.read(name)
        module.load_state_dict(state, assign=True)
        module.requires_grad_(False).eval()


class StoredTensors(Tensors):
    """The tensors of one safetensors file, or of the shards that an index lists; read lazily.

    Raises:
        CheckpointError: a file is missing or is not a safetensors file, a tensor is missing, or it holds NaN or
            infinity.
    """

    def __init__(self, *files: Path) -> None:
        self.files = files
        self._where: dict[str, Any] = {}
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file} is missing", "Download the whole checkpoint again")
            try:
                handle = safe_open(str(file), framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    f"{file} is not a readable safetensors file ({error})",
                    "It may be cut short: download it again",
                ) from None
            self._where |= dict.fromkeys(handle.keys(), handle)  # type: ignore[no-untyped-call]

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def __iter__(self) -> Iterator[str]:
        return iter(self._where)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return tuple(self._handle(name).get_slice(name).get_shape())

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        stored = str(self._handle(name).get_slice(name).get_dtype())
        return _DTYPES.get(stored, stored)

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        tensor: torch.Tensor = self._handle(name).get_tensor(name)
        if not tensor.is_floating_point():
            return tensor
        wide = tensor.float()
        check_finite(name, wide, tensor.dtype)
        return wide

    def sha256(self) -> str:
        """Hash of the files' bytes, in order."""
        return sha256(self.files)

    def _handle(self, name: str) -> Any:
        if name not in self._where:
            raise CheckpointError(
                f"tensor {name} is missing from {', '.join(f.name for f in self.files)}",
                "Check that this is a whole LFM2-Audio checkpoint",
            )
        return self._where[name]


class TiedTensors(Tensors):
    """Tensors of which some have two names: either name finds what is stored under one of them.

    Libraries that save a tied pair once keep the first name or the last one, and published files hold both.

    Raises:
        CheckpointError: both names are stored, and their values differ.
    """

    def __init__(self, stored: Tensors, twins: Mapping[str, str]) -> None:
        self._stored, self._twins = stored, twins

    def __contains__(self, name: str) -> bool:
        return self._place(name) in self._stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._stored.shape(self._place(name))

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._stored.dtype(self._place(name))

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        values, twin = self._stored.read(self._place(name)), self._twins.get(name, name)
        both = twin != name and name in self._stored and twin in self._stored
        if both and not torch.equal(values, self._stored.read(twin)):
            raise CheckpointError(
                f"{name} and {twin} are two names of one tensor, and hold different values",
                "Save the model with tied weights, or set depthformer.tie to false in config.json if it has none",
            )
        return values

    def _place(self, name: str) -> str:
        twin = self._twins.get(name, name)
        return twin if name not in self._stored and twin in self._stored else name


class Given(NamedTuple):
    """A checkpoint whose files need more than the published layout's reading: tensors, their files, tokenizer.json."""

    tensors: Tensors
    files: tuple[Path, ...]
    tokenizer: bytes


class OverlaidTensors(Tensors):
    """The tensors of `base`, of which those that `over` has too are taken from there."""

    def __init__(self, base: Tensors, over: Tensors) -> None:
        self._base, self._over = base, over

    def __contains__(self, name: str) -> bool:
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._of(name).shape(name)

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._of(name).dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        return self._of(name).read(name)

    def _of(self, name: str) -> Tensors:
        return self._over if name in self._over else self._base


class WeightChange(Protocol):
    """What is laid over a checkpoint's weights. kind: weights or lora; name, sha256: what the manifest says of it."""

    @property
    def kind(self) -> Literal["weights", "lora"]: ...  # noqa: D102

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def sha256(self) -> str: ...  # noqa: D102

    def over(self, base: Tensors, twins: Mapping[str, str]) -> Tensors:
        """The tensors of `base` with this change. `twins` are the two names of each tied tensor.

        Raises:
            CheckpointError: it does not fit `base`.
        """
        ...


def sha256(files: Sequence[Path]) -> str:
    """Hash of the files' bytes, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def check_finite(name: str, values: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse NaN and infinity in the float32 `values` of a file's `dtype`, and say where they usually come from."""
    if not values.numel() or all(torch.isfinite(end) for end in torch.aminmax(values)):  # both are NaN where one is
        return
    nan, infinite = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    cause = "The training that wrote it has probably diverged: take an earlier checkpoint, or download this one again"
    if infinite and not nan and dtype == torch.float16:
        cause = "Float16 has no numbers above 65504: convert the original weights to bfloat16 or float32 instead"
    raise CheckpointError(f"tensor {name} holds {nan} NaN and {infinite} infinite among {values.numel()} values", cause)
