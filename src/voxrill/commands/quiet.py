"""Whether notes and progress are shown: -q and --quiet leave only warnings, errors and what was asked for."""

from __future__ import annotations

_wanted = False


def be_quiet(wanted: bool) -> None:
    """Show no notes and no progress from now on, or show them again."""
    global _wanted
    _wanted = wanted


def is_quiet() -> bool:
    """Whether -q was given."""
    return _wanted
