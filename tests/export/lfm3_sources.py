"""The golden model of LFM3-Audio as files: a GGUF pair as llama.cpp has it, and the layout of the hub."""

import json
import re

import numpy as np

from tests.export.lfm3_golden import arrays, config, tiny

CONTROL = re.compile(r"<\|.*\|>")


def vocabulary():
    return tiny()["text"]["vocab_strings"]


def write_tokenizer(folder):
    """The tiny vocabulary as a tokenizer.json: the bytes, and special tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    tokens = vocabulary()
    made = Tokenizer(BPE({token: i for i, token in enumerate(tokens)}, []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in tokens if CONTROL.fullmatch(t)])
    made.save(str(folder / "tokenizer.json"))


RENAMED = (
    # GGUF's names in the golden weights, and one of the published candidates for each
    (r"^a\.blk\.(\d+)\.", r"encoder.lfm.layers.\1."),
    (r"^a\.gen\.code\.blk\.(\d+)\.", r"depthformer.layers.\1."),
    (r"^a\.gen\.wav\.tfm\.blk\.(\d+)\.", r"codec:decoder.layers.\1."),
    (r"^a\.conv1d\.", "encoder.downsample.conv."),
    (r"^a\.pre_encode\.out", "encoder.downsample.out"),
    (r"^a\.post_ln", "encoder.lfm.embedding_norm"),
    (r"^mm\.a\.mlp\.", "mlp.model."),
    (r"^a\.gen\.code\.proj_in", "depth_linear"),
    (r"^a\.gen\.code\.mask_embd", "mask_embedding"),
    (r"^a\.gen\.code\.output_norm", "depthformer.embedding_norm"),
    (r"^a\.gen\.code\.out_embd", "codebook_embedding"),
    (r"^a\.gen\.wav\.quant\.first\.codebook", "codec:quantizer.codebook"),
    (r"^a\.gen\.wav\.quant\.first\.out_proj", "codec:quantizer.out_proj"),
    (r"^a\.gen\.wav\.tfm\.output_norm", "codec:decoder.embedding_norm"),
    (r"^a\.gen\.wav\.tfm\.", "codec:decoder."),
    (r"\.ln1\.", ".operator_norm."),
    (r"\.ln2\.", ".ffn_norm."),
    (r"\.attn_post_norm\.", ".post_operator_norm."),
    (r"\.ffn_post_norm\.", ".post_ffn_norm."),
    (r"\.ffn_gate\.", ".feed_forward.w1."),
    (r"\.ffn_up\.", ".feed_forward.w3."),
    (r"\.ffn_down\.", ".feed_forward.w2."),
    (r"\.conv_dw\.", ".conv.conv."),
    (r"\.conv_pw1\.", ".conv.in_proj."),
    (r"\.conv_pw2\.", ".conv.out_proj."),
    (r"\.attn_(q|k)_norm\.", r".self_attn.\1_layernorm."),
    (r"\.attn_(q|k|v)\.", r".self_attn.\1_proj."),
    (r"\.attn_out\.", ".self_attn.out_proj."),
    (r"(\.attn_gate|\.self_attn\.g_proj)\.", ".self_attn.gate_proj."),
    (r"^model\.", "lfm."),
)


def published():
    """The golden weights under published candidate names; those of the codec begin with `codec:`."""
    found = {}
    for name, values in arrays().items():
        for pattern, to in RENAMED:
            name = re.sub(pattern, to, name)
        if name.endswith(".conv.conv.weight") and values.ndim == 2:
            values = values[:, None]
        found[name] = values.reshape(-1) if name.endswith(".bias") else values
    for book, table in enumerate(found.pop("a.gen.code.embd.weight")):
        found[f"depth_embeddings.{book}.embedding.weight"] = table
        found[f"depth_embeddings.{book}.embedding_norm.weight"] = found["a.gen.code.head_norm.weight"]
    found.pop("a.gen.code.head_norm.weight")
    return found


def write_hub(folder, change=lambda tensors: None, **stated):
    """The golden model in the hub's layout, with its codec in a folder. `change` changes the tensors before."""
    from safetensors.numpy import save_file

    (folder / "audio_tokenizer").mkdir(parents=True)
    tensors = {name: np.ascontiguousarray(values) for name, values in published().items()}
    change(tensors)
    save_file({n: v for n, v in tensors.items() if not n.startswith("codec:")}, folder / "model.safetensors")
    codec = {n.removeprefix("codec:"): v for n, v in tensors.items() if n.startswith("codec:")}
    save_file(codec, folder / "audio_tokenizer" / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config() | stated), encoding="utf-8")
    write_tokenizer(folder)
    return folder


