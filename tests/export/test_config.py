"""Backbone configs as they were and are published: old and new field names mean the same model."""

import json
import shutil

import pytest

from tests.checkpoints import model_config
from tests.places import PEBBLE_CHECKPOINT
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.manifest import Taught
from voxrill.runtime.errors import CheckpointError


@pytest.fixture
def lfm_config(exporter):
    from voxrill.export.lfm import LfmConfig

    return LfmConfig


@pytest.fixture
def published():
    return model_config("lfm2", "full")["lfm"]


def test_the_published_sizes(lfm_config, published):
    read = lfm_config.read(published)
    assert (read.hidden, read.inner, read.head_dim, read.kv_heads) == (2048, 8192, 64, 8)
    assert [i for i, kind in enumerate(read.layer_types) if kind != "conv"] == [2, 5, 8, 10, 12, 14]


def test_older_configs_number_the_attention_layers(lfm_config, published):
    older = {**published, "full_attn_idxs": [2, 5, 8, 10, 12, 14]}
    del older["layer_types"]
    assert lfm_config.read(older) == lfm_config.read(published)


def test_newer_configs_keep_the_rotary_base_elsewhere(lfm_config, published):
    newer = {**published, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}}
    del newer["rope_theta"]
    assert lfm_config.read(newer).theta == 5e5


def test_the_width_may_be_given_under_either_name(lfm_config, published):
    other = {**published, "intermediate_size": published["block_ff_dim"]}
    del other["block_ff_dim"]
    assert lfm_config.read(other).inner == 8192
    plain = {**other, "block_auto_adjust_ff_dim": False, "intermediate_size": 7000}
    assert lfm_config.read(plain).inner == 7000


@pytest.fixture
def family(exporter, tmp_path):
    """`family(**changes)`: what the exporter makes of Pebble's config.json with other values."""
    from voxrill.export.checkpoint import open_checkpoint

    def changed(**changes):
        folder = shutil.copytree(PEBBLE_CHECKPOINT, tmp_path / "checkpoint")
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))
        return exporter.detect_family(open_checkpoint(folder))

    return changed


def test_a_checkpoint_says_what_it_was_taught(family):
    assert family().taught == open_builtin().manifest.taught != Taught()


def test_published_checkpoints_were_taught_nothing_more(family):
    assert family(voxrill={}).taught == Taught()


def test_a_published_model_writes_without_a_system_prompt(family):
    """As Liquid's own command line asks it."""
    assert family(voxrill={}).tasks.write.system == ""


def test_a_model_that_was_taught_a_prompt_writes_with_it(family):
    assert family().tasks.write.system == open_builtin().manifest.tasks.write.system != ""


@pytest.mark.parametrize("bad", [{"colour": "red"}, {"turns": -1}, {"labels": {"intent": "lights"}}, 3])
def test_what_it_was_taught_must_make_sense(family, bad):
    with pytest.raises(CheckpointError, match=r"config.json has a bad value in voxrill .* labels, refusal, turns"):
        family(voxrill=bad)
