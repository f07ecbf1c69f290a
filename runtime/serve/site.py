"""GET /web/: a site that `voxrill web` wrote, whose pages run the model in the browser.

Its files hold nothing secret and need no key. The headers let its pages use several threads.
"""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from voxrill.runtime.errors import UsageError
from voxrill.runtime.upkeep.web_site import SITE_FILE

PATH = "/web"

_HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "X-Content-Type-Options": "nosniff",
    "Permissions-Policy": "microphone=(self)",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_MEDIA = {".mjs": "text/javascript", ".wasm": "application/wasm", ".webmanifest": "application/manifest+json"}


class _Site(StaticFiles):
    async def get_response(self, path: str, scope: Scope) -> Response:
        """The file's answer, with our headers; its type does not depend on what this machine knows of endings."""
        answer = await super().get_response(path, scope)
        answer.headers.update(_HEADERS)
        if (media := _MEDIA.get(Path(path).suffix)) is not None and answer.status_code == 200:
            answer.headers["Content-Type"] = media
        return answer


def check_site(folder: Path) -> None:
    """Refuse a folder that is no site.

    Raises:
        UsageError: `voxrill web` did not write it.
    """
    if not (folder / SITE_FILE).is_file():
        raise UsageError(f"{folder} is not a site", f"Write one: voxrill web -o {folder}")


def site_routes(folder: Path | None) -> list[Mount]:
    """The route of the site in a folder; none without one."""
    return [] if folder is None else [Mount(PATH, _Site(directory=folder, html=True, follow_symlink=False))]
