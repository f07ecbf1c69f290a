"""The floor plan, held up by tests: which room may import which, without circles; what `import voxrill` loads.

Imports count wherever they stand: at the top of a file, in a function, or under `TYPE_CHECKING`.
"""

import ast
import json
import os
import re
import subprocess
import sys
from collections import Counter, defaultdict
from functools import cache
from pathlib import Path

import pytest

from tests.places import ROOT

SOURCE = ROOT / "src" / "voxrill"
HEAVY = ("torch", "onnx", "onnxscript", "transformers", "optimum")

RANKS = (
    "voxrill.runtime",
    "voxrill.devices",
    "voxrill.runtime.audio",
    "voxrill.runtime.bundle",
    "voxrill.runtime.engine",
    "voxrill.runtime.upkeep",
    "voxrill.runtime.talk",
    "voxrill.runtime.apps",
    "voxrill.runtime.serve",
    "voxrill.export",
    "voxrill.quantize",
    "voxrill",
    "voxrill.commands",
)
"""The rooms, the ground floor first. A room imports those before it, and itself."""

ENTRY = "voxrill.__main__"
"""The command line's entry stands above all rooms."""


def python_files(folder):
    """Files under a folder, through the symbolic links that `src/voxrill` is made of."""
    return sorted(
        Path(place) / name
        for place, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.endswith(".py")
    )


@cache
def modules():
    """Every module of the package, by its dotted name."""
    found = {}
    for path in python_files(SOURCE):
        parts = ("voxrill", *path.relative_to(SOURCE).with_suffix("").parts)
        found[".".join(part for part in parts if part != "__init__")] = path
    return found


@cache
def imports(module):
    """Every module of ours that a module imports, at any depth."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} imports relatively"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in modules() else node.module)
    return frozenset(name for name in found if name.split(".")[0] == "voxrill")


def room_of(module):
    """The most special of `RANKS` that a module lies in; files directly in a room's folder are of that room."""
    return max((room for room in RANKS if module == room or module.startswith(f"{room}.")), key=len)


def test_there_is_something_to_look_at():
    assert len(modules()) > 200
    assert {room_of(module) for module in modules()} == set(RANKS)


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in modules().values()}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").exists()] == []


def test_imports_point_downhill():
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        if module != ENTRY
        for name in imports(module)
        if RANKS.index(room_of(name)) > RANKS.index(room_of(module))
    ]
    assert wrong == []


def test_no_modules_import_each_other_in_a_circle():
    """Rooms cannot (they are ranked), so circles are looked for module by module."""
    below = {module: {name for name in imports(module) if name != module} for module in modules()}
    below = {module: {name for name in names if name in below} for module, names in below.items()}
    while leaves := {module for module, names in below.items() if not names & below.keys()}:
        below = {module: names for module, names in below.items() if module not in leaves}
    assert sorted(below) == []


def test_only_commands_and_the_entry_import_the_public_package():
    wrong = [
        f"{module} imports {name}"
        for module in modules()
        for name in imports(module)
        if room_of(name) == "voxrill" and room_of(module) not in ("voxrill", "voxrill.commands")
    ]
    assert wrong == []


def outside_the_package():
    """Python files of the repository that import the package."""
    return [path for folder in ("tests", "benchmarks", "pebble", "examples") for path in (ROOT / folder).rglob("*.py")]


def test_imports_are_absolute_and_through_voxrill():
    """From the root, `import runtime` works too, and makes a second copy of every class."""
    rooms = {room.split(".")[1] for room in RANKS if "." in room}
    wrong = []
    for path in (*modules().values(), *outside_the_package()):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += ["." * node.level + (node.module or "")] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path} imports {name}" for name in names if name[:1] == "." or name.split(".")[0] in rooms]
    assert wrong == []


def test_a_class_name_means_one_thing():
    """Also a private one, and outside the package: a reader who looks a name up finds one class."""
    names = defaultdict(set)
    for folder in (
        "src/voxrill/commands",
        "export",
        "runtime",
        "quantize",
        "devices",
        "benchmarks",
        "pebble",
        "examples",
    ):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    names[node.name].add(str(path.relative_to(ROOT)))
    assert {name: sorted(places) for name, places in names.items() if len(places) > 1} == {}


