"""Make `lfm3/backbones.npz` anew: what transformers 5.24 computes with small random LFM3 backbones of several shapes.

In: nothing. Out: for each shape its config as JSON, its weights (float16, exact), a sequence of token ids longer than
the window, and the logits and hidden states of all positions. `make golden` runs this in an environment of its own,
because Voxrill's exporter needs an older transformers.
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import Lfm3Config, Lfm3ForCausalLM

LENGTH, VOCAB = 45, 61
CONV, FULL, SLIDING = "conv", "full_attention", "sliding_attention"

SHAPES = {
    "published-like": {
        "layer_types": [CONV, CONV, FULL, CONV, SLIDING, CONV, FULL, CONV, SLIDING],
        "sliding_window": 8,
    },
    "wide-heads": {
        "hidden_size": 40,
        "num_attention_heads": 6,
        "num_key_value_heads": 3,
        "head_dim": 16,
        "layer_types": [SLIDING, CONV, FULL, SLIDING],
        "sliding_window": 16,
    },
    "other-ropes": {
        "layer_types": [FULL, SLIDING, CONV],
        "sliding_window": 5,
        "conv_L_cache": 4,
        "rope_parameters": {
            FULL: {"rope_type": "proportional", "rope_theta": 50_000.0, "partial_rotary_factor": 0.25},
            SLIDING: {"rope_type": "default", "rope_theta": 500.0},
        },
    },
    "bare": {
        "layer_types": [CONV, FULL, SLIDING],
        "sliding_window": 100,
        "use_sandwich_norm": False,
        "use_attention_gate": False,
    },
}


def make(seed: int, changes: dict) -> dict[str, np.ndarray]:
    """One random backbone and what it computes."""
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    sizes |= {"head_dim": 8, "conv_L_cache": 7, "vocab_size": VOCAB} | changes
    sizes["num_hidden_layers"] = len(sizes["layer_types"])
    special = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = Lfm3Config(**sizes, **special)
    model = Lfm3ForCausalLM(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            spread = 0.2 if weight.ndim == 1 else 1.5 / weight[0].numel() ** 0.5
            weight.copy_((torch.randn(weight.shape) * spread + float(weight.ndim == 1)).half().float())
    ids = torch.randint(3, VOCAB, (LENGTH,))
    with torch.no_grad():
        out = model(ids[None], output_hidden_states=True)
    kept = {f"weights/{name}": w.detach().half().numpy() for name, w in model.named_parameters()}
    stated = {key: getattr(config, key) for key in (*sizes, "norm_eps", "rope_parameters", "max_position_embeddings")}
    return kept | {
        "config": np.array(json.dumps(stated)),
        "ids": ids.numpy(),
        "logits": out.logits[0].numpy(),
        "hidden": out.hidden_states[-1][0].numpy(),
    }


def main() -> None:
    found = {}
    for seed, (name, changes) in enumerate(SHAPES.items()):
        found |= {f"{name}/{key}": value for key, value in make(seed, changes).items()}
    np.savez_compressed(Path(__file__).parent / "lfm3" / "backbones.npz", **found)


if __name__ == "__main__":
    main()
