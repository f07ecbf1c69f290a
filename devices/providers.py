"""Execution providers: how a graph is given to the hardware. Today the CPU, set up so that graphs share it well."""

from __future__ import annotations

import onnxruntime as ort

CPU = "CPUExecutionProvider"

_ERRORS_ONLY = 3


def session_options(threads: int = 0) -> ort.SessionOptions:
    """Options every session of a model is opened with.

    Spinning threads are stopped after each run, so that idle sessions do not steal cores. Weights are not repacked:
    they stay memory-mapped and shared between nodes (the depthformer uses each weight in 8 places; repacking
    would copy it 8 times).

    Args:
        threads: threads of the session's pool; 0 for one per physical core.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _ERRORS_ONLY
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.disable_prepacking", "1")
    return options
