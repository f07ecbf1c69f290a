"""Golden vectors: what a bundle computes from one question, stage by stage. A port is compared with them.

In: a loaded model and a question. Out: a folder of `vectors.npz` (arrays) and `vectors.json` (the rest). The other way
round: how far a model is from what such a folder holds. docs/models/bundle.md says what each name means. Everything
is greedy, except for one sampled frame, whose noise is kept. Each stage gets the golden input, so an error shows in the
stage that makes it.
"""

from __future__ import annotations

import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.atomic_write import atomic_write
from voxrill.runtime.audio.log_mel import LogMel
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine.context import Context, HeardSound, Piece
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Generation, GenerationOptions, Step, Token
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import DataError, UsageError

Array = NDArray[Any]
Floats = NDArray[np.float32]

FORMAT = 1
ARRAYS, REST = GOLDEN_FILES = ("vectors.npz", "vectors.json")

STEPS = 256
"""Text tokens and frames of the answer, at most."""

SOUND_FRAMES = 12
"""Frames of the answer whose sound is kept: 92 kB."""

DRAWN = Sampling(temperature=0.8, top_k=4)
"""How the one frame that is not greedy is drawn."""

NOISE_SEED = 0

_KINDS = {
    "waveform": ("int16", 1),
    "log_mel": ("float32", 2),
    "audio_embeddings": ("float32", 2),
    "inputs_embeds": ("float32", 2),
    "hidden_state": ("float32", 1),
    "logits": ("float32", 1),
    "frame_codes": ("int64", 1),
    "frame_logits": ("float32", 2),
    "gumbel": ("float32", 2),
    "drawn_codes": ("int64", 1),
    "tokens": ("int64", 1),
    "codes": ("int64", 2),
    "sound": ("float32", 1),
}
"""Type and number of dimensions of every array."""

TOLERANCES = {
    "log_mel": 1e-3,
    "audio_embeddings": 0.05,
    "inputs_embeds": 1e-6,
    "hidden_state": 0.05,
    "logits": 0.05,
    "frame_logits": 0.05,
    "drawn_codes": 0.0,
    "answer": 0.0,
    "sound": 0.05,
}
"""How far a port may be: log_mel and sound in their own units, the numbers of a graph as a share of the largest golden
one, codes and steps as how many differ. With onnxruntime's graph optimisation off, which rounds elsewhere, the built-in
model (INT8) gave the same answer, a hidden state 0.014 and a sound 0.014 away; a float32 bundle is much nearer."""


class Rest(msgspec.Struct, forbid_unknown_fields=True):
    """What is no array. order: the answer's steps, T for a text token and A for a frame."""

    format: int
    bundle: str
    model: str
    flavour: str
    system: str
    order: str
    finish_reason: str
    text: str
    temperature: float
    top_k: int
    tolerances: dict[str, float]


@dataclass(frozen=True)
class Vectors:
    """A set of golden vectors."""

    rest: Rest
    arrays: dict[str, Array]


@dataclass(frozen=True)
class GoldenDifference:
    """How far a stage is from its golden output, and how far it may be."""

    stage: str
    error: float
    tolerance: float

    @property
    def passes(self) -> bool:
        """Whether it is near enough."""
        return self.error <= self.tolerance


