"""Teach Pebble: `python train.py STAGE --minutes N`; every stage resumes where it stopped.

Stages: `speech` (backbone and depthformer on random-word speech), `encoder` (word CTC alone), `joint` (everything,
begun from the other two). In: the cache of `data` and `codec`. Out: `CACHE/STAGE.pt`.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from codec import BOOKS, make_voices
from data import Features, training_features
from network import END_OF_AUDIO, Pebble
from tasks import (
    IGNORE,
    REPLY,
    WORD_NUMBER,
    Batch,
    Lesson,
    collate,
    dialogue,
    mixed,
    random_speech,
    transcription,
    written,
)
from training import Run, cosine
from world import REFUSAL

STEPS = {"speech": 1500, "encoder": 7500, "joint": 12000}
RATE = {"speech": 2e-3, "encoder": 1.5e-3, "joint": 1.2e-3}
ENCODER_BATCH, BATCH, SPEECH_BATCH = 24, 16, 24
CODE_NOISE, FRAME_SWAPS = 0.07, 0.05
START_WEIGHT = 3.0
_BOOKS = torch.exp(torch.linspace(1, 0, BOOKS) * math.log(3.0))
BOOK_WEIGHTS = _BOOKS / _BOOKS.sum()
MIX = {"transcribe": 1.0, "dialogue": 2.0, "speech": 1.0, "written": 0.25}


class Clips:
    """The training features in batches of like length."""

    def __init__(self, features: Features, batch: int) -> None:
        self.features = features
        order = sorted(range(len(features)), key=features.frames)
        self.batches = [order[i : i + batch] for i in range(0, len(order) - batch + 1, batch)]
        self._left: list[list[int]] = []

    def next(self) -> list[int]:
        """Clip numbers of the next batch; every clip once before any comes again."""
        if not self._left:
            self._left = random.sample(self.batches, len(self.batches))
        return self._left.pop()

    def mel(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-mel (B, T, 128) with SpecAugment, and lengths (B,)."""
        clips = [torch.from_numpy(_masked(self.features.get(n))) for n in numbers]
        return torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), torch.tensor([len(clip) for clip in clips])


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


def in_world(text: str) -> bool:
    """Whether every word is known; outside sentences have words that are not."""
    return all(word in WORD_NUMBER for word in text.split())


def ctc_loss(model: Pebble, encoded: torch.Tensor, lengths: torch.Tensor, texts: list[str]) -> torch.Tensor:
    """Word CTC of encodings (B, T, 128); sentences with unknown words teach nothing here."""
    known = [i for i, text in enumerate(texts) if in_world(text)]
    if not known:
        return torch.zeros(())
    targets = [[WORD_NUMBER[word] for word in texts[i].split()] for i in known]
    logits = model.ctc(encoded[known]).log_softmax(-1).transpose(0, 1)
    flat = torch.tensor([word for target in targets for word in target])
    return F.ctc_loss(logits, flat, lengths[known], torch.tensor([len(t) for t in targets]), zero_infinity=True)


def _disturbed(frames: torch.Tensor) -> torch.Tensor:
    """History as a free-running model might have it: some codes wrong, some frames of another place."""
    ends = frames[:, 0] == END_OF_AUDIO
    wrong = torch.rand(frames.shape) < CODE_NOISE
    noisy = torch.where(wrong, torch.randint(END_OF_AUDIO, frames.shape), frames)
    swapped = torch.rand(len(frames)) < FRAME_SWAPS
    noisy = torch.where(swapped[:, None], frames[torch.randperm(len(frames))], noisy)
    return torch.where(ends[:, None], frames, noisy)


def lesson_losses(model: Pebble, batch: Batch, heard: torch.Tensor | None) -> tuple[torch.Tensor, dict[str, float]]:
    """Text, code and current-word losses of a batch; heard (N, hidden) fills the places of sound in order."""
    x = model.text(batch.tokens.clamp(min=0)) * (batch.tokens >= 0)[..., None]
    if len(batch.frames):
        x = x.masked_scatter(batch.frame_at[..., None], model.embed_frames(_disturbed(batch.frames)))
    if heard is not None:
        x = x.masked_scatter(batch.heard_at[..., None], heard)
    hidden = model.think(x)
    at_text = batch.next_text != IGNORE
    logits, wanted = model.text_logits(hidden[at_text]), batch.next_text[at_text]
    loss = F.cross_entropy(logits, wanted, label_smoothing=0.02)
    shown = {"text": float(loss.detach()), "text right": float((logits.argmax(-1) == wanted).float().mean())}
    at_frame = batch.next_frame[..., 0] != IGNORE
    if at_frame.any():
        spoken, codes = hidden[at_frame], batch.next_frame[at_frame]
        starts = batch.next_starts[at_frame]
        weights = 1 + START_WEIGHT * starts.float()
        logits = model.code_logits(spoken, codes)
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


