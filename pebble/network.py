"""Pebble's network for training: the modules of the exporter in batches, and what only training needs.

In: batches of prompts and answers. Out: hidden states, text and code logits, and a state dict under the published
names. The architecture is written once: a layer that is trained here is the layer that is exported.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from codec import BOOKS, CODES
from safetensors.torch import load_file, save_file
from torch import nn
from vocabulary import WRITTEN, build_tokenizer, write_tokenizer
from world import INTENTS, REFUSAL, STYLES, WORDS

from voxrill.export.audio_encoder import AudioEncoderModule, EncoderConfig
from voxrill.export.checkpoint import DETOKENIZER_DIR
from voxrill.export.depthformer import THETA, CodebookHead, DepthformerConfig, DepthformerModule
from voxrill.export.families import TAUGHT
from voxrill.export.layers import MASKED, rotary_angles, swiglu_width
from voxrill.export.lfm import LfmConfig, LfmLayer, LfmStack, attend_all
from voxrill.runtime.atomic_write import write_text
from voxrill.runtime.bundle.atomic_folder import atomic_folder

HIDDEN = 160
ENCODER_DIM = 128
ENCODER_LAYERS = 8
HAS_BFLOAT16 = torch.cpu._is_avx512_bf16_supported()
"""Whether this processor multiplies bfloat16. Others would only emulate it."""
END_OF_AUDIO = CODES
BOOK_ROWS = CODES + 1
EXAMPLES = (
    "turn on the kitchen lights",
    "set a timer for ten minutes",
    "play some jazz in the bedroom",
    "what is two plus two",
    "set the heating to seventeen degrees",
    "close the window",
)
"""What the page offers to a user who does not know what to ask."""
TURNS = 0
"""Earlier turns that it can use. It was taught single commands. Of 20 held-out commands that were asked in one
conversation it answered 3 rightly when it remembered all turns, and 20 when it remembered none."""

CARD = """---
license: Apache-2.0
---
Pebble, Voxrill's small model of the LFM2-Audio architecture, trained from synthesised speech alone.
How it was made and what it can do: pebble/README.md of the Voxrill repository.
"""


def config() -> dict[str, Any]:
    """`config.json`: the published fields with Pebble's sizes, and what it was taught."""
    return {
        "_name_or_path": "voxrill/pebble",
        "architectures": ["Lfm2AudioForConditionalGeneration"],
        "codebooks": BOOKS,
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
            "dither": 1e-5,
            "pad_to": 0,
            "pad_value": 0.0,
        },
        "encoder": {
            "feat_in": 128,
            "feat_out": -1,
            "n_layers": ENCODER_LAYERS,
            "d_model": ENCODER_DIM,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": 32,
            "causal_downsampling": False,
            "reduction": None,
            "reduction_position": None,
            "reduction_factor": 1,
            "ff_expansion_factor": 3,
            "self_attention_model": "rel_pos",
            "n_heads": 4,
            "att_context_size": [-1, -1],
            "xscaling": False,
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
            "model_type": "lfm2",
            "hidden_size": HIDDEN,
            "layer_types": ["conv", "conv", "full_attention", "conv", "conv", "full_attention"],
            "num_hidden_layers": 6,
            "num_attention_heads": 5,
            "num_key_value_heads": 5,
            "block_ff_dim": 600,
            "block_auto_adjust_ff_dim": True,
            "block_ffn_dim_multiplier": 1.0,
            "block_multiple_of": 32,
            "conv_L_cache": 3,
            "conv_bias": False,
            "norm_eps": 1e-5,
            "rope_theta": 1_000_000.0,
            "max_position_embeddings": 128_000,
            "vocab_size": build_tokenizer().get_vocab_size(),
        },
        "depthformer": {"layers": 1, "dim": 96, "tie": True},
        TAUGHT: {
            "labels": {"intent": INTENTS, "style": STYLES},
            "refusal": REFUSAL,
            "turns": TURNS,
            "examples": list(EXAMPLES),
            "written": WRITTEN,
            "trim_silence": True,  # a recording may be mostly silence, and its length is what hearing costs
            "least_confidence": 0.8,  # on the voices and people for choices: 97 % of commands, 1.5 % of people's talk
        },
    }


