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
    listener = Listener(Loudness(), Endpointer(EndpointOptions()), floor, signals.append, streams=streams)
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


def answered(conversation, samples, most=12):
    answer = TalkAnswer(conversation, samples, None, 5, most)
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
        responder.take(Heard(whole[start : start + 512]))
    assert len(conversation.context._waiting) == 0
    responder.take(Paused(Utterance(whole[:9000], 0, 9000, 0.0), 0.0))
    for _ in range(3):
        responder.step()
    responder.take(Resumed())
    for start in range(9000, 15_000, 512):
        responder.take(Heard(whole[start : min(start + 512, 15_000)]))
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
    responder.take(Heard(sound()))
    assert conversation.context.positions > before
    responder.take(Began())
    assert conversation.context.positions == before
