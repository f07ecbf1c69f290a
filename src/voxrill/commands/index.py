"""Every command: its name, its one line of help, and the module that holds it, which is imported when it is run.

Importing all commands takes ten times as long as `voxrill --help`. So the list is kept here, and a test holds each line
to the command's own docstring.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

from voxrill.commands.quiet import be_quiet

QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="No notes and no progress: only warnings and errors.")]


@dataclass(frozen=True)
class Entry:
    """A command: the module of this package and the name in it that make it, and its line of help.

    What the name stands for is a function, or a `typer.Typer` for a command with commands of its own.
    """

    module: str
    name: str
    help: str


GROUPS: Mapping[str, Mapping[str, Entry]] = {
    "Use it": {
        "transcribe": Entry("transcribe", "transcribe", "Write down the words of files, folders or a microphone."),
        "speak": Entry("answers", "speak", "Say a text aloud, on the loudspeaker or into a sound file."),
        "chat": Entry("answers", "chat", "Answer one question, spoken, written or both."),
        "talk": Entry("talk", "talk", "Talk: speak, be answered aloud, interrupt, go on."),
        "translate": Entry("translate", "translate", "Say in another language what a sound file says."),
        "ask": Entry("ask", "ask", "Answer a question from your own documents, citing file and lines."),
        "control": Entry("control", "control", "Understand spoken commands, run them, and confirm them aloud."),
        "classify": Entry("control", "classify", "Tell which of some labels fits a sound, with probabilities."),
        "pebble": Entry("answers", "pebble", "List what the small built-in model knows."),
        "snapshot": Entry("talk", "snapshot", "Read a system prompt or a document once, and keep the result."),
        "replay": Entry("talk", "replay", "Make a recorded talk's answers again, and compare them to the bit."),
    },
    "Serve it": {
        "serve": Entry("serve", "serve", "Serve the model over OpenAI's interfaces, and to Home Assistant."),
        "web": Entry("web", "web", "Write a site that runs a bundle in the browser, on a phone too."),
    },
    "Make it": {
        "export": Entry("export", "export", "Turn a checkpoint into a bundle of ONNX graphs."),
        "quantize": Entry("quantize", "quantize", "Make a smaller bundle: weights of 8 to 2 bits."),
        "sensitivity": Entry("quantize", "sensitivity", "Measure how many bits each weight needs, and write a recipe."),
        "compare": Entry("quantize", "compare", "Show what quantising changed, graph by graph and in the answers."),
        "tune": Entry("tune", "tune", "Fit a bundle to this device: weights ready to be mapped, threads."),
        "pack": Entry("bundles", "pack", "Make one file of a bundle, to carry to a device that is offline."),
        "unpack": Entry("bundles", "unpack", "Take a packed bundle apart, checking every hash."),
        "compile": Entry("npu", "compile_for", "Compile a bundle for the NPU of a Qualcomm chip."),
    },
    "Check it": {
        "doctor": Entry("doctor", "doctor", "Say what this machine is, how fast, and what is missing."),
        "plan": Entry("plan", "plan", "Predict what will run on a device, how fast, and in how much memory."),
        "devices": Entry("devices", "devices", "List devices and providers, or microphones and loudspeakers."),
        "inspect": Entry("bundles", "inspect", "Show what a bundle is: family, source, licence, graphs, files."),
        "verify": Entry("bundles", "verify", "Check a bundle: hashes, contracts, and a short run of all graphs."),
        "providers": Entry("providers", "providers", "Show which nodes each execution provider took, and their time."),
        "accept": Entry("accept", "accept", "Hold a bundle to what the real weights are known to say."),
        "golden": Entry("golden", "golden", "Compare this device with golden vectors, or write some."),
        "npu-check": Entry("npu", "npu_check", "Compile a bundle's graphs for NPUs, and simulate them."),
        "eval": Entry("evaluate", "group", "Score answers and their times beside other programs'."),
        "bench": Entry("bench", "group", "Speak for minutes, and see whether heat slows this machine."),
    },
}
"""By the panel of `voxrill --help` they stand in."""

COMMANDS = {name: entry for group in GROUPS.values() for name, entry in group.items()}


def load_command(name: str) -> Any:
    """Import a command of `COMMANDS`; typer's own class of it depends on typer's version."""
    entry = COMMANDS[name]
    found = getattr(import_module(f"{__package__}.{entry.module}"), entry.name)
    if isinstance(found, typer.Typer):
        app = found
        for inner in app.registered_commands:
            inner.short_help = (inspect.getdoc(inner.callback) or "").partition("\n")[0]  # else a list cuts it short
    else:
        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(name)(found)
    for one in app.registered_commands:
        one.callback = _with_quiet(one.callback)
    if app.registered_callback is not None:
        app.registered_callback.callback = _with_quiet(app.registered_callback.callback)
    command = get_command(app)
    command.name = name
    command.epilog = _epilog(name)
    return command


def _epilog(name: str) -> str:
    """The end of a command's help. click keeps the lines of a paragraph apart that begins with a backspace."""
    from voxrill.commands.examples import EXAMPLES

    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in EXAMPLES[name])


def _with_quiet(command: Any) -> Any:
    """The command with the option --quiet, if it has not got it yet."""
    own = inspect.signature(command, eval_str=True)
    if "quiet" in own.parameters:
        return command

    @functools.wraps(command)
    def run(quiet: bool, **options: Any) -> None:
        if quiet:
            be_quiet(True)
        command(**options)

    added = inspect.Parameter("quiet", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=QuietOption)
    parameters = [*own.parameters.values(), added]
    run.__dict__["__signature__"] = own.replace(parameters=parameters)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run
