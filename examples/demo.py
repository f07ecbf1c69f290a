"""The built-in model by the commands a user would type: a spoken question, its transcript, its answer, a sentence.

    make demo

In: `question.wav`, synthetic speech by flite's voice awb, which the model never heard in training. Out, in
`build-demo/`: the spoken answer, a sentence said aloud, and a spectrogram of question and answer.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import soundfile
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
QUESTION = Path("examples/question.wav")

SENTENCE = "the kitchen lights are on"
"""No reply of the model's, but all its words are."""

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.004
DYNAMIC_RANGE = 80  # dB


def run(*arguments: str) -> str:
    """Show a command, run it, show and return what it prints; the first that fails ends the demo."""
    print(f"\n$ {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def draw(axes: Axes, sound: Path, title: str) -> None:
    """The spectrogram of a sound file up to half its rate, its words above it."""
    samples, rate = soundfile.read(ROOT / sound)
    window, hop = round(WINDOW_SECONDS * rate), round(HOP_SECONDS * rate)
    padded = np.pad(samples, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop] * np.hanning(window)
    power = np.abs(np.fft.rfft(frames)) ** 2
    decibels = 10 * np.log10(np.maximum(power, 1e-12) / max(power.max(), 1e-12))
    axes.imshow(
        decibels.T,
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=-DYNAMIC_RANGE,
        extent=(0, len(frames) * hop / rate, 0, rate / 2000),
    )
    axes.set(title=title, xlabel="time, s", ylabel="frequency, kHz")


def main(work: Path = Path("build-demo")) -> None:
    """Run the demo, with what it makes in the folder `work`."""
    os.environ.pop("VOXRILL_BUNDLE", None)  # another model is not what is shown here
    (ROOT / work).mkdir(parents=True, exist_ok=True)
    answer, sentence, picture = work / "answer.wav", work / "sentence.wav", work / "spectrogram.png"
    asked = run("voxrill", "transcribe", str(QUESTION))
    answered = run("voxrill", "chat", "--audio", str(QUESTION), "-o", str(answer))
    run("voxrill", "speak", SENTENCE, "--voice", "US female", "-o", str(sentence))
    figure = Figure(figsize=(8, 6), layout="constrained")  # by itself it draws with Agg: no screen is needed
    upper, lower = figure.subplots(2)
    draw(upper, QUESTION, f"question: {asked}")
    draw(lower, answer, f"answer: {answered}")
    figure.savefig(ROOT / picture, dpi=120)
    print(f"\nListen to {answer} and {sentence}; look at {picture}.")


if __name__ == "__main__":
    main()
