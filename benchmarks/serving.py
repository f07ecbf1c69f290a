"""What `voxrill serve` sustains: sessions that talk at the same time, and twice as many requests as it can answer.

    python -m benchmarks.serving --minutes 10 > serving.json

The server is a process of its own with the built-in model on one thread. The clients run on the same machine and use
part of it. First eight realtime sessions ask in turn, each its own questions. Then clients that wait for their answers
find the sustained rate. Then requests come at twice that rate, whether or not they are answered. Then the first
measurement is repeated. JSON goes to stdout. The figures hold for the built-in model only.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import httpx
import psutil
import websockets

from benchmarks.machine import load_average, machine
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.pcm import pcm16

QUESTION = Path(__file__).parent.parent / "examples" / "question.wav"
HEARD = "turn on the kitchen lights"
ROOMS = ("kitchen", "bedroom", "bathroom", "garage", "hall", "office", "garden", "kitchen")
CLIENTS = 4
"""Clients that wait for their answers: as many as the server works on at a time."""

PIECE = 4800
"""Bytes of sound in one message: a tenth of a second."""


@contextlib.contextmanager
def server() -> Iterator[tuple[str, psutil.Process]]:
    """A server's URL and process, until the block ends."""
    command = [
        sys.executable,
        "-m",
        "voxrill",
        "serve",
        "--port",
        "0",
        "--json",
        "--threads",
        "1",
        "--rate",
        "10000000",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["url"], psutil.Process(process.pid)
        finally:
            process.terminate()


async def ask(client: httpx.AsyncClient, sound: bytes) -> tuple[int, float, bool]:
    """One transcription: its status, its seconds, and whether it was right, or refused with a time to come back."""
    started = time.perf_counter()
    found = await client.post("/audio/transcriptions", data={"model": "pebble"}, files={"file": ("a.wav", sound)})
    right = found.json().get("text") == HEARD if found.status_code == 200 else "retry-after" in found.headers
    return found.status_code, time.perf_counter() - started, right


async def sustained(client: httpx.AsyncClient, sound: bytes, seconds: float) -> dict[str, Any]:
    """Requests per second of clients that wait for their answers."""
    until, answers = time.perf_counter() + seconds, []

    async def waiting() -> None:
        while time.perf_counter() < until:
            answers.append(await ask(client, sound))

    await asyncio.gather(*(waiting() for _ in range(CLIENTS)))
    return {"per_second": len(answers) / seconds, **summary(answers)}


async def crowd(client: httpx.AsyncClient, sound: bytes, rate: float, seconds: float) -> dict[str, Any]:
    """What happens to requests that come at `rate` per second, whether or not others are answered."""
    asked: list[asyncio.Task[tuple[int, float, bool]]] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds:
        asked.append(asyncio.create_task(ask(client, sound)))
        await asyncio.sleep(max(0.0, started + len(asked) / rate - time.perf_counter()))
    answers = await asyncio.gather(*asked)
    return {"asked_per_second": len(asked) / seconds, **summary(answers)}


def summary(answers: list[tuple[int, float, bool]]) -> dict[str, Any]:
    """Answers by status, wrong answers, and the time of the answered requests."""
    times = [seconds for status, seconds, _ in answers if status == 200]
    return {
        "statuses": dict(Counter(str(status) for status, _, _ in answers)),
        "wrong": sum(not right for _, _, right in answers),
        "median_seconds": median(times),
        "p95_seconds": quantiles(times, n=20)[-1],
    }


async def sessions(url: str, turns: int) -> dict[str, Any]:
    """Realtime sessions at the same time. Each gives `turns` commands of its own, spoken and written ones in turn."""
    silence = bytes(24_000)
    spoken = silence + pcm16(read_audio(QUESTION, 24_000)).tobytes() + silence * 2
    lost, mixed, first = 0, 0, []

    async def session(room: str) -> None:
        nonlocal lost, mixed
        async with websockets.connect(url.replace("http:", "ws:") + "/realtime", max_size=None) as socket:
            for turn in range(turns):
                aloud = room == "kitchen" and turn % 2 == 0
                await (say(socket, spoken) if aloud else write(socket, f"turn on the {room} lights"))
                started = time.perf_counter()
                text, sound = await answer(socket)
                lost += text is None
                mixed += text is not None and text != f"{room} lights on"
                if sound is not None and not aloud:
                    first.append(sound - started)

    await asyncio.gather(*map(session, ROOMS))
    return {
        "sessions": len(ROOMS),
        "turns": len(ROOMS) * turns,
        "lost": lost,
        "mixed": mixed,
        "median_seconds_to_first_sound_of_written_turns": median(first),
    }


async def say(socket: websockets.ClientConnection, sound: bytes) -> None:
    """Send a spoken question, as fast as possible."""
    for start in range(0, len(sound), PIECE):
        piece = base64.b64encode(sound[start : start + PIECE]).decode()
        await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": piece}))


async def write(socket: websockets.ClientConnection, text: str) -> None:
    """Send a written question."""
    item = {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]}
    await socket.send(json.dumps({"type": "conversation.item.create", "item": item}))
    await socket.send(json.dumps({"type": "response.create"}))


async def answer(socket: websockets.ClientConnection) -> tuple[str | None, float | None]:
    """An answer's text, None if none comes within a minute, and when its first sound came."""
    text, sound = "", None
    try:
        async with asyncio.timeout(60):
            while True:
                event = json.loads(await socket.recv())
                if event["type"] == "response.output_audio_transcript.delta":
                    text += event["delta"]
                elif event["type"] == "response.output_audio.delta" and sound is None:
                    sound = time.perf_counter()
                elif event["type"] == "response.done":
                    return text, sound
    except TimeoutError:
        return None, sound


async def measure(minutes: float, turns: int) -> dict[str, Any]:
    """All of it."""
    sound = QUESTION.read_bytes()
    with server() as (url, process):
        async with httpx.AsyncClient(base_url=url, timeout=120, limits=httpx.Limits(max_connections=None)) as client:
            found: dict[str, Any] = {"machine": machine(), "realtime": await sessions(url, turns)}
            found["sustained"] = await sustained(client, sound, min(30.0, 20 * minutes))
            before = process.memory_info().rss
            rate = 2 * found["sustained"]["per_second"]
            found["twice_as_many"] = await crowd(client, sound, rate, 60 * minutes)
            found["afterwards"] = await sustained(client, sound, min(30.0, 20 * minutes))
            found["server_memory_grew_by_bytes"] = process.memory_info().rss - before
            found["load_average"] = load_average()
    return found


def main() -> None:
    """Measure, and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10, help="of twice the sustained rate")
    parser.add_argument("--turns", type=int, default=20, help="of each realtime session")
    options = parser.parse_args()
    json.dump(asyncio.run(measure(options.minutes, options.turns)), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
