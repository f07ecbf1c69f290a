"""A checkpoint in the published LFM2-Audio layout: its config, its tensors, its codec's files.

In: a local folder (see `hub.py` for a hub id). Out: a `Checkpoint` that hands tensors to modules one graph at a time,
so that exporting the 1.5 B model never holds more than one graph's weights. Everything is read from the files:
sizes from `config.json` where it says them, else from tensor shapes.
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

from voxrill.runtime.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
DETOKENIZER_DIR = "audio_detokenizer"
GENERATION_FILE = "generation_config.json"
CARD_FILE = "README.md"


class Tensors:
    """Named tensors of one safetensors file, or of the shards an index lists; read lazily.

    Raises:
        CheckpointError: a file is missing or not a safetensors file, or a tensor is not in it.
    """

    def __init__(self, *files: Path) -> None:
        self.files = files
        self._where: dict[str, Any] = {}
        for file in files:
            if not file.is_file():
                raise CheckpointError(f"{file} is missing", "Download the checkpoint again, whole")
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
        return tensor.float() if tensor.is_floating_point() else tensor

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
            module: its parameter names are the file's own unless `names` maps them.
            names: parameter name to the file's name, where they differ.
            given: parameters that are computed and not in the file.

        Raises:
            CheckpointError: a tensor is missing or misshapen (the message names it and both shapes).
        """
        state = dict(given or {})
        for key, wanted in module.state_dict().items():
            if key in state:
                continue
            name = (names or {}).get(key, key)
            if self.shape(name) != tuple(wanted.shape):
                raise CheckpointError(
                    f"tensor {name} has shape {list(self.shape(name))}, not {list(wanted.shape)}",
                    "config.json and the weights do not belong together",
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


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `name` and `revision` go into the manifest as its source."""

    directory: Path
    config: dict[str, Any] = field(repr=False)
    name: str = ""
    revision: str = "local"

    @cached_property
    def weights(self) -> Tensors:
        """Encoder, adapter, backbone, depthformer and embedding tables."""
        index = self.directory / INDEX_FILE
        if index.is_file():
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
        """A value of `config.json`, e.g. `value("encoder", "d_model")`; absent is an error that names it."""
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
    """Whatever trips over a value in the `with` block, it was `file` that held it.

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
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing", "Point at a folder with config.json, model.safetensors and tokenizer.json"
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not readable JSON ({error})", "Download the checkpoint again") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} does not hold a JSON object", "Download the checkpoint again")
    return content


def open_checkpoint(directory: Path, name: str = "", revision: str = "local") -> Checkpoint:
    """Open a checkpoint folder; only `config.json` is read yet.

    Args:
        directory: the folder.
        name: where it came from; else the config's `_name_or_path`, else the folder's own name.
        revision: of that source.

    Raises:
        CheckpointError: the folder or its `config.json` is missing or unreadable.
    """
    if not directory.is_dir():
        raise CheckpointError(
            f"there is no checkpoint folder at {directory}",
            "Give a folder, or a hub id such as LiquidAI/LFM2.5-Audio-1.5B",
        )
    config = read_json(directory / CONFIG_FILE)
    given = config.get("_name_or_path")
    own = given if isinstance(given, str) and given else directory.resolve().name
    return Checkpoint(directory, config, name or own, revision)
