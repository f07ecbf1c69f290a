"""The server's routes, and the access checks around them.

In: a loaded model. Out: an ASGI application, for uvicorn or a test. Another endpoint is a module beside these, which
adds its route here.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute

from voxrill.runtime.audio.end_of_turn import PauseJudge
from voxrill.runtime.engine.engine import Engine
from voxrill.runtime.errors import VoxrillError
from voxrill.runtime.serve import docs_page, web_page
from voxrill.runtime.serve.access import AccessMiddleware, Admission
from voxrill.runtime.serve.api_errors import ApiError, refuse
from voxrill.runtime.serve.chat import ChatEndpoint
from voxrill.runtime.serve.device import device
from voxrill.runtime.serve.limits import Limits
from voxrill.runtime.serve.metrics import CONTENT_TYPE
from voxrill.runtime.serve.names import voice_list
from voxrill.runtime.serve.openapi import document
from voxrill.runtime.serve.realtime.endpoint import RealtimeEndpoint
from voxrill.runtime.serve.request_log import RequestLog
from voxrill.runtime.serve.responses import ResponsesEndpoint
from voxrill.runtime.serve.service import MODEL_HEADER, VOICE_HEADER, WARNING_HEADER, Endpoint, Service, as_json
from voxrill.runtime.serve.site import site_routes
from voxrill.runtime.serve.speech import speech
from voxrill.runtime.serve.transcriptions import transcriptions, translations
from voxrill.runtime.serve.wyoming.server import Wyoming, WyomingServer

OWNER = "voxrill"


def make_app(
    model: Engine,
    limits: Limits,
    admission: Admission,
    wyoming: Wyoming,
    judge: PauseJudge | None = None,
    site: Path | None = None,
) -> Starlette:
    """The application. Its `state.service` is the service. judge: see `Service`. site: the folder that `site` serves.

    Service and Wyoming protocol are there while the application's lifespan lasts.
    """
    service = Service(model, limits, judge, wyoming.least_confidence)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            async with WyomingServer(service).open(wyoming):
                yield
        finally:
            service.stop()

    middleware = [Middleware(AccessMiddleware, admission=admission, limits=limits)]
    if admission.origins:
        cors = Middleware(
            CORSMiddleware,
            allow_origins=admission.origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],
            expose_headers=[MODEL_HEADER, VOICE_HEADER, WARNING_HEADER],
        )
        middleware.insert(0, cors)
    app = Starlette(
        routes=[*_routes(service), *site_routes(site)],
        middleware=[Middleware(RequestLog, metrics=service.metrics), *middleware],
        exception_handlers={kind: refuse for kind in (HTTPException, ApiError, VoxrillError, Exception)},
        lifespan=lifespan,
    )
    app.state.service = service
    return app


def _routes(service: Service) -> list[BaseRoute]:
    name, tasks = service.model.manifest.name, service.model.manifest.tasks
    realtime, chat = RealtimeEndpoint(service), ChatEndpoint(service)
    docs = docs_page.docs_page(document(service), service.limits)
    entry = {"id": name, "object": "model", "created": service.created, "owned_by": OWNER}

    def get(path: str, answer: Callable[[Request], Any]) -> Route:
        async def endpoint(request: Request) -> Response:
            found = answer(request)
            return found if isinstance(found, Response) else as_json(found)

        return Route(path, endpoint, methods=["GET"])

    def model(request: Request) -> dict[str, Any]:
        service.check_model(request.path_params["name"])
        return entry

    def post(path: str, handler: Callable[..., Awaitable[Response]]) -> Route:
        return Route(path, Endpoint(service, handler), methods=["POST"])

    return [
        get("/health", lambda _request: {"status": "ok"} if service.worker.alive else Response(status_code=503)),
        get("/metrics", lambda _request: Response(service.metrics.text(), headers={"Content-Type": CONTENT_TYPE})),
        get("/openapi.json", lambda _request: document(service)),
        get("/docs", lambda _request: Response(docs, headers=docs_page.HEADERS, media_type="text/html")),
        get("/v1/device", lambda _request: device(service, realtime.sessions)),
        get("/v1/models", lambda _request: {"object": "list", "data": [entry]}),
        get("/v1/models/{name}", model),
        get("/v1/audio/voices", lambda _request: voice_list(tasks.speak, tasks.chat)),
        post("/v1/audio/speech", speech),
        post("/v1/audio/transcriptions", transcriptions),
        post("/v1/audio/translations", translations),
        post("/v1/chat/completions", chat),
        post("/v1/responses", ResponsesEndpoint(chat)),
        WebSocketRoute("/v1/realtime", realtime.__call__),
        *web_page.routes(),
    ]
