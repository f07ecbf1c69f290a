"""The end of a turn by meaning: the front end, which file is taken and which refused, and when a model is given up."""

import sys

import numpy as np
import pytest

from tests.turn_sounds import CLIENTS, EVERY, GOLDEN, packaged_log_mel, sounds
from voxrill.runtime.audio import end_of_turn
from voxrill.runtime.audio.end_of_turn import LATE, REST, EndOfTurn, TimelyModel, find_model, with_patience
from voxrill.runtime.audio.endpointing import EndpointOptions, Patience
from voxrill.runtime.audio.turn_model import TurnLogMel, TurnModel
from voxrill.runtime.errors import DataError, MissingDependency, UsageError

GIVEN = ("input_features", ["n", 80, 800])


def made(path, given=GIVEN, out=("n", 1), gain=0.01):
    """A graph that gives 0.5 + gain * the mean of what it is given."""
    onnx = pytest.importorskip("onnx", reason="the extra quantize is not installed")
    helper, numpy_helper = onnx.helper, onnx.numpy_helper
    name, shape = given
    constants = {
        "gain": np.array(gain, np.float32),
        "half": np.array(0.5, np.float32),
        "shape": np.array([-1, *out[1:]], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", [name], ["mean"], axes=list(range(1, len(shape))), keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Add", ["scaled", "half"], ["shifted"]),
        helper.make_node("Reshape", ["shifted", "shape"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "turn",
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, list(out))],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def nothing_installed(monkeypatch, tmp_path):
    monkeypatch.setattr(end_of_turn, "_cache", lambda: tmp_path / "cache")
    monkeypatch.setattr(end_of_turn, "_PACKAGE", "a_package_that_is_not_there")
    return tmp_path


def test_the_front_end_is_the_packaged_one():
    with np.load(GOLDEN) as golden:
        for name, sound in sounds():
            np.testing.assert_allclose(TurnLogMel()(sound)[:, ::EVERY], golden[name], atol=2e-4, err_msg=name)


def test_the_front_end_is_the_installed_one():
    theirs = packaged_log_mel()
    if theirs is None:
        pytest.skip("pipecat-ai is not in .venv-clients/pipecat. Run: make clients")
    for name, sound in sounds():
        np.testing.assert_allclose(TurnLogMel()(sound), theirs(sound), atol=2e-4, err_msg=name)


@pytest.mark.parametrize("samples", [0, 1, 399, 400, 128_000, 128_001])
def test_every_length_has_its_log_mel(samples):
    found = TurnLogMel()(np.ones(samples, np.float32))
    assert found.shape == (80, 800) and found.dtype == np.float32 and np.isfinite(found).all()


def test_the_packaged_model_is_taken():
    file = next(CLIENTS.glob("*/site-packages/pipecat/audio/turn/smart_turn/data/smart-turn-v3*.onnx"), None)
    if file is None:
        pytest.skip("pipecat-ai is not in .venv-clients/pipecat. Run: make clients")
    model, (_, sound) = TurnModel(file), next(sounds())
    assert 0 <= model(sound) <= 1 and model(sound) == model(sound)


def test_a_file_that_is_such_a_network_is_taken(tmp_path):
    found = find_model(str(made(tmp_path / "turn.onnx")))
    assert isinstance(found, TurnModel) and 0 <= found(np.zeros(100, np.float32)) <= 1


@pytest.mark.parametrize(
    ("how", "told"),
    [
        pytest.param({"given": ("input_values", ["n", 128_000])}, r"takes input_values \[128000\]", id="version 2"),
        pytest.param({"given": ("input_features", ["n", 80, 3000])}, r"takes input_features \[80, 3000\]", id="30 s"),
        pytest.param({"given": ("input_features", ["n", 800, 80])}, r"takes input_features \[800, 80\]", id="turned"),
        pytest.param({"out": ("n", 1, 1)}, r"gives \[\[1, 1\]\]", id="another result"),
        pytest.param({"gain": 100.0}, "where a probability is expected", id="no probability"),
    ],
)
def test_another_version_is_refused_in_one_line(tmp_path, how, told):
    with pytest.raises(DataError, match=told) as refused:
        TurnModel(made(tmp_path / "turn.onnx", **how))
    assert "\n" not in str(refused.value) and "turn.onnx" in str(refused.value)


@pytest.mark.parametrize("content", [b"", b"not a graph" * 100])
def test_what_is_no_graph_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "turn.onnx").write_bytes(content)
    with pytest.raises(DataError, match="cannot be opened") as refused:
        find_model(tmp_path / "turn.onnx")
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"There is no end-of-turn model .*missing\.onnx.*timer"):
        find_model(tmp_path / "missing.onnx")


