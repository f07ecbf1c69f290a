"""OpenAI's names of models and voices, and what they mean here.

In: the name that a client sends, or none. Out: the served model, and one of its voices. HTTP, realtime sessions and
Wyoming all ask here, so that a name means the same at every door.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import msgspec

from voxrill.runtime.bundle.manifest import Manifest, Task
from voxrill.runtime.engine.engine import VOICE
from voxrill.runtime.serve.api_errors import ApiError

DEFAULT_VOICE = "default"
"""The name of the model's own voice."""

OPENAI_VOICES = {
    "alloy": "US female",
    "ash": "US male",
    "ballad": "UK male",
    "cedar": "US male",
    "coral": "US female",
    "echo": "US male",
    "fable": "UK male",
    "marin": "US female",
    "nova": "US female",
    "onyx": "US male",
    "sage": "UK female",
    "shimmer": "US female",
    "verse": "US male",
}
"""OpenAI's voices, and what each sounds like: the published models' four voices bear these names.

None of OpenAI's is a British woman. `sage` stands for her, so that each of the four has a name of OpenAI's.
"""

OPENAI_MODELS = re.compile(
    r"(whisper-1|tts-1|gpt-(\d(\.\d+)?|4o|audio|live|realtime|transcribe)|chatgpt-4o|o[1-9])(-[a-z0-9.]+)*"
)
"""A kind of OpenAI's models, then words that say which: -mini, -transcribe, -tts, -preview, a date."""

DESCRIPTION = 200
"""Characters of a described voice."""


class VoiceId(msgspec.Struct):
    """A voice as OpenAI's SDK may send it."""

    id: str


VoiceName = str | VoiceId | None
"""A voice as a client may send it: absent, null and empty mean the model's own."""


def check_model(manifest: Manifest, name: str | None) -> None:
    """Accept the served model's name, every name of OpenAI's models, and no name: all mean the served model.

    Raises:
        ApiError: it is another name; the message lists ours.
    """
    if name and name.strip() and name != manifest.name and not OPENAI_MODELS.fullmatch(name):
        raise ApiError(
            404,
            f"There is no model {name[:80]!r}. This server has: {manifest.name}. OpenAI's names mean the same model.",
            "model_not_found",
            "model",
        )


def check_voice(task: Task, wanted: VoiceName, param: str) -> str:
    """The task's voice for a client's: one of its names, a name of OpenAI's, or a description where it takes those.

    Raises:
        ApiError: there is none; the message lists what there is.
    """
    name = (wanted.id if isinstance(wanted, VoiceId) else wanted) or DEFAULT_VOICE
    known = _voices(task)
    if _plain(name) in known:
        return known[_plain(name)]
    if takes_descriptions(task) and len(name) <= DESCRIPTION:
        return name
    ours = ", ".join((*task.voices, DEFAULT_VOICE))
    raise ApiError(
        400,
        f"There is no voice {name[:80]!r}. This model has: {ours}. OpenAI's names work too: {', '.join(OPENAI_VOICES)}",
        "voice_not_found",
        param,
    )


def takes_descriptions(task: Task) -> bool:
    """Whether a voice is described in words: the prompt has a place for it, and no voice has a name."""
    return not task.voices and VOICE in task.system


def voice_shown(task: Task, voice: str) -> str:
    """The name of a task's voice in answers: its own, or that of the only voice."""
    return DEFAULT_VOICE if voice == task.voice and voice not in task.voices else voice


def voice_list(speak: Task, chat: Task) -> dict[str, Any]:
    """GET /v1/audio/voices: the voices of speech, which of them OpenAI's names mean, and the voice of chat."""
    means = {name: voice_shown(speak, check_voice(speak, name, "voice")) for name in OPENAI_VOICES}
    default = voice_shown(speak, speak.voice)
    return {
        "object": "list",
        "voices": [
            {
                "id": name,
                "name": name,
                "default": name == default,
                "openai": [one for one in means if means[one] == name],
            }
            for name in speak.voices or (DEFAULT_VOICE,)
        ],
        "openai": means,
        "descriptions": takes_descriptions(speak),
        "chat": voice_shown(chat, chat.voice),
    }


def in_header(name: str) -> str:
    """A name as a header's value, which is printable ASCII: other characters are percent-encoded."""
    return quote(name, safe=" !#$&'()*+,/:;=?@[]~")


def _voices(task: Task) -> dict[str, str]:
    """The task's voice of each name that a client may send, written plainly. The task's own names come first."""
    openai = {name: _like(task, sound) for name, sound in OPENAI_VOICES.items()}
    return openai | {DEFAULT_VOICE: task.voice} | {_plain(name): name for name in task.voices}


def _like(task: Task, sound: str) -> str:
    """The voice that sounds like this, or else one of the same gender, or else the task's own."""
    gender = sound.split()[-1]
    for words in (_words(sound), _words(gender)):
        for name in task.voices:
            if words <= _words(name):
                return name
    return task.voice


def _words(name: str) -> set[str]:
    return set(_plain(name).split())


def _plain(name: str) -> str:
    """A name without what people write differently: `us_female`, `US-Female` and `US female` are the same."""
    return name.strip().casefold().replace("_", " ").replace("-", " ")
