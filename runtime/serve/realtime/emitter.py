"""Events to one client, in its dialect, and the ids in them."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Callable
from typing import Any

import msgspec

from voxrill.runtime.serve.realtime.messages import BETA_NAMES, BETA_UNKNOWN

Emit = Callable[..., None]
"""Sends an event: its type, and its fields by name."""


def new_id(kind: str) -> str:
    """An id that nothing else has, such as `item_1f0e...`."""
    return f"{kind}_{secrets.token_hex(10)}"


class Emitter:
    """Sends events of one session, in the client's dialect. May be called from any thread.

    Args:
        beta: use OpenAI's names from before 2025.
        put: takes an encoded event.
    """

    def __init__(self, beta: bool, put: Callable[[bytes], None]) -> None:
        self._beta = beta
        self._put = put
        self._numbers = itertools.count(1)

    def __call__(self, kind: str, **fields: Any) -> None:
        """Send an event: its type by its present name, and its fields."""
        if self._beta:
            if kind in BETA_UNKNOWN:
                return
            kind = BETA_NAMES.get(kind, kind)
        self._put(msgspec.json.encode({"type": kind, "event_id": f"event_{next(self._numbers)}", **fields}))
