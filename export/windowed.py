"""Positions, window mask and fixed-size KV state, which the streaming transformers of both codecs use.

A window of W positions needs the last W - 1 keys. A call always gets all of them. `offset` says how many positions came
before, so that slots that are not written yet are masked. So every shape of the state is a number, in every flavour.

In the npu flavour positions count from the first new one, and each call turns kept keys back by its own length. An NPU
computes angles in float16, which is too coarse for the positions of the first seconds of a sound.
"""

from __future__ import annotations

import torch

from voxrill.export.layers import score_bias


def window_geometry(offset: torch.Tensor, length: int, window: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions and the score bias of `length` new positions after `offset` (1,) earlier ones.

    Returns:
        positions (S,) float32 and bias (S, window - 1 + S).
    """
    query = offset + torch.arange(length)
    # The W - 1 slots of the state come first; a negative position is a slot that nothing was written to yet.
    key = offset - (window - 1) + torch.arange(window - 1 + length)
    distance = query[:, None] - key[None, :]
    seen = (key >= 0)[None, :] & (distance >= 0) & (distance < window)
    return query.float(), score_bias(seen)


def keep_last(count: int, whole: torch.Tensor, dim: int) -> torch.Tensor:
    """The last `count` entries of `whole` along `dim`."""
    return whole.narrow(dim, whole.shape[dim] - count, count)
