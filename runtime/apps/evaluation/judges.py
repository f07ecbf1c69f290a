"""Judges, which hear whether speech says what it should: another recogniser, or the model itself.

In: sound. Out: the words in it. pocketsphinx (US English, general language model) does not know the texts and is often
wrong. So compare its errors with its errors for another program's speech. If it knows the texts, it only chooses among
them, which is easy. The model as its own judge repeats its own mistakes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import soxr

from voxrill.runtime.apps.transcription import transcribe
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import DataError, UsageError, needs_extra

JudgeName = Literal["pocketsphinx", "pocketsphinx-texts", "bundle", "none"]
"""pocketsphinx-texts chooses one of the data's texts. none: there is no judge, or --judge-file says what it heard."""

Judge = Callable[[Floats, int], str]
"""Samples (n,) and their rate in Hz, to the words in them."""

AROUND = SAMPLE_RATE // 5
"""Samples of silence before and after what is judged."""

HISS = 3e-4
"""Level of the noise that is added: the recogniser fails in digital silence."""

PEAK = 0.7


def judge_named(name: str, model: Engine, texts: Sequence[str]) -> Judge | None:
    """The judge called `name`; `texts` are the data's.

    Raises:
        UsageError: there is none.
        DataError: it cannot pronounce one of the texts.
        MissingDependency: pocketsphinx is not installed.
    """
    if name not in get_args(JudgeName):
        raise UsageError(f"there is no judge {name!r}", f"Give one of: {', '.join(get_args(JudgeName))}")
    if name == "none":
        return None
    if name == "bundle":
        return lambda samples, rate: transcribe(model, (samples, rate)).text
    return Sphinx(texts if name == "pocketsphinx-texts" else None)


class Sphinx:
    """pocketsphinx. It hears every sound as if it were the first.

    Args:
        texts: the texts that it chooses from; None for any English words.
    """

    def __init__(self, texts: Sequence[str] | None = None) -> None:
        with needs_extra("pebble"):
            from pocketsphinx import Decoder, get_model_path
        folder = Path(get_model_path("en-us"))
        language = str(folder / "en-us.lm.bin") if texts is None else None
        paths = {"hmm": str(folder / "en-us"), "dict": str(folder / "cmudict-en-us.dict"), "lm": language}
        # cmn: each sound is normalised alone, so their order does not matter.
        self._decoder: Any = Decoder(samprate=SAMPLE_RATE, cmn="batch", loglevel="FATAL", **paths)
        if texts is not None:
            self._pick_from(texts)

    def __call__(self, samples: Floats, rate: int) -> str:
        """The words in samples (n,) at `rate` Hz; none in silence."""
        peak = float(np.abs(samples).max(initial=0.0))
        if not peak:
            return ""
        heard = np.pad(soxr.resample(samples / peak * PEAK, rate, SAMPLE_RATE), AROUND)
        heard = heard + HISS * np.random.default_rng(0).standard_normal(len(heard))
        self._decoder.start_utt()
        self._decoder.process_raw((heard * 32767).clip(-32768, 32767).astype("<i2").tobytes(), full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""

    def _pick_from(self, texts: Sequence[str]) -> None:
        for text in texts:
            unknown = [word for word in text.split() if self._decoder.lookup_word(word) is None]
            if unknown:
                raise DataError(
                    f"pocketsphinx does not know how to pronounce {unknown[0]!r}",
                    "Write texts in small letters, without punctuation and digits; or give --judge pocketsphinx",
                )
        rule = " | ".join(sorted(set(texts)))
        self._decoder.add_jsgf_string("texts", f"#JSGF V1.0;\ngrammar judge;\npublic <text> = {rule};\n")
        self._decoder.activate_search("texts")
