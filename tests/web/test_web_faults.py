"""What goes wrong in a browser: each fault becomes one line on the page that says what to do; the way back works."""

import json
import math
import shutil

import pytest

from tests.browser import Tab
from tests.web.hosting import altered, hosting, needs_node

pytestmark = needs_node

# Without a service worker a page has one thread and opens soonest.
PLAIN = {"service_workers": "block"}


@pytest.fixture(scope="module")
def url(site):
    with hosting(site) as address:
        yield address


# The download


def test_a_download_that_broke_off_goes_on(browser, site):
    """Half of the decoder comes, three times. The next visit asks for what is missing, and for nothing else."""
    asked, broken = [], ["bundle/decoder.onnx.000"]
    with hosting(site, asked, broken.__contains__) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("trouble", "bundle/decoder.onnx.000 cannot be downloaded (the connection broke")
        tab.sees("trouble", "Load the page again: it goes on from there.")
        assert asked.count("bundle/decoder.onnx.000") == 3
        had = {path for path in asked if path.startswith("bundle/")} - set(broken)
        broken.clear()
        asked.clear()
        tab.page.reload()
        tab.sees("facts", "pebble")
        again = {path for path in asked if path.startswith("bundle/")}
        assert had and again and not had & again


def test_a_part_that_lies_is_refused(browser, site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    promised = json.loads((folder / "site.json").read_text())
    (part,) = next(file for file in promised["files"] if file["name"] == "text_head.onnx")["parts"]
    (folder / part["path"]).write_bytes(b"x" * part["size"])
    with hosting(folder) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("trouble", "what came is not what the site promises")
        shutil.copy(site / part["path"], folder / part["path"])
        tab.page.reload()
        tab.sees("facts", "pebble")


def test_a_list_of_files_that_is_none(browser, site, tmp_path):
    folder = shutil.copytree(site, tmp_path / "site")
    (folder / "site.json").write_text("<!doctype html>")
    with hosting(folder) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("trouble", "The site's list of files cannot be read")


# Some browsers state how much room they have. Chromium 156 always states 10 GB more than is used.
ALMOST_FULL = "navigator.storage.estimate = async () => ({ quota: 3e6, usage: 1e6 });"


def test_too_little_room_is_told_before_the_download(browser, site, tmp_path):
    asked = []
    with hosting(altered(site, tmp_path, ALMOST_FULL), asked) as url, Tab(browser, url, **PLAIN) as tab:
        needed = math.ceil(json.loads((site / "site.json").read_text())["size"] / 1e6)
        assert needed > 2
        says = f"The model needs {needed} MB, and this browser has 2 MB left for this page. Make room"
        tab.open().sees("trouble", says)
        assert not any(path.startswith("bundle/") for path in asked)


def test_a_full_browser_runs_the_model_without_keeping_it(browser, url):
    with Tab(browser, url, **PLAIN) as tab:
        devtools = tab.page.context.new_cdp_session(tab.page)
        devtools.send("Storage.overrideQuotaForOrigin", {"origin": url, "quotaSize": 2_000_000})
        tab.open().sees("trouble", "This browser has no room to keep the model: it is downloaded at each visit")
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")


# The worker, its graphs and its memory


NO_MEMORY = """
WebAssembly.Memory = class { constructor() { throw new RangeError("could not allocate memory"); } };
"""


def test_too_little_memory_to_begin(browser, site, tmp_path):
    with hosting(altered(site, tmp_path, NO_MEMORY)) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("trouble", "The browser has too little memory for this model")
        tab.sees("trouble", "Close other tabs and start again. If it happens again, use a smaller bundle.")


# The first talk's graphs fail after some runs; the next worker's do not.
FAILING = """
const create = ort.InferenceSession.create;
ort.InferenceSession.create = async (...given) => {
  const bad = !(await caches.has("failed"));
  const session = await create(...given);
  const run = session.run.bind(session);
  let runs = 0;
  session.run = async (feeds) => {
    if (!bad || !("inputs_embeds" in feeds) || ++runs < 4) return run(feeds);
    await caches.open("failed");
    throw new Error("std::bad_alloc");
  };
  return session;
};
"""


def test_a_graph_that_fails_ends_the_talk_and_the_next_one_works(browser, site, tmp_path):
    with hosting(altered(site, tmp_path, FAILING)) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("facts", "pebble")
        tab.write("turn on the garden lights")
        tab.sees("trouble", "The browser has too little memory for this model (std::bad_alloc). Close other tabs")
        tab.sees("status", "Not connected")
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
        assert tab.page.inner_text("#trouble") == ""


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ("onmessage = null; throw new Error('broken');", "The model's program failed (Uncaught Error: broken)"),
        ("this is no program", "The model's program failed"),
    ],
    ids=["throws", "unreadable"],
)
def test_a_worker_that_does_not_begin(browser, site, tmp_path, code, told):
    with hosting(altered(site, tmp_path, code)) as url, Tab(browser, url, **PLAIN) as tab:
        tab.open().sees("trouble", told)
        tab.sees("trouble", "Load this page again. If it happens again, use a newer browser.")


