"""GET /: a page that talks to the device from a browser.

Out: the files of `page/`, which are read when the server starts: no path of a request touches the file system. They
hold nothing secret, so they need no key; the page asks its user for it. The browser is told to run and fetch nothing
but what this server sends, and to make no markup of text.
"""

from __future__ import annotations

from importlib import resources

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

_FILES = {
    "/": ("index.html", "text/html"),
    "/page/style.css": ("style.css", "text/css"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
    "/page/main.js": ("main.js", "text/javascript"),
    "/page/talk.js": ("talk.js", "text/javascript"),
    "/page/connection.js": ("connection.js", "text/javascript"),
    "/page/sound.js": ("sound.js", "text/javascript"),
    "/page/transcript.js": ("transcript.js", "text/javascript"),
    "/page/facts.js": ("facts.js", "text/javascript"),
    "/page/capture.js": ("capture.js", "text/javascript"),
    "/page/playback.js": ("playback.js", "text/javascript"),
    "/page/resampler.js": ("resampler.js", "text/javascript"),
}

PATHS = tuple(_FILES)
"""What a browser asks for before its user can give a key."""

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
    "Cache-Control": "no-cache",  # of another version of this server, they need not fit each other
}


def routes() -> list[Route]:
    """The page's routes, one a file."""
    folder = resources.files("voxrill.runtime.serve") / "page"
    return [_route(path, (folder / name).read_bytes(), media) for path, (name, media) in _FILES.items()]


def _route(path: str, content: bytes, media: str) -> Route:
    async def endpoint(_request: Request) -> Response:
        return Response(content, headers=_HEADERS, media_type=media)

    return Route(path, endpoint, methods=["GET"])
