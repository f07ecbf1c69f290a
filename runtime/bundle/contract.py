"""The graph contract: every graph, every input and output, its dtype and shape, written once.

In: the sizes of one model (`ModelSpec`). Out: a `GraphSpec` per graph. The exporter traces to these names and
shapes, the loader refuses a graph that departs from them, and the manifest carries the `ModelSpec` between the two.

State tensors use the names of onnxruntime-genai and of LiquidAI's own ONNX files: `past_conv.N` becomes
`present_conv.N`, `past_key_values.N.key` becomes `present.N.key`, with N the absolute layer index.

Symbolic sizes: S positions in this call, P positions already in the KV cache, C positions the KV cache has room for,
T log-mel frames, F audio frames. The KV cache is a buffer owned by the host with C >= P + S. With a past and its
present bound to the same memory the graph writes the S new rows in place, and copies nothing. The `npu` flavour
replaces every symbol by a number (`StaticShapes`); there `present.*` holds only the S new rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.log_mel import LogMelConfig
from voxrill.runtime.graph_names import AUDIO_DETOKENIZER as AUDIO_DETOKENIZER
from voxrill.runtime.graph_names import AUDIO_ENCODER as AUDIO_ENCODER
from voxrill.runtime.graph_names import CODEC_DECODER as CODEC_DECODER
from voxrill.runtime.graph_names import DECODER as DECODER
from voxrill.runtime.graph_names import DECODER_PREFILL as DECODER_PREFILL
from voxrill.runtime.graph_names import DEPTH_DECODER as DEPTH_DECODER
from voxrill.runtime.graph_names import DEPTHFORMER as DEPTHFORMER
from voxrill.runtime.graph_names import MIMI_DECODER as MIMI_DECODER
from voxrill.runtime.graph_names import TEXT_HEAD as TEXT_HEAD

FORMAT_VERSION = 2
"""2: the KV cache is written in place; bundles of format 1 returned a longer one with every call."""
EXTERNAL_ABOVE = 64 << 20
"""Bytes of a graph's weights above which they go to a file of their own (protobuf ends at 2 GB)."""

PAST_SEQUENCE, SEQUENCE, TOTAL_SEQUENCE = "past_sequence", "sequence", "total_sequence"
KV_CAPACITY = "kv_capacity"
PAST_OVERLAP = "past_overlap"
MEL_FRAMES, EMBEDDINGS, FRAMES = "mel_frames", "embeddings", "frames"

ITEM_BYTES = {"float32": 4, "int8": 1}
"""Bytes of one number of a state tensor."""

SPECIAL_TOKENS = {
    "start": "<|startoftext|>",
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "audio_start": "<|audio_start|>",
    "text_end": "<|text_end|>",
}
"""Special tokens by their role in the templates and end conditions; ids are resolved from the tokenizer."""

Size = int | Annotated[str, msgspec.Meta(max_length=64)]

# A manifest may come from anywhere. These bounds are far beyond every model, and keep what is computed from them small.
Count = Annotated[int, msgspec.Meta(ge=1, le=1 << 12)]
Width = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]
Positions = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]
Hertz = Annotated[int, msgspec.Meta(ge=1000, le=768_000)]
FftLength = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
LayerType = Annotated[str, msgspec.Meta(pattern="^(conv|full_attention|sliding_attention)$")]
GraphName = Annotated[str, msgspec.Meta(pattern="^[a-z][a-z0-9_]{0,63}$")]
TensorName = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_.]{1,100}$")]


class TensorSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One graph input or output: its name, ONNX dtype name and shape (a string is a symbolic size)."""

    name: TensorName
    dtype: TensorName
    shape: Annotated[tuple[Size, ...], msgspec.Meta(max_length=8)]


class GraphSpec(msgspec.Struct, frozen=True):
    """One graph's ordered inputs and outputs."""

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def state(self) -> tuple[TensorSpec, ...]:
        """The inputs that carry state from one call to the next, in order."""
        return tuple(t for t in self.inputs if t.name.startswith("past_"))


def is_prefill(graph: str) -> bool:
    """Whether this graph prefills: it takes many positions in one call."""
    return graph.startswith(DECODER_PREFILL)


