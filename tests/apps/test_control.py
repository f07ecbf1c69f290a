"""Voice control: what is heard becomes a call of the grammar, runs what it should, and never a shell."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
import tracemalloc
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import voxrill
from tests.command_line import run_alone
from tests.places import QUESTION, ROOT
from tests.signals import SAMPLE_RATE, speech_like
from tests.talking import CLIPS, HELD_OUT, SPOKEN, spoken
from voxrill.runtime.apps import programs
from voxrill.runtime.apps.control import Control, leads, least_lead
from voxrill.runtime.apps.grammar import Call, parse_grammar
from voxrill.runtime.apps.programs import clean_environment, run_program
from voxrill.runtime.errors import DataError, HookError, UnknownText, UsageError

COMMANDS = ROOT / "examples" / "commands.toml"
LIGHT = next(CLIPS / clip["file"] for clip in SPOKEN if clip["words"] == "bathroom lights on")
OUTSIDE = next(CLIPS / clip["file"] for clip in HELD_OUT if clip["kind"] == "outside")
SMALL = """
[slots]
room = ["kitchen", "bathroom"]
state = ["on", "off"]
[commands.lights]
say = ["{room} lights {state}"]
confirm = "{room} lights {state}"
"""


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


@pytest.fixture(scope="module")
def house(pebble):
    return pebble.control(COMMANDS)


def small(pebble, folder, more=""):
    return Control(pebble, parse_grammar(SMALL + more, folder))


# Understanding


def test_held_out_commands_are_understood(house):
    calls = {sentence.words: sentence.call for sentence in house.grammar.sentences}
    asked = [clip for clip in HELD_OUT if clip["words"] in calls]
    assert len(asked) >= 25
    right = 0
    for clip in asked:
        understood = house.hear(spoken(clip), sample_rate=16_000)
        right += understood.accepted and understood.call == calls[clip["words"]]
    assert right >= len(asked) - 3


def test_what_is_no_command_is_asked_again(house):
    for clip in HELD_OUT:
        if clip["kind"] in ("outside", "music", "silence") or clip["words"].startswith("what is"):
            understood = house.hear(spoken(clip), sample_rate=16_000)
            assert not understood.accepted and house.answer(understood) == house.ask_back
            assert understood.call in [sentence.call for sentence in house.grammar.sentences]


def test_every_command_of_the_example_is_confirmed_as_the_model_answers_it(house, recipe):
    taught = recipe("world").COMMANDS
    for sentence in house.grammar.sentences:
        if not any(word.isdigit() for word in sentence.words.split()):
            assert house.confirmation(sentence.call) == taught[sentence.words].reply


@pytest.mark.parametrize("clip", [LIGHT, QUESTION], ids=["short", "long"])
def test_the_threshold_decides_and_a_short_command_needs_more(pebble, clip, tmp_path):
    grammar = parse_grammar(SMALL.replace("say = [", 'say = ["turn {state} the {room} lights", '), tmp_path)
    heard = Control(pebble, grammar).hear(clip)
    lead = heard.confidence - heard.rival
    assert 0.5 < lead <= heard.confidence < 1
    needed = 2 * lead - 1 if clip == LIGHT else lead  # a short one needs half of what the threshold lacks to 1 on top
    for threshold, accepted in ((0.0, True), (needed - 0.02, True), (needed + 0.02, False), (1.0, False)):
        understood = Control(pebble, grammar, threshold).hear(clip)
        assert understood.accepted == accepted
        assert understood.call == heard.call and understood.call.command == "lights"


@pytest.mark.parametrize(
    ("seconds", "words", "threshold", "needed"),
    [
        (2.0, "turn on the kitchen lights", 0.4, 0.4),
        (1.4, "turn on the kitchen lights", 0.4, 0.7),  # short
        (3.0, "turn on the kitchen lights", 0.4, 0.85),  # time for more words
        (3.0, "could you please turn on the kitchen lights", 0.4, 0.4),
        (1.4, "lights on", 0.4, 0.85),
        (1.0, "lights on", 0.0, 0.0),  # everything is taken
        (9.0, "lights on", 0.0, 0.0),
        (9.0, "lights on", 1.0, 1.0),
        (1.8, "\u96fb\u6c17\u3092\u3064\u3051\u3066", 0.4, 0.4),  # "lights on" in Japanese
    ],
)
def test_a_short_sound_and_one_with_time_for_more_words_need_more(seconds, words, threshold, needed):
    assert least_lead(threshold, seconds, words) == pytest.approx(needed)


def test_two_commands_in_one_breath_are_no_third_one(house):
    """The model may hear one command that has words of both."""
    calls = {sentence.words: sentence.call for sentence in house.grammar.sentences}
    alone = {clip["file"]: house.hear(spoken(clip), sample_rate=16_000).call for clip in SPOKEN}
    clips = [clip for clip in SPOKEN if alone[clip["file"]] == calls.get(clip["words"])][:6]
    breath, asked_back = np.zeros(4000, np.float32), 0
    for first, second in pairwise(clips):
        understood = house.hear(np.concatenate([spoken(first), breath, spoken(second)]), sample_rate=16_000)
        asked_back += not understood.accepted
        assert not understood.accepted or understood.call in (calls[first["words"]], calls[second["words"]])
    assert asked_back >= 3


def test_silence_around_the_words_leaves_no_time_for_more(house):
    """Also where it is not cut away: what counts is how long somebody spoke."""
    words = spoken(next(clip for clip in SPOKEN if clip["words"] == "bathroom lights on"))
    silence = np.zeros(2 * SAMPLE_RATE, np.float32)
    around = np.concatenate([silence, words, silence])
    alone, padded = (house.hear(sound, trim=False, sample_rate=16_000) for sound in (words, around))
    assert alone.accepted and alone.call == padded.call
    needed = least_lead(house.threshold, len(words) / SAMPLE_RATE, padded.words)
    assert padded.accepted == leads(padded.confidence, padded.rival, needed)


def test_a_rival_means_another_call(pebble, tmp_path):
    """Two ways to say the same are no rivals; of two rooms the other one is."""
    one = parse_grammar('[commands.a]\nsay = ["turn on the bathroom lights", "bathroom lights on"]', tmp_path)
    assert Control(pebble, one).hear(LIGHT).rival == 0
    two = parse_grammar(
        '[commands.a]\nsay = ["turn on the {r} lights"]\n[slots]\nr = ["bathroom", "bedroom"]', tmp_path
    )
    heard = Control(pebble, two).hear(LIGHT)
    assert heard.call.slots == {"r": "bathroom"} and 0 <= heard.rival < heard.confidence


@pytest.mark.parametrize("place", ["before", "after"])
def test_courtesy_around_a_command_changes_nothing(pebble, tmp_path, place):
    """Words of the clip stand for courtesy: "turn on" before the rest of it, or "lights" after it."""
    words = ["turn", "on", "the", "kitchen", "lights"]
    courtesy, rest = (words[:2], words[2:]) if place == "before" else (words[-1:], words[:-1])
    command = f'[commands.a]\nsay = ["{" ".join(rest)}", "good night"]'
    polite = Control(pebble, parse_grammar(f'{place} = ["{" ".join(courtesy)}"]\n{command}', tmp_path))
    heard = polite.hear(QUESTION)
    assert heard.accepted and heard.words == " ".join(rest)
    assert 0 < heard.rival < heard.confidence <= 1
    assert not Control(pebble, parse_grammar(f"before = []\nafter = []\n{command}", tmp_path)).hear(QUESTION).accepted


def test_a_contested_call_is_asked_back():
    assert leads(0.7, 0.08, 0.5) and not leads(0.7, 0.1, 0.5) and not leads(0.55, 0.1, 0.5)


def test_a_threshold_is_a_probability(pebble, tmp_path):
    for threshold in (-0.1, 2.0):
        with pytest.raises(UsageError, match=f"threshold is {threshold}"):
            Control(pebble, parse_grammar(SMALL, tmp_path), threshold)


@pytest.mark.parametrize("seed", range(5))
def test_random_weights_still_make_valid_calls(model, seed, tmp_path):
    """Whatever a model would like to write, and whatever it hears: by construction nothing but the grammar's calls."""
    wait = '[commands.wait]\nsay = ["wait {n} hours"]\n[slots.n]\nfrom = 1\nto = 30'
    grammar = parse_grammar(SMALL + wait, tmp_path)
    control = Control(model, grammar, threshold=[0.0, 0.5, 1.0][seed % 3])
    calls = [sentence.call for sentence in grammar.sentences]
    for sound in (speech_like(SAMPLE_RATE, seed), np.zeros(400, np.float32) + seed / 10):
        understood = control.hear(sound, sample_rate=SAMPLE_RATE)
        assert understood.call in calls and 0 <= understood.confidence <= 1


