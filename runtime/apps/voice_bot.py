"""A voice bot: a talk with whatever sound comes in and goes out, put together.

In: a model, a source and a sink of sound, and how to talk. Out: a `TalkSession`. `voxrill talk` is one with a sound
card and a view.
"""

from __future__ import annotations

import secrets
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict, Unpack

from numpy.typing import DTypeLike

from voxrill.runtime.apps.own_end import pause_judge
from voxrill.runtime.apps.talk_tools import ToolSource, make_tools
from voxrill.runtime.audio.end_of_turn import TIMER, EndOfTurnWish, FinishedModel, find_model, with_patience
from voxrill.runtime.audio.endpointing import EndpointOptions
from voxrill.runtime.audio.microphone import DeviceMicrophone
from voxrill.runtime.audio.mute import MutePlayer
from voxrill.runtime.audio.own_sink import SinkPlayer, SoundSink
from voxrill.runtime.audio.own_source import SoundSource, SourceMicrophone
from voxrill.runtime.audio.protocols import Microphone, Player
from voxrill.runtime.audio.speaker import Speaker
from voxrill.runtime.audio.streams import AudioSystem
from voxrill.runtime.audio.wake_word import FOLLOW_UP, WakeWord, Waking
from voxrill.runtime.engine.conversation import Conversation
from voxrill.runtime.engine.options import check_keywords
from voxrill.runtime.errors import UsageError
from voxrill.runtime.talk.events import Notice, View
from voxrill.runtime.talk.loop import Talk, TalkOptions, TalkSinks
from voxrill.runtime.talk.responder import ResponderOptions
from voxrill.runtime.talk.session import TalkSession
from voxrill.runtime.talk.transcribing import transcriber

if TYPE_CHECKING:
    from voxrill.runtime.engine.engine import Engine

DEFAULT = "default"
"""As a source or sink: the microphone or loudspeaker that this machine takes when none is named."""

_SEEDS = 1 << 31


class TalkKeywords(TypedDict, total=False):
    """How to talk, as keyword arguments.

    source_rate: Hz of the source's pieces; source_dtype: the type of their samples, needed where they are bytes.
    sink_rate: Hz that the sink takes, the model's if it is left out; sink_dtype: "float32" or "int16".

    system: another system prompt than the family's own. voice: as in `speak`, for what is said word for word. tools:
    what a turn may call; see `ToolSource`. transcripts: also write down what was heard (`UserHeard`).

    barge_in: listen while an answer is played, so that the user may interrupt it (True); False where the microphone
    hears the loudspeaker. push_to_talk: `press` begins and ends turns, instead of silence. speculate: begin answers at
    a short silence already (True). endpoint: seconds of silence that end a turn (0.5). longest: seconds that a turn may
    last. end_of_turn: what tells at a short silence whether a turn is over: "timer" for silence alone, "auto" for an
    installed end-of-turn model, "hub" to fetch one, its file, or a function from sound (n,) at 16 kHz to the
    probability. Without it (None), and with "auto", the built-in model ends the commands that it knows. patience:
    seconds of silence that end a turn which the end-of-turn model takes to be unfinished (2).

    wake_word: nothing is heard before it is said. follow_up: seconds after an answer in which it is not needed.

    remember: positions of prompt and turns that are remembered. turns: turns that are remembered at most; None for as
    many as the model can use. seed: the same seed gives the same answers. max_new_tokens: limit on an answer.

    conversation: turns so far, instead of a new conversation. view: shows the events, for `TalkSession.run`. microphone
    and player: ready-made ones, instead of a source and a sink. sinks: who keeps what.
    """

    source_rate: int | None
    source_dtype: DTypeLike | None
    sink_rate: int | None
    sink_dtype: str
    system: str | None
    voice: str | None
    tools: ToolSource | None
    transcripts: bool
    barge_in: bool
    push_to_talk: bool
    speculate: bool
    endpoint: float
    longest: float
    end_of_turn: EndOfTurnWish | None
    patience: float | None
    wake_word: str | WakeWord | None
    follow_up: float
    remember: int
    turns: int | None
    seed: int | None
    max_new_tokens: int | None
    conversation: Conversation | None
    view: View | None
    microphone: Microphone | None
    player: Player | None
    sinks: TalkSinks


