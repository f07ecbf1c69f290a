"""A release: one version and one day, a changelog in its form, links that work where PyPI shows the README."""

import re
import subprocess
import sys

from tests.places import ROOT
from voxrill.runtime.version import VERSION

CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_is_in_its_form():
    versions = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert versions[0] == "[Unreleased]"
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", version) for version in versions[1:])
    assert set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE)) <= KINDS


def test_the_newest_version_and_its_day():
    version, day = re.search(r"^## \[(\d.*)\] - (\S+)$", CHANGELOG, re.MULTILINE).groups()
    assert version == VERSION
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {VERSION}\n" in citation and f"\ndate-released: {day}\n" in citation


def test_links_are_absolute_where_the_readme_is_published(tmp_path):
    (tmp_path / "README.md").write_text(README, encoding="utf-8")
    script = [sys.executable, ROOT / ".ci" / "absolute_links.py", "https://example.org/a/b/", "v1"]
    subprocess.run(script, cwd=tmp_path, check=True)
    before, after = (
        re.findall(r"\]\(([^)\s]+)\)", text) for text in (README, (tmp_path / "README.md").read_text("utf-8"))
    )
    assert len(before) == len(after) > 10
    for path, address in zip(before, after, strict=True):
        assert (ROOT / path.partition("#")[0]).exists()
        kind = "raw" if path.endswith((".svg", ".png")) else "blob"
        assert address == f"https://example.org/a/b/{kind}/v1/{path}"
