"""The two reply voices as units: every word of the world as it sounds first, in the middle and last in a sentence.

In: two natural voices of `natural`, and sentences that hold the words. Out: for each voice, word and place a sound of
whole frames (80 ms), cut out of a whole sentence. The synthesiser plans how long each sound lasts. The plan is
changed a little, so that every word takes whole frames and its neighbours join it as they were spoken.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from natural import FOLDER, KOKORO_RATE, Kokoro, Narrator, phonemes, voice_style
from numpy.typing import NDArray
from onnx import TensorProto, helper
from rich.progress import track
from world import SENTENCES, SPOKEN_REPLIES, WORDS, SpokenWord

from voxrill.runtime.atomic_write import atomic_write

RATE, FRAME = KOKORO_RATE, 1920
UNIT = 600
"""Samples of one unit of the synthesiser's plan."""
SPEAKERS = {"female": "af_heart", "male": "am_michael"}
PLACES = ("first", "middle", "last")
PACE = 0.95
WEAK = {"the": "ðə", "a": "ə", "to": "tə", "and": "ænd", "of": "əv"}
"""Words that are said weakly inside a sentence."""
EARLY = 1500
"""Samples by which the sound of a phoneme runs ahead of the plan."""
TAIL = 720
"""Samples kept after the last sound."""
PLANNED = "/encoder/Clip_output_0"
"""The synthesiser's tensor of how long each phoneme lasts."""

Floats = NDArray[np.float32]


def placed(text: str) -> list[SpokenWord]:
    """The words of a sentence with their places. A word alone is the last.

    The words of a reply have finer places: each is part of a phrase, which is cut out whole, or of a value.
    """
    if text in SPOKEN_REPLIES:
        return list(SPOKEN_REPLIES[text])
    words = text.split()
    return [(word, _place(number, len(words))) for number, word in enumerate(words)]


def _place(number: int, count: int) -> str:
    return "last" if number == count - 1 else "first" if number == 0 else "middle"


class PlannedKokoro(Kokoro):
    """The synthesiser with its plan in the open: `plan` gives it, and `spoken` follows a changed one."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        model = onnx.load_model_from_string(self.whole(folder))
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                if name == PLANNED:
                    node.input[place] = "plan"
        model.graph.input.append(helper.make_tensor_value_info("plan", TensorProto.FLOAT, [1, "phonemes"]))
        model.graph.output.append(helper.make_tensor_value_info(PLANNED, TensorProto.FLOAT, [1, "phonemes"]))
        self._planned = onnxruntime.InferenceSession(model.SerializeToString(), self.options)

    def plan(self, numbers: list[int], speaker: Narrator) -> NDArray[np.float32]:
        """Units that each phoneme lasts."""
        inputs = self.inputs(numbers, speaker) | {"plan": np.ones((1, len(numbers) + 2), np.float32)}
        plan: NDArray[np.float32] = np.asarray(self._planned.run([PLANNED], inputs)[0], np.float32)[0]
        return plan

    def spoken(self, numbers: list[int], speaker: Narrator, plan: NDArray[np.float32]) -> Floats:
        """The sound with each phoneme as long as `plan` says."""
        inputs = self.inputs(numbers, speaker) | {"plan": plan[None]}
        return np.asarray(self._planned.run(["audio"], inputs)[0], np.float32).ravel()


@cache
def planned() -> PlannedKokoro:
    """The synthesiser of this process."""
    return PlannedKokoro(FOLDER)


def words_of(numbers: list[int], space: int) -> list[list[int]]:
    """The places in the plan of each word's phonemes; the space after a word belongs to it. Place 0 is the start."""
    words: list[list[int]] = [[]]
    for place, number in enumerate(numbers, 1):
        words[-1].append(place)
        if number == space:
            words.append([])
    return words


def snapped(plan: NDArray[np.float32], words: list[list[int]]) -> tuple[NDArray[np.float32], list[int]]:
    """The plan with every word as near to whole frames as its units allow; and the frames of each word."""
    changed = plan.copy()
    frames, at, wanted = [], 0.0, 0.0
    for word in words:
        length = plan[word].sum()
        count = max(1, int(length * UNIT / FRAME + 0.6))
        wanted += count * FRAME / UNIT
        changed[word] = _scaled(plan[word], round(wanted - at))
        at += changed[word].sum()
        frames.append(count)
    return changed, frames


