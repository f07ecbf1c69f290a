"""onnxruntime-genai as a contender: its own model builder makes the backbone, and its own generator runs it.

In: a checkpoint, to build from; or what was built and a number of threads, to serve. Its generator takes tokens,
computes the text head in every step and picks the next token itself. What hears and speaks is in `genai_speech`. Run in
an environment with onnxruntime-genai, and for building also torch, onnx and a transformers that it accepts.

    python -m benchmarks.genai make CHECKPOINT OUT_DIR
    python -m benchmarks.genai serve OUT_DIR --threads 2
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.protocol import Call, Contender, Json, Unsupported, serve

LONGEST = 5000
ROOM = 64
"""Steps until a generator is replaced: its context has grown too far beyond the one asked for."""


def make(checkpoint: Path, out: Path) -> None:
    """Build with the builder's defaults for 4 bits on a CPU: blocks of 32, products in 8 bits."""
    if not (out / "genai_config.json").is_file():
        build(checkpoint, out)


def build(checkpoint: Path, out: Path, *options: str) -> None:
    """Run its model builder, with further options."""
    builder = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(checkpoint), "-o", str(out)]
    with tempfile.TemporaryDirectory() as cache:
        words = ["-p", "int4", "-e", "cpu", "-c", cache, "--extra_options", "int4_accuracy_level=4", *options]
        subprocess.run([*builder, *words], check=True)


class GenAI(Contender):
    """One built model."""

    def __init__(self, folder: Path, threads: int) -> None:
        self._api: Any = import_module("onnxruntime_genai")
        self._folder = folder
        options = {"intra_op_num_threads": threads}
        config = self._api.Config(str(folder))
        config.overlay(json.dumps({"model": {"decoder": {"session_options": options}}}))
        self._model = self._api.Model(config)
        written = json.loads((folder / "genai_config.json").read_text(encoding="utf-8"))
        self._vocab = written["model"]["vocab_size"]
        self._random = np.random.default_rng(0)
        self._generator: tuple[int, Any] | None = None

    def facts(self) -> Json:
        """Sizes in bytes and version."""
        size = sum(file.stat().st_size for file in self._folder.glob("model.onnx*"))
        return {
            "bytes": size,
            "read_per_step": {"step_with_head": size},
            "tools": {"onnxruntime-genai": self._api.__version__},
        }

    def decode(self, context: int, head: bool) -> Call:
        """One token after about `context` of them."""
        if not head:
            raise Unsupported("computes the text head in every step")
        generator = self._at(context)
        return lambda: generator.append_tokens(self._tokens(1))

    def prefill(self, positions: int) -> Call:
        """A prompt of `positions` tokens, and the logits after it."""
        tokens = self._tokens(positions)
        return lambda: self._new().append_tokens(tokens) and None

    def _at(self, context: int) -> Any:
        if context + ROOM > LONGEST:
            raise Unsupported(f"is not measured past {LONGEST} positions: it would have to compute them all")
        if self._generator is not None:
            wanted, generator = self._generator
            if wanted == context and generator.token_count() < context + ROOM:
                return generator
        generator = self._new()
        generator.append_tokens(self._tokens(context))
        self._generator = (context, generator)
        return generator

    def _new(self) -> Any:
        params = self._api.GeneratorParams(self._model)
        params.set_search_options(max_length=LONGEST, do_sample=False)
        return self._api.Generator(self._model, params)

    def _tokens(self, count: int) -> Any:
        """Random tokens, none of which ends a text."""
        return self._random.integers(1000, self._vocab, count).astype(np.int32)


def main() -> None:
    """Build a model, or serve one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, dest="command")
    making = commands.add_parser("make")
    making.add_argument("checkpoint", type=Path)
    making.add_argument("out", type=Path)
    serving = commands.add_parser("serve")
    serving.add_argument("model", type=Path)
    serving.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    if args.command == "make":
        make(args.checkpoint, args.out)
    else:
        serve(lambda: GenAI(args.model, args.threads))


if __name__ == "__main__":
    main()
