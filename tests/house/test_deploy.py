"""The container file and systemd's unit, as far as can be told where no registry is reached and no systemd runs."""

import json
import re
import shlex
import shutil
import subprocess
import sys
import zipfile

import pytest

from tests.house.test_packaging import PROJECT, build, builtin_model
from tests.house.test_readme import read, shell_lines
from tests.places import ROOT
from voxrill.runtime.user_folders import user_cache

RULES = [line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line and line[0] != "#"]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
DEPLOY = ROOT / "docs" / "deploy"
COMMANDS = [
    words
    for block in re.findall(r"```text\n(.*?)```", (DEPLOY / "container.md").read_text("utf-8"), re.DOTALL)
    for words in shell_lines(block)
    if words[:2] == ["docker", "run"]
]
(UNIT,) = re.findall(r"```ini\n(.*?)```", (DEPLOY / "raspberry-pi.md").read_text("utf-8"), re.DOTALL)
(START,) = re.findall(r"^ExecStart=(.*)$", UNIT, re.MULTILINE)


def instruction(name):
    """The image's own: the last one, since an earlier stage may have one as well."""
    return re.findall(rf"^{name} (.*)$", DOCKERFILE, re.MULTILINE)[-1]


# What docker sends to the build


def is_sent(path):
    """Whether a file reaches the build: the last rule counts that fits the file or a folder it is in."""
    sent = True
    for rule in RULES:
        form = re.escape(rule.removeprefix("!")).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{form}(/.*)?", path):
            sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize(
    "path",
    [
        *("key", ".env", "model/manifest.json", "model.voxrill", "recording.wav"),
        *(".git/config", ".venv/bin/python", ".venv-bench/bin/python", "build/site/index.html", "dist/voxrill.whl"),
        *("web/node_modules/a/index.js", "runtime/audio/__pycache__/log_mel.pyc", "kernels/__pycache__/build.pyc"),
        *("src/voxrill.egg-info/PKG-INFO", "devices/native/library.json", ".mypy_cache/a.json", "tests/places.py"),
    ],
)
def test_what_stays_out_of_the_image(path):
    assert not is_sent(path)


def test_every_name_that_is_let_in_is_there():
    assert RULES[0] == "*" and all((ROOT / rule[1:]).exists() for rule in RULES if rule[0] == "!")


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """What the build sees of this repository."""
    folder = tmp_path_factory.mktemp("context")

    def unsent(place, names):
        return [name for name in names if not is_sent(f"{place.removeprefix(f'{ROOT}/')}/{name}")]

    for top in (rule[1:] for rule in RULES if rule[0] == "!"):
        if (ROOT / top).is_dir():
            shutil.copytree(ROOT / top, folder / top, ignore=unsent, symlinks=True)
        else:
            shutil.copy(ROOT / top, folder / top)
    return folder


def test_the_image_s_package_is_whole(context, tmp_path):
    """Built of what is let in alone. The package itself is held up in test_packaging.py."""
    with zipfile.ZipFile(build("wheel", context, tmp_path)) as wheel:
        names = set(wheel.namelist())
    assert {f"voxrill/{name}" for name in builtin_model()} <= names
    for folder in ("devices/profiles", "quantize/recipes", "runtime/serve/page", "runtime/audio/silero", "web/site"):
        assert any(name.startswith(f"voxrill/{folder}/") for name in names)


def test_the_image_s_products_can_be_built(context):
    sources = {path.name for path in (ROOT / "kernels").iterdir() if path.is_file()}
    assert {path.name for path in (context / "kernels").iterdir()} == sources
    assert "python -m kernels.build" in DOCKERFILE and "install --yes --no-install-recommends g++" in DOCKERFILE


# The image


def test_the_image_s_python_is_supported():
    pythons = set(re.findall(r"^FROM python:(3\.\d+)-slim", DOCKERFILE, re.MULTILINE))
    assert len(pythons) == 1
    assert f"Programming Language :: Python :: {pythons.pop()}" in PROJECT["project"]["classifiers"]


def test_the_image_serves():
    """Its own command is one, its port is the one that is open, and its user is not root."""
    words = [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]
    read(words)
    assert words[:2] == ["voxrill", "serve"]
    assert words[words.index("--port") + 1] == instruction("EXPOSE")
    assert int(instruction("USER")) > 0 and f"--uid {instruction('USER')} voxrill" in DOCKERFILE


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_page_s_containers(words, monkeypatch):
    """Their arguments are Voxrill's, and what they mount lies where the image looks."""
    image = words.index("voxrill", words.index("--name") + 2 if "--name" in words else 0)
    if words[image + 1 :]:
        read(words[image:])
    monkeypatch.setenv("HOME", instruction("WORKDIR"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    places = {"/model", json.loads(instruction("CMD"))[-1], str(user_cache().parent)}
    mounted = [words[at + 1].split(":")[1] for at, word in enumerate(words) if word == "-v"]
    assert set(mounted) <= places
    assert str(user_cache().parent) in DOCKERFILE  # made in the image: a new volume takes its owner from there


# systemd's unit


def test_the_unit_starts_a_server():
    _, *words = shlex.split(START)
    read(["voxrill", *words])
    assert words[0] == "serve"


def test_systemd_takes_the_unit(tmp_path):
    """The programs lie elsewhere here, so that this one stands for them."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    (tmp_path / "voxrill.service").write_text(UNIT.replace(shlex.split(START)[0], sys.executable))
    done = subprocess.run([analyze, "verify", tmp_path / "voxrill.service"], capture_output=True, text=True)
    assert "voxrill.service" not in done.stderr, done.stderr
