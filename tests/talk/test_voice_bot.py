"""A voice bot of a program's own: its sound in and out, events, tools, interruption, and every way to end."""

import asyncio
import io
import threading
import time
from typing import Annotated, Literal

import numpy as np
import pytest

import voxrill
from tests.places import QUESTION
from tests.talking import SPOKEN, ClipMicrophone, InstantPlayer, Watcher, silence, spoken
from voxrill.runtime.apps.grammar import parse_grammar
from voxrill.runtime.audio import own_sink, own_source
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.own_sink import SinkPlayer
from voxrill.runtime.audio.own_source import SourceMicrophone
from voxrill.runtime.audio.protocols import BLOCK, RATE
from voxrill.runtime.errors import HookError, UsageError
from voxrill.runtime.talk.reply import Reply

KITCHEN = {"file": QUESTION, "words": "turn on the kitchen lights", "reply": "kitchen lights on"}
OTHER = SPOKEN[0]


@pytest.fixture(scope="module")
def pebble():
    with voxrill.load(threads=1) as model:
        yield model


@pytest.fixture
def hurry(monkeypatch):
    """Sources and sinks take no time."""
    monkeypatch.setattr(own_source, "FASTER", 1e9)
    monkeypatch.setattr(own_sink, "LEAD", 1e9)


def said(clip=KITCHEN, after=0.8):
    return np.concatenate([silence(0.3), spoken(clip), silence(after)])


def pieces(samples, size=1600):
    return [samples[start : start + size] for start in range(0, len(samples), size)]


def as_bytes(samples):
    return (samples * 32767).astype("<i2").tobytes()


class Card:
    """A sink that keeps what it is given."""

    def __init__(self):
        self.written, self.stops, self.threads = [], 0, set()

    def write(self, samples):
        self.threads.add(threading.current_thread().name)
        self.written.append(samples)

    def stop(self):
        self.threads.add(threading.current_thread().name)
        self.stops += 1

    def sound(self):
        return np.concatenate([np.zeros(0, np.float32), *self.written])


def kinds(events, *wanted):
    return [event for event in events if isinstance(event, wanted)]


def threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith(("voxrill-talk", "voxrill-sink"))]


class Reader:
    def __init__(self, parts):
        self._parts = iter(parts)

    def read(self):
        return next(self._parts, None)


def bytes_twice(samples):
    data = as_bytes(samples)
    return [data[:1001], data[1001:]]


