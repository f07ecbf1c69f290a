"""What is shipped, and what may import what: the house's plan, held up by tests."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from tests.commands import clean_environment

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
ROOMS = ("export", "runtime", "quantize", "devices")

# Downhill only: which rooms each room may import.
MAY_IMPORT = {
    "devices": {"devices"},
    "runtime": {"runtime", "devices"},
    "export": {"export", "runtime", "devices"},
    "quantize": {"quantize", "export", "runtime", "devices"},
}
HEAVY = ("torch", "onnx", "onnxscript", "transformers", "optimum")


def sources(room):
    return sorted(path for path in (ROOT / room).rglob("*.py") if "__pycache__" not in path.parts)


def imports(path):
    """Every (module, level) a file imports, at any depth; `from a import b` counts as a.b."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((alias.name, 0) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((f"{node.module or ''}.{alias.name}", node.level) for alias in node.names)


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in ("voxrill", *parts) if part != "__init__")


def room_of(module):
    """`runtime` of `voxrill.runtime.errors.X`; empty for the package itself."""
    return [*module.split("."), ""][1]


def all_imports(*rooms):
    return [(path, *found) for room in rooms for path in sources(room) for found in imports(path)]


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


# The source tree


def test_every_package_is_listed():
    found = {module_name(path) for room in ROOMS for path in sources(room) if path.name == "__init__.py"}
    setuptools = PROJECT["tool"]["setuptools"]
    assert found | {"voxrill"} == set(setuptools["packages"])
    assert setuptools["package-dir"] == {name: name.split(".", 1)[1].replace(".", "/") for name in found}


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for room in ROOMS for path in sources(room)}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_downhill(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name, _ in all_imports(room)
        if name.split(".")[0] == "voxrill" and room_of(name) in set(ROOMS) - MAY_IMPORT[room]
    ]
    assert wrong == []


def test_rooms_do_not_import_the_command_line_or_the_package_itself():
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path, name, _ in all_imports(*ROOMS)
        if name.split(".")[0] == "voxrill" and room_of(name) not in (*ROOMS, "__version__")
    ]
    assert wrong == []


def test_imports_are_absolute_and_through_voxrill():
    wrong = [
        f"{path.relative_to(ROOT)} imports {'.' * level}{name}"
        for path, name, level in all_imports(*ROOMS, "voxrill", "tests")
        if level or name.split(".")[0] in ROOMS
    ]
    assert wrong == []


@pytest.mark.parametrize("room", ["runtime", "devices"])
def test_device_rooms_never_name_heavy_packages(room):
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}" for path, name, _ in all_imports(room) if name.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_importing_the_device_side_loads_no_heavy_package(tmp_path):
    modules = ["voxrill"] + [module_name(path) for room in ("runtime", "devices") for path in sources(room)]
    script = (
        "import importlib, json, sys\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        f"print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))\n"
    )
    done = run(sys.executable, "-c", script, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_the_device_side_depends_on_no_heavy_package():
    names = {re.split(r"[^A-Za-z0-9_-]", line)[0] for line in PROJECT["project"]["dependencies"]}
    assert names.isdisjoint({*HEAVY, "optimum-onnx"})


def test_every_make_target_has_a_line_of_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    assert sorted(phony) == sorted(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


# What is installed


def copy_source(folder):
    """A copy to build from: building leaves files in the tree."""
    for part in (*ROOMS, "voxrill"):
        shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / part, folder / part)
    return folder


def builtin_model():
    """Every file of the built-in model, by its path in the package."""
    folder = ROOT / "voxrill"
    return {path.relative_to(folder).as_posix() for path in (folder / "pebble").rglob("*") if path.is_file()}


def test_wheel_and_sdist_hold_the_builtin_model(tmp_path):
    """The wheel is built from the sdist, so that what one lacks, both lack."""
    assert {"pebble/world.json", "pebble/bundle/manifest.json"} <= builtin_model()

    def build(kind, source):
        script = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(tmp_path)!r}))"
        done = run(sys.executable, "-c", script, cwd=source)
        assert done.returncode == 0, done.stderr
        return tmp_path / done.stdout.splitlines()[-1]

    with tarfile.open(build("sdist", copy_source(tmp_path / "source"))) as sdist:
        sdist.extractall(tmp_path, filter="data")
    (unpacked,) = tmp_path.glob("voxrill-*/")
    wheel = zipfile.ZipFile(build("wheel", unpacked))
    for name in builtin_model():
        assert wheel.read(f"voxrill/{name}") == (ROOT / "voxrill" / name).read_bytes()
    for path in (ROOT / "devices" / "profiles").glob("*.toml"):
        assert wheel.read(f"voxrill/devices/profiles/{path.name}") == path.read_bytes()
    for path in (ROOT / "runtime" / "serve" / "page").iterdir():
        assert wheel.read(f"voxrill/runtime/serve/page/{path.name}") == path.read_bytes()


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
    expected = {str(path.relative_to(ROOT)) for room in ROOMS for path in sources(room)}
    expected |= {path.name for path in (ROOT / "voxrill").glob("*.py")}
    assert shipped == expected
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
