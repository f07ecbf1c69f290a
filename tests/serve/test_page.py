"""The page of `voxrill serve`, in headless Chromium: its microphone plays a real question, its user has a keyboard."""

import json
import re
from base64 import b64decode
from importlib import resources
from itertools import groupby

import numpy as np
import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from websockets.sync.client import connect

from tests.browser import Tab, chromium
from tests.serving import ANSWER, HEARD, in_base64, serving
from voxrill.runtime.bundle.builtin import open_builtin
from voxrill.runtime.serve import web_page
from voxrill.runtime.serve.access import Admission
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
    """The page. At the end it must have reported no errors."""
    with Tab(browser, address(server)) as opened:
        yield opened.open()
        assert opened.complaints == []


# With the server


def test_a_spoken_question(tab):
    """By keyboard only: the question is heard, transcribed and answered aloud, and the latency is shown."""
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
    tab.sees("latency", re.compile(r"Median \d+\.\d\d s of 2 answers"))


def test_an_example_is_one_press(tab):
    """What the model knows is offered, by its manifest; a press asks it."""
    offered = tab.page.locator("#examples button").all_inner_texts()
    assert tuple(offered) == open_builtin().manifest.taught.examples and len(offered) > 3
    tab.page.click(f"#examples button:has-text('{offered[0]}')")
    tab.sees("transcript", ANSWER)


def test_a_new_talk_forgets(tab):
    """Its lines, its latencies and the session; the next question opens another."""
    assert tab.page.is_disabled("#new")
    tab.write("turn on the garden lights")
    tab.sees("latency", "of 1 answer")
    tab.page.click("#new")
    tab.sees("status", "Not connected")
    assert tab.page.inner_text("#transcript") == "" and "No answer" in tab.page.inner_text("#latency")
    tab.write("turn on the kitchen lights")
    tab.sees("transcript", ANSWER)
    assert "forgotten" not in tab.page.inner_text("#transcript")


def test_the_volume_is_kept(tab):
    """Turned down, nothing is heard; another visit finds it as it was."""
    tab.page.fill("#volume", "0")
    tab.write("turn on the garden lights")
    tab.sees("latency", "of 1 answer")
    assert tab.loud() == 0
    tab.open()
    assert tab.page.input_value("#volume") == "0"


def test_the_theme_is_chosen_and_kept(tab):
    colour = "getComputedStyle(document.body).backgroundColor"
    found = []
    for theme in ("light", "dark"):
        tab.page.select_option("#theme", theme)
        found.append(tab.page.evaluate(colour))
    tab.open()
    assert tab.page.evaluate(colour) == found[1] != found[0]


def test_what_is_off_is_not_shown_as_on(tab):
    """Nobody takes "Not connected" for a good sign: it has another colour than "Connected"."""
    colour = "getComputedStyle(document.getElementById('status')).color"
    tab.sees("status", "Not connected")
    off = tab.page.evaluate(colour)
    tab.write("turn on the garden lights")
    tab.sees("status", "Connected")
    assert tab.page.evaluate(colour) != off


def test_what_cannot_be_read_is_refused_in_words(tab):
    """The built-in model reads no angle brackets. It says so like to any question outside its world."""
    tab.write(MARKUP)
    tab.sees("transcript", "sorry i only know the house")


def test_a_key_is_asked_for(browser):
    """A wrong one is refused in words; the right one opens the session too."""
    with serving(admission=Admission(KEY, ())) as locked, Tab(browser, address(locked)) as tab:
        tab.open().sees("status", "Waiting for the API key")
        assert tab.page.evaluate("document.activeElement.id") == "key"
        for wrong, told in (("another-key", "does not know this key"), ("a key", "A browser cannot send this key")):
            tab.page.fill("#key", wrong)
            tab.press("Enter")
            tab.sees("trouble", told)
        tab.page.fill("#key", KEY)
        tab.press("Enter")
        tab.sees("facts", "pebble")
        assert tab.page.is_hidden("#key") and KEY not in tab.page.url
        tab.write("turn on the kitchen lights")
        tab.sees("transcript", ANSWER)


