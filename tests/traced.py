"""Graphs that the tests trace once: many bundles of a run have some in common, and tracing one takes up to a minute.

In: the exporter's `write_graph`. Out: the same function, which copies the file of an equal graph that was written
before. Two graphs are equal if module, weights, shapes and the limit for weights in a file of their own are. The code
of the exporter is the same throughout a run.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WriteGraph = Callable[[Any, Path], list[dict[str, Any]]]


def traced_once(write_graph: WriteGraph, kept: Path) -> WriteGraph:
    """`write_graph`, with what it wrote in the folder `kept`, for all workers of pytest-xdist."""
    from filelock import FileLock

    def write(plan: Any, directory: Path) -> list[dict[str, Any]]:
        key = kept / _fingerprint(plan)
        kept.mkdir(exist_ok=True)
        with FileLock(f"{key}.lock"):
            if not (key / "parity.json").is_file():
                key.mkdir(exist_ok=True)
                (key / "parity.json").write_text(json.dumps(write_graph(plan, key)))
        for file in key.glob("*.onnx*"):
            shutil.copy(file, directory)
        return json.loads((key / "parity.json").read_text())

    return write


def _fingerprint(plan: Any) -> str:
    from voxrill.export import write
    from voxrill.export.checkpoint import sensible_config

    with sensible_config():
        module = plan.build()
    stream = io.BytesIO()
    pickler = pickle.Pickler(stream)
    pickler.fast = True  # without a memory of objects, whose identity differs from worker to worker
    pickler.dump((module, plan.spec, plan.trace, plan.tried, plan.external, write.EXTERNAL_ABOVE))
    return hashlib.sha256(stream.getvalue()).hexdigest()[:32]
