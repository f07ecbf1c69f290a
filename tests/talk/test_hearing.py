"""A question is taken in while it is spoken, where the encoder can: what the listener posts, and the answers."""

import numpy as np
import pytest

from tests.export.test_lfm3_bundle import lfm3, lfm3_bundle, sound  # noqa: F401 (fixtures)
from voxrill.runtime.audio.endpointing import Endpointer, EndpointOptions
from voxrill.runtime.audio.protocols import BLOCK, Block
from voxrill.runtime.talk.answer import TalkAnswer
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Began, Ended, Heard, Listener, Paused, Resumed, Utterance
from voxrill.runtime.talk.responder import Responder, ResponderOptions


class Loudness:
    """Speech is what is loud."""

    def __call__(self, samples):
        return float(np.abs(samples).max() > 0.1)

    def reset(self):
        pass


class NoPlayer:
    """Nothing is played in these tests."""

    def hold(self, _on):
        pass


def posted(loud, streams=True):
    """The signals for blocks of which some are loud: (blocks, loud?) in turn."""
    signals, random, at = [], np.random.default_rng(0), 0
    floor = Floor(NoPlayer())
    listener = Listener(Loudness(), Endpointer(EndpointOptions()), floor, signals.append, streams=lambda: streams)
    for count, speaks in loud:
        for _ in range(count):
            samples = random.uniform(-1, 1, BLOCK).astype(np.float32) * (0.5 if speaks else 0.01)
            listener.hear(Block(samples, at, 0.0))
            at += BLOCK
    return signals


SPOKEN = [(20, False), (40, True), (9, False), (30, True), (80, False), (30, False), (25, True), (80, False)]


def test_what_is_posted_is_the_beginning_of_the_utterance():
    signals, heard, ended = posted(SPOKEN), np.zeros(0, np.float32), 0
    assert any(isinstance(signal, Resumed) for signal in signals)
    for signal in signals:
        if isinstance(signal, Began):
            heard = np.zeros(0, np.float32)
        elif isinstance(signal, Heard):
            heard = np.concatenate([heard, signal.samples])
        elif isinstance(signal, (Paused, Ended)):
            assert len(heard) <= len(signal.utterance.samples)
            assert np.array_equal(heard, signal.utterance.samples[: len(heard)])
            assert len(heard) >= len(signal.utterance.samples) - 12 * BLOCK  # all but the pause
            ended += isinstance(signal, Ended)
    assert ended == 2


def test_nothing_is_posted_to_others():
    plain = posted(SPOKEN, streams=False)
    assert not any(isinstance(signal, Heard) for signal in plain)
    assert [type(s) for s in plain] == [type(s) for s in posted(SPOKEN) if not isinstance(s, Heard)]


def answered(conversation, samples, most=12, seed=5):
    answer = TalkAnswer(conversation, samples, None, seed, most)
    while answer.finish_reason is None:
        answer.step()
    return answer.tokens, answer.codes


def fresh(lfm3):  # noqa: F811
    conversation = lfm3.conversation()
    while conversation.prepare():
        pass
    return conversation


@pytest.mark.parametrize("known", [0, 512, 9000, 16_777])
def test_an_answer_is_the_same_however_much_was_heard_before(lfm3, known):  # noqa: F811
    conversation = fresh(lfm3)
    for start in range(0, known, 512):
        conversation.hear(sound()[start : min(start + 512, known)])
    assert answered(conversation, sound()) == answered(fresh(lfm3), sound())


def test_more_was_heard_than_belongs_to_the_question(lfm3):  # noqa: F811
    conversation = fresh(lfm3)
    conversation.hear(sound())
    assert answered(conversation, sound()[:8000]) == answered(fresh(lfm3), sound()[:8000])


def test_the_responder_hears_and_goes_on(lfm3):  # noqa: F811
    """A pause, at which an answer is begun; the user goes on; the end."""
    conversation, whole = lfm3.conversation(), sound()
    responder = Responder(
        conversation, NoPlayer(), Floor(NoPlayer()), options=ResponderOptions(max_new_tokens=12, seed=4)
    )
    assert responder.hears
    responder.take(Began())
    for start in range(0, 8192, 512):
        responder.take(Heard(whole[start : start + 512], start))
    assert len(conversation.context._waiting) == 0
    responder.take(Paused(Utterance(whole[:9000], 0, 9000, 0.0), 0.0))
    for _ in range(3):
        responder.step()
    responder.take(Resumed())
    for start in range(9000, 15_000, 512):
        responder.take(Heard(whole[start : min(start + 512, 15_000)], start))
    responder.take(Paused(Utterance(whole, 0, len(whole), 0.0), 0.0))
    answer = responder._reply.answer
    while answer.finish_reason is None:
        answer.step()
    assert (answer.tokens, answer.codes) == answered(fresh(lfm3), whole)


