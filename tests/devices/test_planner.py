"""The planner: verdicts that follow from the figures, and predictions compared with the benchmark's record."""

import json
import re
from dataclasses import replace

import pytest

from benchmarks.prediction import PRECISIONS, RESULTS, points
from tests.command_line import check_refusal
from tests.places import ROOT
from voxrill.devices.advice import advise, describe, holdings, plans
from voxrill.devices.known import SIZES, known_bits, known_model
from voxrill.devices.planner import TASKS, Plan, best, judge, plan
from voxrill.devices.profile import PROFILES, read_profile, shipped_profiles
from voxrill.devices.stages import (
    BYTES,
    PASSES,
    SHARE,
    Part,
    StageSeconds,
    part,
    passes_part,
    passes_rows,
    widths_of,
)
from voxrill.runtime.graph_names import DECODER, DEPTHFORMER

PEBBLE = ROOT / "src" / "voxrill" / "pebble" / "bundle"
VERDICTS = ("not on this device", "buffered", "real time")
GOALS = {"decode": 0.20, "prefill": 0.30, "encoder": 0.30}
EVIDENCED = (
    "memory_gb",
    "theoretical_gbps",
    "bandwidth_gbps",
    "core_bandwidth_gbps",
    "cores",
    "clock_ghz",
    "instruction_set",
    "int8_macs_per_cycle",
    "float_macs_per_cycle",
    "npu",
)
"""The columns of docs/deploy/devices.md."""
DISTURBED = ("speech", "int4", 2)
"""Half of its recorded samples took three times as long as the other half: another program ran."""


@pytest.fixture(scope="module")
def predicted():
    return [point for point in points(json.loads(RESULTS.read_text(encoding="utf-8"))) if not point.fitted]


@pytest.fixture
def models():
    return [known_model(name) for name in SIZES]


def pi5(**changes):
    return replace(read_profile("pi5").machine(8), **changes)


# Against the record


@pytest.mark.parametrize("stage", GOALS)
def test_predictions_keep_to_the_goals(predicted, stage):
    errors = {(p.row.label, p.precision, p.threads): p.error for p in predicted if p.row.stage == stage}
    assert len(errors) > 20
    assert {what: error for what, error in errors.items() if abs(error) > GOALS[stage]} == {}


@pytest.mark.parametrize("stage", ["first_audio", "speech"])
def test_whole_turns_are_predicted_too(predicted, stage):
    found = [p for p in predicted if p.row.stage == stage and (stage, p.precision, p.threads) != DISTURBED]
    assert len(found) >= 7
    assert max(abs(point.error) for point in found) < 0.2


def test_every_precision_and_number_of_threads_is_tested(predicted):
    tested = {(point.precision, point.threads) for point in predicted if point.row.stage == "decode"}
    assert {(name, threads) for name in PRECISIONS[:4] for threads in (1, 2)} - tested == {("float32", 1)}  # fitted on


# LFM3-Audio's frame


@pytest.fixture(scope="module")
def depth_weights():
    """How many numbers the parts of the published depth decoder have: layers, what is read once, and all."""
    torch = pytest.importorskip("torch", reason="the export extra is not installed")
    from tests.export.lfm3_true_size import published_sizes
    from voxrill.export.lfm3.depth_decoder import DepthDecoderModule

    config = published_sizes().depth
    with torch.device("meta"):
        module = DepthDecoderModule(config)
    counts = {name: weight.numel() for name, weight in module.named_parameters() if weight.ndim == 2}
    layers = {name: count for name, count in counts.items() if name.startswith("depthformer.layers.")}
    once = sum(count for name, count in counts.items() if name.startswith(("depth_linear.", "heads.")))
    return config, layers, once, sum(counts.values())


def test_a_frame_of_lfm3_reads_layers_in_each_pass_and_heads_once(depth_weights):
    config, layers, once, total = depth_weights
    inner = sum(layers.values())
    assert len(config.passes) == PASSES and config.passes[0] * PASSES == config.codebooks
    size = inner * BYTES[4] + (total - inner) * BYTES[8]
    found = passes_part(size, (4, 8)).weights
    assert found == {4: pytest.approx(3 * inner, rel=0.01), 8: pytest.approx(once, rel=0.01)}
    assert passes_part(4 * total, (32,)).weights == {32: pytest.approx(3 * inner + once, rel=0.01)}