def train_speech(cache: Path, seconds: float) -> None:
    """Random words, read aloud."""
    voices, model = make_voices(cache), Pebble()
    run = Run(cache / "speech.pt", model, RATE["speech"])
    random.seed(run.step)
    until = time.monotonic() + seconds
    while run.step < STEPS["speech"] and time.monotonic() < until:
        batch = collate([random_speech(voices) for _ in range(SPEECH_BATCH)])
        loss, shown = lesson_losses(model, batch, None)
        run.update(loss, cosine(run.step / STEPS["speech"]), shown)
    run.save()


def train_encoder(cache: Path, seconds: float) -> None:
    """The encoder alone, by word CTC."""
    model, clips = Pebble(), Clips(training_features(cache), ENCODER_BATCH)
    run = Run(cache / "encoder.pt", model, RATE["encoder"])
    random.seed(run.step)
    until = time.monotonic() + seconds
    while run.step < STEPS["encoder"] and time.monotonic() < until:
        numbers = clips.next()
        encoded, _, lengths = model.hear(*clips.mel(numbers))
        loss = ctc_loss(model, encoded, lengths, [clips.features.texts[n] for n in numbers])
        if loss.requires_grad:
            run.update(loss, cosine(run.step / STEPS["encoder"]), {"ctc": loss})
    run.save()


def train_joint(cache: Path, seconds: float) -> None:
    """Everything together."""
    voices, model, clips = make_voices(cache), Pebble(), Clips(training_features(cache), BATCH)
    if not (cache / "joint.pt").is_file():
        _begin_from(model, cache)
    run = Run(cache / "joint.pt", model, RATE["joint"])
    random.seed(run.step)
    until = time.monotonic() + seconds
    while run.step < STEPS["joint"] and time.monotonic() < until:
        task = random.choices(list(MIX), list(MIX.values()))[0]
        heard, extra = None, torch.zeros(())
        if task in ("transcribe", "dialogue"):
            numbers = clips.next()
            texts = [clips.features.texts[n] for n in numbers]
            encoded, embedded, lengths = model.hear(*clips.mel(numbers))
            heard = torch.cat([row[:length] for row, length in zip(embedded, lengths, strict=True)])
            extra = 0.3 * ctc_loss(model, encoded, lengths, texts)
            lessons = [_heard_lesson(task, text, int(n), voices) for text, n in zip(texts, lengths, strict=True)]
        elif task == "speech":
            lessons = [random_speech(voices) for _ in range(BATCH)]
        else:
            lessons = [written(random.choice(list(REPLY))) for _ in range(2 * BATCH)]
        loss, shown = lesson_losses(model, collate(lessons), heard)
        named = {f"{task} {name}": value for name, value in shown.items()}
        run.update(loss + extra, cosine(run.step / STEPS["joint"]), named)
    run.save()


def _heard_lesson(task: str, text: str, heard: int, voices: dict[str, object]) -> Lesson:
    """The lesson of one clip: its words, or its answer."""
    known = text in REPLY
    if task == "transcribe" or (not known and in_world(text)):
        return transcription(text if in_world(text) else "", heard)
    if not known:
        return dialogue(REFUSAL, heard, voices)
    addition = mixed(text) if random.random() < 0.15 else None
    if addition:
        return dialogue(addition[1], heard, voices, typed=addition[0])
    return dialogue(REPLY[text], heard, voices)


def _begin_from(model: Pebble, cache: Path) -> None:
    """The encoder of the encoder stage, everything else of the speech stage."""
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
    args = parser.parse_args()
    STEPS[args.stage] = args.steps or STEPS[args.stage]
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    stages = {"speech": train_speech, "encoder": train_encoder, "joint": train_joint}
    stages[args.stage](args.cache, 60 * args.minutes)


if __name__ == "__main__":
    main()
