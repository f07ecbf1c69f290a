"""Random checkpoints in the published LFM2-Audio layout, for tests and for timing.

In: a family (``lfm2`` with Mimi, ``lfm2.5`` with its own detokenizer), a size (``tiny`` or ``full``), a seed.
Out: a folder holding every file of a published checkpoint, with the published key names, and with values
that are the same on every machine and with every numpy release.

Why: the published weights are large and under their own licence, so the tests must not need them. A random
checkpoint exercises the same loading, exporting and decoding code, and the reference implementation can load
it too, which is how the golden outputs under ``tests/golden`` were made.

Values come from the raw integers of PCG64 (whose stream numpy guarantees), seeded by a hash of the seed,
family, file and key; every 64-bit integer gives four values uniform in [-1, 1), then scaled in float32.
Running it::

    python -m tests.checkpoints --family lfm2 --size tiny OUT_DIR [--seed 0] [--dtype float32|bfloat16]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FAMILIES = ("lfm2", "lfm2.5")
SIZES = ("tiny", "full")
DTYPES = ("float32", "bfloat16")

MODEL_FILE = "model.safetensors"
MIMI_FILE = "tokenizer-e351c8d8-checkpoint125.safetensors"
DETOKENIZER_FILE = "audio_detokenizer/model.safetensors"

AUDIO_VOCAB = 2049  # codes of one codebook, the last one (2048) ends the audio
END_OF_AUDIO = 2048
IM_END = 7
DEPTH_HEADS, DEPTH_KV_HEADS = 32, 8  # fixed in the published model, not in its config
DETOKENIZER_DIM, DETOKENIZER_OUT = 512, 1282
MIMI_RATIOS = (8, 6, 5, 4)
MIMI_BINS, MIMI_CODEBOOKS = 2048, 32

SPECIAL_TOKENS = {
    0: "<|pad|>",
    1: "<|startoftext|>",
    2: "<|endoftext|>",
    3: "<|fim_pre|>",
    4: "<|fim_mid|>",
    5: "<|fim_suf|>",
    6: "<|im_start|>",
    7: "<|im_end|>",
    128: "<|audio_start|>",
    130: "<|text_end|>",
}
FIRST_BYTE_TOKEN = 256  # the token of byte b has id 256 + b
MERGES = (("Ġ", "t"), ("h", "e"), ("i", "n"), ("Ġ", "a"), ("Ġt", "he"), ("in", "g"), ("o", "n"), ("r", "e"))

# Tiny checkpoints scale these rows up, so that greedy streams of a random model do change mode and end.
TINY_TEXT_BOOSTS = {IM_END: 1.35, 128: 1.6, 130: 1.4}
TINY_AUDIO_BOOSTS = {0: 1.75, 3: 1.3, 6: 1.3}  # codebook: factor of its row 2048
# The mean of end-of-audio's rows and of im_end's: the one then sometimes follows the other. Found by trying.
TINY_LEAN = {"lfm2": 0.12, "lfm2.5": 0.19}

CHAT_TEMPLATE = (
    "{{- bos_token -}}\n"
    "{%- for message in messages -%}\n"
    "{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' -}}\n"
    "{%- endfor -%}\n"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}\n"
)

_CHUNK = 1 << 22  # values made at a time, a multiple of 4
_SAFETENSORS_DTYPE = {"float32": "F32", "bfloat16": "BF16", "int64": "I64"}
_ITEMSIZE = {"float32": 4, "bfloat16": 2, "int64": 8}


@dataclass(frozen=True)
class Piece:
    """A run of rows (first axis) of a tensor: values are ``centre + spread * u``, u uniform in [-1, 1)."""

    start: int
    stop: int
    centre: float
    spread: float


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint file.

    ``pieces`` cover the rows (later ones win). ``constant`` replaces them. ``twin`` is the key whose random
    stream is used instead of this key's own (both copies of a tied weight). ``floating`` is False for int64.
    """

    key: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...] = ()
    constant: tuple[float, ...] | None = None
    twin: str | None = None
    floating: bool = True

    @property
    def count(self) -> int:
        """Number of values."""
        return math.prod(self.shape)


