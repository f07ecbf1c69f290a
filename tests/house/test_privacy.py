"""Nothing leaves: every command is watched by strace while it runs in an empty home.

A command may make no socket that reaches beyond this machine, may look up no name, and may write only where it was told
to, in its temporary folder, and in the places that docs/security.md names. The server may listen on the address it was
given, and nothing else. What onnxruntime does by itself counts too: from 1.29 on its telemetry is on by default.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.command_line import clean_environment
from tests.places import CLIPS, PEBBLE, QUESTION, ROOT
from voxrill.commands.index import COMMANDS

WATCHED = (
    "socket,connect,bind,sendto,sendmsg,open,openat,creat,mkdir,mkdirat,rename,renameat,renameat2,symlink,symlinkat"
)

# What can be read without a name being looked up, and written without leaving anything behind.
HARMLESS = ("/dev/null", "/dev/shm/", "/dev/tty", "/proc/self/", "/dev/ptmx")

RESOLVING = ("/etc/resolv.conf", "/run/systemd/resolve", "/etc/hosts")
# nscd is not among them: it is asked for the user's own name, too.


@pytest.fixture(scope="module")
def strace():
    """The program, where it may trace."""
    if sys.platform != "linux" or shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    tried = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True)
    if tried.returncode:
        pytest.skip("this machine does not let strace trace")
    return ["strace", "--seccomp-bpf", "-f", "-qq", "-y", "-s", "200", "-e", f"trace={WATCHED}"]


@pytest.fixture(scope="module")
def workshop(tmp_path_factory, bundles, tiny_checkpoints):
    """A folder with what the commands want: sounds, documents, commands, data, bundles."""
    folder = tmp_path_factory.mktemp("workshop")
    shutil.copy(QUESTION, folder / "question.wav")
    shutil.copytree(ROOT / "examples" / "documents", folder / "documents")
    shutil.copy(ROOT / "examples" / "commands.toml", folder)
    (folder / "data").mkdir()
    shutil.copy(CLIPS / "00-known.flac", folder / "data" / "a.flac")
    (folder / "data" / "a.txt").write_text("lights on")
    shutil.copytree(PEBBLE, folder / "pebble")
    for name in ("tiny", "exported"):
        shutil.copytree(bundles["lfm2.5"], folder / name)
    (folder / "checkpoint").symlink_to(tiny_checkpoints["lfm2.5"])
    return folder


@pytest.fixture
def watched(strace, workshop, tmp_path):
    """`watched(*arguments)` runs a command under strace in an empty home, and returns what it did that it may not."""
    home, temporary, log = tmp_path / "home", tmp_path / "tmp", tmp_path / "trace"
    said = home / ".local" / "state" / "voxrill" / "pebble-was-introduced"
    said.parent.mkdir(parents=True)
    said.touch()
    temporary.mkdir()
    sound_server = str(home / ".config" / "pulse")  # PulseAudio's client keeps its cookie there
    allowed = (str(workshop), str(temporary), sound_server, *HARMLESS)

    def environment():
        kept = {name: value for name, value in clean_environment().items() if not name.startswith("XDG_")}
        return kept | {"HOME": str(home), "TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*arguments, text=None, allowed=allowed):
        command = [*strace, "-o", log, sys.executable, "-m", "voxrill", *arguments]
        done = subprocess.run(
            [*map(str, command)],
            cwd=workshop,
            env=environment(),
            input=text or "",
            capture_output=True,
            text=True,
            timeout=600,
        )
        silent = arguments[0] == "doctor"  # its status says whether this machine has a microphone and a loudspeaker
        assert done.returncode in ((0, 1) if silent else (0,)), done.stderr
        return told(log, allowed), home

    run.environment, run.log, run.home, run.allowed = environment, log, home, allowed
    return run


def told(log, allowed):
    """Lines of a trace that must not be there."""
    return [
        call for call in map(without_number, log.read_text(errors="replace").splitlines()) if forbidden(call, allowed)
    ]


def without_number(line):
    """A line of a trace without the number of its process."""
    return re.sub(r"^\d+ +", "", line)


LOOPBACK = ('inet_addr("127.', 'inet_pton(AF_INET6, "::1"')


def forbidden(call, allowed):
    """Whether a system call reaches out, looks a name up, or writes where it may not; what failed did not happen.

    A socket by itself reaches nobody: it has to be connected, bound or sent through. urllib3 binds one to ::1 when it
    is imported, to see whether this machine has IPv6.
    """
    path = re.search(r'"([^"]*)"', call)
    name = path[1] if path else ""
    if "sa_family=AF_INET" in call:
        return not (call.startswith("bind") and any(address in call for address in LOOPBACK))
    if name.startswith(RESOLVING):
        return True
    writes = re.search(r"O_(WRONLY|RDWR|CREAT)", call) or call.startswith(("creat", "mkdir", "rename", "symlink"))
    if not writes or not name.startswith("/") or " = -1 E" in call:
        return False
    on_the_way = call.startswith("mkdir") and any(place.startswith(f"{name}/") for place in allowed)
    return not name.startswith(allowed) and not on_the_way


def files_in(home):
    found = sorted(path.relative_to(home).as_posix() for path in home.rglob("*") if path.is_file())
    return [name for name in found if not name.startswith((".config/pulse/", ".local/state/voxrill/"))]


COMMAND_LINES = {
    "transcribe": ("transcribe", "question.wav"),
    "transcribe a folder": ("transcribe", "data", "-o", "all.jsonl"),
    "speak": ("speak", "kitchen lights on", "-o", "a.wav"),
    "chat": ("chat", "--audio", "question.wav", "-o", "b.wav"),
    "translate": ("translate", "question.wav", "--to", "German"),
    "talk": ("talk", "--text", "--mute"),
    "control": ("control", "commands.toml", "question.wav", "--dry-run"),
    "classify": ("classify", "question.wav"),
    "pebble": ("pebble",),
    "snapshot": ("snapshot", "-o", "prompt.snapshot"),
    "serve": (),  # a test of its own
    "export": ("export", "checkpoint", "-o", "exported", "--graphs", "text_head"),  # all graphs take minutes here
    "quantize": ("quantize", "tiny", "-o", "small", "--recipe", "int8"),
    "compare": ("compare", "tiny", "tiny", "--audio", "data", "--limit", "1"),
    "pack": ("pack", "pebble", "-o", "p.voxrill"),
    "doctor": ("doctor",),
    "plan": ("plan", "--device", "pi5"),
    "plan this": ("plan",),
    "devices": ("devices",),
    "inspect": ("inspect",),
    "verify": ("verify",),
    "providers": ("providers", "--provider", "cpu"),
    "golden": ("golden", ROOT / "docs" / "golden"),
    "eval": ("eval", "asr", "--data", "data"),
    "bench": ("bench", "--minutes", "0.01"),
}

CACHED = {
    "ask": ("ask", "what does the lamp cost", "--docs", "documents", "--quote"),
    "tune": ("tune", "pebble"),
    "sensitivity": ("sensitivity", "tiny", "--audio", "data", "-o", "r.toml", "--graph", "text_head", "--limit", "1"),
}
"""Commands that keep something in the user's cache: a folder's index, a bundle's tuned form, what weights cost."""

