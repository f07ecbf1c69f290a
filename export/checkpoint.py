"""A checkpoint of LFM2-Audio, in the published layout or in transformers': its config, tensors and codec's files.

In: a local folder (see `hub.py` for a hub id), and what is laid over its weights (see `overlay.py` and `lora.py`). Out:
a `Checkpoint`, which knows the published names only. Sizes come from `config.json` where it has them, else from tensor
shapes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from voxrill.export.recognise import hub_source, not_a_folder, other_format, quantised, without_commit
from voxrill.export.tensors import Given, StoredTensors, Tensors, TiedTensors, WeightChange
from voxrill.export.transformers_layout import HEAD, is_transformers_config, published_config, published_names
from voxrill.runtime.bundle.manifest import TOKENIZER_FILE
from voxrill.runtime.errors import CheckpointError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
DETOKENIZER_DIR = "audio_detokenizer"
GENERATION_FILE = "generation_config.json"
CARD_FILE = "README.md"
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Where transformers keeps the settings of the features: newer releases in the first, older ones in the second."""

TEXT_TABLE = "lfm.embed_tokens.weight"


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint. `name` and `revision` go into the manifest as its source, `changes` too.

    given: weights and tokenizer of a layout that is not read here (see `opening.py`).
    """

    directory: Path
    config: dict[str, Any] = field(repr=False)
    name: str = ""
    revision: str = "local"
    changes: tuple[WeightChange, ...] = ()
    given: Given | None = field(default=None, repr=False)

    @cached_property
    def stored(self) -> StoredTensors:
        """The weights as they lie in the folder."""
        return stored_weights(self.directory)

    @cached_property
    def weights(self) -> Tensors:
        """Encoder, adapter, backbone, depthformer and embedding tables, with all changes."""
        twins = self.twins
        tensors: Tensors = self.given.tensors if self.given else TiedTensors(published_names(self.stored), twins)
        for change in self.changes:
            tensors = change.over(tensors, twins)
        return tensors

    @property
    def twins(self) -> dict[str, str]:
        """Each name of a tied tensor, and its other name."""
        if self.given:
            return {}
        pairs = [(TEXT_TABLE, HEAD)]
        with sensible_config():
            if self.config.get("depthformer", {}).get("tie", True):
                books = (f"depth_embeddings.{book}" for book in range(int(self.value("codebooks"))))
                pairs += [(f"{book}.embedding.weight", f"{book}.to_logits.weight") for book in books]
        return dict(pairs) | {second: first for first, second in pairs}

    @property
    def files(self) -> tuple[Path, ...]:
        """The files of all weights, the codec's included."""
        if self.given:
            return self.given.files
        return *self.stored.files, *(self.detokenizer if self.has_detokenizer else self.mimi).files

    @property
    def numbers(self) -> int:
        """How many numbers all weights hold."""
        sources = [self.weights]
        if not self.given:
            sources.append(self.detokenizer if self.has_detokenizer else self.mimi)
        return sum(math.prod(source.shape(name)) for source in sources for name in source)

    def tokenizer(self) -> bytes:
        """`tokenizer.json`.

        Raises:
            CheckpointError: it is missing.
        """
        if self.given:
            return self.given.tokenizer
        path = self.directory / TOKENIZER_FILE
        if not path.is_file():
            raise CheckpointError(f"{path} is missing", "Download the whole checkpoint")
        return path.read_bytes()

    @property
    def has_detokenizer(self) -> bool:
        """Whether sound is made by the LFM detokenizer (LFM2.5-Audio)."""
        return (self.directory / DETOKENIZER_DIR).is_dir()

    @property
    def has_mimi(self) -> bool:
        """Whether sound is made by Mimi (LFM2-Audio)."""
        return (self.directory / MIMI_FILE).is_file()

    @cached_property
    def mimi(self) -> StoredTensors:
        """Mimi's tensors."""
        return StoredTensors(self.directory / MIMI_FILE)

    @cached_property
    def detokenizer(self) -> StoredTensors:
        """The LFM detokenizer's tensors."""
        return StoredTensors(self.directory / DETOKENIZER_DIR / WEIGHTS_FILE)

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


def stored_weights(directory: Path) -> StoredTensors:
    """The weights of a folder: one file, or the shards that its index lists.

    Where there is a whole file and an index, the whole file is used: the index is left from an older download.
    """
    index = directory / INDEX_FILE
    if index.is_file() and not (directory / WEIGHTS_FILE).is_file():
        with sensible_config(INDEX_FILE):
            shards = sorted(set(read_json(index)["weight_map"].values()))
        return StoredTensors(*(directory / shard for shard in shards))
    return StoredTensors(directory / WEIGHTS_FILE)


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
    if has_weights(directory) and not (directory / CONFIG_FILE).is_file():
        raise CheckpointError(
            f"{directory / CONFIG_FILE} is missing",
            "If these are the weights of a fine-tune: voxrill export BASE -o OUT --weights " + str(directory),
        )
    config = read_json(directory / CONFIG_FILE)
    refused = quantised(config)
    if refused:
        raise refused
    given = config.get("_name_or_path")
    if is_transformers_config(config):
        with sensible_config():
            config = published_config(config, _feature_extractor(directory))
    hub_id, commit = hub_source(directory)
    own = given if isinstance(given, str) and given else directory.resolve().name
    return Checkpoint(directory, config, name or hub_id or own, revision or commit or "local")


def _feature_extractor(directory: Path) -> dict[str, Any]:
    """The settings of the features, from whichever of transformers' files has them."""
    for name in PROCESSOR_FILES:
        if (directory / name).is_file():
            content = read_json(directory / name)
            found = content.get("feature_extractor", content)
            if isinstance(found, dict) and "feature_size" in found:
                return found
    raise CheckpointError(
        f"{directory} has no {PROCESSOR_FILES[0]} with a feature_extractor",
        "Copy it from the conversion that the weights were made from",
    )


def has_weights(directory: Path) -> bool:
    """Whether a folder has weights in safetensors."""
    return any((directory / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE))


def _check_format(directory: Path) -> None:
    if not has_weights(directory):
        refused = without_commit(directory) or other_format(directory, (path.name for path in directory.iterdir()))
        if refused:
            raise refused