# ----------------------------------------------------------------------------------------------------------
# Configs


def model_config(family: str, size: str) -> dict[str, Any]:
    """Return the contents of ``config.json``."""
    full = size == "full"
    hidden = 2048 if full else 64
    attention = {2, 5, 8, 10, 12, 14} if full else {2, 4}
    layers = 16 if full else 5
    return {
        "architectures": ["Lfm2AudioForConditionalGeneration"],
        "codebooks": 8,
        "tie_audio_embeddings": False,
        "semantic_codebook_factor": 100,
        "codebook_weight": "log",
        "interleaved_n_text": 6,
        "interleaved_n_audio": 12,
        "preprocessor": {
            "sample_rate": 16000,
            "normalize": "per_feature",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": 128,
            "n_fft": 512,
            "log": True,
            "frame_splicing": 1,
            "dither": 1e-05,
            "pad_to": 0,
            "pad_value": 0.0,
        },
        "encoder": {
            "feat_in": 128,
            "feat_out": -1,
            "n_layers": 17 if full else 2,
            "d_model": 512 if full else 64,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 256 if full else 16,
            "causal_downsampling": False,
            "reduction": None,
            "reduction_position": None,
            "reduction_factor": 1,
            "ff_expansion_factor": 4,
            "self_attention_model": "rel_pos",
            "n_heads": 8 if full else 4,
            "att_context_size": [-1, -1],
            "xscaling": not full and family == "lfm2.5",  # tiny covers both settings
            "untie_biases": True,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": 9,
            "conv_norm_type": "batch_norm",
            "conv_context_size": None,
            "dropout": 0.1,
            "dropout_pre_encoder": 0.1,
            "dropout_emb": 0.0,
            "dropout_att": 0.1,
        },
        "lfm": {
            "architectures": ["Lfm2ForCausalLM"],
            **_lfm_config(hidden, 12288 if full else 192, 256 if full else 32),
            "layer_types": ["full_attention" if i in attention else "conv" for i in range(layers)],
            "num_attention_heads": 32 if full else 4,
            "num_heads": 32 if full else 4,
            "num_hidden_layers": layers,
            "num_key_value_heads": 8 if full else 2,
            "torch_dtype": "bfloat16",
            "vocab_size": 65536 if full else 640,
        },
        "depthformer": {"layers": 6 if full else 2, "dim": 1024 if full else 128, "tie": True},
    }


def detokenizer_config(size: str) -> dict[str, Any]:
    """Return the contents of ``audio_detokenizer/config.json`` (family lfm2.5)."""
    full = size == "full"
    period = ("conv", "sliding_attention")
    layer_types = ("conv", *period, *period, *period, "conv") if full else (*period, "conv")
    return {
        "architectures": ["Lfm25AudioTokenizer"],
        **_lfm_config(DETOKENIZER_DIM, 3328 if full else 192, 256 if full else 64),
        "layer_types": list(layer_types),
        "num_attention_heads": 16,
        "num_heads": 16,
        "num_hidden_layers": len(layer_types),
        "num_key_value_heads": 8,
        "vocab_size": 65536 if full else 64,
        "sliding_window": 30,
        "output_size": DETOKENIZER_OUT,
        "dtype": "bfloat16",
    }


def _lfm_config(hidden: int, ff_dim: int, multiple_of: int) -> dict[str, Any]:
    """Return the fields shared by the backbone's and the detokenizer's config."""
    return {
        "block_auto_adjust_ff_dim": True,
        "block_dim": hidden,
        "block_ff_dim": ff_dim,
        "block_ffn_dim_multiplier": 1.0,
        "block_mlp_init_scale": 1.0,
        "block_multiple_of": multiple_of,
        "block_norm_eps": 1e-05,
        "block_out_init_scale": 1.0,
        "block_use_swiglu": True,
        "block_use_xavier_init": True,
        "bos_token_id": 1,
        "conv_L_cache": 3,
        "conv_bias": False,
        "conv_dim": hidden,
        "conv_dim_out": hidden,
        "conv_use_xavier_init": True,
        "eos_token_id": 7,
        "hidden_size": hidden,
        "initializer_range": 0.02,
        "intermediate_size": ff_dim,
        "max_position_embeddings": 128000,
        "model_type": "lfm2",
        "norm_eps": 1e-05,
        "pad_token_id": 0,
        "rope_theta": 1000000.0,
        "use_cache": True,
        "use_pos_enc": True,
    }


