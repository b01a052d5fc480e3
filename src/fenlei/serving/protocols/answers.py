"""What all protocols share: the answer as JSON, labels sorted by score, and scores without the softmax or sigmoid."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, FailFast, StrictStr

from fenlei.data.jsonvalues import to_json
from fenlei.inference.prediction import Prediction
from fenlei.serving.problems import ProblemError
from fenlei.serving.service import Service

LEAST_PROBABILITY = 1e-38
"""Of float32: below it a logarithm would be infinite, which JSON cannot say."""

CUT_HEADER = "x-tokens-cut"


class FirstError(FailFast):
    """The first error of a list ends its reading: a million of them would cost more than a million texts."""

    def __hash__(self) -> int:  # a union asks for one
        return hash(self.fail_fast)


Texts = Annotated[list[StrictStr], FirstError()]
"""Texts of a request."""
Pairs = Annotated[list[tuple[StrictStr, StrictStr]], FirstError()]
"""Pairs of texts, each [first, second]."""


class LabelScore(BaseModel):
    """One label's score."""

    score: float
    label: str


class Json(JSONResponse):
    """A JSON answer; what is no finite number becomes null."""

    def render(self, content: Any) -> bytes:
        return to_json(content).encode()


def _service(request: Request) -> Service:
    service: Service = request.app.state.service
    return service


TheService = Annotated[Service, Depends(_service)]
"""The service of the application that a request came to."""


async def _reads_texts(service: TheService) -> Service:
    if service.served.classifier.pairs:
        raise ProblemError("invalid", "this run was trained on pairs of texts; send them to /v1/classify, as texts: [[first, second], ...]")
    return service


TextService = Annotated[Service, Depends(_reads_texts)]
"""It, where a route takes single texts; ProblemError where its run reads pairs."""


def by_score(prediction: Prediction, *, raw: bool) -> list[dict[str, Any]]:
    """Every label with its probability, or with `raw` its logit; the likeliest first."""
    found = sorted(prediction.probabilities.items(), key=lambda item: -item[1])
    return [{"score": logit(prediction, p) if raw else p, "label": name} for name, p in found]


def logit(prediction: Prediction, probability: float) -> float:
    """The calibrated logit of a label: softmax gives its probability, up to a constant that it does not see; multi-label, sigmoid does."""
    against = 0.0 if prediction.labels is None else math.log(max(1.0 - probability, LEAST_PROBABILITY))
    return math.log(max(probability, LEAST_PROBABILITY)) - against


def cut_head(predictions: Iterable[Prediction]) -> dict[str, str]:
    """The head that says how many tokens of a request's texts were not read, for which bodies of other protocols have no place."""
    return {CUT_HEADER: str(sum(one.tokens_cut for one in predictions))}


def tokens_read(predictions: Iterable[Prediction]) -> int:
    """Of all of them together."""
    return sum(one.tokens_read for one in predictions)
