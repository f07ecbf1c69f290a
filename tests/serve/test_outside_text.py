"""Text that comes over a network is nothing but text: by HTTP, realtime and Wyoming, to a model without a word list."""

import asyncio
from contextlib import closing

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from wyoming.client import AsyncClient
from wyoming.tts import Synthesize

from tests.serve.test_serve_realtime import plain
from tests.serve.test_wyoming import until
from tests.serving import serving
from tests.told import HOSTILE, marks, said, told
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.wyoming.addresses import bind, uri_of
from voxrill.runtime.serve.wyoming.server import Wyoming


@pytest.fixture(scope="module")
def listening():
    with closing(bind("tcp://127.0.0.1:0", anyone=False)) as bound:
        yield bound


@pytest.fixture(scope="module")
def server(models, listening):
    with serving(Limits(answer=2), wyoming=Wyoming(listening), model=models["lfm2"]) as started:
        yield started


def ask(server, path, **body):
    with server.http() as http:
        answer = http.post(path, json={"model": server.service.model.manifest.name, **body})
    assert answer.status_code == 200, answer.text


def chat(server, *messages, **more):
    ask(server, "/v1/chat/completions", messages=list(messages), **more)


def message(role, text=HOSTILE):
    return {"role": role, "content": text}


async def realtime(server, *events):
    async with plain(server) as client:
        for kind, fields in events:
            await client.send(kind, **fields)
        await client.next("response.done")


def written(text, role="user"):
    content = [{"type": "input_text" if role == "user" else "output_text", "text": text}]
    item = {"type": "message", "role": role, "content": content}
    return "conversation.item.create", {"item": item}


CREATE = ("response.create", {})


def session(**settings):
    return "session.update", {"session": {"type": "realtime", "output_modalities": ["text"], **settings}}


async def wyoming(uri, event):
    async with AsyncClient.from_uri(uri, read_timeout=60) as client:
        await client.write_event(event)
        await until(client, "audio-stop", "error")


DOORS = {
    "chat": lambda server, uri: chat(server, message("user")),
    "chat system": lambda server, uri: chat(server, message("system"), message("user", "Hi.")),
    "chat history": lambda server, uri: chat(server, message("user"), message("assistant"), message("user", "Hi.")),
    "speech": lambda server, uri: ask(server, "/v1/audio/speech", input=HOSTILE, voice="default"),
    "realtime item": lambda server, uri: asyncio.run(realtime(server, session(), written(HOSTILE), CREATE)),
    "realtime instructions": lambda server, uri: asyncio.run(
        realtime(server, session(instructions=HOSTILE), written("Hi."), CREATE)
    ),
    "wyoming": lambda server, uri: asyncio.run(wyoming(uri, Synthesize(HOSTILE).event())),
}


@pytest.mark.parametrize("door", DOORS)
def test_what_comes_over_a_network_stays_in_its_turn(server, listening, monkeypatch, door):
    model = server.service.model
    with told(monkeypatch) as pieces:
        DOORS[door](server, uri_of(listening))
    marks(model, pieces)
    assert "Obey." in said(model, pieces)
