"""What this server answers when a client asks it to describe itself."""

from __future__ import annotations

from typing import Any

from wyoming.info import AsrModel, AsrProgram, Attribution, HandleModel, HandleProgram, Info, TtsProgram, TtsVoice

from voxrill.runtime.bundle.manifest import Manifest
from voxrill.runtime.serve.names import DEFAULT_VOICE
from voxrill.runtime.version import VERSION

_PROGRAM = "voxrill"


def server_info(manifest: Manifest) -> Info:
    """The services. All of them use the one model that is loaded."""

    def artifact(name: str, description: str, version: str | None = None) -> dict[str, Any]:
        made_of = Attribution(manifest.source.name, manifest.source.licence_url)
        return {
            "name": name,
            "description": description,
            "attribution": made_of,
            "installed": True,
            "version": version,
        }

    def program(what: str) -> dict[str, Any]:
        return artifact(_PROGRAM, f"{manifest.name}, {what}", VERSION)

    languages = {"languages": [manifest.tasks.language]}
    model = artifact(manifest.name, f"{manifest.family}, on this device") | languages
    names = manifest.tasks.speak.voices or (DEFAULT_VOICE,)
    voices = [artifact(name, f"{manifest.name}'s {name} voice") | languages for name in names]
    return Info(
        asr=[AsrProgram(**program("speech to text"), models=[AsrModel(**model)], supports_transcript_streaming=True)],
        tts=[
            TtsProgram(
                **program("text to speech"),
                voices=[TtsVoice(**voice) for voice in voices],
                supports_synthesize_streaming=True,
            )
        ],
        handle=[HandleProgram(**program("answers"), models=[HandleModel(**model)], supports_handled_streaming=True)],
    )
