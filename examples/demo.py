"""The whole way once, by the commands a user would type: checkpoint, bundle, transcript, speech, answer.

    make demo

The checkpoint is a tiny random one in the published layout, made on the spot, so the words and sounds that come out
mean nothing; what the demo shows is that every step runs. The question is synthetic speech (flite, voice slt).
"""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build-demo"
QUESTION = ROOT / "examples" / "question.wav"


def run(*arguments: str) -> None:
    """Show a command, then run it; the first that fails ends the demo."""
    shown = [argument.replace(f"{ROOT}/", "") for argument in arguments]
    print(f"\n$ {shlex.join(shown)}", flush=True)
    module = "voxrill" if arguments[0] == "voxrill" else arguments[0]
    subprocess.run([sys.executable, "-m", module, *arguments[1:]], cwd=ROOT, check=True)


def main() -> None:
    """Run the demo."""
    checkpoint, bundle = str(WORK / "checkpoint"), str(WORK / "bundle")
    reply, answer = str(WORK / "reply.wav"), str(WORK / "answer.wav")
    print("This demo runs a tiny RANDOM checkpoint: what it writes and says means nothing.")
    run("tests.checkpoints", "--family", "lfm2.5", "--size", "tiny", checkpoint)
    run("voxrill", "export", checkpoint, "-o", bundle)
    run("voxrill", "verify", bundle)
    run("voxrill", "transcribe", str(QUESTION), "--bundle", bundle, "--max-new-tokens", "24")
    run(
        "voxrill",
        "speak",
        "The kitchen lights are on.",
        "--voice",
        "US male",
        "-o",
        reply,
        "--bundle",
        bundle,
        "--seed",
        "1",
    )
    run("voxrill", "chat", "--audio", str(QUESTION), "-o", answer, "--bundle", bundle, "--seed", "0",
        "--max-new-tokens", "60")  # fmt: skip
    print(f"\nThe random model's voice is in {WORK.name}/reply.wav and {WORK.name}/answer.wav.")


if __name__ == "__main__":
    main()
