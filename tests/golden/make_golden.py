"""Golden outputs of the reference implementation on the tiny random checkpoints.

In: nothing but the reference (``liquid-audio``; see README.md here for its environment) and the makers
``tests.checkpoints``, ``tests.signals``. Out: ``tests/golden/lfm2.npz`` and ``tests/golden/lfm2.5.npz``.

Why: the reference is too heavy for every test run, so what it says is stored once, with what is needed to
redo every case: the ``meta`` entry lists all cases as JSON. Run from the repository root::

    python tests/golden/make_golden.py              # write the files
    python tests/golden/make_golden.py --search 8   # only print what candidate streams contain
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("NO_TORCH_COMPILE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[2]))

from liquid_audio import ChatState, LFM2AudioModel, LFM2AudioProcessor
from liquid_audio.detokenizer import LFM2AudioDetokenizer
from liquid_audio.model.conformer import encoder as conformer_encoder
from liquid_audio.moshi.models import loaders
from safetensors.torch import load_file
from transformers import Lfm2Config

from tests import checkpoints, signals

# liquid-audio 1.3.0 forgets this import, so that a checkpoint with xscaling (no published one) fails to load.
conformer_encoder.math = math

SEED = 0
TEXT, AUDIO_IN, AUDIO_OUT = 1, 2, 3
IM_END, AUDIO_START, TEXT_END, END_OF_AUDIO = 7, 128, 130, 2048
MEL_LENGTHS = (1, 159, 160, 161, 319, 320, 16000, 16001, 64123, 960000)
LONG = 960000  # of these 60 s only every 40th mel frame and every 10th embedding is stored
TOP = 16

ASR = "Perform ASR."
TTS = "Perform TTS. Use the UK male voice."
INTERLEAVED = "Respond with interleaved text and audio."

Json = dict[str, Any]


# ----------------------------------------------------------------------------------------------------------
# Cases (all of this goes into the meta entry)


def text(value: str) -> Json:
    """Return a text part of a turn."""
    return {"text": value}


def sound(samples: int, seed: int) -> Json:
    """Return an audio-in part: ``signals.speech_like(samples, seed)`` at 16 kHz."""
    return {"audio": {"samples": samples, "seed": seed}}


def reply(tokens: list[int], codes: list[list[int]], modality: list[int]) -> Json:
    """Return an assistant's earlier output: text tokens, frames [frames][8], and 1 or 3 for each step."""
    return {"reply": {"text": tokens, "codes": codes, "modality": modality}}


def turn(role: str, *parts: Json) -> Json:
    """Return one closed turn."""
    return {"role": role, "parts": list(parts)}


def frames(count: int, seed: int) -> list[list[int]]:
    """Return ``count`` made-up frames of 8 codes."""
    return signals.codes(count, seed).T.tolist()


def history() -> list[Json]:
    """Return turns with two sounds of different length and an interleaved reply in between."""
    tokens = [300, 400, 350, 513, 260, 511, TEXT_END]
    codes = [*frames(14, 21), [END_OF_AUDIO] * 8]
    modality = [TEXT] * 6 + [AUDIO_OUT] * 12 + [TEXT] + [AUDIO_OUT] * 3
    return [
        turn("system", text(INTERLEAVED)),
        turn("user", sound(24000, 11)),
        turn("assistant", reply(tokens, codes, modality)),
        turn("user", text("And this? "), sound(17171, 12)),
    ]


PREFILLS: dict[str, list[Json]] = {
    "text": [turn("system", text("You are a helpful voice.")), turn("user", text("Where is the station?"))],
    "audio": [turn("system", text(ASR)), turn("user", sound(48000, 1))],
    "text_audio": [turn("system", text(INTERLEAVED)), turn("user", text("Listen:"), sound(33333, 2))],
    "history": history(),
}