def test_a_page_from_elsewhere_without_https(browser):
    """Browsers give it no sound: it says so, and answers in writing."""
    with serving(admission=Admission(KEY, ())) as locked, Tab(browser, address(locked, "voxrill.test")) as tab:
        tab.open().page.fill("#key", KEY)
        tab.press("Enter")
        tab.sees("facts", "pebble")
        tab.page.click("#talk")
        tab.sees("trouble", "only to pages from this machine or over HTTPS")
        tab.write("turn on the kitchen lights")
        tab.sees("transcript", ANSWER)
        tab.sees("transcript", "s to the first word")


def test_all_sessions_are_taken(browser):
    """It says so, and comes in as soon as there is room."""
    with serving(Limits(sessions=1)) as small, Tab(browser, address(small)) as tab:
        with connect(small.url.replace("http:", "ws:") + "/realtime") as other:
            other.recv()
            tab.open().tab_to("talk")
            tab.press("Enter")
            tab.sees("trouble", "are in use. Trying again")
        tab.sees("status", "Listening")
        tab.sees_none("trouble", "are in use")


def test_a_server_that_goes_away(browser, server):
    """The page connects again, and says that the device has forgotten the talk."""
    with Tab(browser, address(server)) as tab:
        sockets = []
        tab.page.route_web_socket("**/v1/realtime", lambda socket: sockets.append((socket, socket.connect_to_server())))
        tab.open().write("turn on the garden lights")
        tab.sees("transcript", "garden lights on")
        sockets[0][0].close(code=1012)
        tab.sees("transcript", "the device has forgotten")
        tab.write("turn on the kitchen lights")
        tab.sees("transcript", ANSWER)
        assert tab.complaints == []


def test_no_server(browser, server):
    with Tab(browser, address(server)) as tab:
        tab.open().page.route("**/v1/device", lambda route: route.abort())
        tab.page.click("#talk")
        tab.sees("trouble", "The server does not answer. Trying again in 1 s.")
        tab.sees("trouble", "Trying again in 2 s.")
        tab.page.click("#talk")
        tab.sees("status", "Not connected")
        assert tab.page.inner_text("#trouble") == ""


def test_a_refused_microphone(browser, server):
    refuse = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('', 'NotAllowedError'));"
    with Tab(browser, address(server), refuse) as tab:
        tab.open().page.click("#talk")
        tab.sees("trouble", "The browser refuses the microphone")
        tab.write("turn on the kitchen lights")
        tab.sees("transcript", ANSWER)
        assert tab.complaints == []


# With a server of the test's own


class Scripted:
    """A page whose WebSocket leads to the test: `received` are the events it sent."""

    def __init__(self, tab):
        self.received = []
        tab.page.route_web_socket("**/v1/realtime", self._connected)

    def _connected(self, socket):
        self.socket = socket
        socket.on_message(lambda raw: self.received.append(json.loads(raw)))

    def send(self, kind, **fields):
        self.socket.send(json.dumps({"type": kind, **fields}))

    def answer(self, text, samples):
        item = {"id": "item_2", "role": "assistant", "content": []}
        self.send("response.output_item.added", item=item)
        self.send("response.output_audio_transcript.delta", item_id="item_2", delta=text)
        self.send("response.output_audio.delta", item_id="item_2", delta=in_base64(samples.astype("<i2").tobytes()))

    def of(self, kind):
        return [event for event in self.received if event["type"] == kind]


@pytest.fixture
def scripted(tab):
    return Scripted(tab)


def noise(seconds):
    return np.random.default_rng(0).integers(-9000, 9000, round(24_000 * seconds))


def until(tab, done):
    """Wait, while the browser's events are handled, until `done()`."""
    while not done():
        tab.page.wait_for_timeout(20)


