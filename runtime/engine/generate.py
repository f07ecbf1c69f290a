"""Generation: hidden states to text tokens and audio frames, in the two orders the model knows.

In: a `Context` with the prompt in it. Out: `Token` and `Frame` steps. Each step is appended to the context before it is
handed out. Source: the reference's generate_sequential and generate_interleaved. Where those would loop for ever or
raise, these end, and `Generation.finish_reason` says why.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.manifest import Mode, Sampling
from voxrill.runtime.engine.context import Context
from voxrill.runtime.engine.running_on import Repetition
from voxrill.runtime.engine.sampling import Sampler, log_softmax
from voxrill.runtime.errors import ContextFull
from voxrill.runtime.events import FinishReason


@dataclass(frozen=True)
class GenerationOptions:
    """How to generate.

    max_new_tokens: limit on text tokens and frames together; max_frames: limit on frames, beyond which speech has run
    on; None for none; text_only: the model may not begin to speak; sampler: makes the source of noise from the seed.
    opening: marks that the family begins an answer with; the prompt holds them. Then sound does not begin again after
    its end. speaking: sound follows them at once. ends: what ends text, beside `<|im_end|>`. unwritten: ids that are
    never drawn as text.
    """

    mode: Mode
    text: Sampling = Sampling()
    audio: Sampling = Sampling()
    max_new_tokens: int = 512
    max_frames: int | None = None
    seed: int | None = None
    text_only: bool = False
    opening: tuple[int, ...] = ()
    speaking: bool = False
    ends: tuple[int, ...] = ()
    unwritten: tuple[int, ...] = ()
    sampler: Callable[[int | None], Sampler] = Sampler


@dataclass(frozen=True)
class Token:
    """A text token, and its log-probability among all tokens; two are the same if their ids are."""

    id: int
    log_probability: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Frame:
    """An audio frame: codes (codebooks,). `ends` marks the end-of-audio frame, which is not sound."""

    codes: NDArray[np.int64]
    ends: bool


Step = Token | Frame


@dataclass
class Generation:
    """An answer that is being made; iterate it once.

    end_log_probability: of the token that ended it; None if another reason did.
    """

    context: Context
    options: GenerationOptions
    finish_reason: FinishReason = "length"
    end_log_probability: float | None = None
    _sampler: Sampler = field(init=False)
    _frames: int = field(init=False, default=0)
    _spoken: list[NDArray[np.int64]] = field(init=False, default_factory=list)
    _repetition: Repetition = field(init=False, default_factory=Repetition)

    def __post_init__(self) -> None:
        self._sampler = self.options.sampler(self.options.seed)

    def __iter__(self) -> Iterator[Step]:
        order = self._sequential if self.options.mode == "sequential" else self._interleaved
        begun = False
        try:
            for step in order():
                begun = True
                yield step
                if isinstance(step, Frame) and self._runs_on(step):
                    self.finish_reason = "ran_on"
                    return
        except ContextFull:
            if not begun:
                raise  # the question itself does not fit
            self.finish_reason = "context_full"

    def _runs_on(self, frame: Frame) -> bool:
        """Whether the speech should have ended before this frame."""
        if frame.ends:
            return False
        self._frames += 1
        most = self.options.max_frames
        return self._repetition.stuck(frame.codes) or (most is not None and self._frames >= most)

    def _sequential(self) -> Iterator[Step]:
        """Text until `<|audio_start|>`, then frames until they end, then text, until `<|im_end|>`."""
        ids = self.context.ids
        speaking, text_ends = self.options.speaking, (ids["im_end"], *self.options.ends)
        for _ in range(self.options.max_new_tokens):
            hidden = self.context.advance()
            if speaking:
                frame = self._frame(hidden)
                speaking = not frame.ends
                yield frame
                if frame.ends and self.options.opening:
                    self.finish_reason = "stop"
                    return
                continue
            token = self._token(hidden)
            if self._ended_with(token, text_ends):
                return
            speaking = token.id == ids["audio_start"]
            yield self._take(token)

    def _interleaved(self) -> Iterator[Step]:
        """Some text tokens, then some frames, in turn; after `<|text_end|>` only frames; until `<|im_end|>`."""
        ids, pattern = self.context.ids, self.context.interleave
        # left: steps until text and frames change places. It goes on below 0 when the text is done: then only frames
        # follow, and nothing changes any more.
        speaking, text_done, sound_done, left = False, False, False, pattern.text
        for _ in range(self.options.max_new_tokens):
            left -= 1
            hidden = self.context.advance()
            if speaking:
                frame = self._frame(hidden)
                if not left and not text_done:
                    speaking, left = False, pattern.text
                speaking = speaking and not frame.ends
                sound_done = bool(self.options.opening) and frame.ends
                yield frame
                continue
            token = self._token(hidden)
            if self._ended_with(token, (ids["im_end"], *(self.options.ends if sound_done else ()))):
                return
            if text_done:  # back at text after the text's end: the audio has ended too
                self.finish_reason = "audio_ended"
                return
            text_done = token.id == ids["text_end"]
            if not sound_done and (not left or text_done):
                speaking, left = True, pattern.audio
            yield self._take(token)

    def _token(self, hidden: NDArray[np.float32]) -> Token:
        mute = (self.context.ids["audio_start"],) if self.options.text_only else ()
        logits = self.context.logits(hidden)
        token = self._sampler.token(logits, self.options.text, self.options.unwritten + mute)
        return Token(token, float(log_softmax(logits)[token]))

    def _ended_with(self, token: Token, ends: Collection[int]) -> bool:
        """Whether this token, as one of `ends`, ends the answer."""
        if token.id not in ends:
            return False
        self.finish_reason, self.end_log_probability = "stop", token.log_probability
        return True

    def _take(self, token: Token) -> Token:
        self.context.add_tokens([token.id])
        return token

    def _frame(self, hidden: NDArray[np.float32]) -> Frame:
        codes = self.context.frame(hidden, self.options.audio, self._sampler, self._spoken)
        ends = self.context.ends(codes)
        self._spoken.append(codes)
        if ends:
            codes = np.full_like(codes, self.context.end_of_audio)  # as the reference puts it back
        self.context.add_frames(codes[:, None])
        return Frame(codes, ends)
