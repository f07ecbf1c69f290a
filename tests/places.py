"""Where things lie in the repository."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

PEBBLE = ROOT / "src" / "voxrill" / "pebble" / "bundle"
"""The built-in bundle."""

PEBBLE_CHECKPOINT = ROOT / "pebble" / "checkpoint"
"""The checkpoint it was exported from."""

CLIPS = ROOT / "tests" / "pebble"
"""Clips that Pebble's training never saw."""

QUESTION = ROOT / "examples" / "question.wav"
"""A spoken question."""

SNIPPET_PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *(str(path.relative_to(ROOT)) for path in sorted((ROOT / "docs").rglob("*.md"))),
]
"""The README, how to contribute, and the pages of docs/."""
