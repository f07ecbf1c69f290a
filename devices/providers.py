"""Execution providers: how a graph is given to the hardware. Today the CPU, set up so that graphs share it well."""

from __future__ import annotations

from pathlib import Path

import onnxruntime as ort

CPU = "CPUExecutionProvider"

_ERRORS_ONLY = 3


_EXTERNAL_FROM = 1024
"""Bytes from which a weight goes to the tuned graph's data file: only there it has a repacked form and is mapped."""


def session_options(threads: int = 0, repack: bool = False, tuned: bool = False) -> ort.SessionOptions:
    """Options every session of a model is opened with.

    Spinning threads are stopped after each run, so that idle sessions do not steal cores.

    Args:
        threads: threads of the session's pool; 0 for one per physical core.
        repack: let onnxruntime copy the weights into its own layout. It pays for graphs that see many positions in
            every call (1.25 times faster encoder), and quantised products are slow without it. Without it weights
            stay memory-mapped, which for the 1.5 B backbone in float32 means 0.1 s instead of 5 s to load and 4.0 GB
            less memory, with the same decode step and a prefill 1.2 times slower.
        tuned: the graph is one that `tuning_options` wrote: it holds the repacked weights, which are then mapped, and
            is optimised already, so that nothing may be rewritten.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
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
