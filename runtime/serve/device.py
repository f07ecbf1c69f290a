"""GET /v1/device: the model and the device, for the page, and for people who look after several devices."""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

from voxrill.devices.processor import cores, processor
from voxrill.runtime.serve.service import Service


def device(service: Service, sessions: int) -> dict[str, Any]:
    """Facts of the bundle and the device; `sessions` realtime ones are open."""
    model = service.model
    manifest = model.manifest
    return {
        "object": "device",
        "bundle": manifest.name,
        "family": manifest.family,
        "source": manifest.source.name,
        "precision": {name: graph.precision for name, graph in manifest.graphs.items()},
        "bytes": manifest.size,
        "processor": processor(),
        "cores": cores(),
        "threads": model.threads,
        "provider": {name: graph.provider.name for name, graph in model.graphs.items()},
        "onnxruntime": ort.__version__,
        "voice": manifest.tasks.chat.voice,
        "voices": manifest.tasks.chat.voices,
        "examples": manifest.taught.examples,
        "sessions": {"open": sessions, "most": service.limits.sessions},
    }
