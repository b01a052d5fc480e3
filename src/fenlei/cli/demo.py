"""`fenlei demo`: the whole way once, with what is built in."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from fenlei.inference.prediction import Prediction
    from fenlei.report.evaluation import Evaluation

DEFAULT_OUT = Path("runs/demo")
TEXT_COLUMN = "title,body"
OTHER_LANGUAGES = {"English": "en", "Japanese": "ja"}
"""The same news translated; nothing of them is trained on."""

HEADLINES = (
    "央行下调存款准备金率，银行间市场利率应声走低",
    "火星车钻出两米岩芯，地下冰层比预想的更厚",
    "六平方米的厨房，怎样装下四口人的锅碗瓢盆",
    "新高考志愿填报延长三天，省里派老师进村讲解",
    "二手房挂牌连涨五周，中介开始劝业主降价",
)
"""Written for this demonstration; none is in the built-in rows."""

EXAMPLES = (
    "fenlei demo",
    "fenlei demo --out /tmp/first-run",
)


def demo(
    *,
    out: Annotated[Path, typer.Option("--out", "--output-dir", help="Folder for the run; a number is added if it is taken.")] = DEFAULT_OUT,
    json: Annotated[bool, typer.Option("--json", help="Print the figures as JSON.")] = False,
) -> None:
    """Train, evaluate and classify with what is built in.

    The model nano learns seven classes of Chinese news: a few minutes on two cores, no network.
    """
    from fenlei.cli.display import TrainingDisplay
    from fenlei.inference.classifier import Classifier
    from fenlei.report.evaluation import evaluate_run
    from fenlei.training.fit import train

    folder, builtin = free_folder(out), _builtin()
    with TrainingDisplay() as display:
        display.announce(f"Training nano, the built-in model, on {builtin / 'train.jsonl'}")
        train(
            builtin / "train.jsonl",
            model="nano",
            out=folder,
            progress=display,
            announce=display.announce,
            tuning="full",
            text_column=TEXT_COLUMN,
        )
    classifier = Classifier.load(folder)
    evaluation = evaluate_run(folder, builtin / "test.jsonl", classifier=classifier)
    others = {
        language: evaluate_run(folder, builtin / f"test.{code}.jsonl", out=folder / "report" / code, classifier=classifier)
        for language, code in OTHER_LANGUAGES.items()
    }
    predictions = classifier.predict(HEADLINES)
    if json:
        _print_as_json(folder, evaluation, others, predictions)
    else:
        _print_for_people(folder, evaluation, others, predictions)


def free_folder(wanted: Path) -> Path:
    """`wanted`, or the first of wanted-2, wanted-3, ... that is not there or empty."""
    from fenlei.artifact import is_taken

    if wanted.name in ("", ".."):  # `.` has no name that a number could follow
        wanted = wanted.resolve()
    folder, number = wanted, 1
    while is_taken(folder):
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    return folder


def _builtin() -> Path:
    import fenlei.data

    return Path(fenlei.data.__path__[0]) / "builtin"


def _print_for_people(folder: Path, evaluation: Evaluation, others: dict[str, Evaluation], predictions: list[Prediction]) -> None:
    from fenlei.cli.display import tables, typed
    from fenlei.report.tables import metrics_tables

    console = tables()
    console.print(metrics_tables(evaluation.metrics, evaluation.baseline))
    console.print()
    for language, other in others.items():
        console.print(f"The same test in {language}, which it was not trained on: {_accuracies(other)}", soft_wrap=True)
    console.print("\nNew headlines:")
    console.print(_headline_table(predictions))
    console.print(f"\nThe run is in {folder}, its report in {evaluation.out}. Try next:", markup=False, soft_wrap=True)
    for command in (
        f"fenlei predict {typed(folder)} --text '你的标题'",
        f"fenlei predict {typed(folder)} your.csv --text-column title --out predicted.csv",
        f"fenlei export {typed(folder)} --out exported",
        "fenlei train your.jsonl --model nano --out runs/mine",
    ):
        console.print(f"  {command}", markup=False, soft_wrap=True)


def _accuracies(evaluation: Evaluation) -> str:
    from fenlei.report.wording import BASELINE, percent

    beside = f" ({BASELINE} {percent(evaluation.baseline.accuracy)})" if evaluation.baseline else ""
    return f"{percent(evaluation.metrics.accuracy)} of {evaluation.metrics.rows:,} right{beside}"


def _headline_table(predictions: list[Prediction]) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for text, prediction in zip(HEADLINES, predictions, strict=True):
        table.add_row(f"  {prediction.label}", f"{100 * prediction.confidence:.1f} %", text)
    return table


def _print_as_json(folder: Path, evaluation: Evaluation, others: dict[str, Evaluation], predictions: list[Prediction]) -> None:
    from fenlei.cli.display import print_json
    from fenlei.inference.windows import predicted_row

    def figures(one: Evaluation) -> dict[str, Any]:
        return {"metrics": one.metrics.to_json(), "baseline": one.baseline.to_json() if one.baseline else None}

    print_json(
        {
            "run": str(folder),
            "test": figures(evaluation),
            "other_languages": {language: figures(other) for language, other in others.items()},
            "headlines": [predicted_row({"text": text}, one) for text, one in zip(HEADLINES, predictions, strict=True)],
        }
    )