def test_the_last_layer_of_a_pass_sees_the_codebooks_that_it_draws(depth_weights):
    config, layers, _, total = depth_weights
    last = f"depthformer.layers.{len(config.stack.kinds) - 1}."
    wanted = {name: name.startswith(last) and "k_proj" not in name and "v_proj" not in name for name in layers}
    rows = {name: (config.passes[0] if few else config.codebooks) - 1 for name, few in wanted.items()}
    more = 3 * sum(count * rows[name] for name, count in layers.items())
    assert passes_rows(4 * total, (32,)).weights == {32: pytest.approx(more, rel=0.02)}
    shape = replace(known_model("int4"), frame=passes_part(1e8, (4, 8)))
    fewer, all_rows = (
        StageSeconds(replace(shape, frame_rows=part), pi5(), 4).frame() for part in (Part({}), passes_rows(1e8, (4, 8)))
    )
    assert fewer < all_rows


# What follows from the figures


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", SIZES)
def test_more_bandwidth_is_never_worse(task, precision):
    rates = [1e9 * rate for rate in (1, 2, 5, 10, 20, 50, 100)]
    model = replace(known_model(precision), memory=0)
    found = [plan(task, model, pi5(bandwidth=rate, core_bandwidth=rate), 4) for rate in rates]
    factors = [entry.real_time_factor for entry in found]
    verdicts = [VERDICTS.index(entry.verdict) for entry in found]
    assert factors == sorted(factors, reverse=True) and factors[0] > 1.5 * factors[-1]
    assert verdicts == sorted(verdicts)


def test_a_step_is_as_slow_as_the_slower_of_reading_and_computing():
    model = known_model("int8")
    reading = StageSeconds(model, pi5(int8_macs=1e6), 4).first(model.decoder)
    assert reading == pytest.approx(model.decoder.size / (11.6e9 * SHARE))
    assert StageSeconds(model, pi5(bandwidth=1e15, core_bandwidth=1e15), 4).first(model.decoder) > 0.5 * reading
    assert StageSeconds(model, pi5(), 4).first(model.decoder) >= reading


def test_more_threads_longer_contexts_and_more_positions_tell():
    model = known_model("int4")
    one, four = (StageSeconds(model, pi5(), threads) for threads in (1, 4))
    assert 1.2 * four.step() < one.step() < 4 * four.step()
    assert four.step(4096) > four.step(200)
    assert four.prefill(500) > 4 * four.prefill(100) > 4 * four.step()
    assert four.encoder(30) > 7 * four.encoder(4)


def test_our_own_products_compute_at_the_simulated_rate():
    """Where memory is no limit, a step takes what the profile says; where it is one, only fewer bits help."""
    profile = read_profile("pi5")
    assert profile.own_products.evidence == "simulated"
    one, many = profile.own_products.value["4"]
    endless = replace(profile.machine(8), bandwidth=1e15, core_bandwidth=1e15)
    decoder = known_bits(4).decoder
    assert StageSeconds(known_bits(4), endless, 1).first(decoder) == pytest.approx(decoder.count / (2.4e9 * one))
    assert endless.rate(4, many=True) == 2.4e9 * many
    four, less = (StageSeconds(known_bits(bits), profile.machine(8), 4).step() for bits in (4, 3.3))
    assert less < 0.9 * four
    assert four < StageSeconds(known_model("int4"), profile.planned_with("onnxruntime").machine(8), 4).step()


def test_bits_between_two_widths_are_mixed():
    assert known_bits(3.3).decoder.weights[3] == pytest.approx(0.7 * known_bits(3.3).decoder.count)
    sizes = [known_bits(bits).decoder.size for bits in (2, 2.5, 3, 3.3, 4)]
    memory = [known_bits(bits).memory for bits in (2, 2.5, 3, 3.3, 4)]
    assert sizes == sorted(sizes) and memory == sorted(memory)
    assert known_bits(4).decoder.size == pytest.approx(known_model("int4").decoder.size, rel=0.01)


def test_a_second_decoder_takes_the_prompt():
    model = known_model("int4")
    fast = replace(model, prefill=known_model("int8").decoder)
    with_it, without = (StageSeconds(some, pi5(own={}), 4) for some in (fast, model))
    assert with_it.prefill(100) < without.prefill(100)
    assert with_it.step() == without.step()


