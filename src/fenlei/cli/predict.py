"""`fenlei predict`: labels for one text or for a file of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fenlei.cli.answers import show_texts
from fenlei.cli.predict_ray import Address, Engine, OutFormat, Workers, check_ray, predict_on_ray
from fenlei.cli.trust import OTHER_LABELS, MinConfidence, SetByClass, SetCoverage, SetScoreOption, TargetAccuracy, asked
from fenlei.config import Device, TrustConfig
from fenlei.errors import ConfigError, FenleiError

if TYPE_CHECKING:
    from fenlei.inference.bulk import BulkResult
    from fenlei.inference.classifier import Classifier
    from fenlei.inference.prediction import Predictor
    from fenlei.text.pairs import Text


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
        typer.Argument(metavar="RUN_OR_MODEL", help="Folder of a trained run; with --labels also a model (zero-shot); none with --url."),
    ] = None,
    source: Annotated[
        str | None, typer.Argument(metavar="INPUT", help="File of rows, or a split on a hub; `-` reads JSON lines from stdin.")
    ] = None,
    *,
    text: Annotated[list[str] | None, typer.Option("--text", help="A text to classify instead of a file; may be given again.")] = None,
    pair: Annotated[list[str] | None, typer.Option("--pair", help="For a run on pairs, the second text to each --text.")] = None,
    out: Annotated[str, typer.Option("--out", "--output", help="File to write, .jsonl or .csv; `-` is stdout.")] = "-",
    labels: Annotated[
        str | None, typer.Option(help="Labels to choose among, joined by commas, or a labels.yaml.", show_default=False)
    ] = None,
    multi_label: Annotated[bool, typer.Option("--multi-label", help="With a model's name: any number of --labels may be right.")] = False,
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
    verify: Annotated[bool, typer.Option("--verify", help="Compare every file of the run with its checksum first.")] = False,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = "auto",
    int8: Annotated[
        bool, typer.Option("--int8", help="Compute in 8-bit integers: faster on x86 CPUs, most with VNNI, slightly less exact.")
    ] = False,
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
    if url is not None and (trust.promises or int8 or verify or passages or multi_label or device != "auto"):
        raise typer.BadParameter("what it computes, promises and tells of a text is up to the service", param_hint="--url")
    if source is None and (out != "-" or prefix or follow):
        raise typer.BadParameter("--out, --prefix and --follow are for a file; the answer to --text is printed", param_hint="--text")

    check_ray(
        engine, address, workers, out_format, refused={"--text": text, "--url": url, "--follow": follow, "--multi-label": multi_label}
    )
    if engine == "ray":
        with _what_is_done_is_told(out):
            result = predict_on_ray(
                str(run), str(source), out, address, workers, out_format, device, trust, int8, verify, labels,
                text_column=text_column or _trained_column(str(run)), pair_column=pair_column, probabilities=probabilities, prefix=prefix,
                passages=passages,
            )  # fmt: skip
        _tell(result, out, json)
        return

    def load() -> tuple[Predictor, list[str] | None]:
        return _reach(url, labels) if url is not None else _load(str(run), device, labels, trust, int8, verify, multi_label)

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
    load: Callable[[], tuple[Predictor, list[str] | None]],
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
    from fenlei.data.readers import file_layout
    from fenlei.data.remote import is_remote
    from fenlei.data.sources import one_file
    from fenlei.inference.bulk import checked_target, predict_file

    checked_target(out, source)
    if is_remote(source):
        source = str(one_file(source)[0])
    text_column = text_column or (_trained_column(run) if run is not None else None)
    pair_column = _second_column(run, pair_column) if run is not None else pair_column
    if source != "-" and not follow:
        layout = file_layout(source, text_column=text_column, pair_column=pair_column, labelled=False, on_bad_row=lambda line, error: None)
        notes().print(str(layout), style="dim", markup=False)
    classifier, among = load()
    with _what_is_done_is_told(out), counting_rows("predicting", source, hidden=out == "-") as progress:
        return predict_file(
            classifier, source, out, text_column=text_column, pair_column=pair_column, labels=among, follow=follow,
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
    except (FenleiError, KeyboardInterrupt):
        if out != "-" and Path(f"{out}.journal").exists():
            notes().print(f"What is done is kept beside {out}: the same command goes on from there.", markup=False)
        raise


def _load(
    run: str, device: Device, labels: str | None, trust: TrustConfig, int8: bool, verify: bool, multi_label: bool
) -> tuple[Classifier, list[str] | None]:
    """The classifier, and the labels to ask it among where they are not its own."""
    from fenlei.artifact import MANIFEST
    from fenlei.inference.classifier import Classifier
    from fenlei.models.allocator import keep_freed_memory

    keep_freed_memory()
    if multi_label and (labels is None or (Path(run) / MANIFEST).exists()):
        raise ConfigError("--multi-label is for a model's name with --labels: a run knows whether a text has any number of labels")
    if labels is None:
        return Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify), None
    from fenlei.data.label_file import given_labels
    from fenlei.inference.adapters import is_adapter

    given = given_labels(labels)
    if (Path(run) / MANIFEST).exists():
        classifier = Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify).with_notes(given)
        return classifier, _promised_among(classifier, list(given)) if trust.promises else list(given)
    if is_adapter(run):
        return Classifier.load(run, device=device, trust=trust, int8=int8, verify=verify, labels=list(given)), None
    if verify:
        raise ConfigError("--verify compares a run's files with their checksums, and a model without training has none; leave it out")
    if int8:
        raise ConfigError("--int8 is for runs that answer with a head, and zero-shot generates; leave it out")
    if trust.promises:
        raise ConfigError("a threshold or prediction sets take calibrating rows, and nothing was trained; use a run (train --tuning none)")
    return Classifier.zero_shot(run, given, device=device, multi_label=multi_label), None


def _promised_among(classifier: Classifier, labels: list[str]) -> list[str]:
    """The labels, the run's own in its order; ConfigError for those that it can promise nothing of."""
    among = list(classifier.labels) if set(labels) == set(classifier.labels) else labels
    if not classifier.fitted_among(among):
        raise ConfigError(OTHER_LABELS)
    return among


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
    given = given_labels(labels)
    if any(note != LabelNote() for note in given.values()):
        notes().print("The service is asked among the names of the labels; their descriptions and aliases stay here.")
    return service, list(given)