@pytest.mark.parametrize("room", ["voxrill.runtime", "voxrill.devices"])
def test_device_rooms_never_name_heavy_packages(room):
    wrong = []
    for module, path in modules().items():
        if module.startswith(room):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
                wrong += [f"{module} imports {name}" for name in names if name.split(".")[0] in HEAVY]
    assert wrong == []


def loaded(statement, names, tmp_path):
    """Which of `names` a statement loads, in a fresh Python."""
    script = f"import json, sys\n{statement}\nprint(json.dumps([name for name in {names!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_device_side_loads_no_heavy_package(tmp_path):
    names = [name for name in modules() if name.startswith(("voxrill.runtime", "voxrill.devices", "voxrill.model"))]
    script = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    assert loaded(script, HEAVY, tmp_path) == []


def test_importing_voxrill_loads_nothing_that_it_may_not_need(tmp_path):
    names = ("numpy", "onnxruntime", "sqlite3", "starlette", "sounddevice", "rich", "typer", *HEAVY)
    assert loaded("import voxrill", names, tmp_path) == []
    assert loaded("import voxrill; voxrill.VoxrillError, voxrill.__version__", names, tmp_path) == []


def test_loading_a_model_loads_no_index_server_or_sound_card(tmp_path):
    names = ("sqlite3", "starlette", "sounddevice", "typer", "jiwer", *HEAVY)
    assert loaded("import voxrill; voxrill.load(threads=1)", names, tmp_path) == []


def test_help_imports_no_command(tmp_path):
    script = (
        "import sys\nfrom voxrill.__main__ import main\nsys.argv = ['voxrill', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code"
    )
    names = ("numpy", "onnxruntime", "rich", "voxrill.model", "voxrill.commands.options", "voxrill.commands.export")
    assert loaded(script, names, tmp_path) == []


def test_every_public_name_can_be_had():
    import voxrill

    for name in voxrill.__all__:
        assert getattr(voxrill, name) is not None
    assert set(voxrill.__all__) <= set(dir(voxrill))
    with pytest.raises(AttributeError, match="no_such_name"):
        voxrill.no_such_name  # noqa: B018


@pytest.mark.parametrize(
    "words", [("bench", "--help"), ("doctor", "--help"), ("plan", "--help"), ("plan", "--device", "pi5")]
)
def test_what_needs_no_engine_does_not_load_it(tmp_path, words):
    code = (
        f"import sys\nfrom voxrill.__main__ import main\nsys.argv = ['voxrill', *{words!r}]\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print([name for name in ('numpy', 'onnxruntime', 'tokenizers', 'voxrill.model') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_every_command_s_line_of_help_is_its_docstring_s_first():
    from voxrill.commands.index import COMMANDS, load_command

    for name, entry in COMMANDS.items():
        command = load_command(name)
        assert command.name == name
        text = (command.help or "").strip().splitlines()[0]
        assert text == entry.help, name
        assert entry.help.endswith(".") and len(entry.help) <= 72, name


def test_every_make_target_has_a_line_of_help():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE).group(1).split()
    assert sorted(phony) == sorted(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))


def test_the_architecture_page_names_files_that_are_there():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([a-z_]+/[a-z_/]+\.py)`", page))
    assert len(named) > 15
    places = (SOURCE, SOURCE / "runtime", ROOT)
    assert [name for name in named if not any((place / name).exists() for place in places)] == []


def test_rooms_and_arrows_are_counted():
    """The figures of docs/architecture.md: arrows between rooms, by `pytest -s`."""
    arrows = Counter(
        (room_of(module), room_of(name))
        for module in modules()
        for name in imports(module)
        if room_of(module) != room_of(name)
    )
    print(f"{len(RANKS)} rooms, {len(arrows)} arrows between them")
    assert arrows
