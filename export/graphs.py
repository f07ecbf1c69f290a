"""Which graphs a checkpoint becomes: for each, the module to trace and the inputs to test it with.

In: a `Checkpoint`. Out: `GraphPlan`s. Each module is built only when its turn comes, so that only one graph's weights
are in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.audio_detokenizer import AudioDetokenizerModule, DetokenizerConfig
from voxrill.export.audio_encoder import AudioEncoderModule, EncoderConfig
from voxrill.export.checkpoint import TEXT_TABLE, Checkpoint
from voxrill.export.decoder import DecoderModule, TextHeadModule
from voxrill.export.depthformer import DepthformerConfig, DepthformerModule
from voxrill.export.layers import linears_to_matmuls
from voxrill.export.lfm import LfmConfig
from voxrill.export.mimi_decoder import MimiConfig, load_mimi
from voxrill.export.tensors import Tensors
from voxrill.runtime.audio.log_mel import LogMelConfig
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.contract import (
    AudioCodesSpec,
    BackboneSpec,
    CodecSpec,
    EncoderSpec,
    GraphSpec,
    InterleaveSpec,
    ModelSpec,
    StaticShapes,
    graph_specs,
)
from voxrill.runtime.errors import CheckpointError

Sizes = dict[str, int]
EXAMPLE = "example"
"""A key of `Sizes`: the number of the example, for graphs whose shapes are all fixed."""

FIXED: tuple[Sizes, ...] = ({EXAMPLE: 0}, {EXAMPLE: 1}, {EXAMPLE: 2})
AUDIO_TABLE = "audio_embedding.embedding.weight"


@dataclass(frozen=True)
class GraphPlan:
    """One graph to export.

    trace: symbolic sizes of the example that it is traced with (never 0 or 1, and all different, because torch.export
    takes 0 and 1 for constants and equal sizes for one symbol); tried: the sizes that the check tries; external:
    weights go to a file of their own beside the graph.
    """

    spec: GraphSpec
    build: Callable[[], nn.Module]
    trace: Sizes
    tried: tuple[Sizes, ...]
    external: bool = False


def _load(module: Callable[[], nn.Module], tensors: Tensors, names: dict[str, str] | None = None) -> nn.Module:
    with torch.device("meta"):
        built = module()
    tensors.load(built, names)
    return built


def read_model_spec(checkpoint: Checkpoint) -> ModelSpec:
    """All sizes the runtime needs, from the checkpoint's config and tensor shapes.

    Raises:
        CheckpointError: a size is missing or unknown; the message names it.
    """
    lfm = LfmConfig.read(checkpoint.value("lfm"))
    depthformer = DepthformerConfig.read(checkpoint)
    encoder = EncoderConfig.read(checkpoint)
    rows = checkpoint.weights.shape(AUDIO_TABLE)[0]
    if rows != depthformer.codebooks * depthformer.vocab:
        raise CheckpointError(
            f"tensor {AUDIO_TABLE} has {rows} rows, not {depthformer.codebooks} x {depthformer.vocab}",
            "Download the checkpoint again: config.json and the weights do not belong together",
        )
    return ModelSpec(
        backbone=BackboneSpec(
            hidden_size=lfm.hidden,
            vocab_size=checkpoint.weights.shape(TEXT_TABLE)[0],
            layer_types=lfm.layer_types,
            kv_heads=lfm.kv_heads,
            head_dim=lfm.head_dim,
            conv_cache=lfm.conv_cache,
            max_positions=lfm.max_positions,
        ),
        encoder=EncoderSpec(subsampling=encoder.subsampling),
        codes=AudioCodesSpec(
            codebooks=depthformer.codebooks,
            vocab_size=depthformer.vocab,
            end_of_audio=depthformer.vocab - 1,
        ),
        codec=read_codec_spec(checkpoint),
        interleave=InterleaveSpec(
            text=int(checkpoint.value("interleaved_n_text")),
            audio=int(checkpoint.value("interleaved_n_audio")),
        ),
        log_mel=read_log_mel(checkpoint),
    )


def read_codec_spec(checkpoint: Checkpoint) -> CodecSpec:
    """The checkpoint's codec: the LFM detokenizer where there is one, else Mimi."""
    if checkpoint.has_detokenizer:
        return DetokenizerConfig.read(checkpoint).spec()
    return MimiConfig.read(checkpoint.mimi, int(checkpoint.value("codebooks"))).spec()


