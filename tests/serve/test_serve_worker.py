"""One model for many clients: conversations that take turns say what each says alone, within a memory budget."""

import asyncio
import tempfile
import threading
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

import voxrill
from tests.serving import QUESTION
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.engine.backbone import PREFILL_CHUNK
from voxrill.runtime.events import EndEvent, StageEvent
from voxrill.runtime.serve.api_errors import Busy
from voxrill.runtime.serve.chat_messages import ChatMessages, ChatQuestion, ChatTurn
from voxrill.runtime.serve.chat_store import ChatStore
from voxrill.runtime.serve.job import Job
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.metrics import Metrics
from voxrill.runtime.serve.state_cache import StateCache
from voxrill.runtime.serve.worker import Worker


@pytest.fixture(scope="module")
def pebble():
    return voxrill.load(threads=1)


QUESTIONS = (
    {"audio": read_audio(QUESTION)},
    {"text": "kitchen lights on", "output": "text"},
    {"text": "turn on the kitchen lights", "seed": 3},
    {"audio": read_audio(QUESTION), "text": "lights on", "seed": 5},
)


def start(model, question):
    conversation = model.conversation()
    return conversation, conversation.steps(**question)


def same(one, other):
    assert one.tokens == other.tokens and one.finish_reason == other.finish_reason
    np.testing.assert_array_equal(one.codes, other.codes)
    np.testing.assert_array_equal(one.samples, other.samples)


def alone(model, question):
    *_, end = start(model, question)[1]
    return end.result


@pytest.mark.parametrize("budget", [1 << 30, 1], ids=["in memory", "to disk and back with every step"])
def test_conversations_in_turn_are_what_each_is_alone(pebble, budget):
    wanted = [alone(pebble, question) for question in QUESTIONS]
    assert any(result.audio_seconds for result in wanted)
    metrics = Metrics()
    states = StateCache(budget, metrics)
    running = dict(enumerate(start(pebble, question) for question in QUESTIONS))
    ended = {}
    while running:
        for number, (conversation, steps) in list(running.items()):
            states.use(conversation.context)
            event = next(steps)
            if isinstance(event, EndEvent):
                ended[number] = event.result
                del running[number]
    states.close()
    for number, result in enumerate(wanted):
        same(ended[number], result)
    evictions = metrics.evictions._value.get()
    assert evictions == 0 if budget > 1 else evictions > 20


def test_states_keep_to_their_budget_and_forget_the_least_recently_used(pebble):
    contexts = [pebble.conversation().context for _ in range(4)]
    one = contexts[0].nbytes
    states = StateCache(2 * one, Metrics())
    for context in (*contexts[:3], contexts[1], contexts[3]):
        states.use(context)
    assert [context.nbytes > 0 for context in contexts] == [False, True, False, True]
    states.use(contexts[0])
    assert [context.nbytes > 0 for context in contexts] == [True, False, False, True]
    assert states._metrics.state_bytes._value.get() == 2 * one
    for context in contexts:
        states.drop(context)
    assert states._metrics.parked._value.get() == 0 and states._metrics.state_bytes._value.get() == 0


def test_a_turn_from_elsewhere_is_remembered(pebble):
    asked = pebble.conversation(output="text")
    *_, end = asked.ask(text="kitchen lights on")
    told = pebble.conversation(output="text")
    told.remember(end.result.text, text="kitchen lights on")
    assert told.turns == asked.turns == 1
    words = [[token for piece in one.context.pieces for token in piece.ids] for one in (told, asked)]
    assert words[0] == words[1]


@pytest.fixture
def worker():
    made = Worker(Limits(active=2, queue=1), Metrics())
    made.start()
    yield made
    made.stop()


def test_work_is_done_in_turn_and_the_rest_waits(worker):
    """Two requests take turns, step by step. The third begins when one of them is done."""
    done = []

    def steps(name, count):
        for number in range(count):
            done.append((name, number))
            yield number

    async def ask():
        gate = threading.Event()
        worker.submit(Job(lambda: iter([gate.wait()]), worker))  # nothing begins before all are there
        jobs = [Job(lambda name=name: steps(name, 3), worker) for name in "abc"]
        taking = [asyncio.ensure_future(take(job)) for job in jobs]
        await asyncio.sleep(0)
        gate.set()
        return await asyncio.gather(*taking)

    async def take(job):
        return [item async for item in job.items()]

    assert asyncio.run(ask()) == [[0, 1, 2]] * 3
    first, rest = done[: done.index(("c", 0))], done[done.index(("c", 0)) :]
    assert ("a", 2) in first and ("b", 0) in first and ("b", 2) in rest[:3] + first