def test_numbers_and_capitals_are_written_as_the_model_may(model, tmp_path):
    grammar = parse_grammar('[commands.w]\nsay = ["wait {n}"]\n[slots]\nn = [3]', tmp_path)
    control = Control(model, grammar)
    written = {model.parts.tokenizer.decode(tokens) for tokens in control.written}
    assert written == {"wait three", "Wait three.", "wait 3", "Wait 3."}


@pytest.mark.parametrize(
    ("more", "saying"),
    [
        ('[commands.a]\nsay = ["feed the elephant"]', "of the command a is unreachable: this model does not know"),
        (
            '[commands.a]\nsay = ["open the {b}"]\n[slots.b]\ndoor = ["door"]\nhatch = ["hatch"]',
            "'hatch' of the slot b",
        ),
        ('[commands.a]\nsay = ["open the door"]\nconfirm = "sesame"', "does not know sesame"),
        ('[commands.a]\nsay = ["kitchen lights on!"]', "'kitchen lights on!' is ambiguous"),
    ],
)
def test_words_the_model_lacks_are_refused(pebble, tmp_path, more, saying):
    with pytest.raises(DataError if "ambiguous" in saying else UnknownText) as refused:
        small(pebble, tmp_path, more)
    assert saying in str(refused.value)


def test_the_measurement_counts_calls(recipe):
    commanding, synthesise = recipe("commanding"), recipe("synthesise")
    wanted = [clip for clip in HELD_OUT if clip["file"][:2] in ("02", "04", "10", "20", "26")]
    sounds = [(spoken(clip) * 32767).astype(np.int16) for clip in wanted]
    texts, voices = [clip["text"] for clip in wanted], [clip["voice"] for clip in wanted]
    clips = synthesise.ClipStore(texts, voices, np.concatenate(sounds), np.cumsum([len(sound) for sound in sounds]))
    found = list(commanding.hear(None, clips, "clean", limit=5))
    assert [one.test for one in found] == [
        commanding.NEAR_MISS, "known sentences", "new sentences", "flite:awb", commanding.NO_COMMAND
    ]  # fmt: skip
    assert [one.free == one.wanted == one.greedy == one.best.call for one in found] == [False, True, True, True, False]
    assert "| new sentences | 1 | 100.0 | 100.0 | 100.0 | 100.0 | 0.0 | 0.0 |" in list(commanding.rows(found, 0.5))
    assert "| 0.5 | 100.0 | 0.0 | 0.0 |" in list(commanding.thresholds(found))
    commands = {sentence.command for sentence in recipe("world").SENTENCES}
    assert not commands & {commanding.near_miss(np.random.default_rng(seed)) for seed in range(50)}


