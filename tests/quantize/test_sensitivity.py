"""Sensitivity: what it measures grows with what is taken away, and the recipe it writes does what the table says."""

import itertools
import json
import re
import tomllib

import numpy as np
import pytest
import soundfile

from tests import signals
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.errors import UsageError

pytest.importorskip("onnx", reason="quantizing needs onnx: pip install 'voxrill[quantize]'")

from voxrill.quantize import sensitivity
from voxrill.quantize.bundle import quantize_bundle
from voxrill.quantize.choose import BitsChosen, as_toml, choose, path, steps_of
from voxrill.quantize.groups import Inventory, WeightGroup, stored_size, take_inventory
from voxrill.quantize.recipe import KvCache, Recipe, Rule, read_recipe
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
    found = measure(bundle, one_each, SOUNDS, tmp_path, block=32, threads=1, bits=(2, 4, 8))
    assert {one.group.graph for one in found} == set(bundle.manifest.graphs)
    assert all(one.costs[4] > 0 and one.sizes[2] < one.sizes[4] < one.sizes[8] for one in found)
    # of random weights, by luck, one may not
    assert sum(one.costs[2] > one.costs[4] > one.costs[8] for one in found) >= len(found) - 1
    assert list(tmp_path.iterdir()) == []


def test_what_was_measured_is_not_measured_again(bundles, tmp_path, monkeypatch):
    """A run that was stopped goes on; of other sounds or blocks nothing is known."""
    bundle = open_bundle(bundles["lfm2"])
    groups = [group for group in take_inventory(bundle, "kind").groups if group.graph == "depthformer"][:2]
    sounds = [signals.speech_like(16_000, 6)]
    cost, asked = sensitivity._Trials.cost, []

    def counted(trials, group, rule):
        if len(asked) == 3:
            raise KeyboardInterrupt
        asked.append((group.pattern, rule.bits))
        return cost(trials, group, rule)

    monkeypatch.setattr(sensitivity._Trials, "cost", counted)
    with pytest.raises(KeyboardInterrupt):
        measure(bundle, groups, sounds, tmp_path, block=32, threads=1)
    del asked[:]
    told = []
    found = measure(bundle, groups, sounds, tmp_path, 32, 1, lambda what, done, total: told.append((done, total)))
    assert asked == [(groups[1].pattern, 8)] and told == [(0, 5), (4, 5), (5, 5)]
    assert found == measure(bundle, groups, sounds, tmp_path, block=32, threads=1)
    assert len(asked) == 1
    with pytest.raises(KeyboardInterrupt):
        measure(bundle, groups, sounds, tmp_path, block=64, threads=1)


def test_sizes_are_those_of_the_bundle_that_is_made(bundle, tmp_path):
    inventory = take_inventory(bundle, "weight")
    made = quantize_bundle(bundle, tmp_path / "int8", Recipe("test", (Rule(8),)))
    assert inventory.size == pytest.approx(made.manifest.size, rel=0.05)
    rules = [Rule(4, group.graph, group.pattern, 32) for group in inventory.groups]
    small = quantize_bundle(bundle, tmp_path / "int4", Recipe("test", (Rule(8), *rules)))
    saved = sum(group.size(8, 32) - group.size(4, 32) for group in inventory.groups)
    assert made.manifest.size - small.manifest.size == pytest.approx(saved, rel=0.1)


def measured(*added):
    """Groups whose 4 bits cost so much more than their 8, and save 10 bytes."""
    return [
        MeasuredGroup(WeightGroup("decoder", f"w{i}", ()), {4: cost, 8: 0.0}, {4: 10, 8: 20})
        for i, cost in enumerate(added)
    ]


def test_the_cheapest_get_4_bits_until_the_budget_is_met():
    groups, inventory = measured(8, 1, 5, 2), Inventory((), (), 100)
    assert choose(groups, inventory, 81).bits == [8, 4, 8, 4]
    assert choose(groups, inventory, 100).bits == [8, 8, 8, 8]
    with pytest.raises(UsageError, match="at least"):
        choose(groups, inventory, 59)


