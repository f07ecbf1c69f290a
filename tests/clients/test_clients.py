"""Other people's clients and frameworks, as their quickstarts call them; only the server's address and the key differ.

Each framework has an environment of its own, because their requirements clash: `make clients`. Its program is run there
against one server with the built-in model. The model itself judges the spoken answers.
"""

import json
import re
import shutil
import subprocess
import sys
import wave
from contextlib import ExitStack, closing
from functools import cache

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")
pytest.importorskip("wyoming", reason="the serve extra is not installed")

import voxrill
from tests.places import ROOT
from tests.serving import ANSWER, HEARD, QUESTION, serving, spoken
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.wyoming.addresses import bind
from voxrill.runtime.serve.wyoming.server import Wyoming

HERE = ROOT / "tests" / "clients"
PATIENCE = 120
"""Seconds after which a program that did not end is ended."""

GREETING, HELLO = "hello how can i help", "Say hello!"
"""What Pebble says when it is asked for a greeting; and what Pipecat asks, which it was not taught."""

CHECKS = {
    "curl": {
        "transcription": {"heard"},
        "short_transcription": {"heard"},
        "speech": {"sound"},
        "short_speech": {"sound"},
        "typed_question": {"answer"},
        "short_typed_question": {"answer"},
    },
    "openai": {
        "transcription": {"heard"},
        "streamed_transcription": {"heard"},
        "timed_transcription": {"heard"},
        "speech": {"sound"},
        "question_with_sound": {"answer", "sound"},
        "response": {"answer"},
        "streamed_response": {"answer"},
        "typed_question": {"answer"},
    },
    "openai_realtime": {
        "typed_question": {"answer"},
        "spoken_question": {"heard", "answer", "sound"},
        "spoken_question_by_default": {"answer", "sound"},
        "push_to_talk": {"answer", "sound"},
        "transcription": {"heard"},
    },
    "openai_beta": {"typed_question": {"answer"}, "spoken_question": {"answer", "sound"}},
    "openai_agents": {
        "spoken_question": {"heard", "answer", "sound"},
        "typed_question": {"heard", "answer", "sound"},
        "written_agent": {"answer"},
        "voice_pipeline": {"answer", "sound"},
    },
    "livekit": {
        "stt": {"heard"},
        "stt_live": {"heard"},
        "stt_live_by_default": {"heard"},
        "tts": {"sound"},
        "chat": {"answer"},
        "realtime": {"heard", "answer", "sound"},
        "realtime_agent": {"heard", "answer", "sound", "greeting", "greeting_sound"},
        "pipeline_agent": {"heard", "answer", "sound", "greeting", "greeting_sound"},
    },
    "pipecat": {
        "stt": {"heard"},
        "stt_live": {"heard"},
        "tts": {"sound"},
        "chat": {"answer"},
        "realtime": {"heard", "answer", "sound", "greeting", "greeting_sound"},
    },
    "wyoming": {"speech_to_text": {"heard"}, "text_to_speech": {"sound"}, "conversation": {"answer"}},
}
"""What each check of each program must find."""

RUNS = [
    (None, "curl"),
    ("openai", "openai"),
    ("openai-1", "openai"),
    ("openai", "openai_realtime"),
    ("openai-1", "openai_beta"),
    ("openai-agents", "openai_agents"),
    ("livekit", "livekit"),
    ("pipecat", "pipecat"),
    ("wyoming", "wyoming"),
]
"""Environments and the programs that run there. None: this one."""

QUESTIONS = [(environment, program, check) for environment, program in RUNS for check in CHECKS[program]]
NAMES = [f"{environment or 'here'}-{program}-{check}" for environment, program, check in QUESTIONS]


def interpreter(environment, program):
    """The Python that runs a program. The test skips where what it needs is not there."""
    if environment is None:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
        return sys.executable
    folder = ROOT / ".venv-clients" / environment
    if not (folder / ".installed").exists():
        pytest.skip(f"there is no .venv-clients/{environment}. Run: make clients")
    return folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """`found(environment, program)`: what a program reports, and the folder of its sounds. Each runs once."""
    with ExitStack() as stack:
        bound = stack.enter_context(closing(bind("tcp://127.0.0.1:0", anyone=False)))
        server = stack.enter_context(serving(Limits(sessions=10), wyoming=Wyoming(bound)))

        @cache
        def run(environment, program):
            python, folder = interpreter(environment, program), tmp_path_factory.mktemp(f"{environment}-{program}")
            for rate in (16_000, 24_000):
                with wave.open(str(folder / f"question_{rate}.wav"), "wb") as file:
                    file.setparams((1, 2, rate, 0, "NONE", ""))
                    file.writeframes(spoken(QUESTION, rate))
            url = "tcp://{}:{}".format(*bound.getsockname()) if program == "wyoming" else server.url
            command = [python, HERE / f"with_{program}.py", url, folder]
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
            assert done.returncode == 0, done.stderr[-3000:]
            report = json.loads(done.stdout)
            assert report.keys() == CHECKS[program].keys()
            return report, folder

        yield run


@pytest.fixture(scope="module")
def ear():
    """The model that judges answers. The server's own belongs to the server's thread."""
    return voxrill.load(threads=1)


@pytest.mark.parametrize("environment, program, check", QUESTIONS, ids=NAMES)
def test_a_quickstart(found, ear, environment, program, check):
    report, folder = found(environment, program)
    result = report[check]
    assert "error" not in result, result["error"]
    assert result.keys() == CHECKS[program][check]
    assert result.get("heard", HEARD) == HEARD
    assert result.get("answer", ANSWER) == ANSWER
    *_, hello = ear.chat(text=HELLO)
    assert result.get("greeting", GREETING) in (GREETING, hello.result.text)
    if "sound" in result:
        assert ear.transcribe(folder / result["sound"]).text == ANSWER
    if "greeting_sound" in result:  # in words that Pebble says, and was not taught to hear
        assert len(read_audio(folder / result["greeting_sound"], 16_000)) > 8_000


def test_each_program_and_each_environment_is_used():
    programs = sorted(path.stem.removeprefix("with_") for path in HERE.glob("with_*.py"))
    assert programs == sorted(CHECKS)
    assert sorted({environment for environment, _ in RUNS if environment}) == sorted(
        path.stem for path in (HERE / "requirements").glob("*.txt")
    )


def test_the_page_has_each_requirement():
    page = (ROOT / "docs" / "guides" / "clients.md").read_text(encoding="utf-8")
    for path in (HERE / "requirements").glob("*.txt"):
        for line in path.read_text().splitlines():
            name, version = re.fullmatch(r"([a-z-]+)(?:\[\w+\])?(\S+)", line).groups()
            assert f"| `{name}` | {version} |" in page
