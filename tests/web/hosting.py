"""Node with its packages, the site of Pebble, and a plain web server for it."""

import functools
import http.server
import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.places import ROOT

WEB = ROOT / "web"
MODULES = WEB / "node_modules"
NODE = shutil.which("node")

needs_node = pytest.mark.skipif(
    NODE is None or not (MODULES / ".installed").is_file(), reason="Node or its packages are missing: make web"
)


def node(*arguments, environment=None, timeout=600):
    """Run Node in web/; its output, if it ended well."""
    ran = subprocess.run(
        [NODE, *map(str, arguments)],
        cwd=WEB,
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
    return ran.stdout


PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


class _Plain(http.server.SimpleHTTPRequestHandler):
    """A simple server's answers. `asked` are the paths; `broken` says of which of them only half is sent."""

    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments, asked, broken, headers, **named):
        self.asked, self.broken, self.of_all = asked, broken, headers
        super().__init__(*arguments, **named)

    def end_headers(self):
        for name, value in self.of_all.items():
            self.send_header(name, value)
        super().end_headers()

    def copyfile(self, source, outputfile):
        path = self.path.lstrip("/")
        self.asked.append(path)
        if not self.broken(path):
            return super().copyfile(source, outputfile)
        content = source.read()
        outputfile.write(content[: len(content) // 2])  # fewer bytes than Content-Length promised
        return None

    def log_message(self, *_arguments):
        pass


_ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


@contextmanager
def hosting(folder, asked=None, broken: Callable[[str], bool] = lambda _path: False, isolated=False):
    """Serve a folder as any simple server does; its address. Only `isolated` pages get headers for threads."""
    headers = _ISOLATED if isolated else {}
    asked = [] if asked is None else asked
    handler = functools.partial(_Plain, directory=folder, asked=asked, broken=broken, headers=headers)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def altered(site, folder, code: str) -> Path:
    """A copy of the site whose worker does something else first."""
    copy = shutil.copytree(site, folder / "site", copy_function=os.link)
    worker = copy / "runtime" / "talk" / "worker.js"
    original = worker.read_text()
    worker.unlink()
    worker.write_text(code + original)
    return copy