def test_without_a_budget_most_of_the_cost_is_avoided():
    assert choose(measured(8, 1, 5, 2), Inventory((), (), 100)).bits == [8, 4, 8, 4]


def test_the_budget_is_met_at_the_least_cost():
    """Against every combination of three groups, where no step is too coarse."""
    chance, sizes = np.random.default_rng(0), {2: 20, 3: 30, 4: 40, 8: 80}
    for _ in range(20):
        costs = [np.sort(chance.exponential(size=4))[::-1] * (10, 3, 1, 0.1) for _ in range(3)]
        groups = [
            MeasuredGroup(WeightGroup("decoder", f"w{i}", ()), dict(zip(sizes, of_group, strict=True)), sizes)
            for i, of_group in enumerate(costs)
        ]
        every = [
            (sum(sizes[bits] for bits in way), sum(g.costs[bits] for g, bits in zip(groups, way, strict=True)))
            for way in itertools.product(sizes, repeat=3)
        ]
        for choice in path(groups, Inventory((), (), 240)):
            assert choice.size == sum(sizes[bits] for bits in choice.bits)
            assert choice.cost <= min(cost for size, cost in every if size <= choice.size) + 1e-9


def test_bits_that_cost_more_a_byte_than_fewer_bits_are_left_out():
    costs, sizes = {2: 1.1, 3: 1.0, 4: 0.9, 8: 0.0}, {2: 20, 3: 30, 4: 40, 8: 80}
    group = MeasuredGroup(WeightGroup("decoder", "w", ()), costs, sizes)
    assert [(step.bits, step.saved) for step in steps_of(group)] == [(2, 60)]


@pytest.mark.slow
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
    picture = ("--plot", tmp_path / "costs.png", "-o", tmp_path / "least.toml")
    drawn = cli(*asked, "--graph", "text_head", "--budget", "1kB", *picture)
    assert drawn.status == 2 and "at least" in drawn.err
    least = re.search(r"at least ([0-9.]+MB)", drawn.err)[1]
    drawn = cli(*asked, "--graph", "text_head", "--budget", least, *picture)
    assert drawn.status == 0 and (tmp_path / "costs.png").read_bytes().startswith(b"\x89PNG")
    entries = tomllib.loads((tmp_path / "least.toml").read_text())["weights"]
    assert {entry["bits"] for entry in entries[1:]} <= {2, 3}  # "at least" is rounded up, so one may have 3


def test_what_cannot_be_measured(cli, bundles, npu_models, tmp_path):
    audio = tmp_path / "audio"
    audio.mkdir()
    soundfile.write(audio / "a.wav", SOUNDS[0], 16_000)
    asked = ("sensitivity", bundles["lfm2"], "--audio", audio)
    cli.refuses(*asked, "--graph", "dekoder", saying="dekoder")
    for words in ("0.45", "GB", "-1MB", "4 apples"):
        cli.refuses(*asked, "--budget", words, saying="0.45GB")
    cli.refuses(*asked, "--block", "48", saying="48")
    cli.refuses("sensitivity", bundles["lfm2"], "--audio", tmp_path / "none", saying="not a folder")
    with pytest.raises(UsageError, match="npu flavour"):
        measure(npu_models["lfm2"].bundle, take_inventory(npu_models["lfm2"].bundle).groups[:1], SOUNDS, tmp_path)


def test_stored_sizes(bundle):
    weight = next(w for g in take_inventory(bundle, "weight").groups for w in g.weights)
    assert stored_size(weight, 2, 32) < stored_size(weight, 3, 32) < stored_size(weight, 4, 32)
    assert stored_size(weight, 4, 32) < stored_size(weight, 8, 32) < stored_size(weight, 32, 32)


def test_the_recipe_text_is_a_recipe(tmp_path):
    (tmp_path / "r.toml").write_text(as_toml(measured(3, 1), BitsChosen([4, 8], 3.0, 0), "why", 64))
    recipe = read_recipe(str(tmp_path / "r.toml"))
    assert [recipe.rule("decoder", name).bits for name in ("w0", "w1", "w9")] == [4, 8, 8]
    assert recipe.rule("decoder", "w0").block == 64 and recipe.kv_cache == KvCache(8)
