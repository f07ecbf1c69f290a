"""How well Pebble hears, answers and speaks: `python evaluate.py BUNDLE`, by the runtime, on voices never trained on.

In: a bundle and the cache's evaluation clips. Out: a table (or JSON lines with --json): word error rate, share of
right replies in text and in codes, share of exact speech, share of refusals; n beside each.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import jiwer
import numpy as np
from augment import noisy, quiet_room, reverberated
from codec import Voice, make_voices
from data import evaluation_jobs
from rich.console import Console
from rich.progress import track
from synthesise import Clips, make_clips
from world import REFUSAL, SENTENCES, WORDS

import voxrill

REPLY = {s.command: s.reply for s in SENTENCES}
HELD_OUT = {s.command for s in SENTENCES if s.held_out}
GREEDY = voxrill.Sampling()
_ERR = Console(stderr=True)  # stdout is the table


CONDITIONS = {
    "clean": lambda waveform, chance: waveform,
    "noise 20 dB": lambda waveform, chance: noisy(waveform, "pink", 20, [], chance),
    "noise 10 dB": lambda waveform, chance: noisy(waveform, "pink", 10, [], chance),
    "noise 5 dB": lambda waveform, chance: noisy(waveform, "pink", 5, [], chance),
    "reverberation": lambda waveform, chance: reverberated(waveform, 0.35, 0.2, chance),
}
"""What is done to a clip in a quiet room, by the name of the condition."""


def heard_in(condition: str, clips: Clips, index: int) -> np.ndarray:
    """One clip as it is heard in a condition; the same every time."""
    chance = np.random.default_rng(index)
    return CONDITIONS[condition](quiet_room(clips.waveform(index), chance), chance)


def kind(clips: Clips, index: int) -> str:
    """Which cell of the table a clip belongs to."""
    text, voice = clips.texts[index], clips.voices[index]
    if text not in REPLY:
        return "outside"
    if voice != "espeak-held-out":
        return voice
    return "new sentences" if text in HELD_OUT else "known sentences"


def spoken_exactly(result: voxrill.Result, text: str, voice: Voice) -> bool:
    """Whether the first codebook says exactly the words' own codes."""
    if any(word not in voice.codes for word in text.split()):
        return False
    return np.array_equal(result.codes[0], voice.say(text)[:, 0]) if text else not result.codes.size


def hear(model: voxrill.Model, clips: Clips, limit: int, voices: dict[str, Voice], noise: bool) -> Iterable[dict]:
    """Recognition and dialogue, a row a cell."""
    cells: dict[str, list[int]] = {}
    for index in range(len(clips)):
        cells.setdefault(kind(clips, index), []).append(index)
    for cell, numbers in cells.items():
        for condition in CONDITIONS if noise else ("clean",):
            heard, said, right_text, right_sound = [], [], 0, 0
            chosen = numbers[:limit]
            for index in track(chosen, f"{cell}, {condition}", transient=True, console=_ERR):
                waveform = heard_in(condition, clips, index)
                wanted = REPLY.get(clips.texts[index], REFUSAL)
                heard.append(clips.texts[index])
                said.append(model.transcribe(waveform).text.strip())
                *_, end = model.chat(audio=waveform, audio_sampling=GREEDY, max_new_tokens=120)
                right_text += end.result.text.strip() == wanted
                right_sound += spoken_exactly(end.result, wanted, voices["female"])
            row = {"test": cell, "condition": condition, "n": len(chosen)}
            if cell != "outside":
                row["wer"] = round(jiwer.wer(heard, said), 4)
            yield {**row, "reply text": right_text / len(chosen), "reply codes": right_sound / len(chosen)}


def speak(model: voxrill.Model, voices: dict[str, Voice], count: int) -> Iterable[dict]:
    """Text to speech of new sentences and of random words, a row a cell."""
    chance = np.random.default_rng(5)
    texts = {
        "speak new sentences": sorted({s.reply for s in SENTENCES if s.held_out} | HELD_OUT),
        "speak random words": [" ".join(chance.choice(WORDS, chance.integers(2, 7))) for _ in range(count)],
    }
    for cell, sentences in texts.items():
        right = 0
        for number, text in enumerate(track(sentences[:count], cell, transient=True, console=_ERR)):
            voice = ("US female", "UK male", "UK female", "US male")[number % 4]
            result = model.speak(text, voice=voice, audio_sampling=GREEDY, max_new_tokens=120).result
            right += spoken_exactly(result, text, voices[voice.split()[1]])
        yield {
            "test": cell,
            "condition": "",
            "n": len(sentences[:count]),
            "reply codes": right / len(sentences[:count]),
        }


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--limit", type=int, default=200, help="clips a cell")
    parser.add_argument("--noise", action="store_true", help="also in noise and reverberation")
    args = parser.parse_args()
    model, voices = voxrill.load(args.bundle), make_voices(args.cache)
    clips = make_clips(evaluation_jobs(), args.cache / "evaluate.npz", "speaking the evaluation set")
    for row in (*hear(model, clips, args.limit, voices, args.noise), *speak(model, voices, args.limit)):
        print(json.dumps({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}), flush=True)


if __name__ == "__main__":
    main()