def test_the_user_interrupts(tab, scripted):
    """It is silent at once, later sound is not played, and the server is told how much was heard."""
    tab.page.click("#talk")
    until(tab, lambda: scripted.of("input_audio_buffer.append"))
    scripted.send("input_audio_buffer.speech_stopped", audio_end_ms=0)
    scripted.answer("a long answer", noise(30))
    tab.sees("status", "Answering")
    until(tab, lambda: tab.loud() > 120_000)  # a busy machine plays late by most of a second
    scripted.send("input_audio_buffer.speech_started", audio_start_ms=0)
    scripted.send("response.output_audio.delta", item_id="item_2", delta=in_base64(bytes(noise(30).astype("<i2"))))
    until(tab, lambda: scripted.of("conversation.item.truncate"))
    (cut,) = scripted.of("conversation.item.truncate")
    assert cut["item_id"] == "item_2" and 500 < cut["audio_end_ms"] < 30_000
    tab.sees("transcript", "interrupted")
    until(tab, lambda: tab.page.evaluate("played.slice(-4).every((part) => part.every((x) => x === 0))"))


def test_what_is_played_is_what_was_sent(tab, scripted):
    """In pieces, and at another rate: a tone stays what it is, to its end."""
    tab.page.click("#talk")
    until(tab, lambda: scripted.of("input_audio_buffer.append"))
    scripted.send("input_audio_buffer.speech_stopped", audio_end_ms=0)
    tone = 9000 * np.sin(2 * np.pi * 1000 * np.arange(48_000) / 24_000)
    scripted.answer("beep", tone[:0])
    for piece in np.array_split(tone, 25):
        scripted.send("response.output_audio.delta", item_id="item_2", delta=in_base64(piece.astype("<i2").tobytes()))
    scripted.send("response.done")
    tab.sees("status", "Answering")
    tab.sees("status", "Listening")
    sound = np.concatenate(tab.page.evaluate("played.map((part) => [...part])"))
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    hertz = np.fft.rfftfreq(len(sound), 1 / tab.page.evaluate("new AudioContext().sampleRate"))
    assert spectrum[np.abs(hertz - 1000) < 20].sum() > 0.95 * spectrum.sum() > 0
    assert tab.page.locator(".note", has_text="gap").count() == 0


def test_a_message_moves_nothing_and_goes_away(tab, scripted):
    place = "JSON.stringify(document.getElementById('transcript').getBoundingClientRect())"
    tab.write("hello")
    until(tab, lambda: scripted.of("conversation.item.create"))
    before = tab.page.evaluate(place)
    scripted.send("error", error={"message": "Something failed.", "code": None, "event_id": None})
    tab.sees("trouble", "Something failed.")
    assert tab.page.evaluate(place) == before
    tab.tab_to("dismiss")
    tab.press("Enter")
    tab.page.locator("#notice").wait_for(state="hidden")
    assert tab.page.evaluate("document.activeElement.id") == "text"


def test_a_voice_is_chosen_and_kept(tab, scripted):
    """Where the model has several for a talk, the next session begins with the chosen one."""
    voices = {"voice": "US female", "voices": ["US male", "US female"]}
    facts = tab.page.evaluate("fetch('v1/device').then((answer) => answer.json())") | voices
    assert tab.page.is_hidden("#voice")
    tab.page.route("**/v1/device", lambda route: route.fulfill(json=facts))
    tab.open()
    tab.page.locator("#voice").wait_for()
    assert tab.page.input_value("#voice") == "US female"
    tab.page.select_option("#voice", "US male")
    tab.open().write("hello")
    until(tab, lambda: scripted.of("conversation.item.create"))
    (told,) = scripted.of("session.update")
    assert told["session"]["audio"]["output"]["voice"] == "US male"


