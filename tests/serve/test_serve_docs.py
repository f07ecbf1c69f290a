"""The page that shows the interface, and the translations that the models cannot make."""

import html
import re
import shlex
from html.parser import HTMLParser

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from tests.serving import QUESTION, serving
from voxrill.runtime.serve.access import Admission
from voxrill.runtime.serve.docs_page import docs_page
from voxrill.runtime.serve.limits import Limits


@pytest.fixture(scope="module")
def server():
    with serving(Limits(recording=1234)) as started:
        yield started


@pytest.fixture(scope="module")
def page(server):
    with server.http() as http:
        return http.get("/docs").text


class Links(HTMLParser):
    """Everything that a page would load or lead to, and the names in it."""

    def __init__(self, page):
        super().__init__()
        self.loaded, self.leads, self.names = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.names.add(attributes.get("id"))
        self.leads += [attributes["href"]] if tag == "a" else []
        self.loaded += [value for name, value in attributes.items() if name in ("src", "srcset", "data", "action")]
        self.loaded += [tag] if tag in ("script", "link", "iframe", "object", "img") else []


def test_every_path_and_field_of_the_document_is_shown(server, page):
    with server.http() as http:
        document = http.get("/openapi.json").json()
    text = html.unescape(re.sub("<[^>]*>", " ", page))
    for path, methods in document["paths"].items():
        assert all(f"{method.upper()} {path}" in text for method in methods)
    for name, schema in document["components"]["schemas"].items():
        assert name in text and all(field in text for field in schema.get("properties", ()))
    assert "1234 s, 25 MB" in text


def test_it_loads_nothing_and_its_links_lead_somewhere(server, page):
    links = Links(page)
    assert not links.loaded
    with server.http() as http:
        for link in set(links.leads):
            assert link[1:] in links.names if link.startswith("#") else http.get(link).status_code == 200
        policy = http.get("/docs").headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-") and "unsafe" not in policy


def test_its_examples_work(server, page):
    """As they are written, but with the address of this server."""
    examples = [html.unescape(one) for one in re.findall("<pre>(.*?)</pre>", page, re.DOTALL)]
    assert len(examples) == 4
    for example in examples:
        words = shlex.split(example.replace("\\\n", ""))
        path = words[1].removeprefix("http://127.0.0.1:8000")
        if "-F" in words:
            sent = {"files": {"file": ("question.wav", QUESTION.read_bytes())}}
        else:
            sent = {"content": words[words.index("-d") + 1], "headers": {"Content-Type": "application/json"}}
        with server.http() as http:
            assert http.post(path, **sent).status_code == 200, example


def test_it_needs_no_key():
    with serving(admission=Admission("a-key-of-24-characters-x", ())) as locked, locked.http() as http:
        assert http.get("/docs").status_code == 200 and http.get("/openapi.json").status_code == 401


def test_names_in_the_document_are_text():
    hostile = "<script>alert(1)</script>"
    operation = {"summary": hostile, "responses": {"200": {"description": hostile, "content": {hostile: {}}}}}
    schema = {"properties": {hostile: {"enum": [hostile], "description": hostile}}, "description": hostile}
    document = {
        "info": {"title": hostile, "description": hostile},
        "paths": {hostile: {"get": operation}},
        "components": {"schemas": {"Name": schema}},
    }
    assert "<script" not in docs_page(document, Limits())


def test_translations_are_refused_in_plain_words(server):
    with server.http() as http:
        for model, status in (("whisper-1", 400), ("llama-3", 404)):
            sent = {"data": {"model": model}, "files": {"file": ("a.wav", QUESTION.read_bytes())}}
            refused = http.post("/v1/audio/translations", **sent)
            assert refused.status_code == status
            if status == 400:
                message = refused.json()["error"]["message"]
                assert "hears English and writes it in English" in message and "/v1/audio/transcriptions" in message
