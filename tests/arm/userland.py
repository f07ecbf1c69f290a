"""An ARM64 userland in build/arm, made without root: Debian's packages and aarch64 wheels, run by qemu-user.

    make test-arm                                           # makes it if it is not there, and runs the tests in it
    python -m tests.arm.userland                            # makes it
    QEMU_CPU=cortex-a72 build/arm/python -m voxrill --help  # runs this repository's voxrill in it

In: a Debian archive, by apt with its state in build/arm/apt (apt checks every file against the signed index), and a
package index, by pip. Out, in build/arm:

    python        runs the userland's Python, as the processor that $QEMU_CPU names
    debian/       the system: Python 3.13, glibc 2.41, as in Raspberry Pi OS of 2025; and qemu-user 10
    device/       aarch64 wheels of what a device installs
    testing/      aarch64 wheels that only the tests need
    voxrill/      this repository's wheel, with our own products if zig is here to compile them
    kernels/      the library of these products
    wheels/       all wheels as they were downloaded

Each folder is filled under another name and renamed when it is complete. A file NAME.made says what it was made from;
it is made again only if that changes. Downloads are kept, so an interrupted run continues where it stopped.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

from kernels.build import NotBuilt, build
from tests.places import ROOT

ARM = ROOT / "build" / "arm"
PYTHON = ARM / "python"

MIRROR = "http://deb.debian.org/debian"
"""Debian's archive. The environment variable DEBIAN_MIRROR names another one."""
SUITE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
PYTHON_VERSION, GLIBC = "3.13", 41
"""The versions in the suite: Python, and glibc 2.x."""
PACKAGES = (f"python{PYTHON_VERSION}-minimal", f"libpython{PYTHON_VERSION}-stdlib", "libstdc++6")
QEMU = "qemu-user"  # version 10 in trixie is static and shows the guest's /proc/cpuinfo; bookworm's 7.2 does neither

ROOMS = ("export", "quantize", "runtime", "devices", "src", "kernels")
TESTING = ("pytest>=8.3",)
SECONDS = 900  # for one command: apt fetches 85 MB


class Unavailable(Exception):
    """The userland cannot be made here; the message says what is missing."""