def voice_bot(
    model: Engine,
    source: SoundSource | str | None = None,
    sink: SoundSink | str | None = None,
    **how: Unpack[TalkKeywords],
) -> TalkSession:
    """A talk with a source and a sink of sound; see `Model.talk`."""
    check_keywords("talk", how, TalkKeywords.__annotations__)
    system = AudioSystem() if isinstance(source, str) or isinstance(sink, str) else None
    player = how.get("player") or _player(model, sink, system, how)
    mute = isinstance(player, MutePlayer)
    conversation = how.get("conversation")
    if conversation is None:
        conversation = model.conversation(system=how.get("system"), output="text" if mute else "both")
    elif how.get("system") is not None:
        raise UsageError("A conversation brings its own system prompt", "Leave system out")
    ends = _ends(how)
    options = talk_options(model, how)
    options = replace(options, endpoint=with_patience(options.endpoint, ends, how.get("patience")))
    tools, word = how.get("tools"), how.get("wake_word")
    word = WakeWord(word) if isinstance(word, str) else word

    def make(session: TalkSession, view: View) -> Talk:
        return Talk(
            conversation,
            how.get("microphone") or _microphone(source, system, how, options.endpoint, session, view),
            player,
            view,
            options,
            how.get("sinks", TalkSinks()),
            waking=None if word is None else Waking(word, how.get("follow_up", FOLLOW_UP)),
            transcribe=transcriber(model) if how.get("transcripts", True) else None,
            tools=None if tools is None else make_tools(model, tools),
            recite=lambda: model.reciting(how.get("voice")),
            judge=None
            if options.push_to_talk
            else pause_judge(model, how.get("end_of_turn"), ends, lambda sentence: view.show(Notice(sentence))),
        )

    return TalkSession(make, how.get("view"))


def _ends(how: TalkKeywords) -> FinishedModel | None:
    """What tells the end of a turn; None where silence alone does, or a key."""
    wish = how.get("end_of_turn")
    if not how.get("push_to_talk", False):
        return find_model(wish)
    if wish is None or wish == TIMER:
        return None
    raise UsageError("a key ends turns, so no model can", "Leave out push-to-talk or the end-of-turn model")


def talk_options(model: Engine, how: TalkKeywords) -> TalkOptions:
    """How to talk; what was not said suits the model."""
    turns, seed = how.get("turns"), how.get("seed")
    responder = ResponderOptions(
        speculate=how.get("speculate", True),
        # The other half of the context is for the next question and its answer.
        budget=min(how.get("remember", ResponderOptions.budget), model.context_positions // 2),
        turns=model.manifest.taught.turns if turns is None else turns,
        seed=secrets.randbelow(_SEEDS) if seed is None else seed,
        max_new_tokens=how.get("max_new_tokens"),
    )
    endpoint = EndpointOptions(
        endpoint=how.get("endpoint", EndpointOptions.endpoint), longest=how.get("longest", EndpointOptions.longest)
    )
    return TalkOptions(responder, endpoint, how.get("barge_in", True), how.get("push_to_talk", False))


def _player(model: Engine, sink: SoundSink | str | None, system: AudioSystem | None, how: TalkKeywords) -> Player:
    if sink is None:
        return MutePlayer()
    if isinstance(sink, str):
        assert system is not None
        return Speaker(system, model.sample_rate, None if sink == DEFAULT else sink)
    return SinkPlayer(sink, model.sample_rate, how.get("sink_rate"), how.get("sink_dtype", "float32"))


def _microphone(
    source: SoundSource | str | None,
    system: AudioSystem | None,
    how: TalkKeywords,
    endpoint: EndpointOptions,
    session: TalkSession,
    view: View,
) -> Microphone | None:
    if source is None:
        return None
    if isinstance(source, str):
        assert system is not None
        return DeviceMicrophone(
            system, None if source == DEFAULT else source, lambda sentence: view.show(Notice(sentence))
        )
    return SourceMicrophone(
        source,
        how.get("source_rate"),
        how.get("source_dtype"),
        ended=lambda: session.close(finish=True),
        endpoint=endpoint,
    )
