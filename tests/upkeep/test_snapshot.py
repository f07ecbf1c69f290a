"""Snapshots: a prompt from disk goes on as one that was just taken in, and nothing else is taken for one."""

import numpy as np
import pytest

from voxrill.runtime.errors import DataError, UsageError
from voxrill.runtime.upkeep import snapshot
from voxrill.runtime.upkeep.snapshot import open_snapshot, save_snapshot

SYSTEM = "Respond with interleaved text and audio. " * 8


def test_a_snapshot_goes_on_to_the_bit(model, npu_models, tmp_path):
    for loaded in (model, *npu_models.values()):
        path = tmp_path / "prompt.snapshot"
        positions = save_snapshot(loaded, SYSTEM[:160], path)
        fresh, restored = loaded.conversation(system=SYSTEM[:160]), open_snapshot(loaded, path)
        fresh.prefill_prompt()
        assert fresh.context.positions == restored.context.positions == positions
        *_, wanted = fresh.ask(text="Hi.", max_new_tokens=12, seed=1)
        *_, found = restored.ask(text="Hi.", max_new_tokens=12, seed=1)
        assert found.result.tokens == wanted.result.tokens
        assert np.array_equal(found.result.codes, wanted.result.codes)
        for name, tensor in fresh.context.content().items():
            assert np.array_equal(tensor, restored.context.content()[name])


def test_a_long_prompt_fits_a_small_cache(models, tmp_path, monkeypatch):
    from voxrill.runtime.engine import state

    monkeypatch.setattr(state, "FIRST_CAPACITY", 2)
    model = models["lfm2.5"]
    save_snapshot(model, SYSTEM, tmp_path / "prompt.snapshot")
    assert open_snapshot(model, tmp_path / "prompt.snapshot").system == SYSTEM


def test_what_is_no_snapshot_of_this_bundle_is_refused(models, tmp_path):
    one, other = models["lfm2.5"], models["lfm2"]
    path = tmp_path / "prompt.snapshot"
    with pytest.raises(DataError, match="voxrill snapshot"):
        open_snapshot(one, path)
    save_snapshot(one, None, path)
    with pytest.raises(UsageError, match="another bundle"):
        open_snapshot(other, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[:40], whole[:-4], b"x" + whole[1:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="not a snapshot"):
            open_snapshot(one, path)


def test_every_damage_to_a_snapshot_is_noticed(models, tmp_path):
    """A bit of the header, which holds the prompt and where each tensor lies, and of a tensor."""
    model, path = models["lfm2.5"], tmp_path / "prompt.snapshot"
    save_snapshot(model, SYSTEM, path)
    whole = path.read_bytes()
    for at in (*range(8, 500, 7), whole.index(b"Respond"), len(whole) - 4000, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[at] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="is not a snapshot that can be read"):
            open_snapshot(model, path)
    path.write_bytes(whole)
    assert open_snapshot(model, path).system == SYSTEM


@pytest.mark.parametrize("change", ["missing", "shape", "fewer"])
def test_a_forged_snapshot_is_refused(models, tmp_path, monkeypatch, change):
    """Its hashes are right, and its tensors are not those of its prompt."""
    model, path = models["lfm2.5"], tmp_path / "prompt.snapshot"
    write = snapshot._write

    def forge(partial, header, tensors):
        name = next(iter(tensors))
        if change == "missing":
            del header.tensors[name], tensors[name]
        else:
            tensor = tensors[name]
            tensors[name] = np.ascontiguousarray(tensor.reshape(-1) if change == "shape" else tensor[..., :-1])
            header.tensors[name].shape = tensors[name].shape
        header.sha256 = snapshot._hash(tensors.values())
        write(partial, header, tensors)

    monkeypatch.setattr(snapshot, "_write", forge)
    save_snapshot(model, SYSTEM, path)
    with pytest.raises(DataError, match="does not hold the state after its own prompt"):
        open_snapshot(model, path)


def test_a_folder_that_is_not_there_is_named(models, tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        save_snapshot(models["lfm2"], None, tmp_path / "nowhere" / "prompt.snapshot")
    assert list(tmp_path.iterdir()) == []
