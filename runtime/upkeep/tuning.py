"""Tuning: write the tuned form of a bundle, for the processor this runs on.

In: an opened bundle. Out: a folder in the user's cache, and a `TuneReport` of the gain. It is made only of files that
have the manifest's hashes, and kept only if it gives the very bits that the bundle itself gives.
"""

from __future__ import annotations

import gc
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from voxrill.devices.kernels import own_products, register
from voxrill.devices.memory import available_memory, private_memory
from voxrill.devices.pages import gains
from voxrill.devices.providers import CPU, FATAL_ONLY, data_file, tuning_options
from voxrill.runtime.audio.tone import tone
from voxrill.runtime.bundle.atomic_folder import atomic_folder, flush, write_errors
from voxrill.runtime.bundle.bundle import Bundle, hash_file, verify_files
from voxrill.runtime.bundle.few_bits import has_own_attention, has_products
from voxrill.runtime.bundle.memory import check_memory, memory_needed
from voxrill.runtime.bundle.tuned import (
    PLAIN,
    TUNED_FILE,
    TunedFile,
    TunedForm,
    WrittenFile,
    fingerprint,
    is_repacked,
    key_of,
    tuned_folder,
)
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.engine.sampling import Sampler
from voxrill.runtime.engine.session import loads
from voxrill.runtime.errors import BundleError
from voxrill.runtime.progress import Progress, no_progress
from voxrill.runtime.upkeep.threads import TURNS, Timings, best, mapped_and_copied, sweep

_WORTH = 0.95
"""Copied weights must save 5 % of the time to be worth the memory, which the system cannot drop and no other process
can share."""

_PER_WEIGHT = 2.3
"""Bytes written for each byte of a graph's file: the weights as they were and repacked."""


@dataclass(frozen=True)
class Load:
    """What loading took: seconds, and bytes of private memory (None where the system does not say)."""

    seconds: float
    private: int | None


@dataclass(frozen=True)
class TuneReport:
    """What tuning gained. graphs: those that were tuned; size: bytes written; loads before and after.

    answers: milliseconds of an answer with weights that are "mapped" and "copied" onto huge pages; empty if they were
    not compared. Where copied ones are faster, no graph is tuned, and only the number of threads is kept.
    """

    folder: Path
    graphs: list[str]
    size: int
    before: Load
    after: Load
    threads: int
    timings: Timings
    answers: dict[str, float]


def tune(bundle: Bundle, progress: Progress = no_progress) -> TuneReport:
    """Write the tuned form of `bundle`, in place of one that is there.

    Raises:
        BundleError: a file of the bundle was changed; or the form cannot be written (no home, no permission, a full
            disk), gives other numbers, or Ctrl-C, and the bundle works as before.
        NotEnoughMemory: the model would not fit.
    """
    check_memory(bundle)
    graphs = [name for name in bundle.manifest.graphs if is_repacked(bundle.manifest, name)]
    compared = _worth_comparing(bundle)
    total = 1 + len(graphs) + 1 + TURNS * (2 if compared else 1)
    steps = iter(range(total))

    def step(what: str) -> None:
        progress(what, next(steps), total)

    target = tuned_folder(bundle.directory)
    step("checking")
    verify_files(bundle)
    with write_errors(target, "the bundle works without it"), atomic_folder(target) as folder:
        folder.chmod(0o700)  # what others could write would not be used
        _check_room(bundle, graphs, folder)
        form = TunedForm()
        for name in graphs:
            step(name)
            file = bundle.path(bundle.manifest.graphs[name].file)
            if _write(file, folder):
                form = TunedForm({**form.graphs, name: folder / file.name})
        step("comparing")
        before, after = _compared(bundle, form)
        timings = sweep(bundle, form, step)
        answers: dict[str, float] = {}
        if compared:
            answers = dict(zip(("mapped", "copied"), mapped_and_copied(bundle, form, best(timings), step), strict=True))
            if answers["copied"] < _WORTH * answers["mapped"]:
                for path in folder.iterdir():
                    path.unlink()
                form, after = TunedForm(), before
        written = _finish(bundle, form, folder, timings)
    size = sum(file.fingerprint.size for file in written.files.values())
    return TuneReport(target, list(form.graphs), size, before, after, written.threads, timings, answers)