def mimi_sizes(size: str) -> dict[str, int]:
    """Return Mimi's widths: published ones for ``full``; ratios, codebooks, bins and context never change."""
    if size == "full":
        return {"filters": 64, "dim": 512, "heads": 8, "layers": 8, "ff": 2048, "codebook_dim": 256}
    return {"filters": 4, "dim": 64, "heads": 8, "layers": 2, "ff": 128, "codebook_dim": 16}


# ----------------------------------------------------------------------------------------------------------
# Entries: every key, its shape and how its values are scattered


def _random(key: str, shape: tuple[int, ...], std: float, centre: float = 0.0, **extra: Any) -> Entry:
    """Return an entry of uniform values with the given standard deviation."""
    return Entry(key, shape, (Piece(0, shape[0], centre, std * math.sqrt(3.0)),), **extra)


def _between(key: str, shape: tuple[int, ...], low: float, high: float) -> Entry:
    """Return an entry of values uniform in [low, high)."""
    return Entry(key, shape, (Piece(0, shape[0], (low + high) / 2, (high - low) / 2),))


def _linear(key: str, out_dim: int, in_dim: int, gain: float = 1.0) -> Entry:
    """Return a linear weight [out, in] which keeps the variance, times ``gain``."""
    return _random(key, (out_dim, in_dim), gain / math.sqrt(in_dim))


def _norm(key: str, dim: int) -> Entry:
    """Return a norm weight: 1 give or take 0.1, so that a forgotten one shows."""
    return _between(key, (dim,), 0.9, 1.1)


def _bias(key: str, dim: int, std: float = 0.05) -> Entry:
    """Return a small random bias."""
    return _random(key, (dim,), std)


def _affine(prefix: str, dim: int) -> Iterator[Entry]:
    """Yield weight and bias of a layer norm or batch norm."""
    yield _norm(f"{prefix}.weight", dim)
    yield _bias(f"{prefix}.bias", dim)


def _dense(prefix: str, out_dim: int, in_dim: int, gain: float = 1.0) -> Iterator[Entry]:
    """Yield weight and bias of a linear layer."""
    yield _linear(f"{prefix}.weight", out_dim, in_dim, gain)
    yield _bias(f"{prefix}.bias", out_dim)