SOURCES = {
    "arrays": (lambda: pieces(said()), {}),
    "bytes": (lambda: iter(bytes_twice(said())), {"source_dtype": "int16"}),
    "a function": (lambda: Reader(pieces(said())).read, {}),
    "an object": (lambda: Reader(pieces(said())), {}),
    "a file": (lambda: io.BytesIO(as_bytes(said())), {"source_dtype": "int16"}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_a_question_is_answered_and_the_talk_ends_with_its_source(pebble, hurry, source):
    make, options = SOURCES[source]
    card = Card()
    with pebble.talk(make(), card, source_rate=RATE, seed=1, **options) as talk:
        events = list(talk)
    (heard,) = kinds(events, voxrill.UserHeard)
    (turn,) = kinds(events, voxrill.TurnEnded)
    assert heard.text == KITCHEN["words"]
    assert turn.text.strip() == KITCHEN["reply"] and not turn.interrupted
    assert "".join(event.piece for event in kinds(events, voxrill.AssistantSaid)).strip() == KITCHEN["reply"]
    assert 0.5 < len(card.sound()) / pebble.sample_rate <= turn.trace.answer_seconds
    assert card.threads == {"voxrill-sink"} and card.stops == 0
    assert not threads()


def test_an_answer_is_begun_at_the_first_short_silence(pebble, hurry, monkeypatch):
    """The source goes on only when the answer was begun: were it not begun early, the turn would never end."""
    begun = threading.Event()
    advance = Reply.advance
    monkeypatch.setattr(Reply, "advance", lambda self, clock: (advance(self, clock), begun.set()))

    def source():
        yield from pieces(said(after=0.3))
        assert begun.wait(60)
        yield silence(0.6)

    with pebble.talk(source(), Card(), source_rate=RATE, seed=1) as talk:
        (turn,) = kinds(talk, voxrill.TurnEnded)
    assert turn.trace.speculated and turn.text.strip() == KITCHEN["reply"]


def test_a_model_of_ones_own_ends_turns(pebble, hurry):
    """Two commands with a pause between them: one turn if the first seems unfinished, two if it seems finished."""
    both = np.concatenate([silence(0.3), spoken(KITCHEN), silence(1.0), spoken(OTHER)])
    counts = []
    for says in (0.0, 1.0):
        with pebble.talk(pieces(both), Card(), source_rate=RATE, seed=1, end_of_turn=lambda _s, p=says: p) as talk:
            counts.append(len(kinds(talk, voxrill.UserSaid)))
    assert counts == [1, 2]


def test_a_slow_model_is_given_up_and_the_talk_goes_on(pebble, hurry, monkeypatch):
    monkeypatch.setattr(EndpointOptions, "within", 0.0)
    both = np.concatenate([said(), said(OTHER), said()])
    asked = []

    def model(_sound):
        asked.append(0)
        return 1.0

    with pebble.talk(pieces(both), Card(), source_rate=RATE, seed=1, end_of_turn=model) as talk:
        events = list(talk)
    told = [event.text for event in kinds(events, voxrill.Notice) if "end-of-turn model" in event.text]
    assert len(told) == 1 and len(asked) == 2
    assert len(kinds(events, voxrill.UserSaid)) >= 3


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"end_of_turn": "timer", "patience": 1.0}, "there is no model"),
        ({"end_of_turn": "hub", "push_to_talk": True}, "a key ends turns"),
        ({"end_of_turn": "missing.onnx"}, "no end-of-turn model"),
    ],
)
def test_what_cannot_end_turns_is_refused(pebble, options, problem):
    with pytest.raises(voxrill.VoxrillError, match=problem):
        pebble.talk(pieces(said()), Card(), source_rate=RATE, **options)


def test_a_question_at_the_very_end_of_its_source_is_answered(pebble, hurry):
    with pebble.talk(pieces(said(after=0.0)), Card(), source_rate=RATE, seed=1) as talk:
        (turn,) = kinds(talk, voxrill.TurnEnded)
    assert turn.text.strip() == KITCHEN["reply"]


def test_a_sink_gets_its_own_rate_and_type(pebble, hurry):
    cards = [Card(), Card()]
    for card, options in zip(cards, ({}, {"sink_rate": 8000, "sink_dtype": "int16"}), strict=True):
        with pebble.talk(pieces(said()), card, source_rate=RATE, seed=1, **options) as talk:
            assert kinds(talk, voxrill.TurnEnded)
    usual, other = (card.sound() for card in cards)
    assert {part.dtype for part in cards[1].written} == {np.dtype("int16")}
    assert len(other) == pytest.approx(len(usual) * 8000 / pebble.sample_rate, abs=500)


def test_the_user_interrupts(pebble, monkeypatch):
    """The second question comes while the first answer is played, in real time: the sink is told to stop."""
    monkeypatch.setattr(own_source, "FASTER", 1e9)
    card, sounding = Card(), threading.Event()

    def source():
        yield from pieces(said())
        assert sounding.wait(60)
        yield from pieces(said(OTHER))

    with pebble.talk(source(), card, source_rate=RATE, seed=1) as talk:
        turns = []
        for event in talk:
            if event == voxrill.StateChanged("speaking"):
                sounding.set()
            turns += kinds([event], voxrill.TurnEnded)
    first, second = turns
    assert first.interrupted and not second.interrupted
    assert card.stops == 1
    assert first.trace.barge_in < first.trace.answer_seconds
    assert second.text.strip() == OTHER["reply"]


