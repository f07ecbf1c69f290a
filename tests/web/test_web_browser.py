"""The runtime for browsers in headless Chromium: held to Python's, and talks, also without the server."""

import json
import os
import re
import shutil
from base64 import b64encode
from contextlib import ExitStack

import pytest

import voxrill
from tests.browser import Tab
from tests.places import PEBBLE, ROOT
from tests.web.hosting import MODULES, PHONE, WEB, hosting, needs_node

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


def written_question():
    """A question of the model's world whose reply Python gives when it is written, and that reply."""
    model, world = voxrill.load(threads=1), json.loads((PEBBLE.parent / "world.json").read_text(encoding="utf-8"))
    asked = ((one["say"], one["reply"]) for one in world if "lights" not in one["reply"])
    return next((say, reply) for say, reply in asked if answered(model.chat(text=say)).text == reply)


def answered(events):
    *_, end = events
    return end.result


def test_a_talk_on_a_phones_screen_and_then_without_the_server(browser, site):
    """A spoken and a written question; then the server is gone, the page is loaded again, and it answers still."""
    question, reply = written_question()
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
        tab.write(question)
        tab.sees("transcript", reply)
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


def test_it_can_be_installed(browser, site):
    """By Chromium's own criteria, but for the private window of the test."""
    with hosting(site) as url, Tab(browser, url, **PHONE) as tab:
        tab.open().sees("facts", "pebble")
        devtools = tab.page.context.new_cdp_session(tab.page)
        manifest = devtools.send("Page.getAppManifest")
        assert manifest["url"] == f"{url}app.webmanifest" and manifest["errors"] == []
        errors = devtools.send("Page.getInstallabilityErrors")["installabilityErrors"]
        assert [error["errorId"] for error in errors if error["errorId"] != "in-incognito"] == []


def test_icons_are_the_pages_own(browser, site):
    """The PNG files are what Chromium draws of the SVG; python -m tests.web.icons draws them anew."""
    from tests.web import icons

    page = browser.new_page()
    for name in icons.DRAWN:
        kept = b64encode((icons.ICONS / name).read_bytes()).decode()
        assert page.evaluate(DIFFERENCE, [icons.drawn(page, name), kept]) <= 8
        assert (site / "icons" / name).read_bytes() == (icons.ICONS / name).read_bytes()
    page.close()


# The largest difference of a colour between two PNG files of the same size.
DIFFERENCE = """async (files) => {
    const [one, other] = await Promise.all(files.map(async (file) => {
        const image = new Image();
        image.src = "data:image/png;base64," + file;
        await image.decode();
        const canvas = document.createElement("canvas");
        [canvas.width, canvas.height] = [image.width, image.height];
        const context = canvas.getContext("2d");
        context.drawImage(image, 0, 0);
        return context.getImageData(0, 0, image.width, image.height).data;
    }));
    if (one.length !== other.length) return 255;
    return one.reduce((most, value, i) => Math.max(most, Math.abs(value - other[i])), 0);
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(browser, site, scheme):
    """axe-core's rules (names, roles, contrast, landmarks), on a phone's screen, with an answer and with a message."""
    axe = MODULES / "axe-core" / "axe.min.js"
    if not axe.is_file():
        pytest.skip("axe-core is missing: make web")
    with hosting(site) as url, Tab(browser, url, service_workers="block", color_scheme=scheme, **PHONE) as tab:
        tab.open().sees("facts", "pebble")
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
        tab.write("sing me the opera")
        tab.sees("trouble", "does not know: sing, opera")
        tab.page.evaluate(axe.read_text())
        found = tab.page.evaluate("axe.run().then(({ violations }) => violations)")
        assert [(one["id"], [node["html"] for node in one["nodes"]]) for one in found] == []
