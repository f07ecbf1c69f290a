"""Build the library of products: for this machine with any C++ compiler, for others with zig.

    python -m kernels.build                          # for this machine, where the package looks for it
    python -m kernels.build --target linux-aarch64 --out build/kernels/linux-aarch64

In: the sources beside this file. Out, in a folder: the library, and `library.json`, which says what it is: the package
checks that before it loads the library. Nothing is built again that was built from the same sources.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from voxrill.devices.kernels import FACTS, INTERFACE, NATIVE, hash_of, here
from voxrill.runtime.version import VERSION

SOURCES = Path(__file__).parent

COMMON = ("arena", "attention", "cpu", "operator", "pack", "portable")
_AVX2 = ("-mavx2", "-mfma", "-mf16c")
X86 = {
    "avx2": _AVX2,
    "avx_vnni": (*_AVX2, "-mavxvnni"),
    "avx512_vnni": (*_AVX2, "-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni"),
}
"""The files of the instruction sets, and the features that each may use. Nothing else may use them."""
ARM = {"neon_dotprod": ("dotprod",), "neon_i8mm": ("dotprod", "i8mm")}

# Without contraction, the compiler makes no fused operation where the source has none: all files round alike.
FLAGS = ("-std=c++17", "-O3", "-ffp-contract=off", "-fno-math-errno", "-fvisibility=hidden", "-fPIC", "-w")


@dataclass(frozen=True)
class Target:
    """A kind of machine.

    zig: its name for zig; tag: the platform in a wheel's name; suffix: of a library; tested: whether our tests run it.
    """

    zig: str
    tag: str
    suffix: str
    tested: bool = False

    @property
    def machine(self) -> str:
        """The processor's architecture."""
        return self.zig.split("-")[0]


TARGETS = {
    "linux-x86_64": Target("x86_64-linux-gnu.2.28", "manylinux_2_28_x86_64", ".so", tested=True),
    "linux-aarch64": Target("aarch64-linux-gnu.2.28", "manylinux_2_28_aarch64", ".so", tested=True),
    "macos-x86_64": Target("x86_64-macos.11.0", "macosx_11_0_x86_64", ".dylib"),
    "macos-aarch64": Target("aarch64-macos.11.0", "macosx_11_0_arm64", ".dylib"),
    "windows-x86_64": Target("x86_64-windows-gnu", "win_amd64", ".dll"),
    "windows-aarch64": Target("aarch64-windows-gnu", "win_arm64", ".dll"),
}


class NotBuilt(Exception):
    """The library cannot be built here; the message says why."""


def build(name: str, folder: Path, portable: bool = False) -> Path:
    """Build for a target, unless the folder has what these sources make; the library.

    Args:
        name: one of `TARGETS`.
        folder: where the library lies afterwards.
        portable: only with zig, so that it runs with older systems than this one.

    Raises:
        NotBuilt: there is no compiler that can do it.
    """
    target, sources = TARGETS[name], _digest()
    library = folder / f"voxrill_kernels-{sources[:8]}{target.suffix}"
    if _is_built(folder, library, name, sources):
        return library
    reasons = []
    for compiler in _compilers(name, portable):
        try:
            _compile(compiler, target, folder, library)
        except subprocess.CalledProcessError as error:
            reasons.append(f"{compiler[0]}: {error.stderr.strip()[-500:]}")
            continue
        facts = {"interface": INTERFACE, "version": VERSION, "platform": name, "library": library.name}
        facts |= {"sha256": hash_of(library), "sources": sources}
        _publish(folder, facts)
        return library
    raise NotBuilt("; ".join(reasons) or "no compiler: pip install ziglang==0.17.1, or for this machine g++")


def _publish(folder: Path, facts: dict[str, object]) -> None:
    """Write the facts at once, so that a program that starts meanwhile finds the old library or the new one."""
    unfinished = folder / f"{FACTS}.unfinished"
    unfinished.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    unfinished.replace(folder / FACTS)
    for path in folder.glob("voxrill_kernels*"):
        if path.name != facts["library"]:
            path.unlink()


def _is_built(folder: Path, library: Path, name: str, sources: str) -> bool:
    try:
        facts = json.loads((folder / FACTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    wanted = {"platform": name, "sources": sources, "version": VERSION, "interface": INTERFACE}
    return wanted.items() <= facts.items() and library.is_file() and hash_of(library) == facts["sha256"]


def _digest() -> str:
    digest = hashlib.sha256()
    for path in sorted(SOURCES.iterdir()):
        if path.suffix in (".cc", ".h", ".py"):
            digest.update(f"{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _compilers(name: str, portable: bool) -> Iterator[list[str]]:
    """Commands that may compile for a target: this machine's compiler if it is this machine, then zig."""
    if name == here() and not portable:
        for candidate in (os.environ.get("CXX"), "c++", "g++", "clang++"):
            if candidate and shutil.which(candidate):
                yield [candidate]
                break
    if importlib.util.find_spec("ziglang"):
        yield [sys.executable, "-m", "ziglang", "c++", "-target", TARGETS[name].zig]


def _compile(compiler: list[str], target: Target, folder: Path, library: Path) -> None:
    """Compile each file with the features that it may use, and link. The library appears when it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    zig = "ziglang" in compiler
    with tempfile.TemporaryDirectory(dir=folder) as place, ThreadPoolExecutor(os.cpu_count()) as pool:

        def one(source: str, flags: tuple[str, ...]) -> str:
            out = str(Path(place) / f"{source}.o")
            _run(*compiler, *FLAGS, *flags, "-c", str(SOURCES / f"{source}.cc"), "-o", out)
            return out

        sets = X86 if target.machine == "x86_64" else {name: _arm_flags(ARM[name], zig) for name in ARM}
        objects = list(pool.map(one, [*COMMON, *sets], [() for _ in COMMON] + list(sets.values())))
        static = () if zig or platform.system() != "Linux" else ("-static-libstdc++", "-static-libgcc")
        unfinished = Path(place) / library.name
        _run(*compiler, "-shared", "-s", *static, *objects, "-o", str(unfinished))
        unfinished.replace(library)


def _arm_flags(features: tuple[str, ...], zig: bool) -> tuple[str, ...]:
    return (f"-mcpu=generic+{'+'.join(features)}",) if zig else (f"-march=armv8.2-a+{'+'.join(features)}",)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)


def main() -> None:
    """Command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", choices=TARGETS, default=here(), help=f"the kind of machine (default: {here()})")
    parser.add_argument("--out", type=Path, default=NATIVE, help="the folder for the library")
    args = parser.parse_args()
    try:
        print(build(args.target, args.out))
    except NotBuilt as reason:
        sys.exit(f"the library of products was not built: {reason}")


if __name__ == "__main__":
    main()
