"""`fenlei predict`: labels for one text or for a file of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.answers import show_texts
from fenlei.cli.predict_model import Base, LongTexts, MaxLength, Prompt, load_named, refuse_labels
from fenlei.cli.predict_ray import Address, Engine, OutFormat, Workers, check_ray, predict_on_ray
from fenlei.cli.trust import MinConfidence, SetByClass, SetCoverage, SetScoreOption, TargetAccuracy, asked
from fenlei.cli.verify import Verify
from fenlei.config import Device, trained_on
from fenlei.errors import ConfigError, FenleiError

if TYPE_CHECKING:
    from fenlei.data.readers import ColumnNames
    from fenlei.inference.bulk import BulkResult
    from fenlei.inference.prediction import Predictor
    from fenlei.text.pairs import Text

    Load = Callable[[], tuple[Predictor, list[str] | None]]
    """What gives the classifier, and the labels to ask it among where they are not its own."""


EXAMPLES = (
    "fenlei predict runs/news --text 央行宣布下调存款准备金率",
    "fenlei predict Qwen/Qwen3-0.6B --labels 财经,体育,科技 --text 央行宣布下调存款准备金率",
    "fenlei predict runs/news new.csv --out predicted.csv --probabilities",
    "fenlei predict runs/news new.csv --out predicted.csv --target-accuracy 0.99",
    "cat new.jsonl | fenlei predict runs/news - > predicted.jsonl",
    "fenlei predict runs/news log.jsonl --follow --out predicted.jsonl",
    "fenlei predict runs/news new.jsonl --engine ray --workers 4 --out predicted.jsonl",
    "fenlei predict runs/news s3://bucket/rows/ --engine ray --address auto --out s3://bucket/predicted/ --out-format parquet",
    "fenlei predict --url http://127.0.0.1:8000 new.csv --out predicted.csv",
)


def predict(
    run: Annotated[
        str | None,
        typer.Argument(metavar="RUN_OR_MODEL", help="A run's folder; with --labels also a model (zero-shot) or adapter; none with --url."),
    ] = None,
    source: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="File of rows, or a split on a hub; `-` reads JSON lines from stdin.")
    ] = None,
    *,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text to classify instead of a file; may be given again.")] = None,
    pair: Annotated[list[str] | None, typer.Option("--pair", help="For a run on pairs, the second text to each --text.")] = None,
    out: Annotated[str, typer.Option("--out", "--output", help="File to write, .jsonl or .csv; `-` is stdout.")] = "-",
    labels: Annotated[
        str | None, typer.Option(help="Labels to choose among, joined by commas, or a file of them.", show_default=False)
    ] = None,
    multi_label: Annotated[bool, typer.Option("--multi-label", help="A model or an adapter: any number of --labels may be right.")] = False,
    url: Annotated[str | None, typer.Option(help="Ask the service there; FENLEI_API_KEY is its key.", show_default=False)] = None,
    text_column: Annotated[str | None, typer.Option(help="Column of the text; default: the one the run was trained on.")] = None,
    pair_column: Annotated[
        str | None, typer.Option(help="Column of the second text, for a run on pairs; default: the one it was trained on.")
    ] = None,
    probabilities: Annotated[bool, typer.Option("--probabilities", help="Add the probability of every label.")] = False,
    passages: Annotated[
        bool, typer.Option("--passages", help="Add which passages of a long text counted most (--long windows or max).")
    ] = False,
    prefix: Annotated[str, typer.Option(help="Put before the names of the added columns.", show_default=False)] = "",
    min_confidence: MinConfidence = None,
    target_accuracy: TargetAccuracy = None,
    set_coverage: SetCoverage = None,
    set_score: SetScoreOption = "lac",
    set_by_class: SetByClass = False,
    follow: Annotated[bool, typer.Option("--follow", help="Wait for more rows of a JSON lines file that grows; Ctrl-C ends.")] = False,
    verify: Verify = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers: faster on x86 CPUs, most with VNNI, slightly less exact.")
    ] = False,
    prompt: Prompt = None,
    max_length: MaxLength = None,
    long: LongTexts = None,
    base: Base = None,
    engine: Engine = "local",
    address: Address = None,
    workers: Workers = None,
    out_format: OutFormat = None,
    json: Annotated[bool, typer.Option("--json", help="For --text: a JSON line a text. For a file: the summary as JSON.")] = False,
) -> None:
    """Classify a text, or every row of a file.

    Every column of a row is kept, in order; prediction, confidence, calibrated and tokens_cut are added, and where the run measures them
    or they are asked for, prediction_set, abstained and novelty. No row is dropped: those that cannot be read go to OUT.rejected.jsonl,
    with line and reason. If it is interrupted, run the same command again: it continues where it stopped.

    With --engine ray, INPUT and --out may also be folders, and URLs that fsspec opens (s3://...).
    """
    if url is not None and source is None:
        run, source = None, run
    if (source is None) == (not text):
        raise typer.BadParameter("give either a file (`-` is stdin) or --text", param_hint="INPUT")
    if (run is None) == (url is None):
        raise typer.BadParameter("give a run, a model, or --url of a service", param_hint="RUN_OR_MODEL")

    texts = _typed(text or [], pair or [])
    trust = asked(min_confidence, target_accuracy, set_coverage, set_score, set_by_class)
    given = {"prompt": prompt, "max_length": max_length, "long": long, "base": base}
    reading = {name: value for name, value in given.items() if value is not None}
    if url is not None and (trust.promises or int8 or verify or passages or multi_label or reading or device != "auto"):
        raise typer.BadParameter("what it computes, promises and tells of a text is up to the service", param_hint="--url")
    if source is None and (out != "-" or prefix or follow):
        raise typer.BadParameter("--out, --prefix and --follow are for a file; the answer to --text is printed", param_hint="--text")

    check_ray(
        engine, address, workers, out_format,
        refused={"--text": text, "--url": url, "--follow": follow, "--multi-label": multi_label, "--prompt and the like": reading},
    )  # fmt: skip
    if engine == "ray":
        with _what_is_done_is_told(out):
            result = predict_on_ray(
                str(run), str(source), out, address, workers, out_format, device, trust, int8, verify, labels,
                text_column=text_column or trained_on(Path(str(run))).text_column, pair_column=pair_column,
                probabilities=probabilities, prefix=prefix, passages=passages,
            )  # fmt: skip
        _tell(result, out, json)
        return

    @cache  # of a service, what it reads is asked before its answers
    def load() -> tuple[Predictor, list[str] | None]:
        return _reach(url, labels) if url is not None else load_named(str(run), device, labels, trust, int8, verify, multi_label, reading)

    if source is None:
        classifier, among = load()
        predictions = classifier.predict(texts) if among is None else classifier.predict(texts, labels=among)
        show_texts(texts, predictions, probabilities, json, own_labels=labels is None, passages_of=classifier if passages else None)
        return

    result = _file(
        load, run, source, out, text_column, pair_column,
        probabilities=probabilities, prefix=prefix, passages=passages, follow=follow,
    )  # fmt: skip
    _tell(result, out, json)


def _file(
    load: Load,
    run: str | None,
    source: str,
    out: str,
    text_column: str | None,
    pair_column: str | None,
    *,
    follow: bool,
    **added: Any,
) -> BulkResult:
    """Every row of `source` into `out`, with the columns `added` as predict_file names them; files are checked before the slow `load`."""
    from fenlei.cli.display import counting_rows, notes
    from fenlei.data.encodings import read_once
    from fenlei.data.readers import file_layout
    from fenlei.data.remote import is_remote
    from fenlei.data.sources import one_file
    from fenlei.inference.bulk import checked_target, predict_file

    checked_target(out, source)
    if is_remote(source):
        source = str(one_file(source)[0])
    named, usual_text = _columns(run, load, text_column, pair_column)
    if not follow and not read_once(source):
        layout = file_layout(source, **named, labelled=False, on_bad_row=lambda line, error: None, usual_text=usual_text)
        notes().print(str(layout), style="dim", markup=False)
    classifier, among = load()
    with _what_is_done_is_told(out), counting_rows("predicting", source, hidden=out == "-") as progress:
        return predict_file(
            classifier, source, out, text_column=named["text_column"], pair_column=named["pair_column"], labels=among, follow=follow,
            progress=progress, announce=lambda note: notes().print(note, style="dim", markup=False), **added,
        )  # fmt: skip


def _typed(text: Sequence[str], pair: Sequence[str]) -> Sequence[Text]:
    """The texts, or pairs, of the command line."""
    if not pair:
        return text
    if len(pair) != len(text):
        raise typer.BadParameter(f"{len(pair)} second texts to {len(text)} --text; give one to each", param_hint="--pair")
    return list(zip(text, pair, strict=True))


@contextmanager
def _what_is_done_is_told(out: str) -> Iterator[None]:
    """Where a prediction is ended, the one who reads the error should know that nothing is lost."""
    from fenlei.cli.display import notes

    try:
        yield
    except (FenleiError, KeyboardInterrupt) as ended:
        if out != "-" and Path(f"{out}.journal").exists() and not isinstance(ended, ConfigError):  # which says itself what to do
            told = f"What is done is kept beside {out}: the same command goes on from there, with the same run and the same rows."
            notes().print(told, markup=False)
        raise


def _reach(url: str, labels: str | None) -> tuple[Predictor, list[str] | None]:
    """The service at `url`, and the labels to ask it among where they are not its own."""
    import os

    from fenlei.cli.display import notes
    from fenlei.data.label_file import given_labels
    from fenlei.labels import LabelNote
    from fenlei.serving.client import Client

    service = Client(url, api_key=os.environ.get("FENLEI_API_KEY"))
    if labels is None:
        return service, None
    given = given_labels(labels, service.labels)
    if any(note != LabelNote() for note in given.values()):
        notes().print("The service is asked among the names of the labels; their descriptions and aliases stay here.")
    if not service.takes_labels and set(given) != set(service.labels):
        refuse_labels(f"{url}: the run there", len(service.labels))
    return service, list(given)


def _columns(run: str | None, load: Load, text_column: str | None, pair_column: str | None) -> tuple[ColumnNames, Sequence[str]]:
    """Those given, else those of the run, and that of its labels, which are not read; then those that it learned its texts from, however
    it came to them. ConfigError for a second text where it reads single ones. `load` gives the service where the run is behind one.
    """
    from fenlei.artifact import MANIFEST, read_manifest
    from fenlei.data.columns import learned_from
    from fenlei.text.pairs import TEXT_COLUMN, columns_of

    if run is None:
        manifest = load()[0].describe()
        own = manifest.get(TEXT_COLUMN)
    else:
        manifest = read_manifest(run) if (Path(run) / MANIFEST).exists() else {}
        own = trained_on(Path(run)).text_column if manifest else None  # a config.yaml of others is none of ours
    text_column, pair_column = columns_of(manifest, text_column or own, pair_column)
    columns = learned_from(manifest)
    named: ColumnNames = {"text_column": text_column, "pair_column": pair_column, "label_column": columns["label_column"]}
    return named, columns["usual_text"]


def _tell(result: BulkResult, out: str, as_json: bool) -> None:
    """What was predicted: on standard output as JSON, else as a note."""
    from dataclasses import asdict

    from fenlei.cli.display import notes, print_json

    if as_json and out != "-":
        print_json({"out": out, **asdict(result)})
        return

    rate = (result.rows - result.rows_before) / max(result.seconds, 1e-9)
    cut = f"; {result.rows_cut:,} texts were too long, {result.tokens_cut:,} tokens were not read" if result.rows_cut else ""
    unsure = f"; {result.abstained:,} of the answers are below the threshold" if result.abstained else ""
    notes().print(f"{result.rows:,} rows in {result.seconds:,.1f} s, {rate:,.1f} rows/s{cut}{unsure}")
    if result.rejected:
        notes().print(f"{result.rejected:,} rows could not be read; they are in {result.rejected_file or 'the lines above'}", markup=False)
