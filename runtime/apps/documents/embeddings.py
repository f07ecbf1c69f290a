"""Texts to vectors that lie near each other where the texts say the same: a sentence model in ONNX.

In: the folder of a sentence-transformers model, as on the Hugging Face hub, with its ONNX export. Out: unit vectors.
Nothing is needed for it that the runtime has not: onnxruntime and tokenizers.
Source: Reimers and Gurevych 2019, https://arxiv.org/abs/1908.10084.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from voxrill.devices.providers import CPU, session_options
from voxrill.runtime.errors import UsageError

Floats = NDArray[np.float32]

GRAPHS = ("model.onnx", "onnx/model.onnx")
"""Where such a folder has its graph; another one of it may be named itself."""

BATCH = 16
"""Texts that are worked on at once."""

_LONGEST = 512
"""Tokens of a text that are read where the folder does not say how many."""

_TOKENIZER = "tokenizer.json"
_FEEDS = ("input_ids", "attention_mask", "token_type_ids")
_WANTED = "Give the folder of a sentence-transformers model with its ONNX export: tokenizer.json and onnx/model.onnx"


class Embedder:
    """A sentence model.

    Args:
        place: its folder, or the graph to take in it.
        threads: of onnxruntime.

    Raises:
        UsageError: something of it is missing, damaged or of another kind.
    """

    def __init__(self, place: Path, threads: int = 1) -> None:
        graph, folder = _find(place)
        self._session = _open(graph, threads)
        self._tokenizer = _tokenizer(folder)
        pooling = _settings(folder / "1_Pooling" / "config.json")
        self._first = bool(pooling.get("pooling_mode_cls_token"))
        if not self._first and not pooling.get("pooling_mode_mean_tokens", True):
            raise UsageError(f"{folder} pools tokens in a way that is not known here", "Take one with mean or CLS")
        prompts = _settings(folder / "config_sentence_transformers.json").get("prompts") or {}
        self._asks, self._tells = prompts.get("query", ""), prompts.get("document", prompts.get("passage", ""))
        self.identity = hashlib.sha256(graph.read_bytes() + json.dumps([pooling, prompts]).encode()).hexdigest()
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
        encoded = self._tokenizer.encode_batch(list(texts))
        columns = {
            "input_ids": [one.ids for one in encoded],
            "attention_mask": [one.attention_mask for one in encoded],
            "token_type_ids": [one.type_ids for one in encoded],
        }
        feeds = {entry.name: np.array(columns[entry.name], np.int64) for entry in self._session.get_inputs()}
        states: Floats = self._session.run(None, feeds)[0]  # of every token: (texts, tokens, n)
        if states.ndim == 2:
            pooled = states
        elif self._first:
            pooled = states[:, 0]
        else:
            heard = np.array(columns["attention_mask"], np.float32)[:, :, None]
            pooled = (states * heard).sum(1) / np.maximum(heard.sum(1), 1)
        vectors: Floats = pooled / np.maximum(np.linalg.norm(pooled, axis=1, keepdims=True), 1e-9)
        return vectors


def _find(place: Path) -> tuple[Path, Path]:
    """The graph, and the folder in which the rest lies."""
    if place.is_file():
        graph, folders = place, place.parents[:2]
    else:
        found = [place / name for name in GRAPHS if (place / name).is_file()]
        if not found:
            raise UsageError(f"{place} holds neither {' nor '.join(GRAPHS)}", _WANTED)
        graph, folders = found[0], (place,)
    for folder in folders:
        if (folder / _TOKENIZER).is_file():
            return graph, folder
    raise UsageError(f"there is no {_TOKENIZER} beside {graph}", _WANTED)


def _open(graph: Path, threads: int) -> ort.InferenceSession:
    try:
        session = ort.InferenceSession(str(graph), sess_options=session_options(threads), providers=[CPU])
    except Exception as error:  # onnxruntime raises a class per status
        raise UsageError(f"{graph} cannot be loaded ({' '.join(str(error).split())})", "Copy it again") from None
    strange = {entry.name for entry in session.get_inputs()} - set(_FEEDS)
    if strange or len(session.get_outputs()[0].shape) not in (2, 3):
        what = f"wants {', '.join(sorted(strange))}" if strange else "gives no vectors of tokens"
        raise UsageError(f"{graph} is no sentence model: it {what}", _WANTED)
    return session


def _tokenizer(folder: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
    except Exception as error:  # the library raises bare Exception
        raise UsageError(f"{folder / _TOKENIZER} is not a readable tokenizer ({error})", "Copy it again") from None
    padding = tokenizer.padding or {}
    longest = _settings(folder / "sentence_bert_config.json").get("max_seq_length") or _LONGEST
    tokenizer.enable_truncation(longest)
    tokenizer.enable_padding(pad_id=padding.get("pad_id", 0), pad_token=padding.get("pad_token", "[PAD]"))
    return tokenizer


def _settings(file: Path) -> dict[str, Any]:
    """A file of settings; {} where there is none."""
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = json.loads(file.read_bytes())
    except ValueError as error:
        raise UsageError(f"{file} cannot be read ({error})", "Copy it again") from None
    return settings
