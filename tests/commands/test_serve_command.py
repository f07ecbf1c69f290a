"""`voxrill serve` as a command: when it starts, what it says, and how it ends."""

import json
import signal
import socket
import subprocess
import sys
from contextlib import contextmanager
from urllib.parse import urlsplit

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import httpx
import websockets
from websockets.sync.client import connect

from tests.command_line import clean_environment

KEY = "a-key-of-24-characters-x"
SERVE = ["voxrill", "serve", "--port", "0", "--json"]


@pytest.mark.parametrize(
    ("options", "environment", "message"),
    [
        (["--host", "0.0.0.0"], {}, "no API key"),
        (["--host", "0.0.0.0"], {"VOXRILL_API_KEY": "short"}, "at least 16"),
        (["--api-key-file", "nowhere"], {}, "cannot be read"),
        (["--host", "192.0.2.1"], {"VOXRILL_API_KEY": KEY}, "cannot listen at 192.0.2.1"),
    ],
)
def test_it_does_not_start(cli, monkeypatch, options, environment, message):
    monkeypatch.delenv("VOXRILL_API_KEY", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ran = cli("serve", *options)
    assert ran.status == 2 and message in ran.err


def test_a_port_that_is_taken(cli):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ran = cli("serve", "--port", str(taken.getsockname()[1]))
    assert ran.status == 2 and "Give another --host or --port" in ran.err


def test_without_the_extra(cli, monkeypatch):
    monkeypatch.setattr("voxrill.commands.serve.PACKAGES", ("no_such_package",))
    ran = cli("serve")
    assert ran.status == 2
    assert "no_such_package is not installed" in ran.err and 'pip install "voxrill[serve]"' in ran.err


@pytest.mark.parametrize(
    ("options", "recording", "audio", "file", "log"),
    [
        ((), 3600, 600, 25, ("info", False)),
        (("--max-audio-seconds", 90, "--max-upload-mb", 200, "--log-level", "error"), 90, 90, 200, ("error", False)),
        (("--max-audio-seconds", 7200, "--log-json"), 7200, 600, 25, ("info", True)),
    ],
)
def test_options_of_uploads_and_of_the_log(cli, monkeypatch, options, recording, audio, file, log):
    seen = []
    monkeypatch.setattr("voxrill.runtime.serve.server.run", lambda model, bound, limits, *_: seen.append(limits))
    monkeypatch.setattr("voxrill.runtime.serve.log.set_up_log", lambda *given: seen.append(given))
    assert cli("serve", "--port", 0, *options).status == 0
    given, limits = seen
    assert given == log and (limits.recording, limits.audio, limits.file >> 20) == (recording, audio, file)


@pytest.fixture
def hears_hang_up():
    """SIGHUP ends a program again that this test starts, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@contextmanager
def ended_at_last(process):
    """A server that does not end must not hold up the test that found it."""
    try:
        yield
    except BaseException:
        process.kill()
        raise


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_serves_until_it_is_told_to_end(tmp_path, ending, hears_hang_up):
    (tmp_path / "key").write_text(f"{KEY}\n")
    command = [sys.executable, "-m", "voxrill", "serve", "--port", "0", "--api-key-file", "key", "--json"]
    command += ["--wyoming", "tcp://127.0.0.1:0", "--satellite", "tcp://127.0.0.1:1"]
    with subprocess.Popen(
        command, cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        ready = json.loads(process.stdout.readline())
        assert ready["model"] == "pebble" and ready["key"]
        assert "<title>Voxrill</title>" in httpx.get(ready["page"]).text
        assert httpx.get(f"{ready['url']}/models").status_code == 401
        models = httpx.get(f"{ready['url']}/models", headers={"Authorization": f"Bearer {KEY}"})
        assert models.json()["data"][0]["id"] == "pebble"
        assert b'"asr"' in describe(ready["wyoming"])
        with session(ready["url"]) as open_session:
            process.send_signal(ending)
            with ended_at_last(process), pytest.raises(websockets.ConnectionClosed) as closed:
                open_session.recv(30)
        _, errors = process.communicate(timeout=60)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == websockets.CloseCode.SERVICE_RESTART
    assert process.returncode == (0 if ending == signal.SIGINT else -ending)
    assert "Traceback" not in errors and "satellite tcp://127.0.0.1:1 is not there" in errors


def session(url):
    """A realtime session that has begun."""
    key = [f"openai-insecure-api-key.{KEY}"]
    opened = connect(url.replace("http:", "ws:") + "/realtime", subprotocols=["realtime", *key])
    assert json.loads(opened.recv(30))["type"] == "session.created"
    return opened


def describe(uri):
    """The description of the services for Home Assistant."""
    address = urlsplit(uri)
    with socket.create_connection((address.hostname, address.port)) as connection, connection.makefile("rwb") as stream:
        stream.write(b'{"type": "describe"}\n')
        stream.flush()
        return stream.read(json.loads(stream.readline())["data_length"])


def test_nohup_keeps_it_alive():
    command = ["nohup", sys.executable, "-m", "voxrill", "serve", "--port", "0", "--json"]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        url = json.loads(process.stdout.readline())["url"]
        process.send_signal(signal.SIGHUP)
        assert httpx.get(f"{url}/models").status_code == 200
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)


def flood(url, count):
    """Open `count` connections from another address. The newest 100 stay open."""
    address = urlsplit(url)
    opened = [socket.create_connection((address.hostname, address.port), 10, ("127.0.0.2", 0)) for _ in range(count)]
    for one in opened[: count - 100]:
        one.close()
    return opened[count - 100 :]


def test_a_flood_of_connections_fills_neither_the_files_nor_the_log():
    """With few files, other addresses are answered during the flood, and the log has one line of a kind."""
    start = f"import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)); sys.argv = {SERVE}; "
    command = [sys.executable, "-c", f"import sys; {start}runpy.run_module('voxrill', run_name='__main__')"]
    with subprocess.Popen(command, env=clean_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        url = json.loads(process.stdout.readline())["url"]
        held = [one for _ in range(5) for one in flood(url, 300)]
        try:
            for _ in range(10):
                assert httpx.get(f"{url}/models").status_code == 200
        finally:
            for one in held:
                one.close()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert "Traceback" not in errors.decode() and errors.count(b"system resource") <= 2


def test_its_help_waits_for_no_model(tmp_path):
    """What the command needs is imported when it runs."""
    script = (
        "import sys, voxrill.commands.serve; print({'onnxruntime', 'starlette', 'voxrill.model'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout == "set()\n", done.stderr
