"""What torchaudio makes of short noise at other sample rates: tests/golden/resampled.npz.

Run it with torch and torchaudio (the environment of README.md has them), from the repository root.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import torchaudio

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.signals import noise

RATES = (8_000, 11_025, 12_345, 22_050, 24_000, 32_000, 44_099, 44_100, 48_000, 96_000)
TO = 16_000


def main() -> None:
    """Write the values, an array for each rate."""
    made = {}
    for rate in RATES:
        sound = torch.from_numpy(noise(rate // 20 + 7, rate))[None]
        made[str(rate)] = torchaudio.functional.resample(sound, rate, TO)[0].numpy()
    np.savez_compressed(Path(__file__).with_name("resampled.npz"), version=torchaudio.__version__, **made)


if __name__ == "__main__":
    main()
