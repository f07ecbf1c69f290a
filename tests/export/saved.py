"""Checkpoints, adapters and conversions as others save them, written by hand.

The renaming of a conversion is written from the other side here, published to theirs, as the conversion goes.
"""

import json
import shutil
from pathlib import Path

from tests.checkpoints import MODEL_FILE

THEIRS = {
    "audio_embedding.embedding.": "audio_embedding.",
    ".pre_encode.conv.": ".subsampling.layers.",
    ".pre_encode.out.": ".subsampling.linear.",
    ".linear_q.": ".q_proj.",
    ".linear_k.": ".k_proj.",
    ".linear_v.": ".v_proj.",
    ".linear_out.": ".o_proj.",
    ".linear_pos.": ".relative_k_proj.",
    ".pos_bias_": ".bias_",
    ".batch_norm.": ".norm.",
    "audio_adapter.model.0.": "audio_adapter_norm.",
    "audio_adapter.model.1.": "audio_adapter_linear_1.",
    "audio_adapter.model.3.": "audio_adapter_linear_2.",
    ".operator.out_proj.": ".operator.o_proj.",
    ".bounded_attention.q_layernorm.": ".q_norm.",
    ".bounded_attention.k_layernorm.": ".k_norm.",
}
DROPPED = ("codebook_offsets", "audio_loss_weights", "audio_embedding.embedding_norm.weight")
DROPPED += ("audio_embedding.to_logits.weight",)
DEPTH_DIM, DEPTH_KV = 128, 32
ENCODER = {
    "model_type": "parakeet_encoder",
    "num_mel_bins": 128,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "subsampling_factor": 8,
    "subsampling_conv_channels": 16,
    "conv_kernel_size": 9,
    "scale_input": True,
}
FEATURES = {
    "feature_size": 128,
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 512,
    "win_length": 400,
    "preemphasis": 0.97,
    "padding_value": 0.0,
}


def their_name(name: str) -> str:
    for published, theirs in THEIRS.items():
        name = name.replace(published, theirs)
    return f"model.{name}"


def converted(tensors):
    """The tensors of a checkpoint as the conversion saves them: renamed, unpacked, tied ones once."""
    made = {}
    for name, values in tensors.items():
        if name in DROPPED or ".to_logits." in name:
            continue
        if ".qkv_proj." in name:
            parts = values.split((DEPTH_DIM, DEPTH_KV, DEPTH_KV))
            names = (their_name(name).replace("qkv_proj", part) for part in ("q_proj", "k_proj", "v_proj"))
            made |= {part: rows.contiguous() for part, rows in zip(names, parts, strict=True)}
        else:
            made[their_name(name)] = values
    return made


def write_json(path: Path, content) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def stored_tensors(folder: Path) -> dict[str, object]:
    from safetensors.torch import load_file

    return load_file(folder / MODEL_FILE)


def write_tensors(file: Path, tensors: dict[str, object]) -> Path:
    from safetensors.torch import save_file

    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, file)
    return file


def write_adapter(folder: Path, tensors: dict[str, object], **config: object) -> Path:
    """An adapter as peft lays it out: tensors by the names of modules, as in the base."""
    write_tensors(folder / "adapter_model.safetensors", {f"base_model.model.{k}": v for k, v in tensors.items()})
    settings = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "modules_to_save": None} | config
    (folder / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def factors(module: str, rank: int = 2, width: int = 64) -> dict[str, object]:
    import torch

    torch.manual_seed(0)
    return {
        f"{module}.lora_A.weight": torch.randn(rank, width) / 8,
        f"{module}.lora_B.weight": torch.randn(width, rank) / 8,
    }


def write_conversion(published: Path, folder: Path) -> Path:
    """The conversion of a published checkpoint; its codec has the same names."""
    shutil.copytree(published, folder)
    write_tensors(folder / MODEL_FILE, converted(stored_tensors(published)))
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["preprocessor"]
    depthformer = config["depthformer"] | {"num_attention_heads": 32, "num_key_value_heads": 8, "norm_eps": 1e-5}
    config |= {"model_type": "lfm2_audio", "encoder": dict(ENCODER), "depthformer": depthformer}
    write_json(folder / "config.json", config)
    write_json(folder / "processor_config.json", {"feature_extractor": FEATURES, "processor_class": "P"})
    return folder
