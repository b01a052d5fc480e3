"""Frames of pandas, polars and Hugging Face datasets, and Arrow tables: trained on as files are, and predicted in their own kind."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from conftest import TOY_NEWS

from fenlei import Classifier, train
from fenlei.artifact import read_manifest
from fenlei.data.frames import is_frame, parts_of, to_table, write_frame
from fenlei.data.labelling import Labelling
from fenlei.data.readers import read_examples
from fenlei.errors import ArtifactError, ConfigError, DataError, RequestError
from fenlei.inference.prediction import Prediction
from fenlei.report.evaluation import evaluate_run
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.progress import Progress

pandas = pytest.importorskip("pandas")
polars = pytest.importorskip("polars")
datasets = pytest.importorskip("datasets")

Rows = list[dict[str, Any]]


def pandas_frame(rows: Rows) -> Any:
    """With an index that is not 0, 1, 2, ..."""
    return pandas.DataFrame(rows, index=[f"r{place}" for place in range(len(rows))][::-1])


MAKERS: dict[str, Callable[[Rows], Any]] = {
    "pandas": pandas_frame,
    "polars": lambda rows: polars.DataFrame(rows),
    "datasets": lambda rows: datasets.Dataset.from_list(rows),
    "arrow": pa.Table.from_pylist,
}


def rows_of(frame: Any) -> Rows:
    """The rows of any of them."""
    if isinstance(frame, pandas.DataFrame):
        return [dict(row) for row in frame.to_dict("records")]
    return [
        dict(row)
        for row in (
            frame.to_dicts() if isinstance(frame, polars.DataFrame) else frame.to_pylist() if isinstance(frame, pa.Table) else frame
        )
    ]


class Echo:
    """Says the first two characters of a text."""

    takes_labels = False

    def describe(self) -> dict[str, Any]:
        return {}

    def predict(self, texts: Any, *, labels: Any = None) -> list[Prediction]:
        return [
            Prediction(label=text[:2], confidence=0.75, probabilities={text[:2]: 0.75, "其他": 0.25}, calibrated=True, tokens_cut=0)
            for text in texts
        ]


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on a frame."""
    folder = tmp_path_factory.mktemp("frames")
    lines = TOY_NEWS.read_text(encoding="utf-8").splitlines()
    frame = pandas_frame([json.loads(line) for line in lines])
    result = train(frame, model=str(tiny_qwen), out=folder / "run", **OPTIONS, test_ratio=0.1)
    assert result.test_data == folder / "run" / "test.jsonl"
    return folder / "run"


OPTIONS: dict[str, Any] = {"max_steps": 3, "batch_size": 8, "device": "cpu", "baseline": False, "max_length": 48}


@pytest.mark.parametrize("kind", MAKERS)
def test_a_frame_is_read_as_the_same_rows_in_a_file(kind: str, toy_rows: Rows, toy_file: Path, tmp_path: Path) -> None:
    frame = MAKERS[kind](toy_rows)
    assert is_frame(frame)
    write_frame(frame, tmp_path / "rows" / "train.parquet")
    ours = [(one.text, one.label) for one in read_examples(tmp_path / "rows" / "train.parquet")]
    assert ours == [(one.text, one.label) for one in read_examples(toy_file)]


def test_classes_of_a_dataset_have_names_and_its_order_counts(tmp_path: Path) -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["财经", "体育"])})
    data = datasets.Dataset.from_dict({"text": ["甲", "乙", "丙"], "label": [1, 0, 1]}, features=features).select([2, 1])
    write_frame(data, tmp_path / "a.parquet")
    assert [(one.text, one.label) for one in read_examples(tmp_path / "a.parquet")] == [("丙", "体育"), ("乙", "财经")]


def test_lists_of_classes_of_a_dataset_have_names(tmp_path: Path) -> None:
    listed = getattr(datasets, "List", datasets.Sequence)  # as datasets 4 renamed it
    features = datasets.Features({"text": datasets.Value("string"), "labels": listed(datasets.ClassLabel(names=["财经", "体育"]))})
    data = datasets.Dataset.from_dict({"text": ["甲", "乙"], "labels": [[1, 0], []]}, features=features)
    write_frame(data, tmp_path / "a.parquet")
    assert [one.labels for one in read_examples(tmp_path / "a.parquet", labelling=Labelling(multi_label=True))] == [("体育", "财经"), ()]