# Hooks


def test_a_function_is_called_with_the_slots(pebble, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "my_house.py").write_text("called = []\ndef lights(room, state):\n    called.append((room, state))\n")
    control = small(pebble, tmp_path, 'call = "my_house:lights"')
    control.run(control.hear(LIGHT).call)
    assert sys.modules.pop("my_house").called == [("bathroom", "on")]


def program(folder, text):
    path = folder / "hook"
    path.write_text(f"#!{sys.executable}\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_program_gets_each_value_as_one_argument_and_no_shell_sees_it(pebble, tmp_path):
    program(tmp_path, "import json, sys\njson.dump(sys.argv[1:], open('got', 'w'))\n")
    control = small(pebble, tmp_path, 'run = ["./hook", "--room", "{room}", "{state}"]')
    for value in ("living room", "$(touch hurt); `touch hurt` && touch hurt | *", "--help", '"'):
        control.run(Call("lights", {"room": value, "state": "on"}))
        assert json.loads((tmp_path / "got").read_text()) == ["--room", value, "on"]
    assert not (tmp_path / "hurt").exists()


def test_a_hook_that_fails_says_how(pebble, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    call = Call("lights", {"room": "kitchen", "state": "on"})
    program(tmp_path, "import sys\nsys.exit('no bulb')\n")
    with pytest.raises(HookError, match="status 1: no bulb"):
        small(pebble, tmp_path, 'run = ["./hook"]').run(call)
    (tmp_path / "bad_house.py").write_text("def lights(room, state):\n    raise OSError('no bulb')\n")
    with pytest.raises(HookError, match="raised OSError: no bulb"):
        small(pebble, tmp_path, 'call = "bad_house:lights"').run(call)


def run(folder, text, **options):
    """Run a Python program as a hook; what it wrote."""
    program(folder, text)
    return run_program([str(folder / "hook")], folder, clean_environment(), **options)


def gone(process):
    """Whether a process has ended, waited for or not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(true):
    """Whether something becomes true within a generous time."""
    until = time.monotonic() + 60
    while not true() and time.monotonic() < until:
        time.sleep(0.01)
    return true()


LEAVES_TWO = """
import os, subprocess, sys, time
children = [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) for _ in range(2)]
open("children.part", "w").write(" ".join(str(child.pid) for child in children))
os.rename("children.part", "children")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_hook_that_hangs_is_ended_with_all_that_it_started(tmp_path, monkeypatch):
    monkeypatch.setattr(programs, "PATIENCE", 5.0)
    with pytest.raises(HookError, match=r"took more than 5 s and was ended.*in the background"):
        run(tmp_path, LEAVES_TWO + "time.sleep(600)\n")
    for child in (tmp_path / "children").read_text().split():
        assert eventually(lambda child=child: gone(child))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_ctrl_c_ends_a_hook_with_all_that_it_started(tmp_path, monkeypatch):
    def interrupted(self, timeout):
        assert eventually((tmp_path / "children").exists)
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, LEAVES_TWO + "time.sleep(600)\n")
    for child in (tmp_path / "children").read_text().split():
        assert eventually(lambda child=child: gone(child))


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_what_a_hook_leaves_in_the_background_is_not_waited_for(tmp_path):
    """It holds the pipe for ten minutes. Its own writing neither stops nor kills it."""
    (tmp_path / "talker.py").write_text(
        "import time\nfor _ in range(1000):\n    print('x' * 10000, flush=True)\nopen('wrote', 'w')\ntime.sleep(600)\n"
    )
    run(
        tmp_path,
        "import subprocess, sys\nopen('child', 'w').write(str(subprocess.Popen([sys.executable, 'talker.py']).pid))",
    )
    child = int((tmp_path / "child").read_text())
    try:
        assert eventually((tmp_path / "wrote").exists) and not gone(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_background_process_does_not_block_control(tmp_path):
    """The issue's own: a hook of a shell that ends at once, through the real command line, with its output in pipes."""
    (tmp_path / "hook").write_text("#!/bin/sh\nsleep 600 &\necho $! > child\n")
    (tmp_path / "hook").chmod(0o755)
    (tmp_path / "c.toml").write_text(SMALL + 'run = ["./hook"]')
    try:
        ran = run_alone("control", "c.toml", LIGHT, cwd=tmp_path)  # it ends when all have let go of its output
        assert (ran.status, ran.out) == (0, "lights room=bathroom state=on\n")
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)


