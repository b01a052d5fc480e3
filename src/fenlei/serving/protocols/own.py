"""fenlei's own route: everything that is known of an answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fenlei.inference.prediction import Prediction
from fenlei.serving.protocols.answers import FirstError, Json, Pairs, Texts, TheService
from fenlei.serving.protocols.errors import OpenAIError, responses

router = APIRouter(tags=["fenlei"])

MOST_FIELDS = 16


class OwnRequest(BaseModel):
    """Texts to classify."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"texts": ["央行宣布下调存款准备金率"]}]})

    texts: Texts | Pairs = Field(min_length=1, description="Texts; of a run on pairs, [first, second] each.")
    labels: Texts | Annotated[list[Texts | None], FirstError()] | None = Field(
        default=None, description="Labels to choose among: the same for all texts, or a list for each; generate runs only."
    )

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, given: Any) -> Any:
        """Each unknown field would be an error of its own; a body may hold a million."""
        if isinstance(given, dict) and len(given) > MOST_FIELDS:
            raise ValueError(f"{len(given):,} fields, expected texts and labels")
        return given


class OwnAnswer(BaseModel):
    """One text's answer."""

    label: str = Field(description="The most probable label.")
    labels: list[str] | None = Field(
        description="Multi-label runs: every label given, the likeliest first, maybe none; null: one is right."
    )
    confidence: float
    probabilities: dict[str, float]
    prediction_set: list[str] | None = Field(
        description="Labels that hold the right one as often as the run promises; null: it promises none."
    )
    abstained: bool | None = Field(description="Whether the confidence is below the run's threshold; null: it has none.")
    novelty: float | None = Field(description="Share of known texts that are less strange; null: the run does not measure it.")
    calibrated: bool
    tokens_cut: int


class OwnResponse(BaseModel):
    """The answers, in the order of the texts."""

    run: str
    version: str
    answers_sha: str = Field(description="Beside `version`: what the service answers with, its promises and 8-bit integers.")
    results: list[OwnAnswer]


@router.post("/v1/classify", response_model=OwnResponse, responses=responses(OpenAIError, 400, 401, 408, 413, 422, 429, 500, 503, 504))
async def classify(body: OwnRequest, service: TheService) -> Response:
    """Every label's probability, and how far the answer can be trusted."""
    answers = await service.classify(body.texts, body.labels)
    first = answers[0]
    results = [_answer(one.prediction) for one in answers]
    return Json({"run": first.run, "version": first.version, "answers_sha": first.answers_sha, "results": results})


def _answer(prediction: Prediction) -> dict[str, Any]:
    chosen = prediction.prediction_set
    return {
        "label": prediction.label,
        "labels": None if prediction.labels is None else list(prediction.labels),
        "confidence": prediction.confidence,
        "probabilities": dict(prediction.probabilities),
        "prediction_set": None if chosen is None else list(chosen),
        "abstained": prediction.abstained,
        "novelty": prediction.novelty,
        "calibrated": prediction.calibrated,
        "tokens_cut": prediction.tokens_cut,
    }
