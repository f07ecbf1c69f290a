"""Execution providers: an unusable one is refused with a remedy, and no graph falls back to the CPU silently."""

import json
import os
import sys
import types
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

import voxrill
from tests.command_line import run_alone
from tests.places import ROOT
from voxrill.devices.choice import choose
from voxrill.devices.plugins import PLUGINS, Plugin, register
from voxrill.devices.profile import PROFILES, read_profile
from voxrill.devices.providers import CPU, PROVIDERS, Provider, find_provider
from voxrill.runtime.engine.engine import Fallback
from voxrill.runtime.errors import ProfileError, ProviderError
from voxrill.runtime.upkeep.tuning import outputs

CLIPS = sorted((ROOT / "tests" / "pebble").glob("*-known.flac"))[:4]
OPENVINO = PLUGINS["openvino"]
SOFTWARE_GPU = Path("/usr/lib/chromium/vk_swiftshader_icd.json")
"""Where Debian's Chromium has SwiftShader, a Vulkan driver that computes on the processor."""


@pytest.fixture
def openvino():
    """Skips, with the reason, where the plugin is missing or finds no device, as on processors that are not Intel's."""
    try:
        register("openvino")
    except ProviderError as error:
        pytest.skip(error.message)


@pytest.fixture
def profile(tmp_path):
    """The Pi 5's profile with a choice of providers, as a user's file."""

    def written(choice):
        text = (PROFILES / "pi5.toml").read_text(encoding="utf-8")
        (tmp_path / "mine.toml").write_text(f"{text}\n[provider]\n{choice}\n", encoding="utf-8")
        return str(tmp_path / "mine.toml")

    return written


# What is refused


def test_an_unknown_provider_lists_the_valid_ones(cli):
    cli.refuses("transcribe", "a.wav", "--provider", "tpu", saying=("'tpu'", *PROVIDERS))


def test_an_unknown_graph_lists_those_of_the_bundle():
    with pytest.raises(voxrill.VoxrillError, match=r"no graph 'encoder'.*all, audio_encoder, decoder"):
        voxrill.load(provider="encoder=cpu")


@pytest.mark.parametrize("name", PLUGINS)
def test_a_missing_package_is_named_with_its_pip_line(name, monkeypatch):
    monkeypatch.setitem(sys.modules, PLUGINS[name].module, None)
    monkeypatch.setattr("voxrill.devices.plugins.ort.get_ep_devices", list)
    with pytest.raises(voxrill.VoxrillError, match=f"pip install {PLUGINS[name].package}"):
        voxrill.load(provider=name)


@pytest.mark.parametrize("name", ["nnapi", "xnnpack"])
def test_a_provider_that_onnxruntime_was_built_without(name):
    with pytest.raises(voxrill.VoxrillError, match=f"has no .*build onnxruntime .*--use_{name}"):
        voxrill.load(provider=name)


def test_a_library_that_does_not_load(monkeypatch, tmp_path):
    class Broken:
        @staticmethod
        def get_library_path():
            return str(tmp_path / "none.so")

    monkeypatch.setattr("voxrill.devices.plugins.ort.get_ep_devices", list)
    monkeypatch.setitem(sys.modules, OPENVINO.module, Broken)
    with pytest.raises(ProviderError, match=r"none\.so") as refused:
        register("openvino")
    assert OPENVINO.pip in refused.value.remedy


@pytest.fixture
def library(monkeypatch):
    """A plugin `idle` in a module of its own whose library finds no device; it counts how often it is registered."""
    registered = []

    def take(name, path):
        if name in registered:
            raise RuntimeError(f"EP library is already registered under {name}")
        registered.append(name)

    module = types.ModuleType("idle_plugin")
    module.get_library_path = lambda: "idle.so"
    monkeypatch.setitem(sys.modules, "idle_plugin", module)
    monkeypatch.setitem(PLUGINS, "idle", Plugin("IdleProvider", "idle-plugin", "idle_plugin", "untested", "no machine"))
    monkeypatch.setattr("voxrill.devices.plugins._registered", set())
    monkeypatch.setattr("voxrill.devices.plugins.ort.get_ep_devices", list)
    monkeypatch.setattr("voxrill.devices.plugins.ort.register_execution_provider_library", take)
    return registered


def test_a_plugin_without_a_device_is_registered_once_and_refused_every_time(library):
    for _ in range(3):
        with pytest.raises(ProviderError, match=r"idle-plugin finds no device .*: it runs on no machine") as refused:
            register("idle")
        assert "Leave out --provider idle" in refused.value.remedy
    assert library == ["IdleProvider"]


def test_a_package_that_is_there_but_broken_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "broken_plugin.py").write_text("import no_such_module_of_its_own", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PLUGINS, "broken", Plugin("Broken", "broken-plugin", "broken_plugin", "untested", "anything"))
    with pytest.raises(ProviderError, match=r"broken-plugin does not load: .*no_such_module_of_its_own"):
        register("broken")


