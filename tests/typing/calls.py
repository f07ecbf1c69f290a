"""Calls of the public interface, for the type checker only: nothing here is run.

`make types` reads them. A good call must be accepted. Every bad call carries the error that it must get; the checker
reports a comment that suppresses nothing, so a bad call that is accepted fails too.
"""

import io
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Any, Literal, assert_type

import numpy as np

import voxrill

model = voxrill.load()
conversation = model.conversation(system="Be brief.", output="text")
noise = np.zeros(16_000, np.float32)
decoded: dict[str, Any] = {"array": noise, "sampling_rate": 16_000}

# Good calls

assert_type(model, voxrill.Model)
assert_type(
    model.transcribe(Path("q.wav"), max_new_tokens=3, seed=1, temperature=0, top_k=5, top_p=0.9), voxrill.Transcript
)
assert_type(model.transcribe((noise, 16_000), trim=False).text, str)
assert_type(model.transcribe(noise, sample_rate=16_000).text, str)
assert_type(model.transcribe(b"RIFF").text, str)
assert_type(model.transcribe(io.BytesIO()).text, str)
assert_type(model.transcribe(decoded).text, str)
assert_type(model.transcribe("q.wav", trim=None).segments[0], voxrill.SegmentEvent)
assert_type(conversation.ask(audio=noise, sample_rate=16_000, trim=True), Iterator[voxrill.Event])
assert_type(model.speak("Hello.", voice="US male", seed=None, audio_temperature=0.8, audio_top_k=64), voxrill.Speech)
assert_type(
    model.chat(audio=noise, sample_rate=16_000, text="Why?", output="both", max_new_tokens=9), Iterator[voxrill.Event]
)
assert_type(model.translate("q.wav", "German", output="text", seed=1), Iterator[voxrill.Event])
assert_type(conversation.ask(text="Why?", output="audio", temperature=None), Iterator[voxrill.Event])
assert_type(model.ask("Why?", documents="papers", aloud=True, voice=None, passages=3, seed=1), voxrill.Answer)
assert_type(
    model.classify(noise, sample_rate=16_000, labels=["on", "off"], task="mood").probabilities, dict[str, float]
)
assert_type(model.control("commands.toml", threshold=0.5).hear(noise, sample_rate=16_000), voxrill.Understood)
assert_type(voxrill.pebble_world(), dict[str, str])
for event in model.transcribe_stream([noise], sample_rate=16_000, tentative=False, max_new_tokens=3):
    assert_type(event, voxrill.TranscriptEvent)
for event in model.transcribe_stream([b"", b""], sample_rate=8000, dtype="int16"):
    assert_type(event, voxrill.TranscriptEvent)
for event in model.chat(text="Hello."):
    if isinstance(event, voxrill.EndEvent):
        assert_type(event.result, voxrill.Result)
rows = model.evaluate("asr", "recordings", peers={"whisper": "w.jsonl"}, limit=2, seed=1).rows
voxrill.AnswerOptions(max_new_tokens=3, seed=1, temperature=0.5, top_p=0.9, audio_top_k=4)
assert_type(model.voices, tuple[str, ...])
assert_type(model.speak("Hello.").save("a.mp3"), voxrill.Result)
assert_type(model.speak("Hello.").save(io.BytesIO(), format="flac"), voxrill.Result)
assert_type(model.achat(text="Hello.", top_k=3), AsyncGenerator[voxrill.Event])
assert_type(model.aspeak("Hello."), AsyncGenerator[voxrill.AudioEvent])
with voxrill.load("pebble") as opened:
    assert_type(opened, voxrill.Model)
    opened.close()


class OwnSink:
    """A sink of a caller's."""

    def write(self, samples: Any) -> None:
        """Take samples."""


with model.talk([noise], OwnSink(), source_rate=16_000, barge_in=False, seed=1) as talk:
    assert_type(talk, voxrill.TalkSession)
    for happened in talk:
        assert_type(happened, voxrill.TalkEvent)
        if isinstance(happened, voxrill.TurnEnded):
            assert_type(happened.text, str)
    talk.ask("Hello.")


@voxrill.tool("turn it {state}")
def switch(state: Literal["on", "off"]) -> str:
    """A tool of a caller's."""
    return state


model.talk("default", "default", tools=[switch], endpoint=0.4)
assert_type(model.transcribe("q.wav").as_json(), dict[str, Any])


async def awaiting() -> None:
    """Calls of an event loop."""
    assert_type(await model.atranscribe("q.wav", seed=1), voxrill.Transcript)
    async for event in model.achat(audio="q.wav"):
        assert_type(event, voxrill.Event)
    async with model.talk(sink=OwnSink()) as talking:
        async for happening in talking:
            assert_type(happening, voxrill.TalkEvent)
    await model.aclose()


# Bad calls

voxrill.load("bundle", thread=1)  # pyright: ignore[reportCallIssue]
model.transcribe("q.wav", max_new_tokns=3)  # pyright: ignore[reportCallIssue]
model.transcribe("q.wav", audio_temperature=0.5)  # pyright: ignore[reportCallIssue]
model.transcribe("q.wav", trim="yes")  # pyright: ignore[reportArgumentType]
model.transcribe("q.wav", max_new_tokens="3")  # pyright: ignore[reportArgumentType]
model.transcribe_stream("q.wav", max_new_tokns=3)  # pyright: ignore[reportCallIssue]
model.transcribe_stream("q.wav", None)  # pyright: ignore[reportCallIssue]
model.speak("Hello.", sampling=0.5)  # pyright: ignore[reportCallIssue]
model.speak(b"Hello.")  # pyright: ignore[reportArgumentType]
model.chat(audio="q.wav", output="sound")  # pyright: ignore[reportArgumentType]
model.chat(audio="q.wav", temperatur=0.5)  # pyright: ignore[reportCallIssue]
model.translate("q.wav", to="German", max_tokens=3)  # pyright: ignore[reportCallIssue]
conversation.ask(text="Why?", seeds=1)  # pyright: ignore[reportCallIssue]
model.ask("Why?", documents="papers", loud=True)  # pyright: ignore[reportCallIssue]
model.ask("Why?", documents="papers", seed="1")  # pyright: ignore[reportArgumentType]
model.evaluate("asr", "recordings", judges="bundle")  # pyright: ignore[reportCallIssue]
model.evaluate("smell", "recordings")  # pyright: ignore[reportArgumentType]
voxrill.AnswerOptions(text_sampling=0.5)  # pyright: ignore[reportCallIssue]
model.transcribe(["q.wav"])  # pyright: ignore[reportArgumentType]
model.transcribe("q.wav", sample_rate="16000")  # pyright: ignore[reportArgumentType]
model.chat(text="Hello.", top_p="0.9")  # pyright: ignore[reportArgumentType]
model.speak("Hello.").save("a.mp3", format="aiff")  # pyright: ignore[reportArgumentType]
model.achat("Hello.")  # pyright: ignore[reportCallIssue]
model.talk([noise], OwnSink(), rate=16_000)  # pyright: ignore[reportCallIssue]
model.talk([noise], noise)  # pyright: ignore[reportArgumentType]
model.talk(7, OwnSink())  # pyright: ignore[reportArgumentType]
model.talk(tools=7)  # pyright: ignore[reportArgumentType]
voxrill.AnswerOptions(seed=1).seed = 2  # pyright: ignore[reportAttributeAccessIssue]
