"""Make the README's links absolute, so that they work where PyPI shows it.

The README does not name its repository. So the one who publishes gives the address: .github/workflows/publish.yml does.

    python .ci/absolute_links.py https://github.com/OWNER/NAME v0.2.0
"""

import re
import sys
from pathlib import Path

LINK = re.compile(r"(!?)(\[[^\]]*\])\((?![a-z]+:|#)([^)\s]+)\)")


def absolute(text: str, repository: str, revision: str) -> str:
    """Markdown whose links into the repository work from anywhere.

    Args:
        text: with links relative to the repository's root.
        repository: its address.
        revision: a tag or a commit, so that a published page never changes.
    """

    def link(found: re.Match[str]) -> str:
        picture, words, path = found.groups()
        return f"{picture}{words}({repository.rstrip('/')}/{'raw' if picture else 'blob'}/{revision}/{path})"

    return LINK.sub(link, text)


if __name__ == "__main__":
    readme = Path("README.md")
    readme.write_text(absolute(readme.read_text(encoding="utf-8"), *sys.argv[1:]), encoding="utf-8")
