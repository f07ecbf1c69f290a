"""Hearing: a waveform to one embedding per 80 ms, as a whole or, where the encoder can, as it comes."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.log_mel import LogMel, LogMelConfig, MelStream
from voxrill.runtime.bundle.contract import EncoderSpec, present_name
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.errors import AudioFileError

Floats = NDArray[np.float32]

PIECE_ROWS = 128
"""Embeddings of one call of an encoder with state, about 10 s of sound. It bounds the memory of a call."""


class AudioEncoder:
    """Log-mel in numpy, then the encoder graph.

    Args:
        graph: the audio encoder.
        config: the features it was trained on.
        times: where the log-mel's time is added.
        frames: log-mel frames of a fixed-shape (npu) graph; None for any length.
        spec: its sizes; None for one that takes every sound as a whole.
    """

    def __init__(
        self,
        graph: Graph,
        config: LogMelConfig,
        times: StageTimes,
        frames: int | None,
        spec: EncoderSpec | None = None,
    ) -> None:
        self.graph = graph
        self.log_mel = config
        self.times = times
        self.frames = frames
        self.spec = spec
        self._log_mel = LogMel(config)
        self.sample_rate = config.sample_rate

    @property
    def streams(self) -> bool:
        """Whether a sound can be encoded as it comes."""
        return self.spec is not None and bool(self.spec.streaming) and self.log_mel.streams

    def stream(self, rows: int = PIECE_ROWS) -> EncoderStream:
        """A new sound, to be encoded as it comes, at most so many embeddings a call; only where `streams` is true."""
        assert self.spec is not None
        return EncoderStream(self, self.spec, rows)

    def encode(self, waveform: Floats) -> Floats:
        """Embeddings (ceil(frames / 8), hidden) of `waveform` (samples,) at `sample_rate`.

        Raises:
            AudioFileError: no samples, samples that are not finite, or more than a fixed-shape encoder takes.
        """
        with self.times.measure("log_mel"):
            mel = self._log_mel(waveform)
        return self.embed(mel)

    def embed(self, mel: Floats) -> Floats:
        """Embeddings (ceil(frames / 8), hidden) of a log-mel spectrogram (frames, features).

        Raises:
            AudioFileError: more frames than a fixed-shape encoder takes.
        """
        if self.spec is not None and self.spec.streaming:
            stream = EncoderStream(self, self.spec)
            return np.concatenate([stream.embed(mel), stream.flush()])
        length = len(mel)
        if self.frames is not None:
            if length > self.frames:
                raise AudioFileError(
                    f"the sound has {length} log-mel frames; this npu bundle's encoder takes {self.frames}",
                    "Cut it up, or export with more --mel-frames",
                )
            mel = np.pad(mel, ((0, self.frames - length), (0, 0)))
        outputs = self.graph.run({"mel_spectrogram": mel[None], "mel_lengths": np.array([length], np.int64)})
        embeddings: Floats = outputs["audio_embeddings"][0, : int(outputs["audio_lengths"][0])]
        return embeddings


class EncoderStream:
    """One sound on its way through an encoder with state. Made by `AudioEncoder.stream`.

    An embedding is computed when all its frames have come. At the end of a sound at most one is left to compute.
    """

    def __init__(self, encoder: AudioEncoder, spec: EncoderSpec, rows: int = PIECE_ROWS) -> None:
        self._encoder, self._spec, self._rows = encoder, spec, rows
        self._mel = MelStream(encoder.log_mel) if encoder.log_mel.streams else None
        self._state = {t.name: np.zeros([int(size) for size in t.shape], np.float32) for t in spec.streaming}
        self._frames = np.zeros((0, encoder.log_mel.features), np.float32)
        self._offset = 0

    def fork(self) -> EncoderStream:
        """A second stream that stands where this one does: to end the sound here, and perhaps go on after all."""
        forked = copy(self)
        forked._mel = copy(self._mel)  # all that they hold is replaced, and never changed
        return forked

    def push(self, samples: Floats) -> Floats:
        """The embeddings (n, hidden) that are complete with `samples` (m,); none may be."""
        assert self._mel is not None
        with self._encoder.times.measure("log_mel"):
            mel = self._mel.push(samples)
        return self.embed(mel)

    def embed(self, mel: Floats) -> Floats:
        """The embeddings (n, hidden) that are complete with the log-mel frames `mel` (m, features)."""
        self._frames = np.concatenate([self._frames, mel])
        # A call of fixed shapes is made when it is full: what follows padding has no state.
        unit = self._encoder.frames or self._spec.subsampling
        whole = len(self._frames) // unit * unit
        ready, self._frames = self._frames[:whole], self._frames[whole:]
        return self._run(ready)

    def flush(self) -> Floats:
        """The last embedding, if frames or samples are left for one. The sound has ended."""
        if self._mel is not None:
            with self._encoder.times.measure("log_mel"):
                self._frames = np.concatenate([self._frames, self._mel.flush()])
        return self._run(self._frames)

    def _run(self, mel: Floats) -> Floats:
        width = self._encoder.frames or self._rows * self._spec.subsampling
        rows = [self._call(mel[start : start + width]) for start in range(0, len(mel), width)]
        hidden = int(self._encoder.graph.spec.outputs[0].shape[2])
        return np.concatenate(rows) if rows else np.zeros((0, hidden), np.float32)

    def _call(self, mel: Floats) -> Floats:
        length, fixed = len(mel), self._encoder.frames
        if fixed is not None:
            mel = np.pad(mel, ((0, fixed - length), (0, 0)))
        outputs = self._encoder.graph.run(
            {
                "mel_spectrogram": mel[None],
                "mel_lengths": np.array([length], np.int64),
                "offset": np.array([self._offset], np.int64),
                **self._state,
            }
        )
        self._state = {name: outputs[present_name(name)] for name in self._state}
        rows: Floats = outputs["audio_embeddings"][0, : int(outputs["audio_lengths"][0])]
        self._offset += len(rows)
        return rows
