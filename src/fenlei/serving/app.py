"""The HTTP application around a service: its routes, its page, and errors in each protocol's words."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from fenlei import __version__
from fenlei.errors import FenleiError
from fenlei.serving.gate import App, Gate
from fenlei.serving.keys import Keys
from fenlei.serving.problems import STATUS, Kind, ProblemError, problem_of
from fenlei.serving.protocols import classify, hugging_face, own, state, tei
from fenlei.serving.protocols.answers import CUT_HEADER, Json
from fenlei.serving.protocols.classify import Shape
from fenlei.serving.protocols.errors import said
from fenlei.serving.service import Service

PAGE = Path(__file__).parent / "page"
FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/tables.js": ("tables.js", "text/javascript; charset=utf-8"),
    "/words.js": ("words.js", "text/javascript; charset=utf-8"),
    "/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}
"""What a browser gets, by path: all of it from here, nothing from elsewhere."""
POLICY = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
OPEN = frozenset({*(("GET", path) for path in FILES), ("GET", "/health"), ("GET", "/ready"), ("GET", "/openapi.json")})
"""Routes without a key: what says no more of the run than its name and version, and the page, in which the key is typed."""


def create_app(
    service: Service,
    *,
    keys: Keys | None = None,
    cors_origins: Sequence[str] = (),
    classify_shape: Shape = "vllm",
    processes: int = 1,
) -> App:
    """The application; it starts the service with itself and stops it behind itself.

    `classify_shape` is that of POST /classify where a request does not tell; `processes` how many share the port.
    """
    keys = keys or Keys()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await service.stop()

    app = FastAPI(title="fenlei", version=__version__, lifespan=life, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.keys = keys
    app.state.classify_shape = classify_shape
    app.state.processes = processes
    for module in (own, classify, tei, hugging_face, state):
        app.include_router(module.router)
    for path in FILES:
        app.add_api_route(path, _file, methods=["GET"], include_in_schema=False)
    for kind in (ProblemError, FenleiError):
        app.add_exception_handler(kind, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)
    counted = frozenset({*app.openapi()["paths"], *FILES})
    gate: App = Gate(app, service, keys, OPEN, counted)
    if not cors_origins:
        return gate
    # Outside the gate: a browser asks whether it may without the key, and must be able to read that a key was wrong.
    return CORSMiddleware(
        gate,
        allow_origins=list(cors_origins),
        allow_methods=["GET", "POST"],
        allow_headers=["*"],
        expose_headers=["Retry-After", CUT_HEADER],
    )


async def _file(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return FileResponse(PAGE / name, media_type=kind, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


async def _problem(request: Request, error: Exception) -> Response:
    problem = problem_of(error)
    status, body = said(problem, request.url.path)
    return Json(body, status, headers=problem.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    """What was expected where; not what was found, which may be a text, or nothing that JSON can say."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(one["type"] == "json_invalid" for one in found):
        return await _problem(request, ProblemError("malformed", "the body is no JSON; send an object, encoded as UTF-8"))
    told = "; ".join(f"{'.'.join(str(step) for step in one['loc'][1:]) or 'body'}: {one['msg']}" for one in found[:4])
    return await _problem(request, ProblemError("invalid", told.encode("utf-8", "backslashreplace").decode()))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind: Kind = next((kind for kind, status in STATUS.items() if status == error.status_code), "malformed")
    status, body = said(ProblemError(kind, str(error.detail)), request.url.path)
    return Json(body, status, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    """The answer; the error itself goes on to the server's log."""
    return await _problem(request, ProblemError("failed", f"an error of the service: {type(error).__name__}"))
