"""What the model was told and has said: embeddings that wait for prefill, and the state after those before them.

In: text, sound and spoken frames, in the order they happened. Out: the hidden state after the last of them.
Prompts are put together as the reference's ChatState does it. Each piece of text is tokenized by itself. Sound has no
markers around it. The embedding of a spoken frame is the sum of the rows of its codes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.segments import speech_in
from voxrill.runtime.audio.sound_source import AudioSource, as_waveform
from voxrill.runtime.bundle.contract import InterleaveSpec, ModelSpec
from voxrill.runtime.bundle.embedding_table import EmbeddingTable
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine.audio_encoder import AudioEncoder
from voxrill.runtime.engine.backbone import Backbone
from voxrill.runtime.engine.codec import Codec
from voxrill.runtime.engine.depthformer import Depthformer
from voxrill.runtime.engine.reading import Reading
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.engine.state import Mark
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.engine.tokenizer import Tokenizer

Floats = NDArray[np.float32]
Array = NDArray[Any]
Codes = NDArray[np.int64]


_NOTHING_SAID = SAMPLE_RATE // 2
"""Samples of silence that a model hears instead of a sound in which nobody speaks. It answers silence as silence. In
music and noise it may hear words."""


class Parts:
    """The parts of a loaded model that a context works with.

    Args:
        spec: sizes.
        tokenizer: text to ids.
        encoder: sound to embeddings.
        backbone: embeddings to hidden states and logits.
        depthformer: hidden states to frames.
        text_table: (vocab, hidden).
        audio_table: (codebooks * codes, hidden).
        codec: frames to sound.
        times: where the time of every stage is added.
        trim_silence: whether the model hears only the speech in a sound, unless a caller says otherwise.
        refusal: the sentence with which the model answers what it does not know; empty if it has none.
        unwritten: special tokens that are never written as text.
        ends: special tokens that end text, beside `<|im_end|>`.

    `reading` reads texts from outside.
    """

    def __init__(
        self,
        spec: ModelSpec,
        tokenizer: Tokenizer,
        encoder: AudioEncoder,
        backbone: Backbone,
        depthformer: Depthformer,
        text_table: EmbeddingTable,
        audio_table: EmbeddingTable,
        codec: Codec,
        times: StageTimes,
        trim_silence: bool = False,
        refusal: str = "",
        unwritten: Sequence[str] = (),
        ends: Sequence[str] = (),
    ) -> None:
        self.spec = spec
        self.tokenizer = tokenizer
        self.encoder = encoder
        self.backbone = backbone
        self.depthformer = depthformer
        self.codec = codec
        self.times = times
        self.trim_silence = trim_silence
        self.unwritten, self.ends = tokenizer.special(unwritten), tokenizer.special(ends)
        self.reading = Reading(tokenizer, refusal)
        self._text_table = text_table
        self._audio_table = audio_table

    def waveform(self, audio: AudioSource, trim: bool | None = None, sample_rate: int | None = None) -> Floats:
        """What the model hears of a sound that a caller hands in: (n,) at 16 kHz.

        Args:
            audio: see `AudioSource`.
            trim: see `heard`.
            sample_rate: Hz of an array.

        Raises:
            AudioFileError: it cannot be read, or is not usable sound.
            UsageError: an array has no sample rate.
        """
        return self.heard(as_waveform(audio, sample_rate), trim)

    def heard(self, sound: Floats, trim: bool | None = None) -> Floats:
        """What the model hears of `sound` (n,) at 16 kHz.

        Every sound comes through here once. Sound that a listener or a segmenter cut is not cut again: for that, trim
        is False.

        Args:
            sound: all of it.
            trim: hear only the speech in it; None for what suits the model. Where nobody speaks, half a second of
                digital silence is heard, whatever else the sound holds.
        """
        if not (self.trim_silence if trim is None else trim):
            return sound
        speech = speech_in(sound)
        return speech if len(speech) else np.zeros(_NOTHING_SAID, np.float32)

    def embed_tokens(self, ids: list[int]) -> Floats:
        """Rows (n, hidden) of text tokens."""
        return self._text_table.rows(ids)

    def embed_frames(self, codes: Codes) -> Floats:
        """One row (n, hidden) for each frame of `codes` (codebooks, n)."""
        # The table holds the codebooks one after the other: code c of codebook b is row b * vocab_size + c.
        starts = np.arange(self.spec.codes.codebooks)[:, None] * self.spec.codes.vocab_size
        rows: Floats = self._audio_table.rows(codes + starts).sum(0, dtype=np.float32)
        return rows


@dataclass(frozen=True)
class Tokens:
    """Text tokens of a conversation."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class HeardSound:
    """Sound that was heard, as embeddings (n, hidden). To encode it again would cost more than to keep them."""

    rows: Floats


@dataclass(frozen=True)
class Spoken:
    """Frames that were spoken: codes (codebooks, n)."""

    codes: Codes


Piece = Tokens | HeardSound | Spoken
"""A piece of what a context was told. Pieces are small enough to keep, and a context can be made again from them."""


@dataclass(frozen=True)
class ContextMark:
    """A place in a conversation: the backbone's state, the embeddings that waited, and the number of pieces."""

    state: Mark
    waiting: tuple[Floats, ...]
    pieces: int

    @property
    def nbytes(self) -> int:
        """Bytes of the state that it holds."""
        return sum(fixed.nbytes for fixed in self.state.fixed.values())


