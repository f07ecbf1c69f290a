"""Which graphs an LFM3-Audio checkpoint becomes: see `export/graphs.py`, which does the same for LFM2-Audio."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.graphs import FIXED, GraphPlan, Sizes
from voxrill.export.layers import linears_to_matmuls
from voxrill.export.lfm3 import modules
from voxrill.export.lfm3.modules import CODE_TABLE as CODE_TABLE
from voxrill.export.lfm3.sizes import Lfm3Sizes
from voxrill.runtime.audio.log_mel import LogMelConfig
from voxrill.runtime.bundle import contract
from voxrill.runtime.bundle.contract import (
    AudioCodesSpec,
    BackboneSpec,
    EncoderSpec,
    InterleaveSpec,
    ModelSpec,
    StaticShapes,
    graph_specs,
)
from voxrill.runtime.errors import CheckpointError

LOG_MEL = LogMelConfig(n_fft=400, preemphasis=0.0, log_guard=1e-12, normalize="affine", offset=4.0, divisor=4.0)

_PREPROCESSOR = {
    # what config.json may state of the features, and the only value that is computed
    "sample_rate": 16_000,
    "n_fft": 400,
    "win_length": 400,
    "hop_length": 160,
    "window": "hann",
    "window_periodic": True,
    "center": False,
    "power": 2.0,
    "f_min": 0.0,
    "f_max": 8000.0,
    "mel_scale": "slaney",
    "mel_norm": "slaney",
    "log_base": 10,
    "logmel_floor": -12.0,
}


def read_model_spec(checkpoint: Checkpoint) -> ModelSpec:
    """All sizes the runtime needs, from tensor shapes and config.

    Raises:
        CheckpointError: a tensor is missing, or something does not fit; the message names it.
    """
    sizes = Lfm3Sizes.read(checkpoint.weights, checkpoint.config)
    backbone, stack, config = sizes.backbone, sizes.backbone.stack, checkpoint.config
    rows = checkpoint.weights.shape(CODE_TABLE)
    if rows != (sizes.depth.codebooks * sizes.depth.codes, stack.hidden):
        raise CheckpointError(
            f"the embeddings of spoken frames are {list(rows)}, not {sizes.depth.codebooks} x {sizes.depth.codes} rows "
            f"of {stack.hidden}",
            "Check that all weights are of one model",
        )
    return ModelSpec(
        backbone=BackboneSpec(
            hidden_size=stack.hidden,
            vocab_size=backbone.vocab,
            layer_types=stack.kinds,
            kv_heads=stack.kv_heads,
            head_dim=stack.head_dim,
            conv_cache=stack.kernel - 1,
            max_positions=backbone.max_positions,
            window=backbone.window,
        ),
        encoder=EncoderSpec(subsampling=sizes.encoder.subsampling, state=sizes.encoder.state()),
        codes=AudioCodesSpec(
            codebooks=sizes.depth.codebooks,
            vocab_size=sizes.depth.codes,
            end_of_audio=sizes.depth.codes - 1,
            any_ends=True,
        ),
        codec=sizes.codec.spec(),
        interleave=InterleaveSpec(
            text=int(config.get("interleaved_n_text", 6)), audio=int(config.get("interleaved_n_audio", 12))
        ),
        log_mel=_log_mel(checkpoint, sizes.encoder.mels),
        frame_decoder=contract.DEPTH_DECODER,
    )


def _log_mel(checkpoint: Checkpoint, mels: int) -> LogMelConfig:
    stated = checkpoint.config.get("preprocessor", {})
    for key, wanted in _PREPROCESSOR.items():
        if stated.get(key, wanted) != wanted:
            raise CheckpointError(
                f"config.json has preprocessor.{key} = {stated[key]!r}; only {wanted!r} is supported",
                "Check that this is an LFM3-Audio checkpoint: its features are of another kind",
            )
    return LogMelConfig(**{name: getattr(LOG_MEL, name) for name in LOG_MEL.__struct_fields__} | {"features": mels})


def plan_graphs(checkpoint: Checkpoint, model: ModelSpec, static: StaticShapes | None = None) -> dict[str, GraphPlan]:
    """Every graph of the bundle in pipeline order; `static` asks for the npu flavour."""
    weights, fixed = checkpoint.weights, static is not None
    sizes = Lfm3Sizes.read(weights, checkpoint.config)
    if static is not None and static.mel_frames % sizes.encoder.subsampling:
        raise CheckpointError(
            f"an encoder of pieces cannot take {static.mel_frames} frames",
            f"Give --mel-frames a multiple of {sizes.encoder.subsampling}",
        )

    def made(make: Callable[..., nn.Module], *more: bool) -> Callable[[], nn.Module]:
        return lambda: linears_to_matmuls(make(weights, sizes, *more))

    mel, frames = contract.MEL_FRAMES, contract.FRAMES
    past, new, rows = contract.PAST_SEQUENCE, contract.SEQUENCE, contract.KV_CAPACITY
    window = sizes.backbone.window
    lengths: list[Sizes] = [
        {past: 0, new: 1, rows: 1},
        {past: 0, new: 37, rows: 37},
        {past: window - 2, new: 1, rows: window - 1},
        {past: window + 3, new: 1, rows: window + 4},
        {past: window - 3, new: window + 5, rows: 2 * window + 2},
    ]
    decoder = made(modules.decoder, fixed)
    plans = {
        contract.AUDIO_ENCODER: (
            made(modules.encoder, fixed),
            {mel: 83},
            [{mel: 1}, {mel: 8}, {mel: 96}, {mel: 97}, {mel: 801}],
        ),
        contract.DECODER: (decoder, {past: 5, new: 3, rows: 13}, lengths),
        **{prefill: (decoder, {}, []) for prefill in (static.prefills if static else ())},
        contract.TEXT_HEAD: (lambda: modules.text_head(weights, sizes), {}, []),
        contract.DEPTH_DECODER: (made(modules.depth_decoder), {}, []),
        contract.CODEC_DECODER: (made(modules.codec_decoder, fixed), {frames: 3}, [{frames: n} for n in (1, 2, 13)]),
    }
    found = {}
    for name, spec in graph_specs(model, static).items():
        build, trace, tried = plans[name]
        plan = GraphPlan(spec, build, trace, tuple(tried) or FIXED, external=name == contract.TEXT_HEAD)
        found[name] = replace(plan, trace={}, tried=FIXED) if fixed else plan
    return found