def test_what_was_heard_and_not_asked_is_forgotten(lfm3):  # noqa: F811
    conversation = fresh(lfm3)
    before = conversation.context.positions
    responder = Responder(conversation, NoPlayer(), Floor(NoPlayer()))
    responder.take(Began())
    responder.take(Heard(sound(), 0))
    assert conversation.context.positions > before
    responder.take(Began())
    assert conversation.context.positions == before


class Counted:
    """What a model does, in order: ("frames", n) that are encoded, ("positions", n) of prefill, and marks."""

    def __init__(self, model, monkeypatch):
        self.done: list = []
        parts = model.parts
        run, forward = parts.encoder.graph.run, parts.backbone.forward

        def encoded(inputs):
            self.done.append(("frames", int(inputs["mel_lengths"][0])))
            return run(inputs)

        def prefilled(rows, state):
            self.done.append(("positions", len(rows)))
            return forward(rows, state)

        monkeypatch.setattr(parts.encoder.graph, "run", encoded)
        monkeypatch.setattr(parts.backbone, "forward", prefilled)

    def after(self, mark):
        """Frames that were encoded, and positions of the first prefill, after the last such mark."""
        last = max(place for place, one in enumerate(self.done) if one is mark)
        rest = [one for one in self.done[last:] if isinstance(one, tuple)]
        frames = sum(count for what, count in rest if what == "frames")
        return frames, next(count for what, count in rest if what == "positions")


def marks(lfm3, opening=1):  # noqa: F811
    """Positions that stand between a question's sound and its answer."""
    tokenizer = lfm3.parts.tokenizer
    return len(tokenizer.closing) + len(tokenizer.openings["assistant"]) + opening


def turns(loud):
    """The signals of `posted`, and the utterance of the last end."""
    signals = posted(loud)
    return signals, [signal.utterance for signal in signals if isinstance(signal, Ended)][-1]


@pytest.mark.parametrize("speculate", [True, False])
def test_little_is_left_at_the_end_of_a_question(lfm3, monkeypatch, speculate):  # noqa: F811
    """A turn with a pause in it, from the microphone on: the user goes on, and what was heard is heard once."""
    signals, utterance = turns([(20, False), (40, True), (9, False), (31, True), (60, False)])
    conversation = fresh(lfm3)
    options = ResponderOptions(max_new_tokens=12, seed=4, speculate=speculate)
    responder, counted = (
        Responder(conversation, NoPlayer(), Floor(NoPlayer()), options=options),
        Counted(lfm3, monkeypatch),
    )
    for signal in signals:
        counted.done.append(type(signal))
        responder.take(signal)
        if not isinstance(signal, Ended) and responder._reply is not None:
            responder.step()  # an answer is begun at a pause
    answer = responder._reply.answer
    while answer.finish_reason is None:
        answer.step()
    frames, positions = counted.after(Paused if speculate else Ended)
    assert frames <= 8  # one piece of 80 ms
    assert positions <= 2 + marks(lfm3)
    monkeypatch.undo()
    assert (answer.tokens, answer.codes) == answered(fresh(lfm3), utterance.samples, 12, seed=5)


def test_a_command_is_heard_while_it_is_spoken(lfm3, monkeypatch, tmp_path):  # noqa: F811
    """`control --live`: pauses, going on, and the end; the call is that of the whole command."""
    from voxrill.runtime.apps.control import Control
    from voxrill.runtime.apps.grammar import parse_grammar
    from voxrill.runtime.apps.live_control import CommandResponder

    grammar = parse_grammar('[commands.on]\nsay = ["lights on"]\n[commands.off]\nsay = ["lights off"]\n', tmp_path)
    control, reports = Control(lfm3, grammar), []
    floor = Floor(NoPlayer())
    responder = CommandResponder(lfm3, control, NoPlayer(), floor, lambda _event: None, reports.append, False)
    assert responder.hears
    signals, utterance = turns([(20, False), (40, True), (9, False), (31, True), (60, False)])
    counted = Counted(lfm3, monkeypatch)
    for signal in signals:
        counted.done.append(type(signal))
        responder.take(signal)
    frames, positions = counted.after(Paused)
    assert frames <= 8 and positions <= 2 + marks(lfm3, opening=0)
    monkeypatch.undo()
    whole = Control(lfm3, grammar).hear(utterance.samples, trim=False, sample_rate=16_000)
    (report,) = reports
    assert report.understood.call == whole.call
    assert report.understood.confidence == pytest.approx(whole.confidence, rel=1e-3, abs=1e-6)


