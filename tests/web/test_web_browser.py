"""The runtime for browsers in headless Chromium: held to Python's, and talks, also without the server."""

import os
import re
import shutil
from contextlib import ExitStack

import pytest

from tests.browser import Tab
from tests.places import ROOT
from tests.web.hosting import PHONE, WEB, hosting, needs_node

pytestmark = needs_node

GOLDEN = """async (threads) => {
    const [ort, { Tokenizer }, { download, promised }, { Model }, { goldenChecks }, { readNpz }] = await Promise.all(
        ["vendor/ort.wasm.min.mjs", "vendor/tokenizers.min.mjs", "runtime/bundle/download.js",
         "runtime/engine/model.js", "tests/golden.js", "tests/npz.js"].map((name) => import("/" + name)));
    const base = new URL("/", location.href);
    ort.env.wasm.wasmPaths = new URL("vendor/", base).href;
    ort.env.wasm.numThreads = threads;
    const { files } = await download(base, await promised(base), () => {});
    const model = await Model.open(ort, Tokenizer, files);
    const vectors = await (await fetch("/golden/vectors.npz")).arrayBuffer();
    const facts = await (await fetch("/golden/vectors.json")).json();
    const found = {};
    const checks = goldenChecks(model, await readNpz(new Uint8Array(vectors)), facts);
    for (const [name, check] of Object.entries(checks)) {
        found[name] = await Promise.resolve().then(check).then(() => "ok", (error) => error.message);
    }
    return found;
}"""


@pytest.mark.parametrize("threads", [1, 2])
def test_golden_vectors(browser, site, tmp_path, threads):
    """The checks of web/tests/golden.js, in the page of a browser, with one thread and with two."""
    folder = shutil.copytree(site, tmp_path / "site", copy_function=os.link)
    shutil.copytree(WEB / "tests", folder / "tests")
    shutil.copytree(ROOT / "docs" / "golden", folder / "golden")
    with hosting(folder, isolated=True) as url, Tab(browser, f"{url}tests/npz.js", service_workers="block") as tab:
        tab.open()
        assert tab.page.evaluate("crossOriginIsolated")
        found = tab.page.evaluate(GOLDEN, threads)
        assert len(found) == 8 and set(found.values()) == {"ok"}, found


def test_a_talk_on_a_phones_screen_and_then_without_the_server(browser, site):
    """A spoken and a written question; then the server is gone, the page is loaded again, and it answers still."""
    with ExitStack() as server, Tab(browser, server.enter_context(hosting(site)), **PHONE) as tab:
        tab.open()
        tab.sees("facts", "pebble")
        assert tab.page.evaluate("crossOriginIsolated")  # the service worker gives the headers that the host does not
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 360
        tab.tab_to("talk")
        tab.press("Enter")
        tab.sees("transcript", re.compile(r"\d+\.\d\d s to the first sound"))
        tab.sees("transcript", re.compile("turn on the kitchen lights.*kitchen lights on", re.DOTALL))
        tab.sees("status", "Listening")  # the answer was played to its end
        assert tab.loud() > 5_000
        tab.write("what is two plus two")
        tab.sees("transcript", "four")
        tab.write("sing me the opera")
        tab.sees("trouble", "does not know: sing, opera")
        server.close()
        tab.page.reload()
        tab.sees("facts", "pebble")
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
        assert tab.complaints == []


def test_with_one_thread_where_memory_cannot_be_shared(browser, site):
    """A browser without service workers: no isolation, so one thread; the talk works."""
    with hosting(site) as url, Tab(browser, url, service_workers="block") as tab:
        tab.open()
        tab.sees("facts", re.compile(r"Threads\s*1 of"))
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
