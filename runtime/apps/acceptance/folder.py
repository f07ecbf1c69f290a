"""A folder of published outputs: JSON, arrays and sounds, refused unless it is whole, unchanged and of one revision.

In: a folder and the files of it that are to be compared with. Out: their contents, or an error that names each file
that is wrong. Nothing is read that `check` has not seen.
"""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.errors import DataError
from voxrill.runtime.input_file import MEGABYTE, read_bytes

SUMS = "SHA256SUMS"
STREAMS = "goldens/integration_expected.json"
PROMPTS = "goldens/prompts_from_reference.json"
ASR_SOUND = "audio/asr.wav"
QUESTION = "audio/question.wav"
TURNS = "colab_bf16/golden_tokens.npz"
SUMMARY = "colab_bf16/summary.json"
TURN_HASHES = "colab_bf16/manifest.json"
TURN_SOUNDS = ("colab_bf16/interleaved_turn1.wav", "colab_bf16/interleaved_turn2.wav")
LOG_MEL = "stages/log_mel_question_reference.npz"
ASR_16K = "stages/asr_16k_reference.npz"
ENCODER_ROWS = "stages/encoder_question_mel80.npz"
TEXT_STEPS = "stages/text_distributions.json"
CONV_LAYER = "stages/backbone_layer0_conv.npz"
ATTENTION_LAYER = "stages/backbone_layer2_attention.npz"
FRAME = "stages/depthformer_synthetic.npz"
FRAMES = "stages/depthformer_real_turn1.npz"
FRAMES_ORIGIN = "stages/depthformer_real_turn1.manifest.json"
CODEC_4 = "stages/codec_synthetic_t4.npz"
CODEC_8 = "stages/codec_synthetic_t8.npz"
CODEC_REAL = "stages/codec_real_turn1_t8.npz"

_NAME_REVISION = (STREAMS, SUMMARY, FRAMES_ORIGIN, TEXT_STEPS)
"""Files that say which revision of the checkpoint they are of."""

_LARGEST = 64 * MEGABYTE
"""Of one file, packed and unpacked. The largest published one has 1.6 MB."""

_SUM = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?(.+)")
"""A line as `sha256sum` writes it."""

_PAGE = "docs/models/acceptance.md says where to download each file"

Decoded = TypeVar("Decoded")


class PublishedFolder:
    """The folder. Call `check` with the files that will be read, before anything else."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_of = cache(self._bytes_of)  # a file is read once, though several stages need it
        self._arrays = cache(self._arrays_of)

    def check(self, files: Iterable[str]) -> dict[str, str]:
        """Refuse a folder in which a file is missing, changed, or made from something else.

        Returns:
            The checkpoint's revision by the file that names it.

        Raises:
            DataError: the message names every such file.
        """
        wanted = sorted({SUMS, *files})
        missing = [name for name in wanted if not (self.path / name).is_file()]
        if missing:
            raise DataError(f"{self.path} is incomplete: it has no {', '.join(missing)}", _PAGE)
        sums = self._sums()
        wanted.remove(SUMS)
        unlisted = [name for name in wanted if name not in sums]
        if unlisted:
            raise DataError(f"{SUMS} of {self.path} does not list {', '.join(unlisted)}", _PAGE)
        found = {name: hashlib.sha256(self.bytes_of(name)).hexdigest() for name in wanted}
        changed = [name for name in wanted if found[name] != sums[name]]
        if changed:
            raise DataError(f"{self.path} was changed: {SUMS} has another hash of {', '.join(changed)}", _PAGE)
        self._check_origins(found)
        return self._check_revisions(wanted)

    def json(self, name: str, kind: type[Decoded]) -> Decoded:
        """A JSON file as `kind`.

        Raises:
            DataError: it is not one.
        """
        try:
            return msgspec.json.decode(self.bytes_of(name), type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise DataError(f"{self.path / name} is not what it should be ({error})", _PAGE) from None

    def array(self, name: str, key: str, *shape: int | None) -> NDArray[Any]:
        """An array of a `.npz` file, float32 or int64. None in `shape` stands for any size.

        Raises:
            DataError: it is missing, holds what is not a finite number, or has another shape; the message names both.
        """
        arrays = self._arrays(name)
        found = arrays.get(key, arrays.get(f"golden__{key}"))  # the prefix is in the files as they were published
        where = f"{key} of {self.path / name}"
        if found is None:
            raise DataError(f"{self.path / name} has no array {key}", _PAGE)
        fits = found.ndim == len(shape) and all(b in (None, a) for a, b in zip(found.shape, shape, strict=True))
        if not fits:
            wanted = ", ".join("any" if size is None else str(size) for size in shape)
            raise DataError(
                f"{where} has the shape {found.shape}; this bundle needs ({wanted})",
                "The bundle is of a model of another size: these outputs are no measure for it",
            )
        if found.dtype.kind not in "fi" or not np.isfinite(found).all():
            raise DataError(f"{where} holds what is not a finite number", _PAGE)
        if not found.size:
            raise DataError(f"{where} is empty", _PAGE)
        return found.astype(np.float32 if found.dtype.kind == "f" else np.int64)

    def whole_numbers(self, name: str, key: str, below: int, *shape: int | None) -> NDArray[np.int64]:
        """An array as `array` reads it, of whole numbers from 0 to `below` - 1: codes, tokens or places.

        Raises:
            DataError: as `array`, or a number is another.
        """
        found = self.array(name, key, *shape)
        if found.dtype != np.int64 or found.min() < 0 or found.max() >= below:
            raise DataError(f"{key} of {self.path / name} holds what is not a whole number below {below}", _PAGE)
        return found

    def _arrays_of(self, name: str) -> dict[str, NDArray[Any]]:
        try:
            with zipfile.ZipFile(io.BytesIO(self.bytes_of(name))) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > _LARGEST:  # zeros pack a thousandfold
                raise DataError(f"{self.path / name} unpacks to more than {_LARGEST / MEGABYTE:g} MB", _PAGE)
            with np.load(io.BytesIO(self.bytes_of(name))) as arrays:
                return dict(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, AttributeError) as error:
            raise DataError(f"{self.path / name} holds no arrays that can be read ({error})", _PAGE) from None

    def _bytes_of(self, name: str) -> bytes:
        return read_bytes(self.path / name, _LARGEST)

    def _sums(self) -> dict[str, str]:
        lines = self.bytes_of(SUMS).decode(errors="replace").splitlines()
        found = [_SUM.fullmatch(line) for line in lines if line.strip()]
        if not all(found):
            raise DataError(f"{self.path / SUMS} is not a list of hashes", "Write it with: sha256sum")
        return {line[2]: line[1] for line in found if line}

    def _check_origins(self, found: dict[str, str]) -> None:
        """Refuse outputs that were made from another file than the one that lies beside them."""
        wrong = [
            f"{name} was made with another {origin}"
            for name in found
            for origin, wanted in self._origins(name).items()
            if origin in found and found[origin] != wanted
        ]
        if wrong:
            raise DataError(f"{self.path} does not belong together: {', '.join(wrong)}", _PAGE)

    def _origins(self, name: str) -> dict[str, str]:
        """The files that `name` says it was made with, and their SHA-256."""
        if name == STREAMS:
            cases = self.json(name, Streams).cases
            return {f"audio/{case.audio}": case.audio_sha256 for case in cases if case.audio}
        if name == SUMMARY:
            inputs = self.json(name, Summary).inputs
            return {ASR_SOUND: inputs.asr_audio_sha256, QUESTION: inputs.interleaved_audio_sha256}
        if name == TURN_HASHES:
            return {f"colab_bf16/{file}": one.sha256 for file, one in self.json(name, dict[str, FileHash]).items()}
        if name == FRAMES_ORIGIN:
            origin = self.json(name, FramesOrigin)
            source = origin.source
            return {
                QUESTION: source.question_wav_sha256,
                TURNS: source.golden_tokens_sha256,
                FRAMES: origin.artifact.sha256,
            }
        return {}

    def _check_revisions(self, files: list[str]) -> dict[str, str]:
        named = {name: self._revision(name) for name in files if name in _NAME_REVISION}
        if len(set(named.values())) > 1:
            each = ", ".join(f"{name} {revision[:12]}" for name, revision in named.items())
            raise DataError(f"{self.path} holds outputs of different revisions of the checkpoint: {each}", _PAGE)
        return named

    def _revision(self, name: str) -> str:
        """The checkpoint's revision that a file names."""
        if name == STREAMS:
            return self.json(name, Streams).checkpoint_revision
        if name == FRAMES_ORIGIN:
            return self.json(name, FramesOrigin).source.model_revision
        return self.json(name, OfModel).model.revision


