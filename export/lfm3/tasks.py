"""How LFM3-Audio is asked: prompts, languages, voices, sampling. Sources: the model card and llama.cpp."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from voxrill.runtime.bundle.manifest import CallMarks, LiveTask, Sampling, Task, Tasks

LICENCE = "LFM Open License v1.0"

LANGUAGES = {
    "ar": "Arabic",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "sv": "Swedish",
    "tr": "Turkish",
    "zh": "Chinese",
}

SPOKEN = Sampling(temperature=1.0, top_k=128, penalty=1.1, penalty_frames=4096)

TASKS = Tasks(
    transcribe=Task(system="Perform ASR.", mode="sequential", spoken="Perform ASR in {language}."),
    speak=Task(
        system="Perform TTS in English using a {voice} voice.",
        mode="sequential",
        audio=SPOKEN,
        voice="female",
        voices=("female", "male"),
        opening=("<|audio_start|>",),
        spoken="Perform TTS in {language} using a {voice} voice.",
    ),
    chat=Task(
        system="Respond with interleaved text and audio.",
        mode="interleaved",
        audio=SPOKEN,
        opening=("<|mixed_start|>",),
    ),
    write=Task(system="", mode="sequential"),
    languages=LANGUAGES,
    # Placeholders of heard rows and spoken frames, and marks that only a prompt may hold.
    unwritten=("<|audio|>", "<|audio_out|>", "<|mixed_start|>", "<|mixed_end|>", "<|startoftext|>", "<|im_start|>"),
    ends=("<|text_end|>",),
    # What follows the token is not known: calls are written as for every model.
    calls=CallMarks(listing="<additional_tools>", begin="<tool_call>"),
    live=LiveTask(
        system="Perform live ASR.",
        rows=12,
        end="<|text_end|>",
        last="<|mixed_end|>",
        most_tokens=48,
        last_tokens=96,
        context_rows=375,  # 30 s
        quiet_rows=188,  # 15 s
        unwritten=(
            "<|mixed_end|>",
            "<|mixed_start|>",
            "<|audio_start|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|endoftext|>",
            "<|audio|>",
            "<|audio_out|>",
        ),
        closes=("<|im_end|>", "<|endoftext|>", "<|im_start|>"),
    ),
)

SAMPLING = "audio_sampling"
"""The key of a config that states how frames are drawn; a GGUF pair's config has it."""


def with_calls(tasks: Tasks, tokenizer: bytes) -> Tasks:
    """The same tasks, without calls if the tokenizer lacks their token: not every checkpoint was taught them."""
    known = tasks.calls is None or json.dumps(tasks.calls.begin).encode() in tokenizer
    return tasks if known else msgspec.structs.replace(tasks, calls=None)


def with_sampling(tasks: Tasks, config: Mapping[str, Any]) -> Tasks:
    """The same tasks, with frames drawn as the checkpoint itself says, where it does."""
    stated = config.get(SAMPLING)
    if not stated:
        return tasks
    drawn = msgspec.convert({**msgspec.to_builtins(SPOKEN), **stated}, Sampling, strict=False)
    speak = msgspec.structs.replace(tasks.speak, audio=drawn)
    return msgspec.structs.replace(tasks, speak=speak, chat=msgspec.structs.replace(tasks.chat, audio=drawn))
