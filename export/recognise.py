"""What a file or folder is that was given as a checkpoint and cannot be exported.

In: a place, and the names of the files in it. Out: an error that says what it is and what to do, or None.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

from voxrill.runtime.bundle.manifest import MANIFEST_FILE
from voxrill.runtime.errors import CheckpointError

ADAPTER_FILE = "adapter_config.json"
"""What the package peft writes beside a LoRA adapter."""

_SNAPSHOTS, _CACHED = "snapshots", "models--"
"""The hub's cache is models--OWNER--NAME/snapshots/COMMIT; no hub id holds `--`."""

_ORIGINAL = "Export the checkpoint in safetensors that it was made from, such as LiquidAI/LFM2.5-Audio-1.5B"


class _OtherFormat(NamedTuple):
    """Patterns of file names, what such a file is, and what to do about it."""

    patterns: tuple[str, ...]
    what: str
    remedy: str


_FORMATS = (
    _OtherFormat(
        (ADAPTER_FILE,),
        "part of a LoRA adapter, which is a change to a model and not a model",
        "Give {base} as the checkpoint, and the adapter's folder with --lora",
    ),
    _OtherFormat(("*.gguf",), "a GGUF file of llama.cpp, whose weights are quantised already", _ORIGINAL),
    _OtherFormat(("*.onnx",), "an ONNX graph, exported already", _ORIGINAL),
    _OtherFormat(
        ("*.bin", "*.pt", "*.pth", "*.ckpt"),
        "a PyTorch pickle, which can run any code when it is read",
        "Load it in a place that you trust, and write it with: model.save_pretrained(FOLDER, safe_serialization=True)",
    ),
)
"""The first that matches decides: an adapter's folder may hold .bin files, too."""


def other_format(place: Path, names: Iterable[str]) -> CheckpointError | None:
    """What to raise for a place that holds these files and no `model.safetensors`; None where nothing is recognised."""
    found = sorted(names)
    if MANIFEST_FILE in found and any(name.endswith(".onnx") for name in found):
        return CheckpointError(f"{place} is a bundle, exported already", f"Run: voxrill quantize {place} -o OUT")
    for form in _FORMATS:
        name = next((name for name in found if _matches(name, form)), None)
        if name:
            remedy = form.remedy.format(base=_base_model(place))
            return CheckpointError(f"{place} holds no model.safetensors, but {name}: {form.what}", remedy)
    return None


def not_a_folder(file: Path) -> CheckpointError:
    """What to raise for a file in the place of a folder."""
    with file.open("rb") as stream:
        name = "model.gguf" if stream.read(4) == b"GGUF" else file.name  # whatever the file is called
    for form in _FORMATS:
        if _matches(name, form):
            return CheckpointError(f"{file} is {form.what}", form.remedy.format(base=_base_model(file.parent)))
    return CheckpointError(f"{file} is a file", f"Give the folder that it is in: {file.parent}")


def _matches(name: str, form: _OtherFormat) -> bool:
    return any(fnmatchcase(name.lower(), pattern) for pattern in form.patterns)


def _base_model(folder: Path) -> str:
    """The model that a LoRA adapter belongs to, if it says so."""
    try:
        return str(json.loads((folder / ADAPTER_FILE).read_bytes())["base_model_name_or_path"])
    except (OSError, ValueError, LookupError, TypeError):
        return "its base model"


def quantised(config: dict[str, Any]) -> CheckpointError | None:
    """What to raise for a config.json that says that its weights are quantised; None for others."""
    for key in ("quantization_config", "quantization"):  # transformers', and mlx-lm's
        if config.get(key):
            return CheckpointError(f"config.json has {key}: the weights are quantised already", _ORIGINAL)
    return None


def hub_source(directory: Path) -> tuple[str, str]:
    """Hub id and commit of a snapshot in the hub's cache; empty for other folders."""
    *_, repository, snapshots, commit = ("", "", *directory.resolve().parts)
    if snapshots != _SNAPSHOTS or not repository.startswith(_CACHED):
        return "", ""
    return repository.removeprefix(_CACHED).replace("--", "/"), commit


def without_commit(directory: Path) -> CheckpointError | None:
    """What to raise for the folder of a repository in the hub's cache, which is one step too high; None for others."""
    commits = sorted((directory / _SNAPSHOTS).glob("*/")) if directory.name.startswith(_CACHED) else []
    if not commits:
        return None
    return CheckpointError(f"{directory} is a folder of the hub's cache", f"Give one of its snapshots: {commits[-1]}")