def _scaled(plan: NDArray[np.float32], total: int) -> NDArray[np.float32]:
    """Whole units in proportion to `plan` that come to `total`, none of them zero."""
    total = max(total, len(plan))
    exact = plan * total / plan.sum()
    whole = np.maximum(np.floor(exact), 1)
    while whole.sum() < total:
        whole[np.argmax(exact - whole)] += 1
    while whole.sum() > total:
        whole[np.argmax(np.where(whole > 1, whole - exact, -np.inf))] -= 1
    planned_units: NDArray[np.float32] = whole.astype(np.float32)
    return planned_units


def spoken_words(text: str, speaker: Narrator) -> list[Floats]:
    """A sentence as its words, each of whole frames. Joined they are the sentence."""
    engine = planned()
    numbers = engine.numbers(_pronounced(text, speaker.british))
    words = words_of(numbers, engine.numbers(" ")[0])
    assert len(words) == len(text.split()), f"{text!r} has {len(words)} words in phonemes"
    plan = engine.plan(numbers, speaker)
    changed, frames = snapped(plan, words)
    sound = engine.spoken(numbers, speaker, changed)
    start = int(changed[0]) * UNIT - EARLY
    units = []
    for count in frames:
        units.append(sound[start : start + count * FRAME])
        start += count * FRAME
    units[-1] = _before_silence(np.concatenate([units[-1], sound[start:]]))
    return units


@cache
def _word(word: str, british: bool) -> str:
    return WEAK.get(word) or phonemes(word, british)


def _pronounced(text: str, british: bool) -> str:
    """A sentence in phonemes word by word, because espeak-ng joins words such as "in the"."""
    return " ".join(_word(word, british) for word in text.split()) + "."


def _before_silence(unit: Floats) -> Floats:
    """The last word in whole frames, faded out."""
    loud = np.flatnonzero(np.abs(unit) > 0.02 * np.abs(unit).max(initial=1e-4))
    length = -(-(int(loud[-1]) + TAIL) // FRAME) * FRAME if len(loud) else FRAME
    unit = np.pad(unit, (0, max(0, length - len(unit))))[:length].copy()
    unit[-480:] *= np.linspace(1, 0, 480, dtype=np.float32)
    return unit


def carriers() -> Iterator[tuple[str, str, str, int]]:
    """A sentence for each word and place: word, place, sentence, number of the word in the sentence.

    Sentences that serve several words are taken first. Where no sentence has a word in a place, the word comes from
    another place.
    """
    found: dict[SpokenWord, tuple[str, int]] = {}
    for least in (4, 3, 2, 1):
        for text, words in SPOKEN_REPLIES.items():
            new = {spoken: (text, number) for number, spoken in enumerate(words) if spoken not in found}
            if len(new) >= least:
                found |= new
    yield from ((word, place, *where) for (word, place), where in found.items())
    plain: dict[SpokenWord, tuple[str, int]] = {}
    for text in (*dict.fromkeys(text for text, _ in found.values()), *(s.command for s in SENTENCES)):
        count = len(text.split())
        for number, word in enumerate(text.split()):
            if text in SPOKEN_REPLIES or not any((word, place) in plain for place in PLACES):
                plain.setdefault((word, _place(number, count)), (text, number))
    for word in WORDS:
        for place in PLACES:
            places = sorted(PLACES, key=lambda other: (other != place, other == "last"))
            served = [plain[word, other] for other in places if (word, other) in plain]
            text, number = served[0] if served else (f"say {word} again", 1)
            yield word, place, text, number


def units(name: str, folder: Path) -> dict[SpokenWord, Floats]:
    """All words of one voice. The sentences they are cut from are kept in `folder`, so that the work can stop."""
    voice = SPEAKERS[name]
    speaker = Narrator(voice, voice_style(voice), voice.startswith("b"), PACE)
    folder.mkdir(parents=True, exist_ok=True)
    wanted: dict[str, list[tuple[SpokenWord, int]]] = {}
    for word, place, text, number in carriers():
        wanted.setdefault(text, []).append(((word, place), number))
    found: dict[SpokenWord, Floats] = {}
    for text in track(wanted, f"speaking the {name} voice"):
        path = folder / f"{text.replace(' ', '_')}.npz"
        if not path.is_file():
            with atomic_write(path) as part, part.open("wb") as stream:
                np.savez(stream, *spoken_words(text, speaker))
        with np.load(path) as words:
            found |= {spoken: words[f"arr_{number}"] for spoken, number in wanted[text]}
    return found
