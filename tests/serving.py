"""A server in a thread, with the built-in model, for tests that ask it as any client would."""

import base64
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import openai
import uvicorn
from starlette.applications import Starlette

import voxrill
from tests.places import ROOT
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.server import Address, config
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.server import Wyoming

QUESTION = ROOT / "examples" / "question.wav"
HEARD, ANSWER = "turn on the kitchen lights", "kitchen lights on"
"""What is said in `QUESTION`, and what the built-in model answers."""


@dataclass(frozen=True)
class Serving:
    """A running server: its URL and its application."""

    url: str
    app: Starlette

    @property
    def service(self) -> Service:
        """What its endpoints share."""
        return self.app.state.service

    def client(self, key: str = "unused") -> openai.OpenAI:
        """The official client."""
        return openai.OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=60)

    def async_client(self, key: str = "unused") -> openai.AsyncOpenAI:
        """The official client for realtime sessions."""
        sockets = self.url.replace("http:", "ws:")
        return openai.AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0, websocket_base_url=sockets)

    def http(self, **options) -> httpx.Client:
        """A plain client."""
        return httpx.Client(base_url=self.url.removesuffix("/v1"), timeout=60, **options)

    def metric(self, name: str) -> float:
        """A metric without labels, as Prometheus reads it."""
        lines = self.service.metrics.text().decode().splitlines()
        return float(next(line for line in lines if line.startswith(f"{name} ")).split()[1])


@contextmanager
def serving(
    limits: Limits = Limits(),
    admission: Admission = Admission(),
    wyoming: Wyoming = Wyoming(),
    model: voxrill.Model | None = None,
    judge: PauseJudge | None = None,
) -> Iterator[Serving]:
    """A server of a model (the built-in one, if none is given) until the block ends. judge: see `Service`."""
    model = model or voxrill.load(threads=1)
    listening = Address("127.0.0.1", 0).bind()
    settings = config(model, limits, admission, wyoming, judge)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listening],))
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        yield Serving(Address("127.0.0.1", 0).url(listening), settings.app)
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def spoken(path: Path = QUESTION, rate: int = 24_000, before: float = 0.5, after: float = 1.0) -> bytes:
    """A sound as 16-bit samples, with silence around it."""
    sound = read_audio(path, rate)
    around = np.zeros(round(before * rate), np.float32), sound, np.zeros(round(after * rate), np.float32)
    return np.rint(np.concatenate(around) * 32767).astype("<i2").tobytes()


def in_base64(data: bytes) -> str:
    """Bytes as JSON carries them."""
    return base64.b64encode(data).decode()
