"""What can go wrong with a request, in one vocabulary; each protocol says it in its own words.

A FenleiError that the classifier raises is the request's fault, for the run itself was proven when it was loaded; but what it says of the
model's own numbers or files is not.
"""

from __future__ import annotations

from typing import Literal

from fenlei.errors import ArtifactError, FenleiError, ModelError

Kind = Literal[
    "malformed", "empty", "invalid", "too_many", "too_large", "slow", "unauthorized", "not_found", "method", "overloaded", "unavailable",
    "timeout", "failed",
]  # fmt: skip

STATUS: dict[Kind, int] = {
    "malformed": 400,
    "empty": 422,
    "unauthorized": 401,
    "not_found": 404,
    "method": 405,
    "slow": 408,
    "too_large": 413,
    "invalid": 422,
    "too_many": 422,
    "overloaded": 429,
    "failed": 500,
    "unavailable": 503,
    "timeout": 504,
}


class ProblemError(Exception):
    """A request that is not answered with labels; its message is for the caller."""

    def __init__(self, kind: Kind, message: str, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        """What belongs into the head of the answer."""
        named = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return named | ({"WWW-Authenticate": "Bearer"} if self.kind == "unauthorized" else {})


def is_callers(error: Exception) -> bool:
    """Whether a forward pass failed because of what was asked."""
    return isinstance(error, FenleiError) and not isinstance(error, (ModelError, ArtifactError))


def problem_of(error: Exception) -> ProblemError:
    """What the caller is told of an error that a forward pass raised; nothing of an unexpected one's message, which may quote texts."""
    if isinstance(error, ProblemError):
        return error
    if is_callers(error):
        return ProblemError("invalid", str(error))
    return ProblemError("failed", "the model failed on this request; the texts beside it were answered")
