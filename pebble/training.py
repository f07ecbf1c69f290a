"""A training run that can stop and continue at any moment: model, optimiser, step and learning curve in one file."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from voxrill.runtime.atomic_write import atomic_write

WARM_UP = 60
SAVE_SECONDS = 60.0
LOG_STEPS = 50
KEPT = 0.996
"""Share of the mean of the weights that each step keeps: it is the mean of about 250 steps."""


def cosine(progress: float, floor: float = 0.05) -> float:
    """Learning-rate factor that falls from 1 to `floor` as `progress` goes from 0 to 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress))) * (1 - floor) + floor


def mix(state: dict[str, torch.Tensor], other: Mapping[str, torch.Tensor], share: float) -> None:
    """Move a state towards another of the same network, in place. Counters become the other's."""
    for name, value in state.items():
        if value.is_floating_point():
            value.lerp_(other[name], share)
        else:
            value.copy_(other[name])


class Run:
    """One run, kept in `path`.

    Args:
        path: the file. If it exists, the run continues from it.
        model: the model to train.
        rate: peak learning rate.
        betas: AdamW's.
        averaged: keep the mean of the last weights too, `mean`.

    mean: the model's state, averaged over about the last `1 / (1 - KEPT)` steps; empty if it is not `averaged`.
    """

    def __init__(
        self,
        path: Path,
        model: nn.Module,
        rate: float,
        betas: tuple[float, float] = (0.9, 0.98),
        averaged: bool = False,
    ) -> None:
        self.path, self.model, self.rate = path, model, rate
        self.mean: dict[str, torch.Tensor] = {}
        self.optimizer = torch.optim.AdamW(model.parameters(), rate, betas, weight_decay=0.01)
        self.step = 0
        self.seconds = 0.0
        self.curve: list[dict[str, float]] = []
        self.resumed = path.is_file()
        if self.resumed:
            kept = torch.load(path, weights_only=False)
            model.load_state_dict(kept["model"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.step, self.seconds, self.curve = kept["step"], kept["seconds"], kept["curve"]
            self.mean = kept.get("mean", {})
        if averaged and not self.mean:
            self.mean = {name: value.clone() for name, value in model.state_dict().items()}
        self._sums: dict[str, list[float]] = defaultdict(list)
        self._last = self._saved = time.monotonic()

    def update(self, loss: torch.Tensor, factor: float, shown: Mapping[str, torch.Tensor | float]) -> None:
        """One optimiser step at `factor` of the peak rate; `shown` goes into the learning curve."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * factor * min(1.0, (self.step + 1) / WARM_UP)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.mean:
            mix(self.mean, self.model.state_dict(), 1 - KEPT)
        self.step += 1
        now = time.monotonic()
        self.seconds += now - self._last
        self._last = now
        for name, value in shown.items():
            self._sums[name].append(float(value.detach() if isinstance(value, torch.Tensor) else value))
        if self.step % LOG_STEPS == 0:
            self._log()
        if now - self._saved > SAVE_SECONDS:
            self.save()

    def _log(self) -> None:
        means = {name: sum(values) / len(values) for name, values in self._sums.items()}
        self._sums.clear()
        self.curve.append({"step": self.step, "seconds": round(self.seconds, 1), **means})
        shown = " ".join(f"{name} {value:.3f}" for name, value in means.items())
        print(f"step {self.step} after {self.seconds:.0f} s: {shown}", flush=True)

    def save(self) -> None:
        """Write the whole run to its file, or nothing."""
        kept = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "curve": self.curve,
            "mean": self.mean,
        }
        with atomic_write(self.path) as part:
            torch.save(kept, part)
        self._saved = time.monotonic()
