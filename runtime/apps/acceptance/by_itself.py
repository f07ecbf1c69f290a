"""What a model can be held to where nobody has published its outputs: it hears words, and says what can be heard.

In: a loaded model, and sentences that somebody else said. Out: rows. A tensor that was read wrongly, such as a kernel
with swapped axes or a table in another order, leaves nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np

from voxrill.runtime.apps.acceptance.rows import AcceptanceRow, Quantity
from voxrill.runtime.apps.live_recognition import LiveRecogniser, live_task
from voxrill.runtime.apps.transcript import SegmentEvent
from voxrill.runtime.apps.transcription import transcribe
from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.protocols import BLOCK, Floats
from voxrill.runtime.audio.segments import speech_in
from voxrill.runtime.audio.sound_source import as_waveform
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.languages import languages, prompt_in
from voxrill.runtime.errors import UsageError, VoxrillError
from voxrill.runtime.events import Result
from voxrill.runtime.progress import Progress, no_progress

LEAST_ALIKE = 0.7
"""Of the letters of a sentence, those that must be found again in order. An estimate: noise gives less than 0.3."""
LEAST_VOICED = 0.5
"""Of a spoken sentence, the share that must be speech to the voice activity detector. An estimate."""
LONGEST = 10.0
"""Seconds of one sentence, at most."""

SENTENCES = {
    "ar": "صباح الخير كيف حالك اليوم",
    "da": "God morgen, hvordan har du det i dag?",
    "de": "Guten Morgen, wie geht es dir heute?",
    "el": "Καλημέρα, τι κάνεις σήμερα;",
    "en": "Good morning, how are you today?",
    "es": "Buenos días, ¿cómo estás hoy?",
    "fi": "Hyvää huomenta, mitä sinulle kuuluu tänään?",
    "fr": "Bonjour, comment vas-tu aujourd'hui ?",
    "he": "בוקר טוב, מה שלומך היום?",
    "it": "Buongiorno, come stai oggi?",
    "ja": "おはようございます、今日はお元気ですか。",
    "ko": "좋은 아침입니다, 오늘 기분이 어떠세요?",
    "nl": "Goedemorgen, hoe gaat het vandaag met je?",
    "pl": "Dzień dobry, jak się dzisiaj masz?",
    "pt": "Bom dia, como você está hoje?",
    "sv": "God morgon, hur mår du idag?",
    "tr": "Günaydın, bugün nasılsın?",  # noqa: RUF001
    "zh": "早上好，你今天怎么样？",  # noqa: RUF001
}
"""A sentence for each language, by its code; a model with words of its own is given some of those."""


@dataclass(frozen=True)
class SpokenSentence:
    """What somebody said: the text, and samples (n,) at 16 kHz. by: who, as a reader knows it."""

    text: str
    samples: Floats
    by: str


Check = Callable[[Engine, Sequence[SpokenSentence]], Iterator[AcceptanceRow]]


def _recognition(model: Engine, spoken: Sequence[SpokenSentence]) -> Iterator[AcceptanceRow]:
    """Sentences that somebody else said are written down."""
    for one in spoken:
        yield _row("recognition", f"{one.by}: {one.text!r}", one.text, _written(model, one.samples))


def _speech(model: Engine, spoken: Sequence[SpokenSentence]) -> Iterator[AcceptanceRow]:
    """What each voice says is speech, and the model itself understands it."""
    text = spoken[0].text if spoken else SENTENCES["en"]
    for voice in model.voices or (None,):
        yield _said("speech", voice or "its voice", text, model, voice, None)


def _languages(model: Engine, _spoken: Sequence[SpokenSentence]) -> Iterator[AcceptanceRow]:
    """The same in every language that the model has."""
    for code in languages(model.manifest.tasks) if model.manifest.tasks.languages else ():
        if code in SENTENCES:
            yield _said("languages", code, SENTENCES[code], model, None, code)
    if not model.manifest.tasks.languages:
        yield AcceptanceRow("languages", "sentences", note="this model has one language")


def _live(model: Engine, spoken: Sequence[SpokenSentence]) -> Iterator[AcceptanceRow]:
    """What is written while somebody speaks."""
    task = live_task(model)
    if task is None:
        yield AcceptanceRow("live", "sentences", note="this model writes when the user pauses")
        return
    for one in spoken:
        recogniser = LiveRecogniser(model, task, tentative=False)
        events = recogniser.stream(iter(np.split(one.samples, range(BLOCK, len(one.samples), BLOCK))))
        found = " ".join(event.text for event in events if isinstance(event, SegmentEvent))
        yield _row("live", f"{one.by}: {one.text!r}", one.text, found)


CHECKS: dict[str, Check] = {
    "recognition": _recognition,
    "speech": _speech,
    "languages": _languages,
    "live": _live,
}


def chosen_checks(names: Sequence[str]) -> dict[str, Check]:
    """The checks that were named, in order; all if none was.

    Raises:
        UsageError: one is not known.
    """
    unknown = sorted(set(names) - CHECKS.keys())
    if unknown:
        raise UsageError(
            f"there is no stage {', '.join(unknown)} without published outputs", f"Give one of: {', '.join(CHECKS)}"
        )
    return {name: check for name, check in CHECKS.items() if not names or name in names}


def accept_by_itself(
    model: Engine, spoken: Sequence[SpokenSentence], checks: dict[str, Check], progress: Progress = no_progress
) -> Iterator[AcceptanceRow]:
    """Hold a model to what it hears and says. A check that fails with an error is a row as well."""
    for number, (name, check) in enumerate(checks.items()):
        progress(name, number, len(checks))
        try:
            yield from check(model, spoken)
        except VoxrillError as error:
            yield AcceptanceRow(name, "the rest", (Quantity("errors", 1, most=0),), note=str(error))


def alike(wanted: str, found: str) -> float:
    """The share of letters that two texts have in common, in order; capitals, marks and spaces do not count."""
    one, other = ("".join(filter(str.isalnum, text.casefold())) for text in (wanted, found))
    return SequenceMatcher(None, one, other, autojunk=False).ratio()


def _row(stage: str, compared: str, wanted: str, found: str, *more: Quantity) -> AcceptanceRow:
    quantities = (*more, Quantity("alike", alike(wanted, found), least=LEAST_ALIKE))
    return AcceptanceRow(stage, compared, quantities, note=repr(found))


def _said(stage: str, who: str, text: str, model: Engine, voice: str | None, language: str | None) -> AcceptanceRow:
    """What the model says, to a detector of speech and to itself."""
    result: Result = model.speak(text, voice=voice, language=language, seed=0, max_new_tokens=_most(model)).result
    voiced, found = 0.0, ""
    if len(result.samples):
        sound = as_waveform(result.samples, result.sample_rate)
        voiced, found = len(speech_in(sound)) / len(sound), _written(model, sound, language)
    return _row(stage, f"{who}: {text!r}", text, found, Quantity("voiced", min(1.0, voiced), least=LEAST_VOICED))


def _most(model: Engine) -> int:
    codec = model.manifest.model.codec
    return int(LONGEST * codec.sample_rate / codec.frame_samples)


def _written(model: Engine, samples: Floats, language: str | None = None) -> str:
    task = model.manifest.tasks.transcribe
    system = prompt_in(model.manifest.tasks, task, language, None)
    return transcribe(model, samples, SAMPLE_RATE, system, None, max_new_tokens=100).text