class Pebble(nn.Module):
    """The checkpoint without the detokenizer, and two heads that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        sizes = config()
        lfm, encoder = sizes["lfm"], sizes["encoder"]
        self.encoder = self.encoder_of(encoder["n_layers"])
        self.lfm = LfmStack(LfmConfig.read(lfm))
        self.text = nn.Embedding(lfm["vocab_size"], HIDDEN)
        self.audio = nn.Embedding(BOOKS * BOOK_ROWS, HIDDEN)
        dim = 96
        self.depth = DepthformerModule(
            DepthformerConfig(
                layers=1,
                dim=dim,
                heads=4,
                kv_heads=2,
                inner=swiglu_width(4 * dim, 64),
                hidden=HIDDEN,
                codebooks=BOOKS,
                vocab=BOOK_ROWS,
            )
        )
        for book in self._books:
            book.to_logits.weight = book.embedding.weight
            nn.init.normal_(book.embedding.weight, std=dim**-0.5)
        self.ctc = nn.Linear(ENCODER_DIM, len(WORDS) + 2)
        self.current_word = nn.Linear(HIDDEN, len(WORDS) + 1)
        nn.init.normal_(self.text.weight, std=HIDDEN**-0.5)
        nn.init.normal_(self.audio.weight, std=0.6 * HIDDEN**-0.5)
        scale = 1 / math.sqrt(2 * len(self.lfm.layers))
        for layer in cast(list[LfmLayer], list(self.lfm.layers)):
            for linear in (
                layer.feed_forward.w2,
                layer.conv.out_proj if layer.kind == "conv" else layer.self_attn.out_proj,
            ):
                with torch.no_grad():
                    linear.weight.mul_(scale)

    @staticmethod
    def encoder_of(layers: int) -> AudioEncoderModule:
        """The encoder with so many layers."""
        sizes = config()["encoder"]
        return AudioEncoderModule(
            EncoderConfig(
                mel_bins=128,
                layers=layers,
                dim=ENCODER_DIM,
                heads=sizes["n_heads"],
                channels=sizes["subsampling_conv_channels"],
                subsampling=8,
                inner=ENCODER_DIM * sizes["ff_expansion_factor"],
                kernel=9,
                scale_input=False,
                adapter_out=HIDDEN,
            )
        )

    @property
    def _books(self) -> list[CodebookHead]:
        """The embedding and the head of each codebook."""
        return cast(list[CodebookHead], list(self.depth.depth_embeddings))

    def hear(
        self, mel: torch.Tensor, lengths: torch.Tensor, frozen: bool = False, short: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Encodings (B, T / 8, 128), embeddings (B, T / 8, HIDDEN) and lengths of mel (B, T, 128), lengths (B,).

        A frozen encoder does not learn; the adapter after it does. `short` computes in bfloat16 where the processor
        has it, in three quarters of the time.
        """
        learns = torch.is_grad_enabled() and not frozen
        with torch.set_grad_enabled(learns), torch.autocast("cpu", torch.bfloat16, enabled=short and HAS_BFLOAT16):
            encoded, out_lengths = self.encoder.conformer(mel, lengths)
        encoded = encoded.float()
        return encoded, self.encoder.audio_adapter(encoded), out_lengths

    def embed_frames(self, codes: torch.Tensor) -> torch.Tensor:
        """Embeddings (..., HIDDEN) of codes (..., BOOKS)."""
        summed: torch.Tensor = self.audio(codes + torch.arange(BOOKS) * BOOK_ROWS).sum(-2)
        return summed

    def think(self, embeddings: torch.Tensor) -> torch.Tensor:
        """Hidden states (B, S, HIDDEN) of whole, right-padded sequences (B, S, HIDDEN)."""
        batch, length, _ = embeddings.shape
        stack = self.lfm.config
        past = []
        for kind in stack.layer_types:
            if kind == "conv":
                past.append(torch.zeros(batch, HIDDEN, stack.conv_cache))
            else:
                past += [torch.zeros(batch, stack.kv_heads, 0, stack.head_dim)] * 2
        bias = torch.full((length, length), MASKED).triu(1)
        rotary = self.lfm.config.rotary(torch.arange(length).float())
        hidden: torch.Tensor = self.lfm(embeddings, rotary, attend_all(bias, lambda x: x), past, lambda x: x)[0]
        return hidden

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Logits (..., vocabulary)."""
        return F.linear(hidden, self.text.weight)

    def code_logits(self, hidden: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """Logits (N, BOOKS, BOOK_ROWS) of hidden (N, HIDDEN), each codebook given the true codes before it."""
        depth, books = self.depth, self._books
        inputs = depth.depth_linear(hidden).reshape(len(hidden), BOOKS, 1, -1)
        rotary = rotary_angles(torch.arange(BOOKS).float(), depth.config.head_dim, THETA)
        caches: list[list[torch.Tensor]] = [[] for _ in depth.depthformer.layers]
        logits = []
        for step, book in enumerate(books):
            x = inputs[:, step]
            if step:
                x = x + books[step - 1].embedding(codes[:, step - 1])[:, None]
            logits.append(book.to_logits(depth.depthformer(x, rotary, caches, step, book.embedding_norm))[:, 0])
        return torch.stack(logits, 1)

    def published_state(self) -> dict[str, torch.Tensor]:
        """The weights under the published names."""
        state = {f"lfm.{key}": value for key, value in self.lfm.state_dict().items()}
        state["lfm.embed_tokens.weight"] = self.text.weight
        state |= self.encoder.state_dict() | self.depth.state_dict()
        state["audio_embedding.embedding.weight"] = self.audio.weight
        return {key: value.detach().clone() for key, value in state.items()}

    def begin_from(self, checkpoint: Path) -> None:
        """Take what fits of the weights of a smaller, older checkpoint; the rest begins as it is.

        Layers beyond the checkpoint's leave their input as it is, so that the encoder begins as the older one. Words
        are found by the checkpoint's own tokenizer.
        """
        published = load_file(checkpoint / "model.safetensors")
        older = json.loads((checkpoint / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
        rows = published.pop("lfm.embed_tokens.weight").float()
        for word, number in build_tokenizer().get_vocab().items():
            if word in older:
                self.text.weight.data[number] = rows[older[word]]
        self.audio.weight.data.copy_(published.pop("audio_embedding.embedding.weight"))
        for module, prefix in ((self.lfm, "lfm."), (self.encoder, ""), (self.depth, "")):
            taken = {name: published.pop(prefix + name) for name in module.state_dict() if prefix + name in published}
            module.load_state_dict(taken, strict=False)
        assert not published, f"not taken: {sorted(published)}"
        self._pass_through(json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["encoder"]["n_layers"])

    def _pass_through(self, taught: int) -> None:
        """Make the encoder's layers from number `taught` on leave their input as it is."""
        layers: list[Any] = list(self.encoder.conformer.layers)
        if taught == len(layers):
            return
        # Every layer ends in a norm. Its scale and shift move to the last layer, and a norm without them leaves the
        # normalised output of another as it is.
        layers[-1].norm_out.load_state_dict(layers[taught - 1].norm_out.state_dict())
        for layer in layers[taught - 1 : -1]:
            nn.init.ones_(layer.norm_out.weight)
            nn.init.zeros_(layer.norm_out.bias)
        for layer in layers[taught:]:
            for branch in (
                layer.feed_forward1.linear2,
                layer.self_attn.linear_out,
                layer.conv.pointwise_conv2,
                layer.feed_forward2.linear2,
            ):
                for parameter in branch.parameters():
                    nn.init.zeros_(parameter)


def write_checkpoint(
    model: Pebble, detokenizer: nn.Module, detokenizer_config: dict[str, object], target: Path
) -> None:
    """Write the published layout in float16 (counters stay integers), whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(target) as made:
        _write_json(made / "config.json", config())
        _write_json(made / "generation_config.json", {"do_sample": False})
        write_text(made / "README.md", CARD)
        save_file(_halved(model.published_state()), made / "model.safetensors")
        codec = made / DETOKENIZER_DIR
        codec.mkdir()
        _write_json(codec / "config.json", detokenizer_config)
        save_file(_halved(detokenizer.state_dict()), codec / "model.safetensors")
        write_tokenizer(made)


def _write_json(path: Path, content: dict[str, object]) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")


def _halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key: value.half() if value.is_floating_point() else value for key, value in state.items()}
