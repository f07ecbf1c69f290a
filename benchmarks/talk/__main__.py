"""`python -m benchmarks.talk`. Every error is one line."""

import sys

from benchmarks.talk.commands import app
from voxrill.runtime.errors import VoxrillError

try:
    app(prog_name="python -m benchmarks.talk")
except VoxrillError as error:
    sys.exit(f"benchmarks.talk: {error}")
