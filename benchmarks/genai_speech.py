"""onnxruntime-genai's own LFM2-Audio as a contender: it hears and speaks.

In: a checkpoint and an encoder graph, to build from; or what was built and a number of threads, to serve. Its model
builder makes the decoder in 4 bits, blocks of 32; `genai_graphs` makes the graphs around it. It runs encoder and prompt
in one call, and step and depthformer in one, so they are timed together; every step computes the text head. Codes come
out, and no sound: it has no codec. Run in the environment of `genai`.

    python -m benchmarks.genai_speech make CHECKPOINT OUT_DIR --encoder BUNDLE/audio_encoder.onnx
    python -m benchmarks.genai_speech serve OUT_DIR --threads 2
"""

from __future__ import annotations

import argparse
import json
import tempfile
import wave
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.genai import build
from benchmarks.protocol import Call, Contender, Json, serve
from tests.signals import SAMPLE_RATE, speech_like

PROMPT = (
    "<|startoftext|><|im_start|>system\nRespond with interleaved text and audio.<|im_end|>\n"
    "<|im_start|>user\n<|audio|><|im_end|>\n<|im_start|>assistant\n"
)
TEXTS, FRAMES, FRAME_SECONDS = 6, 12, 0.08
"""The order of an interleaved answer, and the length of a frame."""
END, TEXT_END = 65_533, 65_534
"""Tokens that random weights are not seen to draw: an answer does not end before it is measured."""
LONGEST = 4000
PATTERN: Json = {
    "type": "Split",
    "pattern": {
        "Regex": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    },
    "behavior": "Isolated",
    "invert": False,
}
BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}


def make(checkpoint: Path, out: Path, encoder: Path) -> None:
    """Build the decoder, write the graphs around it, and name them in the configuration."""
    from benchmarks.genai_graphs import AUDIO_TOKEN, write_graphs  # needs onnx, which serving does not

    build(checkpoint, out, "exclude_embeds=true", "include_hidden_states=true")
    write_graphs(checkpoint, encoder, out)
    _usual_pattern(out / "tokenizer.json")
    path = out / "genai_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["model"] |= {
        "audio_token_id": AUDIO_TOKEN,
        "eos_token_id": END,
        "embedding": {
            "filename": "embeddings.onnx",
            "inputs": {"input_ids": "input_ids", "audio_features": "audio_features"},
            "outputs": {"inputs_embeds": "inputs_embeds"},
        },
        "speech": {
            "filename": encoder.name,
            "inputs": {
                "audio_embeds": "mel_spectrogram",
                "audio_lengths": "mel_lengths",
                "audio_sizes": "audio_sizes",
            },
            "outputs": {"audio_features": "audio_embeddings"},
        },
        "audio_output": {
            "depthformer": {"filename": "vocoder_depthformer.onnx"},
            "embedding": {"filename": "audio_embedding.onnx"},
            "text_end_token_id": TEXT_END,
        },
    }
    path.write_text(json.dumps(config, indent=1), encoding="utf-8")


def _usual_pattern(path: Path) -> None:
    """Split words as usual tokenizers do: its tokenizer library refuses the pattern of our random checkpoints."""
    tokenizer = json.loads(path.read_text(encoding="utf-8"))
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [PATTERN, BYTES]}
    path.write_text(json.dumps(tokenizer), encoding="utf-8")


class GenaiSpeech(Contender):
    """One built model that hears and speaks."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._api: Any = import_module("onnxruntime_genai")
        self._folder = folder
        config = self._api.Config(str(folder))
        parts: Json = {
            "decoder": {},
            "embedding": {},
            "speech": {},
            "audio_output": {"depthformer": {}, "embedding": {}},
        }
        for part in (*parts.values(), *parts["audio_output"].values()):
            if part is not parts["audio_output"]:
                part["session_options"] = {"intra_op_num_threads": threads}
        config.overlay(json.dumps({"model": parts}))
        self._model = self._api.Model(config)
        self._processor = self._model.create_multimodal_processor()

    def facts(self) -> Json:
        """Sizes in bytes and version."""
        return {
            "bytes": sum(file.stat().st_size for file in self._folder.glob("*.onnx*")),
            "tools": {"onnxruntime-genai": self._api.__version__},
        }

    def first_text(self, seconds: float) -> Call:
        """From the end of a spoken question to the first token of the answer."""
        sound = self._sound(seconds)
        return lambda: self._answer(sound).generate_next_token() and None

    def first_audio(self, seconds: float) -> Call:
        """From the end of a spoken question to the codes of the first frame."""
        sound = self._sound(seconds)

        def run() -> None:
            answer = self._answer(sound)
            for _ in range(TEXTS + 1):
                answer.generate_next_token()

        return run

    def spoken_step(self) -> Call:
        """One position of speech: backbone and depthformer."""
        answer = self._answer(self._sound(4.0))
        for _ in range(TEXTS + 1):
            answer.generate_next_token()
        left = FRAMES - 1

        def step() -> None:
            nonlocal left
            if not left:
                raise ValueError(f"there are {FRAMES} frames in a row, of which the first is not timed")
            left -= 1
            answer.generate_next_token()

        return step

    def speech(self, seconds: float) -> Call:
        """One round of interleaved speech: time per second of sound, without a codec."""
        answer = self._answer(self._sound(seconds))

        def cycle() -> float:
            for _ in range(TEXTS + FRAMES):
                answer.generate_next_token()
            return FRAMES * FRAME_SECONDS

        cycle()
        return cycle

    def _answer(self, sound: Any) -> Any:
        """A generator that was given the question; the first token runs encoder and prompt."""
        params = self._api.GeneratorParams(self._model)
        params.set_search_options(max_length=LONGEST, do_sample=False, audio_interleaved=True)
        generator = self._api.Generator(self._model, params)
        generator.set_inputs(self._processor(PROMPT, audios=sound))
        return generator

    def _sound(self, seconds: float) -> Any:
        samples = (32767 * speech_like(int(SAMPLE_RATE * seconds), 1)).astype("<i2")
        with tempfile.NamedTemporaryFile(suffix=".wav") as file:
            with wave.open(file, "wb") as writer:
                writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
                writer.writeframes(np.ascontiguousarray(samples).tobytes())
            file.flush()
            return self._api.Audios.open(file.name)


def main() -> None:
    """Build a model, or serve one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making = commands.add_parser("make")
    making.add_argument("checkpoint", type=Path)
    making.add_argument("out", type=Path)
    making.add_argument("--encoder", type=Path, required=True)
    serving = commands.add_parser("serve")
    serving.add_argument("model", type=Path)
    serving.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    if args.command == "make":
        make(args.checkpoint, args.out, args.encoder)
    else:
        serve(lambda: GenaiSpeech(args.model, args.threads))


if __name__ == "__main__":
    main()