def _trained_column(run: str) -> str | None:
    """The column that the run was told to read; None where it was to find one by itself."""
    from fenlei.config import RunConfig

    path = Path(run) / "config.yaml"
    return RunConfig.from_yaml(path).data.text_column if path.is_file() else None


def _second_column(run: str, given: str | None) -> str | None:
    """The column of the second text: that given, else that of the run; ConfigError where the run reads single texts."""
    from fenlei.artifact import MANIFEST, read_manifest
    from fenlei.text.pairs import pair_column_of

    return pair_column_of(read_manifest(run) if (Path(run) / MANIFEST).exists() else {}, given)


def _tell(result: BulkResult, out: str, as_json: bool) -> None:
    """What was predicted: on standard output as JSON, else as a note."""
    from dataclasses import asdict

    from fenlei.cli.display import notes, print_json

    if as_json and out != "-":
        print_json({"out": out, **asdict(result)})
        return

    rate = (result.rows - result.rows_before) / max(result.seconds, 1e-9)
    cut = f"; {result.rows_cut:,} texts were too long, {result.tokens_cut:,} tokens were not read" if result.rows_cut else ""
    notes().print(f"{result.rows:,} rows in {result.seconds:,.1f} s, {rate:,.1f} rows/s{cut}")
    if result.rejected:
        notes().print(f"{result.rejected:,} rows could not be read; they are in {result.rejected_file or 'the lines above'}", markup=False)
