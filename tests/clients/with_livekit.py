"""LiveKit's agents: each of its OpenAI classes by itself, and its two voice agents in a session without a room."""

import asyncio
import logging

from clips import KEY, SPOKEN, TYPED, URL, keep, pieces, question, report
from livekit import rtc
from livekit.agents import Agent, AgentSession, inference, llm, utils
from livekit.agents.voice import io
from livekit.plugins import openai

AT = {"base_url": URL, "api_key": KEY}
RATE = 24_000


def frame(sound):
    """16-bit samples as LiveKit holds them."""
    return rtc.AudioFrame(sound, RATE, 1, len(sound) // 2)


def joined(frames):
    """The samples of frames."""
    return b"".join(bytes(one.data) for one in frames)


class Microphone(io.AudioInput):
    """Says the question once, then is silent."""

    def __init__(self):
        super().__init__(label="microphone")
        self._pieces = iter(pieces(question()))

    async def __anext__(self):
        await asyncio.sleep(0.02)
        return frame(next(self._pieces, bytes(RATE // 50 * 2)))


class Loudspeaker(io.AudioOutput):
    """Keeps what it is given, and says at once that it was played."""

    def __init__(self):
        super().__init__(label="loudspeaker", capabilities=io.AudioOutputCapabilities(pause=False), sample_rate=RATE)
        self.sound, self._length = b"", 0.0

    async def capture_frame(self, given):
        await super().capture_frame(given)
        self.sound += bytes(given.data)
        self._length += given.duration

    def flush(self):
        super().flush()
        self.on_playback_finished(playback_position=self._length, interrupted=False)
        self._length = 0.0

    def clear_buffer(self):
        self.sound = b""


async def stt():
    """Speech to text of a recording."""
    async with utils.http_context.open():
        event = await openai.STT(**AT).recognize(frame(question()))
        return {"heard": event.alternatives[0].text}


async def stt_live():
    """Speech to text of a microphone, through a transcription session."""
    return await heard_live(openai.STT(use_realtime=True, **AT))


async def stt_live_by_default():
    """The same with the model that is only live: LiveKit finds the ends of turns."""
    return await heard_live(openai.STT(model="gpt-realtime-whisper", **AT))


async def heard_live(made):
    """What a live speech to text hears."""
    async with utils.http_context.open():
        stream = made.stream()
        speaking = asyncio.create_task(speak(stream))
        async for event in stream:
            if event.type == "final_transcript":
                break
        speaking.cancel()
        await stream.aclose()
        return {"heard": event.alternatives[0].text}


async def speak(stream):
    """Say the question, and be silent then."""
    microphone = Microphone()
    async for piece in microphone:
        stream.push_frame(piece)


async def tts():
    """Text to speech."""
    async with utils.http_context.open():
        spoken = await openai.TTS(**AT).synthesize(SPOKEN).collect()
        return {"sound": keep("tts.wav", joined([spoken]), spoken.sample_rate)}


async def chat():
    """A typed question."""
    context = llm.ChatContext.empty()
    context.add_message(role="system", content="You are a helpful voice AI assistant.")
    context.add_message(role="user", content=TYPED)
    async with utils.http_context.open(), openai.LLM(**AT).chat(chat_ctx=context) as stream:
        return {"answer": "".join([chunk.delta.content or "" async for chunk in stream if chunk.delta])}


async def realtime():
    """The realtime model by itself: it hears a question, and answers."""
    async with utils.http_context.open():
        session = openai.realtime.RealtimeModel(**AT).session()
        answered, found = asyncio.get_running_loop().create_future(), {}
        session.on("generation_created", answered.set_result)
        session.on("input_audio_transcription_completed", lambda event: found.update(heard=event.transcript))
        session.on("error", lambda event: found.update(error=str(event.error)))
        await session.update_instructions("You are a helpful voice AI assistant.")
        for piece in pieces(question()):
            session.push_audio(frame(piece))
        async for message in (await answered).message_stream:
            found["answer"] = "".join([text async for text in message.text_stream])
            found["sound"] = keep("realtime.wav", joined([one async for one in message.audio_stream]))
        await session.aclose()
        return found


async def conversation(session):
    """The quickstart: the agent greets, and answers a question aloud."""
    microphone, loudspeaker, found = Microphone(), Loudspeaker(), {}
    answered = asyncio.Event()

    def added(event):
        if event.item.type != "message" or event.item.role != "assistant":
            return
        if "heard" not in found:
            found["greeting"] = event.item.text_content
        else:
            found["answer"] = event.item.text_content
            answered.set()

    def failed(event):
        found["error"] = str(event.error)
        answered.set()

    session.on("user_input_transcribed", lambda event: event.is_final and found.update(heard=event.transcript))
    session.on("conversation_item_added", added)
    session.on("error", failed)
    session.output.audio = loudspeaker
    await session.start(agent=Agent(instructions="You are a helpful voice AI assistant."), record=False)
    await session.generate_reply(instructions="Greet the user and offer your assistance.")
    found["greeting_sound"] = keep("greeting.wav", loudspeaker.sound)
    loudspeaker.sound = b""
    session.input.audio = microphone
    await answered.wait()
    await session.aclose()
    return {**found, "sound": keep("session.wav", loudspeaker.sound)}


async def realtime_agent():
    """The quickstart of a speech-to-speech agent."""
    async with utils.http_context.open():
        return await conversation(AgentSession(llm=openai.realtime.RealtimeModel(**AT)))


async def pipeline_agent():
    """The quickstart of an agent of three parts."""
    async with utils.http_context.open():
        return await conversation(
            AgentSession(
                stt=openai.STT(**AT),
                llm=openai.LLM(**AT),
                tts=openai.TTS(**AT),
                vad=inference.VAD(model="silero"),
            )
        )


logging.disable(logging.WARNING)
report(stt, stt_live, stt_live_by_default, tts, chat, realtime, realtime_agent, pipeline_agent)
