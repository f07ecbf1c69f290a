"""The benchmark's own logic, on the built-in model and on made-up figures. Nothing asserts how long a thing took."""

import json
import shutil
import sys
import threading
from pathlib import Path

import pytest

pytest.importorskip("psutil", reason="the dev extra is not installed")

from benchmarks import contenders, first_sound, groups, llama, products, protocol, run, worker
from benchmarks.plot import plot
from benchmarks.report import ReportGroup, ratio, table, tables
from tests.places import ROOT
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.bundle.contract import InterleaveSpec
from voxrill.runtime.bundle.tuned import tuned_folder

PEBBLE = ROOT / "src" / "voxrill" / "pebble" / "bundle"


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A quick run of three groups with the built-in model, and what it printed."""
    work = tmp_path_factory.mktemp("bench")
    words = ["--work", str(work), "--quick", "--threads", "1", "--only", "load,decode,speech"]
    run.main([*words, "--bundle", f"pebble={PEBBLE}", "--llama", str(work / "nowhere")])
    return work


@pytest.fixture
def results(measured):
    return json.loads((measured / "results-lfm2.5.json").read_text(encoding="utf-8"))


def samples(record, contender):
    return {sample["stage"]: sample for sample in record["samples"] if sample["contender"] == contender}


def test_quick_run_writes_raw_samples_and_a_plot(measured, results):
    speech = samples(results["groups"]["speech"], "voxrill pebble")
    assert set(speech) == {"frame", "codec", "encoder", "first_audio", "first_text", "spoken_step"}
    for sample in speech.values():
        assert len(sample["wall"]) == len(sample["cpu"]) == len(sample["amount"]) == 1
        assert sample["wall"][0] > 0
    assert (measured / "results-lfm2.5.png").read_bytes().startswith(b"\x89PNG")
    assert results["machine"]["cores"] >= 1
    assert results["contenders"]["voxrill pebble"]["bytes"] > 6_000_000


def test_bandwidth_is_measured_beside_the_step(results):
    decode = ReportGroup(results["groups"]["decode"], 1)
    assert decode.bandwidth() > 0
    assert decode.contenders == ["voxrill pebble"]


def test_products_read_the_bytes_of_their_format(monkeypatch):
    monkeypatch.setattr(products, "WIDTHS", (256, 512, 256))
    chains = products.Products(1)
    sizes = {(bits, block): chains.product(bits, block)() for bits, block in groups.FORMATS}
    weights, columns = 2 * 256 * 512, 256 + 512
    assert sizes.pop((8, 0)) == weights + 4 * columns
    for (bits, block), size in sizes.items():
        packed, scales = weights * bits // 8, 4 * weights // block
        assert packed + scales < size <= packed + scales + weights // block  # a zero point is a byte at most
    assert sizes[2, 128] < sizes[4, 256] < sizes[4, 128] < sizes[4, 32]


def test_what_is_missing_is_said(results):
    printed = tables(results)
    assert "llama.cpp Q4_0, all of load; all of decode: there is no" in printed
    assert "onnxruntime-genai int4, all of load; all of decode: not measured: give --genai PYTHON" in printed
    assert "this model's answer ended before enough was measured" in printed


def test_a_second_run_keeps_other_groups(measured):
    kept = measured / "kept.json"
    kept.write_text((measured / "results-lfm2.5.json").read_text(encoding="utf-8"), encoding="utf-8")
    words = ["--work", str(measured), "--out", str(kept), "--quick", "--threads", "1"]
    run.main([*words, "--only", "prefill", "--bundle", f"pebble={PEBBLE}"])
    assert set(json.loads(kept.read_text(encoding="utf-8"))["groups"]) == {"load", "decode", "speech", "prefill"}


def test_two_runs_at_once_keep_each_other_s_figures(tmp_path):
    path = tmp_path / "results.json"
    one, other = (run.BenchResults(path, {"quick": True}) for _ in range(2))
    for results, group in ((one, groups.GROUPS[0]), (other, groups.GROUPS[1])):
        results.begin(group)
        results.contenders[group.name] = {}
        results.save()
    one.save()
    kept = json.loads(path.read_text(encoding="utf-8"))
    wanted = {group.name for group in groups.GROUPS[:2]}
    assert set(kept["groups"]) == set(kept["contenders"]) == wanted
    assert list(tmp_path.iterdir()) == [path]


def test_only_one_run_at_a_time_makes_a_contender(tmp_path):
    order = []

    def wait_and_note():
        with contenders.locked(tmp_path):
            order.append("second")

    with contenders.locked(tmp_path):
        second = threading.Thread(target=wait_and_note)
        second.start()
        second.join(0.2)
        order.append("first")
    second.join()
    assert order == ["first", "second"]


def made_up(contender, stage, args, wall, amount=1.0):
    return {
        "stage": stage,
        "args": args,
        "contender": contender,
        "threads": 2,
        "wall": wall,
        "cpu": [2 * w for w in wall],
        "amount": [amount] * len(wall),
        "peak": 2_000_000_000,
    }


@pytest.fixture
def content():
    """Figures of two contenders, made up."""
    step, plain = ({"context": 200, "head": head} for head in (True, False))
    decode = [
        made_up("read bandwidth", "decode", step, [0.1, 0.1], 2e9),
        made_up("read bandwidth, small pages", "decode", step, [0.2, 0.2], 2e9),
        made_up("voxrill int4", "decode", step, [0.05, 0.04, 0.06]),
        made_up("voxrill int4", "decode", plain, [0.04]),
        made_up("llama.cpp Q4_0", "decode", step, [0.1, 0.08]),
    ]
    speech = [
        made_up("voxrill int4", "frame", {}, [0.03]),
        made_up("voxrill int4", "codec", {}, [0.01]),
        made_up("voxrill int4", "speech", {"seconds": 4.0}, [0.96, 1.92], 0.96),
    ]
    record = {"about": "about", "loads": [], "skipped": []}
    return {
        "format": run.FORMAT,
        "machine": {
            "processor": "a processor",
            "flags": ["avx2"],
            "cores": 2,
            "memory_gb": 8,
            "system": "Linux",
            "python": "3.11",
            "packages": {},
        },
        "settings": {"family": "lfm2.5", "threads": [2], "quick": False},
        "contenders": {
            "voxrill int4": {"bytes": 7e8, "read_per_step": {"step_with_head": 6e8}},
            "llama.cpp Q4_0": {"bytes": 7e8, "read_per_step": {"step_with_head": 7e8}},
        },
        "groups": {"decode": {**record, "samples": decode}, "speech": {**record, "samples": speech}},
    }


def cells(text, start):
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_decode_table_gives_medians_share_and_ratio(content):
    printed = tables(content)
    assert "the memory gives 20.0 GB/s from huge pages, 10.0 GB/s from small ones" in printed
    ours = cells(printed, "voxrill int4")
    assert ours == ["voxrill int4", "0.60", "50.0 (100)", "40.0 (80.0)", "60 %", "1.80x"]
    assert cells(printed, "llama.cpp Q4_0")[2:] == ["90.0 (180)", "–", "39 %", "1.00x"]


def test_speech_is_given_per_second_of_sound(content):
    printed = tables(content)
    assert cells(printed, "interleaved speech")[1] == "1.50 (3.00)"
    assert "| voxrill int4 | 40.0 |  30.0 |  10.0 |                     1.00 |            2.00 |" in printed


def test_plot_of_few_figures(content, tmp_path):
    plot(content, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_table_is_aligned_and_a_ratio_needs_both():
    assert table("t", ["", "ms"], [["a", "1.00"]]).splitlines()[2:] == ["|   |   ms |", "|---|-----:|", "| a | 1.00 |"]
    assert ratio(None, 1.0) == ratio(1.0, None) == "–"


class Counting(protocol.Contender):
    """Its stage counts its calls."""

    def count(self, by):
        self.calls = 0

        def call():
            self.calls += by
            return float(self.calls)

        return call


def test_a_stage_is_prepared_once_and_called_often():
    answer = protocol.measure(Counting(), "count", {"by": 2}, 3)
    assert answer["amount"] == [2.0, 4.0, 6.0]
    assert len(answer["wall"]) == len(answer["cpu"]) == 3
    with pytest.raises(protocol.Unsupported, match="has no decode"):
        protocol.measure(Counting(), "decode", {}, 1)


def test_rounds_go_on_for_their_time_and_warm_up_is_thrown_away(monkeypatch):
    asked = []

    class Fake:
        contender = worker.MeasuredContender("fake", ())

        def ask(self, stage, args, count):
            asked.append(count)
            return {"wall": [1.0] * count, "cpu": [1.0] * count, "amount": [1.0] * count, "memory": {"peak": 5}}

    monkeypatch.setattr(run, "SETTLE_SECONDS", 0)
    stage = groups.BenchStage("frame", calls=4, seconds=0.0, rounds=2)
    (record,) = run.measure(stage, [Fake()], 1, [])
    assert asked == [1, 4, 4]
    assert len(record["wall"]) == 8
    assert record["peak"] == 5


def test_a_contender_that_dies_says_what_it_said(tmp_path):
    code = "import sys; sys.exit('no such file: weights')"
    dying = worker.MeasuredContender("dying", (sys.executable, "-c", code))
    with pytest.raises(worker.Failed, match="no such file: weights"):
        worker.BenchWorker(dying, 1, tmp_path / "log")


def test_a_contender_too_large_for_the_machine_is_not_started(tmp_path):
    large = worker.MeasuredContender("large", (sys.executable, "-c", ""), memory_gb=1e6)
    with pytest.raises(worker.Failed, match=r"needs about 1000000\.0 GB of memory"):
        worker.BenchWorker(large, 1, tmp_path / "log")


def test_groups_choose_their_contenders(tmp_path):
    names = contenders.Workshop(tmp_path, "lfm2.5", ("float32", "int4", *contenders.VARIANTS)).names()
    by_name = {group.name: group.contenders(names) for group in groups.GROUPS}
    assert by_name["decode"][:4] == [
        "read bandwidth",
        "read bandwidth, small pages",
        "voxrill float32",
        "voxrill int4",
    ]
    for group in ("load", "prefill", "speech"):
        assert {"voxrill int4-fast-prefill", "voxrill int4-tuned"} < set(by_name[group])
    assert by_name["growth"] == ["voxrill int4", "llama.cpp Q4_0"]
    assert by_name["reference-bfloat16"] == ["voxrill int4", "voxrill int4-fast-prefill", "torch bfloat16"]
    with pytest.raises(SystemExit, match="there is no group sppech; there are: load"):
        run.chosen_groups(["sppech"])


def test_what_cannot_be_made_names_its_log(tmp_path):
    shop = contenders.Workshop(tmp_path, "lfm2.5", ("float32", "int1"))
    (tmp_path / "bundle-lfm2.5").mkdir()
    (tmp_path / "bundle-lfm2.5" / "manifest.json").write_text("{}")
    for _ in range(2):  # the second time from memory
        with pytest.raises(worker.Failed, match="the int1 bundle could not be made"):
            shop.contender("voxrill int1")


def test_every_shipped_recipe_is_measured():
    from voxrill.quantize.recipe import shipped_recipes

    precisions = run.arguments([]).precisions
    assert precisions == ("float32", *shipped_recipes(), "int4-fast-prefill", "int4-tuned")


@pytest.fixture(scope="module")
def variants(bundles, tmp_path_factory):
    """A quick run with two forms of the tiny model, made on the way; its folder."""
    work = tmp_path_factory.mktemp("variants")
    monkeypatch = pytest.MonkeyPatch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    (work / "bundle-lfm2").symlink_to(bundles["lfm2"])
    words = ["--work", str(work), "--family", "lfm2", "--quick", "--threads", "1", "--only", "load,speech"]
    run.main([*words, "--precisions", "int8-fast-prefill,int8-tuned"])
    yield work
    monkeypatch.undo()


def test_forms_of_a_bundle_are_made_and_measured(variants):
    content = json.loads((variants / "results-lfm2.json").read_text(encoding="utf-8"))
    fast, tuned = (content["contenders"][f"voxrill int8-{form}"] for form in ("fast-prefill", "tuned"))
    assert fast["precision"]["decoder_prefill"] == "int8" and fast["tuned"] == []
    assert "decoder_prefill" not in tuned["precision"] and "decoder" in tuned["tuned"]
    for name in ("voxrill int8-fast-prefill", "voxrill int8-tuned"):
        assert {load["contender"] for load in content["groups"]["load"]["loads"]} >= {name}
        assert {"frame", "codec", "encoder", "first_audio"} <= set(samples(content["groups"]["speech"], name))
    plain, linked = variants / "bundle-lfm2-int8", variants / "bundle-lfm2-int8-tuned"
    assert (plain / "decoder.onnx").samefile(linked / "decoder.onnx")
    assert not tuned_folder(plain).exists() and tuned_folder(linked).is_dir()


def test_what_making_took_is_kept(variants):
    content = json.loads((variants / "results-lfm2.json").read_text(encoding="utf-8"))
    assert set(content["made"]) == {"the int8-fast-prefill bundle", "the int8 bundle", "the int8-tuned form"}
    for took in content["made"].values():
        assert took["wall"] > 0 and took["cpu"] > 0 and took["peak"] > 50_000_000
    content["made"]["the int8 bundle"] = {"wall": 264.0, "cpu": 300.0, "peak": 11.5e9}
    assert cells(tables(content), "the int8 bundle") == ["the int8 bundle", "264 (300)", "11.50"]
    again = contenders.Workshop(variants, "lfm2", ("int8-tuned",))
    again.contender("voxrill int8-tuned")
    assert again.made == {}


def test_a_tuned_form_that_is_not_used_is_not_measured(variants, tmp_path):
    bundle = Path(shutil.copytree(variants / "bundle-lfm2-int8-tuned", tmp_path / "bundle"))
    shutil.copytree(tuned_folder(variants / "bundle-lfm2-int8-tuned"), tuned_folder(bundle))
    path = tuned_folder(bundle) / "tuned.json"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"key": found["key"] | {"onnxruntime": "0.1"}}))
    stale = contenders.Workshop(tmp_path, "lfm2", (), {"stale": bundle}).contender("voxrill stale")
    with pytest.raises(worker.Failed, match=r"made for another onnxruntime.*voxrill tune"):
        worker.BenchWorker(stale, 1, tmp_path / "log")


def test_gguf_names_and_weights_of_a_checkpoint(tmp_path):
    from tests.checkpoints import make_checkpoint, model_config

    checkpoint = make_checkpoint(tmp_path, "lfm2.5", dtype="bfloat16")
    weights = dict(llama.backbone_weights(checkpoint / "model.safetensors"))
    names = {llama.gguf_name(key) for key in weights}
    assert {"token_embd.weight", "token_embd_norm.weight", "blk.0.shortconv.conv.weight"} <= names
    assert {"blk.2.attn_q_norm.weight", "blk.4.ffn_down.weight", "blk.1.attn_norm.weight"} <= names
    assert weights["lfm.layers.0.conv.conv.weight"].shape == (64, 1, 3)
    assert abs(weights["lfm.embedding_norm.weight"] - 1).max() < 0.11
    assert llama.feed_forward_size(model_config("lfm2.5", "full")["lfm"]) == 8192


def test_make_bench_is_there():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-m benchmarks.run" in makefile


def test_the_first_sound_is_compared_by_the_same_work(monkeypatch, tmp_path, capsys):
    figures = {"endpoint": 0.46, "begun": 0.08, "work": 0.5, "left": 0.12, "rate": 1.1}
    group = {"questions": "short", "question_seconds": 1.0, "positions": 20}
    group["figures"] = {name: {"median": value} for name, value in figures.items()}
    (tmp_path / "talk.json").write_text(json.dumps({"endpoint": 0.5, "groups": [group]}))
    words = ["first_sound", tmp_path / "talk.json", "--bundle", PEBBLE, "--work", tmp_path, "-o", tmp_path / "out.json"]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    first_sound.main()
    shown = capsys.readouterr()
    (found,) = json.loads((tmp_path / "out.json").read_text())["talks"][0]["groups"]
    assert set(found["compared"]) == {first_sound.OURS} and first_sound.OURS in shown.out
    assert "torch float32 is left out: not measured" in shown.err


def test_the_work_before_the_first_sound():
    pattern = InterleaveSpec(text=6, audio=12)
    ours = {"encoder": [1.0], "prefill": [2.0], "step_with_head": [0.3], "step": [0.2], "frame": [0.1], "codec": [0.05]}
    samples = {first_sound.OURS: ours, "llama.cpp Q4_0": {"prefill": [4.0], "step_with_head": [0.5], "step": [0.4]}}
    own, other = first_sound.rows(samples).values()
    assert list(first_sound.rows(samples)) == [first_sound.OURS, "llama.cpp Q4_0 (estimate)"]
    assert own.work(pattern) == pytest.approx(1 + 2 + 5 * 0.3 + 0.2 + 0.1 + 0.05)
    assert other.work(pattern) == pytest.approx(1 + 4 + 5 * 0.5 + 0.4 + 0.1 + 0.05)
    assert own.rate(pattern, 0.08) == pytest.approx((6 * 0.3 + 12 * 0.35) / 0.96)


@pytest.mark.parametrize(("begun", "left"), [(0.08, 4.47), (0.46, 4.85), (0.6, 4.85)])
def test_speculation_hides_what_is_done_before_the_endpoint(begun, left):
    manifest = open_bundle(PEBBLE).manifest
    stages = first_sound.FirstSoundStages(1.0, 2.0, 0.3, 0.2, 0.1, 0.05)
    group = {"figures": {"endpoint": {"median": 0.46}, "begun": {"median": begun}}}
    found = first_sound.delays(stages, group, manifest)
    assert found["left_without_speculation"] == pytest.approx(4.85)
    assert found["left_with_speculation"] == pytest.approx(left)
