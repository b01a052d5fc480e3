"""POST /predict and GET /info in the shape of text-embeddings-inference."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict, StrictBool, StrictStr

from fenlei import __version__
from fenlei.data.columns import READ_FROM, learned_from
from fenlei.data.labelling import Labelling
from fenlei.serving.problems import ProblemError
from fenlei.serving.protocols.answers import (
    FirstError,
    Json,
    LabelScore,
    Texts,
    TextService,
    TheService,
    by_score,
    cut_head,
    tokens_read,
)
from fenlei.serving.protocols.errors import TeiError, responses
from fenlei.text.pairs import PAIR_COLUMN, TEXT_COLUMN

router = APIRouter(tags=["compatible"])


class TeiRequest(BaseModel):
    """TEI's PredictRequest."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"inputs": "央行宣布下调存款准备金率"}]})

    inputs: StrictStr | Texts | Annotated[list[Texts], FirstError()]
    """A text, or a list of one-text lists. [a, b] is a pair to TEI, never two texts."""
    truncate: StrictBool | None = None
    """Unlike TEI's, null shortens, as `auto_truncate` of /info says; false refuses a text that is too long."""
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    raw_scores: StrictBool = False


@router.post(
    "/predict",
    response_model=list[LabelScore] | list[list[LabelScore]],
    responses=responses(TeiError, 400, 401, 408, 413, 422, 424, 429, 503, 504),
)
async def predict(body: TeiRequest, service: TextService) -> Response:
    """In the shape of text-embeddings-inference."""
    if body.truncation_direction.lower() == "left":
        raise ProblemError("invalid", "truncation_direction: this run shortens texts at their end; send right")
    texts, several = _texts(body.inputs)
    began = time.perf_counter()
    answers = await service.classify(texts)
    predictions = [one.prediction for one in answers]
    if body.truncate is False and (too_many := max(one.tokens_cut for one in predictions)):
        raise ProblemError(
            "too_large", f"inputs: a text has {too_many:,} tokens more than this run reads; shorten it, or send truncate: true"
        )
    scores = [by_score(one, raw=body.raw_scores) for one in predictions]
    device = service.served.classifier.device.type
    milliseconds = str(round(1000 * (time.perf_counter() - began)))
    heads = {
        "x-compute-type": "cpu" if device == "cpu" else "gpu+optimized",
        "x-compute-characters": str(sum(len(text) for text in texts)),
        "x-compute-tokens": str(tokens_read(predictions)),
        "x-compute-time": milliseconds,  # TEI's own is the total too
        "x-total-time": milliseconds,
        **cut_head(predictions),
    }
    return Json(scores if several else scores[0], headers=heads)


@router.get("/info")
async def info(service: TheService) -> Response:
    """The model and the limits, with the names that TEI has for them."""
    served, limits = service.served, service.limits
    labels = served.classifier.labels
    manifest = served.classifier.describe()
    ids: dict[str, Any] = {
        "id2label": {str(at): name for at, name in enumerate(labels)},
        "label2id": {name: at for at, name in enumerate(labels)},
    }
    return Json(
        {
            "model_id": served.run,
            "model_sha": served.version,
            "model_dtype": str(served.classifier.dtype).removeprefix("torch."),
            "model_type": {"classifier": ids},
            "served_model_name": served.run,
            "max_concurrent_requests": limits.max_queue,
            "max_input_length": service.longest_input,
            "max_batch_tokens": limits.batch_tokens or served.batch_tokens,
            "max_client_batch_size": limits.max_texts,
            "max_labels": limits.max_labels,
            "max_body_bytes": limits.max_body,
            "auto_truncate": True,
            "version": __version__,
            "method": manifest["method"],
            "text_column": manifest.get(TEXT_COLUMN) or served.text_column,
            "pair_column": manifest.get(PAIR_COLUMN),
            "label_column": learned_from(manifest)["label_column"],
            # Only of runs that have them: Client.describe tells all of this, and a prediction is gone on with by it.
            **({READ_FROM: manifest[READ_FROM]} if READ_FROM in manifest else {}),
            **({} if manifest.get("fitted_among_all", True) else {"fitted_among_all": False}),
            "takes_labels": served.classifier.takes_labels,
            "multi_label": served.classifier.multi_label,
            **Labelling.from_json(manifest).to_json(),
            "calibrated": bool(manifest.get("calibrated")),
            "answers_sha": served.answers_sha,
        }
    )


def _texts(inputs: str | list[str] | list[list[str]]) -> tuple[list[str], bool]:
    """The texts, and whether they were a batch."""
    if isinstance(inputs, str):
        return [inputs], False
    if not inputs:
        raise ProblemError("empty", "inputs: expected at least one text")
    each = [one for one in inputs if isinstance(one, list)]
    if each and (wrong := next((at for at, one in enumerate(each) if len(one) != 1), None)) is not None:
        raise ProblemError("invalid", f"inputs[{wrong}]: expected one text, found {len(each[wrong])}; this run was not trained on pairs")
    if each:
        return [one[0] for one in each], True
    if len(inputs) > 1:
        raise ProblemError(
            "invalid", "inputs: a list of texts is a pair here, and this run was not trained on pairs; write [[text], [text], ...]"
        )
    return [str(inputs[0])], False
