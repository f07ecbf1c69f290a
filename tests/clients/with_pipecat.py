"""Pipecat's OpenAI services, each in a small pipeline, and its voice agents."""

import asyncio
import sys

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
    """The end of a pipeline: keeps what arrives, and knows when the wanted frame did."""

    def __init__(self, wanted):
        super().__init__()
        self._wanted, self.seen, self.done = wanted, [], asyncio.Event()

    async def process_frame(self, frame, direction):
        await super().process_frame(frame, direction)
        self.seen.append(frame)
        if isinstance(frame, self._wanted):
            self.done.set()
        await self.push_frame(frame, direction)

    def text(self, kind):
        """The texts of the frames of a kind."""
        return "".join(frame.text for frame in self.seen if isinstance(frame, kind))

    def sound(self):
        """The speech."""
        return b"".join(frame.audio for frame in self.seen if isinstance(frame, frames.TTSAudioRawFrame))


async def through(processors, given, wanted):
    """Send frames, in the time that they take, through processors until the wanted frame arrives."""
    watch, failed = Watch(wanted), []
    worker = PipelineWorker(
        Pipeline([*processors, watch]),
        params=PipelineParams(audio_in_sample_rate=RATE, audio_out_sample_rate=24_000),
        cancel_on_idle_timeout=False,
    )
    started = asyncio.Event()

    @worker.event_handler("on_pipeline_started")
    async def _started(_worker, _frame):
        started.set()

    @worker.event_handler("on_pipeline_error")
    async def _failed(_worker, frame):
        failed.append(frame.error)
        watch.done.set()

    async def send():
        await started.wait()
        for frame in given:
            await worker.queue_frame(frame)
            await asyncio.sleep(0.02 if isinstance(frame, frames.InputAudioRawFrame) else 0.1)
        await watch.done.wait()
        await worker.cancel()

    runner = WorkerRunner(handle_sigint=False)
    await runner.add_workers(worker)
    await asyncio.gather(runner.run(), send())
    if failed:
        raise RuntimeError(failed[0])
    return watch


def microphone():
    """The question as a transport gives it."""
    return [frames.InputAudioRawFrame(piece, RATE, 1) for piece in pieces(question(RATE), rate=RATE)]


def heard():
    """The question between the frames of a voice activity detector."""
    return [frames.VADUserStartedSpeakingFrame(), *microphone(), frames.VADUserStoppedSpeakingFrame()]


async def stt():
    """Speech to text of a turn."""
    watch = await through([OpenAISTTService(**AT)], heard(), frames.TranscriptionFrame)
    return {"heard": watch.text(frames.TranscriptionFrame)}


async def stt_live():
    """Speech to text of a microphone, through a transcription session."""
    watch = await through([OpenAIRealtimeSTTService(**LIVE)], heard(), frames.TranscriptionFrame)
    return {"heard": watch.text(frames.TranscriptionFrame)}


async def tts():
    """Text to speech."""
    watch = await through([OpenAITTSService(**AT)], [frames.TTSSpeakFrame(SPOKEN)], frames.TTSStoppedFrame)
    return {"sound": keep("tts.wav", watch.sound())}


async def chat():
    """A typed question."""
    context = LLMContext(
        [
            {"role": "system", "content": "You are a helpful assistant in a voice conversation."},
            {"role": "user", "content": TYPED},
        ]
    )
    watch = await through([OpenAILLMService(**AT)], [frames.LLMContextFrame(context)], frames.LLMFullResponseEndFrame)
    return {"answer": watch.text(frames.LLMTextFrame)}


async def realtime():
    """The speech-to-speech service with the session of its example: it answers a question aloud."""
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
    user, assistant = LLMContextAggregatorPair(LLMContext([{"role": "developer", "content": "Say hello!"}]))
    watch = await through([user, llm, assistant], [frames.LLMRunFrame(), *microphone()], frames.LLMFullResponseEndFrame)
    return {"kinds": [type(f).__name__ for f in watch.seen]}


logger.remove()
logger.add(sys.stderr, level="ERROR")
report(stt, stt_live, tts, chat, realtime)
