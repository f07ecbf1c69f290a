"""What the programs of this folder share: the question, the place for spoken answers, and the report.

A program is called as `with_NAME.py URL FOLDER`, by the Python of its framework's environment: this file needs only the
standard library. The folder holds the question; spoken answers are written into it. Each check of a program returns
what it found: `heard`, the words of the question; `answer`, the words of the answer; `sound`, the file of the spoken
answer.
"""

import asyncio
import json
import sys
import wave
from pathlib import Path

URL, FOLDER = sys.argv[1], Path(sys.argv[2])
KEY = "unused"
QUESTION = FOLDER / "question_24000.wav"
TYPED = "turn on the kitchen lights"
SPOKEN = "kitchen lights on"
"""A text to be spoken."""


def question(rate=24_000):
    """The question as 16-bit samples, at 16,000 or 24,000 Hz."""
    with wave.open(str(FOLDER / f"question_{rate}.wav")) as file:
        return file.readframes(file.getnframes())


def pieces(sound, milliseconds=20, rate=24_000):
    """A sound as a microphone gives it."""
    size = rate * milliseconds // 1000 * 2
    return [sound[start : start + size] for start in range(0, len(sound), size)]


def keep(name, sound, rate=24_000):
    """Write 16-bit samples into a file; return its name."""
    with wave.open(str(FOLDER / name), "wb") as file:
        file.setparams((1, 2, rate, 0, "NONE", ""))
        file.writeframes(sound)
    return name


def report(*checks):
    """Run each check, a function or a coroutine function, and print what all found for the test."""
    found = {}
    for check in checks:
        try:
            result = check()
            found[check.__name__] = run(result) if asyncio.iscoroutine(result) else result
        except Exception as error:  # the test shows it beside what the other checks found
            found[check.__name__] = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(found), flush=True)


def run(work, seconds=60):
    """Run a coroutine, and give up after some seconds."""
    return asyncio.run(asyncio.wait_for(work, seconds))