def test_a_browser_without_webassembly(browser, url):
    with Tab(browser, url, "delete window.WebAssembly;", **PLAIN) as tab:
        tab.open().sees("trouble", "This browser runs no WebAssembly. Leave its lockdown mode")


# Sound


def test_a_refused_microphone(browser, url):
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'));"
    with Tab(browser, url, refuse, **PLAIN) as tab:
        tab.open().sees("facts", "pebble")
        tab.page.click("#talk")
        tab.sees("trouble", "The browser refuses the microphone. Allow it for this page in the settings, or write")


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("AudioContext = class { constructor() { throw new Error('no device'); } };", "no device"),
        ("AudioContext.prototype.resume = () => new Promise(() => {});", "it does not begin within 5 s"),
    ],
    ids=["refused", "silent"],
)
def test_no_sound_output(browser, url, script, reason):
    """A talk is refused with the remedy; a written question is answered in writing, and the page says why."""
    with Tab(browser, url, script, **PLAIN) as tab:
        tab.open().sees("facts", "pebble")
        tab.write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
        tab.sees("trouble", f"The browser plays no sound ({reason}). Connect a loudspeaker or headphones")
        tab.page.click("#dismiss")
        tab.page.click("#talk")
        tab.sees("trouble", f"The browser plays no sound ({reason}).")
        tab.sees("talk", "Start talking")


KEPT = """
const Context = AudioContext;
window.contexts = [];
AudioContext = class extends Context { constructor(...given) { super(...given); contexts.push(this); } };
const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
navigator.mediaDevices.getUserMedia = async (wish) => (window.stream = await ask(wish));
"""
SEEN_AGAIN = "document.dispatchEvent(new Event('visibilitychange'))"


def test_a_page_in_the_background(browser, url):
    """The sound that the browser stopped goes on when the page is seen again; if it does not, the page says so."""
    with Tab(browser, url, KEPT, **PLAIN) as tab:
        tab.open().sees("facts", "pebble")
        tab.page.click("#talk")
        tab.sees("status", "Listening")
        tab.page.evaluate("stream.getAudioTracks()[0].dispatchEvent(new Event('mute'))")
        tab.sees("trouble", "The browser silences the microphone. Come back to this page")
        tab.page.evaluate("stream.getAudioTracks()[0].dispatchEvent(new Event('unmute'))")
        tab.page.locator("#notice").wait_for(state="hidden")
        tab.page.evaluate("contexts[0].suspend()")
        tab.page.evaluate(SEEN_AGAIN)
        tab.page.wait_for_function("contexts[0].state === 'running'")
        tab.page.evaluate("(contexts[0].resume = () => Promise.reject(new Error('no'))) && contexts[0].suspend()")
        tab.page.evaluate(SEEN_AGAIN)
        tab.sees("trouble", "The browser stopped the sound while this page was in the background. Start again.")
        tab.sees("talk", "Start talking")