def test_endless_output_is_bounded(tmp_path):
    said = run(tmp_path, "import os\nfor _ in range(3000):\n    os.write(1, bytes(65536))\nos.write(2, b'the end')")
    assert len(said) <= programs.KEPT and said.endswith("the end")
    tracemalloc.start()
    with pytest.raises(HookError, match="status 3") as failed:
        run(tmp_path, "import os\nfor _ in range(3000):\n    os.write(2, b'x' * 65536)\nos._exit(3)")
    assert len(str(failed.value)) < programs.KEPT + 1000
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_hook_inherits_no_keys(pebble, tmp_path, monkeypatch):
    for name in (
        "VOXRILL_API_KEY",
        "OPENAI_API_KEY",
        "HASS_TOKEN",
        "AWS_SECRET_ACCESS_KEY",
        "MQTT_HOST",
        "LD_PRELOAD_X",
    ):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("LC_ALL", "C")
    program(tmp_path, "import json, os, sys\njson.dump([dict(os.environ), sys.stdin.read()], open('got', 'w'))\n")
    small(pebble, tmp_path, 'run = ["./hook"]').run(Call("lights", {}))
    environment, stdin = json.loads((tmp_path / "got").read_text())
    assert "secret" not in environment.values() and stdin == ""
    assert environment["PATH"] == os.environ["PATH"] and environment["LC_ALL"] == "C"
    grammar = parse_grammar('environment = ["MQTT_HOST"]\n' + SMALL + 'run = ["./hook"]', tmp_path)
    Control(pebble, grammar).run(Call("lights", {}))
    environment, _ = json.loads((tmp_path / "got").read_text())
    assert [name for name, value in environment.items() if value == "secret"] == ["MQTT_HOST"]
    with pytest.raises(UsageError, match="the variable VOXRILL_API_KEY is Voxrill's own"):
        parse_grammar('environment = ["VOXRILL_API_KEY"]\n' + SMALL, tmp_path)