def test_what_was_not_executed_says_so():
    assert all("untested" in provider.evidence for provider in PROVIDERS.values() if provider.full_name != CPU)


@pytest.mark.parametrize(
    ("word", "saying"),
    [
        ("decoder=qnn:chip=SM8650", ("qnn has no setting 'chip'", "qnn:soc=...")),
        ("qnn:", ("qnn has no setting ''", "qnn:soc=...")),
        ("qnn:soc=SM1", ("no chip 'SM1'", "SM8650 (Snapdragon 8 Gen 3)")),
        ("cpu:soc=SM8650", ("cpu has no setting 'soc'", "it has no settings")),
        ("openvino:soc=SM8650", ("openvino has no setting 'soc'", "it has no settings")),
    ],
)
def test_an_unknown_setting_lists_the_valid_ones(cli, word, saying):
    cli.refuses("transcribe", "a.wav", "--provider", word, saying=saying)


# What is chosen


def test_names_of_providers():
    assert find_provider("OpenVINO") is find_provider("OpenVINOExecutionProvider") is PROVIDERS["openvino"]


def test_later_words_count():
    choice = choose(["openvino", "depthformer=qnn", "decoder=qnn", "decoder=cpu"])
    chosen = [choice.of(graph).name for graph in ("audio_encoder", "depthformer", "decoder")]
    assert chosen == ["openvino", "qnn", "cpu"] and choice.graphs == {"depthformer", "decoder"}


def test_a_profile_chooses(profile):
    path = profile('all = "cpu"\naudio_encoder = "OpenVINOExecutionProvider"')
    choice = choose([path, "text_head=qnn"])
    assert [choice.of(graph).name for graph in ("audio_encoder", "text_head", "decoder")] == ["openvino", "qnn", "cpu"]
    assert choose(["pi5"]).of("decoder").name == "cpu"


def test_a_chip_is_set_by_word_or_profile(profile):
    choice = choose(["decoder=qnn:soc=sm8650", "qnn:soc=SM8350"])
    assert choice.of("decoder").options == {"soc_model": "57", "htp_arch": "75"}
    assert choice.of("text_head").options["htp_arch"] == "68" and choice.graphs == {"decoder"}
    assert choose([profile('decoder = "qnn:soc=SM8750"')]).of("decoder").options["htp_arch"] == "79"
    assert find_provider("qnn").options == {}


def test_a_profile_with_an_unknown_chip(profile):
    with pytest.raises(ProfileError, match="SM1") as refused:
        read_profile(profile('decoder = "qnn:soc=SM1"'))
    assert "SM8650" in refused.value.remedy


def test_a_profile_with_an_unknown_provider(profile):
    with pytest.raises(ProfileError, match="tpu") as refused:
        read_profile(profile('decoder = "tpu"'))
    assert "openvino" in refused.value.remedy


# What runs


def test_the_report_of_the_cpu(cli):
    ran = cli("providers", "--json", "--threads", "1")
    shares = json.loads(ran.out)
    assert [share["graph"] for share in shares] == list(voxrill.load().graphs)
    for share in shares:
        assert share["provider"] == CPU and sum(share["nodes"].values()) > 0 and share["ms"] > 0


@pytest.mark.filterwarnings("default::voxrill.runtime.engine.engine.Fallback")
def test_the_report_of_a_fallback(cli, openvino):
    ran = cli("providers", "--provider", "audio_detokenizer=openvino", "--json", "--threads", "1")
    assert "nodes that run on the CPU instead: audio_detokenizer" in ran.err
    by_provider = {share["provider"]: share for share in json.loads(ran.out) if share["graph"] == "audio_detokenizer"}
    assert set(by_provider) == {CPU, OPENVINO.provider}
    assert "DynamicQuantizeMatMul" in by_provider[CPU]["nodes"]
    assert by_provider[OPENVINO.provider]["ms"] > 0


def test_a_chip_that_is_set_is_compiled_for(cli, npu_bundles):
    """A v68 computes with integers only, so it refuses the float graph that a v75 takes completely."""
    pytest.importorskip(PLUGINS["qnn"].module, reason="onnxruntime-qnn is not installed")
    words = ("providers", npu_bundles["lfm2.5"], "--strict", "--json", "--provider")
    ran = cli(*words, "decoder=qnn:soc=SM8650")
    (share,) = (share for share in json.loads(ran.out) if share["graph"] == "decoder")
    assert share["provider"] == PLUGINS["qnn"].provider
    assert cli(*words, "decoder=qnn:soc=SM8350").status == 2


@pytest.fixture
def idle(monkeypatch):
    """A provider of onnxruntime's own wheel that takes no node."""
    name = "AzureExecutionProvider"
    if name not in ort.get_available_providers():
        pytest.skip(f"this onnxruntime has no {name}")
    monkeypatch.setitem(PROVIDERS, "idle", Provider("idle", name, "untested", ""))