def test_nothing_is_required(nothing_installed):
    assert find_model("timer") is None and find_model("auto") is None


def test_an_installed_model_is_not_taken_unasked(monkeypatch):
    monkeypatch.setattr(end_of_turn, "installed", lambda: pytest.fail("it was looked for"))
    assert find_model(None) is None


def test_the_cache_and_an_installed_package_are_looked_into(nothing_installed, monkeypatch):
    folder = nothing_installed / "site" / "packaged_turns"
    data = folder / "audio" / "turn" / "smart_turn" / "data"
    data.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(str(folder.parent))
    monkeypatch.setattr(end_of_turn, "_PACKAGE", "packaged_turns")
    for name in ("smart-turn-v3.1-cpu.onnx", "smart-turn-v3.2-cpu.onnx"):
        made(data / name)
    assert find_model("auto").path.name == "smart-turn-v3.2-cpu.onnx"
    cached = nothing_installed / "cache" / end_of_turn.FILE
    cached.parent.mkdir()
    made(cached)
    assert find_model("auto").path == cached == find_model("hub").path


def test_the_hub_that_cannot_be_reached_is_told_in_one_line(nothing_installed, monkeypatch):
    hub = pytest.importorskip("huggingface_hub", reason="the hub extra is not installed")

    def refuse(*_arguments, **_options):
        raise OSError("no route to host\nand more")

    monkeypatch.setattr(hub, "hf_hub_download", refuse)
    with pytest.raises(DataError, match=r"smart-turn-v3: no route to host\. Connect") as told:
        find_model("hub")
    assert "\n" not in str(told.value)


def test_without_the_extra_the_hub_names_it(nothing_installed, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingDependency, match="hub"):
        find_model("hub")


def test_a_function_is_a_model():
    def always(_sound):
        return 1.0

    assert find_model(always) is always


def test_patience_needs_a_model():
    assert with_patience(EndpointOptions(), lambda _sound: 1.0, None).patience == Patience()
    assert with_patience(EndpointOptions(), lambda _sound: 1.0, 1.0).patience == Patience(most=1.0)
    assert with_patience(EndpointOptions(), None, None) == EndpointOptions()
    with pytest.raises(UsageError, match="there is no model"):
        with_patience(EndpointOptions(), None, 1.0)
    with pytest.raises(UsageError, match="patience"):
        with_patience(EndpointOptions(), lambda _sound: 1.0, 0.1)


JUDGED = EndpointOptions(patience=Patience(0.4, 1.6))


def slow(*seconds):
    """A judge whose model takes these seconds, one after the other; and what it told, and how often it was asked."""
    now, asked, told = [0.0], [], []

    def model(_sound):
        now[0] += seconds[len(asked)]
        asked.append(0)
        return 0.5

    return EndOfTurn(TimelyModel(model, told.append, lambda: now[0])), told, asked


def test_a_model_that_is_slower_than_the_silence_is_given_up_and_that_is_said_once():
    judge, told, asked = slow(*[0.5] * LATE)
    said = [judge(np.zeros(1, np.float32), JUDGED) for _ in range(LATE + 3)]
    assert said == [1.0] * LATE + [None] * 3
    assert len(asked) == LATE and len(told) == 1 and "500 ms" in told[0]


def test_a_model_that_was_given_up_is_tried_again_ever_more_seldom():
    """It may have been late because many streams asked it at once."""
    now, asked, told, took = [0.0], [], [], [0.5]

    def model(_sound):
        asked.append(now[0])
        now[0] += took[0]
        return 0.5

    judge = EndOfTurn(TimelyModel(model, told.append, lambda: now[0]))
    for second in range(200):
        now[0] = float(second)
        judge(np.zeros(1, np.float32), JUDGED)
    assert REST == 60.0 and asked == [0.0, 1.0, 62.0, 183.0] and len(told) == 1
    took[0] = 0.1
    assert [judge(np.zeros(1, np.float32), JUDGED) for now[0] in (1000.0, 1001.0, 1002.0)] == [1.0] * 3
    assert len(told) == 1


def test_one_late_judgement_is_forgiven():
    judge, told, _ = slow(0.5, 0.1, 0.5, 0.1)
    assert [judge(np.zeros(1, np.float32), JUDGED) for _ in range(4)] == [1.0] * 4 and not told


@pytest.mark.parametrize("wrong", [float("nan"), -0.1, 1.1])
def test_what_is_no_probability_is_refused(wrong):
    with pytest.raises(UsageError, match="no probability"):
        TimelyModel(lambda _sound: wrong)(np.zeros(1, np.float32), JUDGED)


def test_without_patience_no_model_is_asked():
    judge, _, asked = slow(0.1)
    assert judge(np.zeros(1, np.float32), EndpointOptions()) is None and not asked
