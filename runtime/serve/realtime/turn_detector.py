"""The user's sound: bytes as the client sends them in, what the user does out.

With turn detection a listener follows the sound block by block, as in the live loop. Without, the sound is kept until
the client says that the turn is over. Used by one thread at a time.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.audio.endpointing import Endpointer
from voxrill.runtime.audio.live_voice import LiveVoice
from voxrill.runtime.audio.protocols import BLOCK, BLOCK_SECONDS, RATE, Block, Floats
from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.realtime.settings import Settings, TurnDetection
from voxrill.runtime.serve.realtime.sound_format import SoundIn
from voxrill.runtime.talk.floor import Floor
from voxrill.runtime.talk.listener import Listener, Signal, Utterance, WakeChange

_SHORTEST = 0.1
"""Seconds of sound that a turn must have, as at OpenAI's server."""

_EMPTY = "input_audio_buffer_commit_empty"

_NOTHING = np.zeros(0, np.float32)


class TurnDetector:
    """Listens to one client.

    Args:
        settings: how the client sends sound, and who ends turns: the server or the client.
        floor: see `Listener`.
        post: takes each signal.
        cut: what the model hears of a turn that the client cut out, (n,) at 16 kHz; the listener's own are cut already.
        judge: says at a pause whether a turn of `semantic_vad` is over; None where silence alone decides.
        streams: whether to post what the user says while it is said; see `Listener`.
    """

    def __init__(
        self,
        settings: Settings,
        floor: Floor,
        post: Callable[[Signal | WakeChange], None],
        cut: Callable[[Floats], Floats],
        judge: PauseJudge | None = None,
        streams: Callable[[], bool] = lambda: False,
    ) -> None:
        self._streams = streams
        self._floor = floor
        self._post = post
        self._cut = cut
        self._judge = judge
        self._at = 0  # samples that went to the listener since the session began
        self.seconds = 0.0  # of all sound that the client sent
        self._settings: Settings | None = None
        self.change(settings)

    @property
    def first(self) -> int:
        """The turn's first voiced block."""
        return self._since + self._endpointer.first

    @property
    def last(self) -> int:
        """The turn's last voiced block."""
        return self._since + self._endpointer.last

    def milliseconds(self, block: int) -> int:
        """When a block began, in milliseconds since the session did."""
        return round(1000 * block * BLOCK_SECONDS)

    def change(self, settings: Settings) -> None:
        """Use other settings from now on. What is the same in both goes on undisturbed."""
        old, self._settings = self._settings, settings
        if old is None or old.heard != settings.heard:
            self._sound = SoundIn(settings.heard)
        if old is None or old.detection != settings.detection:
            self._listen(settings)

    def _listen(self, settings: Settings) -> None:
        detection = settings.detection
        self._by_hand = detection is None
        self._since = self._at // BLOCK  # the endpointer counts blocks from its own beginning
        self._endpointer = Endpointer(settings.endpoint)
        detection = detection or TurnDetection()
        self._listener = Listener(
            LiveVoice(),
            self._endpointer,
            self._floor,
            self._post,
            barge_in=detection.interrupt_response,
            before=detection.before / 1000,
            judge=self._judge if detection.type == "semantic_vad" else None,
            streams=self._streams,
        )
        self.clear()

    def clear(self) -> None:
        """Forget the sound of the open turn."""
        self._left = _NOTHING
        self._empty()
        self._sound.rest()  # and drop it
        self._endpointer.reset()

    def _empty(self) -> None:
        # The worker's thread may still read what was kept: it gets other memory, and is never written over.
        most = self._endpointer.options.longest * RATE if self._by_hand else 0
        self._kept, self._length = np.empty(round(most), np.float32), 0

    @property
    def kept(self) -> Floats | None:
        """What there is of a turn that the client ends, (n,) at 16 kHz; None where the server ends turns."""
        return self._kept[: self._length] if self._by_hand else None

    def append(self, pcm: bytes) -> None:
        """Take the next sound in the client's format; its last sample may come in two parts.

        Raises:
            ApiError: the turn grows too long.
        """
        samples = self._sound(pcm)
        self.seconds += len(samples) / RATE
        if self._by_hand:
            self._keep(samples)
        else:
            self._hear(samples)

    def _hear(self, samples: Floats) -> None:
        # The listener takes blocks of 512 samples: the rest waits for the next append.
        waiting = np.concatenate([self._left, samples])
        whole = len(waiting) // BLOCK * BLOCK
        self._left = waiting[whole:]
        for block in waiting[:whole].reshape(-1, BLOCK):
            self._listener.hear(Block(block, self._at, time.perf_counter()))
            self._at += BLOCK

    def _keep(self, samples: Floats) -> None:
        longest, end = self._endpointer.options.longest, self._length + len(samples)
        if end > len(self._kept):
            raise ApiError(400, f"A turn lasts {longest:g} seconds at most. Commit or clear it.", "audio_too_long")
        self._kept[self._length : end] = samples
        self._length = end

    def commit(self) -> Utterance | None:
        """End the turn here. Returns it if the client ends turns; otherwise the listener has posted its end.

        Raises:
            ApiError: there is too little sound, or nobody speaks in it.
        """
        rest = self._sound.rest()
        if self._by_hand:
            whole = np.concatenate([self._kept[: self._length], rest])
            self._empty()
            return self._utterance(whole)
        waiting = len(self._left) + len(rest)
        self._hear(np.concatenate([rest, np.zeros(-waiting % BLOCK, np.float32)]))
        if not self._listener.end():
            raise ApiError(400, "Nobody has spoken since the last turn: there is nothing to commit.", _EMPTY)
        return None

    def whole(self, pcm: bytes) -> Utterance:
        """A turn that comes in one piece.

        Raises:
            ApiError: it is too short.
        """
        assert self._settings is not None
        sound = SoundIn(self._settings.heard)
        return self._utterance(np.concatenate([sound(pcm), sound.rest()]))

    def _utterance(self, samples: Floats) -> Utterance:
        if len(samples) < _SHORTEST * RATE:
            raise ApiError(400, f"A turn needs {_SHORTEST:g} seconds of sound at least.", _EMPTY)
        return Utterance(self._cut(samples), 0, len(samples), time.perf_counter())