def is_for_npu(graph: str) -> bool:
    """Whether an NPU runs this graph.

    The graphs that sample, or are small, stay on the CPU. So does LFM2.5's codec: on two generations of Qualcomm's HTP
    its phases were wrong in float16 (docs/models/codec-precision.md).
    """
    return graph not in (TEXT_HEAD, AUDIO_DETOKENIZER, CODEC_DECODER, *FRAME_DECODERS)


class StaticShapes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The sizes of the npu flavour: nothing symbolic is left.

    mel_frames: log-mel frames the encoder takes (shorter clips are padded); prefill: positions a prefill call takes;
    context: positions of the KV cache; frames: audio frames a codec call decodes; wider_prefill: positions of further
    prefill graphs, ascending.
    """

    mel_frames: Width = 1600
    prefill: Width = 32
    context: Width = 1024
    frames: Count = 1
    wider_prefill: Annotated[tuple[Width, ...], msgspec.Meta(max_length=16)] = ()

    @property
    def prefills(self) -> dict[str, int]:
        """The prefill graphs and the positions a call of each takes, ascending."""
        wider = {f"{DECODER_PREFILL}_{width}": width for width in self.wider_prefill}
        return {DECODER_PREFILL: self.prefill, **wider}


class BackboneSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Sizes of the backbone. `layer_types` holds "conv", "full_attention" or "sliding_attention" for each layer.

    conv_cache: columns of a convolution's state; kv_cache: the type of keys and values in the KV cache. The factors of
    an int8 cache are in the graph. A bundle with a float32 cache does not write the field. window: positions that a
    sliding layer sees, itself included; its state keeps that size, in float32.
    """

    hidden_size: Width
    vocab_size: Positions
    layer_types: Annotated[tuple[LayerType, ...], msgspec.Meta(min_length=1, max_length=1 << 10)]
    kv_heads: Count
    head_dim: Count
    conv_cache: Count
    max_positions: Positions
    kv_cache: Literal["float32", "int8"] = "float32"
    window: Positions | None = None


class EncoderSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Sizes of the audio encoder: log-mel frames per embedding (8 frames of 10 ms: one embedding per 80 ms).

    state: the streaming state of an encoder that takes a sound in pieces; another one takes a sound as a whole.
    """

    subsampling: Count
    state: Annotated[tuple[TensorSpec, ...], msgspec.Meta(max_length=1 << 10)] | msgspec.UnsetType = msgspec.UNSET

    @property
    def streaming(self) -> tuple[TensorSpec, ...]:
        """The streaming state; empty where there is none."""
        return () if isinstance(self.state, msgspec.UnsetType) else self.state


class AudioCodesSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The audio vocabulary: a frame is `codebooks` codes; code `end_of_audio` ends the audio.

    any_ends: in whichever codebook it comes; otherwise in codebook 0.
    """

    codebooks: Count
    vocab_size: Width
    end_of_audio: Annotated[int, msgspec.Meta(ge=0, le=1 << 20)]
    any_ends: bool | msgspec.UnsetType = msgspec.UNSET

    def ends(self, codes: NDArray[np.int64]) -> bool:
        """Whether a frame (codebooks,) ends the audio."""
        return bool((codes if self.any_ends is True else codes[:1]).max() == self.end_of_audio)


class CodecSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The codec that turns frames into sound.

    graph: which graph decodes; sample_rate in Hz; frame_samples: samples of one frame; state: the graph's streaming
    state. n_fft and hop (samples) are 0 where the graph returns sound instead of STFT features.
    """

    graph: GraphName
    sample_rate: Hertz
    frame_samples: Width
    state: Annotated[tuple[TensorSpec, ...], msgspec.Meta(max_length=1 << 10)]
    n_fft: FftLength = 0
    hop: FftLength = 0


class InterleaveSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The interleaved pattern: `text` text tokens, then `audio` audio frames, and again."""

    text: Count
    audio: Count


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything the runtime must know of one model's architecture."""

    backbone: BackboneSpec
    encoder: EncoderSpec
    codes: AudioCodesSpec
    codec: CodecSpec
    interleave: InterleaveSpec
    log_mel: LogMelConfig
    frame_decoder: str = DEPTHFORMER


def past_names(layer: int, kind: str) -> tuple[str, ...]:
    """State input names of one backbone layer ("conv" or an attention kind)."""
    if kind == "conv":
        return (f"past_conv.{layer}",)
    return (f"past_key_values.{layer}.key", f"past_key_values.{layer}.value")


