"""Execution providers that are packages of their own: found, and registered with the installed onnxruntime.

In: a provider's short name. Out: the devices it finds here, for `SessionOptions.add_provider_for_devices`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import onnxruntime as ort

from voxrill.devices.errors import DeviceError


class ProviderError(DeviceError):
    """An execution provider that is not known, not installed, or finds nothing to run on."""


@dataclass(frozen=True)
class Plugin:
    """A provider in a package.

    provider: what onnxruntime calls it, and what it is registered as (QNN's devices bear the name of its registration);
    package: what pip calls it; module: which must have `get_library_path()`; options: what a session needs from it;
    evidence: what of it was executed, and what is untested.
    """

    provider: str
    package: str
    module: str
    evidence: str
    options: Callable[[ModuleType], dict[str, str]] = lambda _module: {}

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


PLUGINS = {
    "openvino": Plugin(
        "OpenVINOExecutionProvider",
        "onnxruntime-ep-openvino",
        "onnxruntime_ep_openvino",
        "executed on an x86-64 CPU; untested on Intel GPUs and NPUs",
    ),
    "qnn": Plugin(
        "QNNExecutionProvider",
        "onnxruntime-qnn",
        "onnxruntime_qnn",
        "registered on x86-64, where it has a compiler and a simulator; untested on Snapdragon",
        lambda module: {"backend_path": module.get_qnn_htp_path()},
    ),
    "webgpu": Plugin(
        "WebGpuExecutionProvider",
        "onnxruntime-ep-webgpu",
        "onnxruntime_ep_webgpu",
        "registered on x86-64, where it found no GPU; untested",
    ),
}
"""By short name."""


def register(name: str) -> list[Any]:
    """Register a plugin, once a process, and list its devices (`onnxruntime.OrtEpDevice`), at least one.

    Raises:
        ProviderError: there is no such plugin, its package is missing or does not load, or it finds no device.
    """
    plugin = find_plugin(name)
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


def session_options_of(name: str) -> dict[str, str]:
    """Options that a session of this plugin needs beside its device; its package must be installed."""
    plugin = find_plugin(name)
    module = plugin.load()
    return plugin.options(module) if module else {}


def _devices(plugin: Plugin) -> list[Any]:
    return [device for device in ort.get_ep_devices() if device.ep_name == plugin.provider]


def _register(plugin: Plugin) -> None:
    if not hasattr(ort, "register_execution_provider_library"):
        raise ProviderError(
            f"onnxruntime {ort.__version__} takes no provider plugins", "Run: pip install --upgrade onnxruntime"
        )
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