def test_a_realtime_session_hears_while_the_user_speaks(lfm3, monkeypatch):  # noqa: F811
    """The sound comes in messages; the worker takes it as it comes, and begins the answer at the pause."""
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    import asyncio
    import json

    from tests.serving import in_base64, spoken
    from voxrill.runtime.serve.limits import Limits
    from voxrill.runtime.serve.realtime.outbox import Outbox
    from voxrill.runtime.serve.realtime.session import RealtimeSession
    from voxrill.runtime.serve.service import Service

    async def talked():
        service = Service(lfm3, Limits(answer=8))
        session = RealtimeSession(service, False, Outbox(1 << 24))
        own = session._state.answers.own.responder
        take = own.take

        def marked(signal):
            counted.done.append(type(signal))
            take(signal)

        own.take = marked
        pcm = spoken()
        for start in range(0, len(pcm), 1920):
            message = {"type": "input_audio_buffer.append", "audio": in_base64(pcm[start : start + 1920])}
            session.receive(json.dumps(message))
            for _ in range(40):
                session.step()
        for _ in range(400):
            session.step()
        session.leave()
        session.step()
        return own

    counted = Counted(lfm3, monkeypatch)
    asyncio.run(talked())
    assert counted.done.count(Heard) > 20 and Ended in counted.done
    first = counted.done.index(Heard)
    paused = max(place for place, one in enumerate(counted.done) if one is Paused)
    spoken_frames = sum(one[1] for one in counted.done[first:paused] if isinstance(one, tuple) and one[0] == "frames")
    frames, positions = counted.after(Paused)
    assert spoken_frames > 80 and frames <= 8 and positions <= 2 + marks(lfm3)


TOOL = {
    "type": "function",
    "name": "lights",
    "parameters": {"type": "object", "properties": {"on": {"type": "boolean"}}, "required": ["on"]},
}


class RealtimeClient:
    """A realtime session whose turns the client ends, unless it says otherwise; the worker's steps are taken here."""

    def __init__(self, lfm3, **settings):  # noqa: F811
        from voxrill.runtime.serve.limits import Limits
        from voxrill.runtime.serve.realtime.outbox import Outbox
        from voxrill.runtime.serve.realtime.session import RealtimeSession
        from voxrill.runtime.serve.service import Service

        self.session = RealtimeSession(Service(lfm3, Limits(answer=8)), False, Outbox(1 << 24))
        heard = {"input": {"turn_detection": settings.pop("detection", None)}}
        self.send("session.update", session={"type": "realtime", "audio": heard, **settings})
        self.work()

    @property
    def answers(self):
        return self.session._state.answers

    def send(self, kind, **fields):
        import json

        self.session.receive(json.dumps({"type": kind, **fields}))

    def work(self, steps=400):
        for _ in range(steps):
            self.session.step()

    def say(self, pcm, steps=40):
        from tests.serving import in_base64

        for start in range(0, len(pcm), 1920):
            self.send("input_audio_buffer.append", audio=in_base64(pcm[start : start + 1920]))
            self.work(steps)

    def ask(self):
        self.send("input_audio_buffer.commit")
        self.send("response.create")
        self.work()

    def close(self):
        """The session ends; what it remembers of its turns."""
        self.answers.player.all_played()
        self.work()
        told = [piece for turn in self.answers.own.conversation.told() for piece in turn]
        self.session.leave()
        self.session.step()
        return [getattr(piece, "ids", getattr(piece, "codes", None)) for piece in told], told


def same_turns(one, other):
    return len(one) == len(other) and all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.fixture
def talking():
    """Realtime sessions run in an event loop."""
    pytest.importorskip("starlette", reason="the serve extra is not installed")
    import asyncio

    def run(talk):
        async def inside():
            return talk()

        return asyncio.run(inside())

    return run


