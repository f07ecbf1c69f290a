"""llama.cpp as a contender: the same backbone with the same weights, as GGUF, through llama-cpp-python.

In: a checkpoint, to write GGUF files from; or a GGUF file and a number of threads, to serve. Tokens go in, so the text
head belongs to a step; `head=False` asks for no logits. It calls llama.cpp's C interface directly. Run in an
environment with llama-cpp-python (built for this processor), gguf and numpy.

    python -m benchmarks.llama make CHECKPOINT OUT_DIR       # float16, then every format of FORMATS
    python -m benchmarks.llama serve FILE.gguf --threads 2
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.protocol import Call, Contender, Json, Unsupported, serve

FORMATS = {"Q4_0": 2, "Q8_0": 7, "Q4_K_M": 15, "Q3_K_M": 12, "Q2_K": 10}
"""llama.cpp's numbers for them (`llama_ftype`)."""
FLOAT16 = "F16"
LONGEST = 5000
"""Positions of a context. Its whole cache is allocated: 6 layers of 12 kB a position for the 1.5 B model."""
BATCH = 512

_LAYER_NAMES = {
    "operator_norm": "attn_norm",
    "ffn_norm": "ffn_norm",
    "feed_forward.w1": "ffn_gate",
    "feed_forward.w2": "ffn_down",
    "feed_forward.w3": "ffn_up",
    "conv.conv": "shortconv.conv",
    "conv.in_proj": "shortconv.in_proj",
    "conv.out_proj": "shortconv.out_proj",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.out_proj": "attn_output",
    "self_attn.q_layernorm": "attn_q_norm",
    "self_attn.k_layernorm": "attn_k_norm",
}
_NAMES = {"lfm.embed_tokens": "token_embd", "lfm.embedding_norm": "token_embd_norm"}


def gguf_name(key: str) -> str:
    """The GGUF name of a backbone weight of the checkpoint."""
    stem = key.removesuffix(".weight")
    if stem in _NAMES:
        return f"{_NAMES[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{_LAYER_NAMES[rest]}.weight"