def make_vectors(model: Engine, waveform: Floats) -> Vectors:
    """Ask a question, `waveform` (samples,) at the encoder's rate, and keep what every stage makes of it."""
    heard = pcm16(waveform)
    arrays: dict[str, Array] = {"waveform": heard}
    sound = _sound(heard)
    arrays["log_mel"] = LogMel(model.manifest.model.log_mel)(sound)
    arrays["audio_embeddings"] = model.parts.encoder.encode(sound)
    context = _asked(model, arrays["audio_embeddings"])
    arrays["inputs_embeds"] = context.waiting
    hidden = arrays["hidden_state"] = context.advance()
    arrays["logits"] = context.logits(hidden)
    arrays["frame_codes"] = context.frame(hidden, Sampling(), Sampler())
    arrays["frame_logits"] = model.parts.depthformer.logits(hidden, arrays["frame_codes"])
    arrays["gumbel"] = np.empty_like(arrays["frame_logits"])
    Sampler(NOISE_SEED).gumbel_into(arrays["gumbel"])
    arrays["drawn_codes"] = context.frame(hidden, DRAWN, _Noise(arrays["gumbel"]))
    generation, steps = _answer(context, model)
    arrays |= _answer_arrays(model, steps)
    arrays["sound"] = _spoken(model, arrays["codes"])
    rest = Rest(
        format=FORMAT,
        bundle=model.bundle.sha256,
        model=model.manifest.name,
        flavour=model.manifest.flavour,
        system=model.manifest.tasks.chat.system,
        order=_order(steps),
        finish_reason=generation.finish_reason,
        text=model.parts.tokenizer.decode([int(token) for token in arrays["tokens"]]),
        temperature=DRAWN.temperature,
        top_k=DRAWN.top_k,
        tolerances=TOLERANCES,
    )
    return Vectors(rest, arrays)


def differences(model: Engine, golden: Vectors) -> list[GoldenDifference]:
    """How far `model` is from golden vectors of the same bundle, stage by stage.

    Raises:
        UsageError: they are another bundle's.
        DataError: an array that goes into a graph has another size than the model.
    """
    if golden.rest.bundle != model.bundle.sha256:
        raise UsageError(
            f"the vectors are of another bundle ({golden.rest.model}, {golden.rest.bundle[:12]})",
            "Give that bundle, or make them again: voxrill golden FOLDER --audio FILE",
        )
    _check_sizes(model, golden.arrays)
    arrays, parts, sound = golden.arrays, model.parts, _sound(golden.arrays["waveform"])
    hidden = arrays["hidden_state"]
    context = _asked(model, arrays["audio_embeddings"])
    found: dict[str, Array] = {
        "log_mel": LogMel(model.manifest.model.log_mel)(sound),
        "audio_embeddings": parts.encoder.encode(sound),
        "inputs_embeds": context.waiting,
        "hidden_state": context.advance(),
        "logits": parts.backbone.logits(hidden),
        "frame_logits": parts.depthformer.logits(hidden, arrays["frame_codes"]),
        "drawn_codes": parts.depthformer.frame(hidden, DRAWN, _Noise(arrays["gumbel"])),
        "sound": _spoken(model, arrays["codes"]),
    }
    _, steps = _answer(context, model)
    answer = _answer_arrays(model, steps)
    changed = int(_order(steps) != golden.rest.order)
    changed += sum(_differing(answer[name], arrays[name]) for name in ("tokens", "codes"))
    errors = {name: _error(name, array, arrays[name]) for name, array in found.items()} | {"answer": float(changed)}
    return [GoldenDifference(name, errors[name], tolerance) for name, tolerance in golden.rest.tolerances.items()]


def save_vectors(golden: Vectors, folder: Path) -> int:
    """Write golden vectors into `folder`; bytes written.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(folder / ARRAYS) as part, open(part, "wb") as file:  # given a name, numpy would add .npz
            np.savez_compressed(file, allow_pickle=False, **golden.arrays)
        with atomic_write(folder / REST) as part:
            part.write_bytes(msgspec.json.format(msgspec.json.encode(golden.rest), indent=2) + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write golden vectors to {folder}: {error.strerror}", "Give another folder") from None
    return sum((folder / name).stat().st_size for name in (ARRAYS, REST))


def read_vectors(folder: Path) -> Vectors:
    """Read golden vectors from `folder`.

    Raises:
        DataError: they cannot be read, or are of another format.
    """
    try:
        rest = msgspec.json.decode((folder / REST).read_bytes(), type=Rest)
        with (folder / ARRAYS).open("rb") as file, np.load(file) as arrays:
            vectors = Vectors(rest, dict(arrays))
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error, msgspec.MsgspecError) as error:
        raise _unreadable(folder, str(error)) from None
    if rest.format != FORMAT:
        raise DataError(f"{folder} has golden vectors of format {rest.format}, not {FORMAT}", "Make them again")
    wrong = _wrong_array(vectors.arrays)
    if wrong:
        raise _unreadable(folder, wrong)
    return vectors


def _check_sizes(model: Engine, arrays: dict[str, Array]) -> None:
    """What goes into a graph must have the model's sizes; what comes out is compared, and differs."""
    hidden, codes = model.parts.spec.backbone.hidden_size, model.parts.spec.codes
    wanted = {
        "hidden_state": (hidden,),
        "frame_codes": (codes.codebooks,),
        "gumbel": (codes.codebooks, codes.vocab_size),
        "audio_embeddings": (len(arrays["audio_embeddings"]), hidden),
        "codes": (codes.codebooks, arrays["codes"].shape[1]),
    }
    for name, shape in wanted.items():
        if arrays[name].shape != shape:
            raise DataError(f"{name} of the golden vectors is {arrays[name].shape}, not {shape}", "Make them again")


