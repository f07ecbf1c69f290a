"""What is shipped, that it can be imported from anywhere, and what a device installs."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

import voxrill
from kernels.wheels import platform_wheel
from tests.command_line import clean_environment
from tests.places import ROOT
from voxrill.runtime.errors import MissingDependency
from voxrill.runtime.version import VERSION

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
HEAVY = ("torch", "onnx", "onnxscript", "transformers", "optimum")
PACKAGE = ROOT / "src" / "voxrill"


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def test_the_device_side_depends_on_no_heavy_package():
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert names.isdisjoint({*HEAVY, "optimum-onnx"})


def test_every_python_that_is_supported_is_named_everywhere():
    """Its range, the classifiers, and what `make` looks for."""
    low, high = map(int, re.fullmatch(r">=3\.(\d+),<3\.(\d+)", PROJECT["project"]["requires-python"]).groups())
    minors = range(low, high)
    prefix = "Programming Language :: Python :: 3."
    classifiers = [line.removeprefix(prefix) for line in PROJECT["project"]["classifiers"] if line.startswith(prefix)]
    assert classifiers == [str(minor) for minor in minors]
    names = " ".join(f"python3.{minor}" for minor in minors)
    assert f"find_python 3,{low} 3,{high - 1} $(or $(PYTHON),{names} python3)" in MAKEFILE
    assert f"Python 3.{low} to 3.{high - 1}" in MAKEFILE


def test_every_extra_is_installed_for_the_tests():
    """Except those of development, which are dependency groups and not in the wheel."""
    extras = re.search(r"^EXTRAS := (.*)$", MAKEFILE, re.MULTILINE)[1].split(",")
    assert sorted(extras) == sorted(PROJECT["project"]["optional-dependencies"])
    assert {"dev", "test", "lint"} <= set(PROJECT["dependency-groups"])


def test_what_an_extra_does_not_bring_here_is_not_said_to_come_with_it(monkeypatch):
    """Every requirement that is left out from some Python on has an error that names the last Python with it."""
    lines = [line for extra in PROJECT["project"]["optional-dependencies"].values() for line in extra]
    until = dict(re.findall(r"^([\w-]+).*python_version < '3\.(\d+)'$", "\n".join(lines), re.MULTILINE))
    assert until == {"pocketsphinx": "14"}
    for package, minor in until.items():
        monkeypatch.setattr("voxrill.runtime.errors.sys.version_info", (3, int(minor) - 1, 0))
        assert "pip install" in MissingDependency("pebble", package).remedy
        monkeypatch.setattr("voxrill.runtime.errors.sys.version_info", (3, int(minor), 0))
        assert f"use Python 3.{int(minor) - 1}" in MissingDependency("pebble", package).remedy


def test_the_version_is_written_once():
    assert "version" in PROJECT["project"]["dynamic"]
    assert voxrill.__version__ == VERSION
    pattern = re.compile(rf'[vV]ersion.{{0,6}}"{re.escape(VERSION)}"|VERSION = "{re.escape(VERSION)}"')
    places = [path for path in python_files(PACKAGE) if pattern.search(path.read_text(encoding="utf-8"))]
    assert [path.name for path in places] == ["version.py"]


# What is installed


def python_files(folder):
    """Files under a folder, through its symbolic links."""
    return [
        Path(place) / name
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name[-3:] == ".py"
    ]


def copy_source(folder):
    """A clone, with its symbolic links, to build from: building leaves files in the tree."""
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "node_modules")
    for part in ("src", "export", "runtime", "quantize", "devices", "web"):
        shutil.copytree(ROOT / part, folder / part, ignore=ignored, symlinks=True)
    for part in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / part, folder / part)
    return folder


def build(kind, source, folder):
    """What pip would build of `source`, without an index: a wheel, an sdist, or the wheel of an editable install."""
    script = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(folder)!r}))"
    done = run(sys.executable, "-c", script, cwd=source)
    assert done.returncode == 0, done.stderr
    return folder / done.stdout.splitlines()[-1]


def unpacked_sdist(source, folder):
    """The one folder of an sdist that is built of `source`."""
    with tarfile.open(build("sdist", source, folder)) as sdist:
        sdist.extractall(folder, filter="data")
    (unpacked,) = folder.glob("voxrill-*/")
    return unpacked


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone in a folder called `voxrill`, as git names it."""
    return copy_source(tmp_path_factory.mktemp("home") / "voxrill")


