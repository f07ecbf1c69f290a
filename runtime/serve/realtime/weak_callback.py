"""Callbacks that do not keep their object alive.

The parts of a session call back to it. With plain bound methods, session and parts would hold each other, and all their
memory would stay until Python's cycle collector runs. With these it is freed when the session ends.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec
from weakref import WeakMethod

P = ParamSpec("P")


def weak_callback(method: Callable[P, None]) -> Callable[P, None]:
    """A function that calls a bound method as long as its object is there, and does nothing afterwards."""
    reference = WeakMethod(method)

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        found = reference()
        if found is not None:
            found(*args, **kwargs)

    return call
