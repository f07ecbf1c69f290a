"""The `audio_detokenizer` graph: LFM2.5-Audio's codes to STFT features, a streaming step.

Codes are embedded and averaged, repeated six times, run through a small LFM2 stack with a causal window, and mapped to
log-magnitude and phase. The inverse STFT with its overlap-add runs outside the graph, in numpy. In the npu flavour it
is a product with constant bases inside the graph. Source: the reference's LFM2AudioDetokenizer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from voxrill.export.checkpoint import Checkpoint
from voxrill.export.inverse_stft import InverseStft
from voxrill.export.layers import rotate_halves, turned_back
from voxrill.export.lfm import Keep, LfmConfig, LfmStack, attend_all
from voxrill.export.windowed import keep_last, window_geometry
from voxrill.runtime.bundle.contract import AUDIO_DETOKENIZER, BackboneSpec, CodecSpec, TensorSpec, lfm_state

SAMPLE_RATE = 24_000
REPEAT = 6
OVERLAP = 4
"""Fixed in the reference: 6 hops of n_fft / 4 = 320 samples are one frame of 80 ms at 24 kHz."""


@dataclass(frozen=True)
class DetokenizerConfig:
    """Sizes of the detokenizer."""

    lfm: LfmConfig
    window: int
    codebooks: int
    vocab: int
    features: int

    @classmethod
    def read(cls, checkpoint: Checkpoint) -> DetokenizerConfig:
        """Read `audio_detokenizer/` and its tensor shapes.

        Raises:
            CheckpointError: a field or tensor is missing.
        """
        config = checkpoint.detokenizer_config
        codebooks = int(checkpoint.value("codebooks"))
        return cls(
            lfm=LfmConfig.read(config),
            window=int(config.get("sliding_window", 30)),
            codebooks=codebooks,
            vocab=checkpoint.detokenizer.shape("emb.emb.weight")[0] // codebooks,
            features=checkpoint.detokenizer.shape("lin.weight")[0],
        )

    def spec(self) -> CodecSpec:
        """The codec's entry in the manifest."""
        backbone = BackboneSpec(
            hidden_size=self.lfm.hidden,
            vocab_size=0,
            layer_types=self.lfm.layer_types,
            kv_heads=self.lfm.kv_heads,
            head_dim=self.lfm.head_dim,
            conv_cache=self.lfm.conv_cache,
            max_positions=0,
        )
        state: tuple[TensorSpec, ...] = lfm_state(backbone, self.window - 1)
        n_fft = self.features - 2
        hop = n_fft // OVERLAP
        return CodecSpec(
            graph=AUDIO_DETOKENIZER,
            sample_rate=SAMPLE_RATE,
            frame_samples=REPEAT * hop,
            state=state,
            n_fft=n_fft,
            hop=hop,
        )


class _CodeEmbedding(nn.Module):
    def __init__(self, config: DetokenizerConfig) -> None:
        super().__init__()
        self.emb = nn.Embedding(config.codebooks * config.vocab, config.lfm.hidden)


class AudioDetokenizerModule(nn.Module):
    """Inputs and outputs as `contract.codec` lists them.

    Args:
        config: its sizes.
        fixed: build the npu flavour: it gives sound instead of STFT features, and its positions do not grow.
    """

    def __init__(self, config: DetokenizerConfig, fixed: bool = False) -> None:
        super().__init__()
        self.config = config
        self.fixed = fixed
        self.emb = _CodeEmbedding(config)
        self.lfm = LfmStack(config.lfm)
        self.lin = nn.Linear(config.lfm.hidden, config.features)
        self.inverse_stft = InverseStft(config.features - 2, OVERLAP)

    def forward(self, audio_codes: torch.Tensor, offset: torch.Tensor, *past: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """audio_codes (1, codebooks, F), offset (1,) frames decoded before, state to features and state."""
        config = self.config
        # All codebooks lie in one table, one after the other: code c of book b is row b * vocab + c.
        starts = (torch.arange(config.codebooks) * config.vocab)[:, None]
        x = self.emb.emb(audio_codes[0] + starts).mean(0)
        x = x[:, None].expand(-1, REPEAT, -1).reshape(1, x.shape[0] * REPEAT, config.lfm.hidden)
        length = x.shape[1]
        # `offset` counts frames, and the stack runs REPEAT positions for each.
        positions, bias = window_geometry(offset * REPEAT, length, config.window)

        def keep(whole: torch.Tensor) -> torch.Tensor:
            return keep_last(config.window - 1, whole, 2)

        x, present = self.lfm(
            x,
            config.lfm.rotary(torch.arange(length).float() if self.fixed else positions),
            attend_all(bias, keep, self._keep_turned(length, keep) if self.fixed else None),
            past,
            keep_conv=lambda whole: keep_last(config.lfm.conv_cache, whole, -1),
        )
        features = self.lin(x)
        if not self.fixed:
            return (features, *present)
        sound, overlap = self.inverse_stft(features, past[-1])
        return (sound, *present, overlap)

    def _keep_turned(self, length: int, keep: Keep) -> Keep:
        """Turn keys back by `length` positions, so that the next call can count its positions from 0."""
        further = turned_back(self.config.lfm.rotary(torch.tensor([float(length)])))
        return lambda whole: rotate_halves(keep(whole), *further)
