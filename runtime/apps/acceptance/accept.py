"""All stages in order: which files each reads, and what a bundle is worth by them.

In: a loaded model and a folder of published outputs. Out: rows, stage by stage.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from voxrill.runtime.apps.acceptance import folder as files
from voxrill.runtime.apps.acceptance import weighted, weightless
from voxrill.runtime.apps.acceptance.folder import PublishedFolder
from voxrill.runtime.apps.acceptance.rows import FLOAT32, QUANTISED, AcceptanceRow, Bounds
from voxrill.runtime.apps.acceptance.streams import JudgedModel
from voxrill.runtime.bundle import manifest
from voxrill.runtime.bundle.manifest import Manifest
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import AudioFileError, ContextFull, UsageError
from voxrill.runtime.progress import Progress, no_progress

Run = Callable[[JudgedModel, PublishedFolder, Bounds], Iterator[AcceptanceRow]]

_STREAMS = (files.STREAMS, files.ASR_SOUND, files.QUESTION)
_TURNS = (files.TURNS, files.TURN_HASHES, files.SUMMARY, files.QUESTION)
_FRAMES = (files.FRAMES, files.FRAMES_ORIGIN)
_COMMIT = re.compile("[0-9a-f]{40}")


@dataclass(frozen=True)
class AcceptanceStage:
    """One stage: what it runs, the files that it reads, and whether it needs the model's graphs."""

    run: Run
    files: tuple[str, ...]
    weights: bool = True


STAGES: dict[str, AcceptanceStage] = {
    "tokenizer": AcceptanceStage(weightless.tokenizer, (*_STREAMS, *_TURNS, files.TEXT_STEPS), weights=False),
    "prompts": AcceptanceStage(weightless.prompts, (*_STREAMS, *_TURNS, files.PROMPTS), weights=False),
    "log-mel": AcceptanceStage(
        weightless.log_mel, (files.QUESTION, files.ASR_SOUND, files.LOG_MEL, files.ASR_16K), weights=False
    ),
    "order": AcceptanceStage(weightless.order, (*_STREAMS, *_TURNS, *_FRAMES), weights=False),
    "spectra": AcceptanceStage(weightless.spectra, (files.CODEC_4, files.CODEC_8), weights=False),
    "encoder": AcceptanceStage(weighted.encoder, (files.QUESTION, files.ENCODER_ROWS)),
    "text": AcceptanceStage(weighted.text_steps, (files.TEXT_STEPS, files.ENCODER_ROWS)),
    "layers": AcceptanceStage(weighted.layers, (files.CONV_LAYER, files.ATTENTION_LAYER)),
    "depthformer": AcceptanceStage(weighted.depthformer, (files.FRAME, *_FRAMES)),
    "codec": AcceptanceStage(
        weighted.codec,
        (files.CODEC_4, files.CODEC_8, files.CODEC_REAL, *files.TURN_SOUNDS, *_STREAMS, *_TURNS),
    ),
    "streams": AcceptanceStage(weighted.forced, (*_STREAMS, files.ASR_16K)),
    "turns": AcceptanceStage(weighted.turns, (*_TURNS, *_FRAMES)),
    "transcript": AcceptanceStage(weighted.transcript, (*_STREAMS, files.ASR_16K)),
    "free-running": AcceptanceStage(weighted.free, (*_STREAMS, files.ASR_16K)),
}


def chosen_stages(names: Sequence[str]) -> dict[str, AcceptanceStage]:
    """The stages that were named, in order; all if none was.

    Raises:
        UsageError: one is not known.
    """
    unknown = sorted(set(names) - STAGES.keys())
    if unknown:
        raise UsageError(f"there is no stage {', '.join(unknown)}", f"Give one of: {', '.join(STAGES)}")
    return {name: stage for name, stage in STAGES.items() if not names or name in names}


def bounds_of(bundle: Manifest) -> Bounds:
    """The bounds of a bundle: those of float32 only if each graph has float32 weights."""
    return FLOAT32 if all(graph.precision == manifest.FLOAT32 for graph in bundle.graphs.values()) else QUANTISED


def check_published(bundle: Manifest, folder: PublishedFolder, stages: dict[str, AcceptanceStage]) -> str:
    """Refuse a folder that is no measure for this bundle, before anything is compared.

    Returns:
        The checkpoint's revision that the outputs are of.

    Raises:
        DataError: a file is missing or changed, or the files do not belong together; the message names each.
        UsageError: the bundle is of another checkpoint, or has another codec.
    """
    wanted = {name for stage in stages.values() for name in stage.files}
    revision = folder.check({files.STREAMS, *wanted})[files.STREAMS]  # arrays alone do not say what they are of
    source = bundle.source
    if _COMMIT.fullmatch(source.revision) and source.revision != revision:
        raise UsageError(
            f"the bundle is of {source.name} at revision {source.revision[:12]}, "
            f"and the published outputs are of revision {revision[:12]}",
            f"Export that revision: voxrill export {source.name} --revision {revision}",
        )
    if not bundle.model.codec.hop:
        raise UsageError(
            f"the bundle's codec is {bundle.model.codec.graph}, and the published outputs are of LFM2.5-Audio's own",
            "Give a bundle of LFM2.5-Audio-1.5B",
        )
    return revision


def accept(
    engine: Engine,
    folder: PublishedFolder,
    stages: dict[str, AcceptanceStage],
    progress: Progress = no_progress,
) -> Iterator[AcceptanceRow]:
    """Compare a loaded model with a folder that `check_published` let pass, stage by stage."""
    subject, bounds = JudgedModel(engine.parts, engine.manifest.tasks), bounds_of(engine.manifest)
    for number, (name, stage) in enumerate(stages.items()):
        progress(name, number, len(stages))
        try:
            yield from stage.run(subject, folder, bounds)
        except (AudioFileError, ContextFull) as limit:  # a bundle of fixed shapes may be too small for a sound
            yield AcceptanceRow(name, "the rest", note=str(limit))