def test_a_sink_is_told_to_stop_even_if_the_next_reply_begins_at_once():
    card = Card()
    with SinkPlayer(card, RATE) as player:
        for _ in range(3):
            player.begin(0.0, 1.0)
            player.push(np.full(RATE, 0.5, np.float32))
            player.stop()
        player.begin(0.0, 0.02)
        player.push(np.full(320, 0.5, np.float32))
        player.finish()
        while player.busy() or card.stops < 3:
            player.ensure()
            time.sleep(0.001)
    assert card.stops == 3 and card.threads == {"voxrill-sink"}


def test_the_program_interrupts_and_asks_and_says(pebble):
    card = Card()
    turns, words = [], []
    with pebble.talk(sink=card, seed=1) as talk:
        talk.say("kitchen lights on")
        for event in talk:
            words += [one.piece for one in kinds([event], voxrill.AssistantSaid)]
            if event == voxrill.StateChanged("speaking") and not turns:
                talk.interrupt()
            if isinstance(event, voxrill.TurnEnded):
                turns.append(event)
                if len(turns) == 1:
                    talk.ask(KITCHEN["words"])
                else:
                    talk.close()
    assert turns[0].interrupted and turns[0].text == "kitchen lights on"
    assert words[0] == "kitchen lights on"
    assert "".join(words[1:]).strip() == KITCHEN["reply"] == turns[1].text.strip()
    assert card.stops == 1 and len(card.sound())


def test_without_a_sink_answers_are_read(pebble, hurry):
    with pebble.talk(pieces(said()), source_rate=RATE, seed=1) as talk:
        events = list(talk)
    assert kinds(events, voxrill.TurnEnded)[0].text.strip()
    assert voxrill.StateChanged("speaking") not in events


# Tools


def called_with(pebble, tools, **options):
    with pebble.talk(pieces(said()), Card(), source_rate=RATE, seed=1, tools=tools, **options) as talk:
        return list(talk)


def lights_tool(calls, returned="kitchen lights on"):
    @voxrill.tool("turn {state} the {room} lights", "turn the {room} lights {state}")
    def lights(room: Literal["kitchen", "office"], state: Literal["on", "off"]):
        calls.append((room, state))
        if isinstance(returned, Exception):
            raise returned
        return returned

    return lights


def test_a_function_is_called_and_what_it_returns_is_said(pebble, hurry):
    calls = []
    events = called_with(pebble, [lights_tool(calls)])
    assert calls == [("kitchen", "on")]
    (call,) = kinds(events, voxrill.ToolCalled)
    assert call == voxrill.ToolCalled("lights", {"room": "kitchen", "state": "on"}, "kitchen lights on")
    (turn,) = kinds(events, voxrill.TurnEnded)
    assert turn.text == "kitchen lights on" and turn.trace.answer_seconds > 0.5
    assert kinds(events, voxrill.UserHeard)[0].text == KITCHEN["words"]


def test_what_is_no_call_is_answered(pebble, hurry):
    calls = []
    with pebble.talk(pieces(said(OTHER)), Card(), source_rate=RATE, seed=1, tools=[lights_tool(calls)]) as talk:
        (turn,) = kinds(talk, voxrill.TurnEnded)
    assert not calls and turn.text.strip() == OTHER["reply"]


def test_a_typed_turn_may_call_too(pebble):
    calls = []
    with pebble.talk(tools=[lights_tool(calls)], seed=1) as talk:
        talk.ask("turn off the office lights")
        for event in talk:
            if isinstance(event, voxrill.TurnEnded):
                talk.close()
    assert calls == [("office", "off")] and event == voxrill.StateChanged("listening")


def test_nothing_is_called_before_the_turn_is_over(pebble):
    """In the calling thread, with a view: what was shown when the function was called."""
    shown = []
    watcher = Watcher(lambda event: talk.close(finish=True) if isinstance(event, voxrill.TurnEnded) else None)

    @voxrill.tool("turn {state} the {room} lights")
    def lights(room: Literal["kitchen"], state: Literal["on", "off"]):
        shown.extend(type(event) for event in watcher.shown)

    talk = pebble.talk(
        view=watcher,
        microphone=ClipMicrophone(watcher, spoken(KITCHEN)),
        player=InstantPlayer(pebble.sample_rate),
        tools=[lights],
        seed=1,
    )
    talk.run()
    assert voxrill.UserSaid in shown and voxrill.ToolCalled not in shown
    (call,) = kinds(watcher.shown, voxrill.ToolCalled)
    assert call.said == "" and watcher.ended() == 1  # it returned nothing, so nothing is said


