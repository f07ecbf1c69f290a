"""A checkpoint in the published LFM2-Audio layout: its config, its tensors, its codec's files.

In: a local folder (see `hub.py` for a hub id). Out: a `Checkpoint` that fills the module of one graph at a time, so
that an export of the 1.5 B model never holds the weights of more than one graph. Sizes come from `config.json` where it
has them, else from tensor shapes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from voxrill.export.recognise import hub_source, not_a_folder, other_format, quantised, without_commit
from voxrill.runtime.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
DETOKENIZER_DIR = "audio_detokenizer"
GENERATION_FILE = "generation_config.json"
CARD_FILE = "README.md"


class Tensors:
    """Named tensors of one safetensors file, or of the shards that an index lists; read lazily.

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

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        tensor: torch.Tensor = self._handle(name).get_tensor(name)
        if not tensor.is_floating_point():
            return tensor
        wide = tensor.float()
        _check_finite(name, wide, tensor.dtype)
        return wide

    def _handle(self, name: str) -> Any:
        if name not in self._where:
            raise CheckpointError(
                f"tensor {name} is missing from {', '.join(f.name for f in self.files)}",
                "Check that this is a whole LFM2-Audio checkpoint",
            )
        return self._where[name]

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

    def sha256(self) -> str:
        """Hash of the files' bytes, in order."""
        digest = hashlib.sha256()
        for file in self.files:
            with file.open("rb") as stream:
                while block := stream.read(1 << 22):
                    digest.update(block)
        return digest.hexdigest()


def _check_finite(name: str, values: torch.Tensor, dtype: torch.dtype) -> None:
    """Refuse NaN and infinity in the float32 `values` of a file's `dtype`, and say where they usually come from."""
    if not values.numel() or all(torch.isfinite(end) for end in torch.aminmax(values)):  # both are NaN where one is
        return
    nan, infinite = int(torch.isnan(values).sum()), int(torch.isinf(values).sum())
    cause = "The training that wrote it has probably diverged: take an earlier checkpoint, or download this one again"
    if infinite and not nan and dtype == torch.float16:
        cause = "Float16 has no numbers above 65504: convert the original weights to bfloat16 or float32 instead"
    raise CheckpointError(f"tensor {name} holds {nan} NaN and {infinite} infinite among {values.numel()} values", cause)


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `name` and `revision` go into the manifest as its source."""

    directory: Path
    config: dict[str, Any] = field(repr=False)
    name: str = ""
    revision: str = "local"

    @cached_property
    def weights(self) -> Tensors:
        """Encoder, adapter, backbone, depthformer and embedding tables.

        Where there is a whole file and an index, the whole file is used: the index is left from an older download.
        """
        index = self.directory / INDEX_FILE
        if index.is_file() and not (self.directory / WEIGHTS_FILE).is_file():
            with sensible_config(INDEX_FILE):
                shards = sorted(set(read_json(index)["weight_map"].values()))
            return Tensors(*(self.directory / shard for shard in shards))
        return Tensors(self.directory / WEIGHTS_FILE)

    @property
    def has_detokenizer(self) -> bool:
        """Whether sound is made by the LFM detokenizer (LFM2.5-Audio)."""
        return (self.directory / DETOKENIZER_DIR).is_dir()

    @property
    def has_mimi(self) -> bool:
        """Whether sound is made by Mimi (LFM2-Audio)."""
        return (self.directory / MIMI_FILE).is_file()

    @cached_property
    def mimi(self) -> Tensors:
        """Mimi's tensors."""
        return Tensors(self.directory / MIMI_FILE)

    @cached_property
    def detokenizer(self) -> Tensors:
        """The LFM detokenizer's tensors."""
        return Tensors(self.directory / DETOKENIZER_DIR / WEIGHTS_FILE)

    @cached_property
    def detokenizer_config(self) -> dict[str, Any]:
        """`audio_detokenizer/config.json`."""
        return read_json(self.directory / DETOKENIZER_DIR / CONFIG_FILE)

    @property
    def generation_config(self) -> dict[str, Any]:
        """`generation_config.json`, the checkpoint's own decoding defaults; empty where there is none."""
        path = self.directory / GENERATION_FILE
        return read_json(path) if path.is_file() else {}

    @property
    def licence(self) -> str:
        """The licence that the model card's header names by its hub identifier; empty if none, or "other"."""
        path = self.directory / CARD_FILE
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        if not lines or lines[0].strip() != "---":
            return ""
        for line in lines[1:]:
            key, _, value = line.partition(":")
            if key.strip() == "license" and value.strip() != "other":
                return value.strip()
            if line.strip() == "---":
                break
        return ""

    def value(self, *path: str) -> Any:
        """A value of `config.json`, e.g. `value("encoder", "d_model")`.

        Raises:
            CheckpointError: there is none; the message names it.
        """
        found: Any = self.config
        for key in path:
            if not isinstance(found, dict) or key not in found:
                raise CheckpointError(
                    f"{CONFIG_FILE} has no {'.'.join(path)}", "Check that this is an LFM2-Audio checkpoint"
                )
            found = found[key]
        return found


@contextmanager
def sensible_config(file: str = CONFIG_FILE) -> Iterator[None]:
    """Blame `file` for every value that fails in the `with` block.

    Raises:
        CheckpointError: a value has the wrong type, or makes no sense.
    """
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} holds a value that makes no sense ({type(error).__name__}: {error})",
            "Check that this is an LFM2-Audio checkpoint",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of the checkpoint."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors begin a file with a BOM
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing", "Give a folder with config.json, model.safetensors and tokenizer.json"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})", "Download the checkpoint again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object", "Download the checkpoint again")
    return content


def open_checkpoint(directory: Path, name: str = "", revision: str = "") -> Checkpoint:
    """Open a checkpoint folder; only `config.json` is read yet.

    Args:
        directory: the folder.
        name: where it came from. Without it: the hub id of a snapshot in the hub's cache, else the config's
            `_name_or_path`, else the folder's own name.
        revision: of that source. Without it: the snapshot's commit, or `local`.

    Raises:
        CheckpointError: the folder or its `config.json` is missing or unreadable, or its weights are of another format.
    """
    if directory.is_file():
        raise not_a_folder(directory)
    if not directory.is_dir():
        raise CheckpointError(
            f"there is no checkpoint folder at {directory}",
            "Give a folder, or a hub id such as LiquidAI/LFM2.5-Audio-1.5B",
        )
    _check_format(directory)
    config = read_json(directory / CONFIG_FILE)
    refused = quantised(config)
    if refused:
        raise refused
    given = config.get("_name_or_path")
    hub_id, commit = hub_source(directory)
    own = given if isinstance(given, str) and given else directory.resolve().name
    return Checkpoint(directory, config, name or hub_id or own, revision or commit or "local")


def has_weights(directory: Path) -> bool:
    """Whether a folder has weights in safetensors."""
    return any((directory / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE))


def _check_format(directory: Path) -> None:
    if not has_weights(directory):
        refused = without_commit(directory) or other_format(directory, (path.name for path in directory.iterdir()))
        if refused:
            raise refused
