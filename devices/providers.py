"""Execution providers: which there are, whether they are here, and how a graph is given to one.

In: a provider's short name. Out: session options, and after loading, which nodes of the graph it took. onnxruntime
gives every node that a provider does not take to the CPU, and says nothing; here that is asked for and told.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime as ort

from voxrill.devices.plugins import PLUGINS, Plugin, give
from voxrill.devices.processor import thread_limit
from voxrill.devices.silence import silent_stdout
from voxrill.runtime.errors import ProviderError

CPU = "CPUExecutionProvider"
CPU_NAME = "cpu"

_ERRORS_ONLY, FATAL_ONLY = 3, 4
"""onnxruntime's levels of logging."""

_EXTERNAL_FROM = 1024
"""Bytes from which a weight goes to the tuned graph's data file: only there it has a repacked form and is mapped."""


@dataclass(frozen=True)
class Provider:
    """A provider.

    name: what a user calls it; full_name: what onnxruntime calls it; evidence: what of it was executed; remedy: how to
    get it; options: what onnxruntime is told by the user's wish.
    """

    name: str
    full_name: str
    evidence: str
    remedy: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def here(self) -> bool:
        """Whether it is installed; whether it finds a device is another question."""
        if self.plugin is None:
            return self.full_name in ort.get_available_providers()
        return importlib.util.find_spec(self.plugin.module) is not None

    @property
    def plugin(self) -> Plugin | None:
        """The package it comes in; None where it is, or could only be, a part of this onnxruntime."""
        plugin = PLUGINS.get(self.name)
        if plugin is not None and plugin.may_be_built_in and self.full_name in ort.get_available_providers():
            return None
        return plugin


_CLASSIC = (
    Provider(CPU_NAME, CPU, "executed on x86-64", "pip install onnxruntime"),
    Provider("coreml", "CoreMLExecutionProvider", "untested", "on macOS: pip install onnxruntime"),
    Provider("nnapi", "NnapiExecutionProvider", "untested", "build onnxruntime for Android with --use_nnapi"),
    Provider("xnnpack", "XnnpackExecutionProvider", "untested", "build onnxruntime with --use_xnnpack"),
    Provider("cuda", "CUDAExecutionProvider", "untested", "pip install onnxruntime-gpu"),
)
"""Those that are part of onnxruntime, where it was built with them."""

PROVIDERS = {provider.name: provider for provider in _CLASSIC} | {
    name: Provider(name, plugin.provider, plugin.evidence, plugin.pip) for name, plugin in PLUGINS.items()
}
"""All of them, by short name."""

CPU_PROVIDER = PROVIDERS[CPU_NAME]


def find_provider(word: str) -> Provider:
    """A provider by its short or full name, in any case, and its settings: NAME, or NAME:KEY=VALUE,KEY=VALUE.

    Raises:
        DeviceError: there is no such provider, setting or value; the valid ones are listed.
    """
    name, colon, settings = word.partition(":")
    for provider in PROVIDERS.values():
        if name.casefold() in (provider.name, provider.full_name.casefold()):
            return replace(provider, options=_options(provider, settings.split(","))) if colon else provider
    raise ProviderError(f"there is no execution provider {name!r}", f"Give one of: {', '.join(PROVIDERS)}")


def _options(provider: Provider, settings: Iterable[str]) -> dict[str, str]:
    known = PLUGINS[provider.name].settings if provider.name in PLUGINS else {}
    options: dict[str, str] = {}
    for setting in settings:
        key, _, value = setting.partition("=")
        if key not in known:
            remedy = (
                f"Give {', '.join(f'{provider.name}:{name}=...' for name in known)}"
                if known
                else "Leave the colon and what follows it out: it has no settings"
            )
            raise ProviderError(f"the provider {provider.name} has no setting {key!r}", remedy)
        options |= known[key](value)
    return options


def open_session(
    path: Path, options: ort.SessionOptions, provider: Provider, threads: int = 0, strict: bool = False
) -> ort.InferenceSession:
    """Load a graph for a provider; strict refuses, as onnxruntime's own error, what it would not take wholly.

    Raises:
        ProviderError: the provider is not installed, or finds nothing to run on.
        Exception: whatever onnxruntime raises if the graph does not load.
    """
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for `assignment`
    if provider.name == CPU_NAME:
        return ort.InferenceSession(str(path), sess_options=options, providers=[CPU])
    if strict:
        options.log_severity_level = FATAL_ONLY  # the refusal is told by whoever catches it
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    plugin = provider.plugin
    if plugin is not None:
        give(options, provider.name, threads, provider.options)
        with silent_stdout() if plugin.greets else nullcontext():
            return ort.InferenceSession(str(path), sess_options=options, enable_fallback=False)
    if not provider.here:
        raise ProviderError(f"this onnxruntime has no {provider.full_name}", f"To get it: {provider.remedy}")
    # What it does not take goes to the CPU, unsaid; where it fails, all of it would, but for the last word.
    providers = [provider.full_name]
    return ort.InferenceSession(str(path), sess_options=options, providers=providers, enable_fallback=False)


def assignment(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """Nodes by operator, by provider (full name), of a session that was opened as above.

    The CPU's and a plugin's are complete. Of a provider that is a part of onnxruntime most are missing (of WebGPU's in
    a decoder 6 of 275, onnxruntime 1.27).

    Raises:
        ProviderError: this onnxruntime does not say.
    """
    if not hasattr(session, "get_provider_graph_assignment_info"):
        here = f"onnxruntime {ort.__version__}"
        raise ProviderError(f"{here} does not say what a provider takes", "Run: pip install --upgrade onnxruntime")
    given: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        given.setdefault(part.ep_name, Counter()).update(node.op_type for node in part.get_nodes())
    return given


def session_options(threads: int = 0, repack: bool = False, tuned: bool = False) -> ort.SessionOptions:
    """Options every session of a model is opened with.

    Spinning threads are stopped after each run, so that idle sessions do not steal cores.

    Args:
        threads: threads of the session's pool; 0 for one per physical core, or fewer where a container has less.
        repack: let onnxruntime copy the weights into its own layout. It pays for graphs that see many positions in
            every call (1.25 times faster encoder), and quantised products are slow without it. Without it weights
            stay memory-mapped, which for the 1.5 B backbone in float32 means 0.1 s instead of 5 s to load and 4.0 GB
            less memory, with the same decode step and a prefill 1.2 times slower.
        tuned: the graph is one that `tuning_options` wrote: it holds the repacked weights, which are then mapped, and
            is optimised already, so that nothing may be rewritten.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or thread_limit()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "0" if repack or tuned else "1")
    if tuned:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def tuning_options(target: Path) -> ort.SessionOptions:
    """Options of a session that, by being made, writes its graph as this processor wants it to the file `target`.

    The optimised graph goes to `target`, its weights to a data file beside it: each as it was, and repacked. Nodes that
    share a weight share its repacked form.
    """
    options = session_options(threads=1, repack=True)
    options.optimized_model_filepath = str(target)
    for key, value in {
        "save_external_prepacked_constant_initializers": "1",
        "optimized_model_external_initializers_file_name": data_file(target).name,
        "optimized_model_external_initializers_min_size_in_bytes": str(_EXTERNAL_FROM),
    }.items():
        options.add_session_config_entry(f"session.{key}", value)
    return options


def data_file(graph: Path) -> Path:
    """Where the weights of a graph lie that are kept apart."""
    return graph.with_name(f"{graph.name}.data")