@pytest.fixture(scope="module", params=["wheel", "editable", "sdist"])
def installed(request, clone, tmp_path_factory):
    """The Python of a fresh environment with nothing in it but voxrill, installed in one of three ways."""
    folder = tmp_path_factory.mktemp(request.param)
    source = unpacked_sdist(clone, folder) if request.param == "sdist" else clone
    built = build("editable" if request.param == "editable" else "wheel", source, folder)
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    with zipfile.ZipFile(built) as wheel:
        wheel.extractall(packages)
    return python


@pytest.mark.parametrize("place", ["the root", "the parent folder", "elsewhere"])
def test_it_can_be_imported_from_anywhere(installed, clone, place, tmp_path):
    """A folder of the name `voxrill` beside the caller, or the rooms themselves, must not hide the package."""
    folder = {"the root": clone, "the parent folder": clone.parent, "elsewhere": tmp_path}[place]
    script = "import voxrill, voxrill.runtime.errors, voxrill.devices, voxrill.commands; print(voxrill.__version__)"
    done = run(installed, "-c", script, cwd=folder)
    assert (done.stdout.strip(), done.stderr) == (VERSION, "")


def builtin_model():
    """Every file of the built-in model, by its path in the package."""
    return {path.relative_to(PACKAGE).as_posix() for path in (PACKAGE / "pebble").rglob("*") if path.is_file()}


def test_wheel_and_sdist_hold_all_that_is_shipped(clone, tmp_path):
    """The wheel is built from the sdist, so that what one lacks, both lack."""
    assert {"pebble/world.json", "pebble/bundle/manifest.json"} <= builtin_model()
    with zipfile.ZipFile(build("wheel", unpacked_sdist(clone, tmp_path), tmp_path)) as wheel:
        for name in builtin_model():
            assert wheel.read(f"voxrill/{name}") == (PACKAGE / name).read_bytes()
        for path in python_files(PACKAGE):
            assert wheel.read(f"voxrill/{path.relative_to(PACKAGE).as_posix()}") == path.read_bytes()
        for folder in ("devices/profiles", "quantize/recipes", "runtime/serve/page", "runtime/audio/silero"):
            for path in (PACKAGE / folder).iterdir():
                assert wheel.read(f"voxrill/{folder}/{path.name}") == path.read_bytes()
        for path in (path for part in ("runtime", "site") for path in (PACKAGE / "web" / part).rglob("*.*")):
            assert wheel.read(f"voxrill/{path.relative_to(PACKAGE).as_posix()}") == path.read_bytes()