def _worth_comparing(bundle: Bundle) -> bool:
    """Whether weights would come to lie on huge pages when they are copied, and there is memory to copy them."""
    available = available_memory()
    room = available is None or available >= 2 * memory_needed(bundle.manifest)
    return room and gains(bundle.manifest.size)


def _check_room(bundle: Bundle, graphs: list[str], folder: Path) -> None:
    size = sum(map(bundle.manifest.graph_size, graphs))
    needed, free = round(_PER_WEIGHT * size), shutil.disk_usage(folder).free
    if free < needed:
        raise BundleError(
            f"tuning writes about {needed / 1e9:.1f} GB into {folder.parent}, and {free / 1e9:.1f} GB are free",
            "Free some space; the bundle works without it",
        )


def _write(graph: Path, folder: Path) -> bool:
    """Write one tuned graph: onnxruntime does it while it makes a session.

    False if its 8-bit products cannot be exact here. It is then loaded from the bundle, where every load warns of it.
    """
    target = folder / graph.name
    try:
        try:
            own = own_products().fast and (has_products(graph) or has_own_attention(graph))
            _open_to_write(graph, target, own)
        except Exception:  # our products do not take this graph
            _open_to_write(graph, target, own=False)
    except Exception:  # onnxruntime raises a class per status, and says nothing of the cause
        if not loads(graph, exact=True) and loads(graph, exact=False):
            return False
        raise OSError(None, f"onnxruntime could not write {target.name}") from None
    if not (target.is_file() and data_file(target).is_file()):
        raise OSError(None, f"onnxruntime {ort.__version__} wrote no {target.name}")
    return True


def _open_to_write(graph: Path, target: Path, own: bool) -> None:
    options = tuning_options(target)
    options.log_severity_level = FATAL_ONLY
    if own:
        register(options)
    ort.InferenceSession(str(graph), sess_options=options, providers=[CPU])


def _compared(bundle: Bundle, form: TunedForm) -> tuple[Load, Load]:
    """Load the bundle without and with its tuned form; both must give the same bits."""
    before, wanted = _loaded(bundle, PLAIN)
    after, found = _loaded(bundle, form)
    if not all(np.array_equal(a, b) for a, b in zip(wanted, found, strict=True)):
        raise BundleError(
            "the tuned form gives other numbers than the bundle", "Nothing was kept; the bundle works without it"
        )
    return before, after


def _loaded(bundle: Bundle, form: TunedForm) -> tuple[Load, list[NDArray[Any]]]:
    gc.collect()
    memory, start = private_memory(), time.perf_counter()
    model = Engine(bundle, 1, form)
    seconds, now = time.perf_counter() - start, private_memory()
    taken = None if memory is None or now is None else max(0, now - memory)
    return Load(seconds, taken), outputs(model)


def outputs(model: Engine) -> list[NDArray[Any]]:
    """What every graph of a model gives for the same sound: hidden states, logits, codes, samples."""
    context = model.conversation().context
    with context.turn("user"):
        context.add_audio(tone(0.5))
    hidden = context.hidden_states()
    codes = context.frame(hidden[-1], model.manifest.tasks.chat.audio, Sampler(0))
    frame = np.minimum(codes, context.end_of_audio - 1)[:, None]
    context.add_frames(frame)
    step = context.advance()
    sound = model.codec.decode(np.repeat(frame, 3, 1))
    return [hidden, codes, model.parts.depthformer.logits(step, codes), step, context.logits(step), sound]


def _finish(bundle: Bundle, form: TunedForm, folder: Path, timings: Timings) -> TunedFile:
    """Write the JSON file, last of all, when everything else is on the disk."""
    flush(folder)
    files = sorted(folder.iterdir())
    written = TunedFile(
        key_of(bundle),
        {name: path.name for name, path in form.graphs.items()},
        {file.name: WrittenFile(fingerprint(file), hash_file(file)) for file in files},
        best(timings),
        timings,
    )
    (folder / TUNED_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(written), indent=1) + b"\n")
    return written
