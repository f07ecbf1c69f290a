"""Every snippet of the README and of docs/ works, each as a test of its own.

- `python` runs as it stands.
- `sh` runs line by line against a tiny bundle, on the pages of `RUN`. Elsewhere its lines are only parsed.
- `py` is only compiled. `py run` runs in test_examples.py, and `py serve` beside the server of its page.
- In other blocks each line that begins with `voxrill` is parsed.

Parsed means: as the command line does it, so that an unknown option or a missing argument raises.
"""

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tomllib
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from markdown_it import MarkdownIt

from benchmarks.talk.sound_server import SoundServer
from tests.checkpoints import MODEL_FILE
from tests.export.saved import factors, write_adapter
from tests.places import ROOT, SNIPPET_PAGES
from voxrill.commands.index import load_command

RUN = {
    "README.md",
    "docs/quickstart.md",
    *(f"docs/guides/{name}.md" for name in ("talk", "transcribe", "control", "documents", "serve", "home-assistant")),
    "docs/guides/evaluate.md",
    "docs/models/lfm2-audio.md",
    "docs/deploy/plan.md",
}
"""Pages whose shell lines run. Those of the others name files that only a reader has, or repeat lines of these."""

LISTENS = {"docs/guides/talk.md", "docs/guides/transcribe.md", "docs/guides/control.md"}
"""Pages whose lines with a microphone run, on a sound card of wires. Elsewhere such lines are read."""

SERVES = {"docs/guides/serve.md", "docs/guides/home-assistant.md"}
"""Pages whose first server runs. Elsewhere such lines are read."""

EXPORTS = {"README.md"}
"""Pages whose exports run; each takes a minute. Elsewhere such lines are read, and the bundle is there already."""

SLOW = {"docs/models/lfm2-audio.md-3-sh"}
"""Snippets that need more than a minute of processor time."""

NOT_OURS = {"make", "pip", "git", "cd", "export", "sudo", "python", "python3", ".venv/bin/python"}
"""First words of lines that no test runs. What they name is there: targets of make, extras of pip, tests."""


@dataclass(frozen=True)
class Snippet:
    """A block of code of a page: its number there, what stands after the fence, and its text."""

    page: str
    number: int
    info: str
    code: str

    def __str__(self):
        return f"{self.page}-{self.number}-{self.info or 'block'}"


def snippets_of(page):
    tokens = MarkdownIt("commonmark").enable("table").parse((ROOT / page).read_text(encoding="utf-8"))
    blocks = [token for token in tokens if token.type in ("fence", "code_block")]
    return [Snippet(page, number, block.info, block.content) for number, block in enumerate(blocks, 1)]


SNIPPETS = [snippet for page in SNIPPET_PAGES for snippet in snippets_of(page)]


def of_kind(*kinds):
    """The parameter `snippet`: those with this information."""
    found = [one for one in SNIPPETS if one.info in kinds]
    marked = [pytest.param(one, id=str(one), marks=pytest.mark.slow if str(one) in SLOW else ()) for one in found]
    return pytest.mark.parametrize("snippet", marked)


def shell_lines(code):
    """The commands of a snippet, as lists of words; a line that ends with a backslash goes on."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def read(words):
    """Parse a command line as it would be run: an unknown option or a missing argument raises."""
    name, *rest = words[1:]
    command = load_command(name)
    if rest and rest[0] in getattr(command, "commands", {}):
        command = command.commands[rest.pop(0)]
    command.make_context(name, rest)


@pytest.fixture
def workplace(request, tmp_path, monkeypatch):
    """A folder in which the names of the pages exist. Bundles are made for snippets that name one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    page, code = request.getfixturevalue("snippet").page, request.getfixturevalue("snippet").code
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    for folder in ("recordings", "LiquidAI", "tuned"):
        (tmp_path / folder).mkdir()
    for sound in ("question.wav", "meeting.wav", "recordings/question.wav"):
        shutil.copy(ROOT / "examples" / "question.wav", tmp_path / sound)
    (tmp_path / "recordings" / "question.txt").write_text("turn on the kitchen lights")
    (tmp_path / "whisper.jsonl").write_text('{"id": "question", "text": "Turn on the kitchen lights."}')
    (tmp_path / "texts.txt").write_text("kitchen lights on")
    if "LiquidAI" in code:
        checkpoint = request.getfixturevalue("tiny_checkpoints")["lfm2.5"]
        (tmp_path / "LiquidAI" / "LFM2.5-Audio-1.5B").symlink_to(checkpoint)
        (tmp_path / "tuned" / "model.safetensors").symlink_to(checkpoint / MODEL_FILE)
        write_adapter(tmp_path / "adapter", factors("lfm.layers.2.self_attn.q_proj"))
    exports = "LiquidAI" in code and page in EXPORTS
    if not exports and re.search(r"\bbundle\b|\bunpack\b", code):
        (tmp_path / "bundle").symlink_to(request.getfixturevalue("bundles")["lfm2.5"])
        if "voxrill unpack" in code:
            command = [sys.executable, "-m", "voxrill", "pack", "bundle", "-o", "model.voxrill"]
            subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    return tmp_path