class Context:
    """One conversation's tokens, sound and frames, and the backbone's state after them.

    `pieces` is all that it was told, in order.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._state = parts.backbone.new_state()
        self._waiting: list[Floats] = []
        self._hidden: Floats | None = None
        self.pieces: list[Piece] = []
        self.add_tokens(parts.tokenizer.start)

    @property
    def ids(self) -> dict[str, int]:
        """Special token ids by role."""
        return self._parts.tokenizer.ids

    @property
    def interleave(self) -> InterleaveSpec:
        """The interleaved pattern."""
        return self._parts.spec.interleave

    def ends(self, codes: Codes) -> bool:
        """Whether a frame (codebooks,) ends the audio."""
        return self._parts.spec.codes.ends(codes)

    @property
    def end_of_audio(self) -> int:
        """The code that ends audio."""
        return self._parts.spec.codes.end_of_audio

    @property
    def positions(self) -> int:
        """Positions in the KV cache, and positions that wait."""
        return self._state.length + sum(len(rows) for rows in self._waiting)

    @property
    def waiting(self) -> Floats:
        """Embeddings (n, hidden) that were appended and wait for prefill."""
        return np.concatenate(self._waiting)

    def add_text(self, text: str) -> None:
        """Append text. Nothing that is written in it becomes a special token."""
        self.add_tokens(self._parts.tokenizer.encode(text))

    def add_tokens(self, ids: list[int]) -> None:
        """Append text tokens."""
        self.add(Tokens(tuple(ids)))

    def add_audio(self, waveform: Floats) -> None:
        """Append sound that is heard: `waveform` (samples,) at the encoder's rate."""
        self.add(HeardSound(self._parts.encoder.encode(waveform)))

    def add_frames(self, codes: Codes) -> None:
        """Append frames (codebooks, n) that were spoken, end-of-audio frames included."""
        self.add(Spoken(codes))

    def add(self, piece: Piece) -> None:
        """Append a piece; it may be one of `pieces`, once more."""
        self.pieces.append(piece)
        self._waiting.append(self._rows(piece))

    def _rows(self, piece: Piece) -> Floats:
        if isinstance(piece, Tokens):
            return self._parts.embed_tokens(list(piece.ids))
        return piece.rows if isinstance(piece, HeardSound) else self._parts.embed_frames(piece.codes)

    @contextmanager
    def turn(self, role: str) -> Iterator[None]:
        """What is appended in the `with` block is said by `role`."""
        self.open_turn(role)
        yield
        self.close_turn()

    def open_turn(self, role: str) -> None:
        """Begin what `role`, one of `ROLES`, says."""
        self.add_tokens(self._parts.tokenizer.openings[role])

    def close_turn(self) -> None:
        """End the turn that was opened."""
        self.add_tokens(self._parts.tokenizer.closing)

    def advance(self) -> Floats:
        """Prefill all that waits; the hidden state (hidden,) after it.

        Raises:
            ContextFull: it does not fit; nothing was computed.
        """
        if self._waiting:
            self.hidden_states()
        assert self._hidden is not None, "nothing was prefilled since the context was made or rewound"
        return self._hidden

    def prefill(self, most: int) -> bool:
        """Prefill the first `most` positions of what waits; whether more waits.

        The same content gives the same bits when the steps are the same, whatever happens between them.

        Raises:
            ContextFull: all that waits does not fit; nothing was computed.
        """
        if not self._waiting:
            return False
        rows = self.waiting
        self._state.check_room(len(rows))
        self._hidden = self._parts.backbone.forward(rows[:most], self._state)[-1]
        self._waiting = [rows[most:]] if len(rows) > most else []
        return bool(self._waiting)

    def hidden_states(self) -> Floats:
        """Prefill all that waits; the hidden states (n, hidden) of its positions.

        Raises:
            ContextFull: it does not fit; nothing was computed.
        """
        hidden = self._parts.backbone.forward(self.waiting, self._state)
        self._waiting = []
        self._hidden = hidden[-1]
        return hidden

    def logits(self, hidden: Floats) -> Floats:
        """Text logits (vocab,) of a hidden state."""
        return self._parts.backbone.logits(hidden)

    def frame(self, hidden: Floats, sampling: Sampling, sampler: Sampler, earlier: Sequence[Codes] = ()) -> Codes:
        """The frame (codebooks,) spoken from a hidden state, after `earlier` ones of the same answer."""
        return self._parts.depthformer.frame(hidden, sampling, sampler, earlier)

    def mark(self) -> ContextMark:
        """This place in the conversation."""
        return ContextMark(self._state.mark(), tuple(self._waiting), len(self.pieces))

    def rewind(self, mark: ContextMark) -> None:
        """Forget what came after `mark`, an earlier place of this conversation."""
        self._state.rewind(mark.state)
        self._waiting = list(mark.waiting)
        self._hidden = None
        del self.pieces[mark.pieces :]

    def content(self) -> dict[str, Array]:
        """The backbone's state; see `BackboneState.content`."""
        return self._state.content()

    def restore(self, content: Mapping[str, Array]) -> None:
        """Take `content` for the state after all that waits, instead of a prefill.

        Raises:
            ContextFull: it does not fit.
        """
        self._state.restore(self.positions, content)
        self._waiting = []

    @property
    def nbytes(self) -> int:
        """Bytes of the backbone's state; 0 while it is offloaded."""
        return self._state.nbytes

    def offload(self) -> None:
        """Free the backbone's state, whose `content` was kept. Only `reload` may follow."""
        self._state.offload()

    def reload(self, content: Mapping[str, Array]) -> None:
        """Have the backbone's state again, with the `content` that it had before `offload`."""
        self._state.reload(content)
