"""A talk whose answers have a forced length: it measures a bundle with random weights in the live loop.

The loop, the microphone and the loudspeaker are those of `voxrill talk`; only sampling differs. Tokens that end an
answer are never drawn, so every answer has the same rounds of text tokens and frames. (Answers from random weights
would end anywhere.) Speed depends on shapes only. As a program it talks until it is stopped:

    python -m benchmarks.talk.forced --bundle BUNDLE --seconds 3

In: the microphone. Out: answers aloud, and a line of JSON for each: the trace, and the positions of prefill and answer.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from voxrill.commands.options import Loading
from voxrill.commands.output import err, print_json
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.bundle.contract import InterleaveSpec
from voxrill.runtime.bundle.manifest import Sampling
from voxrill.runtime.engine.context import HeardSound, Piece, Tokens
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Floats, Sampler
from voxrill.runtime.talk.events import View
from voxrill.runtime.talk.loop import Talk, TalkOptions, TalkSinks
from voxrill.runtime.talk.reply import TalkTurn
from voxrill.runtime.talk.responder import ResponderOptions
from voxrill.runtime.talk.view import make_view

ENDINGS = ("im_end", "text_end", "audio_start")
"""Roles of the text tokens that would end an answer or change its order."""

_NEVER = -1e9
"""Noise that keeps a code from being drawn."""


class EndlessSampler(Sampler):
    """Samples like `Sampler`, at the same cost, but never draws what would end an answer.

    Args:
        seed: see `Sampler`.
        tokens: text tokens that are never drawn.
        codes: only codes below this one are drawn; they are sound.
    """

    def __init__(self, seed: int | None, tokens: Collection[int], codes: int) -> None:
        super().__init__(seed)
        self._tokens = list(tokens)
        self._codes = codes

    def gumbel_into(self, noise: Floats) -> None:
        """Fill `noise`, (codebooks, codes) of a frame or (vocab,) of a token."""
        super().gumbel_into(noise)
        if noise.ndim == 2:
            noise[:, self._codes :] = _NEVER  # end-of-audio is the code after the last sound; noise decides the draw

    def token(self, logits: Floats, sampling: Sampling, banned: Sequence[int] = ()) -> int:
        """Draw one id from `logits` (vocab,)."""
        logits = logits.copy()  # the caller's array stays as it is
        logits[self._tokens] = -np.inf
        return super().token(logits, sampling, banned)


def endless_conversation(model: Engine) -> Conversation:
    """A conversation whose answers always have the maximal length."""
    ids, codes = model.parts.tokenizer.ids, model.parts.spec.codes.end_of_audio
    tokens = [ids[role] for role in ENDINGS]
    return Conversation(
        model.parts, model.manifest.tasks.chat, sampler=lambda seed: EndlessSampler(seed, tokens, codes)
    )


def steps_of(seconds: float, frame_seconds: float, pattern: InterleaveSpec) -> int:
    """Text tokens and frames together, in a spoken answer of at least `seconds`."""
    frames = math.ceil(seconds / frame_seconds - 1e-6)
    return frames + pattern.text * math.ceil(frames / pattern.audio)


def asked_positions(pieces: list[Piece]) -> int:
    """Positions of prefill for the last question: from its sound to the first token of the answer."""
    last = max(number for number, piece in enumerate(pieces) if isinstance(piece, HeardSound))
    sound, closing, opening = pieces[last : last + 3]
    assert isinstance(sound, HeardSound) and isinstance(closing, Tokens) and isinstance(opening, Tokens)
    return len(sound.rows) + len(closing.ids) + len(opening.ids)


def described(turn: TalkTurn, pieces: list[Piece]) -> dict[str, Any]:
    """What is reported about a turn."""
    return {
        "underruns": turn.trace.underruns,
        "positions": asked_positions(pieces),
        "tokens": len(turn.answer.tokens),
        "frames": len(turn.answer.codes),
        "error": str(turn.error) if turn.error else None,
        "trace": asdict(turn.trace),
    }


def forced_talk(
    model: Engine, seconds: float, options: EndpointOptions, view: View, tell: Callable[[dict[str, Any]], None]
) -> Talk:
    """A talk on the default devices with answers of `seconds`."""
    codec = model.codec.spec
    steps = steps_of(seconds, codec.frame_samples / codec.sample_rate, model.parts.spec.interleave)
    conversation = endless_conversation(model)
    sinks = TalkSinks(turn=lambda turn: tell(described(turn, conversation.context.pieces)))
    system = AudioSystem()
    talk_options = TalkOptions(ResponderOptions(max_new_tokens=steps), options, barge_in=True)
    speaker = Speaker(system, model.sample_rate)
    return Talk(conversation, DeviceMicrophone(system), speaker, view, talk_options, sinks)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--endpoint", type=float, default=EndpointOptions.endpoint)
    parser.add_argument("--threads", type=int, default=0)
    args = parser.parse_args()
    model = Loading(args.bundle, args.threads).model()
    forced_talk(model, args.seconds, EndpointOptions(endpoint=args.endpoint), make_view(err, err), print_json).run()


if __name__ == "__main__":
    main()