def test_push_to_talk(tab, scripted):
    """With the keyboard: sound is sent only while a key is held, and answered when the key is released."""
    tab.tab_to("by-hand")
    tab.press("Space")
    tab.tab_to("talk")
    tab.press("Enter")
    tab.sees("status", "Ready")
    tab.tab_to("hold")
    for _ in range(2):
        tab.page.keyboard.down("Space")
        held = len(scripted.received) + 10
        until(tab, lambda held=held: len(scripted.received) > held)
        tab.page.keyboard.up("Space")
        until(tab, lambda: scripted.received[-1]["type"] == "input_audio_buffer.commit")
        tab.page.wait_for_timeout(300)
        scripted.send("input_audio_buffer.committed", item_id="item_1")
        until(tab, lambda: scripted.received[-1]["type"] == "response.create")
        scripted.answer("yes", noise(0.1))
        scripted.send("response.done")
        tab.sees("status", "Ready")
    kinds = [event["type"].removeprefix("input_audio_buffer.") for event in scripted.received]
    turn = ["clear", "append", "commit", "response.create"]
    assert [kind for kind, _ in groupby(kinds)] == ["session.update", *turn, *turn]
    assert scripted.received[0]["session"]["audio"]["input"]["turn_detection"] is None


def test_a_muted_microphone_sends_silence(tab, scripted):
    tab.tab_to("talk")
    tab.press("Enter")
    tab.sees("status", "Listening")
    tab.tab_to("mute")
    tab.press("Space")
    tab.sees("status", "Muted")
    sent = len(scripted.received)
    until(tab, lambda: len(scripted.received) > sent + 30)
    sound = [np.frombuffer(b64decode(event["audio"]), "<i2") for event in scripted.of("input_audio_buffer.append")]
    assert {len(piece) for piece in sound} == {960} and not np.any(sound[-5:])


def test_the_talk_is_ended_while_something_is_sent(tab, scripted):
    """Nothing hangs: the text stays, and is sent in the next talk."""
    tab.page.click("#talk")
    until(tab, lambda: scripted.of("input_audio_buffer.append"))
    scripted.send("input_audio_buffer.speech_stopped", audio_end_ms=0)
    scripted.answer("a long answer", noise(30))
    tab.sees("status", "Answering")
    tab.write("hello")
    until(tab, lambda: scripted.of("conversation.item.truncate"))
    tab.page.click("#talk")
    tab.sees("status", "Not connected")
    assert tab.page.inner_text("#trouble") == "" and not scripted.of("conversation.item.create")
    tab.page.click("#text")
    tab.press("Enter")
    until(tab, lambda: scripted.of("conversation.item.create"))


def test_text_is_never_markup(tab, scripted):
    """What the user wrote, what the model said, what the server says of itself, and its errors."""
    facts = {"bundle": MARKUP, "family": MARKUP, "source": MARKUP, "precision": {"decoder": MARKUP}, "bytes": 1}
    facts |= {"processor": MARKUP, "cores": 1, "threads": 1, "provider": {"decoder": MARKUP}, "onnxruntime": MARKUP}
    facts["sessions"] = {"open": 0, "most": 8}
    tab.page.route("**/v1/device", lambda route: route.fulfill(json=facts))
    tab.write(MARKUP)
    until(tab, lambda: scripted.of("conversation.item.create"))
    asked = scripted.of("conversation.item.create")[0]["item"]
    assert asked["content"][0]["text"] == MARKUP
    scripted.send("conversation.item.added", item=asked | {"id": "item_0"})
    heard = {"id": "item_1", "role": "user", "content": [{"type": "input_audio", "transcript": None}]}
    scripted.send("conversation.item.added", item=heard)
    transcription = "conversation.item.input_audio_transcription.completed"
    scripted.send(transcription, item_id="item_1", transcript=MARKUP)
    scripted.answer(MARKUP, noise(0.1))
    scripted.send("error", error={"message": MARKUP, "code": None, "event_id": None})
    tab.sees("trouble", MARKUP)
    said = tab.page.locator("#transcript .said").all_inner_texts()
    assert said == [MARKUP] * 3 and MARKUP in tab.page.inner_text("#facts")
    assert tab.page.locator("img, b").count() == 0 and not tab.page.evaluate("window.harmed")


