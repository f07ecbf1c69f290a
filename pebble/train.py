"""Teach Pebble: `python train.py STAGE --minutes N`; every stage resumes where it stopped.

Stages: `speech` (backbone and depthformer on random-word speech), `encoder` (word CTC alone), `joint` (everything, from
the results of the other two), `voice` (the replies by heart), `hearing` (the encoder alone, through the finished
model), `answers` (every way to ask and to answer); `further` (everything, from the committed checkpoint, for a changed
world or a longer schedule). In: the cache of `data` and `codec`. Out: `CACHE/STAGE.pt`.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from augment import RATE as SOUND_RATE
from augment import Surroundings, Waveform, heard
from codec import BOOKS, Voice, make_voices
from data import MUSIC, NATURAL_TRAINED, Features, recorded_clips, training_features
from natural import shard_paths
from network import END_OF_AUDIO, HAS_BFLOAT16, Pebble
from people import TALK, noises
from synthesise import ClipStore
from tasks import (
    IGNORE,
    KNOWN,
    WORD_NUMBER,
    Batch,
    collate,
    follow_ups,
    heard_answer,
    heard_words,
    in_world,
    random_speech,
    random_typed,
    random_written,
    two_turns,
)
from training import Run, cosine
from world import FOLLOW_UPS, WORDS

from voxrill.runtime.audio.log_mel import LogMel

CHECKPOINT = Path(__file__).resolve().parent / "checkpoint"
STEPS = {
    "speech": 1500,
    "encoder": 14_000,
    "joint": 10500,
    "voice": 11_000,
    "hearing": 3200,
    "answers": 3200,
    "further": 6000,
}
RATE = {
    "speech": 2e-3,
    "encoder": 1e-3,
    "joint": 1.2e-3,
    "voice": 1e-3,
    "hearing": 5e-4,
    "answers": 6e-4,
    "further": 6e-4,
}
BATCH, TWO_TURN_BATCH = 24, 8
LONGEST_BATCH = 24 * 600
"""Log-mel frames of a batch, with padding. Long clips come in smaller batches."""
CODE_NOISE, FRAME_SWAPS = 0.07, 0.05
START_WEIGHT = 3.0
WORDLESS = (MUSIC, TALK)
"""Texts of clips whose words are not known."""
UNKNOWN_WORD = len(WORDS) + 1
"""The symbol of the word CTC for a word that is not of the world."""
_BOOKS = torch.exp(torch.linspace(1, 0, BOOKS) * math.log(3.0))
BOOK_WEIGHTS = _BOOKS / _BOOKS.sum()
CTC_WEIGHT = 0.6
"""Weight of word CTC in the joint stage. It keeps the encoder exact."""
JOINED = 0.35
"""Share of the heard batches whose clips are joined in pairs for recognition."""
FRESH, LONG_SILENCE = 0.6, 0.3
"""Shares of the hearing stage: batches of natural voices, and those of them with long silence around the words."""
ANSWERED = 0.5
"""Share of the hearing stage's batches that have answers too. They cost as much as the words."""
EVERY = 2
"""In the hearing stage, every second clip of a batch goes through the backbone, and all have word CTC."""
HEADS_STEPS = 250
"""Share of the further stage that trains only the two heads that no checkpoint has."""


@dataclass(frozen=True)
class Mix:
    """A stage of all lessons. The first five numbers say how often each kind comes.

    frames_too: share of the batches, heard or typed, whose answers have all frames. The others stop before the first
    one. frozen: share of the steps in which the encoder is frozen. fresh: see `FreshClips`. averaged: see `Run`.
    """

    heard: float = 6.0
    two_turns: float = 0.4
    speech: float = 0.6
    written: float = 0.2
    typed: float = 0.2
    frames_too: float = 0.2
    frozen: float = 0.0
    fresh: bool = False
    averaged: bool = False


MIXES = {
    "joint": Mix(frozen=0.35),
    "voice": Mix(2.0, 0.3, 3.0, 0.15, frames_too=0.7, frozen=1.0),
    "answers": Mix(2.5, 0.3, 2.0, 0.5, 1.5, frames_too=0.35, frozen=1.0, fresh=True, averaged=True),
    "further": Mix(),
}
"""First the backbone learns to listen to an encoder that is frozen. The voice stage learns the replies by heart, the
stage of answers every way to ask and to answer."""


