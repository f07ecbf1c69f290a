"""A random checkpoint of LFM3-Audio in the published sizes, for measuring.

In: a folder. Out: a checkpoint in the hub's layout, with a codec in its main file. The values are the same on every
machine, as those of `tests/checkpoints.py` are. What would end an answer early is never drawn, so that answers are as
long as a measurement wants. Running it:

    python -m tests.export.lfm3_true_size OUT_DIR
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from tests.checkpoints import MODEL_FILE, Entry, Piece, write_safetensors
from voxrill.export.decoder import TextHeadModule
from voxrill.export.lfm import CONV
from voxrill.export.lfm3.codec_decoder import CodecConfig, CodecDecoderModule
from voxrill.export.lfm3.decoder import FULL, SLIDING, BackboneConfig, Lfm3DecoderModule
from voxrill.export.lfm3.depth_decoder import DepthConfig, DepthDecoderModule
from voxrill.export.lfm3.encoder import Lfm3EncoderConfig, Lfm3EncoderModule
from voxrill.export.lfm3.modules import CODE_TABLE, TEXT_TABLE
from voxrill.export.lfm3.sizes import FSQ_LEVELS, Lfm3Sizes
from voxrill.export.lfm3.stack import StackConfig
from voxrill.export.lfm3.tensors import DEPTH_TABLE

VOCAB, FIRST_BYTE = 128_000, 256
NEVER_DRAWN = ("<|im_end|>", "<|text_end|>", "<|audio_start|>", "<|endoftext|>")
MARKS = (
    "<|pad|>",
    "<|startoftext|>",
    "<|im_start|>",
    "<|audio|>",
    "<|audio_out|>",
    "<|mixed_start|>",
    "<|mixed_end|>",
    "<tool_call>",
    "</tool_call>",
    *NEVER_DRAWN,
)
"""The marks that a tokenizer of the family has; their ids are ours."""

PUBLISHED = {
    # ours: a name that an export knows, where it does not know ours
    "codec.quantizer_out.": "codec.quantizer.out_proj.",
    "head_norm.": "depth_embeddings.embedding_norm.",
}

SLIDES = {4, 8, 12, 16, 20}


def published_sizes() -> Lfm3Sizes:
    """The sizes of LFM3-Audio-2B. The codec's layers, which nobody has seen, are LFM2.5's."""
    backbone = tuple(SLIDING if n in SLIDES else FULL if n % 4 == 2 else CONV for n in range(24))
    heard = tuple(FULL if kind == "A" else CONV for kind in "ccAccAccAccAccAAA")
    sound = tuple(FULL if kind == "A" else CONV for kind in "ccAcAcAc")
    return Lfm3Sizes(
        backbone=BackboneConfig(
            StackConfig(2048, 7680, backbone, 16, 4, 128, kernel=7, sandwich=True, gated=True),
            VOCAB, window=256, full_theta=1e6, sliding_theta=1e4, turned=0.5, max_positions=128_000,
        ),
        encoder=Lfm3EncoderConfig(
            StackConfig(768, 1792, heard, 8, 4, 96, kernel=3, sandwich=False, gated=False),
            mels=128, channels=256, window=32, theta=1e6, adapter=2048, hidden=2048,
        ),
        depth=DepthConfig(
            StackConfig(1024, 2816, (FULL,) * 3, 32, 8, 32, kernel=1, sandwich=True, gated=True),
            hidden=2048, codebooks=12, codes=2017, passes=(4, 4, 4), theta=1e6,
        ),
        codec=CodecConfig(
            StackConfig(512, 2304, sound, 16, 8, 32, kernel=3, sandwich=False, gated=False),
            codebooks=12, codes=math.prod(FSQ_LEVELS), levels=len(FSQ_LEVELS), inner=256, window=30, theta=1e6,
            features=1282,
        ),
    )  # fmt: skip


def shapes(sizes: Lfm3Sizes) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor's name and shape: our names, most of which an export knows."""
    with torch.device("meta"):
        parts: list[tuple[str, nn.Module]] = [
            ("", Lfm3EncoderModule(sizes.encoder)),
            ("", Lfm3DecoderModule(sizes.backbone)),
            ("", DepthDecoderModule(sizes.depth)),
            ("codec.", CodecDecoderModule(sizes.codec)),
        ]
        head = TextHeadModule(sizes.backbone.vocab, sizes.backbone.stack.hidden)
    for prefix, module in parts:
        for key, value in module.state_dict().items():
            # The heads are the embeddings again, and the codec's table is computed.
            if not key.startswith(("heads.", "table.", "depth_embeddings.")):
                name = prefix + key.replace(".stack.", ".")
                ours = next((ours for ours in PUBLISHED if name.startswith(ours)), "")
                yield PUBLISHED.get(ours, "") + name.removeprefix(ours), tuple(value.shape)
    yield TEXT_TABLE, tuple(head.weight.shape)
    depth = sizes.depth
    yield CODE_TABLE, (depth.codebooks * depth.codes, depth.hidden)
    for book in range(depth.codebooks):
        yield DEPTH_TABLE.replace(".", f".{book}.embedding."), (depth.codes, depth.stack.hidden)


def entry(name: str, shape: tuple[int, ...]) -> Entry:
    """How a tensor's values are spread: products keep the size of what goes in."""
    rows = shape[0]
    if name == "codec.out_proj.bias":  # loudness, then phase
        return Entry(name, shape, (Piece(0, rows // 2, -3.0, 0.5), Piece(rows // 2, rows, 0.0, 3.0)))
    if len(shape) == 1:
        return Entry(name, shape, (Piece(0, rows, 0.0 if name.endswith(".bias") else 1.0, 0.1),))
    spread = math.sqrt(3.0 / math.prod(shape[1:])) * (0.3 if name == "codec.out_proj.weight" else 1.0)
    pieces = [Piece(0, rows, 0.0, spread)]
    quiet = [vocabulary()[mark] for mark in NEVER_DRAWN] if name == TEXT_TABLE else []
    quiet += [rows - 1] if name.startswith("depth_embeddings.") else []  # the code that ends the sound
    pieces += [Piece(row, row + 1, 0.0, 0.01 * spread) for row in quiet]
    return Entry(name, shape, tuple(pieces))


def vocabulary() -> dict[str, int]:
    """Token to id: marks, bytes from 256 on, and names for the rest."""
    from tokenizers.pre_tokenizers import ByteLevel

    names = dict(enumerate(MARKS)) | {FIRST_BYTE + n: token for n, token in enumerate(sorted(ByteLevel.alphabet()))}
    return {names.get(n, f"<|reserved_{n}|>"): n for n in range(VOCAB)}


def write_tokenizer(folder: Path) -> None:
    """A byte-level tokenizer with the marks."""
    from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE

    made = Tokenizer(BPE(vocabulary(), []))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in MARKS])
    made.save(str(folder / "tokenizer.json"))


def write(folder: Path) -> Path:
    """Write the checkpoint."""
    sizes = published_sizes()
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(folder)
    config = {
        "model_type": "lfm3_audio",
        "architectures": ["Lfm3AudioForConditionalGeneration"],
        "codebooks": sizes.depth.codebooks,
        "maskgit_steps": len(sizes.depth.passes),
        "lfm": {"layer_types": sizes.backbone.stack.kinds, "sliding_window": sizes.backbone.window},
    }
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    write_safetensors(folder / MODEL_FILE, [entry(*one) for one in shapes(sizes)], "lfm3", "bfloat16")
    return folder


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    write(parser.parse_args().folder)


if __name__ == "__main__":
    main()
