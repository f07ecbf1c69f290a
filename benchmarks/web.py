"""The runtime for browsers in headless Chromium: a talk on slower and slower processors, and large graphs one by one.

    python -m benchmarks.web [--repeats N] [--json]            # the built-in model, slowed 1, 4 and 6 times
    python -m benchmarks.web --graphs BUNDLE [--json]          # each graph of a bundle by itself, then what it takes

Out: seconds of loading, to the first sound of an answer and for each second of its sound (medians), and the memory of
the page's process. Needs Chromium, Playwright (`pip install playwright`) and Node's packages (`make web`).

Chromium's own throttling (`Emulation.setCPUThrottlingRate`) slows the main thread of a page and no worker, and the
model runs in a worker: a row of its own shows it. So the whole process of the page is stopped and continued in turn
here: slowed 4 times, it runs 5 ms of each 20.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from voxrill.devices.processor import processor
from voxrill.runtime.audio.audio_file import read_audio
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.bundle.bundle import open_bundle
from voxrill.runtime.upkeep.web_packages import FILES
from voxrill.runtime.upkeep.web_site import write_site

ROOT = Path(__file__).parents[1]
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True, "service_workers": "block"}
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
QUESTION = ROOT / "examples" / "question.wav"
SLICE = 0.005
"""Seconds that a slowed process runs before it is stopped."""
PATIENCE_MS = 280_000

MEASURE = """(data) => new Promise((resolve) => {
    const worker = new Worker("/tests/measure.js", { type: "module" });
    worker.onmessage = ({ data: found }) => { resolve(found); worker.terminate(); };
    worker.onerror = ({ message }) => resolve({ error: message ?? "the worker ended" });
    worker.postMessage({ ...data, base: new URL("/", location.href).href,
        sound: data.sound && Float32Array.from(data.sound) });
})"""


class _Isolated(http.server.SimpleHTTPRequestHandler):
    extensions_map = {  # noqa: RUF012
        **http.server.SimpleHTTPRequestHandler.extensions_map,
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def end_headers(self) -> None:
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        super().end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@contextmanager
def hosted(model: Path | None) -> Iterator[str]:
    """The site of the built-in model, with the measuring worker and the bundle `model`; its address."""
    with tempfile.TemporaryDirectory() as place:
        packages, site = Path(place, "packages"), Path(place, "site")
        packages.mkdir()
        for name, (package, _) in FILES.items():
            shutil.copy(ROOT / "web" / "node_modules" / package / "dist" / name, packages)
        write_site(open_builtin(), site, packages, False, lambda _name, _bytes: None)
        shutil.copytree(ROOT / "web" / "tests", site / "tests")
        (site / "blank.html").write_text("<!doctype html><title>measuring</title>")
        if model is not None:
            (site / "model").symlink_to(model.resolve())
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Isolated, directory=str(site)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def slowed(pid: int, times: int) -> Iterator[None]:
    """Let a process run only a part of the time, all its threads alike."""
    over = threading.Event()

    def stop_and_go() -> None:
        while not over.wait(SLICE):
            os.kill(pid, signal.SIGSTOP)
            time.sleep(SLICE * (times - 1))
            os.kill(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop_and_go)
    if times > 1:
        thread.start()
    try:
        yield
    finally:
        over.set()
        if times > 1:
            thread.join()


def measured(driver: Any, url: str, times: int = 1, devtools: int = 1, **task: Any) -> dict[str, Any]:
    """What the worker finds out, in a browser of its own, and the most memory that the page's process had (MB)."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    browser = driver.chromium.launch(executable_path=found, args=list(FLAGS))
    try:
        page = browser.new_context(**PHONE).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"{url}blank.html")
        if devtools > 1:
            page.context.new_cdp_session(page).send("Emulation.setCPUThrottlingRate", {"rate": devtools})
        pid = _process(page)
        with slowed(pid, times):
            result: dict[str, Any] = page.evaluate(MEASURE, task)
        return {**result, "megabytes": _peak(pid)}
    finally:
        browser.close()


def _process(page: Any) -> int:
    """The number of the page's process: of all that Chromium has for pages, the one that works when the page does.

    Chromium's own list (`SystemInfo.getProcessInfo`) may lack a process that has just begun.
    """
    before = _worked()
    page.evaluate("() => { for (const end = performance.now() + 2000; performance.now() < end; ); }")
    after = _worked()
    return max(after, key=lambda pid: after[pid] - before.get(pid, after[pid]))


def _worked() -> dict[int, float]:
    """Seconds of processor that each of Chromium's processes for pages has used."""
    return {
        one.pid: one.info["cpu_times"].user + one.info["cpu_times"].system
        for one in psutil.process_iter(["cmdline", "cpu_times"])
        if "--type=renderer" in " ".join(one.info["cmdline"] or ())  # Chromium writes all its options into one
    }


def _peak(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) // 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def talks(driver: Any, url: str, repeats: int, sound: list[float]) -> Iterator[dict[str, Any]]:
    """A row for each number of threads and each slowness."""
    for threads in (1, 2):
        # The devtools' throttling reaches no worker, so once is enough to show it.
        for times, devtools in [(1, 1), *([(1, 4)] if threads == 1 else []), (4, 1), (6, 1)]:
            found = measured(driver, url, times, devtools, threads=threads, sound=sound, repeats=repeats)
            row = {"threads": threads, "slowed": times, "by devtools": devtools, "MB": found["megabytes"]}
            if "error" in found:
                yield {**row, "error": found["error"]}
                continue
            yield row | {
                "load s": round(found["load"], 2),
                "first sound s": round(median(one["first"] for one in found["answers"]), 3),
                "real-time factor": round(median(one["perSecond"] for one in found["answers"]), 3),
            }


def graphs(driver: Any, url: str, bundle: Path, repeats: int) -> Iterator[dict[str, Any]]:
    """A row for each graph of a bundle, opened alone in a process of its own."""
    manifest = open_bundle(bundle).manifest
    for name, graph in manifest.graphs.items():
        found = measured(driver, url, threads=2, graph=name, repeats=repeats)
        size = sum(entry.size for file, entry in manifest.files.items() if file in (graph.file, f"{graph.file}.data"))
        row = {"graph": name, "precision": graph.precision, "file MB": size // 10**6, "MB": found["megabytes"]}
        if "error" in found:
            yield {**row, "error": found["error"]}
        else:
            yield row | {"open s": round(found["open"], 2), "run s": round(median(found["runs"]), 3)}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--graphs", type=Path, metavar="BUNDLE", help="a bundle whose graphs are opened one by one")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sys.exit("This needs Playwright: pip install playwright")
    rows, sound = [], read_audio(QUESTION).tolist()
    with hosted(given.graphs) as url, sync_playwright() as driver:
        found = (
            graphs(driver, url, given.graphs, given.repeats)
            if given.graphs
            else talks(driver, url, given.repeats, sound)
        )
        for row in found:
            rows.append(row)
            if not given.json:
                print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)
    if given.json:
        print(json.dumps({"processor": processor(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
