"""The answers to texts that were typed, as `fenlei predict --text` prints them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from fenlei.inference.prediction import Prediction, Predictor
    from fenlei.text.pairs import Text


def show_texts(
    texts: Sequence[Text],
    predictions: list[Prediction],
    with_probabilities: bool,
    as_json: bool,
    *,
    own_labels: bool,
    passages_of: Predictor | None,
) -> None:
    """Each text's answer with bars of the labels' probabilities, and what there is to say of it; or, `as_json`, a line each."""
    from fenlei.cli.display import notes, probability_bars, tables
    from fenlei.data.examples import joined
    from fenlei.data.jsonvalues import to_json
    from fenlei.inference.passages import check_has_passages, told_passages
    from fenlei.inference.windows import predicted_row

    if passages_of is not None:
        check_has_passages(passages_of)

    for text, prediction in zip(texts, predictions, strict=True):
        whole = text if isinstance(text, str) else "\n".join(text)
        if as_json:
            shown = None if passages_of is None else whole
            own = {"text": text} if isinstance(text, str) else {"text": text[0], "pair": text[1]}
            typer.echo(to_json(predicted_row(own, prediction, probabilities=with_probabilities, text=shown)))
            continue
        if len(texts) > 1:
            typer.echo(whole)
        typer.echo(f"{joined(prediction.answer)}\t{prediction.confidence:.4f}")
        tables().print(probability_bars(prediction.probabilities))
        for line in _beside(prediction):
            typer.echo(line)
        for passage in told_passages(whole, prediction) if passages_of is not None else ():
            typer.echo(f"passage\t{passage['weight']:.4f}\t{passage['begin']}-{passage['end']}\t{' '.join(passage['text'].split())}")
        if prediction.tokens_cut:
            notes().print(f"{prediction.tokens_cut:,} tokens of the text were too many for the model and were not read")
        if not prediction.calibrated:
            of_its_own = "the run had too few dev rows for it, none of them was asked among all labels, or its labels were changed since"
            why = of_its_own if own_labels else "nothing was fitted on these labels"
            notes().print(f"The confidence is not calibrated: {why}.")


def _beside(prediction: Prediction) -> Iterator[str]:
    """What is said beside the label, where the run says it."""
    if prediction.abstained is not None:
        yield f"abstained\t{'yes: the confidence is below the threshold' if prediction.abstained else 'no'}"
    if prediction.prediction_set is not None:
        yield f"set\t{', '.join(prediction.prediction_set) or 'empty: no label is likely enough'}"
    if prediction.novelty is not None:
        yield f"novelty\t{prediction.novelty:.4f}"