class TrainingClips:
    """The training features in batches of similar length. Clips are numbered through all sets."""

    def __init__(self, sets: list[Features]) -> None:
        self.texts = [text for features in sets for text in features.texts]
        self.styles = [style for features in sets for style in features.styles]
        self.answered = [features.answered for features in sets for _ in features.texts]
        self._at = [(features, i) for features in sets for i in range(len(features))]
        self.batches: list[list[int]] = [[]]
        lengths = [features.frames(i) for features, i in self._at]
        often = [number for number, (features, _) in enumerate(self._at) for _ in range(features.times)]
        for number in sorted(often, key=lengths.__getitem__):
            last = self.batches[-1]
            if len(last) == BATCH or (len(last) + 1) * lengths[number] > LONGEST_BATCH:
                self.batches.append([])
            self.batches[-1].append(number)
        self._left: list[list[int]] = []

    def next(self) -> list[int]:
        """Clip numbers of the next batch. Every clip comes as often as its set says before the round begins again."""
        if not self._left:
            self._left = random.sample(self.batches, len(self.batches))
        return self._left.pop()

    def mel(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (B, T, 128) with SpecAugment, and lengths (B,)."""
        return _padded([self.clip(number) for number in numbers])

    def clip(self, number: int) -> np.ndarray:
        """Log-mel (T, 128) of one clip with SpecAugment."""
        features, i = self._at[number]
        mel = features.get(i)
        return _masked(mel) if self.styles[number] else _spoken_otherwise(mel)


class FreshClips:
    """Natural and recorded voices in new surroundings each time, in turn with the batches of other sets.

    Their numbers come last.
    """

    def __init__(self, others: TrainingClips, natural: list[ClipStore], noise: list[Waveform]) -> None:
        self._others, self._log_mel, self._chance = others, LogMel(), np.random.default_rng(random.getrandbits(32))
        self._clips = [store.waveform(i) for store in natural for i in range(len(store))]
        texts = [text for store in natural for text in store.texts]
        self.texts = others.texts + texts
        self.styles = others.styles + [None] * len(texts)
        self.answered = others.answered + [True] * len(texts)
        self._by_length = sorted(range(len(texts)), key=lambda i: len(self._clips[i]))
        self._around = Surroundings(self._clips[:: max(1, len(self._clips) // 200)], noise)

    def next(self) -> list[int]:
        """Clip numbers of the next batch."""
        if random.random() > FRESH:
            return self._others.next()
        start = random.randint(0, max(0, len(self._by_length) - BATCH))
        return [len(self._others.texts) + i for i in self._by_length[start : start + BATCH]]

    def mel(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (B, T, 128) with SpecAugment, and lengths (B,)."""
        silence = 2 * SOUND_RATE if random.random() < LONG_SILENCE else 4800  # one for all, so that little is padded
        return _padded([self._clip(number, silence) for number in numbers])

    def _clip(self, number: int, silence: int) -> np.ndarray:
        fresh = number - len(self._others.texts)
        if fresh < 0:
            return self._others.clip(number)
        sound = heard(self._clips[fresh], self._around, self._chance, silence)
        return _spoken_otherwise(self._log_mel(sound))


def _padded(clips: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-mel (B, T, 128) of clips, and their lengths (B,)."""
    rows = [torch.from_numpy(clip) for clip in clips]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor([len(clip) for clip in clips])


def _spoken_otherwise(mel: np.ndarray) -> np.ndarray:
    """A training version of a log-mel (T, 128): another throat, another pace, and SpecAugment."""
    return _masked(_other_pace(_other_throat(mel)))


def _other_pace(mel: np.ndarray) -> np.ndarray:
    """Stretch half the clips in time, without a change of pitch."""
    if random.random() < 0.5:
        return mel
    return _rows_at(mel, np.linspace(0, len(mel) - 1.001, int(len(mel) * random.uniform(0.75, 1.4))))


def _other_throat(mel: np.ndarray) -> np.ndarray:
    """Stretch the frequency axis of half the clips by up to 12 %, like a longer or shorter vocal tract.

    After Jaitly and Hinton 2013 (vocal tract length perturbation), on log-mel bands instead of the spectrum.
    """
    if random.random() < 0.5:
        return mel
    at = np.clip(np.arange(mel.shape[1]) * random.uniform(0.88, 1.12), 0, mel.shape[1] - 1.001)
    return _rows_at(mel.T, at).T


def _rows_at(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Rows (n, columns) at places (n,) that may lie between two rows."""
    below = at.astype(int)
    share = (at - below).astype(np.float32)[:, None]
    between: np.ndarray = rows[below] * (1 - share) + rows[below + 1] * share
    return between


def _masked(mel: np.ndarray) -> np.ndarray:
    """SpecAugment: two bands of frequency and two of time are silenced (Park et al. 2019)."""
    for _ in range(2):
        width = random.randint(0, 18)
        start = random.randint(0, mel.shape[1] - width)
        mel[:, start : start + width] = 0
        width = min(random.randint(0, 12), len(mel))
        start = random.randint(0, len(mel) - width)
        mel[start : start + width] = 0
    return mel


def ctc_loss(model: Pebble, encoded: torch.Tensor, lengths: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Word CTC of encodings (B, T, 128). All unknown words are one symbol. Clips without known text do not count."""
    known = [i for i, text in enumerate(texts) if text not in WORDLESS]
    if not known:
        return torch.zeros(())
    targets = [[WORD_NUMBER.get(word, UNKNOWN_WORD) for word in texts[i].split()] for i in known]
    logits = model.ctc(encoded[known]).log_softmax(-1).transpose(0, 1)
    flat = torch.tensor([word for target in targets for word in target])
    counts = torch.tensor([len(target) for target in targets])
    return F.ctc_loss(logits, flat, lengths[known], counts, zero_infinity=True)


def _disturbed(frames: torch.Tensor) -> torch.Tensor:
    """History with errors, as a free-running model makes it: some codes are wrong, some frames from another place."""
    ends = frames[:, 0] == END_OF_AUDIO
    wrong = torch.rand(frames.shape) < CODE_NOISE
    noisy = torch.where(wrong, torch.randint(END_OF_AUDIO, frames.shape), frames)
    swapped = torch.rand(len(frames)) < FRAME_SWAPS
    noisy = torch.where(swapped[:, None], frames[torch.randperm(len(frames))], noisy)
    return torch.where(ends[:, None], frames, noisy)  # the end of audio is never disturbed


def _short() -> torch.autocast:
    """bfloat16 products, which take half the time where the processor has them."""
    return torch.autocast("cpu", torch.bfloat16, enabled=HAS_BFLOAT16)


def lesson_losses(model: Pebble, batch: Batch, heard: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, float]]:
    """Text, code and current-word losses of a batch. `heard` (N, hidden) fills the places of sound in order."""
    x = model.text(batch.tokens.clamp(min=0)) * (batch.tokens >= 0)[..., None]
    # masked_scatter fills the marked places in order, so frames and sounds must come in the order of the lessons.
    if len(batch.frames):
        x = x.masked_scatter(batch.frame_at[..., None], model.embed_frames(_disturbed(batch.frames)))
    if heard is not None:
        x = x.masked_scatter(batch.heard_at[..., None], heard)
    with _short():
        hidden = model.think(x).float()
    at_text = batch.next_text != IGNORE
    logits, wanted = model.text_logits(hidden[at_text]), batch.next_text[at_text]
    loss = F.cross_entropy(logits, wanted, label_smoothing=0.02)
    shown = {"text": float(loss.detach()), "text right": float((logits.argmax(-1) == wanted).float().mean())}
    at_frame = batch.next_frame[..., 0] != IGNORE
    if at_frame.any():
        spoken, codes = hidden[at_frame], batch.next_frame[at_frame]
        starts = batch.next_starts[at_frame]
        weights = 1 + START_WEIGHT * starts.float()
        with _short():
            logits = model.code_logits(spoken, codes).float()
        each = F.cross_entropy(logits.flatten(0, 1), codes.flatten(), reduction="none").view(-1, BOOKS)
        code_loss = ((each * BOOK_WEIGHTS).sum(1) * weights).sum() / weights.sum()
        word_loss = F.cross_entropy(model.current_word(spoken), batch.next_word[at_frame])
        loss = loss + code_loss + 0.5 * word_loss
        right = (logits[:, 0].argmax(-1) == codes[:, 0]).float()
        shown |= {
            "codes": float(code_loss.detach()),
            "first code right": float(right.mean()),
            "word starts right": float(right[starts].mean()),
        }
    return loss, shown


def _steps(run: Run, stage: str, seconds: float) -> Iterator[float]:
    """The learning rate's factor at each step, until the stage or the time is over. Then the run is saved."""
    until = time.monotonic() + seconds
    while run.step < STEPS[stage] and time.monotonic() < until:
        yield cosine(run.step / STEPS[stage])
    run.save()


def _going_on(stage: str, before: str, cache: Path) -> Pebble:
    """The network as the stage `before` left it, unless this stage has begun: its run then has the weights."""
    model = Pebble()
    if not (cache / f"{stage}.pt").is_file():
        model.load_state_dict(torch.load(cache / f"{before}.pt", weights_only=False)["model"])
    return model


def _going_on_or_begun(stage: str, before: str, cache: Path, learn: Callable[[Pebble], None]) -> Pebble:
    """As `_going_on`. Without either run: the committed checkpoint's, and `learn` teaches the heads that it lacks."""
    if any((cache / f"{name}.pt").is_file() for name in (before, stage)):
        return _going_on(stage, before, cache)
    model = Pebble()
    model.begin_from(CHECKPOINT)
    learn(model)
    return model


def train_speech(cache: Path, seconds: float) -> None:
    """Random words, read aloud, from the committed checkpoint's on."""
    voices, model = make_voices(cache), Pebble()
    model.begin_from(CHECKPOINT)
    run = Run(cache / "speech.pt", model, RATE["speech"])
    random.seed(run.step)
    for factor in _steps(run, "speech", seconds):
        batch = collate([random_speech(voices) for _ in range(BATCH)])
        loss, shown = lesson_losses(model, batch, None)
        run.update(loss, factor, shown)


def train_encoder(cache: Path, seconds: float, people: Path | None = None) -> None:
    """The encoder alone, by word CTC, from the committed checkpoint's on."""
    model, clips = Pebble(), TrainingClips(training_features(cache, people))
    if not (cache / "encoder.pt").is_file():
        model.begin_from(CHECKPOINT)
        _learn_words(model, clips)
    run = Run(cache / "encoder.pt", model, RATE["encoder"])
    random.seed(run.step)
    for factor in _steps(run, "encoder", seconds):
        numbers = clips.next()
        encoded, _, lengths = model.hear(*clips.mel(numbers), short=True)
        loss = ctc_loss(model, encoded, lengths, [clips.texts[n] for n in numbers])
        if loss.requires_grad:
            run.update(loss, factor, {"ctc": loss})


def train_joint(cache: Path, seconds: float, people: Path | None = None) -> None:
    """Everything together."""
    model = Pebble()
    if not (cache / "joint.pt").is_file():
        _begin_from(model, cache)
    _train_all("joint", model, cache, seconds, people)


def train_voice(cache: Path, seconds: float, people: Path | None = None) -> None:
    """The reply voices: mostly speech, from the joint stage on."""
    _train_all("voice", _going_on("voice", "joint", cache), cache, seconds, people)


def train_hearing(cache: Path, seconds: float, people: Path | None = None) -> None:
    """The encoder alone, through the finished model, whose other weights stay as they are: so do its words and voices.

    Natural voices come in new surroundings each time, and new ones are taken in whenever the stage goes on. Without the
    stage before it, it begins from the committed checkpoint.
    """
    clips = _fresh_clips(cache, people)
    model = _going_on_or_begun("hearing", "voice", cache, lambda begun: _learn_words(begun, clips))
    # Without the first convolutions, which cost the most, a step takes three quarters of the time.
    for part in (model.lfm, model.depth, model.text, model.encoder.conformer.pre_encode.conv):
        part.requires_grad_(False)
    run = Run(cache / "hearing.pt", model, RATE["hearing"], averaged=True)
    random.seed(run.step)
    ears = Ears(model, clips, {}, frames_too=0.0)
    for factor in _steps(run, "hearing", seconds):
        loss, shown = ears.words_and_answers(EVERY, answers_too=random.random() < ANSWERED)
        run.update(loss, factor, shown)


def _fresh_clips(cache: Path, people: Path | None) -> FreshClips:
    """The natural voices that were made so far, the voices made of recordings, and the other training sets."""
    natural = [ClipStore.load(path) for folder in NATURAL_TRAINED for path in shard_paths(cache / folder)]
    natural.append(recorded_clips(cache))
    others = TrainingClips(training_features(cache, people, natural=False))
    return FreshClips(others, natural, noises(people) if people else [])


def train_answers(cache: Path, seconds: float, people: Path | None = None) -> None:
    """Every way to ask and to answer, with the encoder of the hearing stage, or of the committed checkpoint."""
    model = _going_on_or_begun("answers", "hearing", cache, lambda begun: _learn_heads(begun, cache, people))
    _train_all("answers", model, cache, seconds, people)


def train_further(cache: Path, seconds: float, people: Path | None = None) -> None:
    """Everything together, from the committed checkpoint on. Words that it does not have begin at random."""
    model = Pebble()
    if not (cache / "further.pt").is_file():
        model.begin_from(CHECKPOINT)
        _learn_heads(model, cache, people)
    _train_all("further", model, cache, seconds, people)


def _train_all(stage: str, model: Pebble, cache: Path, seconds: float, people: Path | None) -> None:
    """Train all lessons in turn."""
    mix = MIXES[stage]
    kinds = {
        "heard": mix.heard,
        "two turns": mix.two_turns,
        "speech": mix.speech,
        "written": mix.written,
        "typed": mix.typed,
    }
    voices = make_voices(cache)
    run = Run(cache / f"{stage}.pt", model, RATE[stage], averaged=mix.averaged)
    random.seed(run.step)
    clips = _fresh_clips(cache, people) if mix.fresh else TrainingClips(training_features(cache, people))
    ears = Ears(model, clips, voices, mix.frames_too)
    for factor in _steps(run, stage, seconds):
        task = random.choices(list(kinds), list(kinds.values()))[0]
        ears.frozen = run.step < mix.frozen * STEPS[stage]
        if task == "heard":
            loss, shown = ears.words_and_answers()
        elif task == "two turns":
            loss, shown = ears.conversations()
        elif task == "speech":
            loss, shown = lesson_losses(model, collate([random_speech(voices) for _ in range(BATCH)]), None)
        elif task == "typed":
            frames_too = random.random() < mix.frames_too
            loss, shown = lesson_losses(model, collate([random_typed(voices, frames_too) for _ in range(BATCH)]), None)
        else:
            loss, shown = lesson_losses(model, collate([random_written() for _ in range(2 * BATCH)]), None)
        named = {f"{task} {name}": value for name, value in shown.items()}
        run.update(loss, factor, named)


def _learn_words(model: Pebble, clips: TrainingClips | FreshClips) -> None:
    """Train the word CTC head, with the encoder frozen."""
    optimizer = torch.optim.AdamW(model.ctc.parameters(), 5e-3)
    for step in range(HEADS_STEPS):
        numbers = clips.next()
        encoded, _, lengths = model.hear(*clips.mel(numbers), frozen=True)
        loss = ctc_loss(model, encoded, lengths, [clips.texts[n] for n in numbers])
        if loss.requires_grad:
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        if step % 50 == 49:
            print(f"words, step {step + 1}: ctc {float(loss.detach()):.3f}", flush=True)


def _learn_heads(model: Pebble, cache: Path, people: Path | None) -> None:
    """Train the word CTC and current-word heads, with everything else frozen."""
    voices, clips = make_voices(cache), TrainingClips(training_features(cache, people))
    optimizer = torch.optim.AdamW([*model.ctc.parameters(), *model.current_word.parameters()], 5e-3)
    for step in range(HEADS_STEPS):
        numbers = clips.next()
        encoded, _, lengths = model.hear(*clips.mel(numbers), frozen=True)
        loss = ctc_loss(model, encoded, lengths, [clips.texts[n] for n in numbers])
        spoken = lesson_losses(model, collate([random_speech(voices) for _ in range(4)]), None)[0]
        optimizer.zero_grad(set_to_none=True)
        (loss + spoken).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if step % 50 == 49:
            print(
                f"heads, step {step + 1}: ctc {float(loss.detach()):.3f} speech {float(spoken.detach()):.3f}",
                flush=True,
            )


class Ears:
    """The lessons that begin with sound. frozen: whether the encoder is frozen; frames_too: see `Mix`."""

    def __init__(
        self, model: Pebble, clips: TrainingClips | FreshClips, voices: dict[str, Voice], frames_too: float
    ) -> None:
        self.model, self.clips, self.voices, self.frames_too = model, clips, voices, frames_too
        self.frozen = False
        self._second: dict[str, list[int]] = {}
        for number, text in enumerate(clips.texts):
            if text in FOLLOW_UPS:
                self._second.setdefault(text, []).append(number)

    def _hear(self, numbers: list[int]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Embeddings (positions, hidden) of each clip, and the CTC loss of them all."""
        encoded, embedded, lengths = self.model.hear(*self.clips.mel(numbers), self.frozen, short=True)
        loss = torch.zeros(())
        if not self.frozen:
            loss = CTC_WEIGHT * ctc_loss(self.model, encoded, lengths, [self.clips.texts[n] for n in numbers])
        return [row[:length] for row, length in zip(embedded, lengths, strict=True)], loss

    def words_and_answers(self, every: int = 1, answers_too: bool = True) -> tuple[torch.Tensor, dict[str, float]]:
        """Each clip of a batch is encoded once and has two lessons: its words, and its answer, if it has one.

        every: which of the clips have lessons; answers_too: without it they have only words.
        """
        numbers = self.clips.next()
        heard, loss = self._hear(numbers)
        numbers, heard = numbers[::every], heard[::every]
        first, shown = lesson_losses(self.model, *self._words(numbers, heard))
        loss, shown = loss + first, {f"words {name}": value for name, value in shown.items()}
        asked = [(n, rows) for n, rows in zip(numbers, heard, strict=True) if self.clips.answered[n]]
        if not (asked and answers_too):
            return loss, shown
        frames_too = random.random() < self.frames_too
        answers = [
            heard_answer(self.clips.texts[n], self.clips.styles[n], len(rows), self.voices, frames_too)
            for n, rows in asked
        ]
        second, more = lesson_losses(self.model, collate(answers), torch.cat([rows for _, rows in asked]))
        return loss + second, shown | {f"answers {name}": value for name, value in more.items()}

    def _words(self, numbers: list[int], heard: list[torch.Tensor]) -> tuple[Batch, torch.Tensor]:
        """Recognition lessons. Some clips are joined in pairs, so that the order of words cannot be learnt by heart."""
        texts = [self.clips.texts[n] for n in numbers]
        if random.random() < JOINED and all(in_world(text) for text in texts):
            order = random.sample(range(len(texts)), len(texts) // 2 * 2)
            pairs = list(zip(order[::2], order[1::2], strict=True))
            texts = [f"{texts[a]} {texts[b]}".strip() for a, b in pairs]
            heard = [torch.cat([heard[a], heard[b]]) for a, b in pairs]
        lessons = [heard_words(text, len(rows)) for text, rows in zip(texts, heard, strict=True)]
        return collate(lessons), torch.cat(heard)

    def conversations(self) -> tuple[torch.Tensor, dict[str, float]]:
        """Two turns. The second makes sense only after the first."""
        rows: list[tuple[int, str, str]] = []
        while not rows:
            for number in self.clips.next():
                text = self.clips.texts[number]
                replies = follow_ups(text) if text in KNOWN else {}
                if replies:
                    rows.append((number, *random.choice(list(replies.items()))))
        rows = random.sample(rows, min(len(rows), TWO_TURN_BATCH))
        first, loss = self._hear([number for number, _, _ in rows])
        second, _ = self._hear([random.choice(self._second[text]) for _, text, _ in rows])
        lessons = [
            two_turns(self.clips.texts[number], len(a), reply, len(b), self.voices)
            for (number, _, reply), a, b in zip(rows, first, second, strict=True)
        ]
        heard = torch.cat([part for pair in zip(first, second, strict=True) for part in pair])
        more, shown = lesson_losses(self.model, collate(lessons), heard)
        return loss + more, shown


def _begin_from(model: Pebble, cache: Path) -> None:
    """Take the encoder from the encoder stage, and everything else from the speech stage."""
    hearing = torch.load(cache / "encoder.pt", weights_only=False)["model"]
    speaking = torch.load(cache / "speech.pt", weights_only=False)["model"]
    ours = ("encoder.conformer.", "ctc.")
    state = {key: hearing[key] if key.startswith(ours) else value for key, value in speaking.items()}
    model.load_state_dict(state)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=list(STEPS))
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, help="steps the learning rate falls over")
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--people", type=Path, help="a folder of recordings of people; see people.py")
    args = parser.parse_args()
    STEPS[args.stage] = args.steps or STEPS[args.stage]
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.stage == "speech":
        train_speech(args.cache, 60 * args.minutes)
        return
    stages = {
        "encoder": train_encoder,
        "joint": train_joint,
        "voice": train_voice,
        "hearing": train_hearing,
        "answers": train_answers,
        "further": train_further,
    }
    stages[args.stage](args.cache, 60 * args.minutes, args.people)


if __name__ == "__main__":
    main()
