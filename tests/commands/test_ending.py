"""Commands that are not let finish, as real processes: signals, closed streams, readers that leave."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.command_line import clean_environment
from tests.places import QUESTION

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals and streams")

SLOW = """
import os, time
from voxrill.runtime.audio.sound_writer import SoundWriter
from voxrill.commands.transcript_writer import ModelRecogniser
write, hear = SoundWriter.write, ModelRecogniser.__call__
def slowly(call):
    def called(*arguments):
        time.sleep(float(os.environ["SLOW"]))
        return call(*arguments)
    return called
SoundWriter.write, ModelRecogniser.__call__ = slowly(write), slowly(hear)
from voxrill.__main__ import main
main()
"""

SPEAK = ("speak", "kitchen lights on", "-o", "a.wav")


def started(*command, script=SLOW, hangup=signal.SIG_DFL, seconds=5):
    """A command that takes `seconds` for every frame or segment, in a process to which SIGHUP means `hangup`."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *command],
        env=clean_environment(SLOW=str(seconds)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, hangup),
    )


def wait_for(found, process, seconds=60):
    until = time.monotonic() + seconds
    while not found():
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.01)


def parts():
    return list(Path().glob(".*.part"))


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_leaves_nothing_behind(number):
    listening = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    with started(*SPEAK, script=listening + SLOW) as process:
        wait_for(parts, process)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == (128 + number if number == signal.SIGINT else -number)
    assert "Traceback" not in errors, errors
    assert list(Path().iterdir()) == []


def test_a_shell_sees_128_and_the_signals_number():
    """It does as well where the process must not be killed by its own signal, as the first one of a container."""
    for kill in ("", "os.kill = lambda *_: None\n"):
        with started(*SPEAK, script=f"import os\n{kill}{SLOW}") as process:
            wait_for(parts, process)
            process.terminate()
            process.communicate(timeout=60)
        assert process.returncode == (128 + signal.SIGTERM if kill else -signal.SIGTERM)
        assert parts() == []


def test_a_terminated_transcript_goes_on_later(cli):
    shutil.copy(QUESTION, "in.wav")
    with started("transcribe", "in.wav", "-o", "a.srt") as process:
        wait_for(Path("a.srt.journal").exists, process)
        process.terminate()
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGTERM and not Path("a.srt").exists()
    assert cli("transcribe", "in.wav", "-o", "a.srt").status == 0
    assert [path.name for path in sorted(Path().iterdir())] == ["a.srt", "in.wav"]


def test_a_closed_terminal_under_nohup_ends_nothing():
    with started(*SPEAK, hangup=signal.SIG_IGN, seconds=0.1) as process:
        wait_for(parts, process)
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == 0 and Path("a.wav").exists()


SLOW_TO_TIDY_UP = SLOW.replace(
    "from voxrill.__main__",
    """
import pathlib
unlink = pathlib.Path.unlink
def unlink_late(path, **options):
    print("tidying up", flush=True)
    time.sleep(1)
    unlink(path, **options)
pathlib.Path.unlink = unlink_late
from voxrill.__main__""",
)


def test_a_terminal_may_send_its_signal_twice():
    """The second one comes while the first one is answered, and does not keep that from being done."""
    with started(*SPEAK, script=SLOW_TO_TIDY_UP) as process:
        wait_for(parts, process)
        process.send_signal(signal.SIGHUP)
        assert process.stdout.readline() == "tidying up\n"
        process.send_signal(signal.SIGHUP)
        process.communicate(timeout=60)
    assert process.returncode == -signal.SIGHUP and parts() == []


SWALLOWS = """
import os, signal, time
try:
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)
except BaseException:
    print("swallowed")
"""


def test_a_module_that_swallows_exceptions_while_it_is_imported_does_not_swallow_the_signal():
    Path("swallows.py").write_text(SWALLOWS)
    script = """
import sys, time
sys.path.insert(0, "")
from voxrill.commands.ending import ended_by_signals
with ended_by_signals():
    import swallows
    time.sleep(60)
"""
    with started(script=script) as process:
        out, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGTERM and out == ""


# Streams that are closed


def shell(line):
    done = subprocess.run(
        ["sh", "-c", line],
        env=clean_environment(VOXRILL=f"{sys.executable} -m voxrill"),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr, done.stderr
    assert "AttributeError" not in done.stderr
    return done


@pytest.mark.parametrize("command", ["transcribe in.wav", "pebble", "pebble --json", "--help", "speak lights -o -"])
def test_data_for_a_closed_stdout_is_an_error(command):
    shutil.copy(QUESTION, "in.wav")
    done = shell(f"$VOXRILL {command} >&-")
    assert done.returncode == 2 and "stdout is closed" in done.stderr


def test_a_command_without_data_needs_no_stdout():
    """Nor does what a library prints get into its output file, which would have stdout's number."""
    done = shell("$VOXRILL speak 'kitchen lights on' -o a.wav >&- <&-")
    assert done.returncode == 0 and "wrote a.wav" in done.stderr
    assert Path("a.wav").read_bytes().startswith(b"RIFF")


@pytest.mark.parametrize("command", ["speak - -o a.wav", "transcribe -", "chat --text - --output text", "classify -"])
def test_a_closed_stdin_is_told(command):
    done = shell(f"$VOXRILL {command} <&-")
    assert done.returncode == 2 and "stdin is closed" in done.stderr


def test_a_closed_stderr_hides_what_is_said_and_nothing_else():
    shutil.copy(QUESTION, "in.wav")
    assert shell("$VOXRILL transcribe in.wav 2>&-").stdout == "turn on the kitchen lights\n"
    assert shell("$VOXRILL transcribe missing.wav 2>&-").returncode == 2
    assert shell("$VOXRILL pebble >&- 2>&- <&-").returncode == 2


# Readers that leave


@pytest.mark.parametrize("command", ["pebble", "pebble --json", "--help", "speak 'kitchen lights on' -o -"])
def test_a_reader_that_leaves_ends_it_quietly(command):
    done = shell(f"(sleep 0.2; $VOXRILL {command}; echo $? >status) | true")
    assert [line for line in done.stderr.splitlines() if "voxrill:" in line or "rror" in line] == []
    assert int(Path("status").read_text()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("command", ["pebble", "pebble --json", "--help", "--version"])
def test_a_full_disk_behind_stdout_is_told_once(command):
    done = shell(f"$VOXRILL {command} >/dev/full")
    assert done.returncode == 2 and done.stderr == "voxrill: cannot read or write: No space left on device.\n"