NEEDS = {
    "replay": "talk --record",
    "unpack": "pack",
    "npu-check": "an NPU's compiler",
    "compile": "an NPU's compiler",
    "web": "npm, which fetches packages",
    "accept": "published outputs of the real weights",
}
"""Commands that another test below runs, or that want what most machines lack."""


def test_every_command_is_watched():
    watched = {words[0] for words in COMMAND_LINES.values() if words} | {"serve", *CACHED, *NEEDS}
    assert watched == set(COMMANDS)


@pytest.mark.parametrize("name", [name for name, words in COMMAND_LINES.items() if words])
def test_a_command_tells_nobody_and_leaves_nothing(watched, name):
    wrong, home = watched(*COMMAND_LINES[name], text="kitchen lights on\n")
    assert wrong == []
    assert files_in(home) == []


def test_unpack_and_replay(watched, workshop):
    for words in (
        ("pack", "pebble", "-o", "again.voxrill"),
        ("unpack", "again.voxrill", "-o", "unpacked"),
        ("talk", "--text", "--mute", "--record", "recorded"),
        ("replay", "recorded"),
    ):
        wrong, home = watched(*words, text="kitchen lights on\n")
        assert wrong == [] and files_in(home) == []


def test_the_first_command_with_the_built_in_model_leaves_one_empty_file(watched):
    state = watched.home / ".local" / "state"
    shutil.rmtree(state)
    wrong, home = watched("transcribe", "question.wav", allowed=(*watched.allowed, str(state)))
    assert wrong == [] and files_in(home) == []
    assert [path.stat().st_size for path in state.rglob("*") if path.is_file()] == [0]


