"""A satellite: a microphone and a loudspeaker elsewhere, with which this server talks.

In: a satellite's sound. Out: the answer, aloud. Home Assistant uses a pipeline of three programs for that. Here it is
one realtime session, whose events are translated into Wyoming's.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
from wyoming.asr import Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.error import Error
from wyoming.event import Event, Eventable
from wyoming.handle import Handled
from wyoming.ping import Ping, Pong
from wyoming.pipeline import PipelineStage
from wyoming.satellite import RunSatellite
from wyoming.vad import VoiceStarted, VoiceStopped

from voxrill.runtime.audio.audio_file import SAMPLE_RATE
from voxrill.runtime.audio.pcm import pcm16
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.serve.realtime.endpoint import SessionLink, open_link
from voxrill.runtime.serve.realtime.outbox import Outbox
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.event_stream import EventStream, PingData, data_of
from voxrill.runtime.serve.wyoming.incoming_audio import AudioInput, PcmFormat

PING = 5.0
"""Seconds between two pings, which ask whether the satellite is still there."""

GONE = 20.0
"""Seconds without any event after which a satellite counts as gone."""

LATE = 2.0
"""Seconds, beyond the answer's length, after which a satellite that reports nothing is taken to have played it."""

TAIL = 0.25
"""Seconds of a satellite's microphone that are ignored after it reports that it played an answer."""

STOPPED = 2.5
"""Seconds of silence that are added when a satellite stops sending sound: more than ends any turn."""

UNSPOKEN = 15.0
"""Seconds after which a run ends if nothing is said in it."""


class _Run(msgspec.Struct):
    start_stage: PipelineStage
    end_stage: PipelineStage
    restart_on_end: bool = False


