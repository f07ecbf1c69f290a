"""The names of LFM3-Audio's tensors: ours, and by which others they are known. This file is data.

In: a stored name. Out: ours, or None. The names of the GGUF pair are known exactly. Of the published safetensors only
the top-level prefixes are known, and the names inside LFM3 layers. So there are several candidates for each place. A
file in which something matches none of them is refused, with the names that did not match.
"""

from __future__ import annotations

import re

STACKS = {
    # ours: where the layers of a stack may be called. {} is the number of a layer.
    "lfm.layers.{}": ("blk.{}", "lfm.layers.{}", "lfm.model.layers.{}", "model.layers.{}"),
    "encoder.lfm.layers.{}": (
        "a.blk.{}",
        "encoder.lfm.layers.{}",
        "encoder.lfm.model.layers.{}",
        "encoder.model.layers.{}",
        "encoder.layers.{}",
    ),
    "depthformer.layers.{}": ("a.gen.code.blk.{}", "depthformer.layers.{}", "depthformer.model.layers.{}"),
    "codec.lfm.layers.{}": (
        "a.gen.wav.tfm.blk.{}",
        "codec.decoder.lfm.layers.{}",
        "codec.decoder.layers.{}",
        "codec.lfm.layers.{}",
    ),
}

LAYER = {
    # ours: other names of the tensor in its layer
    "operator_norm": ("operator_norm", "attn_norm", "ln1"),
    "post_operator_norm": ("post_operator_norm", "post_attention_norm", "attn_post_norm"),
    "ffn_norm": ("ffn_norm", "ln2"),
    "post_ffn_norm": ("post_ffn_norm", "post_ffw_norm", "ffn_post_norm"),
    "feed_forward.w1": ("feed_forward.w1", "feed_forward.gate_proj", "ffn_gate"),
    "feed_forward.w3": ("feed_forward.w3", "feed_forward.up_proj", "ffn_up"),
    "feed_forward.w2": ("feed_forward.w2", "feed_forward.down_proj", "ffn_down"),
    "conv.conv": ("conv.conv", "shortconv.conv", "conv_dw"),
    "conv.in_proj": ("conv.in_proj", "shortconv.in_proj", "conv_pw1"),
    "conv.out_proj": ("conv.out_proj", "shortconv.out_proj", "conv_pw2"),
    "self_attn.q_proj": ("self_attn.q_proj", "attn_q"),
    "self_attn.k_proj": ("self_attn.k_proj", "attn_k"),
    "self_attn.v_proj": ("self_attn.v_proj", "attn_v"),
    "self_attn.o_proj": ("self_attn.o_proj", "self_attn.out_proj", "attn_output", "attn_out"),
    "self_attn.q_norm": ("self_attn.q_norm", "self_attn.q_layernorm", "attn_q_norm"),
    "self_attn.k_norm": ("self_attn.k_norm", "self_attn.k_layernorm", "attn_k_norm"),
    "self_attn.g_proj": ("self_attn.gate_proj", "self_attn.g_proj", "attn_gate"),
}

SINGLE = {
    # ours: other names. What follows (.weight, .bias) stays. {} is a number that stays, too.
    "lfm.embed_tokens": (
        "token_embd",
        "lfm.embed_tokens",
        "lfm.model.embed_tokens",
        "model.embed_tokens",
    ),
    "lfm.embedding_norm": (
        "output_norm",
        "token_embd_norm",
        "lfm.embedding_norm",
        "lfm.model.embedding_norm",
        "model.embedding_norm",
    ),
    "encoder.downsample.conv.{}": ("a.conv1d.{}", "encoder.downsample.conv.{}", "encoder.subsampling.conv.{}"),
    "encoder.downsample.out": ("a.pre_encode.out", "encoder.downsample.out", "encoder.subsampling.out"),
    "encoder.lfm.embedding_norm": (
        "a.post_ln",
        "encoder.lfm.embedding_norm",
        "encoder.lfm.model.embedding_norm",
        "encoder.model.embedding_norm",
        "encoder.embedding_norm",
    ),
    "mlp.model.{}": ("mm.a.mlp.{}", "mlp.model.{}", "mlp.{}"),
    "depth_linear": ("a.gen.code.proj_in", "depth_linear"),
    "depth_embeddings": ("a.gen.code.embd", "depth_embeddings"),
    "depth_embeddings.{}": ("depth_embeddings.{}.embedding", "depth_embeddings.{}"),
    "depth_heads.{}": ("depth_embeddings.{}.to_logits",),
    "head_norm": ("a.gen.code.head_norm", "depth_embeddings.embedding_norm", "depth_norm"),
    "head_norm.{}": ("depth_embeddings.{}.embedding_norm",),
    "mask_embedding": ("a.gen.code.mask_embd", "mask_embedding"),
    "depthformer.embedding_norm": (
        "a.gen.code.output_norm",
        "depthformer.embedding_norm",
        "depthformer.model.embedding_norm",
        "depthformer.norm",
    ),
    "codebook_embedding": ("a.gen.code.out_embd", "codebook_embedding", "codebook_embedding.embedding"),
    "codec.table": ("a.gen.wav.quant.first.codebook", "codec.quantizer.codebook"),
    "codec.quantizer_out": (
        "a.gen.wav.quant.first.out_proj",
        "codec.quantizer.out_proj",
        "codec.quantizer.project_out",
    ),
    "codec.in_proj": ("a.gen.wav.tfm.in_proj", "codec.decoder.in_proj", "codec.in_proj"),
    "codec.lfm.embedding_norm": (
        "a.gen.wav.tfm.output_norm",
        "codec.decoder.lfm.embedding_norm",
        "codec.decoder.embedding_norm",
        "codec.lfm.embedding_norm",
    ),
    "codec.out_proj": ("a.gen.wav.tfm.out_proj", "codec.decoder.out_proj", "codec.out_proj", "codec.decoder.lin"),
}

UNUSED = (
    "rope_freqs",  # which pairs are rotated, as factors
    "lfm.lm_head",  # tied to the text embeddings
    "lm_head",
    "codec.encoder",  # waveform to codes, which no graph does
    "codec.decoder.istft.window",
    "codec.istft.window",
)
"""Beginnings of names that no graph needs."""

OMNI = ("model.codebook_embedding.", "model.depth_decoder.", "model.vision_tower.")
"""Beginnings of names that only LFM3-Omni has."""

CODEC_FOLDERS = ("audio_tokenizer", "audio_detokenizer", "codec", "liquid_codec")
"""Where the codec may lie beside the model, as a model.safetensors of its own; its names are read as `codec.` names."""

CODEC_PREFIX = "codec."


def our_name(stored: str) -> str | None:
    """Our name of a stored tensor; None where nothing matches."""
    for pattern, ours in _PATTERNS:
        found = pattern.fullmatch(stored)
        if found:
            return ours.format(*found.groups(""))
    return None


def is_unused(stored: str) -> bool:
    """Whether no graph needs a tensor of this name."""
    return stored.startswith(UNUSED)


def _pattern(name: str, ends: str = r"(\.(?:weight|bias))?") -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(r"\{\}", r"(\d+)") + ends)


def _patterns() -> list[tuple[re.Pattern[str], str]]:
    places = [(f"{ours}.{part}", f"{place}.{name}") for ours, stacks in STACKS.items() for place in stacks
              for part, names in LAYER.items() for name in names]  # fmt: skip
    places += [(ours, name) for ours, names in SINGLE.items() for name in names]
    return [(_pattern(name), ours + "{}") for ours, name in places]


_PATTERNS = _patterns()
