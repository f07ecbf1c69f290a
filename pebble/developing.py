"""How well a half-taught encoder hears: `python developing.py`, on voices that neither teach nor judge.

In: the stage `encoder` of a cache, and the set natural-development. Out: a table of word errors of the word CTC,
greedy, by condition, and how much of people's talk it takes for words of the world. It is for choices while a training
runs; no figure of the README comes from it.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import jiwer
import numpy as np
import torch
from augment import Random, Surroundings, Waveform, far_away, noisy, padded, quiet_room
from natural import load_shards
from network import Pebble
from people import people_clips
from synthesise import RATE, ClipStore
from train import UNKNOWN_WORD
from world import COMMANDS, WORDS, meant

from voxrill.runtime.audio.log_mel import LogMel

Condition = Callable[[Waveform, Random], Waveform]
CONDITIONS: dict[str, Condition] = {
    "clean": quiet_room,
    "noise 10 dB": lambda sound, chance: noisy(quiet_room(sound, chance), "pink", 10, Surroundings([]), chance),
    "far": lambda sound, chance: far_away(quiet_room(sound, chance), chance),
    "silence 1 s": lambda sound, chance: quiet_room(padded(sound, RATE, RATE), chance),
}
PEOPLE_CLIPS = 200


class RunUnderTest:
    """The word CTC of a training run."""

    def __init__(self, run: Path) -> None:
        kept = torch.load(run, weights_only=False)
        self.step = kept["step"]
        self._model = Pebble().eval()
        self._model.load_state_dict(kept["model"])
        self._log_mel = LogMel()

    def words(self, sound: Waveform) -> list[str]:
        """What it hears, with "?" for words it does not know."""
        mel = torch.from_numpy(self._log_mel(sound))[None]
        with torch.no_grad():
            encoded, _, _ = self._model.hear(mel, torch.tensor([mel.shape[1]]))
            best = self._model.ctc(encoded)[0].argmax(-1)
        numbers = torch.unique_consecutive(best).tolist()
        return ["?" if number == UNKNOWN_WORD else WORDS[number - 1] for number in numbers if number]


def kind(text: str) -> str:
    """Whether a development clip says a known sentence, a new one, or none of the world."""
    sentence = meant(text)
    if sentence is None:
        return "outside"
    return "new" if COMMANDS.get(text, sentence).held_out else "known"


def errors(listener: RunUnderTest, clips: ClipStore, condition: Condition) -> dict[str, float]:
    """Word errors of known and new sentences, and the share of talk in which every word is taken for a known one."""
    said: dict[str, list[tuple[str, list[str]]]] = {"known": [], "new": [], "outside": []}
    for number, text in enumerate(clips.texts):
        sound = condition(clips.waveform(number), np.random.default_rng(number))
        said[kind(text)].append((text, listener.words(sound)))
    row = {}
    for name in ("known", "new"):
        texts, heard = zip(*said[name], strict=True)
        row[name] = jiwer.wer(list(texts), [" ".join(words) for words in heard])
    taken = [bool(words) and "?" not in words for _, words in said["outside"]]
    return row | {"talk taken for words": sum(taken) / len(taken)}


def taken_for_commands(listener: RunUnderTest, clips: ClipStore) -> float:
    """The share of people's clips in which it hears a whole sentence of the world."""
    sounds = [clips.waveform(number) for number in range(min(PEOPLE_CLIPS, len(clips)))]
    return sum(meant(" ".join(listener.words(sound))) is not None for sound in sounds) / len(sounds)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--people", type=Path, help="a folder of recordings of people; see people.py")
    args = parser.parse_args()
    torch.set_num_threads(1)
    listener = RunUnderTest(args.cache / "encoder.pt")
    clips = load_shards(args.cache / "natural-development")
    rows = {name: errors(listener, clips, condition) for name, condition in CONDITIONS.items()}
    for name, row in rows.items():
        print(f"step {listener.step}, {name}: " + ", ".join(f"{key} {100 * value:.1f} %" for key, value in row.items()))
    if args.people:
        share = taken_for_commands(listener, people_clips(args.people, development=True))
        rows["people"] = {"taken for commands": share}
        print(f"step {listener.step}, people: {100 * share:.1f} % taken for commands")
    with (args.cache / "development.jsonl").open("a", encoding="utf-8") as lines:
        lines.write(json.dumps({"step": listener.step, "clips": len(clips), **rows}) + "\n")


if __name__ == "__main__":
    main()
