"""Pipecat's OpenAI services, each in a small pipeline, and its voice agents."""

import asyncio
import sys
from contextlib import asynccontextmanager

from clips import KEY, SPOKEN, TYPED, URL, keep, pieces, question, report
from loguru import logger
from pipecat.frames import frames
from pipecat.pipeline.pipeline import Pipeline
from pipecat.pipeline.worker import PipelineParams, PipelineWorker
from pipecat.processors.aggregators.llm_context import LLMContext
from pipecat.processors.aggregators.llm_response_universal import LLMContextAggregatorPair
from pipecat.processors.frame_processor import FrameProcessor
from pipecat.services.openai.llm import OpenAILLMService
from pipecat.services.openai.realtime import events
from pipecat.services.openai.realtime.llm import OpenAIRealtimeLLMService
from pipecat.services.openai.stt import OpenAIRealtimeSTTService, OpenAISTTService
from pipecat.services.openai.tts import OpenAITTSService
from pipecat.workers.runner import WorkerRunner

AT = {"base_url": URL, "api_key": KEY}
LIVE = {"base_url": URL.replace("http", "ws") + "/realtime", "api_key": KEY}
RATE = 16_000
"""The rate of Pipecat's microphones."""


class Watch(FrameProcessor):
    """The end of a pipeline: keeps what arrives."""

    def __init__(self):
        super().__init__()
        self.failure = None
        self.expect(frames.EndFrame)

    def expect(self, wanted):
        """Forget what arrived; from now on, wait for a frame of that kind."""
        self._wanted, self._seen, self.arrived = wanted, [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        self._seen.append(frame)
        if isinstance(frame, self._wanted):
            self.arrived.set()
        await self.push_frame(frame, direction)

    def fail(self, why):
        """Stop waiting."""
        self.failure = self.failure or why
        self.arrived.set()

    def text(self, kind):
        """The texts of the frames of a kind."""
        return "".join(frame.text for frame in self._seen if isinstance(frame, kind))

    def sound(self):
        """The speech, 16-bit samples at 24 kHz."""
        return b"".join(frame.audio for frame in self._seen if isinstance(frame, frames.TTSAudioRawFrame))


@asynccontextmanager
async def pipeline(*processors):
    """Run processors; `send(given, wanted)` sends frames as a transport does and waits for a frame of the kind."""
    watch, started = Watch(), asyncio.Event()
    worker = PipelineWorker(
        Pipeline([*processors, watch]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=24_000),
        cancel_on_idle_timeout=False,
    )
    worker.add_event_handler("on_pipeline_started", lambda _worker, _frame: started.set())
    worker.add_event_handler("on_pipeline_error", lambda _worker, frame: watch.fail(frame.error))

    async def send(given, wanted):
        watch.expect(wanted)
        for frame in given:
            await worker.queue_frame(frame)
            await asyncio.sleep(0.02 if isinstance(frame, frames.InputAudioRawFrame) else 0.1)
        await watch.arrived.wait()
        if watch.failure:
            raise RuntimeError(watch.failure)
        return watch

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    running = asyncio.create_task(runner.run())
    try:
        await started.wait()
        yield send
    finally:
        await worker.cancel()
        await running


def microphone():
    """The question as a transport gives it."""
    return [frames.InputAudioRawFrame(piece, RATE, 1) for piece in pieces(question(RATE), rate=RATE)]


def turn():
    """The question between the frames of a voice activity detector."""
    return [frames.VADUserStartedSpeakingFrame(), *microphone(), frames.VADUserStoppedSpeakingFrame()]


async def stt():
    """Speech to text of a turn."""
    async with pipeline(OpenAISTTService(**AT)) as send:
        return {"heard": (await send(turn(), frames.TranscriptionFrame)).text(frames.TranscriptionFrame)}


async def stt_live():
    """Speech to text of a microphone, through a transcription session."""
    async with pipeline(OpenAIRealtimeSTTService(**LIVE)) as send:
        return {"heard": (await send(turn(), frames.TranscriptionFrame)).text(frames.TranscriptionFrame)}


async def tts():
    """Text to speech."""
    async with pipeline(OpenAITTSService(**AT)) as send:
        watch = await send([frames.TTSSpeakFrame(SPOKEN)], frames.TTSStoppedFrame)
        return {"sound": keep("tts.wav", watch.sound())}


async def chat():
    """A typed question."""
    context = LLMContext(
        [
            {"role": "system", "content": "You are a helpful assistant in a voice conversation."},
            {"role": "user", "content": TYPED},
        ]
    )
    async with pipeline(OpenAILLMService(**AT)) as send:
        watch = await send([frames.LLMContextFrame(context)], frames.LLMFullResponseEndFrame)
        return {"answer": watch.text(frames.LLMTextFrame)}


async def realtime():
    """The example of the speech-to-speech service: it says hello, and answers a spoken question aloud."""
    llm = OpenAIRealtimeLLMService(
        **LIVE,
        settings=OpenAIRealtimeLLMService.Settings(
            system_instruction="You are a helpful and friendly AI.",
            session_properties=events.SessionProperties(
                audio=events.AudioConfiguration(
                    input=events.AudioInput(
                        transcription=events.InputAudioTranscription(),
                        turn_detection=events.SemanticTurnDetection(),
                        noise_reduction=events.InputAudioNoiseReduction(type="near_field"),
                    )
                )
            ),
        ),
    )
    context = LLMContext([{"role": "developer", "content": "Say hello!"}])
    user, assistant = LLMContextAggregatorPair(context)
    async with pipeline(user, llm, assistant) as send:
        watch = await send([frames.LLMRunFrame()], frames.LLMContextAssistantTurnFrame)
        found = {"greeting": context.get_messages()[-1]["content"], "greeting_sound": keep("hello.wav", watch.sound())}
        watch = await send(microphone(), frames.LLMContextAssistantTurnFrame)
        heard, answer = (message["content"] for message in context.get_messages()[-2:])
        return {**found, "heard": heard, "answer": answer, "sound": keep("realtime.wav", watch.sound())}


logger.remove()
logger.add(sys.stderr, level="ERROR")
report(stt, stt_live, tts, chat, realtime)
