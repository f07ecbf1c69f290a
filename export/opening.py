"""Open a checkpoint of any family, in any layout that can be read.

In: a folder, or a file of a GGUF pair. Out: a `Checkpoint`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from voxrill.export.checkpoint import (
    CONFIG_FILE,
    WEIGHTS_FILE,
    Checkpoint,
    has_weights,
    open_checkpoint,
    read_json,
    stored_weights,
)
from voxrill.export.lfm3.gguf_pair import SUFFIX, omni, open_pair
from voxrill.export.lfm3.names import CODEC_FOLDERS, CODEC_PREFIX, OMNI
from voxrill.export.lfm3.tensors import Lfm3Tensors, PrefixedTensors
from voxrill.export.recognise import quantised
from voxrill.export.tensors import Given, StoredTensors, Tensors
from voxrill.runtime.bundle.manifest import TOKENIZER_FILE
from voxrill.runtime.errors import CheckpointError

MODEL_TYPE = "lfm3_audio"


def open_any(place: Path, name: str = "", revision: str = "") -> Checkpoint:
    """Open a checkpoint; name and revision as in `open_checkpoint`.

    Raises:
        CheckpointError: there is none, or it is one that Voxrill does not export.
    """
    if _is_gguf(place):
        return _from_gguf(place, name, revision)
    config = _config(place)
    kind = f"{config.get('model_type', '')} {' '.join(map(str, config.get('architectures') or ()))}".lower()
    if "lfm3" in kind and "omni" in kind:
        raise omni(str(place))
    if config.get("model_type") == MODEL_TYPE:
        return _from_hub(place, config, name, revision)
    return open_checkpoint(place, name, revision)


def _is_gguf(place: Path) -> bool:
    if place.is_file():
        with place.open("rb") as stream:
            return stream.read(4) == b"GGUF" and place.stat().st_size > _SMALLEST
    if not place.is_dir() or has_weights(place):
        return False
    return any(_is_gguf(path) for path in place.iterdir() if path.suffix.lower() == SUFFIX and path.is_file())


_SMALLEST = 1 << 10
"""Bytes of the smallest GGUF file that may be a model."""


def _config(place: Path) -> dict[str, Any]:
    """config.json, where there is one that can be read; `open_checkpoint` says what is wrong with others."""
    try:
        found = json.loads((place / CONFIG_FILE).read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _from_gguf(place: Path, name: str, revision: str) -> Checkpoint:
    pair = open_pair(place)
    folder = place if place.is_dir() else place.parent
    beside = folder / TOKENIZER_FILE
    tokenizer = beside.read_bytes() if beside.is_file() else pair.tokenizer()
    tensors = Lfm3Tensors([pair.backbone, pair.sound], f"the pair in {folder}")
    given = Given(tensors, pair.files, tokenizer)
    own = str(pair.config["_name_or_path"]) or folder.resolve().name
    return Checkpoint(folder, pair.config, name or own, revision or "local", given=given)


def _from_hub(place: Path, config: dict[str, Any], name: str, revision: str) -> Checkpoint:
    refused = quantised(config)
    if refused:
        raise refused
    stored = stored_weights(place)
    if any(key.startswith(OMNI) for key in stored):
        raise omni(str(place))
    tensors: list[Tensors] = [stored]
    codec = next((place / folder for folder in CODEC_FOLDERS if (place / folder / WEIGHTS_FILE).is_file()), None)
    files = stored.files
    if codec is not None:
        own = StoredTensors(codec / WEIGHTS_FILE)
        tensors.append(PrefixedTensors(own, CODEC_PREFIX))
        files = (*files, *own.files)
        config = {**config, "codec": read_json(codec / CONFIG_FILE) if (codec / CONFIG_FILE).is_file() else {}}
    read = Lfm3Tensors(tensors, str(place))
    read.check_heads()
    path = place / TOKENIZER_FILE
    if not path.is_file():
        raise CheckpointError(f"{path} is missing", "Download the whole checkpoint")
    stated = config.get("_name_or_path")
    own_name = stated if isinstance(stated, str) and stated else place.resolve().name
    return Checkpoint(place, config, name or own_name, revision or "local", given=Given(read, files, path.read_bytes()))
