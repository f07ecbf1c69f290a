"""The built-in model, used with the commands of a user: a spoken question, its transcript, its answer, a sentence.

    make demo

In: `question.wav`, synthetic speech of flite's voice awb, which was not in the model's training. Out, in `build-demo/`:
the spoken answer, a spoken sentence, and a spectrogram of question and answer.
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
"""The model has no such reply, but it knows all these words."""

WINDOW_SECONDS, HOP_SECONDS = 0.032, 0.004
DYNAMIC_RANGE = 80  # dB


def run(*arguments: str) -> str:
    """Show a command, run it, show and return what it prints; a command that fails ends the demo."""
    print(f"\n$ {shlex.join(arguments)}", flush=True)
    done = subprocess.run([sys.executable, "-m", *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout.strip()


def draw(axes: Axes, sound: Path, title: str) -> None:
    """Draw the spectrogram of a sound file up to half its rate, with a title."""
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
    """Run the demo; its files go to the folder `work`."""
    os.environ.pop("VOXRILL_BUNDLE", None)  # the demo shows the built-in model
    (ROOT / work).mkdir(parents=True, exist_ok=True)
    answer, sentence, picture = work / "answer.wav", work / "sentence.wav", work / "spectrogram.png"
    asked = run("voxrill", "transcribe", str(QUESTION))
    answered = run("voxrill", "chat", "--audio", str(QUESTION), "-o", str(answer))
    run("voxrill", "speak", SENTENCE, "--voice", "US female", "-o", str(sentence))
    figure = Figure(figsize=(8, 6), layout="constrained")  # such a figure is drawn with Agg, without a screen
    upper, lower = figure.subplots(2)
    draw(upper, QUESTION, f"question: {asked}")
    draw(lower, answer, f"answer: {answered}")
    figure.savefig(ROOT / picture, dpi=120)
    print(f"\nListen to {answer} and {sentence}; look at {picture}.")


if __name__ == "__main__":
    main()
