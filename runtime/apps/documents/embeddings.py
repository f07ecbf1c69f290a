"""Texts to vectors that are near each other if the texts say the same: a sentence model in ONNX.

In: the folder of a sentence-transformers model, as on the Hugging Face hub, with its ONNX export. Out: unit vectors.
It needs only what the runtime has: onnxruntime and tokenizers. Nothing that the folder says is believed unchecked.
Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeVar

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from voxrill.devices.providers import open_foreign
from voxrill.runtime.errors import DataError
from voxrill.runtime.input_file import decoded, read_bytes

Floats = NDArray[np.float32]

GRAPHS = ("model.onnx", "onnx/model.onnx")
"""Where such a folder has its graph; another graph of it may be named itself."""

BATCH = 16
"""Texts that are computed at once."""

_LONGEST = 512
"""Tokens of a text that are read, unless the folder says how many."""

_MOST = 64 << 20
"""Bytes of a file of settings or of a tokenizer at most; those of large multilingual models have 17 MB."""

_TOKENIZER = "tokenizer.json"
_FEEDS = ("input_ids", "attention_mask", "token_type_ids")
_WANTED = "Give the folder of a sentence-transformers model with its ONNX export: tokenizer.json and onnx/model.onnx"


class _Pooling(msgspec.Struct):
    pooling_mode_cls_token: bool = False
    pooling_mode_mean_tokens: bool = True


class _Prompted(msgspec.Struct):
    prompts: dict[str, str] | None = None


class _Lengths(msgspec.Struct):
    max_seq_length: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None


class _Padding(msgspec.Struct):
    pad_id: int = 0
    pad_token: str = "[PAD]"


Settings = TypeVar("Settings", bound=msgspec.Struct)


class Embedder:
    """A sentence model.

    Args:
        place: its folder, or the graph to take in it.
        threads: of onnxruntime.

    Raises:
        DataError: something of it is missing, damaged or of another kind; also later, when its graph does not give
            what it declares.
    """

    def __init__(self, place: Path, threads: int = 1) -> None:
        self._graph, folder = _find(place)
        self._session = _open(self._graph, threads)
        self._tokenizer = _tokenizer(folder)
        pooling = _settings(folder / "1_Pooling" / "config.json", _Pooling)
        self._first = pooling.pooling_mode_cls_token
        if not self._first and not pooling.pooling_mode_mean_tokens:
            raise DataError(f"{folder} pools tokens in a way that is not known here", "Take one with mean or CLS")
        prompts = _settings(folder / "config_sentence_transformers.json", _Prompted).prompts or {}
        self._asks, self._tells = prompts.get("query", ""), prompts.get("document", prompts.get("passage", ""))
        self.identity = _identity(self._graph, [pooling, prompts])
        """What tells its vectors from those of another."""

    def question(self, text: str) -> Floats:
        """A question's vector, (n,)."""
        vector: Floats = self._vectors([self._asks + text])[0]
        return vector

    def passages(self, texts: Sequence[str]) -> Floats:
        """Passages' vectors, (texts, n)."""
        batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
        return np.concatenate([self._vectors([self._tells + text for text in batch]) for batch in batches])

    def _vectors(self, texts: Sequence[str]) -> Floats:
        try:
            encoded = self._tokenizer.encode_batch(list(texts))
        except Exception as error:  # as of a tokenizer without a token for unknown words
            raise DataError(f"the tokenizer beside {self._graph} cannot be used ({error})", _WANTED) from None
        columns = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
            "token_type_ids": [one.type_ids for one in encoded],
        }
        feeds = {entry.name: np.array(columns[entry.name], np.int64) for entry in self._session.get_inputs()}
        states = self._states(feeds, np.array(columns["input_ids"]).shape)
        if states.ndim == 2:
            pooled = states
        elif self._first:
            pooled = states[:, 0]
        else:
            # Padding must not count: a text has the same vector alone and beside a longer one.
            heard = np.array(columns["attention_mask"], np.float32)[:, :, None]
            pooled = (states * heard).sum(1) / np.maximum(heard.sum(1), 1)
        vectors: Floats = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-9)
        return vectors

    def _states(self, feeds: dict[str, NDArray[np.int64]], tokens: tuple[int, ...]) -> Floats:
        """What the graph gives: of every token (texts, tokens, n), or of every text (texts, n)."""
        try:
            states = np.asarray(self._session.run(None, feeds)[0])
        except Exception as error:  # onnxruntime raises a class per status
            raise DataError(f"{self._graph} cannot be run ({' '.join(str(error).split())})", _WANTED) from None
        if states.ndim not in (2, 3) or states.dtype.kind != "f" or not states.shape[-1]:
            raise DataError(f"{self._graph} gives {states.dtype} of shape {states.shape}, no vectors", _WANTED)
        if states.shape[:-1] != tokens[: states.ndim - 1]:
            raise DataError(f"{self._graph} gives vectors of {states.shape[:-1]} for {tokens} tokens", _WANTED)
        if not np.isfinite(states).all():
            raise DataError(f"{self._graph} gives vectors that hold no numbers (NaN or infinity)", _WANTED)
        return states.astype(np.float32)


def _find(place: Path) -> tuple[Path, Path]:
    """The graph, and the folder in which the rest lies."""
    if place.is_file():
        graph, folders = place, place.parents[:2]
    else:
        found = [place / name for name in GRAPHS if (place / name).is_file()]
        if not found:
            raise DataError(f"{place} holds neither {' nor '.join(GRAPHS)}", _WANTED)
        graph, folders = found[0], (place,)
    for folder in folders:
        if (folder / _TOKENIZER).is_file():
            return graph, folder
    raise DataError(f"there is no {_TOKENIZER} beside {graph}", _WANTED)


def _open(graph: Path, threads: int) -> ort.InferenceSession:
    try:
        session = open_foreign(graph, threads)
    except Exception as error:  # onnxruntime raises a class per status
        raise DataError(f"{graph} cannot be loaded ({' '.join(str(error).split())})", "Copy it again") from None
    strange = {entry.name for entry in session.get_inputs()} - set(_FEEDS)
    shape = session.get_outputs()[0].shape
    if strange or not isinstance(shape, list) or len(shape) not in (2, 3):
        what = f"wants {', '.join(sorted(strange))}" if strange else "gives no vectors of tokens"
        raise DataError(f"{graph} is no sentence model: it {what}", _WANTED)
    return session


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / _TOKENIZER
    longest = _settings(folder / "sentence_bert_config.json", _Lengths).max_seq_length or _LONGEST
    try:
        tokenizer = Tokenizer.from_buffer(read_bytes(file, _MOST))
        padding = msgspec.convert(tokenizer.padding or {}, _Padding)
        tokenizer.enable_truncation(longest)
        tokenizer.enable_padding(pad_id=padding.pad_id, pad_token=padding.pad_token)
    except DataError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{file} is not a readable tokenizer ({error})", "Copy it again") from None
    return tokenizer


def _settings(file: Path, kind: type[Settings]) -> Settings:
    """A file of settings; the defaults where there is none."""
    if not file.is_file():
        return kind()
    content = read_bytes(file, _MOST)
    return decoded(lambda: msgspec.json.decode(content, type=kind), str(file), "Copy it again")


def _identity(graph: Path, settings: object) -> str:
    with open(graph, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(msgspec.json.encode(settings))
    return digest.hexdigest()
