"""What the two codecs' streaming transformers share: positions, window mask and a KV state of fixed size.

A window of W positions needs the last W - 1 keys. They are always all passed; `offset` says how many positions came
before, so that slots not yet written are masked. That keeps every state shape a number, for any flavour.

In the npu flavour positions count from the first new one, and kept keys are turned back by as many as a call brings: an
NPU computes angles in float16, which fails at the positions of a sound's first seconds already.
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
    key = offset - (window - 1) + torch.arange(window - 1 + length)
    distance = query[:, None] - key[None, :]
    seen = (key >= 0)[None, :] & (distance >= 0) & (distance < window)
    return query.float(), score_bias(seen)


def keep_last(count: int, whole: torch.Tensor, dim: int) -> torch.Tensor:
    """The last `count` entries of `whole` along `dim`."""
    return whole.narrow(dim, whole.shape[dim] - count, count)
