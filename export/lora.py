"""A LoRA adapter in the layout of the package peft, merged into a checkpoint's weights as they are read.

In: a folder with adapter_config.json and adapter_model.safetensors, trained on the reference's model or on that of
transformers. Out: a `WeightChange`: each adapted weight W becomes W + scale · B A, as peft's merge_and_unload makes it,
and modules that were trained whole (`modules_to_save`) replace the base's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec
import torch

from voxrill.export.overlay import ADAPTER_PREFIX, check_fits, shown
from voxrill.export.recognise import ADAPTER_FILE
from voxrill.export.tensors import OverlaidTensors, StoredTensors, Tensors, TiedTensors, sha256
from voxrill.export.transformers_layout import PARTS, PublishedName, published_name, published_names
from voxrill.runtime.errors import CheckpointError
from voxrill.runtime.printable import printable

ADAPTER_WEIGHTS = "adapter_model.safetensors"
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    # Options of other methods under the name of LoRA: each changes what merging means.
    "use_dora": (False,),
    "lora_bias": (False,),
    "use_qalora": (False,),
    "use_bdlora": (False,),
    "target_parameters": (),
    "layer_replication": (),
    "trainable_token_indices": (),
    "alora_invocation_tokens": (),
    "arrow_config": (),
    "kasa_config": (),
    "velora_config": (),
    "monteclora_config": (),
}
_METHODS = {"use_dora": "DoRA"}
"""What users call the method that an option turns on, where they call it otherwise."""

_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga", "mica")
"""Beginnings of `init_lora_weights` that change the base's weights before training: such an adapter does not fit the
published base unless peft converted it when it was saved, which sets the option to true."""

_FACTORS = {
    "lora_A.weight": "down",
    "lora_B.weight": "up",
    "lora_embedding_A": "down",
    "lora_embedding_B": "up",
}
_OF_EMBEDDING = "lora_embedding_"


class AdapterConfig(msgspec.Struct, frozen=True):
    """What adapter_config.json says of the scale; other keys are checked by `_check_method`.

    r: rank; lora_alpha: scale times rank (times its root with `use_rslora`); rank_pattern, alpha_pattern: other values
    for modules whose names end with a regular expression; bias: none, all or lora_only; modules_to_save: trained whole.
    """

    r: int
    lora_alpha: float
    use_rslora: bool = False
    rank_pattern: dict[str, int] = {}
    alpha_pattern: dict[str, float] = {}

    def scale(self, module: str) -> float:
        """The factor of B A for a module."""
        rank = self.rank(module)
        return float(_matching(self.alpha_pattern, module, self.lora_alpha)) / (rank**0.5 if self.use_rslora else rank)

    def rank(self, module: str) -> int:
        """The rank of a module's factors."""
        return int(_matching(self.rank_pattern, module, self.r))


def _matching(patterns: Mapping[str, float], module: str, default: float) -> float:
    """The value of the first pattern that a module's name ends with, as peft looks it up."""
    return next((value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module)), default)


@dataclass(frozen=True)
class Factors:
    """The two factors of one adapted module: names of A and B in the file; embedding: whether it is one."""

    module: str
    down: str = ""
    up: str = ""
    embedding: bool = False


