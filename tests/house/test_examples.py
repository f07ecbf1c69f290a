"""The small programs of examples/ and of docs/guides/voice-bots.md, run as a reader would run them."""

import importlib.util
import io
import json
import re
import subprocess
import sys

import numpy as np
import pytest

import voxrill
from tests.places import QUESTION, ROOT
from voxrill.runtime.audio import own_sink, own_source
from voxrill.runtime.audio.audio_file import read_audio

EXAMPLES = ROOT / "examples"
HEARD, REPLY = "turn on the kitchen lights", "kitchen lights on"
SMALL = ("voice_bot.py", "batch.py", "web_app.py")


def run(name, *arguments, **options):
    return subprocess.run(
        [sys.executable, str(EXAMPLES / name), *map(str, arguments)], capture_output=True, timeout=120, **options
    )


def spoken():
    """The question and a pause, as 16-bit samples at 16 kHz."""
    samples = np.concatenate([read_audio(QUESTION), np.zeros(12_000, np.float32)])
    return (samples * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("name", SMALL)
def test_they_are_small(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) <= 40


def test_the_voice_bot_hears_calls_and_answers():
    done = run("voice_bot.py", input=spoken())
    assert done.returncode == 0, done.stderr.decode()
    assert done.stderr.decode().splitlines() == [f"UserHeard {HEARD}", f"TurnEnded {REPLY}"]
    assert len(done.stdout) > 24_000  # half a second of sound


def test_a_folder_is_transcribed_with_times(tmp_path):
    (tmp_path / "a.wav").write_bytes(QUESTION.read_bytes())
    (tmp_path / "b.wav").write_bytes(b"no sound")
    (tmp_path / "notes.txt").write_text("not looked at")
    done = run("batch.py", tmp_path, text=True)
    assert done.returncode == 0, done.stderr
    (line,) = map(json.loads, done.stdout.splitlines())
    assert line["file"].endswith("a.wav") and line["text"] == HEARD
    (segment,) = line["segments"]
    assert 0 <= segment["start"] < segment["end"] <= line["duration"] + 0.032
    assert "b.wav is not a sound file" in done.stderr


def test_the_web_application_answers():
    pytest.importorskip("fastapi", reason="fastapi is not installed")
    pytest.importorskip("python_multipart", reason="python-multipart is not installed")
    from fastapi.testclient import TestClient

    spec = importlib.util.spec_from_file_location("web_app", EXAMPLES / "web_app.py")
    application = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(application)
    client = TestClient(application.app)
    heard = client.post("/transcribe", files={"file": QUESTION.read_bytes()})
    assert heard.status_code == 200 and heard.json()["text"] == HEARD and heard.json()["segments"]
    refused = client.post("/transcribe", files={"file": b"no sound"})
    assert refused.status_code == 400 and "not a sound file" in refused.json()["detail"]
    answer = client.get("/speak", params={"text": REPLY})
    assert answer.headers["content-type"] == "audio/wav"
    assert len(read_audio(io.BytesIO(answer.content))) > 8000
    assert client.get("/speak", params={"text": "Quetzalcoatl"}).status_code == 400


PAGE = (ROOT / "docs" / "guides" / "voice-bots.md").read_text(encoding="utf-8")


def test_the_page_s_program_runs(monkeypatch, capsys):
    (program,) = re.findall(r"```py run\n(.*?)```", PAGE, re.DOTALL)
    monkeypatch.setattr(own_source, "FASTER", 1e9)
    monkeypatch.setattr(own_sink, "LEAD", 1e9)
    names = {"pieces": [spoken()]}
    exec(compile(program, "voice_bots.md", "exec"), names)
    assert HEARD in capsys.readouterr().out
    assert sum(map(len, names["played"])) > 12_000


def test_the_page_names_what_there_is():
    events = set(re.findall(r"^\| `(\w+)\(", PAGE, re.MULTILINE)) | {"AnswerFailed"}
    assert events == {kind.__name__ for kind in voxrill.TalkEvent.__args__} | {"AnswerFailed"}
    for name in re.findall(r"`talk\.(\w+)\(", PAGE):
        assert hasattr(voxrill.TalkSession, name)
