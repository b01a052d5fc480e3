"""Whether the service lives, whether it is ready, what it serves, what it counts, and the order to take over a newer run."""

from __future__ import annotations

import os
import signal
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from fenlei import __version__
from fenlei.errors import FenleiError
from fenlei.serving.metrics import CONTENT_TYPE
from fenlei.serving.problems import ProblemError
from fenlei.serving.protocols.answers import Json, TheService
from fenlei.serving.protocols.errors import OpenAIError, responses

PASSED_ON = ("origin", "sec-fetch-site", "forwarded", "x-forwarded-for", "via")
"""Headers of browsers and proxies: on this machine both send what others have asked them to."""

router = APIRouter(tags=["state"])


@router.get("/health", responses=responses(OpenAIError, 503))
async def health(service: TheService) -> Response:
    """200 when the model's thread has answered, or the model is still loading; 503 when it is dead or stuck."""
    await service.prove_alive()
    return Json({"status": service.state})


@router.get("/ready", responses=responses(OpenAIError, 503))
async def ready(service: TheService) -> Response:
    """200 when requests are welcome: the model is loaded and warm, and the service is not ending."""
    if service.state != "ready":
        raise ProblemError("unavailable", f"the service is {service.state}", retry_after=2)
    served = service.served
    return Json({"status": "ready", "run": served.run, "version": served.version})


@router.get("/metrics", response_class=Response)
async def metrics(service: TheService) -> Response:
    """For Prometheus."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})


@router.get("/v1/models", responses=responses(OpenAIError, 503))
async def models(service: TheService) -> Response:
    """The run, as OpenAI's and vLLM's clients list models."""
    served = service.served
    card: dict[str, Any] = {
        "id": served.run,
        "object": "model",
        "created": int(served.loaded),
        "owned_by": "fenlei",
        "root": served.run,
        "parent": None,
        "max_model_len": service.longest_input,
        "permission": [],
        "version": served.version,
        "labels": list(served.classifier.labels),
    }
    return Json({"object": "list", "data": [card]})


@router.get("/version")
async def version() -> Response:
    """The version of fenlei."""
    return Json({"version": __version__})


@router.post("/admin/reload", responses=responses(OpenAIError, 401, 422, 503))
async def reload(request: Request, service: TheService) -> Response:
    """Takes over the run that is in the served folder now, without dropping a request; of several processes, in each.

    Without API keys only from this machine, through no proxy or browser.
    """
    if not request.app.state.keys and not _is_from_here(request):
        raise ProblemError("unauthorized", "without API keys, a reload is taken from this machine only, through no proxy or browser")
    if request.app.state.processes > 1:
        os.kill(os.getppid(), signal.SIGHUP)
        return Json({"status": "reloading", "processes": request.app.state.processes}, status_code=202)
    try:
        served = await service.reload()
    except FenleiError as error:
        raise ProblemError("invalid", f"the run before stays in service: {error}") from error
    return Json({"status": "reloaded", "run": served.run, "version": served.version})


def _is_from_here(request: Request) -> bool:
    """Whether somebody on this machine asks, and not another through him."""
    host = request.client.host.removeprefix("::ffff:") if request.client else ""  # how IPv4 comes to a port that listens on `::`
    return host in ("127.0.0.1", "::1") and not any(name in request.headers for name in PASSED_ON)
