"""What a machine answers: words, codes and numbers of bundles. The host and every emulated processor run it.

    python answers.py OUT int8=BUNDLE int4=BUNDLE ... --products FOLDER

In: bundles by name, and products as `products.py` writes them. The first bundle gets all questions, and its memory is
measured. Out, in the folder OUT: `answers.json`, and `numbers.npz` with every graph's output on the same sound.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

import voxrill
from tests.places import ROOT
from voxrill.devices.processor import described
from voxrill.devices.this import instruction_set
from voxrill.runtime.audio.sound_source import as_waveform

QUESTION = ROOT / "examples" / "question.wav"
COMMAND = "kitchen lights on"
FRAMES = 12
"""Number of frames that the codec decodes. They are the same on every processor."""

ROUTES: dict[str, dict[str, Any]] = {
    "text to text": {"text": COMMAND, "output": "text"},
    "text to speech": {"text": COMMAND, "output": "both"},
    "speech to text": {"audio": QUESTION, "output": "text"},
    "speech to speech": {"audio": QUESTION, "output": "both"},
    "both to text": {"audio": QUESTION, "text": "in the office", "output": "text"},
    "both to speech": {"audio": QUESTION, "text": "in the office", "output": "both"},
}


def machine() -> dict[str, object]:
    """What the machine says about itself."""
    features = next((value for name, value in described() if name == "Features"), "")
    return {"machine": platform.machine(), "instruction_set": instruction_set(), "features": features.split()}


def words(model: voxrill.Model, routes: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """Words and frames of a transcript, of a sentence said aloud, and of every route."""
    results = {"transcribe": model.transcribe(QUESTION), "speak": model.speak(COMMAND, voice="US female").result}
    for route, question in routes.items():
        *_, end = model.chat(**question)
        results[route] = end.result
    assert all(np.isfinite(result.samples).all() for result in results.values())
    return {
        name: {"text": result.text.strip(), "end": result.finish_reason, "codes": result.codes.tolist()}
        for name, result in results.items()
    }


def numbers(model: voxrill.Model) -> dict[str, Any]:
    """Every graph's output: the question's embeddings, hidden states and logits after it, the sound of fixed codes.

    The text's logits are without their mean: what is added to all of them changes no probability.
    """
    context = model.conversation().context
    with context.turn("user"):
        context.add_audio(as_waveform(QUESTION))
    hidden = context.hidden_states()
    logits = context.logits(hidden[-1])
    codes = model.manifest.model.codes
    frames = np.random.default_rng(0).integers(0, codes.end_of_audio, (codes.codebooks, FRAMES))
    return {
        "embeddings": model.parts.encoder.encode(as_waveform(QUESTION)),
        "hidden": hidden,
        "text_logits": logits - logits.mean(),
        "audio_logits": model.parts.depthformer.logits(hidden[-1], frames[:, 0]),
        "sound": model.codec.decode(frames),
    }


def products(folder: Path) -> dict[str, Any]:
    """The results of the products of `products.py` for the same input."""
    x = np.load(folder / "x.npy")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    graphs = {path.stem: ort.InferenceSession(path, options) for path in sorted(folder.glob("*.onnx"))}
    return {name: graph.run(None, {"x": x})[0] for name, graph in graphs.items()}


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("bundles", nargs="+", metavar="name=bundle")
    parser.add_argument("--products", type=Path, required=True)
    args = parser.parse_args()
    said, found, peak = {}, {}, 0.0
    for name, bundle in (entry.split("=", 1) for entry in args.bundles):
        model = voxrill.load(bundle, threads=1)
        said[name] = words(model, ROUTES if not said else {"speech to speech": ROUTES["speech to speech"]})
        found |= {f"{name}/{key}": value for key, value in numbers(model).items()}
        peak = peak or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6  # Linux counts in KiB
    found |= {f"product/{name}": value for name, value in products(args.products).items()}
    args.out.mkdir(parents=True, exist_ok=True)
    np.savez(args.out / "numbers.npz", **found)
    (args.out / "answers.json").write_text(json.dumps({**machine(), "words": said, "peak_mb": peak}), encoding="utf-8")


if __name__ == "__main__":
    main()