def test_a_tool_that_fails_is_told_and_the_talk_goes_on(pebble, hurry):
    events = called_with(pebble, [lights_tool([], RuntimeError("no power"))])
    (failed,) = kinds(events, voxrill.AnswerFailed)
    assert isinstance(failed.error, HookError) and "lights failed: RuntimeError: no power" in failed.text
    assert isinstance(failed.error.__cause__, RuntimeError)
    assert kinds(events, voxrill.TurnEnded)


def test_words_that_the_model_cannot_say_are_read(pebble, hurry):
    events = called_with(pebble, [lights_tool([], "Quetzalcoatl is pleased")])
    assert kinds(events, voxrill.ToolCalled)[0].said == "Quetzalcoatl is pleased"
    assert kinds(events, voxrill.AssistantSaid)[0].piece == "Quetzalcoatl is pleased"
    assert "could not be said" in kinds(events, voxrill.AnswerFailed)[0].text


def test_a_file_of_commands_is_a_tool(pebble, hurry, tmp_path):
    grammar = '[commands.lights]\nsay = ["turn {state} the kitchen lights"]\nconfirm = "kitchen lights {state}"\n'
    grammar += '[slots]\nstate = ["on", "off"]\n'
    (tmp_path / "commands.toml").write_text(grammar)
    for source in (parse_grammar(grammar, tmp_path), tmp_path / "commands.toml"):
        events = called_with(pebble, source)
        (call,) = kinds(events, voxrill.ToolCalled)
        assert (call.name, call.arguments, call.said) == ("lights", {"state": "on"}, "kitchen lights on")


def test_a_function_whose_values_are_unknown_is_refused(pebble):
    @voxrill.tool("say {word}")
    def repeat(word: str):
        return word

    with pytest.raises(UsageError, match="'word' of repeat cannot be listed"):
        pebble.talk(tools=[repeat])

    @voxrill.tool("set timer for {minutes} minutes")
    def timer(minutes: Annotated[int, range(2, 5)], loud: bool = False): ...

    from voxrill.runtime.apps.talk_tools import _declared

    assert _declared(timer).parameters == {
        "type": "object",
        "properties": {"minutes": {"type": "integer", "enum": [2, 3, 4]}, "loud": {"type": "boolean"}},
        "required": ["minutes"],
    }


# Ends


class Broken(Exception):
    pass


def test_a_sink_that_raises_ends_the_talk_with_its_error(pebble, hurry):
    class Failing:
        def write(self, samples):
            raise Broken("no loudspeaker")

    talk = pebble.talk(pieces(said()), Failing(), source_rate=RATE)
    with pytest.raises(Broken, match="no loudspeaker"), talk:
        for _ in talk:
            pass
    assert not threads()


def test_a_source_that_raises_ends_the_talk_with_its_error(pebble, hurry):
    def source():
        yield said()[:8000]
        raise Broken("no microphone")

    with pytest.raises(Broken, match="no microphone"), pebble.talk(source(), Card(), source_rate=RATE):
        time.sleep(0)  # nobody takes the events: the end of the block raises it
        while threads():
            time.sleep(0.01)
    assert not threads()


def test_close_in_the_middle_ends_it_at_once(pebble, monkeypatch):
    monkeypatch.setattr(own_source, "FASTER", 1e9)
    card = Card()

    def source():
        yield from pieces(said())
        while True:
            yield silence(0.1)

    with pebble.talk(source(), card, source_rate=RATE, seed=1) as talk:
        for event in talk:
            if event == voxrill.StateChanged("speaking"):
                break
    written = len(card.written)
    assert not threads()
    assert len(card.written) == written and list(talk) is not None  # what was left of the events can still be taken
    assert pebble.transcribe(spoken(KITCHEN), sample_rate=RATE).text == KITCHEN["words"]