def test_a_platform_s_wheel_has_the_library_and_the_pure_one_has_not(clone, library, tmp_path):
    """The library of this machine; unpacked, it is found and loaded."""
    from packaging.tags import Tag
    from packaging.utils import parse_wheel_filename

    shutil.copytree(library.path.parent, clone / "devices" / "native", dirs_exist_ok=True)
    pure = build("wheel", clone, tmp_path)
    made = platform_wheel(pure, library.path.parent, "manylinux_2_28_x86_64", tmp_path / "made")
    assert parse_wheel_filename(made.name)[3] == {Tag("py3", "none", "manylinux_2_28_x86_64")}
    with zipfile.ZipFile(pure) as before, zipfile.ZipFile(made) as wheel:
        added = set(wheel.namelist()) - set(before.namelist())
        assert added == {f"voxrill/devices/native/{path.name}" for path in library.path.parent.iterdir()}
        (about,) = (name for name in wheel.namelist() if name.endswith(".dist-info/WHEEL"))
        assert "Root-Is-Purelib: false\nTag: py3-none-manylinux_2_28_x86_64\n" in wheel.read(about).decode()
        (record,) = (name for name in wheel.namelist() if name.endswith(".dist-info/RECORD"))
        lines = [line.split(",") for line in wheel.read(record).decode().splitlines()]
        assert sorted(line[0] for line in lines) == sorted(wheel.namelist())
        for name, digest, size in lines[:-1]:
            data = wheel.read(name)
            assert int(size) == len(data)
            assert digest == "sha256=" + urlsafe_b64encode(sha256(data).digest()).rstrip(b"=").decode()
        wheel.extractall(tmp_path / "installed")
    script = "from voxrill.devices.kernels import own_products; print(own_products())"
    done = run(
        sys.executable, "-c", script, env=clean_environment(PYTHONPATH=str(tmp_path / "installed")), cwd=tmp_path
    )
    assert str(tmp_path / "installed") in done.stdout and library.chosen in done.stdout, done.stderr


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    """The Python of a fresh environment with voxrill and what it depends on; skipped without an index."""
    folder = tmp_path_factory.mktemp("device")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / ("Scripts" if os.name == "nt" else "bin") / "python"
    index = run(python, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, "msgspec")
    if index.returncode:
        pytest.skip(f"pip reaches no package index: {index.stderr.strip().splitlines()[-1:]}")
    done = run(python, "-m", "pip", "install", "--quiet", copy_source(folder / "source"))
    assert done.returncode == 0, done.stderr
    return python


@pytest.mark.packaging
def test_a_device_installs_no_heavy_package(device):
    script = "from importlib.metadata import distributions; print(*{d.name.lower() for d in distributions()})"
    installed = set(run(device, "-c", script).stdout.split())
    assert "voxrill" in installed
    assert installed.isdisjoint({*HEAVY, "optimum-onnx"})


@pytest.mark.packaging
def test_the_installed_package_is_complete_and_runs(device, tmp_path):
    script = "import voxrill; print(voxrill.__file__)"
    package = Path(run(device, "-c", script, cwd=tmp_path).stdout.strip()).parent
    shipped = {str(path.relative_to(package)) for path in package.rglob("*.py")}
    assert shipped == {str(path.relative_to(PACKAGE)) for path in python_files(PACKAGE)}
    assert (package / "py.typed").exists()
    assert all((package / name).is_file() for name in builtin_model())
    done = run(device, "-m", "voxrill", "--help", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


@pytest.mark.packaging
def test_a_device_runs_the_builtin_model(device, tmp_path):
    question = ROOT / "examples" / "question.wav"
    environment = clean_environment()
    for command in (
        ("transcribe", question),
        ("speak", "kitchen lights on", "-o", "a.wav"),
        ("chat", "--audio", question, "-o", "b.wav"),
        ("pebble", "--json"),
    ):
        done = run(device, "-m", "voxrill", *command, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "a.wav").is_file() and (tmp_path / "b.wav").is_file()


@pytest.mark.packaging
def test_a_device_runs_a_bundle(device, bundles, tmp_path):
    question = ROOT / "examples" / "question.wav"
    for family, bundle in bundles.items():
        for command in (
            ("verify", bundle),
            ("transcribe", question, "--bundle", bundle, "--max-new-tokens", "4"),
            ("speak", "Hi.", "--bundle", bundle, "-o", tmp_path / f"{family}.wav", "--max-new-tokens", "30"),
        ):
            done = run(device, "-m", "voxrill", *command, cwd=tmp_path)
            assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{family}.wav").is_file()


@pytest.mark.packaging
def test_the_size_on_a_device_is_told(device):
    site = run(device, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    pip_itself = ("pip", "setuptools", "wheel")
    sizes = {
        entry.name: sum(file.stat().st_size for file in [entry, *entry.rglob("*")] if file.is_file())
        for entry in Path(site).iterdir()
        if not entry.name.startswith(pip_itself)
    }
    largest = ", ".join(f"{name} {sizes[name] / 1e6:.1f}" for name in sorted(sizes, key=sizes.get)[:-6:-1])
    print(f"\ninstalled on a device: {sum(sizes.values()) / 1e6:.1f} MB (largest: {largest})")
    assert sum(sizes.values()) < 500e6
