"""What the figures were measured on: processor, memory, system, versions. Nothing here is measured."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

import psutil

from benchmarks.protocol import Json
from voxrill.devices.pages import page_setting
from voxrill.devices.processor import described

FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimddp", "i8mm", "bf16", "sve")
"""Instructions that decide how fast products in few bits are."""
PACKAGES = ("voxrill", "onnxruntime", "numpy")


def machine() -> Json:
    """Facts of this machine."""
    cpu = dict(described())
    flags = cpu.get("flags", cpu.get("Features", "")).split()
    return {
        "processor": cpu.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "cores": os.cpu_count(),
        "pages": _pages(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def load_average() -> float:
    """Processes that were ready to run, averaged over the last minute."""
    return round(float(psutil.getloadavg()[0]), 2)


def _pages() -> str:
    """Sizes of pages, and who gets huge ones."""
    setting = page_setting()
    if setting is None:
        return "no huge pages"
    return f"pages of {setting.page >> 10} kB, huge ones of {setting.huge >> 20} MB ({setting.who})"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
