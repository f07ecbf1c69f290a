"""What a start, an installation and a long conversation take: the benchmarks run, on Pebble."""

import pytest

from benchmarks import start_up
from tests.places import PEBBLE
from voxrill.runtime.bundle.bundle import open_bundle


def test_packages_are_counted_once_with_what_they_need():
    found = start_up.installed("typer")
    assert {"typer", "rich"} <= set(found) and all(size > 0 for size in found.values())
    assert list(found.values()) == sorted(found.values(), reverse=True)
    assert start_up.installed("no-such-package") == {}


def test_parts_of_a_start():
    found = start_up.start("pebble", 1)
    assert [*found][:1] == ["Python"] and [*found][-3:] == ["load", "first answer", "second answer"]
    assert all(taken >= 0 for taken in found.values())


def test_both_caches_are_timed(tmp_path):
    pytest.importorskip("onnx", reason="the int8 decoder is made with onnx: pip install 'voxrill[quantize]'")
    from benchmarks import kv_cache

    bundle = open_bundle(PEBBLE)
    graphs = kv_cache.make_graphs(bundle, tmp_path, 1)
    row = kv_cache.measure(graphs, bundle.manifest.model.backbone.hidden_size, 300, prefill=True)
    assert 3 < row["float32"]["state_bytes"] / row["int8"]["state_bytes"] < 4  # the conv state is the same
    assert all(row[kind][name] > 0 for kind in graphs for name in ("step_ms", "prefill_ms"))
