"""Where Voxrill keeps what it can make or fetch again."""

from __future__ import annotations

from pathlib import Path

import platformdirs


def user_cache() -> Path:
    """Voxrill's folder in the user's cache; it may not exist yet."""
    return Path(platformdirs.user_cache_dir("voxrill", appauthor=False))
