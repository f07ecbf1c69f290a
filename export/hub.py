"""A checkpoint from the Hugging Face hub: resumed after a break, pinned to a commit, or from the local cache only.

In: a hub id such as `LiquidAI/LFM2.5-Audio-1.5B`. Out: the folder it was downloaded to and the commit it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from voxrill.export.checkpoint import Checkpoint, has_weights
from voxrill.export.lfm3.gguf_pair import SUFFIX
from voxrill.export.opening import open_any
from voxrill.export.recognise import other_format
from voxrill.runtime.errors import CheckpointError, needs_extra

WANTED = ["*.json", "*.safetensors", "*.jinja", "LICENSE*", "audio_detokenizer/*", "audio_tokenizer/*"]
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_FAMILY = re.compile("lfm-?3.*audio", re.IGNORECASE)
_MOST_BITS = ("BF16", "F16", "F32", "Q8_0")
"""Kinds of blocks, as files are named after them, the best first: the published weights are bfloat16."""


def find_checkpoint(where: str, revision: str | None = None, offline: bool = False) -> Checkpoint:
    """Open a local folder, or download a hub id.

    Args:
        where: a folder, or a hub id.
        revision: branch, tag or commit of a hub id. The manifest records the commit.
        offline: use the hub's local cache only.

    Raises:
        CheckpointError: neither a folder nor something the hub has, or the download failed.
        MissingDependency: a hub id without the `hub` extra.
    """
    folder = Path(where)
    if folder.exists() or not _HUB_ID.fullmatch(where):
        if revision:
            raise CheckpointError(f"{where} is a folder: it has no revision {revision}", "Leave --revision out")
        return open_any(folder)
    directory = _download(where, revision, offline)
    if not has_weights(directory):
        pair = gguf_pair(where, _names_of(where, directory, offline))
        if pair and not all((directory / name).is_file() for name in pair):
            _download(where, directory.name, offline, pair)
        elif not pair:
            _refuse_other_format(where, directory, offline)
    return open_any(directory, name=where, revision=directory.name)


def _refuse_other_format(hub_id: str, directory: Path, offline: bool) -> None:
    """Say what the repository holds instead of weights. It was not downloaded, as it is not in `WANTED`."""
    refused = other_format(Path(hub_id), _names_of(hub_id, directory, offline))
    if refused:
        raise refused


def _names_of(hub_id: str, directory: Path, offline: bool) -> set[str]:
    """The files of a repository, those that were not downloaded among them, if the hub can be asked."""
    here = {path.name for path in directory.iterdir()} if directory.is_dir() else set()  # if nothing was downloaded
    return here if offline else here | _files_on_hub(hub_id, directory.name)


def gguf_pair(hub_id: str, names: Iterable[str]) -> list[str]:
    """The pair of GGUF files with the most bits in a repository of LFM3-Audio; empty if it has none."""
    found = sorted(name for name in names if name.lower().endswith(SUFFIX) and _FAMILY.search(f"{hub_id} {name}"))
    halves = [[name for name in found if ("mmproj" in name.lower()) == sound] for sound in (False, True)]
    return [min(half, key=_bits_of) for half in halves] if all(halves) else []


def _bits_of(name: str) -> int:
    """The place of a file's blocks among those with the most bits."""
    return next((place for place, kind in enumerate(_MOST_BITS) if kind in name.upper()), len(_MOST_BITS))


def _files_on_hub(hub_id: str, commit: str) -> set[str]:
    """The names of a repository's files; empty if the hub does not answer. They only make an error clearer."""
    from huggingface_hub import HfApi

    try:
        return {sibling.rfilename for sibling in HfApi().model_info(hub_id, revision=commit).siblings or []}
    except Exception:  # the hub's client raises classes of several packages
        return set()


def _download(hub_id: str, revision: str | None, offline: bool, wanted: list[str] = WANTED) -> Path:
    with needs_extra("hub"):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            HfHubHTTPError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
            RevisionNotFoundError,
        )
    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=offline, allow_patterns=wanted))
    except LocalEntryNotFoundError:
        raise CheckpointError(
            f"{hub_id} is not in the local cache and the hub cannot be reached",
            "Connect to the network, or download it elsewhere and give its folder",
        ) from None
    except RepositoryNotFoundError:  # also for a gated one: the hub does not say that it exists
        raise CheckpointError(
            f"{hub_id} is neither a folder here nor a repository of the hub that you may read",
            "Check its name. If it is private or gated, run first: hf auth login",
        ) from None
    except RevisionNotFoundError:
        raise CheckpointError(f"{hub_id} has no revision {revision}", "Give a branch, tag or commit of it") from None
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{hub_id} cannot be downloaded ({str(error).splitlines()[0]})",
            "Run the same command again to resume",
        ) from None
