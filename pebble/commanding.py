"""How well spoken commands become calls with Pebble and the runtime's voice control: `python commanding.py`.

In: examples/commands.toml, a bundle, and clips that are made once in the cache. Out: a line for each test. The set
`choose` has trained voices in takes that were not trained on, and gets a line for each threshold: the threshold is
chosen with it, and never with the tests.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from augment import Surroundings, noisy, quiet_room
from data import evaluation_jobs
from synthesise import EVALUATED_ONLY, ClipStore, SynthesisJob, make_clips
from world import FIRST, WORDS, outside_sentence

import voxrill
from voxrill.runtime.apps.control import THRESHOLD, Control, Understood
from voxrill.runtime.apps.grammar import Call, read_grammar

COMMANDS = Path(__file__).parent.parent / "examples" / "commands.toml"
CHOSEN_ON = 200
"""Number of commands, of near misses and of outside sentences that the threshold is chosen with."""
LIMIT = 60
"""Most tokens of a transcript without a grammar."""
THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
CONDITIONS = ("clean", "noise 10 dB")
NO_COMMAND, NEAR_MISS = "outside sentences", "near misses, other sentences of the world"


@dataclass(frozen=True)
class HeardClip:
    """One clip: its test, the call that it means (None if it means none), and the result of each way of decoding.

    free: the call of a transcript without a grammar, None if the grammar has no such sentence; greedy: the call when
    the likeliest allowed token is taken each time.
    """

    test: str
    wanted: Call | None
    free: Call | None
    greedy: Call
    best: Understood


def choosing_jobs() -> Iterator[SynthesisJob]:
    """Trained voices in new takes: known commands, near misses, and sentences outside the world."""
    known = [s for s in FIRST if not s.held_out]
    chance = np.random.default_rng(17)
    for number in range(CHOSEN_ON):
        voice = ("espeak", "espeak", "flite:rms", "flite:slt")[number % 4]
        yield SynthesisJob(known[chance.integers(len(known))].command, voice, 20 * 10**6 + number)
        yield SynthesisJob(near_miss(chance), voice, 21 * 10**6 + number)
        yield SynthesisJob(outside_sentence(2 * 10**5 + number), voice, 22 * 10**6 + number)


def testing_jobs() -> Iterator[SynthesisJob]:
    """Pebble's evaluation clips, and near misses by voices that it never heard."""
    yield from evaluation_jobs()
    chance = np.random.default_rng(19)
    for number in range(CHOSEN_ON):
        yield SynthesisJob(near_miss(chance), "espeak-held-out", 23 * 10**6 + number)


def near_miss(chance: np.random.Generator) -> str:
    """A sentence of the world with one word replaced by another known word, so that it is no command any more."""
    commands = {s.command for s in FIRST}
    while True:
        words = FIRST[chance.integers(len(FIRST))].command.split()
        words[chance.integers(len(words))] = str(chance.choice(WORDS))
        if (missed := " ".join(words)) not in commands:
            return missed


def hear(bundle: Path | None, clips: ClipStore, condition: str, limit: int) -> Iterator[HeardClip]:
    """Decode the first `limit` clips of each test in every way."""
    model = voxrill.load(bundle, threads=1)
    grammar = read_grammar(COMMANDS)
    calls = {sentence.words: sentence.call for sentence in grammar.sentences}
    best, greedy = Control(model, grammar, 0.0), Control(model, grammar, 1.0)
    counted: dict[str, int] = {}
    for number in range(len(clips)):
        wanted = calls.get(clips.texts[number])
        test = test_of(clips, number, wanted)
        counted[test] = counted.get(test, 0) + 1
        if counted[test] > limit:
            continue
        chance = np.random.default_rng(number)
        waveform = quiet_room(clips.waveform(number), chance)
        if condition != "clean":
            waveform = noisy(waveform, "pink", 10, Surroundings([]), chance)
        # The model is measured, not the cut around it: the clips begin and end with their words already.
        written = model.transcribe(waveform, sample_rate=16_000, trim=False, max_new_tokens=LIMIT, temperature=0)
        call = calls.get(written.text.strip())
        yield HeardClip(
            test, wanted, call, greedy.hear(waveform, False, 16_000).call, best.hear(waveform, False, 16_000)
        )


