"""The Wyoming protocol with a client that behaves as Home Assistant's: it opens a connection for each request.

What it waits for, and what it ignores, follow homeassistant/components/wyoming/{stt,tts,conversation}.py. Each request
must end: in what was asked for, in a refusal that it knows, or with the connection.
"""

import asyncio
from contextlib import closing

import numpy as np
import pytest

pytest.importorskip("wyoming", reason="the serve extra is not installed")

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.handle import Handled, NotHandled
from wyoming.tts import Synthesize, SynthesizeChunk, SynthesizeStart, SynthesizeStop, SynthesizeStopped, SynthesizeVoice

from tests.serve.test_wyoming import CHUNK, LOCAL, SAYING, pcm
from tests.serving import ANSWER, HEARD, serving
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.wyoming.addresses import bind
from voxrill.runtime.serve.wyoming.server import Wyoming

UNKNOWN, REFUSAL = "quantum chromodynamics", "sorry i only know the house"
"""Words that Pebble does not know, and what it answers then."""

PATIENCE = 60
"""Seconds after which a request that did not end fails its test. Home Assistant waits for as long as the connection is
open."""


class HomeAssistant:
    """One Home Assistant: its speech to text, text to speech and conversation agent. None is its word for a failure."""

    def __init__(self, bound):
        self._address = bound.getsockname()

    def _connect(self):
        return AsyncTcpClient(*self._address)

    async def speech_to_text(self, sound, language="en"):
        """The text of 16-bit samples at 16 kHz."""
        form = {"rate": 16_000, "width": 2, "channels": 1}
        try:
            async with self._connect() as client:
                await client.write_event(Transcribe(language=language).event())
                await client.write_event(AudioStart(**form).event())
                for start in range(0, len(sound), CHUNK):
                    chunk = AudioChunk(**form, audio=sound[start : start + CHUNK].tobytes())
                    await client.write_event(chunk.event())
                await client.write_event(AudioStop().event())
                while True:
                    event = await client.read_event()
                    if event is None:
                        return None
                    if Transcript.is_type(event.type):
                        return Transcript.from_event(event).text
        except OSError:
            return None

    async def text_to_speech(self, text, voice=None):
        """The sound of a text."""
        try:
            async with self._connect() as client:
                named = None if voice is None else SynthesizeVoice(name=voice)
                await client.write_event(Synthesize(text, named).event())
                return await self._sound(client, AudioStop)
        except OSError:
            return None

    async def streamed_text_to_speech(self, pieces):
        """The sound of a text that comes in pieces."""
        try:
            async with self._connect() as client:
                await client.write_event(SynthesizeStart().event())
                for piece in pieces:
                    await client.write_event(SynthesizeChunk(piece).event())
                await client.write_event(Synthesize("".join(pieces)).event())  # for servers that know no pieces
                await client.write_event(SynthesizeStop().event())
                return await self._sound(client, SynthesizeStopped)
        except OSError:
            return None

    async def _sound(self, client, last):
        sound = b""
        while True:
            event = await client.read_event()
            if event is None:
                return None
            if AudioChunk.is_type(event.type):
                sound += AudioChunk.from_event(event).audio
            if last.is_type(event.type):
                return sound

    async def ask(self, text, conversation_id="c1", language="en"):
        """What is answered to a text, and whether it was handled."""
        try:
            async with self._connect() as client:
                context = {"conversation_id": conversation_id, "device_id": "d1"}
                await client.write_event(Transcript(text, context=context, language=language).event())
                while True:
                    event = await client.read_event()
                    if event is None:
                        return None
                    if Handled.is_type(event.type):
                        return True, Handled.from_event(event).text
                    if NotHandled.is_type(event.type):
                        return False, NotHandled.from_event(event).text
        except OSError:
            return None


def run(request):
    return asyncio.run(asyncio.wait_for(request, PATIENCE))


@pytest.fixture(scope="module")
def home():
    with closing(bind(LOCAL, anyone=False)) as bound, serving(wyoming=Wyoming(bound)):
        yield HomeAssistant(bound)


def test_its_pipeline(home):
    text = run(home.speech_to_text(pcm()))
    assert text == HEARD
    handled, answer = run(home.ask(text))
    assert handled and answer == ANSWER
    whole, streamed = run(home.text_to_speech(answer)), run(home.streamed_text_to_speech(["kitchen ", "lights on"]))
    assert whole == streamed and len(whole) > 24_000


@pytest.mark.parametrize("seconds", [0, 0.01, 1.5])
def test_a_recording_without_speech_is_an_empty_text(home, seconds):
    assert run(home.speech_to_text(np.zeros((round(16_000 * seconds), 1), "<i2"))) == ""


def test_a_language_that_the_model_does_not_know_ends_the_request(home):
    assert run(home.speech_to_text(pcm(), "fr")) is None
    handled, why = run(home.ask("allume", language="fr"))
    assert not handled and "'fr'" in why


@pytest.mark.parametrize("text", ["", UNKNOWN, "on " * 2000], ids=["empty", "unknown words", "long"])
def test_a_text_that_cannot_be_spoken_ends_the_request(home, text):
    assert run(home.text_to_speech(text)) is None
    assert run(home.streamed_text_to_speech([text])) is None


@pytest.mark.parametrize("text", ["", "on " * 2000], ids=["empty", "long"])
def test_a_text_that_cannot_be_answered_ends_the_request(home, text):
    handled, why = run(home.ask(text))
    assert not handled and why


