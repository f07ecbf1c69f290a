"""The cascade that one would build without a speech model: recogniser, table of answers, synthesiser.

It consists of pocketsphinx with a grammar of all that Pebble knows, Pebble's table of answers, and espeak-ng or flite.
Microphone, voice activity, end of speech and loudspeaker are those of `voxrill talk`. It decodes while the user speaks,
as a careful builder would, so that only the last words are left at the end. As a program it talks until it is stopped:

    python -m benchmarks.talk.cascade --endpoint 0.5

In: the microphone. Out: answers aloud, and a line of JSON for each: what was heard, what was said, underruns.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.endpointing import BEFORE, Endpointer, EndpointOptions, blocks
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.protocols import RATE, Floats, Microphone
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.voice_activity import VoiceActivity
from voxrill.runtime.bundle.builtin import open_builtin, pebble_world
from voxrill.runtime.errors import UsageError, needs_extra

SYNTHESISERS = ("espeak-ng", "flite")

_MODEL_FREE_RTF = 0.05
"""Seconds of work for a second of sound, for the loudspeaker. The whole answer is there before it is played."""


class Recogniser:
    """Picks one of `sentences` while the user speaks."""

    def __init__(self, sentences: Iterable[str]) -> None:
        with needs_extra("pebble"):
            from pocketsphinx import Decoder, get_model_path
        folder = Path(get_model_path("en-us"))
        paths = {"hmm": str(folder / "en-us"), "dict": str(folder / "cmudict-en-us.dict")}
        self._decoder: Any = Decoder(lm=None, samprate=RATE, loglevel="FATAL", **paths)
        rule = " | ".join(sorted(set(sentences)))
        grammar = f"#JSGF V1.0;\ngrammar world;\npublic <sentence> = {rule};\n"
        self._decoder.add_jsgf_string("world", grammar)
        self._decoder.activate_search("world")

    def begin(self) -> None:
        """A sentence begins."""
        self._decoder.start_utt()

    def hear(self, samples: Floats) -> None:
        """More of it, (n,) at 16 kHz."""
        self._decoder.process_raw((samples * 32767).clip(-32768, 32767).astype("<i2").tobytes())

    def end(self) -> str:
        """The sentence is over: its text, empty if none fits."""
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


def synthesise(synthesiser: str, text: str) -> Floats:
    """`text` aloud: (n,) at 16 kHz."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "reply.wav"
        command = {
            "espeak-ng": ["espeak-ng", "-w", str(out), text],
            "flite": ["flite", "-voice", "slt", "-t", text, "-o", str(out)],
        }[synthesiser]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return read_audio(out)


def utterances(microphone: Microphone, recogniser: Recogniser, options: EndpointOptions) -> Iterator[str]:
    """What the user says, sentence by sentence."""
    voice_activity, endpointer = VoiceActivity(), Endpointer(options)
    before: deque[Floats] = deque(maxlen=blocks(BEFORE))
    while True:
        block = microphone.read(1.0)
        if block is None:
            continue
        decision = endpointer.hear(voice_activity(block.samples))
        before.append(block.samples)
        if decision == "began":
            recogniser.begin()
            recogniser.hear(np.concatenate(before))
        elif decision in ("ended", "too long"):
            yield recogniser.end()
        elif endpointer.state in ("speaking", "paused"):
            recogniser.hear(block.samples)


def answer(speaker: Speaker, sound: Floats) -> None:
    """Say it, whole."""
    speaker.begin(_MODEL_FREE_RTF, len(sound) / RATE)
    speaker.push(sound)
    speaker.finish()


def check_cascade(synthesiser: str) -> None:
    """Refuse to start if a part of the cascade is missing.

    Raises:
        UsageError: the synthesiser is not known or not installed.
        MissingDependency: pocketsphinx is not installed.
    """
    if synthesiser not in SYNTHESISERS:
        raise UsageError(f"there is no synthesiser {synthesiser!r}", f"Give one of: {', '.join(SYNTHESISERS)}")
    if shutil.which(synthesiser) is None:
        raise UsageError(f"the cascade needs {synthesiser}", f"Run: apt-get install {synthesiser}")
    with needs_extra("pebble"):
        import pocketsphinx  # noqa: F401


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthesiser", choices=SYNTHESISERS, default=SYNTHESISERS[0])
    parser.add_argument("--endpoint", type=float, default=EndpointOptions.endpoint)
    args = parser.parse_args()
    world, refusal = pebble_world(), open_builtin().manifest.taught.refusal
    recogniser = Recogniser(world)
    system = AudioSystem()
    with Speaker(system, RATE) as speaker, DeviceMicrophone(system) as microphone:
        for heard in utterances(microphone, recogniser, EndpointOptions(endpoint=args.endpoint)):
            began = time.perf_counter()
            said = world.get(heard, refusal)
            underruns = speaker.underruns()
            answer(speaker, synthesise(args.synthesiser, said))
            seconds = round(time.perf_counter() - began, 4)
            print(json.dumps({"heard": heard, "text": said, "underruns": underruns, "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
