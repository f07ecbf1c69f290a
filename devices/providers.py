"""Execution providers: which there are, whether they are here, and how a graph is given to one.

In: a provider's short name. Out: session options and, after loading, which nodes of the graph the provider took.
onnxruntime silently gives every other node to the CPU. This module finds that out, so that users can be told.
"""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import onnxruntime as ort

from voxrill.devices import overflow
from voxrill.devices.plugins import PLUGINS, Plugin, give
from voxrill.devices.processor import thread_limit
from voxrill.devices.silence import silent_stdout
from voxrill.runtime.errors import ProviderError

CPU = "CPUExecutionProvider"
CPU_NAME = "cpu"

_ERRORS_ONLY, FATAL_ONLY = 3, 4
"""Two of onnxruntime's log levels."""

EXACT_ENTRY = "session.x64quantprecision"
"""onnxruntime's entry for exact 8-bit products."""

_EXTERNAL_FROM = 1024
"""A weight of at least this many bytes goes to the tuned graph's data file. Only there it is repacked and mapped."""


@dataclass(frozen=True)
class Provider:
    """A provider.

    name: its name for users; full_name: its name in onnxruntime; evidence: what of it was executed; remedy: how to get
    it; options: options for onnxruntime that the user has set.
    """

    name: str
    full_name: str
    evidence: str
    remedy: str
    options: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def here(self) -> bool:
        """Whether it is installed. It may still find no device."""
        if self.plugin is None:
            return self.full_name in ort.get_available_providers()
        return importlib.util.find_spec(self.plugin.module) is not None

    @property
    def plugin(self) -> Plugin | None:
        """The package that it comes in; None for a provider that is a part of onnxruntime, or could only be one."""
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
"""Providers that are a part of onnxruntime, if it was built with them."""

PROVIDERS = {provider.name: provider for provider in _CLASSIC} | {
    name: Provider(name, plugin.provider, plugin.evidence, plugin.pip) for name, plugin in PLUGINS.items()
}
"""All of them, by short name."""

CPU_PROVIDER = PROVIDERS[CPU_NAME]


def find_provider(word: str) -> Provider:
    """A provider from NAME or NAME:KEY=VALUE,KEY=VALUE. NAME is short or full, in capitals or not.

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
    """Load a graph for a provider. With `strict`, onnxruntime refuses a graph that would run partly on the CPU.

    Raises:
        ProviderError: the provider is not installed, or finds nothing to run on.
        Exception: onnxruntime's own error, if the graph does not load.
    """
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")  # for `assignment`
    if provider.name == CPU_NAME:
        return ort.InferenceSession(str(path), sess_options=options, providers=[CPU])
    if strict:
        options.log_severity_level = FATAL_ONLY  # the caller reports the refusal
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    plugin = provider.plugin
    if plugin is not None:
        give(options, provider.name, threads, provider.options)
        with silent_stdout() if plugin.greets else nullcontext():
            return ort.InferenceSession(str(path), sess_options=options, enable_fallback=False)
    if not provider.here:
        raise ProviderError(f"this onnxruntime has no {provider.full_name}", f"To get it: {provider.remedy}")
    # onnxruntime gives the nodes that the provider does not take to the CPU. Without enable_fallback=False it would
    # give the CPU the whole graph where the provider fails, and print that to stdout.
    providers = [provider.full_name]
    return ort.InferenceSession(str(path), sess_options=options, providers=providers, enable_fallback=False)


def open_foreign(path: Path, threads: int = 0, repack: bool = False) -> ort.InferenceSession:
    """Load a graph that Voxrill did not make, for the CPU: with exact 8-bit products if it takes them.

    Raises:
        Exception: onnxruntime's own error, if the graph does not load.
    """
    options = session_options(threads, repack)
    options.log_severity_level = FATAL_ONLY
    try:
        return ort.InferenceSession(str(path), sess_options=options, providers=[CPU])
    except Exception:  # a class per status
        options = session_options(threads, repack, exact=False)
        return ort.InferenceSession(str(path), sess_options=options, providers=[CPU])


def assignment(session: ort.InferenceSession) -> dict[str, Counter[str]]:
    """How many nodes of each operator each provider (full name) took, in a session of `open_session`.

    The lists of the CPU and of plugins are complete. Those of a provider that is a part of onnxruntime lack most nodes:
    for WebGPU, 6 of 275 nodes of a decoder were listed (onnxruntime 1.27).

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


def session_options(
    threads: int = 0, repack: bool = False, tuned: bool = False, exact: bool = True
) -> ort.SessionOptions:
    """Options that every session of a model is opened with.

    Threads stop spinning after each run, so that idle sessions do not steal cores.

    Args:
        threads: threads of the session's pool; 0 for one per physical core, or fewer where a container has less.
        repack: let onnxruntime copy the weights into its own layout. This pays for graphs that see many positions in
            every call (the encoder is 1.25 times faster), and quantised products are slow without it. Without it,
            weights stay memory-mapped: the 1.5 B backbone in float32 loads in 0.1 s instead of 5 s and takes 4.0 GB
            less memory; the decode step takes as long, and prefill 1.2 times as long.
        tuned: the graph was written with `tuning_options`. It holds the repacked weights, which are then mapped, and it
            is optimised already, so nothing may be rewritten.
        exact: 8-bit products are exact, also where they overflow (see `voxrill.devices.overflow`). There onnxruntime,
            if it is new enough, makes the weights unsigned, whose products do not. It refuses a graph in which several
            nodes share such a weight, unless its numbers are small (see `voxrill.quantize.weights`).
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or thread_limit()
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "0" if repack or tuned else "1")
    options.add_session_config_entry(EXACT_ENTRY, "1" if exact and overflow.asks_exact() else "0")
    if tuned:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def tuning_options(target: Path) -> ort.SessionOptions:
    """Options of a session that writes its graph to `target`, optimised for this processor, when it is made.

    The weights go to a data file beside it, both as they were and repacked. Nodes that share a weight share its
    repacked form.
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
    """The file beside a graph that holds its large weights."""
    return graph.with_name(f"{graph.name}.data")