def _swiglu_width(ff_dim: int, multiple_of: int) -> int:
    """Return the width of a SwiGLU: two thirds, rounded up to a multiple."""
    return -(-int(2 * ff_dim / 3) // multiple_of) * multiple_of


def _backbone_entries(config: dict[str, Any], embedding: Entry) -> Iterator[Entry]:
    """Yield an LFM2 stack under ``lfm.`` (the backbone's and the detokenizer's)."""
    dim, taps = config["hidden_size"], config["conv_L_cache"]
    head = dim // config["num_attention_heads"]
    kv_dim = head * config["num_key_value_heads"]
    ff_dim = _swiglu_width(config["block_ff_dim"], config["block_multiple_of"])
    residual = 1.0 / math.sqrt(len(config["layer_types"]))
    yield embedding
    for index, kind in enumerate(config["layer_types"]):
        at = f"lfm.layers.{index}"
        if kind == "conv":
            yield _random(f"{at}.conv.conv.weight", (dim, 1, taps), 1.0 / math.sqrt(taps))
            yield _linear(f"{at}.conv.in_proj.weight", 3 * dim, dim)
            yield _linear(f"{at}.conv.out_proj.weight", dim, dim, residual)
        else:
            yield _linear(f"{at}.self_attn.q_proj.weight", dim, dim)
            yield _linear(f"{at}.self_attn.k_proj.weight", kv_dim, dim)
            yield _linear(f"{at}.self_attn.v_proj.weight", kv_dim, dim)
            yield _linear(f"{at}.self_attn.out_proj.weight", dim, dim, 2 * residual)
            yield _norm(f"{at}.self_attn.q_layernorm.weight", head)
            yield _norm(f"{at}.self_attn.k_layernorm.weight", head)
        yield _linear(f"{at}.feed_forward.w1.weight", ff_dim, dim)
        yield _linear(f"{at}.feed_forward.w3.weight", ff_dim, dim)
        yield _linear(f"{at}.feed_forward.w2.weight", dim, ff_dim, 2 * residual)
        yield _norm(f"{at}.operator_norm.weight", dim)
        yield _norm(f"{at}.ffn_norm.weight", dim)
    yield _norm("lfm.embedding_norm.weight", dim)


def _conformer_entries(config: dict[str, Any]) -> Iterator[Entry]:
    """Yield the audio encoder under ``conformer.``."""
    dim, channels, heads = config["d_model"], config["subsampling_conv_channels"], config["n_heads"]
    taps, ff_dim = config["conv_kernel_size"], config["d_model"] * config["ff_expansion_factor"]
    at = "conformer.pre_encode"
    columns = config["feat_in"] // config["subsampling_factor"]
    yield from _dense(f"{at}.out", dim, channels * columns, math.sqrt(2.0))
    for index in (0, 2, 5):  # 3 x 3, one input channel each
        yield _random(f"{at}.conv.{index}.weight", (channels, 1, 3, 3), math.sqrt(2.0) / 3.0)
        yield _bias(f"{at}.conv.{index}.bias", channels)
    for index in (3, 6):  # 1 x 1
        yield _random(f"{at}.conv.{index}.weight", (channels, channels, 1, 1), 1.0 / math.sqrt(channels))
        yield _bias(f"{at}.conv.{index}.bias", channels)
    for index in range(config["n_layers"]):
        at = f"conformer.layers.{index}"
        yield from _affine(f"{at}.norm_feed_forward1", dim)
        yield from _dense(f"{at}.feed_forward1.linear1", ff_dim, dim)
        yield from _dense(f"{at}.feed_forward1.linear2", dim, ff_dim)
        yield from _affine(f"{at}.norm_conv", dim)
        yield _random(f"{at}.conv.pointwise_conv1.weight", (2 * dim, dim, 1), 1.0 / math.sqrt(dim))
        yield _bias(f"{at}.conv.pointwise_conv1.bias", 2 * dim)
        yield _random(f"{at}.conv.depthwise_conv.weight", (dim, 1, taps), 1.5 / math.sqrt(taps))
        yield _bias(f"{at}.conv.depthwise_conv.bias", dim)
        yield from _affine(f"{at}.conv.batch_norm", dim)
        yield _random(f"{at}.conv.batch_norm.running_mean", (dim,), 0.1)
        yield _between(f"{at}.conv.batch_norm.running_var", (dim,), 0.5, 1.5)
        yield Entry(f"{at}.conv.batch_norm.num_batches_tracked", (), constant=(1000.0,), floating=False)
        yield _random(f"{at}.conv.pointwise_conv2.weight", (dim, dim, 1), 1.0 / math.sqrt(dim))
        yield _bias(f"{at}.conv.pointwise_conv2.bias", dim)
        yield from _affine(f"{at}.norm_self_att", dim)
        yield _random(f"{at}.self_attn.pos_bias_u", (heads, dim // heads), 0.3)
        yield _random(f"{at}.self_attn.pos_bias_v", (heads, dim // heads), 0.3)
        for name in ("linear_q", "linear_k", "linear_v", "linear_out"):
            yield from _dense(f"{at}.self_attn.{name}", dim, dim)
        yield _linear(f"{at}.self_attn.linear_pos.weight", dim, dim)
        yield from _affine(f"{at}.norm_feed_forward2", dim)
        yield from _dense(f"{at}.feed_forward2.linear1", ff_dim, dim)
        yield from _dense(f"{at}.feed_forward2.linear2", dim, ff_dim)
        yield from _affine(f"{at}.norm_out", dim)


def _depth_entries(hidden: int, codebooks: int, config: dict[str, Any], tiny: bool) -> Iterator[Entry]:
    """Yield the depthformer, its input projection and its tied embeddings."""
    dim = config["dim"]
    head = dim // DEPTH_HEADS
    ff_dim = _swiglu_width(4 * dim, 256)
    residual = 1.0 / math.sqrt(config["layers"])
    for index in range(config["layers"]):
        at = f"depthformer.layers.{index}"
        yield _linear(f"{at}.operator.qkv_proj.weight", dim + 2 * head * DEPTH_KV_HEADS, dim)
        yield _linear(f"{at}.operator.out_proj.weight", dim, dim, 2 * residual)
        yield _norm(f"{at}.operator.bounded_attention.q_layernorm.weight", head)
        yield _norm(f"{at}.operator.bounded_attention.k_layernorm.weight", head)
        yield _linear(f"{at}.feed_forward.w1.weight", ff_dim, dim)
        yield _linear(f"{at}.feed_forward.w3.weight", ff_dim, dim)
        yield _linear(f"{at}.feed_forward.w2.weight", dim, ff_dim, 2 * residual)
        yield _norm(f"{at}.operator_norm.weight", dim)
        yield _norm(f"{at}.ffn_norm.weight", dim)
    yield from _dense("depth_linear", dim * codebooks, hidden)
    spread = math.sqrt(3.0) * 4.0 / math.sqrt(dim)
    for index in range(codebooks):
        at = f"depth_embeddings.{index}"
        pieces: tuple[Piece, ...] = (Piece(0, AUDIO_VOCAB, 0.0, spread),)
        if tiny and index in TINY_AUDIO_BOOSTS:
            pieces += (Piece(END_OF_AUDIO, END_OF_AUDIO + 1, 0.0, spread * TINY_AUDIO_BOOSTS[index]),)
        weight = f"{at}.embedding.weight"
        yield Entry(weight, (AUDIO_VOCAB, dim), pieces)
        yield _norm(f"{at}.embedding_norm.weight", dim)
        yield Entry(f"{at}.to_logits.weight", (AUDIO_VOCAB, dim), pieces, twin=weight)


def _model_entries(family: str, size: str) -> Iterator[Entry]:
    """Yield every tensor of ``model.safetensors``."""
    config = model_config(family, size)
    lfm, codebooks = config["lfm"], config["codebooks"]
    hidden, vocab = lfm["hidden_size"], lfm["vocab_size"]
    yield Entry(
        "codebook_offsets",
        (codebooks,),
        constant=tuple(float(i * AUDIO_VOCAB) for i in range(codebooks)),
        floating=False,
    )
    factor = float(config["semantic_codebook_factor"])
    weights = tuple(factor ** (1.0 - i / (codebooks - 1)) for i in range(codebooks))
    yield Entry("audio_loss_weights", (codebooks,), constant=weights)
    spread = math.sqrt(3.0) * 2.0 / math.sqrt(hidden)
    pieces = [Piece(0, vocab, 0.0, spread)]
    if size == "tiny":
        for row, boost in TINY_TEXT_BOOSTS.items():
            pieces.append(Piece(row, row + 1, TINY_LEAN[family] if row == IM_END else 0.0, spread * boost))
    yield from _backbone_entries(lfm, Entry("lfm.embed_tokens.weight", (vocab, hidden), tuple(pieces)))
    yield from _conformer_entries(config["encoder"])
    yield from _affine("audio_adapter.model.0", config["encoder"]["d_model"])
    yield from _dense("audio_adapter.model.1", hidden, config["encoder"]["d_model"])
    yield from _dense("audio_adapter.model.3", hidden, hidden)
    spread, rows = math.sqrt(3.0) * 0.35, codebooks * AUDIO_VOCAB
    pieces = [Piece(0, rows, 0.0, spread)]
    if size == "tiny":
        ends = range(END_OF_AUDIO, rows, AUDIO_VOCAB)
        pieces += [Piece(row, row + 1, TINY_LEAN[family], spread) for row in ends]
    yield Entry("audio_embedding.embedding.weight", (rows, hidden), tuple(pieces))
    yield _norm("audio_embedding.embedding_norm.weight", hidden)
    yield _linear("audio_embedding.to_logits.weight", codebooks * AUDIO_VOCAB, hidden)
    yield from _depth_entries(hidden, codebooks, config["depthformer"], size == "tiny")


def _detokenizer_entries(size: str) -> Iterator[Entry]:
    """Yield every tensor of ``audio_detokenizer/model.safetensors``."""
    config = detokenizer_config(size)
    dim, half = DETOKENIZER_DIM, DETOKENIZER_OUT // 2
    yield _random("emb.emb.weight", (8 * 2048, dim), 1.0)
    yield from _backbone_entries(config, _linear("lfm.embed_tokens.weight", config["vocab_size"], dim))
    unit = math.sqrt(3.0) / math.sqrt(dim)
    quiet, turning = Piece(0, half, 0.0, 0.5 * unit), Piece(half, 2 * half, 0.0, 2.0 * unit)
    yield Entry("lin.weight", (2 * half, dim), (quiet, turning))
    loudness, phase = Piece(0, half, 1.2, 0.5), Piece(half, 2 * half, 0.0, 3.0)
    yield Entry("lin.bias", (2 * half,), (loudness, phase))
    window = tuple(0.5 - 0.5 * math.cos(2.0 * math.pi * i / 1280) for i in range(1280))
    yield Entry("istft.window", (1280,), constant=window)


def _mimi_conv(prefix: str, out_dim: int, in_dim: int, taps: int, gain: float) -> Iterator[Entry]:
    """Yield weight [out, in, taps] and bias of a convolution."""
    yield _random(f"{prefix}.conv.conv.weight", (out_dim, in_dim, taps), gain / math.sqrt(in_dim * taps))
    yield _bias(f"{prefix}.conv.conv.bias", out_dim)


def _mimi_residual(prefix: str, dim: int) -> Iterator[Entry]:
    """Yield a residual block of width ``dim``."""
    yield from _mimi_conv(f"{prefix}.block.1", dim // 2, dim, 3, 1.3)
    yield from _mimi_conv(f"{prefix}.block.3", dim, dim // 2, 1, 0.8)


def _mimi_entries(size: str) -> Iterator[Entry]:
    """Yield every tensor of the Mimi file; half of them (the encoder's) are never used when decoding."""
    sizes = mimi_sizes(size)
    dim, ff_dim, width = sizes["dim"], sizes["ff"], sizes["filters"]
    yield from _mimi_conv("encoder.model.0", width, 1, 7, 1.0)
    at = 1
    for ratio in reversed(MIMI_RATIOS):
        yield from _mimi_residual(f"encoder.model.{at}", width)
        yield from _mimi_conv(f"encoder.model.{at + 2}", 2 * width, width, 2 * ratio, 1.3)
        width, at = 2 * width, at + 3
    yield from _mimi_conv(f"encoder.model.{at + 1}", dim, width, 3, 1.3)

    yield from _mimi_conv("decoder.model.0", width, dim, 7, 1.0)
    at = 2
    for ratio in MIMI_RATIOS:
        key = f"decoder.model.{at}.convtr.convtr"
        yield _random(f"{key}.weight", (width, width // 2, 2 * ratio), 1.3 / math.sqrt(2 * width))
        yield _bias(f"{key}.bias", width // 2)
        width //= 2
        yield from _mimi_residual(f"decoder.model.{at + 1}", width)
        at += 3
    yield from _mimi_conv(f"decoder.model.{at}", 1, width, 3, 0.06)

    for side in ("encoder_transformer", "decoder_transformer"):
        for index in range(sizes["layers"]):
            key = f"{side}.transformer.layers.{index}"
            yield _linear(f"{key}.self_attn.out_projs.0.weight", dim, dim, 2.0)
            yield _linear(f"{key}.self_attn.in_projs.0.weight", 3 * dim, dim)
            yield from _affine(f"{key}.norm1", dim)
            yield from _affine(f"{key}.norm2", dim)
            yield _linear(f"{key}.linear1.weight", ff_dim, dim)
            yield _linear(f"{key}.linear2.weight", dim, ff_dim, 1.5)
            yield _between(f"{key}.layer_scale_1.scale", (dim,), 0.2, 0.4)
            yield _between(f"{key}.layer_scale_2.scale", (dim,), 0.2, 0.4)

    code_dim = sizes["codebook_dim"]
    for name, layers in (("rvq_first", 1), ("rvq_rest", MIMI_CODEBOOKS - 1)):
        key = f"quantizer.{name}"
        yield _random(f"{key}.input_proj.weight", (code_dim, dim, 1), 1.0 / math.sqrt(dim))
        yield _random(f"{key}.output_proj.weight", (dim, code_dim, 1), 1.0 / math.sqrt(code_dim))
        for index in range(layers):
            book = f"{key}.vq.layers.{index}._codebook"
            yield Entry(f"{book}._initialized", (1,), constant=(1.0,))
            yield _between(f"{book}.cluster_usage", (MIMI_BINS,), 0.5, 2.0)
            yield _random(f"{book}.embedding_sum", (MIMI_BINS, code_dim), 0.4)
    yield _random("downsample.conv.conv.conv.weight", (dim, dim, 4), 1.0 / math.sqrt(4 * dim))
    yield _random("upsample.convtr.convtr.convtr.weight", (dim, 1, 4), 1.0 / math.sqrt(2.0))


def entries(family: str, size: str) -> dict[str, list[Entry]]:
    """Return file name -> its tensors, for a family and a size."""
    if family not in FAMILIES or size not in SIZES:
        raise ValueError(f"family must be one of {FAMILIES}, size of {SIZES}, not {family!r}, {size!r}")
    files = {MODEL_FILE: list(_model_entries(family, size))}
    if family == "lfm2":
        files[MIMI_FILE] = list(_mimi_entries(size))
    else:
        files[DETOKENIZER_FILE] = list(_detokenizer_entries(size))
    return files


def plan(family: str, size: str) -> dict[str, dict[str, tuple[int, ...]]]:
    """Return file name -> key -> shape, without making any value."""
    files = entries(family, size)
    return {name: {entry.key: entry.shape for entry in listed} for name, listed in files.items()}


# ----------------------------------------------------------------------------------------------------------
# Values and the safetensors file


def _blocks(entry: Entry, stream: str) -> Iterator[np.ndarray]:
    """Yield an entry's values in order as flat float32 (or int64) blocks; ``stream`` seeds them."""
    if entry.constant is not None:
        values = np.array(entry.constant, dtype=np.float64)
        yield values.astype(np.float32 if entry.floating else np.int64)
        return
    seed = int.from_bytes(hashlib.sha256(stream.encode()).digest()[:16], "little")
    source = np.random.PCG64(seed)
    row = entry.count // entry.shape[0]
    for start in range(0, entry.count, _CHUNK):
        count = min(_CHUNK, entry.count - start)
        raw = np.asarray(source.random_raw(-(-count // 4)), dtype="<u8")
        unit = raw.view("<i2")[:count].astype(np.float32)
        unit *= np.float32(1.0 / 32768.0)
        block = np.zeros(count, dtype=np.float32)
        for piece in entry.pieces:
            low, high = max(piece.start * row, start) - start, min(piece.stop * row, start + count) - start
            if low < high:
                block[low:high] = unit[low:high] * np.float32(piece.spread) + np.float32(piece.centre)
        yield block


def _to_bytes(block: np.ndarray, dtype: str) -> bytes:
    """Return a block's little-endian bytes, rounded to nearest even for bfloat16."""
    if dtype == "bfloat16":
        bits = block.view(np.uint32)
        rounded = bits + (np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1)))
        block = (rounded >> np.uint32(16)).astype("<u2")
    else:
        block = block.astype("<i8" if dtype == "int64" else "<f4", copy=False)
    return block.tobytes()


def write_safetensors(path: Path, listed: list[Entry], stream: str, dtype: str) -> None:
    """Write the entries to ``path`` one after another, so that memory use stays small."""

    def stored(entry: Entry) -> str:
        return dtype if entry.floating else "int64"

    ordered = sorted(listed, key=lambda entry: (-_ITEMSIZE[stored(entry)], entry.key))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in ordered:
        size = entry.count * _ITEMSIZE[stored(entry)]
        header[entry.key] = {
            "dtype": _SAFETENSORS_DTYPE[stored(entry)],
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in ordered:
            for block in _blocks(entry, f"{stream}/{entry.twin or entry.key}"):
                file.write(_to_bytes(block, stored(entry)))


def _read_header(file: BinaryIO) -> tuple[dict[str, Any], int]:
    """Return a safetensors file's tensor table and where its data starts."""
    length = int.from_bytes(file.read(8), "little")
    header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def fingerprint(path: Path) -> str:
    """Return the sha256 over a safetensors file's tensors in key order: key, dtype, shape, bytes."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        header, base = _read_header(file)
        for key in sorted(header):
            info = header[key]
            digest.update(f"{key} {info['dtype']} {info['shape']}\n".encode())
            start, stop = info["data_offsets"]
            file.seek(base + start)
            left = stop - start
            while left:
                data = file.read(min(left, 1 << 24))
                digest.update(data)
                left -= len(data)
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------------
# Tokenizer and the rest


def _byte_characters() -> list[str]:
    """Return the printable character which byte-level BPE uses for each of the 256 bytes."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    characters, spare = [], 0x100
    for byte in range(256):
        if byte in printable:
            characters.append(chr(byte))
        else:
            characters.append(chr(spare))
            spare += 1
    return characters


def _vocabulary(size: int) -> dict[str, int]:
    """Return token -> id: specials, bytes from 256 on, a few merges, and reserved names for the rest."""
    names = dict(SPECIAL_TOKENS)
    for byte, character in enumerate(_byte_characters()):
        names[FIRST_BYTE_TOKEN + byte] = character
    for index, (left, right) in enumerate(MERGES):
        names[FIRST_BYTE_TOKEN + 256 + index] = left + right
    return {names.get(i, f"<|reserved_{i}|>"): i for i in range(size)}


def write_tokenizer(directory: Path, vocab_size: int) -> None:
    """Write a byte-level BPE tokenizer with the published special tokens and ids, and the chat template."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE(vocab=_vocabulary(vocab_size), merges=list(MERGES)))
    words = Regex(r"\p{N}{1,3}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for _, text in sorted(SPECIAL_TOKENS.items())]
    )
    # As published: asked to add special tokens, it puts startoftext in front.
    start = SPECIAL_TOKENS[1]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", pair=f"{start} $A {start} $B", special_tokens=[(start, 1)]
    )
    tokenizer.save(str(directory / "tokenizer.json"))

    marks = {"bos_token": SPECIAL_TOKENS[1], "eos_token": SPECIAL_TOKENS[7], "pad_token": SPECIAL_TOKENS[0]}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(i): {"content": text, **flags} for i, text in sorted(SPECIAL_TOKENS.items())}
    settings = {
        "added_tokens_decoder": added,
        **marks,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 1000000000000000019884624838656,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    _write_json(directory / "tokenizer_config.json", settings)
    _write_json(directory / "special_tokens_map.json", marks)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8", newline="\n")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a small JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8", newline="\n")


def make_checkpoint(directory: Path, family: str, size: str = "tiny", seed: int = 0, dtype: str = "float32") -> Path:
    """Write a random checkpoint into ``directory`` (made if missing) and return it.

    ``dtype`` is that of the floating tensors; Mimi's file is float32 always, as published.
    """
    files = entries(family, size)
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {DTYPES}, not {dtype!r}")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    config = model_config(family, size)
    _write_json(directory / "config.json", config)
    write_tokenizer(directory, config["lfm"]["vocab_size"])
    if DETOKENIZER_FILE in files:
        _write_json(directory / "audio_detokenizer" / "config.json", detokenizer_config(size))
    for name, listed in files.items():
        stored = "float32" if name == MIMI_FILE else dtype
        if size == "full":
            count = sum(entry.count for entry in listed)
            note = f"writing {name}: {len(listed)} tensors, {count:,} values, {stored}"
            print(note, file=sys.stderr, flush=True)
        write_safetensors(directory / name, listed, f"{seed}/{family}/{name}", stored)
    return directory


def main(arguments: list[str] | None = None) -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=Path, metavar="OUT_DIR")
    parser.add_argument("--family", choices=FAMILIES, required=True)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    options = parser.parse_args(arguments)
    make_checkpoint(options.directory, options.family, options.size, options.seed, options.dtype)
    print(f"wrote {options.directory}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
