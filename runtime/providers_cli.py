"""The command that says which execution provider does what: providers.

The table or JSON goes to stdout, everything else to stderr.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from rich.console import Console
from rich.table import Table

from voxrill.runtime.cli import (
    BundleArgument,
    JsonOption,
    ProviderOption,
    StrictOption,
    ThreadsOption,
    open_model,
    print_json,
)
from voxrill.runtime.provider_report import Share, report

_NAMED = 4
"""Operators of a graph that are named in the table; JSON has all."""

_out = Console(highlight=False, markup=False, emoji=False)


def register(app: typer.Typer) -> None:
    """Add this command to the command line."""
    app.command()(providers)


def providers(
    bundle: BundleArgument = None,
    provider: ProviderOption = None,
    strict: StrictOption = False,
    threads: ThreadsOption = 0,
    json: JsonOption = False,
) -> None:
    """Run every graph, and show which nodes each execution provider took and how long they take."""
    with TemporaryDirectory(prefix="voxrill-") as folder:
        shares = report(open_model(bundle, threads, provider, strict, profile=Path(folder)))
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
        _out.print(_table(shares))


def _table(shares: list[Share]) -> Table:
    table = Table(title="a call of each graph, by provider", title_justify="left", title_style="bold")
    for column in ("graph", "provider", "nodes", "ms", "operators"):
        table.add_column(column, overflow="fold", justify="right" if column in ("nodes", "ms") else "left")
    for share in shares:
        operators = [f"{operator} {count}" for operator, count in share.nodes.most_common(_NAMED)]
        more = [f"{len(share.nodes) - _NAMED} more"] if len(share.nodes) > _NAMED else []
        row = (share.graph, share.provider, str(share.nodes.total()), f"{share.milliseconds:.2f}")
        table.add_row(*row, ", ".join([*operators, *more]))
    return table