class Satellite:
    """One satellite, connected.

    Args:
        service: what all share.
        stream: the connection.
        met: called at its first event. A satellite that belongs to another server accepts a connection, and ends it.
    """

    def __init__(self, service: Service, stream: EventStream, met: Callable[[], None]) -> None:
        self._service = service
        self._stream = stream
        self._met = met
        self._link: SessionLink | None = None
        self._forwarding: asyncio.Task[None] | None = None
        self._spoken = False
        self._listening = self._restart = False
        self._unasked = False  # there is no wake word, so its own loudspeaker could be taken for a question
        self._played = 0.0  # the time at which its answer will have been played
        self._unspoken: float | None = None  # the time at which the run ends if nothing is said
        self._input: AudioInput | None = None
        self._playing = False

    async def talk(self) -> None:
        """Talk until either side ends it.

        Raises:
            OSError, TimeoutError, ApiError: it is gone, or sends something that is not an event.
        """
        await self._stream.write(RunSatellite())
        sides = {asyncio.ensure_future(self._hear()), asyncio.ensure_future(self._watch())}
        try:
            done, _ = await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
            for side in done:
                side.result()
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)
            self._leave()

    async def _watch(self) -> None:
        """Ask whether the satellite is still there, and end runs in which nothing is said."""
        while True:
            await self._stream.write(Ping())
            await asyncio.sleep(PING)
            if self._unspoken is not None and time.monotonic() > self._unspoken:
                self._listening, self._unspoken = False, None
                await self._stream.write(Error("Nothing was said.", "stt-no-text-recognized"))

    async def _hear(self) -> None:
        met = False
        while True:
            async with asyncio.timeout(GONE):
                event = await self._stream.read()
            if event is None:
                return
            if not met:
                met = True
                self._met()
            await self._take(event)

    async def _take(self, event: Event) -> None:
        if event.type == "run-pipeline":
            await self._run(data_of(event, _Run))
        elif event.type == "audio-chunk":
            await self._hear_sound(event)
        elif event.type == "audio-stop":
            await self._stop()
        elif event.type == "played":
            self._played = time.monotonic() + TAIL
        elif event.type == "ping":
            await self._stream.write(Pong(data_of(event, PingData).text))

    async def _run(self, run: _Run) -> None:
        """Listen until a turn is over, or for ever.

        A satellite that leaves the wake word to the server is listened to at all times.
        """
        if run.start_stage not in (PipelineStage.WAKE, PipelineStage.ASR):
            stage = run.start_stage.value
            await self._stream.write(Error(f"A run begins with wake or asr here, not with {stage}.", "stage"))
            return
        spoken = run.end_stage == PipelineStage.TTS
        if self._link is None or spoken != self._spoken:
            await self._begin(spoken)
        self._listening, self._restart = True, run.restart_on_end
        self._unasked = run.start_stage == PipelineStage.WAKE
        self._unspoken = None if run.restart_on_end else time.monotonic() + UNSPOKEN

    async def _begin(self, spoken: bool) -> None:
        self._leave()
        self._link = await open_link(self._service)
        self._forwarding = asyncio.ensure_future(self._forward(self._link.outbox))
        self._spoken = spoken
        heard = {
            "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
            "transcription": {},
            # By meaning where the server has a model for it. Most satellites hear their own loudspeaker.
            "turn_detection": {
                "type": "server_vad" if self._service.judge is None else "semantic_vad",
                "interrupt_response": False,
            },
        }
        modalities = ["audio" if spoken else "text"]
        await self._send("session.update", session={"audio": {"input": heard}, "output_modalities": modalities})

    def _leave(self) -> None:
        if self._link is not None and self._forwarding is not None:
            self._link.session.leave()
            self._forwarding.cancel()
        self._link = self._forwarding = None

    async def _send(self, kind: str, **fields: Any) -> None:
        assert self._link is not None, "`_begin` comes before any event"
        await self._link.send(msgspec.json.encode({"type": kind, **fields}).decode())

    async def _hear_sound(self, event: Event) -> None:
        form = data_of(event, PcmFormat)
        if not self._listening or (self._unasked and time.monotonic() < self._played):
            return
        if self._input is None or form != self._input.form:
            self._input = AudioInput(form)
        await self._append(self._input.push(event.payload or b""))

    async def _append(self, samples: Floats) -> None:
        pcm = pcm16(samples).tobytes()
        await self._send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    async def _stop(self) -> None:
        """The satellite sends no more sound in this run: what was said is a turn."""
        if self._listening:
            await self._append(np.zeros(round(STOPPED * SAMPLE_RATE), np.float32))
            self._listening, self._unspoken = self._restart, None

    async def _forward(self, outbox: Outbox) -> None:
        """Send the session's events as events of Wyoming."""
        with suppress(OSError, TimeoutError):  # `talk` notices it, too
            while (event := await outbox.get()) is not None:
                for told in self._translated(msgspec.json.decode(event)):
                    await self._stream.write(told)
        self._stream.close()  # the session has ended; the next connection begins another one

    def _translated(self, event: dict[str, Any]) -> list[Eventable]:
        rate = self._service.model.sample_rate
        match event["type"]:
            case "input_audio_buffer.speech_started":
                self._unspoken = None
                return [VoiceStarted(event["audio_start_ms"])]
            case "input_audio_buffer.speech_stopped":
                self._listening = self._restart
                return [VoiceStopped(event["audio_end_ms"])]
            case "conversation.item.input_audio_transcription.completed":
                return [Transcript(event["transcript"])]
            case "response.output_audio.delta":
                begun, self._playing = self._playing, True
                chunk = AudioChunk(rate, 2, 1, base64.b64decode(event["delta"]))
                # Chunks are sent faster than they are played: each one is played after those before it.
                self._played = max(self._played, time.monotonic() + LATE) + chunk.seconds
                return [chunk] if begun else [AudioStart(rate, 2, 1), chunk]
            case "response.output_audio.done":
                begun, self._playing = self._playing, False
                return [AudioStop()] if begun else []
            case "response.output_audio_transcript.done":
                return [Handled(event["transcript"])]
            case "response.output_text.done":
                return [Handled(event["text"])]
            case "error":
                return [Error(event["error"]["message"], event["error"]["code"])]
        return []
