"""Our own products: the native library of `kernels/`, checked before it is loaded; without it, onnxruntime's products.

In: the folder `native` beside this file, which platform wheels fill and `make kernels` fills in a checkout, and the
environment variable VOXRILL_KERNELS: `off`, or an instruction set to use instead of the best one. Out: sessions that
know the operator voxrill::MatMulNBits, or the reason why they do not.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime as ort

from voxrill.runtime.errors import DeviceError, VoxrillWarning
from voxrill.runtime.version import VERSION

DOMAIN, OPERATOR = "voxrill", "MatMulNBits"
"""The operator. Its inputs and attributes are those of com.microsoft::MatMulNBits."""
INTERFACE = 2
"""A number for the library's operators and functions together; it changes when one of them does."""
NATIVE = Path(__file__).parent / "native"
FACTS = "library.json"
SWITCH, OFF = "VOXRILL_KERNELS", "off"
SLOW = "portable"
"""The instruction set of plain C++: right, but slower than onnxruntime's products."""


@dataclass(frozen=True)
class OwnProducts:
    """Whether our own products run here.

    path: the library; None where onnxruntime's products run. sets: the instruction sets that run here, best first;
    chosen: the one in use; reason: why there is no library.
    """

    path: Path | None
    sets: tuple[str, ...] = ()
    chosen: str = ""
    reason: str = ""

    @property
    def fast(self) -> bool:
        """Whether they are worth using: the library is there, and has an instruction set for this processor."""
        return self.path is not None and self.chosen != SLOW


class _Unfit(Exception):
    """A library that must not be loaded here."""


def here() -> str:
    """This machine as `library.json` names platforms, such as linux-x86_64."""
    system = {"Darwin": "macos"}.get(platform.system(), platform.system().lower())
    machine = platform.machine().lower()
    return f"{system}-{ {'amd64': 'x86_64', 'arm64': 'aarch64'}.get(machine, machine) }".replace(" ", "")


def hash_of(path: Path) -> str:
    """The SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


@cache
def own_products() -> OwnProducts:
    """Look for the library, and load it if it fits. It is asked once in a process.

    Raises:
        DeviceError: VOXRILL_KERNELS names an instruction set that does not run here.
    """
    wish = os.environ.get(SWITCH, "")
    if wish == OFF:
        return OwnProducts(None, reason=f"switched off by {SWITCH}={OFF}")
    if not (NATIVE / FACTS).is_file():
        return _without(wish, "this installation has no library of products (in a clone: python -m kernels.build)")
    try:
        library, path = _loaded(NATIVE)
    except _Unfit as reason:
        found = _without(wish, str(reason))
        warnings.warn(f"{reason}. onnxruntime's products run instead, until make kernels", VoxrillWarning, stacklevel=2)
        return found
    sets = tuple(library.voxrill_kernels_sets().decode().split())
    if wish and not library.voxrill_kernels_choose(wish.encode()):
        raise DeviceError(f"{SWITCH}={wish} does not run here", f"Set it to {OFF} or one of: {', '.join(sets)}")
    return OwnProducts(path, sets, wish or sets[0])


def _without(wish: str, reason: str) -> OwnProducts:
    if wish:
        raise DeviceError(f"{SWITCH}={wish} cannot be used: {reason}", f"Unset it, or set it to {OFF}")
    return OwnProducts(None, reason=reason)


def _loaded(folder: Path) -> tuple[Any, Path]:
    """The library of a folder. What its facts say is compared before any code of it runs."""
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
        path = folder / facts["library"]
        wanted = {"interface": INTERFACE, "version": VERSION, "platform": here(), "sha256": hash_of(path)}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _Unfit(f"the library of products in {folder} cannot be read: {error}") from None
    for name, value in wanted.items():
        if facts.get(name) != value:
            raise _Unfit(f"{path}: its {name} is {facts.get(name)}, and {value} is wanted")
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise _Unfit(f"{path} cannot be loaded: {error}") from None
    library.voxrill_kernels_sets.restype = ctypes.c_char_p
    return library, path


def register(options: ort.SessionOptions) -> bool:
    """Let sessions of these options run our operators; whether the library is here.

    Raises:
        DeviceError: VOXRILL_KERNELS names an instruction set that does not run here.
    """
    path = own_products().path
    if path is not None:
        options.register_custom_ops_library(str(path))
    return path is not None


def choose(name: str) -> None:
    """Use another instruction set from now on, in the whole process: for tests and measurements.

    Raises:
        DeviceError: there is no library, or the instruction set does not run here.
    """
    found = own_products()
    if found.path is None or not ctypes.CDLL(str(found.path)).voxrill_kernels_choose(name.encode()):
        raise DeviceError(f"the instruction set {name} does not run here", f"These do: {', '.join(found.sets)}")


@dataclass(frozen=True)
class Memory:
    """What packed weights take now: how many, how often a second graph found one, bytes, and bytes on huge pages."""

    weights: int
    shared: int
    bytes: int
    huge_bytes: int


def memory() -> Memory:
    """The memory of our products' weights in this process."""
    counts = (ctypes.c_int64 * 4)()
    path = own_products().path
    if path is not None:
        ctypes.CDLL(str(path)).voxrill_kernels_statistics(counts)
    return Memory(*counts)