def make_userland() -> None:
    """Make the parts that are missing or out of date.

    Raises:
        Unavailable: a part cannot be made here.
    """
    _check_host()
    ARM.mkdir(parents=True, exist_ok=True)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    needed = sorted(project["project"]["dependencies"])
    with (ARM / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        _part("debian", [_mirror(), SUITE, *PACKAGES, QEMU], _debian)
        _part("device", [PYTHON_VERSION, *needed], lambda folder: _wheels(folder, needed))
        _part("testing", [PYTHON_VERSION, *TESTING], lambda folder: _wheels(folder, TESTING))
        _part("voxrill", [_digest()], _voxrill)
        _write_python()


def wheel_tags(glibc: int) -> list[str]:
    """pip's options for wheels that run on aarch64 with glibc 2.`glibc`. pip wants each platform by name."""
    names = ["manylinux2014_aarch64", *(f"manylinux_2_{minor}_aarch64" for minor in range(17, glibc + 1))]
    return [word for name in names for word in ("--platform", name)]


def run_inside(processor: str, *arguments: object, seconds: float, **environment: str) -> subprocess.CompletedProcess:
    """Run the userland's Python as a processor, in the repository's root, without this machine's environment."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    settings = {"QEMU_CPU": processor, "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", **environment}
    command = [str(PYTHON), *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env={**kept, **settings}, capture_output=True, text=True, timeout=seconds)


def _check_host() -> None:
    """Refuse a machine without the necessary tools."""
    if sys.platform != "linux":
        raise Unavailable("the ARM64 userland needs Linux: qemu-user translates system calls")
    missing = [tool for tool in ("apt-get", "dpkg", "dpkg-deb") if not shutil.which(tool)]
    if missing:
        raise Unavailable(f"{', '.join(missing)}: not installed; the ARM64 userland is made of Debian's packages")
    if not KEYRING.is_file():
        raise Unavailable(f"{KEYRING} is missing: apt-get install debian-archive-keyring")


def _part(name: str, facts: list[str], make: Callable[[Path], None]) -> None:
    """Fill the folder `name` with `make`, unless it was already made from the same facts."""
    folder, made = ARM / name, ARM / f"{name}.made"
    wanted = json.dumps(facts)
    if folder.is_dir() and made.is_file() and made.read_text(encoding="utf-8") == wanted:
        return
    print(f"making {folder}", file=sys.stderr, flush=True)
    made.unlink(missing_ok=True)
    unfinished = ARM / f"{name}.unfinished"
    for stale in (folder, unfinished):
        shutil.rmtree(stale, ignore_errors=True)
    unfinished.mkdir()
    make(unfinished)
    unfinished.rename(folder)
    made.write_text(wanted, encoding="utf-8")


def _debian(folder: Path) -> None:
    """The system's packages and the emulator, fetched by apt and unpacked."""
    host = _run("dpkg", "--print-architecture").strip()
    apt = _apt(ARM / "apt", host)
    _run(*apt, "update", what="Debian's package index")
    _run(*apt, "autoclean")  # remove packages of an earlier run that the index no longer has
    packages = (*PACKAGES, f"{QEMU}:{host}")
    _run(*apt, "install", "--no-install-recommends", "--download-only", "--yes", *packages, what="Debian's packages")
    _unpack(sorted((ARM / "apt" / "archives").glob("*.deb")), folder)
    (folder / "lib").symlink_to(
        "usr/lib"
    )  # in Debian the package base-files makes this link; nothing else here needs that package


def _apt(state: Path, host: str) -> list[str]:
    """apt-get for arm64 and this machine's packages, with its state in a folder of its own and the system's proxies."""
    for folder in ("lists/partial", "archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    source = f"deb [arch=arm64,{host} signed-by={KEYRING}] {_mirror()} {SUITE} main\n"
    (state / "sources.list").write_text(source, encoding="utf-8")
    settings = {
        "Dir::State": state, "Dir::State::lists": state / "lists", "Dir::State::status": state / "status",
        "Dir::Cache": state, "Dir::Cache::archives": state / "archives", "Dir::Etc::sourcelist": state / "sources.list",
        "Dir::Etc::sourceparts": "/dev/null", "Dir::Etc::preferences": "/dev/null",
        "Dir::Etc::preferencesparts": "/dev/null", "APT::Architecture": "arm64", "APT::Architectures::": "arm64",
        "Acquire::Languages": "none", "APT::Update::Error-Mode": "any", "Acquire::Retries": "2",
    }  # fmt: skip
    options = [f"{name}={value}" for name, value in settings.items()]
    # For root, apt would fetch as another user, who cannot write into a folder of root.
    options += [f"APT::Architectures::={host}", "APT::Sandbox::User="]
    return ["apt-get", "-q", *(word for option in options for word in ("-o", option))]


def _mirror() -> str:
    return os.environ.get("DEBIAN_MIRROR", MIRROR).rstrip("/")


def _unpack(packages: list[Path], folder: Path) -> None:
    """Unpack packages into `folder`. Of the emulator's 300 MB for forty processors only one file is unpacked."""
    for package in packages:
        member = ["./usr/bin/qemu-aarch64"] if package.name.startswith(f"{QEMU}_") else []
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", str(folder), *member], stdin=archive.stdout, check=True)
        if archive.returncode:
            raise Unavailable(f"{package} cannot be unpacked: remove it, and try again")


def _wheels(folder: Path, requirements: list[str] | tuple[str, ...]) -> None:
    """aarch64 wheels of requirements and all that they require."""
    fetched = ARM / "wheels" / folder.name.removesuffix(".unfinished")
    target = ["--python-version", PYTHON_VERSION, "--implementation", "cp", "--only-binary=:all:", *wheel_tags(GLIBC)]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    _run(*pip, "download", "--dest", str(fetched), *target, *requirements, what="aarch64 wheels")
    # pip install checks packages against its own Python; pip download has checked them against the target's.
    there = (
        "--no-index",
        "--find-links",
        str(fetched),
        "--target",
        str(folder),
        "--ignore-requires-python",
        "--no-compile",
    )
    _run(*pip, "install", *there, *target, *requirements, what="what pip downloaded")


def _voxrill(folder: Path) -> None:
    """This repository's wheel, unpacked, with the library of our own products."""
    built = ARM / "wheels" / "voxrill"
    shutil.rmtree(built, ignore_errors=True)
    tool = (sys.executable, "-m", "build", "--no-isolation", "--outdir", str(built), str(ROOT))
    _run(*tool, what="this repository's wheel")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    try:
        print("  our own products", file=sys.stderr, flush=True)
        build("linux-aarch64", ARM / "kernels")
    except NotBuilt as reason:
        print(f"  without our own products: {reason}", file=sys.stderr)
    else:
        shutil.copytree(ARM / "kernels", folder / "voxrill" / "devices" / "native")


def _digest() -> str:
    """A digest of all that the wheel is built from, and whether zig is here."""
    made = {"__pycache__", "native"}
    files = [path for room in ROOMS for path in (ROOT / room).rglob("*") if made.isdisjoint(path.parts)]
    digest = hashlib.sha256(str(importlib.util.find_spec("ziglang") is not None).encode())
    for path in sorted([ROOT / "pyproject.toml", *filter(Path.is_file, files)]):
        digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def _write_python() -> None:
    """The command that runs the userland's Python. It is also `sys.executable` there, so that Python can start
    itself."""
    folders = ":".join(str(ARM / name) for name in ("voxrill", "device", "testing"))
    script = f"""#!/bin/sh
export PYTHONHOME='{ARM}/debian/usr' PYTHONPATH='{folders}:{ROOT}' PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1
export PYTHONPYCACHEPREFIX='{ARM}/bytecode'
exec '{ARM}/debian/usr/bin/qemu-aarch64' -L '{ARM}/debian' -0 "$0" '{ARM}/debian/usr/bin/python{PYTHON_VERSION}' "$@"
"""
    PYTHON.write_text(script, encoding="utf-8")
    PYTHON.chmod(0o755)


def _run(*command: str, what: str = "") -> str:
    """A command's output.

    Raises:
        Unavailable: it failed; the message names the part and has the last line of the command.
    """
    if what:
        print(f"  {what}", file=sys.stderr, flush=True)
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=SECONDS, env={**os.environ, "LC_ALL": "C"}
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{what or command[0]}: no answer within {SECONDS} s") from None
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if line.startswith(("E:", "ERROR:"))] or [
            done.stderr[-500:]
        ]
        raise Unavailable(f"{what or command[0]} cannot be had: {errors[-1].strip()}")
    return done.stdout


if __name__ == "__main__":
    try:
        make_userland()
    except Unavailable as reason:
        sys.exit(f"the ARM64 userland: {reason}")