def test_of(clips: ClipStore, number: int, wanted: Call | None) -> str:
    """The test that a clip belongs to."""
    voice = clips.voices[number]
    if wanted is None and set(clips.texts[number].split()) <= set(WORDS):
        return NEAR_MISS
    if wanted is None:
        return NO_COMMAND
    if voice != "espeak-held-out":
        return voice
    held_out = {sentence.command: sentence.held_out for sentence in FIRST}
    return "new sentences" if held_out[clips.texts[number]] else "known sentences"


def rows(heard: list[HeardClip], threshold: float) -> Iterator[str]:
    """A Markdown line for each test, and one for all three unheard synthesisers together."""
    yield "| test | n | free | greedy | likeliest | done rightly | done wrongly | asked back |"
    yield "|---|---|---|---|---|---|---|---|"
    tests = {test: [one for one in heard if one.test == test] for test in dict.fromkeys(one.test for one in heard)}
    unheard = [one for one in heard if one.test in EVALUATED_ONLY]
    for test, found in {**tests, "unheard synthesisers": unheard}.items():
        if found:
            shares = (
                share([one.free == one.wanted for one in found]),
                share([one.greedy == one.wanted for one in found]),
                share([one.best.call == one.wanted for one in found]),
                share([accepted(one, threshold) and one.best.call == one.wanted for one in found]),
                share([accepted(one, threshold) and one.best.call != one.wanted for one in found]),
                share([not accepted(one, threshold) for one in found]),
            )
            yield f"| {test} | {len(found)} | {' | '.join(shares)} |"


def accepted(heard: HeardClip, threshold: float) -> bool:
    """Whether the call would be carried out."""
    return heard.best.confidence >= threshold


def share(right: list[bool]) -> str:
    """Per cent of them."""
    return f"{100 * sum(right) / len(right):.1f}"


def thresholds(heard: list[HeardClip]) -> Iterator[str]:
    """A Markdown line for each threshold: commands carried out rightly and wrongly, and the rest carried out at all."""
    yield "| threshold | done rightly | done wrongly | of no command, done |"
    yield "|---|---|---|---|"
    commands, others = ([one for one in heard if (one.wanted is None) is none] for none in (False, True))
    for threshold in THRESHOLDS:
        right = share([accepted(one, threshold) and one.best.call == one.wanted for one in commands])
        wrong = share([accepted(one, threshold) and one.best.call != one.wanted for one in commands])
        done = share([accepted(one, threshold) for one in others])
        yield f"| {threshold} | {right} | {wrong} | {done} |"


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument("--cache", type=Path, default=Path("build/pebble"))
    parser.add_argument("--limit", type=int, default=200, help="utterances a test")
    args = parser.parse_args()
    choose = make_clips(choosing_jobs(), args.cache / "choose.npz", "speaking the set 'choose'")
    evaluate = make_clips(testing_jobs(), args.cache / "evaluate-commands.npz", "speaking the tests")
    for condition in CONDITIONS:
        found = list(hear(args.bundle, choose, condition, CHOSEN_ON))
        print(f"\nchoosing the threshold, {condition}\n", *thresholds(found), sep="\n")
    for condition in CONDITIONS:
        found = list(hear(args.bundle, evaluate, condition, args.limit))
        print(f"\n{condition}, threshold {THRESHOLD}\n", *rows(found, THRESHOLD), sep="\n")
        took = [1000 * one.best.cpu_seconds for one in found]
        print(
            f"\n{statistics.median(took):.1f} ms of processor a command (median), {max(took):.1f} at most", flush=True
        )


if __name__ == "__main__":
    main()
