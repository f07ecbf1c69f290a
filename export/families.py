"""The published model families: how to tell them apart, and the prompts and sampling defaults of each.

A new family is a new entry here, and a module if it has a codec or frame decoder of its own. No other code asks for a
family by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import msgspec

from voxrill.export import graphs
from voxrill.export.checkpoint import CONFIG_FILE, DETOKENIZER_DIR, MIMI_FILE, Checkpoint
from voxrill.export.graphs import GraphPlan
from voxrill.export.lfm3 import graphs as lfm3_graphs
from voxrill.export.lfm3.tasks import LICENCE as LFM3_LICENCE
from voxrill.export.lfm3.tasks import TASKS as LFM3_TASKS
from voxrill.export.lfm3.tasks import with_calls, with_sampling
from voxrill.export.opening import MODEL_TYPE
from voxrill.runtime.bundle.contract import ModelSpec, StaticShapes
from voxrill.runtime.bundle.manifest import Sampling, Task, Tasks, Taught
from voxrill.runtime.errors import CheckpointError, UsageError

ARCHITECTURE = "Lfm2AudioForConditionalGeneration"
TAUGHT = "voxrill"
"""The key of config.json under which a checkpoint says what it was taught (`Taught`)."""

LICENCE = "LFM Open License v1.0"
LICENCE_URL = "https://www.liquid.ai/lfm-license"

_TRANSCRIBE = Task(system="Perform ASR.", mode="sequential")
_CHAT = Task(
    system="Respond with interleaved text and audio.",
    mode="interleaved",
    audio=Sampling(temperature=1.0, top_k=4),
)
# Liquid's own command line asks for written answers without a system prompt.
_WRITE = Task(system="", mode="sequential")
_SPOKEN = Sampling(temperature=0.8, top_k=64)


class Graphs(NamedTuple):
    """How a checkpoint of a family becomes graphs.

    sizes: what the runtime needs to know of the model; plans: its graphs in pipeline order, `StaticShapes` for the npu
    flavour; frame_table: the name of the embeddings of spoken frames.
    """

    sizes: Callable[[Checkpoint], ModelSpec]
    plans: Callable[[Checkpoint, ModelSpec, StaticShapes | None], dict[str, GraphPlan]]
    frame_table: str


LFM2_GRAPHS = Graphs(graphs.read_model_spec, graphs.plan_graphs, graphs.AUDIO_TABLE)
LFM3_GRAPHS = Graphs(lfm3_graphs.read_model_spec, lfm3_graphs.plan_graphs, lfm3_graphs.CODE_TABLE)


@dataclass(frozen=True)
class Family:
    """One family: its name in the manifest, how it is asked, how it is exported. `taught`: what one checkpoint adds."""

    name: str
    tasks: Tasks
    graphs: Graphs = LFM2_GRAPHS
    licence: str = LICENCE
    licence_url: str = LICENCE_URL
    taught: Taught = field(default_factory=Taught)


LFM2_AUDIO = Family(
    "lfm2-audio",
    Tasks(
        transcribe=_TRANSCRIBE,
        speak=Task(
            system="Perform TTS.\nUse the following voice: {voice}",
            mode="sequential",
            audio=_SPOKEN,
            voice="A female speaker with a clear, calm voice. The recording is of excellent quality, without noise.",
        ),
        chat=_CHAT,
        write=_WRITE,
    ),
)

LFM25_AUDIO = Family(
    "lfm2.5-audio",
    Tasks(
        transcribe=_TRANSCRIBE,
        speak=Task(
            system="Perform TTS. Use the {voice} voice.",
            mode="sequential",
            audio=_SPOKEN,
            voice="US female",
            voices=("US male", "US female", "UK male", "UK female"),
        ),
        chat=_CHAT,
        write=_WRITE,
    ),
)


LFM25_AUDIO_JP = Family(
    "lfm2.5-audio-jp",
    Tasks(
        transcribe=Task(system="Perform ASR in japanese.", mode="sequential"),
        speak=Task(system="Perform TTS in japanese.", mode="sequential", audio=_SPOKEN),
        chat=_CHAT,
        write=_WRITE,
        language="ja",
    ),
)

LFM3_AUDIO = Family("lfm3-audio", LFM3_TASKS, LFM3_GRAPHS, licence=LFM3_LICENCE)

FAMILIES = {family.name: family for family in (LFM2_AUDIO, LFM25_AUDIO, LFM25_AUDIO_JP, LFM3_AUDIO)}

_JAPANESE_INTERLEAVE = (6, 9)
"""Text tokens and frames in turn of LFM2.5-Audio-1.5B-JP; those of the English models are 6 and 12."""

_JAPANESE_NAME = re.compile(r"(^|[-_])jp($|[-_])", re.IGNORECASE)


def detect_family(checkpoint: Checkpoint, name: str = "") -> Family:
    """The family of a checkpoint, with the licence, decoding defaults and teaching that the checkpoint itself states.

    Args:
        checkpoint: what is exported.
        name: the family, where the user knows better than the rules.

    Raises:
        CheckpointError: it is of no known family, or `Taught` does not fit; the message says what was found.
        UsageError: there is no family `name`.
    """
    if name and name not in FAMILIES:
        raise UsageError(f"there is no family {name!r}", f"Give one of: {', '.join(FAMILIES)}")
    found, taught = _family(checkpoint), _taught(checkpoint)
    family = FAMILIES.get(name, found)
    if family.graphs is not found.graphs:
        raise UsageError(f"{checkpoint.name} is not of the family {name}", f"It is of {found.name}: leave --family out")
    family = replace(family, tasks=with_sampling(family.tasks, checkpoint.config))
    if family.tasks.calls is not None:
        family = replace(family, tasks=with_calls(family.tasks, checkpoint.tokenizer()))
    write = msgspec.structs.replace(family.tasks.write, system=taught.written)
    family = replace(family, taught=taught, tasks=msgspec.structs.replace(family.tasks, write=write))
    if checkpoint.licence:
        url = f"https://spdx.org/licenses/{checkpoint.licence}"
        family = replace(family, licence=checkpoint.licence, licence_url=url)
    if checkpoint.generation_config.get("do_sample") is False:
        family = replace(family, tasks=_greedy(family.tasks))
    return family


def _taught(checkpoint: Checkpoint) -> Taught:
    """`TAUGHT` of config.json, which published checkpoints do not have."""
    try:
        return msgspec.convert(checkpoint.config.get(TAUGHT, {}), Taught)
    except msgspec.ValidationError as error:
        known = ", ".join(field.name for field in msgspec.structs.fields(Taught))
        raise CheckpointError(f"{CONFIG_FILE} has a bad value in {TAUGHT} ({error})", f"Valid keys: {known}") from None


def _greedy(tasks: Tasks) -> Tasks:
    """The same tasks with greedy decoding, as `do_sample: false` in generation_config.json asks for."""
    each = {name: task for name, task in msgspec.structs.asdict(tasks).items() if isinstance(task, Task)}
    greedy = {name: msgspec.structs.replace(t, text=Sampling(), audio=Sampling()) for name, t in each.items()}
    return msgspec.structs.replace(tasks, **greedy)


def _family(checkpoint: Checkpoint) -> Family:
    """The published family, from the architecture, the codec, and what is known to differ in the Japanese model.

    Raises:
        CheckpointError: neither; the message says what was found.
    """
    if checkpoint.config.get("model_type") == MODEL_TYPE:
        return LFM3_AUDIO
    architectures = checkpoint.config.get("architectures", [])
    if architectures != [ARCHITECTURE]:
        raise CheckpointError(
            f"{CONFIG_FILE} names the architecture {architectures}, which Voxrill does not export",
            f"Give a checkpoint of {ARCHITECTURE} (LFM2-Audio and LFM2.5-Audio), or of LFM3-Audio",
        )
    if checkpoint.has_detokenizer:
        return LFM25_AUDIO_JP if _is_japanese(checkpoint) else LFM25_AUDIO
    if checkpoint.has_mimi:
        return LFM2_AUDIO
    raise CheckpointError(
        f"{checkpoint.directory} has neither {DETOKENIZER_DIR}/ nor {MIMI_FILE}: without a codec it cannot speak",
        "Download the whole checkpoint",
    )


def _is_japanese(checkpoint: Checkpoint) -> bool:
    """Whether it is LFM2.5-Audio-1.5B-JP, or was made from it.

    Its architecture and codec are those of the English model. Its config is known to differ in the interleaving only,
    which a fine-tune keeps. Its name says it too.
    """
    interleave = checkpoint.config.get("interleaved_n_text"), checkpoint.config.get("interleaved_n_audio")
    return interleave == _JAPANESE_INTERLEAVE or bool(_JAPANESE_NAME.search(checkpoint.name.split("/")[-1]))