@pytest.mark.parametrize("precision", SIZES)
def test_parts_keep_their_bytes_and_their_weights(precision):
    """Each recipe's graphs hold the same weights as those of int8, in the bits that the recipe gives."""
    for graph in (DECODER, DEPTHFORMER):
        size, widths = SIZES[precision][graph]
        found, whole = part(graph, size, widths), part(graph, *SIZES["int8"][graph])
        assert found.size == pytest.approx(size) and tuple(sorted(found.weights)) == widths
        assert found.count == pytest.approx(whole.count, rel=0.01) and min(found.weights.values()) > 0
        assert (
            precision == "float32"
            or graph == DECODER
            or known_model(precision).frame.count == pytest.approx(known_model("int8").frame.count, rel=0.01)
        )


def test_a_mix_that_is_not_known_has_as_many_weights_of_each_width():
    found = part("decoder", 1e6, (2, 3, 4, 8))
    assert found.size == pytest.approx(1e6) and len(set(found.weights.values())) == 1


@pytest.mark.parametrize(
    ("precision", "products", "widths"),
    [
        ("float32", (), (32,)),
        ("int3", ("MatMulNBits 3",), (3,)),
        ("mixed", ("MatMulNBits 4", "MatMulNBits 3"), (3, 4)),
        ("mixed", ("MatMulNBits 3", "DynamicQuantizeMatMul 8"), (3, 8)),
        ("mixed", (), (4, 8)),  # written before the manifest named products
        ("mixed", ("MatMulNBits", "Other 5", ""), (4, 8)),
    ],
)
def test_a_graph_s_bits_are_those_of_its_products(precision, products, widths):
    assert widths_of(precision, products) == widths


def test_small_and_smallest_read_less_and_are_faster_where_our_products_run():
    own, theirs = read_profile("pi5").machine(8), read_profile("pi5").planned_with("onnxruntime").machine(8)
    models = [known_model(name) for name in ("int4", "small", "smallest")]
    steps, memory, factors = zip(
        *((p.step, p.memory, p.real_time_factor) for p in (plan("speak", model, own, 4) for model in models)),
        strict=True,
    )
    for falling in (steps, memory, factors):
        assert sorted(falling, reverse=True) == list(falling) and falling[0] > 1.05 * falling[2]
    # Elsewhere 3 bits lie in memory as 4: less is won.
    int4, small, smallest = (plan("speak", model, theirs, 4) for model in models)
    decoders = [StageSeconds(model, theirs, 4).model.decoder for model in models]
    assert decoders[1].size == pytest.approx(decoders[0].size, rel=0.01) and 3 not in decoders[1].weights
    assert memory[1] < small.memory < int4.memory and memory[2] < smallest.memory < small.memory


@pytest.mark.parametrize(
    ("factor", "needed", "verdict", "delay"),
    [
        (0.5, 1, "real time", 0),
        (0.95, 1, "buffered", 0.45),
        (2.0, 1, "buffered", 12),
        (3.1, 1, "not on this device", 0),
        (0.5, 3, "not on this device", 0),
    ],
)
def test_verdicts(factor, needed, verdict, delay):
    found, seconds, reason = judge(factor, needed * 1e9, 2e9)
    assert (found, bool(reason)) == (verdict, verdict == VERDICTS[0])
    assert seconds == pytest.approx(delay)


def test_too_little_memory_is_said(models):
    found = plans(read_profile("pi-zero-2w"), models, 4)
    assert {entry.verdict for entry in found} == {"not on this device"}
    assert all(re.fullmatch(r"needs \d\.\d GB of memory, 300 MB are free", entry.reason) for entry in found)


def test_a_larger_one_of_the_same_device_is_named():
    advice = advise(read_profile("pi5"), [replace(known_model("int4"), memory=6e9)], 4)
    assert advice["talk"].startswith("not with 4 GB; with 8 GB int4: not usable live")


def test_every_size_of_a_device_says_what_it_holds(models):
    found = holdings(read_profile("pi5"), models)
    assert [(entry.memory_gb, entry.free_gb) for entry in found] == [(4, 3.5), (8, 7.5), (16, 15.5)]
    assert [entry.precisions for entry in found] == [tuple(SIZES)[1:], tuple(SIZES), tuple(SIZES)]
    assert [entry.precisions for entry in holdings(read_profile("pi-zero-2w"), models)] == [()]


