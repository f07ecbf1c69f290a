"""OpenAI's client 1.99 in realtime sessions, which were a beta then, as its README and examples show them."""

import base64

from clips import KEY, TYPED, URL, keep, pieces, question, report
from openai import AsyncOpenAI

MODEL = "gpt-4o-realtime-preview"
client = AsyncOpenAI(base_url=URL, websocket_base_url=URL.replace("http", "ws"), api_key=KEY)


async def answer(connection):
    """What the next response says."""
    sound, text = b"", ""
    async for event in connection:
        if event.type == "error":
            return {"error": event.error.message}
        if event.type == "response.audio.delta":
            sound += base64.b64decode(event.delta)
        elif event.type in ("response.audio_transcript.delta", "response.text.delta"):
            text += event.delta
        elif event.type == "response.done":
            return {"answer": text, "sound": keep("beta.wav", sound)} if sound else {"answer": text}


async def typed_question():
    """The README: answered in text."""
    async with client.beta.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"modalities": ["text"]})
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": TYPED}]}
        )
        await connection.response.create()
        return await answer(connection)


async def spoken_question():
    """The example "push to talk" with the server's own ends of turns."""
    async with client.beta.realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"turn_detection": {"type": "server_vad"}})
        for piece in pieces(question()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        return await answer(connection)


report(typed_question, spoken_question)