# The page by itself


def test_what_a_browser_is_told(server):
    """Every file of the page is served, with a policy that lets it run nothing but itself; nothing else is."""
    with server.http() as http:
        for path in web_page.PATHS:
            answer = http.get(path)
            policy = answer.headers["content-security-policy"]
            assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in policy and "script-src 'self';" in policy and "unsafe" not in policy
        assert not re.search(r"<script(?![^>]* src=)|\son\w+=|\sstyle=|javascript:", http.get("/").text)
        for path in (
            "/page",
            "/page/",
            "/page/nothing.js",
            "/page/../app.py",
            "/page/%2e%2e/app.py",
            "/page//etc/passwd",
        ):
            assert http.get(path).status_code == 404


def test_no_file_of_the_page_is_forgotten():
    folder = resources.files("voxrill.runtime.serve") / "page"
    assert {file.name for file in folder.iterdir()} == {
        path.rpartition("/")[2] or "index.html" for path in web_page.PATHS
    }


@pytest.mark.parametrize(
    ("old", "new"), [(48_000, 24_000), (44_100, 24_000), (24_000, 48_000), (24_000, 44_100), (16_000, 24_000)]
)
def test_another_sample_rate(tab, old, new):
    """Tones that both rates can hold come through, others do not: within 0.1 dB, and below -60 dB."""
    measure = """async ([old, fresh, hertz]) => {
        const { Resampler } = await import("/page/resampler.js");
        const resampler = new Resampler(old, fresh), out = [];
        for (let i = 0; i < old; i++) {
            resampler.push(Math.sin(2 * Math.PI * hertz * i / old));
            while (resampler.ready) out.push(resampler.take());
        }
        return out;
    }"""

    def level(hertz):
        sound = np.array(tab.page.evaluate(measure, [old, new, hertz]))
        assert abs(len(sound) - new) <= 1
        middle = sound[new // 4 : 3 * new // 4]
        return 10 * np.log10(2 * np.mean(middle**2) + 1e-12), np.abs(np.fft.rfft(middle)).argmax() * 2

    for hertz in (200, 1000, 5000):
        loudness, frequency = level(hertz)
        assert abs(loudness) < 0.1 and frequency == hertz
    if old > new:
        assert level(0.6 * new)[0] < -60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_and_fits_a_phone(browser, server, scheme):
    """Contrast of 4.5 to 1 at least (WCAG AA), and nothing to scroll sideways at 320 pixels."""
    narrow = {"width": 320, "height": 640}
    with Tab(browser, address(server), color_scheme=scheme, viewport=narrow) as tab:
        tab.open().sees("facts", "pebble")
        tab.write("turn on the kitchen lights")
        tab.sees("transcript", LATENCY)
        tab.page.evaluate("document.getElementById('trouble').textContent = 'trouble'")
        tab.page.evaluate("document.getElementById('notice').hidden = false")
        tab.page.evaluate("document.getElementById('key-form').hidden = false")
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 320
        contrasts = tab.page.evaluate(CONTRASTS)
        assert len(contrasts) > 20 and min(contrasts.values()) >= 4.5, contrasts


CONTRASTS = """() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (colour) => {
        const parts = numbers(colour).slice(0, 3).map((x) => x / 255);
        const [r, g, b] = parts.map((x) => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (node) => {
        const colour = getComputedStyle(node).backgroundColor;
        return (numbers(colour)[3] ?? 1) > 0 ? colour : behind(node.parentElement);
    };
    const found = {};
    for (const node of document.querySelectorAll("body *")) {
        const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim());
        if (!own || !node.checkVisibility() || node.disabled || node.tagName === "METER") continue;
        const [low, high] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => a - b);
        found[node.tagName + node.textContent.trim().slice(0, 20)] = (high + 0.05) / (low + 0.05);
    }
    return found;
}"""