@pytest.mark.parametrize("tools", [[], [TOOL]], ids=["answered", "decided"])
def test_a_turn_that_the_client_commits_is_heard_while_it_is_sent(lfm3, monkeypatch, talking, tools):  # noqa: F811
    """At its end one piece of 80 ms is left, for the answer and for the decision about calls each."""
    from tests.serving import spoken

    pcm = spoken(before=0.0, after=0.0)

    def talk(steps):
        client = RealtimeClient(lfm3, tools=tools)
        client.say(pcm, steps)
        assert (client.answers.own.conversation.heard_samples > len(pcm) // 4) == (steps > 0)
        counted.done.append("committed")
        client.ask()
        return client.close()[0]

    counted = Counted(lfm3, monkeypatch)
    early = talking(lambda: talk(40))
    mark = next(one for one in counted.done if one == "committed")
    before = sum(one[1] for one in counted.done[: counted.done.index(mark)] if one[0] == "frames")
    frames, positions = counted.after(mark)
    listeners = 1 + len(tools)
    assert before > 80 * listeners and frames <= 8 * listeners
    assert positions <= 2 + marks(lfm3, opening=0 if tools else 1)
    counted.done.clear()
    late = talking(lambda: talk(0))
    assert counted.after("committed")[0] > 80 * listeners  # nothing was heard before
    assert len(early) > 3 and same_turns(early, late)


def test_what_the_client_takes_back_is_not_heard(lfm3, talking):  # noqa: F811
    """It clears its buffer, deletes an item, puts a sound before the one it sends: the model hears what is left."""
    from tests.serving import in_base64, spoken

    pcm = spoken(before=0.0, after=0.0)
    first, second = pcm[:36_000], pcm[36_000:72_000]
    item = {"type": "message", "role": "user", "content": [{"type": "input_audio", "audio": in_base64(first)}]}

    def cleared(client):
        client.say(first)
        client.send("input_audio_buffer.clear")
        client.work(5)
        assert client.answers.own.conversation.heard_samples == 0
        client.say(second)

    def deleted(client):
        client.say(first)
        client.send("input_audio_buffer.commit")
        client.send("conversation.item.delete", item_id=client.session._state.items.last)
        client.say(second)

    def added(client):
        client.say(second)
        client.send("conversation.item.create", item=item)

    def plain(client, *sounds):
        for before in sounds[:-1]:
            client.say(before, 0)
            client.send("input_audio_buffer.commit")
        client.say(sounds[-1], 0)

    def turns(begin, *sounds):
        client = RealtimeClient(lfm3)
        begin(client, *sounds)
        client.ask()
        return client.close()[0]

    for begin, left in ((cleared, [second]), (deleted, [second]), (added, [first, second])):
        heard = talking(lambda begin=begin: turns(begin))
        wanted = talking(lambda left=left: turns(plain, *left))
        assert len(heard) > 3 and same_turns(heard, wanted), begin.__name__


def test_a_turn_that_begins_before_the_answer_is_over_is_caught_up(lfm3, talking):  # noqa: F811
    from tests.serving import spoken

    pcm = spoken(before=0.0, after=0.0)

    def talk():
        client = RealtimeClient(lfm3, output_modalities=["audio"])
        client.say(pcm)
        client.send("input_audio_buffer.commit")
        client.send("response.create")
        while client.answers.own.conversation.heard_samples:
            assert client.session.step()
        assert client.answers.own.responder.replying
        client.say(pcm[:24_000], 0)
        client.work(1)
        assert client.answers.own.conversation.heard_samples == 0
        client.work()
        client.answers.player.all_played()
        client.work()
        client.say(pcm[24_000:], 5)
        assert client.answers.own.conversation.heard_samples > len(pcm) // 4  # samples of 16 kHz; pcm has 24 kHz
        client.ask()
        return client.close()

    _, told = talking(talk)
    rows = [piece.rows for piece in told if hasattr(piece, "rows")]
    assert len(rows) == 2 and np.abs(rows[0] - rows[1]).max() < 1e-4


@pytest.mark.parametrize("at", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_an_answer_is_cut_at_any_frame(lfm3, monkeypatch, at):  # noqa: F811
    """With a mark at every frame, or few and the frames between them told again: the same is remembered."""
    import voxrill.runtime.talk.answer as module

    def cut(small):
        monkeypatch.setattr(module, "_SMALL", small)
        conversation = fresh(lfm3)
        answer = TalkAnswer(conversation, sound(), None, seed, 40)
        while answer.finish_reason is None:
            answer.step()
        marks = len({id(mark.context) for mark in answer._marks})
        answer.heard(int(answer.samples * at / 2))
        answer.cut(int(answer.samples * at))
        said = [piece for turn in conversation.told() for piece in turn]
        return marks, len(answer.codes), answer.text, [str(piece) for piece in said], conversation.context.advance()

    seed = next(seed for seed in range(20) if len(answered(fresh(lfm3), sound(), 40, seed)[1]) > 8)
    (often, frames, text, said, hidden), (seldom, *same, close) = cut(1 << 30), cut(0)
    assert often > frames > 8 and seldom <= 2 + frames // 12
    assert [frames, text, said] == same
    assert np.abs(hidden - close).max() < 1e-4
