"""OpenAI's client in realtime sessions, as its README and OpenAI's guide show them."""

import base64

from clips import KEY, TYPED, URL, keep, pieces, question, report
from openai import AsyncOpenAI

MODEL = "gpt-realtime"


async def answer(connection):
    """What the next response says; what was heard of the question."""
    sound, found = b"", {}
    async for event in connection:
        if event.type == "error":
            return {"error": event.error.message}
        if event.type == "response.output_audio.delta":
            sound += base64.b64decode(event.delta)
        elif event.type in ("response.output_audio_transcript.done", "response.output_text.done"):
            found["answer"] = event.text if hasattr(event, "text") else event.transcript
        elif event.type == "conversation.item.input_audio_transcription.completed":
            found["heard"] = event.transcript
        elif event.type == "response.done":
            return {**found, "sound": keep("realtime.wav", sound)} if sound else found


async def typed_question():
    """The README: answered in text."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY).realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"type": "realtime", "output_modalities": ["text"]})
        await connection.conversation.item.create(
            item={"type": "message", "role": "user", "content": [{"type": "input_text", "text": TYPED}]}
        )
        await connection.response.create()
        return await answer(connection)


async def spoken_question():
    """The guide: the server ends the turn and answers aloud."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY).realtime.connect(model=MODEL) as connection:
        await connection.session.update(
            session={
                "type": "realtime",
                "model": MODEL,
                "output_modalities": ["audio"],
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24_000},
                        "transcription": {"model": "gpt-4o-mini-transcribe"},
                        "turn_detection": {"type": "semantic_vad"},
                    },
                    "output": {"format": {"type": "audio/pcm"}, "voice": "marin"},
                },
                "instructions": "Speak clearly and briefly. Confirm understanding before taking actions.",
            }
        )
        for piece in pieces(question()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        return await answer(connection)


async def spoken_question_by_default():
    """The shortest program: nothing is set."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY).realtime.connect(model=MODEL) as connection:
        for piece in pieces(question()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        return await answer(connection)


async def push_to_talk():
    """The example "push to talk": the user ends the turn."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY).realtime.connect(model=MODEL) as connection:
        await connection.session.update(session={"type": "realtime", "audio": {"input": {"turn_detection": None}}})
        for piece in pieces(question()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        await connection.input_audio_buffer.commit()
        await connection.response.create()
        return await answer(connection)


async def transcription():
    """The guide "Realtime transcription": a session that only writes down."""
    async with AsyncOpenAI(base_url=URL, api_key=KEY).realtime.connect(
        extra_query={"intent": "transcription"}
    ) as connection:
        await connection.session.update(
            session={
                "type": "transcription",
                "audio": {
                    "input": {
                        "format": {"type": "audio/pcm", "rate": 24_000},
                        "noise_reduction": {"type": "near_field"},
                        "transcription": {"model": "gpt-4o-transcribe", "prompt": "", "language": "en"},
                        "turn_detection": {
                            "type": "server_vad",
                            "threshold": 0.5,
                            "prefix_padding_ms": 300,
                            "silence_duration_ms": 500,
                        },
                    }
                },
            }
        )
        for piece in pieces(question()):
            await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
        async for event in connection:
            if event.type == "error":
                return {"error": event.error.message}
            if event.type == "conversation.item.input_audio_transcription.completed":
                return {"heard": event.transcript}


report(typed_question, spoken_question, spoken_question_by_default, push_to_talk, transcription)
