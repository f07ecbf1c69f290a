"""GET /docs: the OpenAPI document as a page to read. It needs no script, and loads nothing from anywhere.

In: the document, and the server's limits. Out: HTML, made once.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from voxrill.runtime.serve.limits import Limits

_STYLE = """
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem }
code, pre { font-family: ui-monospace, monospace; font-size: 0.9em }
pre { overflow-x: auto; padding: 0.8rem; border: 1px solid #8886; border-radius: 6px }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; vertical-align: top; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid #8883 }
td { overflow-wrap: break-word }
td:first-child { white-space: nowrap }
"""

HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"style-src 'sha256-{base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()}'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}

_JSON = "-H 'Content-Type: application/json' -d"
_EXAMPLES = {
    "/v1/audio/transcriptions": "curl {url}/v1/audio/transcriptions -F file=@question.wav",
    "/v1/audio/speech": f"""curl {{url}}/v1/audio/speech {_JSON} '{{"input": "kitchen lights on"}}' -o answer.mp3""",
    "/v1/chat/completions": f"""curl {{url}}/v1/chat/completions {_JSON} \\
  '{{"messages": [{{"role": "user", "content": "turn on the kitchen lights"}}]}}'""",
    "/v1/responses": f"""curl {{url}}/v1/responses {_JSON} '{{"input": "turn on the kitchen lights"}}'""",
}
"""What to type in a terminal, by path."""

_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
    "pattern": "as {}",
}


def docs_page(document: Mapping[str, Any], limits: Limits, url: str = "http://127.0.0.1:8000") -> str:
    """The page.

    Args:
        document: OpenAPI's, whose paths and schemas are shown.
        limits: the server's.
        url: of the server in the examples.
    """
    title, what = document["info"]["title"], document["info"]["description"]
    return "".join(
        (
            f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(title)}</title>",
            f'<meta name=viewport content="width=device-width"><style>{_STYLE}</style>',
            f"<h1>{escape(title)}</h1><p>{escape(what)} As data: <a href=/openapi.json>openapi.json</a>.",
            " With an API key, send it as <code>Authorization: Bearer KEY</code>.</p>",
            *_paths(document["paths"], url),
            "<h2>Realtime</h2><p><code>GET /v1/realtime</code> is a WebSocket with OpenAI's realtime interface.</p>",
            "<h2>Statuses</h2><table>",
            *_refusals(document["paths"]),
            "</table><h2>Limits</h2><table>",
            *(f"<tr><td>{escape(what)}<td>{escape(most)}" for what, most in _limits(limits)),
            "</table>",
            *_schemas(document["components"]["schemas"]),
            "</html>",
        )
    )


def _paths(paths: Mapping[str, Any], url: str) -> Iterator[str]:
    for path, methods in sorted(paths.items(), key=lambda item: "post" not in item[1]):  # what people look for first
        for method, operation in methods.items():
            yield f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(operation['summary'])}.</p>"
            for media, body in operation.get("requestBody", {}).get("content", {}).items():
                yield f"<p>Takes <code>{escape(media)}</code>: {_type(body['schema'])}.</p>"
            if path in _EXAMPLES:
                yield f"<pre>{escape(_EXAMPLES[path].replace('{url}', url))}</pre>"
            yield f"<p>Answers with <code>{escape(', '.join(operation['responses']['200']['content']))}</code>.</p>"


def _refusals(paths: Mapping[str, Any]) -> Iterator[str]:
    """What each status means, once: a path has those that can happen there."""
    seen: dict[str, str] = {}
    for methods in paths.values():
        for operation in methods.values():
            seen |= {status: answer["description"] for status, answer in operation["responses"].items()}
    for status, what in sorted(seen.items()):
        yield f"<tr><td>{escape(status)}<td>{escape(what)}"


def _schemas(schemas: Mapping[str, Any]) -> Iterator[str]:
    for name, schema in schemas.items():
        about = escape(schema.get("description", ""))
        yield f'<h2 id="{escape(name)}">{escape(name)}</h2><p>{about}</p>'
        if "properties" not in schema:
            yield f"<p>{_type(schema)}</p>"
            continue
        yield "<table><tr><th>field<th>what it may be<th>"
        required = schema.get("required", ())
        for field, kind in schema["properties"].items():
            default = f", else {_value(kind['default'])}" if kind.get("default") is not None else ""
            needed = "must be sent" if field in required else f"may be left out{default}"
            about = " ".join(filter(None, (escape(kind.get("description", "")), f"({needed})")))
            yield f"<tr><td><code>{escape(field)}</code><td>{_type(kind)}<td>{about}"
        yield "</table>"


def _type(schema: Mapping[str, Any]) -> str:
    """What a schema allows, as HTML. null and the empty text mean absent, which the next column says."""
    for either in ("anyOf", "oneOf"):
        if either in schema:
            return " or ".join(_type(one) for one in schema[either] if one.get("type") != "null")
    if "$ref" in schema:
        name = escape(schema["$ref"].rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return " or ".join(_value(value) for value in values if value not in (None, "")) or "nothing"
    kind = schema.get("type", "anything")
    names = " or ".join(one for one in kind if one != "null") if isinstance(kind, list) else kind
    if "items" in schema and schema["items"] is not False:
        names += f" of {_type(schema['items']) if schema['items'] is not True else 'anything'}"
    bounds = [text.format(escape(str(schema[name]))) for name, text in _BOUNDS.items() if name in schema]
    return ", ".join((names, *bounds))


def _value(value: object) -> str:
    return f"<code>{escape(json.dumps(value))}</code>"


def _limits(limits: Limits) -> Iterator[tuple[str, str]]:
    yield "One uploaded sound to transcribe", f"{limits.recording:g} s, {limits.file >> 20} MB"
    yield "One sound in a chat's message", f"{limits.question:g} s, or what the model holds"
    yield "All sounds of a chat together", f"{limits.audio:g} s, or what the model holds"
    yield "One text", f"{limits.text} characters"
    yield "Any other body", f"{limits.body >> 20} MB"
    yield "One answer", f"{limits.answer} text tokens and frames of sound"
    yield "Requests of one address", f"{limits.rate} in a minute"
    yield "Requests at once", f"{limits.active} that take turns, and {limits.queue} that wait"
    yield "Realtime sessions at once", f"{limits.sessions}, each message at most {limits.message >> 10} kB"