def _unreadable(folder: Path, reason: str) -> DataError:
    return DataError(
        f"{folder} holds no golden vectors that can be read ({reason})",
        "Make them with: voxrill golden FOLDER --audio FILE",
    )


def _wrong_array(arrays: dict[str, Array]) -> str:
    """What is wrong with the arrays; empty if each is there, of its kind and number of dimensions."""
    for name, (kind, dimensions) in _KINDS.items():
        array = arrays.get(name)
        if array is None or array.dtype.name != kind or array.ndim != dimensions:
            return f"{name} is not {kind} of {dimensions} dimensions"
    return ""


class _Noise(Sampler):
    """A sampler that gives noise which was kept."""

    def __init__(self, noise: Floats) -> None:
        self._noise = noise

    def gumbel_into(self, noise: Floats) -> None:
        noise[:] = self._noise

    def order_into(self, order: Array) -> None:
        """Codebooks stay in their natural order."""


def _sound(heard: NDArray[np.int16]) -> Floats:
    return heard.astype(np.float32) / np.float32(32768)


def _spoken(model: Engine, codes: Array) -> Floats:
    """The first frames' sound, frame by frame: in 8 bits a call of several is rounded otherwise (by up to 0.06)."""
    stream = model.codec.stream()
    pushed = [stream.push(codes[:, at : at + 1]) for at in range(min(SOUND_FRAMES, codes.shape[1]))]
    return np.concatenate([*pushed, stream.flush()])


def _asked(model: Engine, heard: Floats) -> Context:
    """The prompt of a spoken question, before prefill."""
    context = Context(model.parts)
    with context.turn("system"):
        context.add_text(model.manifest.tasks.chat.system)
    question: Piece = HeardSound(heard)
    with context.turn("user"):
        context.add(question)
    context.open_turn("assistant")
    return context


def _answer(context: Context, model: Engine) -> tuple[Generation, list[Step]]:
    generation = Generation(context, GenerationOptions(model.manifest.tasks.chat.mode, max_new_tokens=STEPS))
    return generation, list(generation)


def _order(steps: list[Step]) -> str:
    return "".join("T" if isinstance(step, Token) else "A" for step in steps)


def _answer_arrays(model: Engine, steps: list[Step]) -> dict[str, Array]:
    """The answer's tokens (k,), and the codes (codebooks, F) of the frames that are sound."""
    frames = [step.codes for step in steps if not isinstance(step, Token) and model.codec.decodes(step.codes)]
    none = np.zeros((model.manifest.model.codes.codebooks, 0), np.int64)
    tokens = np.array([step.id for step in steps if isinstance(step, Token)], np.int64)
    return {"tokens": tokens, "codes": np.stack(frames, 1) if frames else none}


def _error(name: str, found: Array, golden: Array) -> float:
    if found.shape != golden.shape:
        return float("inf")
    if golden.dtype == np.int64:
        return float(_differing(found, golden))
    error = float(np.abs(found.astype(np.float64) - golden).max(initial=0.0))
    return error if name in ("log_mel", "sound") else error / float(np.abs(golden).max())


def _differing(found: Array, golden: Array) -> int:
    """How many integers differ; all of them if there are more or fewer than there should be."""
    return int((found != golden).sum()) if found.shape == golden.shape else max(found.size, golden.size)