def test_a_question_of_unknown_words_is_answered_with_the_model_s_refusal(home):
    assert run(home.ask(UNKNOWN)) == (True, REFUSAL)


def test_a_voice_that_is_not_there_ends_the_request(home):
    assert run(home.text_to_speech(SAYING, "nobody")) is None


def test_a_busy_server_ends_each_request():
    with (
        closing(bind(LOCAL, anyone=False)) as bound,
        serving(Limits(active=1, queue=0), wyoming=Wyoming(bound)) as busy,
    ):
        home = HomeAssistant(bound)
        with busy.service.worker.slot():
            assert run(home.speech_to_text(pcm())) is None
            assert run(home.text_to_speech(SAYING)) is None
            assert run(home.streamed_text_to_speech([SAYING])) is None
            handled, why = run(home.ask(HEARD))
            assert not handled and "Ask again" in why
        assert run(home.speech_to_text(pcm())) == HEARD


def test_too_many_connections_end_each_request():
    with closing(bind(LOCAL, anyone=False)) as bound, serving(Limits(connections=0), wyoming=Wyoming(bound)):
        home = HomeAssistant(bound)
        for request in (home.speech_to_text(pcm()), home.text_to_speech(SAYING), home.ask(HEARD)):
            assert run(request) is None


def test_a_sound_that_grows_too_long_ends_the_request():
    with closing(bind(LOCAL, anyone=False)) as bound, serving(Limits(audio=1.0), wyoming=Wyoming(bound)):
        assert run(HomeAssistant(bound).speech_to_text(pcm())) is None


@pytest.mark.parametrize("broken", ["speech to text", "text to speech", "answer"])
def test_a_mistake_of_the_server_s_ends_the_request(monkeypatch, broken):
    def fail(*_given, **_named):
        raise ZeroDivisionError

    with closing(bind(LOCAL, anyone=False)) as bound, serving(wyoming=Wyoming(bound)):
        home = HomeAssistant(bound)
        monkeypatch.setattr(Conversation, "steps", fail)
        monkeypatch.setattr("voxrill.runtime.serve.wyoming.handler.transcribe_spans", fail)
        if broken == "speech to text":
            assert run(home.speech_to_text(pcm())) is None
        elif broken == "text to speech":
            assert run(home.text_to_speech(SAYING)) is None
        else:
            assert run(home.ask(HEARD)) is None


# Conversations


@pytest.fixture
def asked(monkeypatch):
    """The turns that each question knew of, itself included."""
    turns, steps = [], Conversation.steps

    def watched(conversation, **given):
        made = steps(conversation, **given)
        turns.append(conversation.turns + 1)
        return made

    monkeypatch.setattr(Conversation, "steps", watched)
    return turns


def talking(limits=Limits()):
    """A server whose model remembers turns: the built-in one was taught without."""
    bound = bind(LOCAL, anyone=False)
    return bound, serving(limits, wyoming=Wyoming(bound))


def test_a_conversation_goes_on_by_its_id(asked):
    bound, context = talking()
    with closing(bound), context as server:
        server.service.turns = None
        home = HomeAssistant(bound)
        for name in ("c1", "c1", "c2", "c1", "", ""):
            assert run(home.ask(HEARD, name))[0]
        assert asked == [1, 2, 1, 3, 1, 1]
        assert not run(home.ask("", "c1"))[0]
        assert run(home.ask(HEARD, "c1"))[0] and asked[-1] == 4


def test_a_conversation_is_as_long_as_the_model_remembers(asked):
    bound, context = talking()
    with closing(bound), context as server:
        home = HomeAssistant(bound)
        for _ in range(3):
            assert run(home.ask(HEARD)) == (True, ANSWER)
        assert server.service.turns == 0 and asked == [1, 1, 1]
        server.service.turns, server.service.positions = None, 60
        for _ in range(6):
            assert run(home.ask(HEARD))[0]
        assert max(asked) < 5


def test_conversations_are_limited_and_their_memory_is_given_back(asked):
    bound, context = talking(Limits(chats=2))
    with closing(bound), context as server:
        server.service.turns = None
        home = HomeAssistant(bound)
        for name in ("c1", "c2", "c3", "c3", "c2", "c1", "c1"):
            assert run(home.ask(HEARD, name))[0]
        assert asked == [1, 1, 1, 2, 2, 1, 2]  # c1 was used longest ago when c3 came
        assert len(server.service.states._held) + len(server.service.states._stored) == 2


def test_two_questions_of_one_conversation_at_once_are_both_answered(asked):
    bound, context = talking()

    async def both(home):
        return await asyncio.gather(home.ask(HEARD), home.ask(HEARD))

    with closing(bound), context as server:
        server.service.turns = None
        assert [handled for handled, _ in run(both(HomeAssistant(bound)))] == [True, True]
        assert len(server.service.states._held) + len(server.service.states._stored) == 1


def test_a_full_disk_forgets_conversations_before_it_refuses_one(asked):
    """States that cannot leave the memory are those of conversations that go on elsewhere."""
    bound, context = talking()
    with closing(bound), context as server:
        service, home = server.service, HomeAssistant(bound)
        service.turns = None
        assert run(home.ask(HEARD))[0]
        drop = service.states.drop
        service.states.full = True
        service.states.drop = lambda context: None
        handled, why = run(home.ask(HEARD, "c2"))
        assert not handled and "disk is full" in why
        service.states.full, service.states.drop = False, drop
        assert run(home.ask(HEARD))[0]
        assert asked == [1, 1]
