"""Sounds for the end-of-turn model's front end, and what pipecat-ai computes for them.

`tests/data/turn_log_mel.npz` holds every 25th frame, from pipecat-ai 1.14. To make it anew:
`.venv-clients/pipecat/bin/python tests/turn_sounds.py`.
"""

import importlib.util
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
GOLDEN = HERE / "data" / "turn_log_mel.npz"
CLIENTS = HERE.parent / ".venv-clients" / "pipecat" / "lib"
EVERY = 25


def sounds():
    """Sounds that are shorter than 8 s, as long, and longer: a gliding tone that comes and goes, in noise."""
    for name, seconds in (("short", 1.3), ("whole", 8.0), ("long", 9.7)):
        time = np.arange(round(seconds * 16_000)) / 16_000
        noise = np.random.Generator(np.random.PCG64(1)).random(len(time)) - 0.5
        glide = np.sin(2 * np.pi * (200 + 300 * time) * time) * np.maximum(0, np.sin(2 * np.pi * 1.7 * time))
        yield name, (0.2 * glide + 0.01 * noise).astype(np.float32)


def packaged_log_mel():
    """The packaged front end, loaded by itself: it needs numpy only."""
    file = next(CLIENTS.glob("*/site-packages/pipecat/audio/turn/smart_turn/_whisper_features.py"), None)
    if file is None:
        return None
    spec = importlib.util.spec_from_file_location("whisper_features", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def log_mel(sound):
        last = sound[-128_000:]
        return module.compute_whisper_log_mel_features(np.pad(last, (128_000 - len(last), 0)))

    return log_mel


if __name__ == "__main__":
    theirs = packaged_log_mel()
    np.savez_compressed(GOLDEN, **{name: theirs(sound)[:, ::EVERY] for name, sound in sounds()})
