"""A satellite: a microphone and a loudspeaker elsewhere, with which this server talks.

In: a satellite's sound. Out: the answer, aloud. What Home Assistant does with a pipeline of three programs is done by
one realtime session here, whose events are told in the satellite's words.
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
from voxrill.runtime.audio.resampler import Resampler
from voxrill.runtime.serve.realtime.endpoint import SessionLink, open_link
from voxrill.runtime.serve.realtime.outbox import Outbox
from voxrill.runtime.serve.service import Service
from voxrill.runtime.serve.wyoming.sound import PcmFormat
from voxrill.runtime.serve.wyoming.wire import EventStream, data_of

PING = 5.0
"""Seconds between two questions whether it is still there."""

GONE = 20.0
"""Seconds without any event after which it is not."""

LATE = 2.0
"""Seconds after which an answer was played, beyond its length, by a satellite that does not say so."""

TAIL = 0.25
"""Seconds of its microphone that are ignored once a satellite says that an answer was played."""

STOPPED = 1.0
"""Seconds of silence that stand for the sound of a satellite that stopped: a turn ends after half of it."""

UNSPOKEN = 15.0
"""Seconds after which a run in which nothing is said is over."""


class _Run(msgspec.Struct):
    start_stage: PipelineStage
    end_stage: PipelineStage
    restart_on_end: bool = False


class Satellite:
    """One that is connected.

    Args:
        service: what all share.
        wire: the connection.
        met: called once it says something: one that talks with another server takes a connection and ends it.
    """

    def __init__(self, service: Service, wire: EventStream, met: Callable[[], None]) -> None:
        self._service = service
        self._wire = wire
        self._met = met
        self._link: SessionLink | None = None
        self._telling: asyncio.Task[None] | None = None
        self._spoken = False
        self._listening = self._restart = False
        self._unasked = False  # nobody says a wake word, so that its own loudspeaker could be taken for a question
        self._played = 0.0  # when its answer was played
        self._unspoken: float | None = None  # when a run is over in which nothing was said
        self._form: PcmFormat | None = None
        self._playing = False

    async def talk(self) -> None:
        """Talk until either side ends it.

        Raises:
            OSError, TimeoutError, ApiError: it is gone, or sends what is no event.
        """
        await self._wire.write(RunSatellite())
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
        """Ask whether it is still there, and end runs in which nothing is said."""
        while True:
            await self._wire.write(Ping())
            await asyncio.sleep(PING)
            if self._unspoken is not None and time.monotonic() > self._unspoken:
                self._listening, self._unspoken = False, None
                await self._wire.write(Error("Nothing was said.", "stt-no-text-recognized"))

    async def _hear(self) -> None:
        met = False
        while True:
            async with asyncio.timeout(GONE):
                event = await self._wire.read()
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
            await self._wire.write(Pong(event.data.get("text")))

    async def _run(self, run: _Run) -> None:
        """Listen, until a turn is over or for ever. Who leaves the wake word to us is listened to always."""
        if run.start_stage not in (PipelineStage.WAKE, PipelineStage.ASR):
            await self._wire.write(Error(f"Runs begin with wake or asr here, not {run.start_stage.value}.", "stage"))
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
        self._telling = asyncio.ensure_future(self._tell(self._link.outbox))
        self._spoken = spoken
        heard = {
            "format": {"type": "audio/pcm", "rate": SAMPLE_RATE},
            "transcription": {},
            "turn_detection": {"type": "server_vad", "interrupt_response": False},  # most hear their own loudspeaker
        }
        modalities = ["audio" if spoken else "text"]
        await self._send("session.update", session={"audio": {"input": heard}, "output_modalities": modalities})

    def _leave(self) -> None:
        if self._link is not None and self._telling is not None:
            self._link.session.leave()
            self._telling.cancel()
        self._link = self._telling = None

    async def _send(self, kind: str, **fields: Any) -> None:
        assert self._link is not None, "events are sent to a session that was begun"
        await self._link.send(msgspec.json.encode({"type": kind, **fields}).decode())

    async def _hear_sound(self, event: Event) -> None:
        form = data_of(event, PcmFormat)
        samples = form.samples(event.payload or b"")
        if not self._listening or (self._unasked and time.monotonic() < self._played):
            return
        if form != self._form:
            self._form, self._resampler = form, Resampler(form.rate, SAMPLE_RATE)
        await self._append(self._resampler(samples))

    async def _append(self, samples: Floats) -> None:
        pcm = pcm16(samples).tobytes()
        await self._send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    async def _stop(self) -> None:
        """It sends no more of this run: what was said is a turn."""
        if self._listening:
            await self._append(np.zeros(round(STOPPED * SAMPLE_RATE), np.float32))
            self._listening, self._unspoken = self._restart, None

    async def _tell(self, outbox: Outbox) -> None:
        """The session's events in the satellite's words."""
        with suppress(OSError, TimeoutError):  # the other side of the talk notices it as well
            while (event := await outbox.get()) is not None:
                for told in self._told(msgspec.json.decode(event)):
                    await self._wire.write(told)
        self._wire.close()  # the session cannot go on: another connection, another session

    def _told(self, event: dict[str, Any]) -> list[Eventable]:
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