def test_what_goes_wrong_in_one_goes_wrong_in_no_other(worker, caplog):
    def wrong():
        yield 1
        raise RuntimeError("a mistake")

    async def ask():
        bad, good = Job(wrong, worker), Job(lambda: iter(range(5)), worker)
        with pytest.raises(RuntimeError, match="a mistake"):
            [item async for item in bad.items()]
        return [item async for item in good.items()]

    assert asyncio.run(ask()) == [0, 1, 2, 3, 4]
    assert "a mistake" in caplog.text


def test_work_that_is_not_wanted_ends(worker):
    made = []

    def endless():
        try:
            while True:
                made.append(1)
                yield 1
        finally:
            made.append("closed")

    async def ask():
        job = Job(endless, worker)
        async for _ in job.items():
            break
        job.cancel()
        while not job.over:
            await asyncio.sleep(0.01)

    asyncio.run(ask())
    assert made[-1] == "closed"


def test_slots_are_bounded_and_say_when_to_ask_again(worker):
    with worker.slot(), worker.slot():
        with worker.slot(), pytest.raises(Busy) as refused, worker.slot():
            pass
        assert int(refused.value.headers["Retry-After"]) >= 1
        with worker.slot():
            pass


def test_others_take_turns_while_a_long_conversation_is_told(pebble, monkeypatch):
    """Each turn of the conversation is one step: no step encodes two sounds."""
    encoded = []
    encode = pebble.parts.encoder.encode
    monkeypatch.setattr(pebble.parts.encoder, "encode", lambda sound: encoded.append(1) or encode(sound))
    turn = ChatTurn(ChatQuestion(np.zeros(16_000, np.float32), None), "kitchen lights on", spoken=False)
    messages = ChatMessages(None, [turn] * 3, turn.question, [], b"")
    steps = ChatStore(pebble, StateCache(1 << 30, Metrics()), 1).open(messages, "text")
    assert [len(encoded) for _ in steps] == [1, 2, 3]


def test_others_take_turns_while_a_long_prompt_is_prefilled(pebble, monkeypatch):
    """No step prefills more than one chunk."""
    text = "turn on the kitchen lights " * 300
    sizes = []
    forward = pebble.parts.backbone.forward
    monkeypatch.setattr(
        pebble.parts.backbone, "forward", lambda rows, state: sizes.append(len(rows)) or forward(rows, state)
    )
    made = []
    for event in pebble.conversation(output="text").steps(text=text):
        made.append((event, len(sizes)))
    stages = [(event.stage, count) for event, count in made if isinstance(event, StageEvent)]
    assert len(stages) > 2 and [count for _, count in stages] == list(range(1, len(stages) + 1))
    assert max(sizes) <= PREFILL_CHUNK


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_states_stay_in_memory_when_the_disk_is_full(pebble, monkeypatch):
    """No state is lost: a state leaves the memory only after it was written. The disk is tried again later."""
    disk = tempfile.TemporaryFile
    monkeypatch.setattr("tempfile.TemporaryFile", partial(open, "/dev/full", "r+b"))
    monkeypatch.setattr("voxrill.runtime.serve.state_cache._RETRY", 0.0)
    states = StateCache(1, Metrics())
    contexts = [pebble.conversation().context for _ in range(3)]
    for context in contexts:
        states.use(context)
    assert states.full and all(context.nbytes for context in contexts)
    monkeypatch.setattr("tempfile.TemporaryFile", disk)
    states.use(contexts[0])
    assert not states.full and [context.nbytes > 0 for context in contexts] == [True, False, False]
    states.close()


@pytest.mark.parametrize(("idle", "timeout"), [(True, None), (False, 0.02)], ids=["all idle", "one is being played"])
def test_the_worker_sleeps_until_it_is_woken_while_every_session_is_idle(idle, timeout):
    worker, waits = Worker(Limits(), Metrics()), []

    class Waiter(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            worker._stopping = True

    worker._wake = Waiter()
    for session in (True, idle):
        worker.join(SimpleNamespace(over=False, step=lambda: False, idle=session))
    worker._run()
    assert waits == [timeout]