def test_a_hook_has_a_session_of_its_own(tmp_path):
    said = run(tmp_path, "import os\nprint(os.getsid(0), os.getpgid(0), os.getpid())")
    assert len(set(said.split())) == 1 and said.split()[0] != str(os.getsid(0))


def test_what_a_hook_writes_is_shown(cli, tmp_path):
    program(tmp_path, "print('the lamp is \\x1b[31mred')\n")
    (tmp_path / "c.toml").write_text(SMALL + 'run = ["./hook"]')
    ran = cli("control", "c.toml", LIGHT)
    assert ran.out == "lights room=bathroom state=on\n" and r"the lamp is \x1b[31mred" in ran.err


def test_a_program_that_cannot_be_started_is_one_line(tmp_path):
    (tmp_path / "hook").write_text("#!/no/such/interpreter\n")
    (tmp_path / "hook").chmod(0o755)
    for arguments in ([], ["null\0character"], ["x" * (4 << 20)]):
        with pytest.raises(HookError, match="hook cannot be run"):
            run_program([str(tmp_path / "hook"), *arguments], tmp_path, clean_environment())


@pytest.mark.parametrize("text", ["def f(:", "raise SystemExit(3)", "import sys\nsys.exit()", "1 / 0", "x = {}['y']"])
def test_a_module_that_fails_when_it_is_imported(pebble, tmp_path, monkeypatch, text):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "failing_house.py").write_text(text)
    with pytest.raises(DataError, match="cannot be imported"):
        small(pebble, tmp_path, 'call = "failing_house:f"')


def test_a_function_that_exits_does_not_end_control(pebble, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "exiting_house.py").write_text("def lights(room, state):\n    raise SystemExit(3)\n")
    with pytest.raises(HookError, match="raised SystemExit"):
        small(pebble, tmp_path, 'call = "exiting_house:lights"').run(Call("lights", {"room": "hall", "state": "on"}))


