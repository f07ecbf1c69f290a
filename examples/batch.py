"""Every recording of a folder in words, with the times of its segments: a line of JSON for each.

    python examples/batch.py RECORDINGS >words.jsonl

A file that cannot be read is told on stderr, and the others go on.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import voxrill

SUFFIXES = {".wav", ".flac", ".mp3", ".ogg", ".opus"}


def main(folder: Path) -> None:
    """Transcribe `folder`."""
    with voxrill.load() as model:
        for path in sorted(folder.rglob("*")):
            if path.suffix.lower() not in SUFFIXES:
                continue
            try:
                transcript = model.transcribe(path)
            except voxrill.AudioFileError as error:
                print(error, file=sys.stderr)
                continue
            print(json.dumps({"file": str(path), **transcript.as_json()}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