def test_a_conversation_too_long_for_the_memory_is_refused():
    short, long = known_model("int8"), known_model("int8", 120_000)
    assert long.memory - short.memory == pytest.approx(0.73e9, rel=0.01)
    verdicts = {name: plan("transcribe", model, pi5(memory=3e9), 4) for name, model in (("s", short), ("l", long))}
    assert verdicts["s"].verdict == "real time"
    assert verdicts["l"].reason == "needs 3.2 GB of memory, 3.0 GB are free"
    assert verdicts["l"].step > 2 * verdicts["s"].step  # it looks back on all of them


def test_another_device_is_named(models):
    assert re.match(r"not on this device; \S+ would do \(", advise(read_profile("pi-zero-2w"), models, 4)["talk"])


def test_without_dot_product_int8_is_advised(models):
    profile = read_profile("pi4")
    advice = advise(profile, models, 4)["transcribe"]
    assert advice.startswith("take int8: ") and "no dot product" in advice
    int8, int4 = (StageSeconds(known_model(name), profile.machine(), 4).step() for name in ("int8", "int4"))
    assert int4 > 2 * int8


def test_the_most_bits_that_do_are_taken(models):
    found = [entry for entry in plans(read_profile("x-elite"), models, 8) if entry.task == "speak"]
    fitting = [entry.precision for entry in found if entry.verdict == "real time"]
    assert len(fitting) > 1 and best(found).precision == fitting[0]


def test_nothing_runs_where_only_a_bundle_is_made(models):
    found = plans(read_profile("iphone16"), models, 2)
    assert {(entry.verdict, "only a bundle" in entry.reason) for entry in found} == {("not on this device", True)}


# The command


def test_plan_without_a_bundle(cli):
    ran = cli("plan", "--device", "pi5")
    assert ran.status == 0 and ran.err == ""
    *advice, empty, head, columns = ran.out.splitlines()[:6]
    *rest, memory = ran.out.splitlines()[6:]
    assert [line.split(":")[0] for line in advice] == list(TASKS) and empty == ""  # what matters comes first
    assert advice[2] == "talk: take smallest: buffered, 5 s of waiting for 10 s of sound"
    assert "Raspberry Pi 5" in head and "11.6 GB/s (cited)" in head and "predictions" in head
    assert columns.split()[:2] == ["task", "precision"]
    assert [tuple(line.split()[:2]) for line in rest] == [(task, name) for task in TASKS for name in SIZES]
    assert memory.startswith("memory: ") and "; 8 GB (7.5 free) hold float32, int8" in memory


def test_a_wait_that_is_too_long_to_talk_is_said_to_be():
    short, long = (
        Plan("talk", "int4", 1, 0.1, factor, 1.0, 1e9, "buffered", delay) for factor, delay in ((1.3, 4.3), (2.0, 12.2))
    )
    assert short.live and describe(short) == "buffered, 5 s of waiting for 10 s of sound"
    assert not long.live and describe(long) == "not usable live, 13 s of waiting for 10 s of sound"


def test_plan_for_machines(cli):
    ran = cli("plan", PEBBLE, "--device", "pi5", "--json")
    assert ran.status == 0
    found = json.loads(ran.out)
    assert found["device"]["bandwidth_gbps"]["evidence"] == found["evidence"] == "cited"
    assert [entry["task"] for entry in found["plans"]] == list(TASKS) == list(found["advice"])
    assert {entry["precision"] for entry in found["plans"]} == {"int8"}
    assert {entry["verdict"] for entry in found["plans"]} == {"real time"}
    assert [(entry["memory_gb"], entry["precisions"]) for entry in found["fits"]] == [(n, ["int8"]) for n in (4, 8, 16)]