def present_name(past: str) -> str:
    """The output that replaces state input `past` in the next call."""
    return past.replace("past_key_values.", "present.").replace("past_", "present_")


def _float(name: str, *shape: Size) -> TensorSpec:
    return TensorSpec(name, "float32", shape)


def _int(name: str, *shape: Size) -> TensorSpec:
    return TensorSpec(name, "int64", shape)


def lfm_state(backbone: BackboneSpec, past: Size) -> tuple[TensorSpec, ...]:
    """State inputs of a stack of layers with `past` KV positions, in layer order."""
    specs = []
    for layer, kind in enumerate(backbone.layer_types):
        rows, dtype = past, str(backbone.kv_cache)
        if kind == "sliding_attention" and backbone.window is not None:
            rows, dtype = backbone.window - 1, "float32"
        shape: tuple[Size, ...] = (1, backbone.kv_heads, rows, backbone.head_dim)
        if kind == "conv":
            shape, dtype = (1, backbone.hidden_size, backbone.conv_cache), "float32"
        specs += [TensorSpec(name, dtype, shape) for name in past_names(layer, kind)]
    return tuple(specs)


def state_bytes(spec: GraphSpec, positions: int) -> int:
    """Bytes of a decoder's state whose KV cache has room for this many positions."""
    return sum(
        ITEM_BYTES[tensor.dtype] * math.prod(positions if size == KV_CAPACITY else int(size) for size in tensor.shape)
        for tensor in spec.state
    )


