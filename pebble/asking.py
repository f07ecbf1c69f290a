"""Asks a bundle through the runtime, greedily, in one process for each core.

In: a bundle, sets of clips, the reply voices. Out: answers in the order of the questions; what the judges hear in
spoken codes, how high they sound, and how far they are from the voice that they encode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import Pool
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np
import torch
from augment import Surroundings, noisy, quiet_room, reverberated
from codec import BOOKS, RATE, Voice, spectral_losses
from judge import Judge, sentence_judge, word_judge
from numpy.typing import NDArray
from pitch import median_pitch
from rich.console import Console
from rich.progress import track
from synthesise import ClipStore

import voxrill

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

"""Greedy decoding."""
WRITTEN_LIMIT, SPOKEN_LIMIT = 60, 120
"""Most tokens and frames of an answer. The longest right answers have 20 and 75."""

CONDITIONS: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "clean": lambda waveform, chance: waveform,
    "noise 20 dB": lambda waveform, chance: noisy(waveform, "pink", 20, Surroundings([]), chance),
    "noise 10 dB": lambda waveform, chance: noisy(waveform, "pink", 10, Surroundings([]), chance),
    "noise 5 dB": lambda waveform, chance: noisy(waveform, "pink", 5, Surroundings([]), chance),
    "reverberation": lambda waveform, chance: reverberated(waveform, 0.35, 0.2, chance),
}
"""By the name of a condition: what is done to a clip from a quiet room."""

ERR = Console(stderr=True)  # stdout is for the tables


def heard_in(condition: str, waveform: Floats, number: int) -> Floats:
    """Clip `number` of its set in a condition. The result is the same every time."""
    chance = np.random.default_rng(number)
    return CONDITIONS[condition](quiet_room(waveform, chance), chance)


@dataclass(frozen=True)
class PebbleQuestion:
    """A question to a bundle, and the right answer.

    kind: hear (write it down and answer it), reply (only answer it), label (write what `system` asks for) or speak;
    test, condition: its cell in the tables; words: the right transcript; reply: the right answer, or the text to say;
    clip: set and number of the clip, None without sound; first: those of a clip that is heard and answered before;
    typed: text after the clip; voice: who says it.
    """

    kind: Literal["hear", "reply", "label", "speak"]
    test: str
    condition: str = "clean"
    words: str = ""
    reply: str = ""
    clip: tuple[str, int] | None = None
    first: tuple[str, int] | None = None
    typed: str | None = None
    system: str | None = None
    voice: str = ""


@dataclass(frozen=True)
class PebbleAnswer:
    """A bundle's transcript, its answer as text, and the codes (BOOKS, frames) that it spoke."""

    words: str = ""
    reply: str = ""
    codes: Codes = field(default_factory=lambda: np.zeros((BOOKS, 0), np.int64))

    @property
    def sound(self) -> bytes:
        """The codes as bytes, which serve as a name for the sound."""
        return sound_of(self.codes)


Said = bytes | tuple[str, str]
"""A sound by name: codes as bytes; or a text and a speaker, which stand for recorded words and not for codes."""


def sound_of(codes: Codes) -> bytes:
    """Codes (BOOKS, frames) as a name: equal codes have the same sound."""
    return codes.tobytes()


def codes_of(sound: bytes) -> Codes:
    """The codes (BOOKS, frames) that `sound_of` named."""
    return np.frombuffer(sound, np.int64).reshape(BOOKS, -1)