@of_kind("python")
def test_python_runs(workplace, snippet):
    run = subprocess.run([sys.executable, "-c", snippet.code], cwd=workplace, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    for name in re.findall(r'save\("(.*)"\)', snippet.code):
        assert (workplace / name).stat().st_size >= 44


@of_kind("py", "py run", "py serve")
def test_python_is_python(snippet):
    compile(snippet.code, str(snippet), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@of_kind("", "text")
def test_command_lines_are_read(snippet):
    lines = [line.strip() for line in snippet.code.replace("\\\n", " ").splitlines()]
    for line in lines:
        if line.startswith("voxrill "):
            words = shlex.split(line, comments=True)
            read(words[: min([words.index(sign) for sign in ("|", ">") if sign in words], default=len(words))])


@of_kind("sh")
def test_shell_runs(workplace, snippet):
    """In order, as a reader would type them; the export's hub id is a folder here."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for words in shell_lines(snippet.code):
        if words[0] == "voxrill":
            one_line(words, snippet, workplace, environment)
        else:
            assert words[0] in NOT_OURS, f"not run by any test: {shlex.join(words)}"
            named(words)
        if words[0] == "export":
            name, value = words[1].split("=")
            environment[name] = value


def named(words):
    """The targets of `make`, the extras of `pip install` and the tests exist."""
    for target in words[1:] if words[0] == "make" else ():
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    if words[0] == "pip":
        known = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        extras = re.search(r"\[(.*)\]", words[-1])
        assert not extras or set(extras[1].split(",")) <= set(known)


def one_line(words, snippet, workplace, environment):
    """Run one command, or read it where running it takes what no test has."""
    page, command = snippet.page, words[1]
    listens, fetches = command == "talk" or "--live" in words, command == "web"  # `web` asks npm for onnxruntime-web
    serves_not = command == "serve" and page not in SERVES
    exports_not = command == "export" and page not in EXPORTS
    if page not in RUN or fetches or serves_not or exports_not or (listens and page not in LISTENS):
        read(words)
    elif listens:
        talk(words, workplace, environment)
    elif command == "serve" and "--wyoming-anyone" in words:
        read(words)  # it would listen to the whole network
    elif command == "serve":
        serve(words, snippet, workplace, environment)
    elif command == "speak" and "-o" not in words:
        with sound_card() as (_, wire):
            finish([*words, "--play"], workplace, {**environment, **wire.program})  # as it does on a terminal
    else:
        finish(words, workplace, environment)


def finish(words, workplace, environment):
    """Run what ends by itself."""
    run = subprocess.run([sys.executable, "-m", *words], cwd=workplace, env=environment, capture_output=True, text=True)
    silent = words[1] == "doctor"  # its status says whether this machine has a microphone and a loudspeaker
    assert run.returncode in ((0, 1) if silent else (0,)), f"{shlex.join(words)}: {run.stderr}"


@contextmanager
def sound_card():
    """A microphone and a loudspeaker of wires, where PulseAudio is installed."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("pulseaudio is not installed")
    with SoundServer("readme") as server:
        yield server, server.wire("readme")


def talk(words, workplace, environment):
    """Run what listens until it does, and end it with Ctrl-C."""
    with (
        sound_card() as (server, wire),
        subprocess.Popen(
            [sys.executable, "-m", *words],
            cwd=workplace,
            env={**environment, **wire.program},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process,
    ):
        killer = threading.Timer(120, process.kill)
        killer.start()
        while process.poll() is None and not server.listeners(wire):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        killer.cancel()
    assert process.returncode == 0, f"{shlex.join(words)}: {errors.decode()}"


def serve(words, snippet, workplace, environment):
    """Run the server, the page's clients of it, and end it with Ctrl-C."""
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    port = words[words.index("--port") + 1]
    free = [word.replace(":10300", ":0") for word in words]
    command = [sys.executable, "-m", *free, "--port", "0"]
    with subprocess.Popen(
        command, cwd=workplace, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        killer = threading.Timer(120, process.kill)
        killer.start()
        said = ""
        while "Ctrl-C" not in said and process.poll() is None:
            said += process.stderr.readline()
        served = re.search(r"http://(\S+)/v1", said).group(1)
        for client in snippets_of(snippet.page):
            if client.info == "py serve":
                ask(client.code, f"127.0.0.1:{port}", served, workplace)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        killer.cancel()
    assert process.returncode == 0, f"{shlex.join(words)}: {errors}"


def ask(code, address, served, workplace):
    """Run a client, with the address at which the server really listens."""
    assert address in code
    code = code.replace(address, served)
    client = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True)
    assert client.returncode == 0, client.stderr
    for name in re.findall(r'write_to_file\("(.*)"\)', code):
        assert (workplace / name).stat().st_size > 1000


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_is_one_page_with_two_commands():
    assert len(README.splitlines()) <= 120
    assert re.findall(r"^make (\S+)", README, re.MULTILINE) == ["demo", "test"]


def test_ci_runs_the_readme_s_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def test_the_readme_s_python_takes_ten_lines():
    (code,) = [one.code for one in SNIPPETS if one.page == "README.md" and one.info == "python"]
    assert len(code.splitlines()) <= 10


# Troubleshooting: what a reader sees there is what the code says

ROOMS = ("runtime", "devices", "src/voxrill/commands")
QUOTED = re.findall(r"^> (.*)$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def said_by_the_code():
    """Every text in the code, with `…` for what is filled in."""
    found = set()
    for room in ROOMS:
        for path in (ROOT / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.JoinedStr):
                    found.add(
                        "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found.add(node.value)
    return found


@pytest.mark.parametrize("message", QUOTED)
def test_a_message_of_the_troubleshooting_page_is_in_the_code(said_by_the_code, message):
    assert any(text.startswith(message) for text in said_by_the_code)


def test_troubleshooting_has_ten_faults():
    assert len(QUOTED) >= 10
