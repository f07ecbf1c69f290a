"""OpenAI's Agents SDK: its quickstart of a realtime agent."""

import numpy as np
from agents import Agent, Runner, set_default_openai_client, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner
from agents.voice import (
    AudioInput,
    OpenAIVoiceModelProvider,
    SingleAgentVoiceWorkflow,
    VoicePipeline,
    VoicePipelineConfig,
)
from clips import KEY, TYPED, URL, keep, pieces, question, report
from openai import AsyncOpenAI

MODEL = {"url": URL.replace("http", "ws") + "/realtime?model=gpt-realtime", "api_key": KEY}
AGENT = RealtimeAgent(
    name="Assistant",
    instructions="You are a helpful voice assistant. Keep your responses conversational and friendly.",
)


async def answer(runner, say):
    """What a session answers to what `say` sends."""
    sound, found = b"", {}
    async with await runner.run(model_config=MODEL) as session:
        await say(session)
        async for event in session:
            if event.type == "error":
                return {"error": str(event.error)}
            if event.type == "audio":
                sound += event.audio.data
            elif event.type == "audio_end":
                found["sound"] = keep("agents.wav", sound)
            elif event.type == "history_updated":
                found.update(texts(event.history))
            elif event.type == "agent_end":
                return found


def texts(history):
    """The words of both sides of a conversation, as far as they are known."""
    found, names = {}, {"user": "heard", "assistant": "answer"}
    for item in history:
        if item.type == "message":
            words = (getattr(part, "transcript", None) or getattr(part, "text", None) or "" for part in item.content)
            found[names[item.role]] = "".join(words)
    return found


async def spoken_question():
    """The quickstart."""
    settings = {
        "model_name": "gpt-realtime",
        "audio": {
            "input": {
                "format": "pcm16",
                "transcription": {"model": "gpt-4o-mini-transcribe"},
                "turn_detection": {"type": "semantic_vad", "interrupt_response": True},
            },
            "output": {"format": "pcm16", "voice": "ash"},
        },
    }

    async def say(session):
        for piece in pieces(question()):
            await session.send_audio(piece)

    return await answer(RealtimeRunner(starting_agent=AGENT, config={"model_settings": settings}), say)


async def typed_question():
    """An agent with every setting left out."""
    return await answer(RealtimeRunner(AGENT), lambda session: session.send_message(TYPED))


def written():
    """The agent of the first example. Its client belongs to the event loop that runs now."""
    set_default_openai_client(AsyncOpenAI(base_url=URL, api_key=KEY))
    return Agent(name="Assistant", instructions="You are a helpful assistant")


async def written_agent():
    """The SDK's first example: an agent that is asked in writing."""
    return {"answer": (await Runner.run(written(), TYPED)).final_output}


async def voice_pipeline():
    """The quickstart of the SDK's voice pipeline: speech to text, an agent, text to speech."""
    pipeline = VoicePipeline(
        workflow=SingleAgentVoiceWorkflow(written()),
        config=VoicePipelineConfig(model_provider=OpenAIVoiceModelProvider(base_url=URL, api_key=KEY)),
    )
    result = await pipeline.run(AudioInput(buffer=np.frombuffer(question(), np.int16)))
    sound = [event.data async for event in result.stream() if event.type == "voice_stream_event_audio"]
    return {"answer": result.total_output_text, "sound": keep("pipeline.wav", np.concatenate(sound).tobytes())}


set_tracing_disabled(True)
report(spoken_question, typed_question, written_agent, voice_pipeline)