@pytest.mark.parametrize("several", [False, True])
def test_test_rows_set_aside_have_the_names_that_only_the_dataset_knew(several: bool, tiny_qwen: Path, tmp_path: Path) -> None:
    listed = getattr(datasets, "List", datasets.Sequence)
    classes = datasets.ClassLabel(names=["体育", "财经"])
    features = datasets.Features({"text": datasets.Value("string"), "label": listed(classes) if several else classes})
    ids = [[at % 2, 1] if several else 1 - at % 2 for at in range(40)]
    data = datasets.Dataset.from_dict(
        {"text": [f"{'财经体育'[at % 2 * 2 :][:2]}消息{at}" for at in range(40)], "label": ids}, features=features
    )
    result = train(data, model=str(tiny_qwen), out=tmp_path / "run", max_steps=1, device="cpu", baseline=False, test_ratio=0.3)
    rows = [json.loads(line) for line in (tmp_path / "run" / "test.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {str(row["label"]) for row in rows} == ({"['体育', '财经']", "['财经']"} if several else {"体育", "财经"})
    assert result.test_data is not None
    assert Path(evaluate_run(tmp_path / "run", result.test_data, device="cpu").out).is_dir()


def test_a_run_of_a_frame_is_that_of_the_file(run: Path, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **OPTIONS, test_ratio=0.1)
    figures = [json.loads((folder / "metrics.json").read_text(encoding="utf-8")) for folder in (run, tmp_path / "run")]
    assert figures[0]["selecting"] == figures[1]["selecting"]
    assert (run / "rows" / "train.parquet").is_file()
    with pytest.raises(ArtifactError, match="already holds a complete run"):
        train(polars.DataFrame({"text": [], "label": []}), model=str(tiny_qwen), out=run)


def test_a_frame_that_is_resumed_with_is_the_one_it_was_begun_with(tiny_qwen: Path, toy_rows: Rows, tmp_path: Path) -> None:
    """Another is refused, and what is kept stays as it is, so that the training can be gone on with, also where the folder has moved."""

    def interrupt(now: Progress) -> None:
        if now.step == 1 and now.metrics is None:
            os.kill(os.getpid(), signal.SIGINT)

    out, frame = tmp_path / "run", pandas_frame(toy_rows)
    with pytest.raises(TrainingInterrupted):
        train(frame, model=str(tiny_qwen), out=out, progress=interrupt, **OPTIONS)
    kept = (out / "rows" / "train.parquet").read_bytes()
    with pytest.raises(ArtifactError, match=r"train\.parquet: the training was begun with other rows; resume without the frame"):
        train(pandas_frame(toy_rows[::-1]), out=out, resume=True)
    assert [path.name for path in (out / "rows").iterdir()] == ["train.parquet"]
    assert (out / "rows" / "train.parquet").read_bytes() == kept
    shutil.copytree(out, tmp_path / "copy")
    train(out=tmp_path / "copy", resume=True)
    out.rename(tmp_path / "moved")
    train(frame, out=tmp_path / "moved", resume=True)
    for moved in ("copy", "moved"):
        assert read_manifest(tmp_path / moved)["data"]["files"].keys() == {str(tmp_path / moved / "rows" / "train.parquet")}


def test_a_dataset_dict_and_frames_as_options(tiny_qwen: Path, toy_rows: Rows, tmp_path: Path) -> None:
    parts = {"train": toy_rows[:36], "validation": toy_rows[36:48], "test": toy_rows[48:]}
    dataset = datasets.DatasetDict({name: datasets.Dataset.from_list(rows) for name, rows in parts.items()})
    result = train(dataset, model=str(tiny_qwen), out=tmp_path / "a", **OPTIONS)
    assert result.test_data == str(tmp_path / "a" / "rows" / "test.parquet")
    assert any("train 36, dev 12 (6 select, 6 calibrate), test 12 rows" in note for note in result.notes)
    with pytest.raises(ConfigError, match="dev: the DatasetDict has such a split"):
        train(dataset, model=str(tiny_qwen), out=tmp_path / "b", dev_ratio=0.2, **OPTIONS)
    with pytest.raises(DataError, match="no split called train, but test"):
        parts_of(datasets.DatasetDict({"test": dataset["test"]}))
    result = train(
        polars.DataFrame(parts["train"]), dev=pandas_frame(parts["validation"]), model=str(tiny_qwen), out=tmp_path / "c", **OPTIONS
    )
    assert any("train 36, dev 12" in note for note in result.notes)


@pytest.mark.parametrize("missing", [None, -1])
def test_a_test_split_without_labels_is_left_out_and_said(missing: int | None, tiny_qwen: Path, toy_rows: Rows, tmp_path: Path) -> None:
    """As those of competitions are; one that is named itself is refused."""
    names = ["体育", "财经", "科技"]
    label = datasets.Value("string") if missing is None else datasets.ClassLabel(names=names)
    features = datasets.Features({"text": datasets.Value("string"), "label": label})

    def split(rows: Rows, *, labelled: bool = True) -> Any:
        labels = [row["label"] if missing is None else names.index(row["label"]) for row in rows] if labelled else [missing] * len(rows)
        return datasets.Dataset.from_dict({"text": [row["text"] for row in rows], "label": labels}, features=features)

    train_rows, test_rows = split(toy_rows[:48]), split(toy_rows[48:], labelled=False)
    result = train(datasets.DatasetDict(train=train_rows, test=test_rows), model=str(tiny_qwen), out=tmp_path / "a", **OPTIONS)
    assert result.test_data is None
    assert [note for note in result.notes if "test.parquet is not used: " in note]
    with pytest.raises(DataError, match=r"test\.parquet:1: expected a label"):
        train(train_rows, test=test_rows, model=str(tiny_qwen), out=tmp_path / "b", **OPTIONS)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_predicted_frame_is_of_its_own_kind_with_the_columns_of_a_predicted_file(kind: str) -> None:
    from fenlei.inference.frames import predict_frame

    rows = [{"id": 3, "text": "央行降准"}, {"id": 1, "text": "球队夺冠"}]
    frame = MAKERS[kind](rows)
    predicted = predict_frame(Echo(), frame, probabilities=True)
    assert type(predicted) is type(frame)
    assert [list(row) for row in rows_of(predicted)] == [
        ["id", "text", "prediction", "confidence", "probabilities", "calibrated", "tokens_cut"]
    ] * 2
    assert [(row["id"], row["prediction"], row["confidence"]) for row in rows_of(predicted)] == [(3, "央行", 0.75), (1, "球队", 0.75)]
    assert rows_of(predicted)[0]["probabilities"]["央行"] == 0.75
    assert rows_of(frame) == rows, "the user's own frame is as it was"
    if kind == "pandas":
        assert list(predicted.index) == ["r1", "r0"]
    with pytest.raises(DataError, match=r"already has a column 'prediction'.*prefix='fenlei_'"):
        predict_frame(Echo(), predicted)
    assert "again_prediction" in rows_of(predict_frame(Echo(), predicted, prefix="again_"))[0]


def test_a_column_that_is_there_already_is_said_before_anything_is_asked() -> None:
    from fenlei.inference.frames import predict_frame

    class Never(Echo):
        def predict(self, texts: Any, *, labels: Any = None) -> list[Prediction]:
            raise AssertionError("asked")

    for name, probabilities in (("prediction", False), ("tokens_cut", False), ("probabilities", True)):
        with pytest.raises(DataError, match=f"already has a column '{name}'"):
            predict_frame(Never(), pa.table({"text": ["甲"], name: ["乙"]}), probabilities=probabilities)


def test_a_frame_of_conversations_is_predicted_by_the_users_turns() -> None:
    from fenlei.inference.frames import predict_frame

    chats = [[{"role": "system", "content": "分类"}, {"role": "user", "content": text}] for text in ("央行降准", "球队夺冠")]
    predicted = rows_of(predict_frame(Echo(), pandas_frame([{"messages": turns} for turns in chats])))
    assert [row["prediction"] for row in predicted] == ["央行", "球队"]
    assert list(predicted[0])[:2] == ["messages", "prediction"], "what is read as its text is no column of the user's"
    with pytest.raises(DataError, match=r"DataFrame:2: expected a conversation, turns in `messages`"):
        predict_frame(Echo(), pandas_frame([{"messages": chats[0]}, {"messages": []}]))


def test_a_frame_without_a_text_is_said(run: Path) -> None:
    from fenlei.inference.frames import predict_frame

    with pytest.raises(DataError, match=r"DataFrame:2: expected a text in column 'text', found none"):
        predict_frame(Echo(), pandas.DataFrame({"text": ["甲", None]}))
    with pytest.raises(DataError, match="expected a pandas or polars frame, a dataset or an Arrow table, found list"):
        predict_frame(Echo(), [{"text": "甲"}])
    assert not is_frame([{"text": "甲"}])
    assert not is_frame("news.jsonl")
    with pytest.raises(DataError, match="has a column that is no column of a table"):
        predict_frame(Echo(), pandas.DataFrame({"text": ["甲"], "odd": [object()]}))


def test_a_frame_without_rows_gets_the_same_columns(run: Path, toy_rows: Rows) -> None:
    classifier = Classifier.load(run, device="cpu")
    for kind, make in MAKERS.items():
        frame = make(toy_rows[:2])
        none = frame.select([]) if kind == "datasets" else frame[:0]
        predicted, empty = (classifier.predict_frame(one, probabilities=True, prefix="our_") for one in (frame, none))
        assert type(empty) is type(frame)
        assert (len(empty), to_table(empty).column_names) == (0, to_table(predicted).column_names)
        with pytest.raises(DataError, match="already has a column 'our_prediction'"):
            classifier.predict_frame(empty, prefix="our_")


def test_a_table_is_not_taken_for_a_list_of_its_columns(run: Path, toy_rows: Rows) -> None:
    classifier, columns = Classifier.load(run, device="cpu"), {name: [row[name] for row in toy_rows] for name in ("text", "label")}
    for table, kind in ((pandas_frame(toy_rows), "DataFrame"), (columns, "dict"), (None, "NoneType")):
        for ask in (classifier.predict, classifier.predict_proba):
            with pytest.raises(RequestError, match=f"found {kind}; give one column.*predict_frame"):
                ask(table)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda rows: {"data": rows}, "data: expected a file, .* found list; write rows as pandas.DataFrame"),
        (lambda rows: {"data": {"text": [], "label": []}}, "data: expected a file, .* found dict"),
        (lambda rows: {"data": pandas_frame(rows)["text"]}, "expected a table .*, found Series"),
        (lambda rows: {"data": polars.DataFrame(rows)["text"]}, "expected a table .*, found Series"),
        (lambda rows: {"data": datasets.Dataset.from_list(rows).to_iterable_dataset()}, "found IterableDataset; .*without streaming"),
        (
            lambda rows: {"data": pandas_frame(rows), "dev": datasets.DatasetDict(test=datasets.Dataset.from_list(rows))},
            r"expected one table, found DatasetDict; name a split, as data\['test'\]",
        ),
    ],
)
def test_what_is_neither_a_file_nor_a_frame_is_said(data: Callable[[Rows], Any], message: str, toy_rows: Rows, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        train(**data(toy_rows), model="nano", out=tmp_path / "run")


def test_a_classifier_answers_a_frame_and_its_columns_as_it_does_texts(run: Path, toy_rows: Rows) -> None:
    classifier = Classifier.load(run, device="cpu")
    texts = [row["text"] for row in toy_rows[:8]]
    expected = [answer.label for answer in classifier.predict(texts)]
    for make in MAKERS.values():
        frame = make(toy_rows[:8])
        assert [row["prediction"] for row in rows_of(classifier.predict_frame(frame))] == expected
    assert [answer.label for answer in classifier.predict(pandas_frame(toy_rows[:8])["text"])] == expected
    assert [answer.label for answer in classifier.predict(polars.DataFrame(toy_rows[:8])["text"])] == expected
