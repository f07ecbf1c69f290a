"""Translation: the system prompt that makes a model answer in another language."""

from __future__ import annotations

from voxrill.runtime.engine.tokenizer import Tokenizer
from voxrill.runtime.errors import UsageError


def translation_prompt(to: str, tokenizer: Tokenizer) -> str:
    """The system prompt that asks for a translation; `to` is a language's English name, such as German.

    Raises:
        UsageError: it is empty, or more than a name.
        UnknownText: the model has no word for the language. Under its own prompt it would answer the sound instead.
    """
    name = to.strip()
    if not name or not all(letter.isalpha() or letter in " -'()" for letter in name):
        raise UsageError(f"{to!r} is not the name of a language", "Give its English name, such as German")
    prompt = f"Translate into {name[0].upper()}{name[1:]}."
    tokenizer.encode(prompt)
    return prompt
