"""The random checkpoint maker: published keys and shapes, the same values everywhere, a working tokenizer.

In: the lists of the published layout under ``tests/data`` (key, tab, shape). Why: every other test builds on
these checkpoints, so they must look like the published ones and never drift.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests import checkpoints, signals
from tests.places import ROOT

DATA = ROOT / "tests" / "data"

# sha256 of the tiny float32 model.safetensors of seed 0, as made when the golden outputs were.
TINY_FINGERPRINTS = {
    "lfm2": "ad4c7eb34d5ed501756a47cffb4e572f10936d0812ab6fad63bd43dadca36d68",
    "lfm2.5": "c78fe641ab31ccecaa26824f84edccb114996eef45c34d1aa4c04e0ddd7b6dea",
}


def published(name: str) -> dict[str, tuple[int, ...]]:
    """Return key -> shape of a published file."""
    rows = (line.split("\t") for line in (DATA / f"published_keys_{name}.txt").read_text().splitlines())
    return {key: tuple(json.loads(shape)) for key, shape in rows}


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_full_size_plan_is_the_published_layout(family: str) -> None:
    """Keys and shapes of every file equal the published ones."""
    files = checkpoints.plan(family, "full")
    assert files.pop(checkpoints.MODEL_FILE) == published("lfm2")
    last = {
        "lfm2": (checkpoints.MIMI_FILE, "mimi"),
        "lfm2.5": (checkpoints.DETOKENIZER_FILE, "lfm2.5_detokenizer"),
    }
    name, keys = last[family]
    assert files.pop(name) == published(keys)
    assert not files


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_tiny_is_deterministic(tmp_path: Path, family: str) -> None:
    """Equal seeds give equal files, other seeds others; the values are those of the golden outputs."""
    made = [checkpoints.make_checkpoint(tmp_path / str(i), family, seed=seed) for i, seed in enumerate((0, 0, 1))]
    for name in checkpoints.plan(family, "tiny"):
        first, again, other = (checkpoints.fingerprint(path / name) for path in made)
        assert first == again != other
    for name in ("tokenizer.json", "config.json"):
        assert (made[0] / name).read_bytes() == (made[1] / name).read_bytes()
    assert checkpoints.fingerprint(made[0] / checkpoints.MODEL_FILE) == TINY_FINGERPRINTS[family]


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_tiny_loads_as_safetensors(tmp_path: Path, family: str) -> None:
    """The safetensors library reads the files; tied copies are equal; norms are not all ones."""
    from safetensors.numpy import load_file

    path = checkpoints.make_checkpoint(tmp_path, family)
    for name, keys in checkpoints.plan(family, "tiny").items():
        tensors = load_file(path / name)
        assert {key: tensor.shape for key, tensor in tensors.items()} == keys
        assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    tensors = load_file(path / checkpoints.MODEL_FILE)
    for i in range(8):
        at = f"depth_embeddings.{i}"
        assert np.array_equal(tensors[f"{at}.to_logits.weight"], tensors[f"{at}.embedding.weight"])
    assert tensors["codebook_offsets"].tolist() == [2049 * i for i in range(8)]
    assert np.ptp(tensors["lfm.embedding_norm.weight"]) > 0.1
    assert tensors["lfm.embed_tokens.weight"].std() == pytest.approx(2 / 8, rel=0.05)


def test_bfloat16_rounds_to_nearest_even() -> None:
    """The hand-made rounding agrees with the definition on ties and in between."""
    bits = np.array([0x3F800000, 0x3F808000, 0x3F818000, 0x3F808001, 0xBF807FFF], dtype=np.uint32)
    data = checkpoints._to_bytes(bits.view(np.float32), "bfloat16")
    assert np.frombuffer(data, "<u2").tolist() == [0x3F80, 0x3F80, 0x3F82, 0x3F81, 0xBF80]


def test_bfloat16_checkpoint_is_half_the_size(tmp_path: Path) -> None:
    """A bfloat16 checkpoint has the same tensors in half the bytes, but Mimi stays float32."""
    wide = checkpoints.make_checkpoint(tmp_path / "f", "lfm2")
    narrow = checkpoints.make_checkpoint(tmp_path / "b", "lfm2", dtype="bfloat16")
    sizes = [(path / checkpoints.MODEL_FILE).stat().st_size for path in (wide, narrow)]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    assert (wide / checkpoints.MIMI_FILE).read_bytes() == (narrow / checkpoints.MIMI_FILE).read_bytes()


@pytest.mark.parametrize("family", checkpoints.FAMILIES)
def test_tokenizer_round_trip(tmp_path: Path, family: str) -> None:
    """Special tokens have the published ids, and text survives encoding and decoding."""
    from tokenizers import Tokenizer

    path = checkpoints.make_checkpoint(tmp_path, family)
    tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
    assert tokenizer.get_vocab_size() == 640
    for index, text in checkpoints.SPECIAL_TOKENS.items():
        assert tokenizer.token_to_id(text) == index
    samples = ("Perform ASR.", "Naïve café — 東京, 12345!\n\tthe end  of  the thing.", " leading", "a\n\nb")
    for text in samples:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text
        assert all(256 <= i < 520 for i in ids)
    ids = tokenizer.encode("<|im_start|>user\nHi<|im_end|>\n", add_special_tokens=False).ids
    assert ids[0] == 6 and ids[-2] == 7
    assert tokenizer.encode("Hi").ids[0] == 1  # the published tokenizer adds startoftext unless told not to
    assert len(tokenizer.encode("the", add_special_tokens=False).ids) == 2  # a merge was used


def test_unknown_names_are_refused(tmp_path: Path) -> None:
    """A wrong family, size or dtype is an error, not a surprise."""
    wrong = (("lfm3", "tiny", 0, "float32"), ("lfm2", "huge", 0, "float32"), ("lfm2", "tiny", 0, "float16"))
    for arguments in wrong:
        with pytest.raises(ValueError, match="must be one of"):
            checkpoints.make_checkpoint(tmp_path, *arguments)


def test_signals_are_reproducible() -> None:
    """Waveforms are float32, bounded, seed-dependent, and a longer one starts like a shorter one."""
    wave = signals.speech_like(16_000, seed=3)
    assert wave.dtype == np.float32 and wave.shape == (16_000,)
    assert 0.02 < np.sqrt(np.mean(wave**2)) < 0.3 and np.abs(wave).max() < 1
    assert np.allclose(signals.speech_like(4_000, seed=3), wave[:4_000], atol=1e-7)
    assert not np.allclose(signals.speech_like(16_000, seed=4), wave, atol=1e-3)
    assert signals.integers(3, 0).tolist() == [3235998486, 2299186573, 3012074890]
    codes = signals.codes(5, 1)
    assert codes.shape == (8, 5) and codes.min() >= 0 and codes.max() < 2048