@pytest.mark.parametrize("words", CACHED.values(), ids=CACHED)
def test_what_is_kept_in_the_user_s_cache_is_kept_nowhere_else(watched, words):
    watched.allowed = (*watched.allowed, str(watched.home / ".cache"))
    wrong, home = watched(*words, allowed=watched.allowed)
    assert wrong == []
    assert {Path(name).parts[:2] for name in files_in(home)} == {(".cache", "voxrill")}


def test_the_server_listens_where_it_was_told_and_nowhere_else(watched, strace, workshop):
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    ready = watched.home / "ready.json"
    command = [*strace, "-D", "-o", watched.log, sys.executable, "-m", "voxrill", "serve", "--port", "0"]
    with subprocess.Popen(  # -D: strace stands aside, so that Ctrl-C reaches the server itself
        [*map(str, command)], cwd=workshop, env=watched.environment(), stderr=subprocess.PIPE, text=True
    ) as process:
        said = ""
        while not (found := re.search(r"http://(127\.0\.0\.1:\d+)", said)) and process.poll() is None:
            said += process.stderr.readline()
        address = found[1]
        with urllib.request.urlopen(f"http://{address}/v1/models", timeout=60) as answer:
            assert json.load(answer)["data"]
        body = json.dumps({"model": "pebble", "voice": "default", "input": "lights on", "response_format": "pcm"})
        asked = urllib.request.Request(
            f"http://{address}/v1/audio/speech", body.encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert len(answer.read()) > 1000
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert not ready.exists() and files_in(watched.home) == []
    wrong = told(watched.log, watched.allowed)
    assert wrong == []


def test_what_is_watched_for_is_seen(strace, tmp_path):
    """The test's own test: a program that does each of the forbidden things is told of each."""
    script = (
        "import pathlib, socket\n"
        "pathlib.Path('/tmp/voxrill-privacy-test').write_text('x')\n"
        "pathlib.Path('/tmp/voxrill-privacy-test').unlink()\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.connect(('127.0.0.1', 9))\n"
        "try: socket.getaddrinfo('localhost.invalid', 80)\n"
        "except OSError: pass\n"
    )
    log = tmp_path / "trace"
    subprocess.run([*map(str, (*strace, "-o", log, sys.executable, "-c", script))], check=True, timeout=60)
    wrong = told(log, HARMLESS)
    assert any("voxrill-privacy-test" in call for call in wrong)
    assert any(call.startswith("connect") for call in wrong)
    assert any(place in call for call in wrong for place in RESOLVING)


def test_onnxruntime_s_telemetry_is_off_before_it_is_imported(tmp_path):
    """Also for the processes that are started from here: they inherit the environment."""
    script = "import voxrill, os, sys; print('onnxruntime' in sys.modules, os.environ['ORT_DISABLE_TELEMETRY'])"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.split() == ["False", "1"], done.stderr