def audio_encoder(model: ModelSpec, static: StaticShapes | None = None) -> GraphSpec:
    """Log-mel in, one embedding of the backbone's width per 80 ms out.

    With a streaming state it takes a piece of a sound after `offset` embeddings: all pieces but the last have whole
    embeddings.
    """
    frames: Size = static.mel_frames if static else MEL_FRAMES
    embeddings: Size = -(-static.mel_frames // model.encoder.subsampling) if static else EMBEDDINGS
    state = model.encoder.streaming
    return GraphSpec(
        AUDIO_ENCODER,
        (
            _float("mel_spectrogram", 1, frames, model.log_mel.features),
            _int("mel_lengths", 1),
            *((_int("offset", 1), *state) if state else ()),
        ),
        (
            _float("audio_embeddings", 1, embeddings, model.backbone.hidden_size),
            _int("audio_lengths", 1),
            *(TensorSpec(present_name(t.name), t.dtype, t.shape) for t in state),
        ),
    )


def decoder(backbone: BackboneSpec, static: StaticShapes | None = None, name: str = DECODER) -> GraphSpec:
    """The backbone, prefill and step in one graph; npu: graphs that differ in S only.

    `attention_mask` [1, P+S] is 1 for every valid position; in the cpu flavour all are. Rotary positions count its
    ones, so that the npu flavour's padded KV buffer and right-padded prefill give the same numbers as exact lengths.
    """
    past: Size = KV_CAPACITY
    sequence: Size = SEQUENCE
    total: Size = TOTAL_SEQUENCE
    present: Size = KV_CAPACITY
    if static:
        past, sequence = static.context, static.prefills.get(name, 1)
        total, present = past + sequence, sequence
    state = lfm_state(backbone, past)
    present_state = lfm_state(backbone, present)
    return GraphSpec(
        name,
        (
            _float("inputs_embeds", 1, sequence, backbone.hidden_size),
            _int("attention_mask", 1, total),
            *state,
        ),
        (
            _float("hidden_states", 1, sequence, backbone.hidden_size),
            *(TensorSpec(present_name(t.name), t.dtype, t.shape) for t in present_state),
        ),
    )


def text_head(model: ModelSpec) -> GraphSpec:
    """Text logits of one position; run on text steps only."""
    backbone = model.backbone
    return GraphSpec(
        TEXT_HEAD,
        (_float("hidden_state", 1, backbone.hidden_size),),
        (_float("logits", 1, backbone.vocab_size),),
    )


def depthformer(model: ModelSpec) -> GraphSpec:
    """One audio frame: all codebooks sampled inside the graph.

    A code is the argmax of `logits / temperature + gumbel` over the `top_k` best logits: Gumbel noise makes that a
    draw from the softmax, zeros make it the argmax. `logits` [codebooks, vocab] are returned for measurement.
    """
    codes = model.codes
    return GraphSpec(
        DEPTHFORMER,
        (
            _float("hidden_state", 1, model.backbone.hidden_size),
            _float("temperature", 1),
            _int("top_k", 1),
            _float("gumbel", codes.codebooks, codes.vocab_size),
        ),
        (_int("codes", codes.codebooks), _float("logits", codes.codebooks, codes.vocab_size)),
    )


def codec(model: ModelSpec, static: StaticShapes | None = None) -> GraphSpec:
    """The codec's streaming step: F frames of codes and the state in, sound or STFT features and new state out.

    Where the cpu flavour returns STFT features, the npu flavour returns sound. STFT columns overlap, so what earlier
    columns add to the samples of this call is state there, too.
    """
    spec = model.codec
    frames: Size = static.frames if static else FRAMES
    samples: Size = static.frames * spec.frame_samples if static else "samples"
    state, sound = spec.state, _float("audio", 1, samples)
    if spec.hop and static:
        state = (*state, _float(PAST_OVERLAP, 1, spec.n_fft - spec.hop))
    elif spec.hop:
        sound = _float("stft_features", 1, "hops", spec.n_fft + 2)
    return GraphSpec(
        spec.graph,
        (_int("audio_codes", 1, model.codes.codebooks, frames), _int("offset", 1), *state),
        (sound, *(TensorSpec(present_name(t.name), t.dtype, t.shape) for t in state)),
    )


def depth_decoder(model: ModelSpec) -> GraphSpec:
    """One audio frame in a few passes, each of which draws some codebooks, in the order of `permutation`.

    Inputs and outputs as `depthformer`. `penalty` holds a factor of at least 1 for each code: a positive logit is
    divided by it, another one multiplied, before the draw. `logits` are those before penalties.
    """
    codes, spec = model.codes, depthformer(model)
    more = _int("permutation", codes.codebooks), _float("penalty", codes.codebooks, codes.vocab_size)
    return GraphSpec(DEPTH_DECODER, (*spec.inputs, *more), spec.outputs)


FRAME_DECODERS = {DEPTHFORMER: depthformer, DEPTH_DECODER: depth_decoder}
"""How a hidden state becomes a frame, by the name the manifest gives; a later family brings another entry."""


def graph_specs(model: ModelSpec, static: StaticShapes | None = None, prefill: bool = False) -> dict[str, GraphSpec]:
    """Every graph of a bundle by name, in pipeline order; KeyError for a frame decoder that is not known.

    Args:
        model: sizes.
        static: shapes of the npu flavour, None for cpu.
        prefill: whether prefill has a graph of its own in the cpu flavour too, the decoder in another precision.
    """
    specs = [audio_encoder(model, static), decoder(model.backbone, static)]
    prefills = static.prefills if static else [DECODER_PREFILL] if prefill else []
    specs += [decoder(model.backbone, static, name) for name in prefills]
    specs += [text_head(model), FRAME_DECODERS[model.frame_decoder](model), codec(model, static)]
    return {spec.name: spec for spec in specs}


def differences(spec: GraphSpec, inputs: Iterable[TensorSpec], outputs: Iterable[TensorSpec]) -> list[str]:
    """How a graph's actual inputs and outputs differ from `spec`; empty if they agree.

    Symbolic sizes match any size in `spec`, but a number in `spec` must be that number.
    """
    found = []
    for side, wanted, actual in (("input", spec.inputs, inputs), ("output", spec.outputs, outputs)):
        by_name = {t.name: t for t in actual}
        for tensor in wanted:
            have = by_name.pop(tensor.name, None)
            if have is None:
                found.append(f"{side} {tensor.name} is missing")
            elif have.dtype != tensor.dtype or not _fits(tensor.shape, have.shape):
                found.append(
                    f"{side} {tensor.name} is {have.dtype}{list(have.shape)}, not {tensor.dtype}{list(tensor.shape)}"
                )
        found += [f"{side} {name} is unknown" for name in by_name]
    return found


def _fits(wanted: tuple[Size, ...], actual: tuple[Size, ...]) -> bool:
    return len(wanted) == len(actual) and all(isinstance(w, str) or w == a for w, a in zip(wanted, actual, strict=True))
