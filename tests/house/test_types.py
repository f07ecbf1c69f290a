"""Types that a caller sees: keywords have names and types, and what `make types` reads is there to be read."""

import ast

from tests.house.test_rooms import modules
from tests.places import ROOT

OVERRIDES = {"render_str", "print"}
"""Methods whose keywords are those of the library's method that they replace."""


def public_functions(tree):
    """Functions of a module, and methods of its classes, whose names have no underscore in front; and `__init__`."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and (node.name == "__init__" or not node.name.startswith("_")):
            yield node


def untyped_keywords():
    for module, path in modules().items():
        for function in public_functions(ast.parse(path.read_text(encoding="utf-8"))):
            keywords = function.args.kwarg
            if keywords is None or function.name in OVERRIDES:
                continue
            if keywords.annotation is None or ast.unparse(keywords.annotation) in ("Any", "object"):
                yield f"{module}.{function.name}(**{keywords.arg})"


def test_public_keywords_are_typed():
    assert not list(untyped_keywords())


def test_the_calls_for_the_type_checker_are_good_and_bad():
    calls = (ROOT / "tests" / "typing" / "calls.py").read_text(encoding="utf-8")
    good, _, bad = calls.partition("# Bad calls\n")
    assert "pyright: ignore" not in good.partition('"""\n\n')[2]
    assert bad and all("# pyright: ignore[" in line for line in bad.splitlines() if line)
    ast.parse(calls)
