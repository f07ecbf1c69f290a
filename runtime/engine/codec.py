"""Speaking, second half: frames of codes to sound, as a stream.

In: codes (codebooks, F). Out: samples as soon as they are final. A codec is a graph with explicit state. The manifest's
`CodecSpec` says what else it needs (the overlap-add of the LFM detokenizer).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxrill.runtime.bundle.contract import PAST_OVERLAP, AudioCodesSpec, CodecSpec, present_name
from voxrill.runtime.engine.istft import Ends, OverlapAdd
from voxrill.runtime.engine.session import Graph

Floats = NDArray[np.float32]
Codes = NDArray[np.int64]

CHUNK_FRAMES = 25
"""Frames of one call at most: 2 s of sound. It bounds the memory of a call."""


class Codec:
    """Decodes streams of frames; one sound at a time per `CodecStream`.

    Args:
        graph: the codec's graph.
        spec: its entry in the manifest.
        codes: the audio vocabulary.
        frames: frames of a fixed-shape (npu) call; None for any number.
    """

    def __init__(self, graph: Graph, spec: CodecSpec, codes: AudioCodesSpec, frames: int | None) -> None:
        self.graph = graph
        self.spec = spec
        self._codes = codes
        self.chunk = frames or CHUNK_FRAMES

    def stream(self) -> CodecStream:
        """A new sound."""
        return CodecStream(self)

    def decodes(self, codes: Codes) -> bool:
        """Whether a frame (codebooks,) is sound: every code is below the end-of-audio code."""
        return bool(codes.min() >= 0 and codes.max() < self._codes.end_of_audio)

    def decode(self, codes: Codes) -> Floats:
        """The samples (F * frame_samples,) of a whole sound, from its codes (codebooks, F)."""
        stream = self.stream()
        return np.concatenate([stream.push(codes), stream.flush()])


class CodecStream:
    """The state of one sound."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._offset = 0
        state = codec.graph.spec.state
        self._state = {t.name: np.zeros([int(size) for size in t.shape], np.float32) for t in state}
        self._overlap, self._ends = None, None
        if PAST_OVERLAP in self._state:
            self._ends = Ends(codec.spec.n_fft, codec.spec.hop)
        elif codec.spec.hop:
            self._overlap = OverlapAdd(codec.spec.n_fft, codec.spec.hop)

    def push(self, codes: Codes) -> Floats:
        """The samples that are final with these codes (codebooks, F); every frame must be sound (`Codec.decodes`)."""
        chunks = [
            self._call(codes[:, start : start + self._codec.chunk])
            for start in range(0, codes.shape[1], self._codec.chunk)
        ]
        return np.concatenate(chunks) if chunks else np.zeros(0, np.float32)

    def flush(self) -> Floats:
        """The last samples, which waited for more frames."""
        if self._ends:
            return self._ends.flush(self._state[PAST_OVERLAP][0])
        return self._overlap.flush() if self._overlap else np.zeros(0, np.float32)

    def _call(self, codes: Codes) -> Floats:
        outputs = self._codec.graph.run(
            {
                "audio_codes": codes[None],
                "offset": np.array([self._offset], np.int64),
                **self._state,
            }
        )
        self._offset += codes.shape[1]
        self._state = {name: outputs[present_name(name)] for name in self._state}
        sound: Floats = outputs[self._codec.graph.spec.outputs[0].name][0]
        stage = self._overlap or self._ends
        return stage.push(sound) if stage else sound
