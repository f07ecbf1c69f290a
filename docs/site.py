"""What mkdocs does not do by itself: reference pages made of the code, and links that lead out of docs/.

A page that lies elsewhere in the repository (README.md, pebble/README.md) becomes a page of the site. A picture comes
along. A link to any other file is followed only where `repo_url` of mkdocs.yml says where the repository is. Else its
text stays.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

ROOT = Path(__file__).resolve().parent.parent

ELSEWHERE = {
    "README.md": "index.md",
    "pebble/README.md": "models/pebble.md",
    "benchmarks/README.md": "benchmarks/index.md",
    "benchmarks/tables-lfm2.5.md": "benchmarks/tables.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "conduct.md",
    "SECURITY.md": "reporting.md",
    "CHANGELOG.md": "changelog.md",
}
"""Pages outside docs/, and what they are called on the site."""

_HOMES = {page: source for source, page in ELSEWHERE.items()}
_FENCED = re.compile(r"(^[ \t]*```.*?^[ \t]*```[ \t]*$)", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_INFO = re.compile(r"^([ \t]*```\w+) .*")
"""A fence with more than its language, such as `py run`: Python-Markdown would not see that code begins."""

_MARK = re.compile(r"^<!-- made of the code: (\w+) -->$", re.MULTILINE)


def on_files(files: Any, config: Any) -> Any:
    """Add the pages and pictures that lie outside docs/."""
    from mkdocs.structure.files import File

    pictures = [path for room in ("benchmarks", "pebble") for path in sorted((ROOT / room).rglob("*.png"))]
    found = ELSEWHERE | {str(path.relative_to(ROOT)): str(path.relative_to(ROOT)) for path in pictures}
    for source, page in found.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fill in what is generated, and turn links that are right in the repository into links of the site."""
    uri = page.file.src_uri
    known = {file.src_uri for file in files}
    markdown = _MARK.sub(lambda mark: GENERATED[mark[1]](), markdown)
    parts = _FENCED.split(markdown)  # every second part is code
    parts[1::2] = [_INFO.sub(r"\1", code) for code in parts[1::2]]
    parts[::2] = [_LINK.sub(lambda link: _resolved(link, uri, known, config.repo_url), part) for part in parts[::2]]
    return "".join(parts)


def _resolved(link: re.Match[str], uri: str, known: set[str], repository: str | None) -> str:
    """One link as it must be on the page `uri` of the site."""
    picture, text, whole = link.groups()
    target, hash_, anchor = whole.partition("#")
    if not target or ":" in target:
        return link[0]
    home = _HOMES.get(uri, f"docs/{uri}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(home), target))
    page = ELSEWHERE.get(path, path.removeprefix("docs/"))
    if page in known:
        return f"{picture}[{text}]({posixpath.relpath(page, posixpath.dirname(uri) or '.')}{hash_}{anchor})"
    if not (ROOT / path).exists():
        return link[0]  # mkdocs warns of it
    return f"[{text}]({repository.rstrip('/')}/blob/main/{path})" if repository else text


def _commands() -> str:
    """The help of every command, as `voxrill COMMAND --help` prints it."""
    import click

    from voxrill.commands.index import GROUPS, load_command

    def shown(command: Any, name: str) -> str:
        said = command.get_help(click.Context(command, info_name=name, terminal_width=100))
        inner = getattr(command, "commands", {})
        return f"### {name}\n\n```text\n{said}\n```\n\n" + "".join(
            shown(one, f"{name} {inside}") for inside, one in inner.items()
        )

    return "\n".join(
        f"## {group}\n\n" + "".join(shown(load_command(name), f"voxrill {name}") for name in entries)
        for group, entries in GROUPS.items()
    )


def _python() -> str:
    """A directive of mkdocstrings for each public name that is no error."""
    import voxrill
    from voxrill.runtime import errors

    names = [name for name in voxrill.__all__ if name not in errors.__all__ and name != "__version__"]
    names.sort(key=lambda name: (name not in ("load", "Model"), name))
    return "\n\n".join(f"::: voxrill.{name}" for name in names)


def _errors() -> str:
    """The docstring of every error, and the class it is a kind of."""
    import inspect

    from voxrill.runtime import errors

    kinds = [getattr(errors, name) for name in errors.__all__]
    return "\n\n".join(
        f"## {kind.__name__}\n\nA kind of `{kind.__base__.__name__}`. {inspect.getdoc(kind)}"
        for kind in kinds
        if isinstance(kind, type)
    )


def _routes() -> str:
    """Every path that the server's own OpenAPI document has, with the fields of what is sent."""
    import voxrill
    from voxrill.runtime.serve.openapi import document

    said = document(SimpleNamespace(model=voxrill.load()))  # type: ignore[arg-type]
    rows = ["| method | path | what |", "|---|---|---|"]
    rows += [
        f"| {method.upper()} | `{path}` | {operation.get('summary') or operation.get('description', '')} |"
        for path, methods in said["paths"].items()
        for method, operation in methods.items()
    ]
    schemas = said.get("components", {}).get("schemas", {})
    for name, schema in schemas.items():
        if name.endswith("Request"):
            rows += ["", f"## {name}", "", *(f"- `{field}`" for field in schema["properties"])]
    return "\n".join(rows)


GENERATED: dict[str, Callable[[], str]] = {
    "commands": _commands,
    "python": _python,
    "errors": _errors,
    "routes": _routes,
}
"""What a page's line `<!-- made of the code: NAME -->` becomes."""
