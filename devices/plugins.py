"""Execution providers that are packages of their own: found, and registered with the installed onnxruntime.

In: a provider's short name. Out: the devices it finds here, for `SessionOptions.add_provider_for_devices`.
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

    provider: what onnxruntime calls it, and what it is registered as (QNN's devices bear the name of its registration);
    package: what pip calls it; module: which must have `get_library_path()`; evidence: what of it was executed, and
    what is untested; options: what a session of so many threads (0: its own choice) needs to be told; settings: what a
    user may set, by its name, and what onnxruntime is told of a value; greets: whether its library writes to stdout;
    may_be_built_in: whether there are onnxruntimes that it is a part of, where it needs no options.
    """

    provider: str
    package: str
    module: str
    evidence: str
    options: Callable[[ModuleType, int], dict[str, str]] = lambda _module, _threads: {}
    settings: Mapping[str, Callable[[str], dict[str, str]]] = field(default_factory=dict)
    greets: bool = False
    may_be_built_in: bool = False

    @property
    def pip(self) -> str:
        """The command that installs it."""
        return f"pip install {self.package}"

    def load(self) -> ModuleType | None:
        """Its module; None where the package is not installed."""
        try:
            return importlib.import_module(self.module)
        except ImportError:
            return None


def _openvino(_module: ModuleType, threads: int) -> dict[str, str]:
    """Float32 stays float32: by itself it computes in bfloat16 on processors that have it."""
    wanted = {"INFERENCE_PRECISION_HINT": "f32"} | ({"INFERENCE_NUM_THREADS": str(threads)} if threads else {})
    return {"load_config": json.dumps({"CPU": wanted})}


def _qnn(module: ModuleType, _threads: int) -> dict[str, str]:
    return {"backend_path": module.get_qnn_htp_path()}


def _soc(name: str) -> dict[str, str]:
    """The chip to compile for; on the chip itself it need not be said."""
    soc = find_soc(name)
    return {"soc_model": str(soc.model), "htp_arch": str(soc.arch)}


PLUGINS = {
    "openvino": Plugin(
        "OpenVINOExecutionProvider",
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "executed on an x86-64 CPU; untested on Intel GPUs and NPUs",
        _openvino,
    ),
    "qnn": Plugin(
        "QNNExecutionProvider",
        "onnxruntime-qnn",
        "onnxruntime_qnn",
        "compiled and simulated on x86-64; untested on Snapdragon",
        _qnn,
        settings={"soc": _soc},
        greets=True,
    ),
    "webgpu": Plugin(
        "WebGpuExecutionProvider",
        "onnxruntime-ep-webgpu",
        "onnxruntime_ep_webgpu",
        "executed in onnxruntime-webgpu on a GPU in software; its plugin found none; untested on a GPU",
        may_be_built_in=True,
    ),
}
"""By short name."""

_REGISTERING = Lock()
"""Graphs are loaded by several threads, and onnxruntime refuses a library that it has."""


def register(name: str) -> list[Any]:
    """Register a plugin, once a process, and list its devices (`onnxruntime.OrtEpDevice`), at least one.

    Raises:
        ProviderError: there is no such plugin, its package is missing or does not load, or it finds no device.
    """
    plugin = find_plugin(name)
    if not hasattr(ort, "get_ep_devices"):
        raise ProviderError(f"onnxruntime {ort.__version__} takes no plugins", "Run: pip install --upgrade onnxruntime")
    with _REGISTERING:
        if not _devices(plugin):
            _register(plugin)
    devices = _devices(plugin)
    if not devices:
        raise ProviderError(
            f"{plugin.package} finds nothing here that it could run on", "Choose another provider: voxrill devices"
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
    """Have a session of these options run on the first device of a plugin, which is told `more` beside its own.

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
    except Exception as error:  # its package and onnxruntime raise classes of their own
        raise ProviderError(
            f"{plugin.package} does not load: {' '.join(str(error).split())}",
            f"Versions may not fit: {plugin.pip} --upgrade onnxruntime",
        ) from None
