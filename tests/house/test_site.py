"""What docs/site.py makes of a page for the documentation site."""

import importlib.util
from types import SimpleNamespace

from tests.places import ROOT

_SPEC = importlib.util.spec_from_file_location("docs_site", ROOT / "docs" / "site.py")
SITE = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(SITE)


def shown(markdown, uri="guides/here.md"):
    """The page at `uri`, as mkdocs gets it."""
    page = SimpleNamespace(file=SimpleNamespace(src_uri=uri))
    known = [SimpleNamespace(src_uri=name) for name in ("index.md", "performance.md", uri)]
    return SITE.on_page_markdown(markdown, page, SimpleNamespace(repo_url=None), known)


def test_a_fence_keeps_its_language_alone():
    """Python-Markdown takes a fence with a second word for text, and the rest of the page with it."""
    assert shown("```py run\na = 1\n```\n\n```py\nb\n```\n") == "```py\na = 1\n```\n\n```py\nb\n```\n"


def test_links_become_those_of_the_site():
    assert shown("[all](../performance.md#talking)") == "[all](../performance.md#talking)"
    assert shown("[start](../../README.md)") == "[start](../index.md)"
    assert shown("[code](../../runtime/errors.py) here") == "code here"  # no address of the repository is known
    assert shown("```py\n[a](../../README.md)\n```") == "```py\n[a](../../README.md)\n```"