@dataclass(frozen=True)
class LoraAdapter:
    """An adapter to merge; `place` is what the user named. saved: names of tensors that were trained whole."""

    place: Path
    stored: StoredTensors = field(repr=False)
    config: AdapterConfig
    factors: tuple[Factors, ...]
    saved: tuple[str, ...] = ()
    kind: ClassVar[Literal["weights", "lora"]] = "lora"

    @property
    def name(self) -> str:
        """The folder's own name."""
        return printable(self.place.resolve().name)

    @cached_property
    def sha256(self) -> str:
        """Hash of the bytes of the config and of the tensors, in order."""
        return sha256((self.place / ADAPTER_FILE, *self.stored.files))

    def over(self, base: Tensors, twins: Mapping[str, str]) -> Tensors:
        """The tensors of `base` with this adapter merged.

        Raises:
            CheckpointError: a module does not exist in `base`, or has another shape.
        """
        saved = published_names(_Chosen(self.stored, self.saved))
        check_fits(self.place, saved, base)
        self._check_tied(saved, base, twins)
        if self.saved:
            base = OverlaidTensors(base, TiedTensors(saved, twins))
        deltas: dict[str, list[Factors]] = {}
        for factors in self.factors:
            name = published_name(f"{factors.module}.weight").name
            deltas.setdefault(name, []).append(factors)
            if name in base and name in twins:  # merging in place changes both names of one tensor
                deltas[twins[name]] = deltas[name]
        lacking = [factors.module for factors in self.factors if _weight(factors).name not in base]
        if lacking:
            raise CheckpointError(
                f"{self.place} adapts {len(lacking)} modules that the base lacks: {shown(lacking)}",
                "Give the base that it was trained on",
            )
        merged = _MergedTensors(base, self, deltas)
        for factors in self.factors:
            merged.check(factors)
        return merged

    def delta(self, factors: Factors) -> torch.Tensor:
        """What merging adds to the module's weight, in the weight's layout but for kernels of one position."""
        down, up = self.stored.read(factors.down), self.stored.read(factors.up)
        if factors.embedding:
            product = (up @ down).T
        elif down.ndim == 2:
            product = up @ down
        else:  # a convolution: A is (rank, in, kernel ...), B (out, rank, 1 ...)
            product = torch.einsum("or,ri...->oi...", up.flatten(1), down)
        return product * self.config.scale(factors.module)

    def about(self) -> str:
        """What is merged, in one line."""
        whole = f" and replaces {len(self.saved)} tensors that were trained whole" if self.saved else ""
        return f"{self.name} adapts {len(self.factors)} modules{whole}."

    def _check_tied(self, saved: Tensors, base: Tensors, twins: Mapping[str, str]) -> None:
        """Refuse a tensor that was trained under one of its two names only: the other use kept the old values."""
        for name in saved:
            twin = twins.get(name, name)
            if twin in base and twin not in saved and name.startswith("depth_embeddings."):
                raise CheckpointError(
                    f"{self.place} has trained {name} whole, but not {twin}, which is the same tensor in the base",
                    "Train both (modules_to_save with their common parent), or untie them: depthformer.tie false",
                )


class _Chosen(Tensors):
    """Some tensors of an adapter, by the names of the model that it was trained on."""

    def __init__(self, stored: Tensors, names: Iterable[str]) -> None:
        self._stored, self._names = stored, {_plain(name): name for name in names}

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._stored.shape(self._names[name])

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._stored.dtype(self._names[name])

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        return self._stored.read(self._names[name])


class _MergedTensors(Tensors):
    """Tensors to which an adapter's products are added as they are read."""

    def __init__(self, base: Tensors, adapter: LoraAdapter, deltas: Mapping[str, list[Factors]]) -> None:
        self._base, self._adapter, self._deltas = base, adapter, deltas

    def __contains__(self, name: str) -> bool:
        return name in self._base

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it."""
        return self._base.shape(name)

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        return self._base.dtype(name)

    def read(self, name: str) -> torch.Tensor:
        """One tensor; floating dtypes become float32."""
        values = self._base.read(name)
        if name in self._deltas:
            values = values.clone()  # what was read may be the file's own memory, which later reads would see changed
        for factors in self._deltas.get(name, ()):
            delta, (_, part) = self._adapter.delta(factors), _weight(factors)
            rows = _rows(part, delta.shape[0], values.shape[0])
            values[rows] += delta.reshape(values[rows].shape)
        return values

    def check(self, factors: Factors) -> None:
        """Refuse factors whose ranks or sizes do not fit.

        Raises:
            CheckpointError: they do not; the message names both.
        """
        adapter, module = self._adapter, factors.module
        down, up = adapter.stored.shape(factors.down), adapter.stored.shape(factors.up)
        name, part = _weight(factors)
        weight, rank = self._base.shape(name), adapter.config.rank(module)
        if (down[0], up[1]) != (rank, rank):
            raise CheckpointError(
                f"the factors of {module} have ranks {down[0]} and {up[1]}, and {ADAPTER_FILE} says {rank}",
                "Keep the config and the weights of one adapter together; convolutions in groups cannot be merged",
            )
        made = (down[1], up[0]) if factors.embedding else (up[0], *down[1:])
        wanted = weight if part is None else (made[0], *weight[1:])
        if made != tuple(wanted) or made[0] > weight[0]:
            raise CheckpointError(
                f"{module} has shape {list(made)} in {adapter.place}, and {list(weight)} in the base",
                "Give the base that it was trained on; convolutions in groups cannot be merged",
            )


def _weight(factors: Factors) -> PublishedName:
    return published_name(f"{factors.module}.weight")


def _rows(part: int | None, rows: int, total: int) -> slice:
    """Where a delta of `rows` rows belongs. Of a packed tensor, the key's and the value's rows are equally many."""
    start = total - (PARTS - part) * rows if part else 0
    return slice(start, start + rows)


def open_adapter(place: Path) -> LoraAdapter:
    """Open what `--lora` names.

    Raises:
        CheckpointError: it is no LoRA adapter, or one that cannot be merged; the message says why.
    """
    config = _read_config(place)
    stored = StoredTensors(place / ADAPTER_WEIGHTS)
    factors: dict[str, dict[str, Any]] = {}
    saved = []
    for name in stored:
        module, kind = _split(name, place)
        if kind is None:
            saved.append(name)
        else:
            factors.setdefault(module, {})[_FACTORS[kind]] = name
            factors[module]["embedding"] = kind.startswith(_OF_EMBEDDING)
    _check_pairs(place, factors)
    if not factors and not saved:
        raise CheckpointError(f"{place / ADAPTER_WEIGHTS} holds no tensors", "Give the adapter that the training saved")
    pairs = tuple(Factors(module, **found) for module, found in factors.items())
    return LoraAdapter(place, stored, config, pairs, tuple(saved))


def _plain(name: str) -> str:
    """A tensor's name in the model that was adapted. Where biases are trained, peft names the module that it wraps."""
    return name.removeprefix(ADAPTER_PREFIX).replace(".base_layer.", ".")


