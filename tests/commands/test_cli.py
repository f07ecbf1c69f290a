"""The command line when all is well: words to stdout, sound to where it is wanted, the same seed the same answer."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import voxrill
from tests.checkpoints import FAMILIES
from tests.command_line import Ran, check_refusal, clean_environment, run_alone
from tests.signals import SAMPLE_RATE, speech_like

COMMANDS = (
    "transcribe",
    "speak",
    "chat",
    "ask",
    "translate",
    "pebble",
    "inspect",
    "verify",
    "pack",
    "unpack",
    "classify",
    "control",
    "eval",
    "tune",
    "talk",
    "replay",
    "snapshot",
    "plan",
    "accept",
    "golden",
    "providers",
    "devices",
    "doctor",
    "serve",
    "web",
    "bench",
    "export",
    "quantize",
    "compare",
    "sensitivity",
    "npu-check",
    "compile",
)
HEAVY = ("torch", "onnx", "onnxscript", "transformers", "optimum", "huggingface_hub")
SPOKEN = "Hello there."  # what the tiny models answer with sound
CUT_OFF = "\N{REPLACEMENT CHARACTER}"  # a character whose last bytes did not come; streamed text leaves it out
SHORT = ("--max-new-tokens", "60")


@pytest.fixture
def sound(tmp_path):
    """A second of something like speech, `a.wav`."""
    soundfile.write(tmp_path / "a.wav", speech_like(SAMPLE_RATE), SAMPLE_RATE)
    return "a.wav"


def lines_of_json(ran):
    return [json.loads(line) for line in ran.out.splitlines()]


# Transcribing


@pytest.mark.parametrize("family", FAMILIES)
def test_transcribe(cli, bundles, models, sound, family):
    ran = cli("transcribe", sound, "--bundle", bundles[family], *SHORT)
    assert ran.status == 0 and ran.err == ""
    assert ran.out == models[family].transcribe(sound, max_new_tokens=60).text + "\n"
    assert len(ran.out) > 10


@pytest.mark.parametrize("family", FAMILIES)
def test_transcribe_for_machines(cli, bundles, models, sound, family):
    ran = cli("transcribe", sound, "--json", "--bundle", bundles[family], *SHORT)
    assert ran.status == 0 and ran.err == ""
    (found,) = lines_of_json(ran)
    wanted = models[family].transcribe(sound, max_new_tokens=60)
    assert found["file"] == sound and found["text"] == wanted.text
    assert found["tokens"] == len(wanted.tokens) and found["finish_reason"] == wanted.finish_reason
    assert found["frames"] == 0 and found["audio_seconds"] == 0 and found["first_audio_seconds"] is None
    assert 0 < found["first_text_seconds"] <= found["seconds"]
    assert {"log_mel", "audio_encoder", "decoder", "text_head"} <= set(found["stages_ms"])


@pytest.mark.parametrize("json_wanted", [False, True], ids=["text", "json"])
def test_one_bad_file_does_not_stop_the_others(cli, bundles, sound, tmp_path, json_wanted):
    soundfile.write(tmp_path / "b.flac", speech_like(20_000, 1), 22_050)
    (tmp_path / "bad.wav").write_text("no sound")
    files = (sound, "bad.wav", "b.flac")
    ran = cli("transcribe", *files, *(["--json"] * json_wanted), "--bundle", bundles["lfm2"], *SHORT)
    assert ran.status == 2
    bad, summary = ran.err.splitlines()
    assert "bad.wav is not a sound file" in bad and "1 of 3 files" in summary
    if json_wanted:
        assert [found["file"] for found in lines_of_json(ran)] == [sound, "b.flac"]
    else:
        assert [line.split("\t")[0] for line in ran.out.splitlines()] == [sound, "b.flac"]


def test_another_system_prompt_is_another_answer(cli, bundles, sound):
    command = ("transcribe", sound, "--bundle", bundles["lfm2"], *SHORT)
    assert cli(*command).out != cli(*command, "--system", "Count to ten.").out


def test_a_limit_is_kept_and_told(cli, bundles, sound):
    (found,) = lines_of_json(cli("transcribe", sound, "--json", "--max-new-tokens", "3", "--bundle", bundles["lfm2"]))
    assert found["tokens"] == 3 and found["finish_reason"] == "length"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are Unicode there")
def test_a_file_name_that_is_no_text(cli, bundles, sound):
    os.rename(sound, b"caf\xe9.wav")
    name = os.fsdecode(b"caf\xe9.wav")
    (found,) = lines_of_json(cli("transcribe", name, "--json", "--bundle", bundles["lfm2"], *SHORT))
    assert found["file"] == "caf\N{REPLACEMENT CHARACTER}.wav"
    ran = cli("transcribe", name, name, "--bundle", bundles["lfm2"], *SHORT)
    assert ran.status == 0 and ran.out.startswith("caf\N{REPLACEMENT CHARACTER}.wav\t")


# Speaking


@pytest.mark.parametrize("family", FAMILIES)
def test_speak_into_a_file(cli, bundles, family):
    ran = cli("speak", SPOKEN, "-o", "a.wav", "--json", "--seed", "0", "--bundle", bundles[family], *SHORT)
    assert ran.status == 0 and ran.err == ""
    (found,) = lines_of_json(ran)
    info = soundfile.info("a.wav")
    assert (info.samplerate, info.channels, info.subtype) == (24_000, 1, "PCM_16")
    assert info.frames == found["frames"] * 1920 > 0
    assert found["out"] == "a.wav" and found["audio_seconds"] == pytest.approx(info.duration, abs=1e-3)
    assert np.abs(soundfile.read("a.wav")[0]).max() > 0.01
    assert [path.name for path in Path().iterdir()] == ["a.wav"]


def test_speak_says_what_it_wrote(cli, bundles):
    ran = cli("speak", SPOKEN, "-o", "a.wav", "--seed", "0", "--bundle", bundles["lfm2"], *SHORT)
    assert ran.out == ""
    assert ran.err.startswith("wrote a.wav (3.12 s of sound)")
    assert "first audio after" in ran.err and "ended early: length" in ran.err and ran.err.count("\n") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_raw_samples_are_those_of_the_file(cli, bundles, family):
    command = ("speak", SPOKEN, "--seed", "0", "--bundle", bundles[family], *SHORT)
    assert cli(*command, "-o", "a.wav").status == 0
    ran = cli(*command, "-o", "-")
    assert ran.status == 0 and "16-bit little-endian, mono, 24000 Hz" in ran.err
    samples, _ = soundfile.read("a.wav", dtype="int16")
    assert ran.raw == samples.astype("<i2").tobytes() != b""


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_seed_says_the_same(cli, bundles, family):
    command = ("speak", SPOKEN, "--bundle", bundles[family], *SHORT)
    for out, seed in (("a.wav", 0), ("b.wav", 0), ("c.wav", 1)):
        assert cli(*command, "-o", out, "--seed", seed).status == 0
    assert Path("a.wav").read_bytes() == Path("b.wav").read_bytes() != Path("c.wav").read_bytes()


def test_greedy_needs_no_seed(cli, bundles):
    command = ("speak", SPOKEN, "-o", "-", "--audio-temperature", "0", "--bundle", bundles["lfm2"], *SHORT)
    first, second = cli(*command), cli(*command)
    assert first.raw == second.raw != b""


def test_voices_by_name_whatever_the_case(cli, bundles):
    command = ("speak", SPOKEN, "-o", "-", "--seed", "0", "--bundle", bundles["lfm2.5"], *SHORT)
    default, same, other = cli(*command), cli(*command, "--voice", "us FEMALE"), cli(*command, "--voice", "UK male")
    assert default.raw == same.raw != other.raw


def test_a_voice_described_where_none_has_a_name(cli, bundles):
    command = ("speak", SPOKEN, "-o", "-", "--seed", "0", "--bundle", bundles["lfm2"], *SHORT)
    default, other = cli(*command), cli(*command, "--voice", "An old man, whispering.")
    assert default.status == other.status == 0
    assert default.raw != other.raw


def test_what_to_say_comes_from_stdin(cli, bundles, monkeypatch):
    command = ("-o", "-", "--seed", "0", "--bundle", bundles["lfm2"], *SHORT)
    monkeypatch.setattr(sys, "stdin", io.StringIO(SPOKEN + "\n"))
    assert cli("speak", "-", *command).raw == cli("speak", SPOKEN, *command).raw != b""


# Chatting


@pytest.mark.parametrize("family", FAMILIES)
def test_a_written_answer(cli, bundles, models, family):
    ran = cli("chat", "--text", "Hello", "--output", "text", "--bundle", bundles[family], *SHORT)
    assert ran.status == 0
    *_, end = models[family].chat(text="Hello", output="text", max_new_tokens=60)
    assert ran.out == end.result.text.rstrip(CUT_OFF) + "\n"
    assert ran.err.count("\n") == 1 and "not kept" not in ran.err


@pytest.mark.parametrize("family", FAMILIES)
def test_a_spoken_answer_with_its_words(cli, bundles, sound, family):
    command = ("chat", "--audio", sound, "--text", SPOKEN, "--seed", "0", "--bundle", bundles[family], *SHORT)
    ran = cli(*command, "-o", "b.wav")
    (found,) = lines_of_json(cli(*command, "-o", "c.wav", "--json"))
    assert ran.status == 0 and ran.err.startswith("wrote b.wav") and ran.err.count("\n") == 1
    assert ran.out == found["text"].rstrip(CUT_OFF) + "\n"
    assert Path("b.wav").read_bytes() == Path("c.wav").read_bytes()
    assert soundfile.info("b.wav").frames == found["frames"] * 1920 > 0


def test_a_spoken_answer_alone(cli, bundles):
    command = ("chat", "--text", SPOKEN, "--seed", "0", "--bundle", bundles["lfm2"], *SHORT)
    assert cli(*command, "-o", "a.wav").status == 0
    ran = cli(*command, "--output", "audio", "-o", "-")
    assert ran.status == 0
    assert ran.raw == soundfile.read("a.wav", dtype="int16")[0].astype("<i2").tobytes() != b""


def test_sound_that_goes_nowhere_is_mentioned(cli, bundles):
    ran = cli("chat", "--text", SPOKEN, "--seed", "0", "--bundle", bundles["lfm2"], *SHORT)
    assert ran.status == 0 and ran.out.strip()
    assert "not kept: give -o" in ran.err


def test_a_spoken_and_a_written_question_differ(cli, bundles, sound):
    command = ("chat", "--output", "text", "--bundle", bundles["lfm2"], *SHORT)
    spoken, written = cli(*command, "--audio", sound), cli(*command, "--text", "Hello")
    both = cli(*command, "--audio", sound, "--text", "Hello")
    assert len({spoken.out, written.out, both.out}) == 3


def test_the_question_comes_from_stdin(cli, bundles, monkeypatch):
    command = ("--output", "text", "--bundle", bundles["lfm2"], *SHORT)
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert cli("chat", "--text", "-", *command).out == cli("chat", "--text", "Hello", *command).out


def test_sampling_of_text(cli, bundles):
    command = ("chat", "--text", "Hello", "--output", "text", "--bundle", bundles["lfm2"], *SHORT)
    greedy = cli(*command).out
    hot = [cli(*command, "--text-temperature", "2", "--seed", seed).out for seed in (0, 0, 1)]
    assert hot[0] == hot[1] and len({greedy, hot[0], hot[2]}) == 3
    assert cli(*command, "--text-temperature", "2", "--text-top-k", "1").out == greedy


# The rest


def test_the_bundle_comes_from_the_environment(cli, bundles, sound, monkeypatch):
    wanted = cli("transcribe", sound, "--bundle", bundles["lfm2"], *SHORT).out
    monkeypatch.setenv("VOXRILL_BUNDLE", str(bundles["lfm2"]))
    assert cli("transcribe", sound, *SHORT).out == wanted


def test_threads_do_not_change_the_answer(cli, bundles, sound):
    command = ("transcribe", sound, "--bundle", bundles["lfm2"], *SHORT)
    assert cli(*command, "--threads", "1").out == cli(*command, "--threads", "2").out


def test_version(cli):
    ran = cli("--version")
    assert (ran.status, ran.out, ran.err) == (0, f"voxrill {voxrill.__version__}\n", "")


def test_help_lists_every_command(cli):
    ran = cli("--help")
    assert ran.status == 0 and ran.err == ""
    listed = ran.out[ran.out.index("Use it:") :].splitlines()
    assert {line.split()[0] for line in listed if re.match("  [a-z]", line)} == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(cli, command):
    ran = cli(command, "--help")
    assert ran.status == 0 and ran.err == ""
    assert ran.out.startswith(f"Usage: voxrill {command} ")


@pytest.mark.parametrize(
    "command",
    [["nonsense"], ["transcribe"], ["chat", "--max-new-tokens", "0"], ["export", "x"], ["speak", "x", "--nonsense"]],
)
def test_wrong_usage_is_explained(cli, command):
    ran = cli(*command)
    assert ran.status == 2 and ran.raw == b""
    assert ran.err.startswith("Usage: voxrill") and "Error: " in ran.err and "Traceback" not in ran.err


def test_the_command_line_loads_nothing_heavy(bundles, tmp_path):
    """Device commands must start fast, and without the export extra."""
    script = (
        "import sys\nfrom voxrill.__main__ import main\n"
        "try:\n    main()\nfinally:\n"
        f"    print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    for command in (["inspect", str(bundles["lfm2"]), "--json"], ["verify", str(bundles["lfm2"])], ["--help"]):
        done = subprocess.run(
            [sys.executable, "-c", script, *command], capture_output=True, cwd=tmp_path, env=clean_environment()
        )
        assert (done.returncode, done.stderr) == (0, b"[]\n")


def test_exporting_without_the_extra_names_it(tmp_path):
    script = "import sys\nsys.modules['torch'] = None\nfrom voxrill.__main__ import main\nmain()\n"
    done = subprocess.run(
        [sys.executable, "-c", script, "export", "checkpoint", "-o", "bundle"],
        capture_output=True,
        cwd=tmp_path,
        env=clean_environment(),
    )
    check_refusal(Ran(done.returncode, done.stdout, done.stderr.decode()), ("torch", 'pip install "voxrill[export]"'))


def test_a_terminal_that_lacks_a_character_does_not_stop_us(bundles, tmp_path):
    question = ("chat", "--text", "\N{SNOWMAN}", "--output", "text", "--text-temperature", "3", "--seed", "0")
    ran = run_alone(*question, "--bundle", bundles["lfm2"], cwd=tmp_path, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert ran.status == 0
    assert b"?" in ran.raw and ran.raw.isascii()
