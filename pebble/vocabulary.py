"""Pebble's tokenizer: one token for each word, and the published special tokens with their names and ids.

In: the world's words. Out: `tokenizer.json` and the small files beside it, as in every LFM2-Audio checkpoint. Text is
put into lower case and loses its punctuation before it is looked up, so "Kitchen lights on." is three known words.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers
from world import VOICES, WORDS, WRITTEN_WORDS

from voxrill.runtime.atomic_write import write_text

SPECIAL = {
    0: "<|pad|>",
    1: "<|startoftext|>",
    2: "<|unknown|>",
    6: "<|im_start|>",
    7: "<|im_end|>",
    128: "<|audio_start|>",
    130: "<|text_end|>",
}
ROLES = ("system", "user", "assistant")
FIRST_WORD = 256
ALIGN = 64

PERFORM_ASR = "Perform ASR."
PERFORM_TTS = "Perform TTS. Use the {voice} voice."
INTERLEAVED = "Respond with interleaved text and audio."
WRITTEN = "You are a helpful assistant trained by Liquid AI."
NAME_INTENT = "Name the intent."
NAME_STYLE = "Name the style."
TO_GERMAN = "Translate into German."
SPOKEN_PROMPTS = (PERFORM_ASR, INTERLEAVED, WRITTEN, *(PERFORM_TTS.format(voice=voice) for voice in VOICES))
"""The prompts of the family."""
OWN_PROMPTS = (NAME_INTENT, NAME_STYLE, TO_GERMAN)
"""Prompts that only Pebble knows."""


def _prompt_words(prompts: tuple[str, ...]) -> set[str]:
    return {word for prompt in prompts for word in prompt.lower().replace(".", "").split()}


def build_tokenizer() -> Tokenizer:
    """The tokenizer; its size is a multiple of 64."""
    spoken = set(WORDS)
    prompts = _prompt_words(SPOKEN_PROMPTS) - spoken - set(ROLES)
    written = (_prompt_words(OWN_PROMPTS) | set(WRITTEN_WORDS)) - spoken - set(ROLES) - prompts
    words = ["\n", *ROLES, *sorted(prompts), *WORDS, *sorted(written)]
    vocabulary = {SPECIAL.get(i, f"<|reserved_{i}|>"): i for i in range(FIRST_WORD)}
    vocabulary |= {word: FIRST_WORD + i for i, word in enumerate(words)}
    while len(vocabulary) % ALIGN:
        vocabulary[f"<|reserved_{len(vocabulary)}|>"] = len(vocabulary)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[2]))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Lowercase(), normalizers.Replace(Regex(r"[.,!?;:'\"-]"), "")]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n|[^ \n]+"), "removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL.values()])
    return tokenizer


def write_tokenizer(directory: Path) -> None:
    """`tokenizer.json` and the two small files beside it."""
    build_tokenizer().save(str(directory / "tokenizer.json"))
    names = {"bos_token": SPECIAL[1], "eos_token": SPECIAL[7], "pad_token": SPECIAL[0], "unk_token": SPECIAL[2]}
    write_text(directory / "special_tokens_map.json", json.dumps(names, indent=1) + "\n")
    about = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    write_text(directory / "tokenizer_config.json", json.dumps(about, indent=1) + "\n")
