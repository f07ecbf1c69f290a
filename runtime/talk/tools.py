"""What a turn may call instead of being answered: the words of it are a command, and what comes of it is said.

In: a turn, as sound or text. Out: the call that it means, or None. Nothing is run before the turn is certainly over.
The applications implement this (`apps/talk_tools.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from voxrill.runtime.audio.protocols import Floats


@dataclass(frozen=True)
class FoundCall:
    """A call that a turn means: its name, its arguments, and `run`, which returns what is to be said of it."""

    name: str
    arguments: Mapping[str, Any]
    run: Callable[[], str]


class TalkTools(Protocol):
    """Finds the call in a turn."""

    def find(self, audio: Floats | None, text: str | None) -> FoundCall | None:
        """The call that a turn means: sound (n,) at 16 kHz, or text. None if it means none.

        Raises:
            VoxrillError: the model cannot take the turn.
        """
