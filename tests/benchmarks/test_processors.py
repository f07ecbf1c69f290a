"""The table of processors in docs/performance.md: what stands in it, and that it is made of the files of today."""

import json

import pytest

from benchmarks import processors
from benchmarks.report import BASELINE


def sample(contender, stage, args, wall):
    return {
        "contender": contender,
        "threads": 2,
        "stage": stage,
        "args": args,
        "wall": wall,
        "amount": [1.0] * len(wall),
    }


@pytest.fixture
def results(tmp_path):
    """A run's results, made up."""
    step, prefill = {"context": 200, "head": True}, {"positions": 100}
    samples = {
        "decode": [
            sample("read bandwidth", "decode", step, [1e-10]),
            sample("voxrill int4", "decode", step, [0.02, 0.03, 0.04]),
            sample("voxrill mixed", "decode", step, [0.02]),
            sample(BASELINE, "decode", step, [0.06]),
        ],
        "prefill": [sample("voxrill int4", "prefill", prefill, [0.5])],
    }
    groups = {
        name: {"samples": found, "loads": [], "started": "2026-11-28 23:00:00", "load_average": [0.1, 0.5]}
        for name, found in samples.items()
    }
    machine = {"cores": 2, "flags": ["avx2"], "packages": {"onnxruntime": "1.32.0"}, "pages": "pages of 4 kB"}
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"machine": machine, "groups": groups}), encoding="utf-8")
    return path


def test_a_processor_s_file_holds_medians(results, tmp_path):
    path = processors.add(results, "AMD EPYC (Zen 5)", tmp_path / "processors")
    assert path.name == "amd-epyc-zen-5.json"
    figures = json.loads(path.read_text(encoding="utf-8"))["figures"]
    assert figures["step at 200, with text head"] == {"voxrill int4": 30.0, BASELINE: 60.0}
    assert figures["prefill of 100"] == {"voxrill int4": 500.0}


def test_processors_stand_side_by_side(results, tmp_path):
    folder = tmp_path / "processors"
    for name in ("Two", "One"):
        processors.add(results, name, folder)
    slower = json.loads((folder / "two.json").read_text(encoding="utf-8"))
    slower["figures"]["step at 200, with text head"]["voxrill int4"] = 120.0
    del slower["figures"]["prefill of 100"]
    (folder / "two.json").write_text(json.dumps(slower), encoding="utf-8")
    lines = processors.rendered(processors.processors(folder)).splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    assert rows[0] == ["ms", "", "One", "Two"]
    assert rows[2] == ["step at 200, with text head", "voxrill int4", "30.0 (2.00x)", "120 (0.50x)"]
    assert rows[3] == ["", BASELINE, "60.0", "60.0"]
    assert rows[4] == ["prefill of 100", "voxrill int4", "500", "–"]
    assert lines[-1].startswith("| Two | 2 threads of 2 cores (avx2), onnxruntime 1.32.0; the memory gives")
    assert lines[-1].endswith("pages of 4 kB; 2026-11-28, load up to 0.5 |")


def test_the_page_has_the_table_of_the_files():
    text = processors.PAGE.read_text(encoding="utf-8")
    assert text.count(processors.BEGIN) == text.count(processors.END) == 1
    assert processors.fill(text, processors.processors()) == text