NOT_EMPTY = msgspec.Meta(min_length=1)


class Case(msgspec.Struct):
    """One greedy stream, as transformers' tests have it. modalities: 1 a text token, 3 a frame, in order."""

    name: str
    prompt: str
    mode: str
    max_new_tokens: int
    sequences: list[int]
    audio_codes: list[list[int]]
    modalities: Annotated[list[int], NOT_EMPTY]
    decoded_text: str
    audio: str = ""
    audio_sha256: str = ""
    text: str = ""
    waveform_shape: list[int] = []
    waveform_slice: list[float] = []
    waveform_mean: float = 0.0
    waveform_std: float = 0.0


class Streams(msgspec.Struct):
    """`integration_expected.json`."""

    checkpoint_revision: str
    cases: Annotated[list[Case], NOT_EMPTY]


class RevisionOf(msgspec.Struct):
    """The model that a file names."""

    revision: str


class OfModel(msgspec.Struct):
    """A file that names its model."""

    model: RevisionOf


class SoundHashes(msgspec.Struct):
    """The inputs of the two turns."""

    asr_audio_sha256: str
    interleaved_audio_sha256: str
    followup_text: str


class DecodedText(msgspec.Struct):
    """A text that was answered."""

    decoded_text: str


class TwoTurns(msgspec.Struct):
    """The two turns of one conversation."""

    turn1: DecodedText
    turn2: DecodedText


class Summary(msgspec.Struct):
    """`summary.json` of the two turns."""

    model: RevisionOf
    inputs: SoundHashes
    interleaved: TwoTurns


class FileHash(msgspec.Struct):
    """The hash of one file."""

    sha256: str


class FramesSource(msgspec.Struct):
    """What the frames were made with."""

    model_revision: str
    question_wav_sha256: str
    golden_tokens_sha256: str
    system_prompt: str


class FramesOrigin(msgspec.Struct):
    """How the frames' hidden states were captured."""

    source: FramesSource
    artifact: FileHash


class Candidate(msgspec.Struct):
    """One of the likeliest tokens of a step."""

    id: int
    text: str
    probability: float


class TextStep(msgspec.Struct):
    """One greedy step of text."""

    golden_argmax_id: int
    golden_top5: Annotated[list[Candidate], NOT_EMPTY]


class TextSteps(msgspec.Struct):
    """`text_distributions.json`."""

    model: RevisionOf
    steps: Annotated[list[TextStep], NOT_EMPTY]


class ReferencePrompt(msgspec.Struct):
    """The prompt of one case, as the reference's processor makes it. sound_at: the position of the first sound row."""

    text_ids: list[int] = []
    text_ids_after_turn1: list[int] = []
    sound_positions: int = 0
    positions: int = 0
    sound_at: int | None = None
