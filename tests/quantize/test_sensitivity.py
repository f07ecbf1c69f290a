"""Sensitivity: what it measures grows with what is taken away, and the recipe it writes does what the table says."""

import json
import tomllib

import numpy as np
import pytest
import soundfile

from tests import signals
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.errors import UsageError

pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from voxrill.quantize.bundle import quantize_bundle
from voxrill.quantize.choose import as_toml, choose
from voxrill.quantize.groups import Inventory, WeightGroup, stored_size, take_inventory
from voxrill.quantize.recipe import Recipe, Rule, read_recipe
from voxrill.quantize.sensitivity import MeasuredGroup, divergence, measure

SOUNDS = [signals.speech_like(16_000, 5)]


@pytest.fixture(scope="module", params=["lfm2", "lfm2.5"])
def bundle(bundles, request):
    return open_bundle(bundles[request.param])


def test_divergence():
    logits = np.random.default_rng(0).standard_normal((3, 20)).astype(np.float32)
    assert divergence(logits, logits) == 0
    assert divergence(logits, logits + 5) == pytest.approx(0, abs=1e-6)
    small, large = (divergence(logits, logits * factor) for factor in (1.1, 2.0))
    assert 0 < small < large


def test_every_graph_can_be_measured(bundle, tmp_path):
    groups = take_inventory(bundle, "kind").groups
    one_each = list({group.graph: group for group in groups}.values())
    found = measure(bundle, one_each, SOUNDS, tmp_path, block=32, threads=1)
    assert {one.group.graph for one in found} == set(bundle.manifest.graphs) - {"text_head"}
    assert [one.rank for one in found] == sorted((one.rank for one in found), reverse=True)
    assert all(one.cost4 > 0 and one.saved > 0 for one in found)
    assert sum(one.cost4 > one.cost8 for one in found) >= len(found) - 1  # of random weights, by luck, one may not
    assert list(tmp_path.iterdir()) == []


def test_sizes_are_those_of_the_bundle_that_is_made(bundle, tmp_path):
    inventory = take_inventory(bundle, "weight")
    made = quantize_bundle(bundle, tmp_path / "int8", Recipe("test", (Rule(8),)))
    assert inventory.size == pytest.approx(made.manifest.size, rel=0.05)
    rules = [Rule(4, group.graph, group.pattern, 32) for group in inventory.groups]
    small = quantize_bundle(bundle, tmp_path / "int4", Recipe("test", (Rule(8), *rules)))
    saved = sum(group.size(8, 32) - group.size(4, 32) for group in inventory.groups)
    assert made.manifest.size - small.manifest.size == pytest.approx(saved, rel=0.1)


def ranked(*added):
    groups = [MeasuredGroup(WeightGroup("decoder", f"w{i}", ()), cost, 0.0, 10) for i, cost in enumerate(added)]
    return sorted(groups, key=lambda one: one.rank, reverse=True)


def test_the_cheapest_get_4_bits_until_the_size_is_met():
    measured, inventory = ranked(8, 1, 5, 2), Inventory((), (), 100)
    chosen = [one.group.pattern for one in choose(measured, inventory, 81)]
    assert chosen == ["w1", "w3"]
    assert choose(measured, inventory, 100) == []
    with pytest.raises(UsageError, match="at least"):
        choose(measured, inventory, 59)


def test_without_a_size_most_of_the_cost_is_avoided():
    measured = ranked(8, 1, 5, 2)
    assert {one.group.pattern for one in choose(measured, Inventory((), (), 100))} == {"w1", "w3"}


def test_the_command_writes_a_recipe_that_can_be_used(cli, bundles, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    soundfile.write(audio / "a.wav", SOUNDS[0], 16_000)
    asked = (
        "sensitivity",
        bundles["lfm2"],
        "--audio",
        audio,
        "--graph",
        "depthformer",
        "--by",
        "kind",
        "--block",
        "32",
    )
    ran = cli(*asked, "-o", tmp_path / "mine.toml", "--json")
    assert ran.status == 0
    rows = json.loads(ran.out)
    four = {row["name"] for row in rows if row["bits"] == 4}
    entries = tomllib.loads((tmp_path / "mine.toml").read_text())["weights"]
    assert four and {entry.get("name") for entry in entries[1:]} == four
    made = cli("quantize", bundles["lfm2"], "-o", tmp_path / "small", "--recipe", tmp_path / "mine.toml")
    assert made.status == 0
    assert open_bundle(tmp_path / "small").manifest.graphs["depthformer"].precision in ("mixed", "int4")
    table = cli(*asked)
    assert table.status == 0 and "cost in 4 bits" in table.out


def test_what_cannot_be_measured(cli, bundles, npu_models, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    soundfile.write(audio / "a.wav", SOUNDS[0], 16_000)
    asked = ("sensitivity", bundles["lfm2"], "--audio", audio)
    cli.refuses(*asked, "--graph", "dekoder", saying="dekoder")
    cli.refuses(*asked, "--graph", "text_head", saying="can have 4 bits")
    cli.refuses(*asked, "--block", "48", saying="48")
    cli.refuses("sensitivity", bundles["lfm2"], "--audio", tmp_path / "none", saying="not a folder")
    with pytest.raises(UsageError, match="npu flavour"):
        measure(npu_models["lfm2"].bundle, take_inventory(npu_models["lfm2"].bundle).groups[:1], SOUNDS, tmp_path)


def test_stored_sizes(bundle):
    weight = next(w for g in take_inventory(bundle, "weight").groups for w in g.weights)
    assert stored_size(weight, 4, 32) < stored_size(weight, 8, 32) < stored_size(weight, 32, 32)


def test_the_recipe_text_is_a_recipe(tmp_path):
    (tmp_path / "r.toml").write_text(as_toml(ranked(3, 1), "why", 64))
    recipe = read_recipe(str(tmp_path / "r.toml"))
    assert recipe.rule("decoder", "w1").bits == 4 and recipe.rule("decoder", "w9").bits == 8
    assert recipe.rule("decoder", "w1").block == 64
