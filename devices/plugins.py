"""Execution providers that are packages of their own: they are found and registered with the installed onnxruntime.

In: a provider's short name. Out: the devices that it finds here, for `SessionOptions.add_provider_for_devices`.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Lock
from types import ModuleType
from typing import Any

import onnxruntime as ort

from voxrill.devices.socs import find_soc
from voxrill.runtime.errors import ProviderError


@dataclass(frozen=True)
class Plugin:
    """A provider in a package.

    Attributes:
        provider: its name in onnxruntime. It is registered under this name too, because QNN gives its devices the name
            of the registration.
        package: its name for pip.
        module: its name for Python; the module must have `get_library_path()`.
        evidence: what of it was executed, and what is untested.
        runs_on: the hardware that it looks for.
        options: makes the options of a session from the module and a number of threads (0: the provider's choice).
        settings: what a user may set, by name; each function turns a value into onnxruntime's options.
        greets: whether its library writes to stdout.
        may_be_built_in: whether some builds of onnxruntime contain it. There it needs no options.
    """

    provider: str
    package: str
    module: str
    evidence: str
    runs_on: str
    options: Callable[[ModuleType, int], dict[str, str]] = lambda _module, _threads: {}
    settings: Mapping[str, Callable[[str], dict[str, str]]] = field(default_factory=dict)
    greets: bool = False
    may_be_built_in: bool = False

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return f"pip install {self.package}"

    def load(self) -> ModuleType | None:
        """Its module; None where the package is not installed.

        Raises:
            ProviderError: it is installed, but importing it fails.
        """
        try:
            return importlib.import_module(self.module)
        except ImportError as error:
            if error.name == self.module:
                return None
            raise self.does_not_load(error) from None

    def does_not_load(self, error: Exception) -> ProviderError:
        """What to raise when its module or its library fails with `error`."""
        return ProviderError(
            f"{self.package} does not load: {' '.join(str(error).split())}",
            f"Its version may not fit the version of onnxruntime. Run: {self.pip} --upgrade onnxruntime",
        )


def _openvino(_module: ModuleType, threads: int) -> dict[str, str]:
    """Keep float32: without this it computes in bfloat16 on processors that have it."""
    wanted = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": str(threads)} if threads else {})
    return {"load_config": json.dumps({"CPU": wanted})}


def _qnn(module: ModuleType, _threads: int) -> dict[str, str]:
    # Otherwise onnxruntime leaves the first quantising and the last dequantising of a graph to the CPU.
    return {"backend_path": module.get_qnn_htp_path(), "offload_graph_io_quantization": "0"}


def _soc(name: str) -> dict[str, str]:
    """The chip to compile for. On the chip itself this can be left out."""
    soc = find_soc(name)
    return {"soc_model": str(soc.model), "htp_arch": str(soc.arch)}


PLUGINS = {
    "openvino": Plugin(
        "OpenVINOExecutionProvider",
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "executed on an Intel CPU (x86-64); untested on Intel GPUs and NPUs",
        "Intel's CPUs, GPUs and NPUs",
        _openvino,
    ),
    "qnn": Plugin(
        "QNNExecutionProvider",
        "onnxruntime-qnn",
        "onnxruntime_qnn",
        "compiled and simulated on x86-64; untested on Snapdragon",
        "Qualcomm's NPUs, and their simulator on x86-64",
        _qnn,
        settings={"soc": _soc},
        greets=True,
    ),
    "webgpu": Plugin(
        "WebGpuExecutionProvider",
        "onnxruntime-ep-webgpu",
        "onnxruntime_ep_webgpu",
        "executed in onnxruntime-webgpu on a GPU in software; its plugin found none; untested on a GPU",
        "GPUs with a driver for Vulkan, Direct3D 12 or Metal",
        may_be_built_in=True,
    ),
}
"""By short name."""

_REGISTERING = Lock()
"""Graphs are loaded by several threads, and onnxruntime refuses a library that it has already."""

_registered: set[str] = set()
"""The plugins whose libraries onnxruntime has, by short name. A library that found no device stays registered."""


def register(name: str) -> list[Any]:
    """Register a plugin, once in a process, and list its devices (`onnxruntime.OrtEpDevice`), at least one.

    Raises:
        ProviderError: there is no such plugin, its package is missing or does not load, or it finds no device.
    """
    plugin = find_plugin(name)
    if not hasattr(ort, "get_ep_devices"):
        raise ProviderError(f"onnxruntime {ort.__version__} takes no plugins", "Run: pip install --upgrade onnxruntime")
    with _REGISTERING:
        if name not in _registered and not _devices(plugin):
            _register(plugin)
            _registered.add(name)
    devices = _devices(plugin)
    if not devices:
        raise ProviderError(
            f"{plugin.package} finds no device on this machine: it runs on {plugin.runs_on}",
            f"Leave out --provider {name}, and the CPU computes; to see the other providers, run: voxrill devices",
        )
    return devices


def find_plugin(name: str) -> Plugin:
    """A plugin by its short name.

    Raises:
        ProviderError: there is none; the valid names are listed.
    """
    if name not in PLUGINS:
        raise ProviderError(f"there is no provider plugin {name!r}", f"Give one of: {', '.join(PLUGINS)}")
    return PLUGINS[name]


def give(options: ort.SessionOptions, name: str, threads: int, more: Mapping[str, str]) -> None:
    """Let a session with these options run on the first device of a plugin. `more` is added to the plugin's options.

    Raises:
        ProviderError: see `register`.
    """
    devices, plugin = register(name), find_plugin(name)
    module = plugin.load()
    assert module is not None  # it is registered
    options.add_provider_for_devices(devices[:1], {**plugin.options(module, threads), **more})


def _devices(plugin: Plugin) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == plugin.provider]


def _register(plugin: Plugin) -> None:
    module = plugin.load()
    if module is None:
        raise ProviderError(f"{plugin.package} is not installed", f"Run: {plugin.pip}")
    try:
        ort.register_execution_provider_library(plugin.provider, module.get_library_path())
    except Exception as error:  # the package and onnxruntime raise classes of their own
        raise plugin.does_not_load(error) from None
