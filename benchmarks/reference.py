"""The reference implementation, `liquid-audio` in PyTorch, as a contender.

In: a checkpoint, a dtype and a number of threads. Out: its own modules, stage by stage, on the CPU. The codec is always
float32, as in the library. Mimi streams. The LFM detokenizer cannot stream in the library, so one frame is decoded by
itself. Run in the environment that `make golden` makes:

    python -m benchmarks.reference CHECKPOINT --dtype bfloat16 --threads 2
"""

from __future__ import annotations

import argparse
import copy
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_TORCH_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import torch

from benchmarks.protocol import Call, Contender, Json, Unsupported, serve
from tests.signals import SAMPLE_RATE, speech_like

INTERLEAVED = "Respond with interleaved text and audio."
CODEBOOKS, CODES, VOCABULARY = 8, 2048, 65536
SAMPLING: Json = {"temperature": 1.0, "top_k": 4}
CODEC_WARM_FRAMES = 5
STEPS = 200


class Reference(Contender):
    """One loaded checkpoint."""

    def __init__(self, checkpoint: Path, dtype: str, threads: int) -> None:
        from liquid_audio import LFM2AudioModel, LFM2AudioProcessor

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        self._dtype = getattr(torch, dtype)
        self._processor: Any = LFM2AudioProcessor.from_pretrained(checkpoint, device="cpu").eval()
        self._model: Any = LFM2AudioModel.from_pretrained(checkpoint, device="cpu", dtype=self._dtype).eval()
        self._decode_frames, self.codec_name = self._load_codec(checkpoint)
        self._cache: tuple[int, Any] | None = None

    def facts(self) -> Json:
        """What a step reads of the backbone, in bytes, and versions."""
        sizes = {name: p.numel() * p.element_size() for name, p in self._model.lfm.named_parameters()}
        head = sizes["embed_tokens.weight"]
        return {
            "bytes": sum(p.numel() * p.element_size() for p in self._model.parameters()),
            "read_per_step": {"step": sum(sizes.values()) - head, "step_with_head": sum(sizes.values())},
            "tools": {name: version(name) for name in ("liquid-audio", "torch", "transformers")},
            "codec": self.codec_name,
        }

    def decode(self, context: int, head: bool) -> Call:
        """One position after `context` of them, with or without text logits."""
        if self._cache is None or self._cache[0] != context:
            self._cache = (context, self._run(self._rows(context), None)[1])
        cache = copy.deepcopy(self._cache[1])
        token = self._rows(1)

        def step() -> None:
            hidden, _ = self._run(token, cache)
            if head:
                self._logits(hidden)

        return step

    def prefill(self, positions: int) -> Call:
        """A prompt of `positions` positions, and the logits after it."""
        rows = self._rows(positions)

        def run() -> None:
            self._logits(self._run(rows, None)[0])

        return run

    def frame(self) -> Call:
        """The depthformer: 8 codes, 80 ms of sound."""
        hidden = torch.randn(self._model.lfm.config.hidden_size).to(self._dtype)

        def run() -> None:
            self._model._sample_audio_frame(hidden, **SAMPLING)

        return run

    def encoder(self, seconds: float) -> Call:
        """Log-mel, encoder and adapter for `seconds` of sound."""
        wave = torch.from_numpy(speech_like(int(SAMPLE_RATE * seconds), 1))[None]

        def run() -> None:
            mel, _ = self._processor.audio(wave, torch.tensor([wave.shape[1]]))
            encoded, _ = self._model.conformer(mel.to(self._dtype), torch.tensor([mel.shape[2]]))
            self._model.audio_adapter(encoded.mT)

        return run

    def codec(self) -> Call:
        """One frame to sound."""
        for _ in range(CODEC_WARM_FRAMES):
            self._decode_frames(self._codes())
        codes = self._codes()

        def run() -> None:
            self._decode_frames(codes)

        return run

    def first_audio(self, seconds: float) -> Call:
        """From the end of a spoken question to the first sound of the answer."""
        from liquid_audio import ChatState

        wave = torch.from_numpy(speech_like(int(SAMPLE_RATE * seconds), 1))[None]

        def run() -> None:
            chat = ChatState(self._processor, dtype=self._dtype)
            chat.new_turn("system")
            chat.add_text(INTERLEAVED)
            chat.end_turn()
            chat.new_turn("user")
            chat.add_audio(wave, SAMPLE_RATE)
            chat.end_turn()
            chat.new_turn("assistant")
            sampling = {f"audio_{name}": value for name, value in SAMPLING.items()}
            for out in self._model.generate_interleaved(**chat, max_new_tokens=STEPS, **sampling):
                if out.numel() > 1 and int(out.max()) < CODES:
                    self._decode_frames(out[None, :, None])
                    return
            raise Unsupported("this model's answer ended before its first sound")

        return run

    def _run(self, rows: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
        out = self._model.lfm(inputs_embeds=rows, past_key_values=cache, use_cache=True)
        return out.last_hidden_state[0, -1], out.past_key_values

    def _logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden, self._model.lfm.embed_tokens.weight)

    def _rows(self, count: int) -> torch.Tensor:
        rows: torch.Tensor = self._model.lfm.embed_tokens(torch.randint(0, VOCABULARY, (1, count)))
        return rows

    def _codes(self) -> torch.Tensor:
        return torch.randint(0, CODES, (1, CODEBOOKS, 1))

    def _load_codec(self, checkpoint: Path) -> tuple[Callable[[torch.Tensor], torch.Tensor], str]:
        """What turns codes (1, 8, F) into sound, and its name."""
        if not (checkpoint / "audio_detokenizer").is_dir():
            mimi = self._processor.mimi.eval()
            mimi.streaming_forever(1)
            return mimi.decode, "mimi, streaming"
        return _detokenizer(checkpoint / "audio_detokenizer"), "detokenizer, one frame by itself"


def _detokenizer(folder: Path) -> Any:
    """The detokenizer, loaded as in the library, but on the CPU: the library always uses a GPU."""
    from liquid_audio.detokenizer import LFM2AudioDetokenizer
    from safetensors.torch import load_file
    from transformers import Lfm2Config

    config: Any = Lfm2Config.from_pretrained(folder / "config.json")
    config.layer_types = ["conv" if kind == "conv" else "full_attention" for kind in config.layer_types]
    detokenizer = LFM2AudioDetokenizer(config).eval()
    detokenizer.load_state_dict(load_file(folder / "model.safetensors"))
    return detokenizer


def main() -> None:
    """Serve one checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    serve(lambda: Reference(args.model, args.dtype, args.threads))


if __name__ == "__main__":
    main()
