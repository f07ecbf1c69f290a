"""A headless Chromium whose microphone plays a WAV file, and a tap on what it would play aloud."""

import re
import shutil
import wave
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.serving import spoken

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# It runs as root in containers, and talks to nobody but the server under test.
_FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--host-resolver-rules=MAP voxrill.test 127.0.0.1",  # a name that is not of this machine, as on another's page
)

# Keeps every sample on its way to the loudspeaker.
_TAP = """
window.played = [];
const connect = AudioNode.prototype.connect;
AudioNode.prototype.connect = function (target, ...rest) {
  if (target instanceof AudioDestinationNode) {
    const tap = this.context.createScriptProcessor(2048, 1, 1);
    tap.onaudioprocess = ({ inputBuffer }) => played.push(inputBuffer.getChannelData(0).slice());
    connect.call(this, tap);
    connect.call(tap, target);
  }
  return connect.call(this, target, ...rest);
};
"""


@contextmanager
def chromium(folder) -> Iterator[object]:
    """The browser; skips where there is none. Its microphone hears the question once each time it is opened."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    question = folder / "question.wav"
    with wave.open(str(question), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(24_000)
        file.writeframes(spoken(before=1.0))
    flags = [*_FLAGS, f"--use-file-for-fake-audio-capture={question}%noloop"]
    with playwright.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        yield launched
        launched.close()


class Tab:
    """The server's page in the browser, as a user sees it. `complaints` are the errors on its console."""

    def __init__(self, browser, url, script="", **options) -> None:
        self._context = browser.new_context(**options)
        self.page = self._context.new_page()
        self.page.set_default_timeout(60_000)
        self.complaints = []
        self.page.on("console", lambda told: self.complaints.append(told.text) if told.type == "error" else None)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.add_init_script(_TAP + script)
        self._url = url

    def __enter__(self):
        return self

    def __exit__(self, *_error) -> None:
        self._context.close()

    def open(self):
        """Load the page."""
        self.page.goto(self._url)
        return self

    def press(self, *keys) -> None:
        """Press keys one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def tab_to(self, name) -> None:
        """Go from part to part with the Tab key until the one of that id is focused."""
        for _ in range(20):
            if self.page.evaluate("document.activeElement.id") == name:
                return
            self.press("Tab")
        raise AssertionError(f"Tab does not lead to {name}")

    def write(self, text) -> None:
        """Send a text, with the keyboard only."""
        self.tab_to("text")
        self.page.keyboard.type(text)
        self.press("Enter")

    def sees(self, part, text) -> None:
        """Wait until a text, or what fits a pattern, is shown in the part of that id."""
        wanted = re.compile(re.escape(text)) if isinstance(text, str) else text
        self.page.locator(f"#{part}", has_text=wanted).wait_for()

    def sees_none(self, part, text) -> None:
        """Wait until a text is not shown any more."""
        self.page.locator(f"#{part}", has_text=text).wait_for(state="detached")

    def loud(self) -> int:
        """Samples that were played and are not silence."""
        return self.page.evaluate("played.reduce((n, part) => n + part.filter((x) => Math.abs(x) > 1e-3).length, 0)")