def backbone_weights(path: Path) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The backbone's tensors of a safetensors file, one after another, as float32."""
    with path.open("rb") as file:
        start = 8 + (length := int.from_bytes(file.read(8), "little"))
        header = json.loads(file.read(length))
    data = np.memmap(path, np.uint8, "r", start)
    for key in sorted(name for name in header if name.startswith("lfm.")):
        begin, end = header[key]["data_offsets"]
        raw = data[begin:end]
        if header[key]["dtype"] == "BF16":
            values = (raw.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
        else:
            values = raw.view({"F16": np.float16, "F32": np.float32}[header[key]["dtype"]]).astype(np.float32)
        yield key, values.reshape(header[key]["shape"])


def feed_forward_size(config: Json) -> int:
    """The width of the SwiGLU, which has to be computed from the config."""
    size = config["block_ff_dim"]
    if config["block_auto_adjust_ff_dim"]:
        multiple = config["block_multiple_of"]
        size = multiple * math.ceil(int(config["block_ffn_dim_multiplier"] * int(2 * size / 3)) / multiple)
    return int(size)


def write_gguf(checkpoint: Path, out: Path) -> None:
    """The backbone as float16 GGUF, without a tokenizer."""
    gguf: Any = import_module("gguf")
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["lfm"]
    kinds = config["layer_types"]
    writer = gguf.GGUFWriter(str(out), "lfm2")
    writer.add_block_count(len(kinds))
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(feed_forward_size(config))
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv([0 if kind == "conv" else config["num_key_value_heads"] for kind in kinds])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_shortconv_l_cache(config["conv_L_cache"])
    writer.add_tokenizer_model("none")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for key, values in backbone_weights(checkpoint / "model.safetensors"):
        flat = values.squeeze(1) if ".conv.conv." in key else values
        small = flat.ndim == 1 or ".conv.conv." in key
        writer.add_tensor(gguf_name(key), np.ascontiguousarray(flat, np.float32 if small else np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make(checkpoint: Path, folder: Path) -> None:
    """Write the missing GGUF files."""
    llama_cpp: Any = import_module("llama_cpp")
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"{FLOAT16}.gguf"
    unfinished = folder / "unfinished"
    if not source.is_file():
        write_gguf(checkpoint, unfinished)
        unfinished.rename(source)
    for name, number in FORMATS.items():
        if (folder / f"{name}.gguf").is_file():
            continue
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = number
        if llama_cpp.llama_model_quantize(os.fsencode(source), os.fsencode(unfinished), ctypes.byref(params)):
            raise SystemExit(f"llama.cpp could not make {name}; the lines above say why")
        unfinished.rename(folder / f"{name}.gguf")


class Llama(Contender):
    """One loaded GGUF file."""

    def __init__(self, file: Path, threads: int) -> None:
        llama_cpp: Any = import_module("llama_cpp")
        self._api = llama_cpp
        self._log: list[str] = []
        self._file = file
        self._keep_log()
        params = llama_cpp.llama_model_default_params()
        self._model = llama_cpp.llama_model_load_from_file(os.fsencode(file), params)
        if not self._model:
            raise SystemExit(f"llama.cpp cannot load {file}; delete it, and the benchmark makes it again")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = LONGEST, BATCH, BATCH
        context.n_threads = context.n_threads_batch = threads
        self._context = llama_cpp.llama_init_from_model(self._model, context)
        self._memory = llama_cpp.llama_get_memory(self._context)
        self._vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self._model))
        self._batch = llama_cpp.llama_batch_init(BATCH, 0, 1)
        self._random = np.random.default_rng(0)
        self._snapshot: tuple[int, Any] | None = None

    def facts(self) -> Json:
        """The file's size, what a step reads of it (all: the tied embedding is the head), build and version."""
        size = self._file.stat().st_size
        return {
            "bytes": size,
            "read_per_step": {"step_with_head": size},
            "tools": {"llama-cpp-python": self._api.__version__},
            "build": self._api.llama_print_system_info().decode(),
            "repacked": [line for line in self._log if "REPACK" in line],
        }

    def decode(self, context: int, head: bool) -> Call:
        """One token after `context` of them."""
        self._grow(context)
        token = self._tokens(1)
        position = context

        def step() -> None:
            nonlocal position
            self._run(token, position, head)
            position += 1

        return step

    def prefill(self, positions: int) -> Call:
        """A prompt of `positions` tokens, and the logits after it."""
        tokens = self._tokens(positions)

        def run() -> None:
            self._api.llama_memory_clear(self._memory, False)
            self._run(tokens, 0, True)

        return run

    def _run(self, tokens: list[int], position: int, head: bool) -> None:
        """Run tokens through the model; logits of the last one if asked for."""
        for start in range(0, len(tokens), BATCH):
            chunk = tokens[start : start + BATCH]
            self._batch.n_tokens = len(chunk)
            for index, token in enumerate(chunk):
                self._batch.token[index] = token
                self._batch.pos[index] = position + start + index
                self._batch.n_seq_id[index] = 1
                self._batch.seq_id[index][0] = 0
                self._batch.logits[index] = head and start + index + 1 == len(tokens)
            if self._api.llama_decode(self._context, self._batch):
                raise RuntimeError("llama_decode failed; the lines above say why")
        self._api.llama_synchronize(self._context)

    def _grow(self, context: int) -> None:
        """Put the context at `context` positions, the same ones every time."""
        if context + BATCH // 2 > LONGEST:
            raise Unsupported(f"is not measured past {LONGEST} positions: it would have to compute them all")
        if self._snapshot is None or self._snapshot[0] != context:
            self._api.llama_memory_clear(self._memory, True)
            self._run(self._tokens(context), 0, False)
            size = self._api.llama_state_seq_get_size(self._context, 0)
            state = (ctypes.c_uint8 * size)()
            self._api.llama_state_seq_get_data(self._context, state, size, 0)
            self._snapshot = (context, state)  # restoring it is much faster than computing the context again
        _, state = self._snapshot
        self._api.llama_memory_clear(self._memory, True)
        if not self._api.llama_state_seq_set_data(self._context, state, len(state), 0):
            raise RuntimeError("llama.cpp could not restore its own state")

    def _tokens(self, count: int) -> list[int]:
        return [int(i) for i in self._random.integers(0, self._vocab, count)]

    def _keep_log(self) -> None:
        """Keep llama.cpp's log of loading: it says whether weights were repacked for this processor."""

        def listen(level: int, text: bytes, _: Any) -> None:
            self._log.append(text.decode(errors="replace").strip())

        # Kept alive: llama.cpp calls it as long as the model exists.
        self._listener = self._api.llama_log_callback(listen)
        self._api.llama_log_set(self._listener, None)


def main() -> None:
    """Make GGUF files, or serve one."""
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
        serve(lambda: Llama(args.model, args.threads))


if __name__ == "__main__":
    main()
