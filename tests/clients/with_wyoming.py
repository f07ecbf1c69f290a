"""Wyoming's own client: speech to text, text to speech, and a conversation."""

from clips import SPOKEN, TYPED, URL, keep, pieces, question, report
from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncClient
from wyoming.handle import Handled
from wyoming.tts import Synthesize

RATE = 16_000
FORM = {"rate": RATE, "width": 2, "channels": 1}


async def exchange(sent, last):
    """Send events; return those that come, up to one of the class `last`."""
    async with AsyncClient.from_uri(URL) as client:
        for event in sent:
            await client.write_event(event.event())
        came = [await client.read_event()]
        while came[-1] and not last.is_type(came[-1].type):
            came.append(await client.read_event())
        return came


async def speech_to_text():
    """Speech to text."""
    chunks = [AudioChunk(audio=piece, **FORM) for piece in pieces(question(RATE), rate=RATE)]
    came = await exchange([Transcribe(), AudioStart(**FORM), *chunks, AudioStop()], Transcript)
    return {"heard": Transcript.from_event(came[-1]).text}


async def text_to_speech():
    """Text to speech."""
    chunks = [
        AudioChunk.from_event(event)
        for event in await exchange([Synthesize(SPOKEN)], AudioStop)
        if AudioChunk.is_type(event.type)
    ]
    return {"sound": keep("wyoming.wav", b"".join(chunk.audio for chunk in chunks), chunks[0].rate)}


async def conversation():
    """A question to the conversation agent."""
    came = await exchange([Transcript(TYPED)], Handled)
    return {"answer": Handled.from_event(came[-1]).text}


report(speech_to_text, text_to_speech, conversation)
