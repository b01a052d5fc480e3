"""A problem in the words of the protocol that was spoken: its status, and the body that its clients know how to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from fenlei.serving.problems import STATUS, Kind, ProblemError

OPENAI_TYPES: Mapping[Kind, str] = {
    "malformed": "BadRequestError",
    "empty": "BadRequestError",
    "invalid": "BadRequestError",
    "too_many": "BadRequestError",
    "too_large": "BadRequestError",
    "unauthorized": "AuthenticationError",
    "not_found": "NotFoundError",
    "method": "MethodNotAllowedError",
    "slow": "RequestTimeoutError",
    "overloaded": "RateLimitError",
    "failed": "InternalServerError",
    "unavailable": "ServiceUnavailableError",
    "timeout": "TimeoutError",
}
TEI_TYPES: Mapping[Kind, str] = {
    "empty": "empty",
    "overloaded": "overloaded",
    "unavailable": "unhealthy",
    "failed": "backend",
    "timeout": "backend",
}
TEI_STATUS: Mapping[Kind, int] = {"empty": 400, "failed": 424}
VLLM_STATUS: Mapping[Kind, int] = {"empty": 400, "invalid": 400, "too_many": 400}
HUGGING_FACE_STATUS: Mapping[Kind, int] = {"empty": 400, "invalid": 400, "too_many": 400}


class ErrorDetail(BaseModel):
    """What OpenAI's clients read."""

    message: str
    type: str
    param: str | None
    code: int


class OpenAIError(BaseModel):
    """The error body of the own routes and of vLLM's and infinity's."""

    error: ErrorDetail


class TeiError(BaseModel):
    """The error body of text-embeddings-inference."""

    error: str
    error_type: str


class HuggingFaceError(BaseModel):
    """The error body of Hugging Face inference."""

    error: str


def said(problem: ProblemError, path: str) -> tuple[int, dict[str, Any]]:
    """Status and body for a problem on the route `path`."""
    kind, message = problem.kind, str(problem)
    if path in ("/predict", "/info"):
        return TEI_STATUS.get(kind, STATUS[kind]), {"error": message, "error_type": TEI_TYPES.get(kind, "validation")}
    if path == "/":
        return HUGGING_FACE_STATUS.get(kind, STATUS[kind]), {"error": message}
    status = VLLM_STATUS.get(kind, STATUS[kind]) if path == "/classify" else STATUS[kind]
    return status, {"error": {"message": message, "type": OPENAI_TYPES[kind], "param": None, "code": status}}


def responses(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    """For the OpenAPI description: the statuses of problems, with their body."""
    return {status: {"model": model} for status in statuses}