def read_log_mel(checkpoint: Checkpoint) -> LogMelConfig:
    """The features of `config.json`'s preprocessor. An option that we do not compute is refused by name."""
    found = checkpoint.value("preprocessor")
    for key, wanted in {
        "normalize": "per_feature",
        "window": "hann",
        "log": True,
        "frame_splicing": 1,
    }.items():
        if found.get(key, wanted) != wanted:
            raise CheckpointError(
                f"config.json has preprocessor.{key} = {found[key]!r}; only {wanted!r} is supported",
                "Check that this is an LFM2-Audio checkpoint: its features are of another kind",
            )
    keys = ("sample_rate", "n_fft", "window_size", "window_stride", "features")
    return LogMelConfig(**{key: checkpoint.value("preprocessor", key) for key in keys})


def plan_graphs(checkpoint: Checkpoint, model: ModelSpec, static: StaticShapes | None = None) -> dict[str, GraphPlan]:
    """Every graph of the bundle in pipeline order; `static` asks for the npu flavour."""
    specs = graph_specs(model, static)
    weights = checkpoint.weights
    lfm = LfmConfig.read(checkpoint.value("lfm"))
    fixed = static is not None
    depth = DepthformerConfig.read(checkpoint, fused=not fixed)

    def encoder() -> nn.Module:
        return linears_to_matmuls(_load(lambda: AudioEncoderModule(EncoderConfig.read(checkpoint)), weights))

    def decoder() -> nn.Module:
        return linears_to_matmuls(_load(lambda: DecoderModule(lfm, fixed), weights))

    def text_head() -> nn.Module:
        vocab, hidden = model.backbone.vocab_size, model.backbone.hidden_size
        return _load(lambda: TextHeadModule(vocab, hidden), weights, {"weight": TEXT_TABLE})

    def depthformer() -> nn.Module:
        return linears_to_matmuls(_load(lambda: DepthformerModule(depth), weights))

    def codec() -> nn.Module:
        if checkpoint.has_detokenizer:
            config = DetokenizerConfig.read(checkpoint)
            return linears_to_matmuls(_load(lambda: AudioDetokenizerModule(config, fixed), checkpoint.detokenizer))
        mimi = MimiConfig.read(checkpoint.mimi, model.codes.codebooks)
        return linears_to_matmuls(load_mimi(checkpoint.mimi, mimi, fixed))

    mel, frames = contract.MEL_FRAMES, contract.FRAMES
    past, new, rows = contract.PAST_SEQUENCE, contract.SEQUENCE, contract.KV_CAPACITY
    plans = {
        contract.AUDIO_ENCODER: (encoder, {mel: 83}, [{mel: 1}, {mel: 2}, {mel: 97}, {mel: 801}]),
        contract.DECODER: (
            decoder,
            {past: 5, new: 3, rows: 13},
            [
                {past: 0, new: 1, rows: 1},
                {past: 0, new: 37, rows: 37},
                {past: 1, new: 1, rows: 2},
                {past: 61, new: 1, rows: 62},
                {past: 130, new: 19, rows: 149},
            ],
        ),
        **{name: (decoder, {}, []) for name in specs if contract.is_prefill(name)},
        contract.TEXT_HEAD: (text_head, {}, []),
        contract.DEPTHFORMER: (depthformer, {}, []),
        model.codec.graph: (codec, {frames: 3}, [{frames: 1}, {frames: 2}, {frames: 13}]),
    }
    return {
        name: GraphPlan(
            spec=spec,
            build=plans[name][0],
            trace={} if static else plans[name][1],
            tried=FIXED if static or not plans[name][2] else tuple(plans[name][2]),
            external=name == contract.TEXT_HEAD,
        )
        for name, spec in specs.items()
    }