# After a prefill these are fed one by one: an int is a text token, a list a frame of 8 codes.
FORCED: dict[str, Json] = {
    "text": {
        "prefill": "text",
        "steps": [
            *(300, 512, AUDIO_START),
            *frames(5, 31),
            [END_OF_AUDIO] * 8,
            *(301, 265),
            *frames(2, 32),
            [7, 8, 9, END_OF_AUDIO, 11, 12, END_OF_AUDIO, 14],
            *(TEXT_END, IM_END, 266),
        ],
    },
    "audio": {
        "prefill": "audio",
        "steps": [*(260, 261, 262, 263, 264, 265), *frames(12, 33), *(370, 371, TEXT_END), *frames(20, 34)],
    },
}
FULL_FRAMES = (0, 1, 5)  # frames of a forced sequence whose logits are stored whole

QUESTIONS = (
    "What is your name?",
    "Tell me a story about the sea.",
    "How far is the moon?",
    "Please count to ten.",
    "Which way to the station?",
    "Is it raining in Oslo?",
    "Name three green things.",
    "Say something kind.",
)

# The stored streams: route, mode, candidate number (see candidates()), limit of steps. They were picked with
# --search so that together they contain every way of changing mode and of ending, without near-ties.
STREAMS: dict[str, list[tuple[str, str, int, int]]] = {
    "lfm2": [
        ("text->text", "sequential", 5, 100),
        ("text->text", "sequential", 6, 110),
        ("text->text", "interleaved", 5, 110),
        ("text->speech", "sequential", 3, 100),
        ("text->speech", "sequential", 6, 100),
        ("text->speech", "interleaved", 6, 100),
        ("speech->text", "sequential", 1, 100),
        ("speech->text", "sequential", 5, 100),
        ("speech->text", "interleaved", 1, 100),
        ("speech->speech", "sequential", 1, 100),
        ("speech->speech", "interleaved", 0, 100),
        ("speech->speech", "interleaved", 6, 100),
        ("speech+text->text", "sequential", 5, 100),
        ("speech+text->text", "interleaved", 7, 110),
        ("speech+text->speech", "sequential", 1, 80),
        ("speech+text->speech", "interleaved", 1, 100),
        ("speech+text->speech", "interleaved", 4, 110),
    ],
    "lfm2.5": [
        ("text->text", "sequential", 5, 100),
        ("text->text", "sequential", 7, 100),
        ("text->text", "interleaved", 5, 100),
        ("text->speech", "sequential", 4, 100),
        ("text->speech", "sequential", 7, 100),
        ("text->speech", "interleaved", 5, 100),
        ("speech->text", "sequential", 7, 100),
        ("speech->text", "sequential", 4, 100),
        ("speech->text", "interleaved", 2, 100),
        ("speech->speech", "sequential", 2, 110),
        ("speech->speech", "interleaved", 0, 100),
        ("speech->speech", "interleaved", 6, 100),
        ("speech+text->text", "sequential", 4, 100),
        ("speech+text->text", "sequential", 5, 110),
        ("speech+text->text", "interleaved", 5, 100),
        ("speech+text->speech", "sequential", 5, 40),
        ("speech+text->speech", "interleaved", 3, 100),
        ("speech->speech", "interleaved", 4, 100),
        ("speech+text->speech", "interleaved", 7, 100),
    ],
}
# Two-turn conversations, interleaved: route and candidate of the first turn, limit of steps of each turn.
CONVERSATIONS: dict[str, list[tuple[str, int, int]]] = {
    "lfm2": [("speech->speech", 5, 80), ("speech+text->speech", 7, 80), ("text->speech", 0, 40)],
    "lfm2.5": [
        ("speech+text->text", 5, 70),
        ("speech+text->speech", 6, 70),
        ("text->speech", 7, 70),
        ("speech->text", 0, 20),
    ],
}


def candidates(route: str) -> Iterator[list[Json]]:
    """Yield prompts of a route such as ``text->speech``, in a fixed order."""
    source, target = route.split("->")
    for index, question in enumerate(QUESTIONS * 4):
        samples = 16000 + 4321 * (index % 7)
        if target == "speech":
            system = TTS if source == "text" else INTERLEAVED
        else:
            system = ASR if source == "speech" else "Answer in writing."
        parts = {
            "text": [text(question if index < len(QUESTIONS) else f"{question} ({index})")],
            "speech": [sound(samples, 100 + index)],
            "speech+text": [text(question + " "), sound(samples, 200 + index)],
        }[source]
        yield [turn("system", text(system)), turn("user", *parts)]


