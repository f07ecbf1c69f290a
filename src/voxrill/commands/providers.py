"""The command that says which execution provider does what: providers.

The table or JSON goes to stdout, everything else to stderr.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from voxrill.commands.options import (
    BundleArgument,
    JsonOption,
    Loading,
    loads_model,
)
from voxrill.commands.output import print_columns, print_json
from voxrill.runtime.upkeep.provider_report import Share, report

_NAMED = 4
"""Operators of a graph that are named in the table; JSON has all."""

_HEADER = ("graph", "provider", "nodes", "ms a call", "operators")


@loads_model
def providers(
    bundle: BundleArgument = None,
    loading: Loading = Loading(),
    json: JsonOption = False,
) -> None:
    """Show which nodes each execution provider took, and their time."""
    with TemporaryDirectory(prefix="voxrill-") as folder:
        shares = report(loading.model(profiling=Path(folder)))
    if json:
        print_json(
            [
                {
                    "graph": share.graph,
                    "provider": share.provider,
                    "nodes": share.nodes,
                    "ms": round(share.milliseconds, 3),
                }
                for share in shares
            ]
        )
    else:
        print_columns([_HEADER, *map(_cells, shares)])


def _cells(share: Share) -> tuple[str, ...]:
    """One line of the table."""
    operators = [f"{operator} {count}" for operator, count in share.nodes.most_common(_NAMED)]
    more = [f"{len(share.nodes) - _NAMED} more"] if len(share.nodes) > _NAMED else []
    counts = (str(share.nodes.total()), f"{share.milliseconds:.2f}")
    return (share.graph, share.provider, *counts, ", ".join([*operators, *more]))