@pytest.mark.parametrize(
    ("hook", "saying"),
    [
        ('run = ["./none"]', "runs './none', and there is no such program"),
        ('run = ["no-such-program-7"]', "there is no such program"),
        ('call = "no_module_7:f"', "cannot be imported"),
        ('call = "json:no_such"', "cannot be imported"),
        ('call = ":f"', "cannot be imported"),
        ('call = "json:__name__"', "is not a function"),
        ('call = "json:loads"', "does not take its slots (room, state)"),
    ],
)
def test_a_hook_that_is_not_there_is_refused_at_once(pebble, tmp_path, monkeypatch, hook, saying):
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(DataError) as refused:
        small(pebble, tmp_path, hook)
    assert saying in str(refused.value)


# The command


def test_a_command_is_printed_run_and_confirmed(cli, tmp_path):
    program(tmp_path, "import sys\nopen('got', 'w').write(' '.join(sys.argv[1:]))\n")
    (tmp_path / "c.toml").write_text(SMALL + 'run = ["./hook", "{room}"]')
    ran = cli("control", "c.toml", LIGHT, "-o", "a.wav")
    assert ran.status == 0 and ran.out == "lights room=bathroom state=on\n"
    assert (tmp_path / "got").read_text() == "bathroom"
    assert voxrill.load(threads=1).transcribe("a.wav").text.strip() == "bathroom lights on"


def test_a_dry_run_runs_nothing(cli, tmp_path):
    program(tmp_path, "open('got', 'w')\n")
    (tmp_path / "c.toml").write_text(SMALL + 'run = ["./hook"]')
    assert cli("control", "c.toml", LIGHT, "--dry-run").out == "lights room=bathroom state=on\n"
    assert not (tmp_path / "got").exists()


def test_commands_for_machines(cli):
    ran = cli("control", COMMANDS, LIGHT, OUTSIDE, "--json")
    light, outside = map(json.loads, ran.out.splitlines())
    assert light["command"] == "lights" and light["slots"] == {"room": "bathroom", "state": "on"}
    assert light["accepted"] and light["answer"] == "bathroom lights on" and light["error"] is None
    assert not outside["accepted"] and outside["answer"] == "sorry i only know the house"
    assert outside["confidence"] < 0.01 and outside["seconds"] > 0 and outside["cpu_seconds"] > 0


def test_what_is_not_understood_leaves_stdout_empty(cli):
    ran = cli("control", COMMANDS, OUTSIDE)
    assert ran.status == 0 and ran.out == "" and "not understood" in ran.err


def test_a_failing_hook_is_the_command_s_error(cli, tmp_path):
    program(tmp_path, "import sys\nsys.exit('no bulb')\n")
    (tmp_path / "c.toml").write_text(SMALL + 'run = ["./hook"]')
    ran = cli("control", "c.toml", LIGHT)
    assert ran.status == 2 and "no bulb" in ran.err.splitlines()[-1]


def test_one_bad_file_does_not_stop_the_others(cli, tmp_path):
    (tmp_path / "bad.wav").write_text("no sound")
    ran = cli("control", COMMANDS, "bad.wav", LIGHT)
    assert ran.status == 2 and "bad.wav is not a sound file" in ran.err and "1 of 2 files" in ran.err
    assert ran.out == f"{LIGHT}\tlights room=bathroom state=on\n"


def test_bad_uses_are_refused(cli, tmp_path):
    (tmp_path / "c.toml").write_text('[slots]\na = ["b"]\n[commands.c]\nsay = ["d"]')
    cli.refuses("control", "c.toml", LIGHT, saying=("c.toml", "the slot a is unreachable"))
    cli.refuses("control", COMMANDS, saying="nothing to listen to")
    cli.refuses("control", COMMANDS, LIGHT, "--live", saying="do not go together")
    cli.refuses("control", COMMANDS, LIGHT, OUTSIDE, "-o", "a.wav", saying="the answer to one sound file")
    cli.refuses("control", "none.toml", LIGHT, saying="none.toml cannot be read")
