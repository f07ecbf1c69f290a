"""The command that serves: `voxrill serve`."""

from __future__ import annotations

import importlib.util
import os
from contextlib import ExitStack, closing
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from voxrill.commands.once import say_waiting
from voxrill.commands.options import (
    JsonOption,
    Loading,
    TurnWish,
    loads_model,
)
from voxrill.commands.output import err, print_json
from voxrill.runtime.errors import MissingDependency, UsageError
from voxrill.runtime.input_file import LARGEST_TEXT, read_text

EXTRA = "serve"
PACKAGES = ("starlette", "uvicorn", "websockets", "python_multipart", "prometheus_client", "wyoming")
KEY_VARIABLE = "VOXRILL_API_KEY"
LOCAL = "127.0.0.1"
_LEAST_KEY = 16
"""Characters of a key: fewer could be guessed."""


class LogLevel(StrEnum):
    """How grave a record must be to be logged."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@loads_model
def serve(
    host: Annotated[str, typer.Option(help="Address to listen at; others than this machine need a key.")] = LOCAL,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 for any free port.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option(help=f"File with the key that clients must send; or set {KEY_VARIABLE}.", show_default=False),
    ] = None,
    origin: Annotated[
        list[str] | None,
        typer.Option(help="A site whose pages have access, such as https://example.org.", show_default=False),
    ] = None,
    wyoming: Annotated[
        str | None,
        typer.Option(
            help="Where Home Assistant connects, such as tcp://127.0.0.1:10300 or unix:///PATH.", show_default=False
        ),
    ] = None,
    wyoming_anyone: Annotated[
        bool,
        typer.Option("--wyoming-anyone", help="Let other machines connect there: the protocol has no keys."),
    ] = False,
    wyoming_confidence: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Home Assistant gets no words that are less certain; without it, as the bundle says.",
            show_default=False,
        ),
    ] = None,
    satellite: Annotated[
        list[str] | None,
        typer.Option(help="A Wyoming satellite to talk with, such as tcp://kitchen:10700.", show_default=False),
    ] = None,
    end_of_turn: Annotated[
        str | None,
        typer.Option(
            "--end-of-turn",
            help="What ends turns of semantic_vad and of satellites by meaning: as of voxrill talk.",
            show_default="auto",
        ),
    ] = None,
    web: Annotated[
        Path | None,
        typer.Option(help="Folder that `voxrill web` wrote, to be had at /web/ without a key.", show_default=False),
    ] = None,
    loading: Loading = Loading(),
    memory: Annotated[int, typer.Option(min=1, help="MB for the states of conversations; the rest go to disk.")] = 256,
    sessions: Annotated[int, typer.Option(min=1, help="Realtime sessions at once.")] = 8,
    rate: Annotated[int, typer.Option(min=1, help="Requests of one address in a minute.")] = 600,
    max_audio_seconds: Annotated[
        float, typer.Option(min=1, max=86_400, help="Seconds of one uploaded sound to transcribe.")
    ] = 3600,
    max_upload_mb: Annotated[int, typer.Option(min=1, max=4096, help="MB of one uploaded file to transcribe.")] = 25,
    log_level: Annotated[
        LogLevel, typer.Option(help="What is logged: debug also shows /health and /metrics; warning only what failed.")
    ] = LogLevel.INFO,
    log_json: Annotated[bool, typer.Option("--log-json", help="Log one JSON object a line.")] = False,
    json: JsonOption = False,
) -> None:
    """Serve the model over OpenAI's interfaces, and to Home Assistant."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise MissingDependency(EXTRA, package)
    # Imported here: not everyone has the packages of the extra.
    from voxrill.runtime.apps.own_end import pause_judge
    from voxrill.runtime.audio.end_of_turn import AUTO, find_model
    from voxrill.runtime.serve.access import LOOPBACK, Admission
    from voxrill.runtime.serve.limits import Limits
    from voxrill.runtime.serve.log import LOG, set_up_log
    from voxrill.runtime.serve.server import Address, run
    from voxrill.runtime.serve.site import check_site
    from voxrill.runtime.serve.wyoming.addresses import bind, split, uri_of
    from voxrill.runtime.serve.wyoming.server import Wyoming

    key = _key(api_key_file)
    if key is None and host not in LOOPBACK:
        raise UsageError(
            f"Other machines can reach {host}, and there is no API key",
            f"Set {KEY_VARIABLE} or give --api-key-file, or leave --host out",
        )
    admission = Admission(key, LOOPBACK if key is None else (), tuple(origin or ()))
    limits = Limits(
        memory=memory << 20,
        sessions=sessions,
        rate=rate,
        recording=max_audio_seconds,
        audio=min(max_audio_seconds, Limits.audio),
        file=max_upload_mb << 20,
    )
    if wyoming_confidence is not None and wyoming is None:
        raise UsageError("--wyoming-confidence is for Home Assistant", "Give it with --wyoming")
    if web is not None:
        check_site(web)
    for uri in satellite or ():
        split(uri)
    ends = find_model(AUTO) if end_of_turn is None else TurnWish(end_of_turn).model()
    address = Address(host, port)
    say = LOG.info if log_json else partial(err.print, soft_wrap=True)
    with ExitStack() as sockets:  # whether a port is free is known before a model is loaded
        bound = sockets.enter_context(closing(address.bind()))
        assist = None if wyoming is None else sockets.enter_context(closing(bind(wyoming, wyoming_anyone)))
        model = loading.model()

        def ready() -> None:
            say_waiting()
            name, url, page = model.manifest.name, address.url(bound), address.page(bound)
            wyoming_uri = None if assist is None else uri_of(assist)
            if json:
                print_json({"url": url, "page": page, "wyoming": wyoming_uri, "model": name, "key": key is not None})
            else:
                beside = f", for Home Assistant at {wyoming_uri}" if wyoming_uri else ""
                say(f"{name} is at {url}, for browsers at {page}{beside}. Ctrl-C ends it.")

        set_up_log(log_level, log_json)
        judge = pause_judge(model, end_of_turn, ends, LOG.warning)
        home = Wyoming(assist, tuple(satellite or ()), say, wyoming_confidence)
        run(model, bound, limits, admission, home, ready, judge, web)


def _key(file: Path | None) -> str | None:
    key = os.environ.get(KEY_VARIABLE) if file is None else read_text(file, LARGEST_TEXT).strip()
    if key is not None and (len(key) < _LEAST_KEY or not key.isascii()):
        raise UsageError(
            f"The API key must have at least {_LEAST_KEY} characters, all of them ASCII",
            "Make one with: python -c 'import secrets; print(secrets.token_urlsafe())'",
        )
    return key
