"""The end of a turn by meaning: which model tells it, if any, and what it says at a pause.

In: the caller's wish (`timer`, `auto`, `hub` or a file), later the sound of a turn up to a pause. Out: how many seconds
of silence end the turn: few where the model takes it to be finished, more than usual where it does not. Where there is
no model, it is always the same silence.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from voxrill.runtime.audio.endpointing import EndpointOptions, Patience
from voxrill.runtime.audio.protocols import Floats
from voxrill.runtime.audio.turn_model import TurnModel
from voxrill.runtime.errors import DataError, UsageError, needs_extra
from voxrill.runtime.user_folders import user_cache

TIMER, AUTO, HUB = "timer", "auto", "hub"

HUB_ID = "pipecat-ai/smart-turn-v3"
FILE = "smart-turn-v3.2-cpu.onnx"
"""What `hub` fetches, 8.7 MB: Smart Turn 3.2 in 8 bits."""

_PACKAGE, _IN_PACKAGE = "pipecat", Path("audio", "turn", "smart_turn", "data")
"""The package pipecat-ai brings the file. It is looked for without importing the package, which is large."""

LATE = 2
"""Judgements in a row that came too late before a model is given up: one may be another program's fault."""

REST = 60.0
"""Seconds before a model that was given up is asked once more, twice as many each time that it is late again: many
streams may have asked it at once."""

_NO_MODEL = "Install pipecat-ai, which brings one, or fetch it with --end-of-turn hub, or give its file"

NONE_FOUND = f"No end-of-turn model was found, so silence ends a turn. {_NO_MODEL}"


FinishedModel = Callable[[Floats], float]
"""The probability that the speaker of a sound (n,) at 16 kHz has finished; such as a `TurnModel`."""

EndOfTurnWish = str | os.PathLike[str] | FinishedModel
"""What tells the end of a turn: `timer`, `auto`, `hub`, a file, or a model of the caller's own."""


class PauseJudge(Protocol):
    """Says at a pause how long the turn may be silent."""

    def __call__(self, sound: Floats, options: EndpointOptions) -> float | None:
        """The seconds of silence that end the turn; None for the usual ones.

        Args:
            sound: the turn so far, (n,) at 16 kHz.
            options: how turns of this stream end.
        """


class TimelyModel:
    """A model that is given up if it is slower than the silence that ends a turn without it. Streams may share it.

    Args:
        model: see `FinishedModel`.
        tell: takes the sentence that the model is given up, once.
        clock: seconds.
    """

    def __init__(
        self,
        model: FinishedModel,
        tell: Callable[[str], None] = lambda _sentence: None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._model, self._tell, self._clock = model, tell, clock
        self._late = 0
        self._rests_until = -math.inf
        self._told = False

    def __call__(self, sound: Floats, options: EndpointOptions) -> float | None:
        """The probability that the speaker of a sound (n,) at 16 kHz has finished; None if the model was given up.

        Raises:
            UsageError: the model says what is no probability.
        """
        started = self._clock()
        if started < self._rests_until:
            return None
        probability = self._model(sound)
        if not 0 <= probability <= 1:  # also where it is no number
            problem = f"the end-of-turn model says {probability}, which is no probability"
            raise UsageError(problem, "Give one that returns numbers from 0 to 1")
        now = self._clock()
        self._late = 0 if now - started < options.within else self._late + 1
        if self._late >= LATE:
            self._give_up(now, now - started)
        return probability

    def _give_up(self, now: float, took: float) -> None:
        self._rests_until = now + REST * 2 ** (self._late - LATE)
        if not self._told:
            self._told = True
            self._tell(
                f"The end-of-turn model takes {1000 * took:.0f} ms here, longer than the silence it is to save: "
                "silence ends turns, and the model is tried again now and then"
            )


class EndOfTurn:
    """The judge that has patience with a turn which its model takes to be unfinished."""

    def __init__(self, model: TimelyModel) -> None:
        self._model = model

    def __call__(self, sound: Floats, options: EndpointOptions) -> float | None:
        """See `PauseJudge`."""
        probability = None if options.patience is None else self._model(sound, options)
        return None if probability is None or options.patience is None else options.patience.silence(probability)


def find_model(wish: EndOfTurnWish | None) -> FinishedModel | None:
    """The model that a caller wishes.

    Args:
        wish: `timer` or None for none; `auto` for the file in the cache or in an installed package; `hub` to fetch it
            into the cache; a file; or the model itself.

    Returns:
        The model; None where silence alone is to end turns.

    Raises:
        DataError: the file is none that is known, or cannot be fetched.
        MissingDependency: `hub` without the extra `hub`.
    """
    if wish is None or wish == TIMER:
        return None
    if wish == AUTO:
        path = installed()
        return None if path is None else TurnModel(path)
    if not isinstance(wish, str | os.PathLike):
        return wish
    path = _fetched() if wish == HUB else Path(wish).expanduser()
    if not path.is_file():
        raise DataError(f"There is no end-of-turn model {str(wish)!r}", f"Give a file, {AUTO}, {HUB} or {TIMER}")
    return TurnModel(path)


def with_patience(options: EndpointOptions, model: FinishedModel | None, patience: float | None) -> EndpointOptions:
    """The options of turns whose pauses `model` judges. patience: None for the usual one.

    Raises:
        UsageError: there is no model that could take a turn to be unfinished.
    """
    if model is not None:
        least = min(Patience.least, options.endpoint)  # who wants a shorter silence gets it
        return replace(options, patience=Patience(least, Patience.most if patience is None else patience))
    if patience is not None:
        raise UsageError("patience is for turns that a model takes to be unfinished, and there is no model", _NO_MODEL)
    return options


def installed() -> Path | None:
    """The model's file in the cache or in an installed package, if it lies there."""
    return next((path for path in (_cache() / FILE, *_in_packages()) if os.path.isfile(path)), None)


def _in_packages() -> list[Path]:
    """The files of the installed package, the newest version first."""
    spec = find_spec(_PACKAGE)
    folders = (spec.submodule_search_locations if spec is not None else None) or ()
    files = [file for folder in folders for file in Path(folder, _IN_PACKAGE).glob("smart-turn-v3*.onnx")]
    return sorted(files, reverse=True)


def _cache() -> Path:
    return user_cache() / "end-of-turn"


def _fetched() -> Path:
    """The model's file in the cache, fetched from the hub if it is not there.

    Raises:
        DataError: the hub cannot be reached, or does not have it.
        MissingDependency: the extra is not installed.
    """
    path = _cache() / FILE
    if path.is_file():
        return path
    with needs_extra("hub"):
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError
    try:
        return Path(hf_hub_download(HUB_ID, FILE, local_dir=_cache()))
    except Exception as error:  # the hub's client raises classes of several packages
        lines = str(error).strip().splitlines() or [type(error).__name__]
        reason = "the hub cannot be reached" if isinstance(error, LocalEntryNotFoundError) else lines[0]
        raise DataError(
            f"{FILE} cannot be fetched from {HUB_ID}: {reason}",
            "Connect to the network, or install pipecat-ai, or give the file: --end-of-turn FILE",
        ) from None
