"""The page of `voxrill serve`, in headless Chromium: its microphone plays a real question, its user has a keyboard."""

import json
import re

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from websockets.sync.client import connect

from tests.browser import Tab, chromium
from tests.serving import ANSWER, HEARD, in_base64, serving
from voxrill.runtime.serve import web_page
from voxrill.runtime.serve.guard import Admission
from voxrill.runtime.serve.limits import Limits

KEY = "a-key-of-24-characters-x"
LATENCY = re.compile(r"(\d+\.\d\d) s to the first sound")
MARKUP = '<img src=x onerror="window.harmed = true"><b>bold</b>'


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as launched:
        yield launched


def address(server, host="127.0.0.1"):
    return server.url.removesuffix("v1").replace("127.0.0.1", host)


@pytest.fixture
def tab(browser, server):
    """The page, which must not have complained of anything at the end."""
    with Tab(browser, address(server)) as opened:
        yield opened.open()
        assert opened.complaints == []


# With the server


def test_a_spoken_question(tab):
    """By keyboard only: it is heard, written down and answered aloud, and the latency is shown."""
    tab.sees("facts", "pebble")
    tab.tab_to("talk")
    tab.press("Enter")
    tab.sees("transcript", LATENCY)
    tab.sees("transcript", HEARD)
    tab.sees("transcript", ANSWER)
    tab.sees("status", "Listening")
    assert tab.loud() > 5_000
    assert tab.page.locator(".you, .device").count() == 2
    tab.press("Space")
    tab.sees("status", "Not connected")
    tab.sees("talk", "Start talking")


def test_a_written_question(tab):
    """Without the microphone; it is answered aloud, and the next one is sent in the same session."""
    for room in ("garden", "office"):
        tab.write(f"turn on the {room} lights")
        tab.sees("transcript", f"{room} lights on")
        tab.page.locator(".device .notes", has_text=LATENCY).last.wait_for()
    tab.sees("status", "Connected")
    assert tab.loud() > 5_000


def test_what_cannot_be_read_is_said_and_kept(tab):
    """The built-in model reads no angle brackets: the user is told, and may mend the text."""
    tab.write(MARKUP)
    tab.sees("trouble", "cannot")
    assert tab.page.input_value("#text") == MARKUP
