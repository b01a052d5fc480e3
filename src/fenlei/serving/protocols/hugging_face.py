"""POST / in the shape of Hugging Face inference (task text-classification)."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from fenlei.serving.problems import ProblemError
from fenlei.serving.protocols.answers import Json, LabelScore, Texts, TextService, by_score, cut_head
from fenlei.serving.protocols.errors import HuggingFaceError, responses

router = APIRouter(tags=["compatible"])


class Parameters(BaseModel):
    """What Hugging Face's clients may add."""

    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = None
    top_k: StrictInt | None = Field(default=None, ge=1, description="The likeliest so many; null: all.")


class HuggingFaceRequest(BaseModel):
    """Hugging Face's request."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "央行宣布下调存款准备金率"}]})

    inputs: StrictStr | Texts
    parameters: Parameters | None = None


@router.post(
    "/",
    response_model=list[list[LabelScore]],
    responses=responses(HuggingFaceError, 400, 401, 408, 413, 422, 429, 500, 503, 504),
)
async def infer(body: HuggingFaceRequest, service: TextService) -> Response:
    """In the shape of Hugging Face inference: a list of labels for each text, also where it is one: its clients take the first."""
    options = body.parameters or Parameters()
    multi_label = service.served.classifier.multi_label
    if options.function_to_apply == ("softmax" if multi_label else "sigmoid"):
        right, other = ("any number of labels are", "sigmoid") if multi_label else ("one label of several is", "softmax")
        raise ProblemError(
            "invalid", f"function_to_apply: {right} right here, so {options.function_to_apply} has no meaning; use {other} or none"
        )
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    if not texts:
        raise ProblemError("empty", "inputs: expected at least one text")
    answers = await service.classify(texts)
    scores = [by_score(one.prediction, raw=options.function_to_apply == "none")[: options.top_k] for one in answers]
    return Json(scores, headers=cut_head(one.prediction for one in answers))