def test_a_provider_that_takes_nothing_is_told(idle):
    whole = voxrill.load(threads=1).graphs["text_head"].assigned()[CPU].total()
    with pytest.warns(Fallback, match=rf"text_head {whole} \(idle\)"):
        voxrill.load(threads=1, provider="text_head=idle")


def test_a_provider_that_takes_nothing_is_refused(idle):
    with pytest.raises(
        voxrill.VoxrillError, match=r"text_head would not run on idle alone: .*--provider text_head=cpu"
    ):
        voxrill.load(threads=1, provider="text_head=idle", strict=True)


def test_a_provider_that_fails_is_no_reason_for_the_cpu(idle, monkeypatch, capfd):
    """onnxruntime's own session would continue with the CPU and print that to stdout."""
    create = ort.InferenceSession._create_inference_session

    def fail(session, providers, *rest):
        if CPU not in providers:
            raise RuntimeError("context.cc:65 Initialize() status == 0 was false. No supported adapters")
        create(session, providers, *rest)

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fail)
    says = "idle cannot run text_head: No supported adapters. .*--provider text_head=cpu"
    with pytest.raises(voxrill.VoxrillError, match=says):
        voxrill.load(threads=1, provider="text_head=idle")
    assert capfd.readouterr().out == ""


def test_strict_refuses_a_fallback(cli, openvino):
    ran = cli("speak", "hello", "-o", "a.wav", "--provider", "audio_detokenizer=openvino", "--strict")
    assert ran.status == 2 and not Path("a.wav").exists()
    *_, last = ran.err.splitlines()
    for part in ("audio_detokenizer", "DynamicQuantizeMatMul", "--provider audio_detokenizer=cpu"):
        assert part in last


def test_the_same_words(openvino):
    """INT8 activations are rounded in other places, so numbers differ a little; words must not."""
    cpu = voxrill.load(threads=1)
    with pytest.warns(Fallback, match=r"decoder \d+ \(openvino\)"):
        model = voxrill.load(threads=1, provider="openvino")
    for clip in CLIPS:
        assert model.transcribe(clip).text == cpu.transcribe(clip).text


def test_the_same_numbers_in_float32(openvino, bundles, models):
    with pytest.warns(Fallback):
        model = voxrill.load(bundles["lfm2.5"], threads=1, provider="openvino")
    for wanted, found in zip(outputs(models["lfm2.5"]), outputs(model), strict=True):
        assert np.abs(found - wanted).max() <= 1e-4 * np.abs(wanted).max()


# WebGPU as a part of onnxruntime, on a GPU in software


@pytest.fixture
def webgpu(tmp_path):
    """Runs a command with onnxruntime-webgpu in the place of onnxruntime: on Chromium's GPU in software, or on none."""
    if "VOXRILL_WEBGPU" not in os.environ:
        pytest.skip("VOXRILL_WEBGPU names no folder with onnxruntime-webgpu")
    if not SOFTWARE_GPU.exists():
        pytest.skip("Chromium, which has a GPU in software, is not installed")

    def run(*words, driver=SOFTWARE_GPU):
        return run_alone(
            *words,
            *("--provider", "webgpu", "--threads", "1"),
            cwd=tmp_path,
            PYTHONPATH=os.environ["VOXRILL_WEBGPU"],
            VK_ICD_FILENAMES=str(driver),
            LD_LIBRARY_PATH=str(SOFTWARE_GPU.parent),  # the loader of such drivers is there, too
        )

    return run


def test_webgpu_says_the_same_words(webgpu):
    """It also ends cleanly: what is bound to a session must be freed before the session."""
    ran = webgpu("transcribe", CLIPS[0])
    assert ran.status == 0, ran.err
    if "8-bit products" in ran.err:
        pytest.skip("this processor has no VNNI, and onnxruntime-webgpu is too old for exact products without it")
    assert ran.out.strip() == voxrill.load(threads=1).transcribe(CLIPS[0]).text
    assert "nodes that run on the CPU instead: audio_encoder" in ran.err


def test_the_report_of_webgpu(webgpu):
    ran = webgpu("providers", "--json")
    assert ran.status == 0, ran.err
    shares = {(share["graph"], share["provider"]): share for share in json.loads(ran.out)}
    taken = shares["decoder", PROVIDERS["webgpu"].full_name]
    assert sum(taken["nodes"].values()) > 100 and taken["ms"] > 0
    assert "DynamicQuantizeMatMul" in shares["decoder", CPU]["nodes"]


def test_webgpu_without_a_gpu(webgpu, tmp_path):
    ran = webgpu("transcribe", CLIPS[0], driver=tmp_path / "none.json")
    assert ran.status == 2 and ran.out == ""
    *_, last = ran.err.splitlines()
    for part in ("webgpu cannot run audio_encoder", "adapter", "--provider audio_encoder=cpu"):
        assert part in last