def test_a_bundle_and_a_context_that_do_not_fit_are_told(cli, tmp_path):
    text = (PROFILES / "pi5.toml").read_text(encoding="utf-8").replace("value = 4,", "value = 0.75,", 1)
    (tmp_path / "small.toml").write_text(text.replace("[4, 8, 16]", "[0.75]"), encoding="utf-8")
    plans = [
        json.loads(cli("plan", PEBBLE, "--device", tmp_path / "small.toml", "--json", "--context", length).out)["plans"]
        for length in (100, 100_000)
    ]
    assert {entry["verdict"] for entry in plans[0]} == {"real time"}
    assert {entry["verdict"] for entry in plans[1]} == {"not on this device"}
    assert re.fullmatch(r"needs \d+ MB of memory, 250 MB are free", plans[1][0]["reason"])


def test_a_small_model_s_plan_allows_for_what_it_does_not_know(cli):
    ran = cli("plan", PEBBLE, "--device", "pi-zero-2w", "--json")
    assert "small model" in ran.err and ran.err.count("\n") == 1
    talk = json.loads(ran.out)["plans"][-1]
    assert talk["real_time_factor"] < 1 and talk["verdict"] != "real time"


def test_plan_for_this_machine(cli):
    found = json.loads(cli("plan", "--json", "--precision", "int4", "--threads", "1").out)
    assert found["device"]["bandwidth_gbps"]["evidence"] == "measured"
    assert {(entry["precision"], entry["threads"]) for entry in found["plans"]} == {("int4", 1)}


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--precision", "int3"), ("int3", *SIZES)),
        (("--threads", "9"), ("9 threads", "1 to 4")),
        ((PEBBLE, "--precision", "int4"), ("a bundle", "--precision")),
        (("nothing",), ("nothing", "voxrill export")),
        ((PEBBLE, "--context", "200000"), ("200000", "at most 128000")),
        (("--bits", "3.3", "--products", "onnxruntime"), ("fewer than 4 bits", "--bits 4")),
        (("--bits", "3.3", "--precision", "int4"), ("--precision", "not both")),
        ((PEBBLE, "--bits", "3.3"), ("a bundle", "not both")),
    ],
)
def test_wrong_plans_are_refused(cli, words, named):
    check_refusal(cli("plan", *words, "--device", "pi5"), named)


def test_a_recipe_s_bits_are_planned_with_our_own_products(cli):
    found = json.loads(cli("plan", "--device", "pi5", "--bits", "3.3", "--json").out)
    assert {entry["precision"] for entry in found["plans"]} == {"3.3 bits"}
    assert found["device"]["own_products"]["evidence"] == "simulated"
    check_refusal(cli("plan", "--device", "n100", "--products", "own"), ("Intel N100", "pi5", "rk3588"))


def test_the_page_of_devices_is_what_the_profiles_say():
    """How each figure is known, and what the rate of reading predicts beside what llama.cpp was measured at."""
    text = (ROOT / "docs" / "deploy" / "devices.md").read_text(encoding="utf-8")
    page = [line.split(" | ") for line in text.splitlines()]
    known = {row[0].strip("| `"): [cell.strip(" |") for cell in row[1:]] for row in page if len(row) == 11}
    for name in shipped_profiles():
        figures = read_profile(name).figures
        assert known[name] == [figures[key].evidence if key in figures else "" for key in EVIDENCED]
    compared = [row for row in page if len(row) == 8 and row[4][0].isdigit()]
    for device, _, size, rate, measured, predicted, off, _ in compared:
        name = device.split("`")[1] if "`" in device else ""
        assert not name or float(rate) == read_profile(name).bandwidth_gbps.value
        tokens = float(rate) * SHARE / float(size)
        assert (predicted, off) == (f"{tokens:.2f}", f"{100 * (tokens / float(measured) - 1):+.0f} %")
    assert len(compared) > 10


def test_the_page_s_table_is_what_the_planner_says(models):
    """Every shipped device, each cell from its advice. The README has some of the page's rows."""
    page = (ROOT / "docs" / "deploy" / "plan.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| .*\(`.*`\) \|.*$", readme, re.MULTILINE)) < set(page.splitlines())
    for name in shipped_profiles():
        profile = read_profile(name)
        found = plans(profile, models, profile.cores.value)
        chosen = [best([entry for entry in found if entry.task == task]) for task in TASKS]
        cells = [f"{c.verdict}, {c.precision}, {c.real_time_factor:.1f}" if c else "no" for c in chosen]
        assert f"| {profile.name} (`{name}`) | {' | '.join(cells)} |" in page
