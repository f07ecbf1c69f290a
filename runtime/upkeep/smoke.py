"""A short run through every graph of a bundle, to see that it runs at all on this machine.

In: a bundle, and its tuned form if it has one. Out: milliseconds by stage. The words mean nothing: the sound is a tone
and the sampling greedy.
"""

from __future__ import annotations

import numpy as np

from voxrill.runtime.audio.tone import tone
from voxrill.runtime.bundle.bundle import Bundle
from voxrill.runtime.bundle.memory import check_memory
from voxrill.runtime.bundle.tuned import TunedForm
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.generate import Generation, GenerationOptions
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.errors import BundleError

TONE_SECONDS = 0.5


def smoke_run(bundle: Bundle, tuned: TunedForm | None = None) -> dict[str, float]:
    """Load the bundle with its tuned form (None: see `Engine`), hear a tone, generate text, sample and decode frames.

    Raises:
        BundleError: a graph cannot be loaded, departs from its contract, or gives numbers that are not finite.
        NotEnoughMemory: it would not fit.
    """
    check_memory(bundle)
    model = Engine(bundle, tuned=tuned)
    context = model.conversation().context
    with context.turn("user"):
        context.add_audio(tone(TONE_SECONDS))
    for _ in Generation(context, GenerationOptions("sequential", max_new_tokens=2, text_only=True)):
        pass
    hidden = context.advance()
    codes = context.frame(hidden, model.manifest.tasks.chat.audio, Sampler(0))
    sound = model.codec.decode(np.minimum(codes, context.end_of_audio - 1)[:, None])
    if not (np.isfinite(hidden).all() and np.isfinite(sound).all()):
        raise BundleError("a graph gave numbers that are not finite", "Export the bundle again")
    return {name: round(1000 * stage.seconds, 3) for name, stage in model.times.stages.items()}