def _split(name: str, place: Path) -> tuple[str, str | None]:
    """Module and kind of factor of a tensor's name; kind None: a tensor that was trained whole."""
    plain = _plain(name)
    for kind in _FACTORS:
        if plain.endswith(f".{kind}"):
            return plain.removesuffix(f".{kind}"), kind
    if "lora_" in plain:
        raise CheckpointError(
            f"{place} has the tensor {name}, which plain LoRA has not", "Merge it with peft: merge_and_unload"
        )
    return plain, None


def _check_pairs(place: Path, factors: Mapping[str, Mapping[str, Any]]) -> None:
    halves = [module for module, found in factors.items() if not {"down", "up"} <= set(found)]
    if halves:
        raise CheckpointError(
            f"{place} has only one factor of {shown(halves)}", "It may be cut short: save the adapter again"
        )


def _read_config(place: Path) -> AdapterConfig:
    path = place / ADAPTER_FILE
    if not path.is_file():
        raise CheckpointError(
            f"{place} has no {ADAPTER_FILE}", "Give an adapter's folder, or give whole weights with --weights"
        )
    if not (place / ADAPTER_WEIGHTS).is_file():
        raise CheckpointError(
            f"{place} has no {ADAPTER_WEIGHTS}", "Save the adapter with: model.save_pretrained(FOLDER)"
        )
    try:
        raw = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
        _check_method(place, raw)
        # peft writes null for what is not set.
        return msgspec.convert({key: value for key, value in raw.items() if value is not None}, AdapterConfig)
    except (msgspec.MsgspecError, OSError) as error:
        raise CheckpointError(f"{path} is not an adapter's config ({error})", "Save the adapter again") from None


def _check_method(place: Path, config: Mapping[str, Any]) -> None:
    """Refuse adapters that are not plain LoRA."""
    method = config.get("peft_type", "LORA")
    if method != "LORA":
        raise _not_plain(place, f"{method}, not LoRA")
    for option, neutral in _NEUTRAL.items():
        if config.get(option) and config[option] not in neutral:
            raise _not_plain(place, f"{_METHODS.get(option, option)}, not plain LoRA")
    start = config.get("init_lora_weights", True)
    if isinstance(start, str) and start.startswith(_CHANGES_BASE):
        raise _not_plain(place, f"made with init_lora_weights {start!r}, which changes the base's weights as well")


def _not_plain(place: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the adapter {place} is {what}", "Merge it with peft (merge_and_unload), save that, and give it as --weights"
    )
