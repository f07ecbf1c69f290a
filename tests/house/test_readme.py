"""Every snippet of the README runs: Python as it stands, shell lines against a tiny bundle."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from benchmarks.talk.sound_server import SoundServer
from tests.checkpoints import MODEL_FILE
from tests.export.saved import factors, write_adapter
from tests.places import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
SNIPPETS = re.findall(r"```(sh|python)\n(.*?)```", README, re.DOTALL)
CLIENT_SNIPPETS = re.findall(r"```py\n(.*?)```", README, re.DOTALL)  # these want a server


@pytest.fixture
def workplace(tmp_path, bundles, tiny_checkpoints, monkeypatch):
    """A folder in which the README's names exist."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "LiquidAI").mkdir()
    (tmp_path / "LiquidAI" / "LFM2.5-Audio-1.5B").symlink_to(tiny_checkpoints["lfm2.5"])
    shutil.copy(ROOT / "examples" / "question.wav", tmp_path)
    shutil.copytree(ROOT / "examples" / "documents", tmp_path / "manuals")
    shutil.copy(ROOT / "examples" / "commands.toml", tmp_path)
    (tmp_path / "recordings").mkdir()
    shutil.copy(ROOT / "examples" / "question.wav", tmp_path / "recordings")
    (tmp_path / "recordings" / "question.txt").write_text("turn on the kitchen lights")
    (tmp_path / "whisper.jsonl").write_text('{"id": "question", "text": "Turn on the kitchen lights."}')
    (tmp_path / "texts.txt").write_text("kitchen lights on")
    shutil.copy(ROOT / "examples" / "question.wav", tmp_path / "meeting.wav")
    (tmp_path / "bundle").symlink_to(bundles["lfm2.5"])
    (tmp_path / "tuned").mkdir()
    (tmp_path / "tuned" / "model.safetensors").symlink_to(tiny_checkpoints["lfm2.5"] / MODEL_FILE)
    write_adapter(tmp_path / "adapter", factors("lfm.layers.2.self_attn.q_proj"))
    return tmp_path


def test_python_snippets(workplace):
    snippets = [code for kind, code in SNIPPETS if kind == "python"]
    assert snippets
    for code in snippets:
        run = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
    assert (workplace / "reply.wav").stat().st_size >= 44


def shell_lines():
    lines = [line for kind, code in SNIPPETS if kind == "sh" for line in code.splitlines()]
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    wanted = [words[1] for words in shell_lines() if words[0] == "make"]
    assert wanted == ["demo", "test", "test-arm"]
    for target in wanted:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_ci_runs_the_readme_s_test_command():
    assert "make test" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


def talk(words, workplace, environment):
    """Run what listens until it does, on a sound card of wires where PulseAudio is installed; end it with Ctrl-C."""
    if shutil.which("pulseaudio") is None:
        pytest.skip("pulseaudio is not installed")
    with SoundServer("readme") as server:
        wire = server.wire("readme")
        command = [sys.executable, "-m", *words]
        with subprocess.Popen(
            command,
            cwd=workplace,
            env={**environment, **wire.program},
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        ) as process:
            killer = threading.Timer(120, process.kill)
            killer.start()
            while process.poll() is None and not server.listeners(wire):
                time.sleep(0.1)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate()
            killer.cancel()
    assert process.returncode == 0, f"{shlex.join(words)}: {errors.decode()}"


def serve(words, workplace, environment):
    """Run the server, the README's clients of it, and end it with Ctrl-C."""
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    address = f"127.0.0.1:{words[words.index('--port') + 1]}"
    command = [sys.executable, "-m", *words, "--port", "0"]
    with subprocess.Popen(
        command, cwd=workplace, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        killer = threading.Timer(120, process.kill)
        killer.start()
        said = ""
        while "Ctrl-C" not in said and process.poll() is None:
            said += process.stderr.readline()
        served = re.search(r"http://(\S+)/v1", said).group(1)
        for snippet in CLIENT_SNIPPETS:
            assert address in snippet
            code = snippet.replace(address, served)
            client = subprocess.run([sys.executable, "-c", code], cwd=workplace, capture_output=True, text=True)
            assert client.returncode == 0, client.stderr
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
        killer.cancel()
    assert CLIENT_SNIPPETS and (workplace / "answer.mp3").stat().st_size > 1000
    assert process.returncode == 0, f"{shlex.join(words)}: {errors}"


def test_voxrill_lines(workplace, monkeypatch):
    """In order, as a reader would type them; the export's hub id is a folder here."""
    (workplace / "bundle").unlink()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ran = 0
    for words in shell_lines():
        if words[0] == "export":
            name, value = words[1].split("=")
            environment[name] = value
        elif words[:2] == ["voxrill", "talk"] or "--live" in words:
            talk(words, workplace, environment)
        elif words[:2] == ["voxrill", "serve"]:
            serve(words, workplace, environment)
        elif words[0] == "voxrill":
            run = subprocess.run(
                [sys.executable, "-m", *words], cwd=workplace, env=environment, capture_output=True, text=True
            )
            silent = words[1] == "doctor"  # its status says whether this machine has a microphone and a loudspeaker
            assert run.returncode in ((0, 1) if silent else (0,)), f"{shlex.join(words)}: {run.stderr}"
            ran += 1
        else:
            assert words[0] in ("make", "pip"), f"not run by any test: {shlex.join(words)}"
    assert ran >= 9
