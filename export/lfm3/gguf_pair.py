"""LFM3-Audio as llama.cpp has it: two GGUF files, the backbone, and an mmproj file with all that is sound.

In: a folder with the pair, or one file of it. Out: tensors in float32, the config that the metadata make, and the
tokenizer.
Every kind of quantised block that the package gguf can read is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from voxrill.export.lfm import CONV
from voxrill.export.lfm3.decoder import FULL, SLIDING
from voxrill.export.tensors import Tensors, check_finite
from voxrill.runtime.errors import CheckpointError, needs_extra

SUFFIX = ".gguf"
BACKBONE, SOUND = "lfm3", "lfm3a_gen"
"""The architecture of the backbone's file, and the projector type of the other's generating half."""

_ORIGINAL = "Give the GGUF pair of LFM3-Audio, or a checkpoint in safetensors such as LiquidAI/LFM2.5-Audio-1.5B"
_CONTROL, _USER_DEFINED = 3, 4
"""llama.cpp's types of tokens that are matched as a whole."""

_CODES = "a.gen.code.embd.weight"
"""The codebooks' embeddings, one codebook after the other in the first axis."""

_SPLIT = (
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*"
    "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
)
"""How LFM2's tokenizer, and LFM3's after it, cuts text before it is encoded."""


class GgufTensors(Tensors):
    """The tensors of one GGUF file, memory-mapped.

    Raises:
        CheckpointError: it is not a GGUF file, or is cut short.
    """

    def __init__(self, file: Path) -> None:
        with needs_extra("export"):
            import gguf
        self.file = file
        try:
            self._reader = gguf.GGUFReader(file)
        except Exception as error:  # numpy's and the package's own, by what is wrong
            raise CheckpointError(
                f"{file} is not a readable GGUF file ({error})", "It may be cut short: download it again"
            ) from None
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str, default: Any = None) -> Any:
        """A value of the metadata."""
        field = self._reader.get_field(key)
        return default if field is None else field.contents()

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of one tensor, without reading it. GGUF lists sizes the other way round."""
        return tuple(int(size) for size in reversed(self._tensors[name].shape))

    def dtype(self, name: str) -> str:
        """The type that one tensor is stored in."""
        stored = str(self._tensors[name].tensor_type.name)
        return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(stored, stored)

    def read(self, name: str) -> torch.Tensor:
        """One tensor in float32.

        Raises:
            CheckpointError: its blocks cannot be read, or it holds NaN or infinity.
        """
        from gguf.quants import dequantize

        tensor = self._tensors[name]
        try:
            values = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)
        except NotImplementedError:
            raise CheckpointError(
                f"tensor {name} of {self.file.name} is quantised as {self.dtype(name)}, which cannot be read",
                "Give a file in BF16, F16 or Q8_0",
            ) from None
        wide = torch.from_numpy(values.reshape(self.shape(name)))
        check_finite(name, wide, torch.float32)
        return wide


@dataclass(frozen=True)
class GgufPair:
    """The two opened files."""

    backbone: GgufTensors
    sound: GgufTensors

    @property
    def files(self) -> tuple[Path, ...]:
        """Both files."""
        return self.backbone.file, self.sound.file

    @cached_property
    def config(self) -> dict[str, Any]:
        """What config.json says in the published layout, as far as the metadata say it."""
        text, sound = self.backbone.value, self.sound.value
        lfm = {
            "layer_types": self._kinds(),
            "sliding_window": text(f"{BACKBONE}.attention.sliding_window"),
            "norm_eps": text(f"{BACKBONE}.attention.layer_norm_rms_epsilon"),
            "max_position_embeddings": text(f"{BACKBONE}.context_length"),
            "rope_parameters": {
                FULL: _known({"rope_theta": text(f"{BACKBONE}.rope.freq_base")}),
                SLIDING: _known({"rope_theta": text(f"{BACKBONE}.rope.freq_base_swa")}),
            },
        }
        heard = {"dim_in": sound("clip.audio.num_mel_bins"), "sliding_window": sound("clip.audio.window_size")}
        drawn = {
            "temperature": sound("clip.gen.audio.sampling.temp"),
            "top_k": sound("clip.gen.audio.sampling.top_k"),
            "penalty": sound("clip.gen.audio.sampling.penalty_repeat"),
            "penalty_frames": sound("clip.gen.audio.sampling.penalty_last_n"),
        }
        return {
            "model_type": "lfm3_audio",
            **({"codebooks": self.sound.shape(_CODES)[0]} if _CODES in self.sound else {}),
            "_name_or_path": text("general.name", ""),
            "lfm": _known(lfm),
            "encoder": _known(heard),
            "audio_sampling": _known(drawn),
        }

    def _kinds(self) -> list[str] | None:
        """The kinds of layers; None where the metadata do not say which attention layers have a window."""
        pattern = self.backbone.value(f"{BACKBONE}.attention.sliding_window_pattern")
        if not isinstance(pattern, list):
            return None
        convs = [f"blk.{layer}.shortconv.conv.weight" in self.backbone for layer in range(len(pattern))]
        return [CONV if conv else SLIDING if slides else FULL for conv, slides in zip(convs, pattern, strict=True)]

    def tokenizer(self) -> bytes:
        """A `tokenizer.json` of the vocabulary in the backbone's file.

        Raises:
            CheckpointError: there is none, or it is no byte-level BPE.
        """
        from tokenizers import AddedToken, Regex, Tokenizer, decoders, pre_tokenizers
        from tokenizers.models import BPE

        tokens, merges = (self.backbone.value(f"tokenizer.ggml.{key}") for key in ("tokens", "merges"))
        if not tokens or self.backbone.value("tokenizer.ggml.model") != "gpt2":
            raise CheckpointError(
                f"{self.backbone.file.name} holds no byte-level BPE tokenizer", "Put a tokenizer.json beside it"
            )
        types = self.backbone.value("tokenizer.ggml.token_type", [1] * len(tokens))
        pairs = [tuple(merge.split(" ", 1)) for merge in merges or ()]
        made = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, pairs, ignore_merges=True))
        split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
        bytewise = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        made.pre_tokenizer = pre_tokenizers.Sequence([split, bytewise])
        made.decoder = decoders.ByteLevel()
        made.add_tokens([AddedToken(t, normalized=False) for t, k in zip(tokens, types, strict=True)
                         if k == _USER_DEFINED])  # fmt: skip
        made.add_special_tokens([AddedToken(t, normalized=False, special=True)
                                 for t, k in zip(tokens, types, strict=True) if k == _CONTROL])  # fmt: skip
        return json.dumps(json.loads(made.to_str()), ensure_ascii=False).encode()


def _known(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the metadata have."""
    return {key: value for key, value in values.items() if value is not None}


