"""A folder of published outputs, made of a bundle's own: the layout of the real one, for a model of any size.

In: a loaded float32 model and its checkpoint. Out: the folder. What a bundle is held to here it must pass; so a test
that breaks one thing sees which stage notices.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from tests.signals import speech_like
from voxrill.runtime.apps.acceptance import folder as files
from voxrill.runtime.apps.acceptance.streams import SPOKEN, TEXT, add_question, asked, hidden_before
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.audio.log_mel import LogMel
from voxrill.runtime.bundle.manifest import Mode, Sampling
from voxrill.runtime.engine.context import Tokens
from voxrill.runtime.engine.generate import Frame, Generation, GenerationOptions, Step, Token
from voxrill.runtime.engine.sampling import Sampler

REVISION = "0123456789abcdef0123456789abcdef01234567"
FOLLOWUP = "And then?"
SAID = "Hello, how are you today?"
LIMIT = 96
VOICE = "US female"
TRIES = 40
"""Sounds and seeds that are tried until a random model answers as the published ones do."""


def write_sums(folder: Path) -> None:
    """SHA256SUMS of all files, as sha256sum writes it."""
    names = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != files.SUMS)
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  ./{path.relative_to(folder).as_posix()}" for path in names
    ]
    (folder / files.SUMS).write_text("\n".join(lines) + "\n")


class Maker:
    """Writes the folder."""

    def __init__(self, folder: Path, model: Any, checkpoint: Path) -> None:
        self.folder, self.model, self.parts, self.checkpoint = folder, model, model.parts, checkpoint

    def make(self) -> None:
        """All files, then their hashes."""
        self.sounds()
        self.streams()
        self.turns()
        self.stages()
        self.layers()
        write_sums(self.folder)

    def sha(self, name: str) -> str:
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def path(self, name: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def arrays(self, name: str, **arrays: np.ndarray) -> None:
        np.savez(self.path(name), **arrays)

    def json(self, name: str, value: Any) -> None:
        self.path(name).write_text(json.dumps(value))

    def sounds(self) -> None:
        """The sounds, and what is computed of them without weights: those to which the model has a clean answer."""
        for seed in range(TRIES):
            self.asr = self._written(files.ASR_SOUND, 44100, 50000 + 2000 * seed, seed)
            self.transcript = self.answered("Perform ASR.", "sequential", self.asr)
            if (
                self.transcript
                and all(isinstance(step, Token) for step in self.transcript)
                and self._clean(self.transcript)
            ):
                break
        else:
            raise AssertionError("no sound had a clean transcript")
        for seed in range(TRIES):
            self.question = self._written(files.QUESTION, 16000, 16000 + 777 * seed, seed)
            self.turn_steps = self._turns(seed)
            if self.turn_steps:
                break
        else:
            raise AssertionError("no question had two clean answers")
        self.mel = LogMel(self.parts.spec.log_mel)(self.question)
        self.arrays(files.ASR_16K, waveform=self.asr)
        self.arrays(files.LOG_MEL, log_mel=self.mel)

    def _written(self, name: str, rate: int, samples: int, seed: int) -> np.ndarray:
        soundfile.write(self.path(name), speech_like(samples, seed), rate, subtype="PCM_16")
        return read_audio(self.folder / name)

    def answered(self, system: str, mode: Mode, heard: np.ndarray | None = None, text: str = "") -> list[Step] | None:
        """A greedy answer; None if it does not end by itself within the limit."""
        rows = None if heard is None else self.parts.encoder.encode(heard)
        return self._ended(
            Generation(asked(self.parts, system, rows, text), GenerationOptions(mode, max_new_tokens=LIMIT))
        )

    def _ended(self, generation: Generation) -> list[Step] | None:
        steps = list(generation)
        return steps if generation.finish_reason == "stop" else None

    def _clean(self, steps: Sequence[Step]) -> bool:
        """Whether the text is whole characters: a random model writes bytes."""
        own = self.parts.tokenizer
        tokens, stream = words(steps), own.stream()
        return "".join(map(stream.push, tokens)) == own.decode(tokens) != ""

    def _turns(self, seed: int) -> list[list[Step]]:
        """Two answers of one conversation, text greedy and sound drawn; empty if one of them will not do."""
        chat = self.model.manifest.tasks.chat
        context = asked(self.parts, chat.system, self.parts.encoder.encode(self.question))
        found = []
        for number in range(2):
            options = GenerationOptions("interleaved", audio=Sampling(1.0, 4), max_new_tokens=LIMIT, seed=seed)
            steps = self._ended(Generation(context, options))
            enough = steps and self._clean(steps) and any(isinstance(step, Frame) for step in steps)
            if not steps or not enough:
                return []
            found.append(steps)
            if not number:
                context.close_turn()
                add_question(context, text=FOLLOWUP)
        return found

    def streams(self) -> None:
        """The greedy streams, their prompts, and facts of their sound."""
        tasks, prompts, cases = self.model.manifest.tasks, {}, []
        speak = tasks.speak.system.replace("{voice}", VOICE)
        asked_for = [
            ("asr", tasks.transcribe.system, "sequential", files.ASR_SOUND, ""),
            ("tts_us_female", speak, "sequential", "", SAID),
            ("interleaved", tasks.chat.system, "interleaved", files.QUESTION, ""),
        ]
        for name, prompt, mode, sound, text in asked_for:
            heard = {"": None, files.ASR_SOUND: self.asr, files.QUESTION: self.question}[sound]
            rows = None if heard is None else self.parts.encoder.encode(heard)
            context = asked(self.parts, prompt, rows, text)
            prompts[name] = self._prompt(context, 0 if rows is None else len(rows))
            generation = Generation(context, GenerationOptions(mode, max_new_tokens=LIMIT))
            steps = list(generation)
            if generation.finish_reason == "stop" and mode == "sequential":
                steps.append(Token(self.parts.tokenizer.ids["im_end"]))
            cases.append(self._case(name, prompt, mode, sound, text, steps))
        self.json(files.STREAMS, {"checkpoint": "tiny", "checkpoint_revision": REVISION, "cases": cases})
        self.prompts = prompts

    def _prompt(self, context: Any, heard: int) -> dict[str, Any]:
        pieces = [list(piece.ids) if isinstance(piece, Tokens) else [] for piece in context.pieces]
        sound_at = sum(map(len, pieces[: pieces.index([])])) if heard else None
        return {
            "text_ids": [token for ids in pieces for token in ids],
            "sound_positions": heard,
            "positions": context.positions,
            "sound_at": sound_at,
        }

    def _case(self, name: str, prompt: str, mode: str, sound: str, text: str, steps: list[Step]) -> dict[str, Any]:
        case = {
            "name": name,
            "prompt": prompt,
            "mode": mode,
            "max_new_tokens": LIMIT,
            "sequences": words(steps),
            "audio_codes": [step.codes.tolist() for step in steps if isinstance(step, Frame)],
            "modalities": kinds(steps),
            "decoded_text": self.parts.tokenizer.decode(words(steps)),
        }
        case |= {"audio": sound.removeprefix("audio/"), "audio_sha256": self.sha(sound)} if sound else {"text": text}
        if any(isinstance(step, Frame) for step in steps):
            heard = self.parts.codec.decode(codes_of(steps))
            case |= {
                "waveform_shape": [1, len(heard)],
                "waveform_slice": heard[1000:1032].tolist(),
                "waveform_mean": float(heard.mean()),
                "waveform_std": float(heard.std(ddof=1)),
            }
        return case

    def turns(self) -> None:
        """The two turns, and the files that tell of them."""
        arrays, said = {}, {}
        for number, steps in enumerate(self.turn_steps, 1):
            frames = [step.codes for step in steps if isinstance(step, Frame)]
            arrays |= {
                f"turn{number}_text_tokens": np.array(words(steps), np.int64),
                f"turn{number}_audio_tokens": np.stack(frames, 1),
                f"turn{number}_modality": np.array(kinds(steps), np.int8),
            }
            said[f"turn{number}"] = {"decoded_text": self.parts.tokenizer.decode(words(steps))}
            sound = self.parts.codec.decode(codes_of(steps))
            soundfile.write(self.path(files.TURN_SOUNDS[number - 1]), sound, 24000, subtype="FLOAT")
        self.arrays(files.TURNS, **arrays)
        inputs = {
            "asr_audio_sha256": self.sha(files.ASR_SOUND),
            "interleaved_audio_sha256": self.sha(files.QUESTION),
            "followup_text": FOLLOWUP,
        }
        self.json(
            files.SUMMARY,
            {"model": {"revision": REVISION}, "inputs": inputs, "interleaved": said},
        )
        names = (files.TURNS, files.SUMMARY, *files.TURN_SOUNDS)
        self.json(files.TURN_HASHES, {Path(name).name: {"sha256": self.sha(name)} for name in names})
        self._first_turn()

    def _first_turn(self) -> None:
        """Hidden states of the first turn, its frames' rows, and the second turn's prompt."""
        first = self.turn_steps[0]
        context = asked(self.parts, self.model.manifest.tasks.chat.system, self.parts.encoder.encode(self.question))
        hidden = hidden_before(context, first)
        at = np.array([number for number, step in enumerate(first) if isinstance(step, Frame)])
        spoken = np.stack([first[number].codes for number in at])
        self.arrays(
            files.FRAMES,
            hidden=hidden[at][:, None],
            source_bf16_tokens=spoken[:, None],
            source_bf16_next_audio_embedding=self.parts.embed_frames(spoken.T)[:, None],
            generation_step=at,
        )
        source = {
            "model_revision": REVISION,
            "question_wav_sha256": self.sha(files.QUESTION),
            "golden_tokens_sha256": self.sha(files.TURNS),
            "system_prompt": "",
        }
        self.json(files.FRAMES_ORIGIN, {"source": source, "artifact": {"sha256": self.sha(files.FRAMES)}})
        before = len(context.pieces)
        context.close_turn()
        add_question(context, text=FOLLOWUP)
        ids = [token for piece in context.pieces[before:] for token in piece.ids]
        self.prompts["turn2"] = {"text_ids_after_turn1": ids, "positions": context.positions}
        self.json(files.PROMPTS, self.prompts)

    def stages(self) -> None:
        """What single graphs make of known inputs."""
        width, parts = self.parts.spec.backbone.hidden_size, self.parts
        rows = parts.encoder.embed(self.mel[:80])
        self.arrays(files.ENCODER_ROWS, adapted=rows[None])
        self._text_steps(rows)
        count = np.arange(width)
        hidden = (np.sin(count / 17) + 0.5 * np.cos(count / 31)).astype(np.float32)
        codes = parts.depthformer.frame(hidden, Sampling(), Sampler())
        self.arrays(
            files.FRAME,
            hidden=hidden[None],
            tokens=codes[None],
            next_audio_embedding=parts.embed_frames(codes[:, None]),
        )
        for name, frames in ((files.CODEC_4, 4), (files.CODEC_8, 8)):
            self._codec(name, ((73 * np.arange(8 * frames) + 19) % 2048).reshape(8, frames))
        real = codes_of(self.turn_steps[0])[:, :8]
        self.arrays(files.CODEC_REAL, codes=real[None], waveform=parts.codec.decode(real)[None])

    def _text_steps(self, rows: np.ndarray) -> None:
        # Rows that bfloat16 holds, as the published ones were rounded to it.
        rounded = ((rows.view(np.uint32) + np.uint32(0x8000)) & np.uint32(0xFFFF0000)).view(np.float32)
        context, steps = asked(self.parts, "", rounded), []
        for _ in range(6):
            logits = self.parts.backbone.logits(context.advance()).astype(np.float64)
            weights = np.exp(logits - logits.max())
            best = np.argsort(-weights)[:5]
            top = [
                {
                    "id": int(one),
                    "text": self.parts.tokenizer.decode([int(one)]),
                    "probability": weights[one] / weights.sum(),
                }
                for one in best
            ]
            steps.append({"golden_argmax_id": int(best[0]), "golden_top5": top})
            context.add_tokens([int(best[0])])
        self.json(files.TEXT_STEPS, {"model": {"revision": REVISION}, "steps": steps})

    def _codec(self, name: str, codes: np.ndarray) -> None:
        graph = self.parts.codec.graph
        state = {tensor.name: np.zeros([int(n) for n in tensor.shape], np.float32) for tensor in graph.spec.state}
        outputs = graph.run({"audio_codes": codes[None], "offset": np.zeros(1, np.int64), **state})
        features = outputs[graph.spec.outputs[0].name][0]
        bins = features.shape[1] // 2
        self.arrays(
            name,
            codes=codes[None],
            log_abs=features[:, :bins].T[None],
            angle=features[:, bins:].T[None],
            waveform=self.parts.codec.decode(codes)[None],
        )

    def layers(self) -> None:
        """Two layers of the checkpoint, by the modules that are exported."""
        import torch

        from voxrill.export.checkpoint import open_checkpoint
        from voxrill.export.lfm import LfmConfig
        from voxrill.export.published_layers import run_layer, single_layer

        checkpoint = open_checkpoint(self.checkpoint)
        config = LfmConfig.read(checkpoint.value("lfm"))
        for layer, name in ((0, files.CONV_LAYER), (2, files.ATTENTION_LAYER)):
            kind, module = config.layer_types[layer], single_layer(checkpoint, config, layer)
            made = np.linspace(-1, 1, 25 * config.hidden, dtype=np.float32).reshape(1, 25, -1)
            prefill, past, step = made[:, :16], made[:, 16:24], made[:, 24:]
            output, _ = run_layer(module, config, kind, torch.from_numpy(prefill))
            stepped, state = run_layer(module, config, kind, torch.from_numpy(past), torch.from_numpy(step))
            names = ("conv_cache",) if kind == "conv" else ("key_cache", "value_cache")
            self.arrays(
                name,
                prefill_input=prefill,
                prefill_output=output,
                past_input=past,
                step_input=step,
                step_output=stepped,
                **{f"step_updated_{key}": tensor for key, tensor in zip(names, state, strict=True)},
            )


def words(steps: Sequence[Step]) -> list[int]:
    """The text tokens among steps."""
    return [step.id for step in steps if isinstance(step, Token)]


def kinds(steps: Sequence[Step]) -> list[int]:
    """The kinds of steps, as the published files number them."""
    return [TEXT if isinstance(step, Token) else SPOKEN for step in steps]


def codes_of(steps: Sequence[Step]) -> np.ndarray:
    """Codes (codebooks, F) of the frames that are sound."""
    return np.stack([step.codes for step in steps if isinstance(step, Frame) and not step.ends], 1)