def write_pair(folder, kind="F32", halves=("backbone", "mmproj"), architecture="lfm3", tokens=None, change=None):
    """The golden model as a GGUF pair, with the matrices quantised as `kind` where their rows have whole blocks."""
    import gguf

    folder.mkdir(parents=True, exist_ok=True)
    text = tiny()["text"]
    for half in halves:
        writer = gguf.GGUFWriter(folder / f"tiny-{half}.gguf", architecture if half == "backbone" else "clip")
        if half == "backbone":
            writer.add_name("tiny-lfm3-audio")
            writer.add_context_length(4096)
            writer.add_layer_norm_rms_eps(text["eps"])
            writer.add_sliding_window(text["window"])
            writer.add_sliding_window_pattern([kind == "sliding_attention" for kind in text["layer_types"]])
            writer.add_rope_freq_base(1e6)
            writer.add_float32("lfm3.rope.freq_base_swa", 1e4)
            writer.add_tokenizer_model("gpt2")
            writer.add_token_list(tokens or vocabulary())
            writer.add_token_types([3 if CONTROL.fullmatch(t) else 1 for t in tokens or vocabulary()])
            writer.add_token_merges([])
        else:
            writer.add_string("clip.gen.audio.projector_type", "lfm3a_gen")
            writer.add_uint32("clip.audio.num_mel_bins", tiny()["audio_in"]["mels"])
            writer.add_uint32("clip.audio.window_size", tiny()["audio_in"]["window"])
            writer.add_float32("clip.gen.audio.sampling.temp", 0.5)
            writer.add_int32("clip.gen.audio.sampling.top_k", 8)
        for name, values in gguf_arrays(half).items():
            name = change(name) if change else name
            wanted = gguf.GGMLQuantizationType[kind if values.ndim == 2 and values.shape[1] % 32 == 0 else "F32"]
            writer.add_tensor(name, gguf.quants.quantize(np.ascontiguousarray(values), wanted), raw_dtype=wanted)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder


TEXT_NAMES = (
    (r"^model\.layers\.(\d+)\.", r"blk.\1."),
    (r"^model\.embed_tokens", "token_embd"),
    (r"^model\.embedding_norm", "output_norm"),
    ("post_operator_norm", "post_attention_norm"),
    ("operator_norm", "attn_norm"),
    ("post_ffn_norm", "post_ffw_norm"),
    (r"feed_forward\.w1", "ffn_gate"),
    (r"feed_forward\.w3", "ffn_up"),
    (r"feed_forward\.w2", "ffn_down"),
    (r"\.conv\.", ".shortconv."),
    (r"self_attn\.o_proj", "attn_output"),
    (r"self_attn\.g_proj", "attn_gate"),
    (r"self_attn\.(q|k)_norm", r"attn_\1_norm"),
    (r"self_attn\.(q|k|v)_proj", r"attn_\1"),
)


def gguf_arrays(half):
    """The tensors of one half by GGUF's names; llama.cpp's own name for the rotation's factors among them."""
    found = {}
    for name, values in arrays().items():
        if name.startswith("model.") == (half == "backbone"):
            for pattern, to in TEXT_NAMES if half == "backbone" else ():
                name = re.sub(pattern, to, name)
            found[name] = values[:, 0] if name.endswith("shortconv.conv.weight") else values
    if half == "backbone":
        found["rope_freqs.weight"] = np.ones(8, np.float32)
    return found