ROUTES = tuple(f"{source}->{target}" for source in ("text", "speech", "speech+text") for target in ("text", "speech"))


# ----------------------------------------------------------------------------------------------------------
# The reference


class Reference:
    """The reference model, processor and detokenizer of one tiny checkpoint, float32 on the CPU."""

    def __init__(self, directory: Path, family: str) -> None:
        self.family, self.directory = family, directory
        self.processor = LFM2AudioProcessor.from_pretrained(directory, device="cpu").eval()
        self.model = LFM2AudioModel.from_pretrained(directory, device="cpu", dtype=torch.float32).eval()
        self.text_margins: list[float] = []
        self.audio_margins: list[float] = []
        self.text_choices: list[int] = []

    def mel(self, samples: int, seed: int) -> torch.Tensor:
        """Return the log-mel [128, frames] of a test waveform."""
        wave = torch.from_numpy(signals.speech_like(samples, seed))[None]
        return self.processor.audio(wave, torch.tensor([samples]))[0][0]

    def encode(self, mel: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return conformer output and adapter output, each [embeddings, dim], of one log-mel."""
        encoded, length = self.model.conformer(mel[None], torch.tensor([mel.shape[1]]))
        encoded = encoded[0].T[: int(length[0])]
        return encoded, self.model.audio_adapter(encoded)

    def chat(self, turns: list[Json]) -> ChatState:
        """Return the chat of the given closed turns, with the assistant's turn opened."""
        chat = ChatState(self.processor, dtype=torch.float32)
        for item in turns:
            self.add_turn(chat, item)
        chat.new_turn("assistant")
        return chat

    def add_turn(self, chat: ChatState, item: Json) -> None:
        """Append one closed turn to a chat."""
        chat.new_turn(item["role"])
        for part in item["parts"]:
            if "text" in part:
                chat.add_text(part["text"])
            elif "audio" in part:
                wave = signals.speech_like(part["audio"]["samples"], part["audio"]["seed"])
                chat.add_audio(torch.from_numpy(wave)[None], signals.SAMPLE_RATE)
            else:
                self.append(chat, **part["reply"])
        chat.end_turn()

    @staticmethod
    def append(chat: ChatState, text: list[int], codes: list[list[int]], modality: list[int]) -> None:
        """Append generated output to a chat as the library's README does."""
        chat.append(
            text=torch.tensor([text], dtype=torch.long),
            audio_out=torch.tensor(codes, dtype=torch.long).T.reshape(8, -1),
            modality_flag=torch.tensor(modality),
        )

    def embed(self, step: int | list[int]) -> torch.Tensor:
        """Return the backbone's input [1, 1, dim] for a text token or a frame of 8 codes."""
        if isinstance(step, int):
            return self.model.lfm.embed_tokens(torch.tensor([[step]]))
        rows = torch.tensor(step) + self.model.codebook_offsets
        return self.model.audio_embedding(rows).sum(0)[None, None]

    def text_logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return text logits [vocabulary] of a hidden state [dim]."""
        return torch.nn.functional.linear(hidden, self.model.lfm.embed_tokens.weight)

    def frame_logits(self, hidden: torch.Tensor, codes: list[int]) -> torch.Tensor:
        """Return the depthformer's logits [8, 2049] for a hidden state [dim], given the codes before each."""
        model = self.model
        inputs = model.depth_linear(hidden).view(8, -1)
        state, rows = None, []
        for index in range(8):
            step = inputs[index]
            if index:
                step = step + model.depth_embeddings[index - 1](torch.tensor(codes[index - 1]))
            out, state = model.depthformer.forward_cached(step[None, None], state)
            rows.append(model.depth_embeddings[index].get_logits(out[0, 0]))
        return torch.stack(rows)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note choice and margin (best minus second-best logit) of everything sampled meanwhile."""
        model = self.model
        self.text_margins, self.audio_margins, self.text_choices = [], [], []

        def margin(logits: torch.Tensor) -> float:
            best = logits.topk(2).values
            return float(best[0] - best[1])

        def sample_text(logits: torch.Tensor, **options: Any) -> torch.Tensor:
            self.text_margins.append(margin(logits))
            token = type(model)._sample_text_token(model, logits, **options)
            self.text_choices.append(int(token))
            return token

        def watch(module: Any) -> Any:
            def get_logits(hidden: torch.Tensor) -> torch.Tensor:
                logits = type(module).get_logits(module, hidden)
                self.audio_margins.append(margin(logits))
                return logits

            return get_logits

        model._sample_text_token = sample_text
        for module in model.depth_embeddings:
            module.get_logits = watch(module)
        try:
            yield
        finally:
            del model._sample_text_token
            for module in model.depth_embeddings:
                del module.get_logits

    def stream(self, chat: ChatState, mode: str, limit: int) -> dict[str, np.ndarray]:
        """Generate greedily; return tokens, codes, modality, margins (see README.md)."""
        generate = getattr(self.model, f"generate_{mode}")
        tokens, codes, modality = [], [], []
        with self.watching():
            for out in generate(**chat, max_new_tokens=limit):
                if out.numel() == 1:
                    tokens.append(int(out))
                    modality.append(TEXT)
                else:
                    codes.append(out.tolist())
                    modality.append(AUDIO_OUT)
        return {
            "text": np.array(tokens, dtype=np.int64),
            "codes": np.array(codes, dtype=np.int64).reshape(-1, 8),
            "modality": np.array(modality, dtype=np.int64),
            "text_choices": np.array(self.text_choices, dtype=np.int64),
            "text_margins": np.array(self.text_margins, dtype=np.float32),
            "audio_margins": np.array(self.audio_margins, dtype=np.float32).reshape(-1, 8),
        }

    def detokenizer(self) -> LFM2AudioDetokenizer:
        """Load the detokenizer of LFM2.5 on the CPU (the library's own loader insists on CUDA)."""
        config = Lfm2Config.from_pretrained(self.directory / "audio_detokenizer" / "config.json")
        config.layer_types = ["conv" if kind == "conv" else "full_attention" for kind in config.layer_types]
        detokenizer = LFM2AudioDetokenizer(config).eval()
        detokenizer.load_state_dict(load_file(self.directory / checkpoints.DETOKENIZER_FILE), strict=True)
        return detokenizer.float()

    def mimi(self) -> Any:
        """Load the tiny Mimi, after telling the library's loader about its widths."""
        sizes = checkpoints.mimi_sizes("tiny")
        dim = sizes["dim"]
        loaders._seanet_kwargs.update(n_filters=sizes["filters"], dimension=dim)
        loaders._transformer_kwargs.update(
            d_model=dim,
            num_heads=sizes["heads"],
            num_layers=sizes["layers"],
            dim_feedforward=sizes["ff"],
            input_dimension=dim,
            output_dimensions=[dim],
        )
        loaders._quantizer_kwargs.update(dimension=sizes["codebook_dim"], input_dimension=dim, output_dimension=dim)
        return self.processor.mimi


# ----------------------------------------------------------------------------------------------------------
# What streams contain


def features(stream: dict[str, np.ndarray], mode: str) -> Json:
    """Return what a stream contains, as counts and flags for the summary and the meta entry."""
    tokens, codes = stream["text"].tolist(), stream["codes"]
    modality = "".join(("a" if flag == AUDIO_OUT else "t") for flag in stream["modality"])
    runs = " ".join(f"{kind}{len(list(group))}" for kind, group in itertools.groupby(modality))
    ended = bool(len(stream["text_choices"]) and stream["text_choices"][-1] == IM_END)
    found: Json = {
        "runs": runs,
        "end": "im_end" if ended else "limit",
        "steps": len(modality),
        "audio_start": tokens.count(AUDIO_START),
        "text_end": tokens.count(TEXT_END),
        "end_of_audio": int((codes[:, 0] == END_OF_AUDIO).sum()),
        "stray_2048": int(((codes[:, 0] != END_OF_AUDIO)[:, None] & (codes[:, 1:] == END_OF_AUDIO)).sum()),
        "smallest_text_margin": round(float(stream["text_margins"].min(initial=9.0)), 5),
        "smallest_audio_margin": round(float(stream["audio_margins"].min(initial=9.0)), 5),
    }
    interleaved = mode == "interleaved"
    found["returns_after_text_end"] = interleaved and _returns(stream)
    found["closes"] = interleaved and ended and found["text_end"] > 0 and modality.endswith("a")
    return found


def _returns(stream: dict[str, np.ndarray]) -> bool:
    """Tell whether text follows text_end and an end-of-audio frame (then the reference returns to audio)."""
    done, closed, at_text, at_frame = False, False, 0, 0
    for flag in stream["modality"]:
        if flag == TEXT:
            if done and closed:
                return True
            done = done or stream["text"][at_text] == TEXT_END
            at_text += 1
        else:
            closed = done and stream["codes"][at_frame, 0] == END_OF_AUDIO
            at_frame += 1
    return False


def search(reference: Reference, count: int, limit: int, modes: list[str]) -> None:
    """Print the features of candidate streams."""
    for route, mode in itertools.product(ROUTES, modes):
        for index, turns in enumerate(itertools.islice(candidates(route), count)):
            stream = reference.stream(reference.chat(turns), mode, limit)
            found = {key: value for key, value in features(stream, mode).items() if value}
            print(route, mode, index, found, flush=True)


# ----------------------------------------------------------------------------------------------------------
# Golden outputs


class Golden:
    """Arrays and cases of one family, gathered before they are written."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        self.arrays: dict[str, np.ndarray] = {}
        files = checkpoints.plan(reference.family, "tiny")
        self.meta: Json = {
            "family": reference.family,
            "checkpoint": {
                "size": "tiny",
                "seed": SEED,
                "dtype": "float32",
                "fingerprints": {name: checkpoints.fingerprint(reference.directory / name) for name in files},
            },
            "versions": {name: version(name) for name in ("liquid-audio", "torch", "transformers", "numpy")},
        }

    def put(self, name: str, value: Any) -> None:
        """Store one array: floats as float32, integers as int32."""
        array = value.detach().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
        kind = np.float32 if array.dtype.kind == "f" else np.int32
        self.arrays[name] = np.ascontiguousarray(array, dtype=kind)

    def sounds(self) -> None:
        """Log-mel, conformer output and adapter output of waveforms of many lengths."""
        cases = self.meta["sounds"] = []
        for samples in MEL_LENGTHS:
            seed = samples % 97
            mel = self.reference.mel(samples, seed)
            conformer, adapter = self.reference.encode(mel)
            at_mel, at_embedding = list(range(mel.shape[1])), list(range(len(adapter)))
            if samples == LONG:
                at_mel = sorted({*at_mel[::40], *at_mel[-3:]})
                at_embedding = sorted({*at_embedding[::10], *at_embedding[-3:]})
            name = f"sound/{samples}"
            self.put(f"{name}/mel", mel[:, at_mel])
            self.put(f"{name}/mel_index", at_mel)
            self.put(f"{name}/conformer", conformer[at_embedding])
            self.put(f"{name}/embeddings", adapter[at_embedding])
            self.put(f"{name}/embeddings_index", at_embedding)
            case = {"name": name, "samples": samples, "seed": seed}
            cases.append({**case, "mel_frames": mel.shape[1], "embeddings": len(adapter)})

    def prompt(self, name: str, chat: ChatState) -> torch.Tensor:
        """Store a chat's text tokens and modality; return its assembled embeddings [1, positions, dim]."""
        self.put(f"{name}/text", chat.text[0])
        self.put(f"{name}/modality", chat.modality_flag[0])
        return self.reference.model._prefill(**chat)

    def prefills(self) -> None:
        """Assembled prompts: embeddings, hidden states, text logits of the last position."""
        cases = self.meta["prefills"] = []
        for case, turns in PREFILLS.items():
            name, chat = f"prefill/{case}", self.reference.chat(turns)
            inputs = self.prompt(name, chat)
            self.put(f"{name}/audio_in_lens", chat.audio_in_lens)
            self.put(f"{name}/audio_out", chat.audio_out)
            hidden = self.reference.model.lfm(inputs_embeds=inputs, use_cache=False).last_hidden_state[0]
            self.put(f"{name}/inputs", inputs[0])
            self.put(f"{name}/hidden", hidden)
            self.put(f"{name}/text_logits", self.reference.text_logits(hidden[-1]))
            cases.append({"name": name, "turns": turns, "positions": len(hidden)})

    def forced(self) -> None:
        """Given steps fed one by one: hidden states, and the logits that would have chosen each next step."""
        cases = self.meta["forced"] = []
        reference = self.reference
        for case, plan in FORCED.items():
            name, steps = f"forced/{case}", plan["steps"]
            inputs = reference.model._prefill(**reference.chat(PREFILLS[plan["prefill"]]))
            cache, hidden, text_rows, frame_rows = None, [], [], []
            for step in [*steps, None]:
                out = reference.model.lfm(inputs_embeds=inputs, past_key_values=cache, use_cache=True)
                cache = out.past_key_values
                hidden.append(out.last_hidden_state[0, -1])
                if isinstance(step, list):
                    frame_rows.append(reference.frame_logits(hidden[-1], step))
                else:
                    text_rows.append(reference.text_logits(hidden[-1]))
                inputs = None if step is None else reference.embed(step)
            top = torch.stack(frame_rows).topk(TOP)
            self.put(f"{name}/hidden", torch.stack(hidden))
            self.put(f"{name}/text_logits", torch.stack(text_rows))
            self.put(f"{name}/frame_logits", torch.stack([frame_rows[i] for i in FULL_FRAMES]))
            self.put(f"{name}/frame_logits_index", FULL_FRAMES)
            self.put(f"{name}/frame_top_values", top.values)
            self.put(f"{name}/frame_top_codes", top.indices)
            cases.append({"name": name, "prefill": f"prefill/{plan['prefill']}", "steps": steps})

    def keep_stream(self, name: str, stream: dict[str, np.ndarray]) -> None:
        """Store one generated stream."""
        for key, value in stream.items():
            self.put(f"{name}/{key}", value)

    def streams(self) -> None:
        """Greedy streams of every route."""
        cases = self.meta["streams"] = []
        for route, mode, index, limit in STREAMS[self.reference.family]:
            turns = next(itertools.islice(candidates(route), index, None))
            chat = self.reference.chat(turns)
            name = f"stream/{route}/{mode}/{index}"
            self.prompt(f"{name}/prompt", chat)
            stream = self.reference.stream(chat, mode, limit)
            self.keep_stream(name, stream)
            found = features(stream, mode)
            cases.append(
                {
                    "name": name,
                    "route": route,
                    "mode": mode,
                    "limit": limit,
                    "turns": turns,
                    "features": found,
                }
            )
            print(f"  {name}: {found}", flush=True)

    def conversations(self) -> None:
        """Two turns, the second on top of what the first generated."""
        cases = self.meta["conversations"] = []
        for route, index, limit in CONVERSATIONS[self.reference.family]:
            turns = next(itertools.islice(candidates(route), index, None))
            name = f"conversation/{route}/{index}"
            chat = self.reference.chat(turns)
            first = self.reference.stream(chat, "interleaved", limit)
            self.keep_stream(f"{name}/first", first)
            self.reference.append(chat, *(first[key].tolist() for key in ("text", "codes", "modality")))
            chat.end_turn()
            follow_up = turn("user", text("And then? "), sound(20480, 300 + index))
            self.reference.add_turn(chat, follow_up)
            chat.new_turn("assistant")
            self.prompt(f"{name}/second/prompt", chat)
            second = self.reference.stream(chat, "interleaved", limit)
            self.keep_stream(f"{name}/second", second)
            case = {
                "name": name,
                "mode": "interleaved",
                "limit": limit,
                "turns": turns,
                "follow_up": follow_up,
            }
            found = [features(stream, "interleaved") for stream in (first, second)]
            cases.append({**case, "features": found})
            print(f"  {name}: {found}", flush=True)

    def wave(self, name: str, wave: torch.Tensor, frames: int) -> None:
        """Store a waveform [samples], whole up to 40 frames, else as windows (start, length) of samples."""
        total = wave.numel()
        assert total == 1920 * frames, (total, frames)
        windows = [(0, total)]
        if frames > 40:
            tenth = 240_000
            windows = [(0, 3840), (total // 2 - 960, 1920), (tenth - 1920, 5760), (total - 3840, 3840)]
        self.put(f"{name}/windows", windows)
        self.put(name, torch.cat([wave[start : start + length] for start, length in windows]))
        print(f"  {name}: {total} samples, RMS {wave.square().mean().sqrt():.3f}, peak {wave.abs().max():.2f}")

    def waveforms(self) -> None:
        """Waveforms of made-up codes."""
        cases = self.meta["waveforms"] = []
        lfm2 = self.reference.family == "lfm2"
        decoder = self.reference.mimi() if lfm2 else self.reference.detokenizer()
        for count in (1, 2, 7, 40, 160) if lfm2 else (1, 2, 7, 40):
            name, codes = f"wave/{count}", torch.from_numpy(signals.codes(count, 50 + count))
            case = {"name": name, "frames": count, "codes_seed": 50 + count, "streaming": False}
            if lfm2:
                self.wave(f"{name}/samples", decoder.decode(codes[None])[0, 0], count)
                if count == 7:
                    latent = decoder.decode_latent(codes[None])
                    self.put(f"{name}/latent", latent[0].T)
                    upsampled = decoder._to_encoder_framerate(latent)
                    self.put(f"{name}/transformed", decoder.decoder_transformer(upsampled)[0][0].T)
                if count == 160:
                    case["streaming"] = True
                    with decoder.streaming(1):
                        parts = [decoder.decode(codes[None, :, i : i + 1])[0, 0] for i in range(count)]
                    self.wave(f"{name}/streamed", torch.cat(parts), count)
            else:
                self.wave(f"{name}/samples", self.with_spectrum(name, decoder, codes), count)
            cases.append(case)

    def with_spectrum(self, name: str, detokenizer: LFM2AudioDetokenizer, codes: torch.Tensor) -> torch.Tensor:
        """Return the waveform [samples] of codes [8, frames]; of two frames, store the last layer's view."""
        seen: list[torch.Tensor] = []
        hook = detokenizer.lin.register_forward_hook(lambda _, inputs, out: seen.extend([inputs[0], out]))
        wave = detokenizer(codes[None])[0]
        hook.remove()
        if codes.shape[1] == 2:
            self.put(f"{name}/hidden", seen[0][0])
            self.put(f"{name}/spectrum", seen[1][0])
        return wave

    def write(self, path: Path) -> None:
        """Write everything."""
        self.arrays["meta"] = np.array(json.dumps(self.meta))
        np.savez_compressed(path, **self.arrays)
        print(f"wrote {path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(self.arrays)} arrays")


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=checkpoints.FAMILIES, action="append")
    parser.add_argument("--search", type=int, metavar="COUNT", help="print candidate streams, write nothing")
    parser.add_argument("--limit", type=int, default=100, help="steps of a candidate stream")
    parser.add_argument("--mode", choices=("sequential", "interleaved"), action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for family in options.family or checkpoints.FAMILIES:
        with tempfile.TemporaryDirectory() as scratch, torch.no_grad():
            directory = checkpoints.make_checkpoint(Path(scratch) / family, family, "tiny", SEED)
            reference = Reference(directory, family)
            if options.search:
                search(reference, options.search, options.limit, options.mode or ["sequential", "interleaved"])
                continue
            print(family, flush=True)
            golden = Golden(reference)
            golden.sounds()
            golden.prefills()
            golden.forced()
            golden.streams()
            golden.conversations()
            golden.waveforms()
            golden.write(Path(__file__).parent / f"{family}.npz")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
