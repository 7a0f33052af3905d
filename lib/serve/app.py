"""The application: which path is answered by which function, and what they share."""

import logging
import time
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.errors import printable
from lib.serve.analyze import analyze_text, tokenizations
from lib.serve.chat import chat_completions
from lib.serve.completions import completions
from lib.serve.errors import ApiError, as_api_error
from lib.serve.limits import Limits
from lib.serve.metrics import Metrics
from lib.serve.models import ServedModels
from lib.serve.safety import Access, Safety
from lib.serve.tokens import apply_template, detokenize, tokenize, tokenizer_info
from lib.serve.worker import Worker

#: The folder of the page; its files have routes of their own, so that a path never names a file.
PAGE = Path(__file__).parent.parent / "page"
_PAGE_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

_log = logging.getLogger(__name__)


def create_app(worker: Worker, metrics: Metrics, limits: Limits, access: Access) -> Starlette:
    """The application; its `state.models` are set when they are loaded. `surrounded` adds what every request goes through."""
    app = Starlette(
        routes=[*API_ROUTES, *page_routes()],
        exception_handlers=dict.fromkeys((ApiError, HTTPException, Exception), _answer_error),
    )
    app.state.models = ServedModels([])
    app.state.worker, app.state.metrics, app.state.limits, app.state.access = worker, metrics, limits, access
    return app


def surrounded(app: Starlette) -> ASGIApp:
    """The application within its middleware."""
    public = frozenset({"/health", *(route.path for route in page_routes())})
    return Measured(Safety(app, app.state.access, app.state.limits, public), app.state.metrics)


async def models(request: Request) -> JSONResponse:
    """GET /v1/models."""
    request.app.state.models.check_loaded()
    return JSONResponse({"object": "list", "data": [model.to_json() for model in request.app.state.models]})


async def model(request: Request) -> JSONResponse:
    """GET /v1/models/NAME."""
    return JSONResponse(request.app.state.models.find(request.path_params["name"]).to_json())


async def health(request: Request) -> JSONResponse:
    """GET /health: 503 while the models are being loaded, and if nothing can be computed any more."""
    request.app.state.models.check_loaded()
    if not request.app.state.worker.is_alive:
        raise ApiError(503, "the worker has stopped; start the server again")
    return JSONResponse({"status": "ok"})


async def metrics(request: Request) -> PlainTextResponse:
    """GET /metrics, in the text format of Prometheus."""
    worker: Worker = request.app.state.worker
    text = request.app.state.metrics.text(waiting=worker.waiting, running=worker.running)
    return PlainTextResponse(text, media_type="text/plain; version=0.0.4")


API_ROUTES = [
    Route("/v1/models", models),
    Route("/v1/models/{name}", model),
    Route("/v1/completions", completions, methods=["POST"]),
    Route("/v1/chat/completions", chat_completions, methods=["POST"]),
    Route("/v1/analyze", analyze_text, methods=["POST"]),
    Route("/v1/tokenizations", tokenizations, methods=["POST"]),
    Route("/tokenize", tokenize, methods=["POST"]),
    Route("/detokenize", detokenize, methods=["POST"]),
    Route("/apply-template", apply_template, methods=["POST"]),
    Route("/tokenizer_info", tokenizer_info),
    Route("/health", health),
    Route("/metrics", metrics),
]


def page_routes() -> list[Route]:
    """A route for each file of the page, and / for index.html."""

    def route(path: str, file: Path) -> Route:
        async def answer(request: Request) -> Response:
            return FileResponse(file, media_type=_PAGE_TYPES[file.suffix], headers={"Cache-Control": "no-cache"})

        return Route(path, answer)

    files = sorted(file for file in PAGE.glob("*") if file.suffix in _PAGE_TYPES)
    return [route("/" if file.name == "index.html" else f"/{file.name}", file) for file in files]


async def _answer_error(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code in (404, 405):
        asked = f"{request.method} {request.url.path[:100]}"
        message = f"{asked} is not answered here; docs/serve_api.md lists what is"
        return ApiError(error.status_code, message, headers=error.headers).response()
    return as_api_error(error).response()


class Measured:
    """The outermost middleware: counts requests and logs a line for each; an exception that no handler knew ends here."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        status = 499  # the client left before the answer, as nginx has it
        start = time.monotonic()
        request = f"{scope['method']} {printable(scope['path'][:100])}"

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        except OSError:  # the connection is closed
            pass
        except Exception as error:
            _log.error("%s failed: %s: %s", request, type(error).__name__, error, exc_info=error)
        seconds = time.monotonic() - start
        route = scope.get("route")  # set by Starlette
        self._metrics.requests[getattr(route, "path", "other"), status] += 1
        self._metrics.seconds.observe(seconds)
        _log.info("%s %d in %.3f s", request, status, seconds)