def open_pair(place: Path) -> GgufPair:
    """Open a folder with the pair, or the pair that a file belongs to.

    Raises:
        CheckpointError: one half is missing, there are several, or the files are of another model.
    """
    folder = place if place.is_dir() else place.parent
    named = GgufTensors(place) if place.is_file() else None
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() == SUFFIX)
    found: dict[bool, list[GgufTensors]] = {False: [], True: []}
    for file in files:
        if named is not None and file == place:
            continue
        with_sound = _is_sound(opened := GgufTensors(file))
        if with_sound is not None:
            found[with_sound].append(opened)
    if named is not None:
        kind = _is_sound(named)
        if kind is None:
            raise _other(named)
        found[kind] = [named]
    if not found[False] and not found[True]:
        raise _other(GgufTensors(files[0]))
    for with_sound, what in ((False, "backbone"), (True, "mmproj file, which has encoder, depth decoder and codec")):
        if not found[with_sound]:
            raise CheckpointError(f"{folder} has only one half of a GGUF pair: no {what}", "Put both into one folder")
        if len(found[with_sound]) > 1:
            names = ", ".join(one.file.name for one in found[with_sound])
            raise CheckpointError(f"{folder} has several files of one kind: {names}", "Leave one of each kind there")
    return GgufPair(found[False][0], found[True][0])


def _is_sound(file: GgufTensors) -> bool | None:
    """Whether a file is the half with the sound; False for the backbone; None for a file of another model."""
    architecture = str(file.value("general.architecture", ""))
    if architecture == BACKBONE:
        return False
    return True if architecture == "clip" and file.value("clip.gen.audio.projector_type") == SOUND else None


def _other(file: GgufTensors) -> CheckpointError:
    architecture = file.value("general.architecture", "unknown")
    if "omni" in f"{architecture} {file.value('general.name', '')}".lower():
        return omni(str(file.file))
    kind = file.value("clip.gen.audio.projector_type") or file.value("clip.projector_type") or architecture
    return CheckpointError(f"{file.file} is a GGUF file of llama.cpp, of the architecture {kind}", _ORIGINAL)


def omni(place: str) -> CheckpointError:
    """What to raise for the sibling with eyes."""
    return CheckpointError(
        f"{place} is LFM3-Omni, which sees as well as hears; Voxrill does not export it", "Give LFM3-Audio instead"
    )
