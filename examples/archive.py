"""Transcribe an archive with a Dask cluster: as `voxrill transcribe FOLDER -o FILE`, on several machines.

    pip install "voxrill[archive]"
    python examples/archive.py FOLDER -o all.jsonl                                # processes of this machine
    python examples/archive.py FOLDER -o all.jsonl --scheduler tcp://host:8786    # your cluster

A cluster is made by `dask scheduler` and `dask worker`.

Every worker needs this version of Voxrill, and FOLDER and the bundle under the same names. A second run continues: it
skips the sounds that are in the file. If a worker is lost, Dask gives its sounds to another.
"""

from __future__ import annotations

import argparse
from functools import cache
from pathlib import Path
from threading import Event
from typing import Any

from distributed import Client, LocalCluster, as_completed

import voxrill
from voxrill.runtime.apps.batch import Record, ResultsFile, hashed, made_with, record_of, short_hash
from voxrill.runtime.audio.sound_folder import sound_files

WISHED: dict[str, Any] = {}
"""Options of `Model.transcribe_stream`."""


@cache
def model(bundle: str | None) -> voxrill.Model:
    """A worker's model; it is loaded once."""
    return voxrill.load(bundle, threads=1)


def transcribed(path: Path, sha256: str, made: str, bundle: str | None) -> Record:
    """One sound's record, made by a worker."""
    record = record_of(model(bundle), path, sha256, made, WISHED, Event())
    assert record is not None
    return record


def main() -> None:
    """Give the workers the sounds that are missing in the file, and write their records as they come."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    parser.add_argument("--bundle", help="folder of a bundle; without one, the built-in model")
    parser.add_argument("--scheduler", help="address of a cluster; without one, processes of this machine")
    parser.add_argument("--workers", type=int, default=2, help="processes of this machine")
    wish = parser.parse_args()
    made = short_hash(made_with(model(wish.bundle).bundle, WISHED))
    cluster = wish.scheduler or LocalCluster(n_workers=wish.workers, threads_per_worker=1, dashboard_address=None)
    with Client(cluster) as client, ResultsFile(wish.out, made) as results:
        asked = [one for one in hashed(sound_files(wish.folder.absolute())) if not results.has(*one)]
        futures = client.map(transcribed, *zip(*asked, strict=True), made=made, bundle=wish.bundle) if asked else []
        for _, record in as_completed(futures, with_results=True):
            results.add(record)
            print(record["file"], record.get("error") or record["text"], sep="\t", flush=True)


if __name__ == "__main__":
    main()
