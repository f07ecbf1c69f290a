"""GET /: a page in the browser that talks to the device.

Out: the files of `page/`. They are read when the server starts, so that no path of a request touches the file system.
They hold nothing secret and need no key; the page asks its user for the key. The browser is told to run and fetch only
what this server sends, and never to read text as markup.
"""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_MEDIA = {"html": "text/html", "css": "text/css", "svg": "image/svg+xml", "js": "text/javascript"}
_SCRIPTS = (
    "main",
    "talk",
    "connection",
    "sound",
    "capture",
    "playback",
    "resampler",
    "transcript",
    "facts",
    "latency",
    "choices",
)

_FILES = {"/": "index.html"} | {
    f"/page/{name}": name for name in ("style.css", "icon.svg", *(f"{script}.js" for script in _SCRIPTS))
}
"""The file of each path."""

PATHS = tuple(_FILES)
"""What a browser loads before its user can give a key."""

_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            "script-src 'self'",
            "style-src 'self'",
            "img-src 'self'",
            "connect-src 'self'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    ),
    "Permissions-Policy": "microphone=(self)",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # files of two versions of this server may not fit each other
}


def routes() -> list[Route]:
    """The page's routes, one for each file."""
    folder = resources.files("voxrill.runtime.serve") / "page"
    return [_route(path, (folder / name).read_bytes(), _MEDIA[name.split(".")[1]]) for path, name in _FILES.items()]


def _route(path: str, content: bytes, media: str) -> Route:
    async def endpoint(_request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media)

    return Route(path, endpoint, methods=["GET"])
