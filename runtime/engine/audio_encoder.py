"""Hearing: a waveform to one embedding per 80 ms."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.audio.log_mel import LogMel, LogMelConfig
from voxrill.runtime.engine.session import Graph
from voxrill.runtime.engine.stats import StageTimes
from voxrill.runtime.errors import AudioFileError

Floats = NDArray[np.float32]


class AudioEncoder:
    """Log-mel in numpy, then the encoder graph.

    Args:
        graph: the audio encoder.
        config: the features it was trained on.
        times: where the log-mel's time is added.
        frames: log-mel frames of a fixed-shape (npu) graph; None for any length.
    """

    def __init__(self, graph: Graph, config: LogMelConfig, times: StageTimes, frames: int | None) -> None:
        self._graph = graph
        self._log_mel = LogMel(config)
        self._times = times
        self._frames = frames
        self.sample_rate = config.sample_rate

    def encode(self, waveform: Floats) -> Floats:
        """Embeddings (ceil(frames / 8), hidden) of `waveform` (samples,) at `sample_rate`.

        Raises:
            AudioFileError: no samples, samples that are not finite, or more than a fixed-shape encoder takes.
        """
        with self._times.measure("log_mel"):
            mel = self._log_mel(waveform)
        return self.embed(mel)

    def embed(self, mel: Floats) -> Floats:
        """Embeddings (ceil(frames / 8), hidden) of a log-mel spectrogram (frames, features).

        Raises:
            AudioFileError: more frames than a fixed-shape encoder takes.
        """
        length = len(mel)
        if self._frames is not None:
            if length > self._frames:
                raise AudioFileError(
                    f"the sound has {length} log-mel frames; this npu bundle's encoder takes {self._frames}",
                    "Cut it up, or export with more --mel-frames",
                )
            mel = np.pad(mel, ((0, self._frames - length), (0, 0)))
        outputs = self._graph.run({"mel_spectrogram": mel[None], "mel_lengths": np.array([length], np.int64)})
        embeddings: Floats = outputs["audio_embeddings"][0, : int(outputs["audio_lengths"][0])]
        return embeddings
