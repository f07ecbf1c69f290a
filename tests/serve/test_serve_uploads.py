"""Sounds that clients send: base64 as people write it."""

import base64
import os

import pytest

pytest.importorskip("starlette", reason="the serve extra is not installed")

from voxrill.runtime.serve.api_errors import ApiError
from voxrill.runtime.serve.uploads import from_base64

SOUND = bytes(range(256)) + b"\xff\xfe\xfb"  # its base64 holds all 64 digits, and is padded at other lengths
WRITTEN = {
    "as it is": lambda data: base64.b64encode(data).decode(),
    "line breaks": lambda data: base64.encodebytes(data).decode(),
    "Windows line breaks": lambda data: base64.encodebytes(data).decode().replace("\n", "\r\n"),
    "spaces and tabs": lambda data: f" \t{base64.b64encode(data).decode()} ",
    "no padding": lambda data: base64.b64encode(data).decode().rstrip("="),
    "URL-safe": lambda data: base64.urlsafe_b64encode(data).decode(),
    "URL-safe without padding": lambda data: base64.urlsafe_b64encode(data).decode().rstrip("="),
    "data URL": lambda data: f"data:audio/wav;base64,{base64.b64encode(data).decode()}",
    "data URL with codecs": lambda data: f"Data:audio/webm;codecs=opus;BASE64,{base64.b64encode(data).decode()}",
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
@pytest.mark.parametrize("length", [0, 1, 2, 3, 256, 257, 258])
def test_base64_as_clients_write_it(written, length):
    data = SOUND[-length:] if length else b""
    assert from_base64(written(data), "audio") == data


def test_a_long_data_url():
    data = os.urandom(100_000)
    assert from_base64(WRITTEN["data URL"](data), "audio") == data


NOT_BASE64 = ["no base64!", "AAAAA", "AAA=AAA=", "data:audio/wav,AAAA", "data:x;base64;AAAA", "AA,AA", "ÄÄÄÄ", "AA\0A"]


@pytest.mark.parametrize("text", NOT_BASE64)
def test_what_is_not_base64_is_refused(text):
    with pytest.raises(ApiError, match="not base64") as refused:
        from_base64(text, "audio")
    assert refused.value.status == 400 and refused.value.param == "audio"
