"""POST /classify, on which three peers live: vLLM's shape, infinity's, and that of Chinese news classifiers with candidates in a string.

Their requests overlap. One with `text` is the last; one with `raw_scores`, or every other where the service was told so, is infinity's;
the rest are vLLM's.
"""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Discriminator, Field, StrictBool, StrictInt, StrictStr, Tag

from fenlei.inference.prediction import Prediction
from fenlei.labels import known_names_in
from fenlei.serving.problems import ProblemError
from fenlei.serving.protocols.answers import Json, LabelScore, Texts, TextService, by_score, cut_head, logit, tokens_read
from fenlei.serving.protocols.errors import OpenAIError, responses
from fenlei.serving.service import Service

router = APIRouter(tags=["compatible"])

Shape = Literal["vllm", "infinity"]
ANY_MODEL = "default/not-specified"
"""infinity's word for the model it has."""


class VllmRequest(BaseModel):
    """vLLM's completion form."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"input": ["央行宣布下调存款准备金率"]}]})

    model: StrictStr | None = None
    input: StrictStr | Texts
    truncate_prompt_tokens: StrictInt | None = Field(default=None, description="Null or -1: the length rule is the run's.")
    use_activation: StrictBool | None = Field(default=None, description="False: logits in the place of probabilities.")


class InfinityRequest(BaseModel):
    """infinity's form."""

    input: Texts = Field(min_length=1)
    model: StrictStr = ANY_MODEL
    raw_scores: StrictBool = False


class CandidatesRequest(BaseModel):
    """A text, and the labels it may have joined by commas."""

    text: StrictStr
    category: StrictStr | None = None


class VllmItem(BaseModel):
    """One text's answer."""

    index: int
    label: str
    probs: list[float]
    num_classes: int


class VllmUsage(BaseModel):
    """Tokens, as OpenAI counts them."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: None


class VllmResponse(BaseModel):
    """vLLM's ClassificationResponse."""

    id: str
    object: Literal["list"]
    created: int
    model: str
    data: list[VllmItem]
    usage: VllmUsage


class InfinityUsage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    total_tokens: int


class InfinityResponse(BaseModel):
    """infinity's ClassifyResult."""

    object: Literal["classify"]
    data: list[list[LabelScore]]
    model: str
    usage: InfinityUsage
    id: str
    created: int


class CandidatesResponse(BaseModel):
    """The label; multi-label, all that are given, joined by commas."""

    predicted_category: str
    status: Literal["success"]


def _shape(body: Any) -> str:
    fields = body if isinstance(body, dict) else {}
    return "candidates" if "text" in fields else "infinity" if "raw_scores" in fields else "vllm"


ClassifyRequest = Annotated[
    Annotated[VllmRequest, Tag("vllm")] | Annotated[InfinityRequest, Tag("infinity")] | Annotated[CandidatesRequest, Tag("candidates")],
    Discriminator(_shape),
]


@router.post(
    "/classify",
    response_model=VllmResponse | InfinityResponse | CandidatesResponse,
    responses=responses(OpenAIError, 400, 401, 404, 408, 413, 422, 429, 500, 503, 504),
)
async def classify(body: ClassifyRequest, request: Request, service: TextService) -> Response:
    """In the shape of vLLM; of infinity where `raw_scores` is given; of `text` and `category`."""
    if isinstance(body, CandidatesRequest):
        return await _candidates(body, service)
    texts = [body.input] if isinstance(body.input, str) else body.input
    name = service.served.run
    if body.model not in (None, name, ANY_MODEL):
        raise ProblemError("not_found", f"the model {body.model!r} does not exist; here is {name!r}")
    if not texts:
        raise ProblemError("empty", "input: expected at least one text")
    if isinstance(body, InfinityRequest) or request.app.state.classify_shape == "infinity":
        return await _infinity(texts, service, raw=isinstance(body, InfinityRequest) and body.raw_scores)
    if body.truncate_prompt_tokens not in (None, -1):
        raise ProblemError("invalid", "truncate_prompt_tokens: the run has its own length rule; send -1 or nothing")
    return await _vllm(texts, service, raw=body.use_activation is False)


async def _vllm(texts: list[str], service: Service, *, raw: bool) -> Response:
    answers = await service.classify(texts)
    predictions = [one.prediction for one in answers]
    tokens = tokens_read(predictions)
    return Json(
        {
            "id": f"classify-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": answers[0].run,
            "data": [_vllm_item(at, one, raw) for at, one in enumerate(predictions)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0, "prompt_tokens_details": None},
        },
        headers=cut_head(predictions),
    )


def _vllm_item(index: int, prediction: Prediction, raw: bool) -> dict[str, Any]:
    scores = [logit(prediction, p) if raw else p for p in prediction.probabilities.values()]
    return {"index": index, "label": prediction.label, "probs": scores, "num_classes": len(scores)}


async def _infinity(texts: list[str], service: Service, *, raw: bool) -> Response:
    answers = await service.classify(texts)
    predictions = [one.prediction for one in answers]
    tokens = tokens_read(predictions)
    return Json(
        {
            "object": "classify",
            "data": [by_score(one, raw=raw) for one in predictions],
            "model": answers[0].run,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            "id": f"infinity-{uuid.uuid4()}",
            "created": int(time.time()),
        },
        headers=cut_head(predictions),
    )


async def _candidates(body: CandidatesRequest, service: Service) -> Response:
    labels = known_names_in(body.category or "", service.served.classifier.labels)
    (answer,) = await service.classify([body.text], labels or None)
    prediction = answer.prediction
    named = prediction.label if prediction.labels is None else ",".join(prediction.labels)
    return Json({"predicted_category": named, "status": "success"}, headers=cut_head([prediction]))