class Desk:
    """The model and the judges of one process. `sentences`: what each sentence judge picks from, by its name."""

    def __init__(
        self, bundle: Path, sets: dict[str, ClipStore], voices: dict[str, Voice], sentences: dict[str, list[str]]
    ) -> None:
        torch.set_num_threads(1)
        self.model = voxrill.load(bundle, threads=1)
        self.sets, self.voices, self.sentences = sets, voices, sentences

    @cached_property
    def _sentence_judges(self) -> dict[str, Judge]:
        return {name: sentence_judge(sentences) for name, sentences in self.sentences.items()}

    @cached_property
    def _word_judge(self) -> Judge:
        return word_judge()

    def answer(self, question: PebbleQuestion) -> PebbleAnswer:
        """The bundle's answer."""
        if question.kind == "speak":
            said = self.model.speak(
                question.reply,
                voice=question.voice,
                temperature=0,
                audio_temperature=0,
                max_new_tokens=SPOKEN_LIMIT,
            )
            return PebbleAnswer(codes=said.result.codes)
        waveform = self._waveform(question.clip, question.condition) if question.clip else None
        words = ""
        if waveform is not None and question.kind in ("hear", "label"):
            found = self.model.transcribe(
                waveform,
                sample_rate=16_000,
                system=question.system,
                trim=False,
                temperature=0,
                max_new_tokens=WRITTEN_LIMIT,
            )
            words = found.text.strip()
        if question.kind == "label":
            return PebbleAnswer(words)
        conversation = self.model.conversation()
        if question.first:
            self._ask(conversation, self._waveform(question.first, question.condition), None)
        result = self._ask(conversation, waveform, question.typed)
        return PebbleAnswer(words, result.text.strip(), result.codes)

    def _waveform(self, clip: tuple[str, int], condition: str) -> Floats:
        name, number = clip
        return heard_in(condition, self.sets[name].waveform(number), number)

    def _ask(self, conversation: voxrill.Conversation, waveform: Floats | None, typed: str | None) -> voxrill.Result:
        *_, end = conversation.ask(
            audio=waveform,
            sample_rate=None if waveform is None else 16_000,
            text=typed,
            trim=False,
            max_new_tokens=SPOKEN_LIMIT,
            temperature=0,
            audio_temperature=0,
        )
        assert isinstance(end, voxrill.EndEvent)
        return end.result

    def _sound(self, said: Said) -> Floats:
        if isinstance(said, bytes):
            return self.model.codec.decode(codes_of(said)) if said else np.zeros(0, np.float32)
        text, speaker = said
        return self.voices[speaker].sound(text)

    def sentence_in(self, judged: tuple[Said, str]) -> str:
        """The sentence that a judge hears. The pair has the sound and the judge's name."""
        said, judge = judged
        return self._sentence_judges[judge](self._sound(said), RATE)

    def words_in(self, said: Said) -> str:
        """The words that a judge without a list of sentences hears."""
        return self._word_judge(self._sound(said), RATE)

    def pitch(self, said: Said) -> float:
        """Median pitch in Hz."""
        return median_pitch(self._sound(said), RATE)

    def mel_distance(self, pair: tuple[Said, Said]) -> float:
        """Mean absolute log-mel distance of two sounds of one length."""
        made, wanted = (torch.from_numpy(self._sound(said))[None] for said in pair)
        return float(spectral_losses(made, wanted)[1])


class Desks:
    """Several processes, each with a `Desk`, for a `with` block."""

    def __init__(self, processes: int, *desk: Any) -> None:
        self._pool = Pool(processes, _open_desk, desk)

    def map(self, work: Callable[[Desk, Any], Any], items: Iterable[Any], what: str) -> list[Any]:
        """The results of `work` for all items, in their order."""
        tasks = [(work, item) for item in items]
        done = self._pool.imap(_work, tasks, chunksize=4)
        shown = track(done, what, len(tasks), transient=True, console=ERR, disable=not ERR.is_terminal)
        return list(shown)

    def __enter__(self) -> Desks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.terminate()
        self._pool.join()


_desk: list[Desk] = []
"""The desk of this process."""


def _open_desk(*desk: Any) -> None:
    _desk.append(Desk(*desk))


def _work(task: tuple[Callable[[Desk, Any], Any], Any]) -> Any:
    work, item = task
    return work(_desk[0], item)