def test_an_error_of_the_program_is_not_hidden(pebble):
    with pytest.raises(ZeroDivisionError), pebble.talk(sink=Card()):
        raise ZeroDivisionError
    assert not threads()


def test_misuse_is_answered_at_once(pebble):
    with pytest.raises(UsageError, match="pieces have no sample rate"):
        pebble.talk([], Card())
    with pytest.raises(UsageError, match="takes no sound"):
        pebble.talk(sink=object())
    with pytest.raises(UsageError, match="type 'mp3'"):
        pebble.talk(sink=Card(), sink_dtype="mp3")
    with pytest.raises(UsageError, match="gives no pieces of sound"):
        pebble.talk(7, Card(), source_rate=RATE)
    with pytest.raises(TypeError, match=r"talk\(\) got an unexpected keyword argument 'sorce_rate'"):
        pebble.talk([], sorce_rate=RATE)
    talk = pebble.talk(sink=Card())
    with pytest.raises(UsageError, match="has not begun"):
        list(talk)
    with talk:
        pass
    with pytest.raises(UsageError, match="begun before"), talk:
        pass


# In an event loop


def test_everything_may_be_asynchronous(pebble, hurry):
    calls, loops = [], set()

    async def source():
        for piece in pieces(said()):
            await asyncio.sleep(0)
            yield piece

    class AsyncCard(Card):
        async def write(self, samples):
            loops.add(id(asyncio.get_running_loop()))
            await asyncio.sleep(0)
            self.written.append(samples)

    @voxrill.tool("turn {state} the {room} lights")
    async def lights(room: Literal["kitchen"], state: Literal["on", "off"]):
        loops.add(id(asyncio.get_running_loop()))
        await asyncio.sleep(0)
        calls.append(room)
        return f"{room} lights {state}"

    async def main():
        loops.add(id(asyncio.get_running_loop()))
        card, ticks = AsyncCard(), 0

        async def ticking():
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(ticking())
        async with pebble.talk(source(), card, source_rate=RATE, seed=1, tools=[lights]) as talk:
            events = [event async for event in talk]
        ticker.cancel()
        return events, card, ticks

    events, card, ticks = asyncio.run(main())
    assert calls == ["kitchen"] and len(loops) == 1
    assert kinds(events, voxrill.TurnEnded)[0].text == "kitchen lights on"
    assert len(card.sound()) and ticks > len(events)
    assert not threads()


def test_cancelling_the_task_ends_the_talk(pebble):
    async def source():
        while True:
            await asyncio.sleep(0.01)
            yield silence(0.1)

    async def main():
        async def talking():
            async with pebble.talk(source(), Card(), source_rate=RATE) as talk:
                async for _ in talk:
                    pass

        task = asyncio.create_task(talking())
        while not threads():
            await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert not threads()


def test_what_must_be_awaited_needs_a_loop(pebble, hurry):
    async def source():
        yield silence(0.1)

    with pytest.raises(UsageError, match="no event loop"), pebble.talk(source(), Card(), source_rate=RATE) as talk:
        list(talk)


# The source's clock


def test_a_source_that_is_faster_than_time_is_slowed_down():
    now, ended = [0.0], []
    source = [np.zeros(RATE, np.float32)]
    microphone = SourceMicrophone(source, RATE, ended=lambda: ended.append(1), clock=lambda: now[0])
    microphone._take()  # in this thread
    blocks = []
    while not ended:
        block = microphone.read(0.0)
        if block is None:
            assert ended or microphone._at / RATE >= now[0] * own_source.FASTER - BLOCK / RATE
            now[0] += 0.01
        else:
            blocks.append(block)
            assert block.at / RATE <= (now[0] + 0.01) * own_source.FASTER
    assert [block.at for block in blocks] == [BLOCK * number for number in range(len(blocks))]
    assert len(blocks) * BLOCK >= RATE + 0.5 * RATE  # and the silence that ends a turn
