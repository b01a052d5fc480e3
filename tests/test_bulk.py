from __future__ import annotations

import csv
import errno
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl

from fenlei.cli.predict import _tell
from fenlei.data.readers import read_examples
from fenlei.errors import ConfigError, DataError, ModelError, RequestError, ScoresError
from fenlei.inference import bulk
from fenlei.inference.bulk import predict_file
from fenlei.inference.distributed import Reading
from fenlei.inference.prediction import Prediction
from fenlei.inference.windows import BulkOptions


class LengthClassifier:
    """Answers with the length of each text, so that a shuffled answer shows; texts longer than 10 characters are 'cut'."""

    takes_labels = False

    def __init__(self) -> None:
        self.windows: list[int] = []

    def describe(self) -> dict[str, Any]:
        return {"labels": ["其他"]}

    def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
        self.windows.append(len(texts))
        return [Prediction(str(len(text)), 0.9, {str(len(text)): 0.9, "其他": 0.1}, True, max(0, len(text) - 10)) for text in texts]


@pytest.fixture
def classifier() -> Any:
    return LengthClassifier()


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_column_is_kept_in_order_and_the_answer_follows(tmp_path: Path, classifier: Any) -> None:
    rows = [
        {"id": 7, "text": "四个汉字", "extra": {"a": [1, None]}, "label": "旧"},
        {"id": 8, "text": "两字", "extra": None, "label": "新"},
    ]
    result = predict_file(classifier, write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl")
    written = read_jsonl(tmp_path / "out.jsonl")
    assert [list(row) for row in written] == [["id", "text", "extra", "label", "prediction", "confidence", "calibrated", "tokens_cut"]] * 2
    assert [{name: row[name] for name in rows[0]} for row in written] == rows
    assert [row["prediction"] for row in written] == ["4", "2"]
    assert (result.rows, result.tokens_cut, result.rows_cut) == (2, 0, 0)


def test_rows_keep_their_order_over_windows(tmp_path: Path, classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 4)
    rows = [{"text": "字" * (1 + at * 7 % 11)} for at in range(10)]
    done: list[int] = []
    result = predict_file(classifier, write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl", progress=done.append)
    assert [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")] == [str(len(row["text"])) for row in rows]
    assert classifier.windows == [4, 4, 2]
    assert done == [4, 8, 10]
    cut = [max(0, len(row["text"]) - 10) for row in rows]
    assert (result.rows, result.tokens_cut, result.rows_cut) == (10, sum(cut), sum(one > 0 for one in cut))


def test_probabilities_come_on_request_under_their_names(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "两字"}])
    predict_file(classifier, source, tmp_path / "out.jsonl", probabilities=True)
    assert read_jsonl(tmp_path / "out.jsonl")[0]["probabilities"] == {"2": 0.9, "其他": 0.1}


def test_confidence_is_written_without_the_digits_float32_does_not_hold(tmp_path: Path) -> None:
    class Third(LengthClassifier):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            return [Prediction("a", 0.3333333432674408, {}, True, 0)] * len(texts)

    predict_file(Third(), write_jsonl(tmp_path / "in.jsonl", [{"text": "x"}]), tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert '"confidence": 0.333333,' in (tmp_path / "out.jsonl").read_text(encoding="utf-8")


def test_the_column_that_the_labels_were_learned_from_is_not_the_text(tmp_path: Path) -> None:
    class Rater(LengthClassifier):
        def describe(self) -> dict[str, Any]:
            return {"label_column": "review"}

    source = write_jsonl(tmp_path / "in.jsonl", [{"review": "差", "comment": "四个汉字"}])
    predict_file(Rater(), source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert read_jsonl(tmp_path / "out.jsonl")[0]["prediction"] == "4"


def test_the_columns_that_texts_were_learned_from_are_read_where_a_file_has_them_all(tmp_path: Path) -> None:
    class OfTitles(LengthClassifier):
        def describe(self) -> dict[str, Any]:
            return {"read_from": ["title", "lead"]}

    def answers(*rows: dict[str, Any], **options: Any) -> list[str]:
        source = write_jsonl(tmp_path / "in.jsonl", rows)
        predict_file(OfTitles(), source, tmp_path / "out.jsonl", **options)  # type: ignore[arg-type]
        return [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")]

    whole = {"text": "四个汉字", "title": "一", "lead": "二"}
    assert answers(whole) == ["3"]  # with the line break between them
    assert answers({"text": "四个汉字", "title": "一"}) == ["4"]
    assert answers(whole, text_column="text") == ["4"]
    (window,) = Reading(BulkOptions(usual_text=("title",)), False).windows(str(write_jsonl(tmp_path / "in.jsonl", [whole])))
    assert [row.text for row in window.examples] == ["一"]


def test_a_header_is_known_by_the_column_that_texts_were_learned_from(tmp_path: Path) -> None:
    class OfNotes(LengthClassifier):
        def describe(self) -> dict[str, Any]:
            return {"read_from": ["描述"]}

    source, out = tmp_path / "in.csv", tmp_path / "out.jsonl"
    for header, columns in (("描述,编号\n", ["描述", "编号"]), ("", ["text", "label"])):
        source.write_text(f"{header}屏幕碎了,a1\n不亮,a2\n", encoding="utf-8")
        predict_file(OfNotes(), source, out)  # type: ignore[arg-type]
        rows = read_jsonl(out)
        assert [row["prediction"] for row in rows] == ["4", "2"]
        assert list(rows[0])[:2] == columns


@pytest.mark.parametrize(("encoding", "marked"), [("gb18030", True), ("utf-8-sig", True), ("utf-8", False)])
def test_a_csv_that_came_from_excel_goes_back_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier: Any, encoding: str, marked: bool
) -> None:
    """By the mark Excel knows UTF-8; it stands there once, also where the prediction was gone on with."""
    source, out = tmp_path / "in.csv", tmp_path / "out.csv"
    source.write_bytes("标题\n四个汉字\n两字\n一\n".encode(encoding))
    predict_file(classifier, source, out)
    whole = out.read_bytes()
    assert whole.startswith(b"\xef\xbb\xbf") is marked
    assert whole.count(b"\xef\xbb\xbf") == marked
    read = [(row.text, row.columns["prediction"]) for row in read_examples(out, labelled=False)]
    assert read == [("四个汉字", "4"), ("两字", "2"), ("一", "1")]

    monkeypatch.setattr(bulk, "WINDOW_ROWS", 1)
    answer = classifier.predict

    def dies(texts: Sequence[str], labels: Any = None) -> list[Prediction]:
        if texts[0] == "两字":
            raise KeyboardInterrupt
        return answer(texts)

    classifier.predict = dies
    with pytest.raises(KeyboardInterrupt):
        predict_file(classifier, source, tmp_path / "again.csv")
    classifier.predict = answer
    assert predict_file(classifier, source, tmp_path / "again.csv").rows_before == 1
    assert (tmp_path / "again.csv").read_bytes() == whole


def test_the_rows_that_it_abstained_from_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Unsure(LengthClassifier):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            return [Prediction("a", 0.5, {"a": 0.5}, True, 0, abstained=len(text) > 1) for text in texts]

    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "一"}, {"text": "两字"}, {"text": "三个字"}])
    result = predict_file(Unsure(), source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert (result.rows, result.abstained) == (3, 2)
    _tell(result, "out.jsonl", False)
    assert "; 2 of the answers are below the threshold" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["prediction", "confidence", "calibrated", "tokens_cut"])
def test_a_column_that_would_be_overwritten_is_an_error_that_names_prefix(tmp_path: Path, classifier: Any, name: str) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "两字", name: "mine"}, {"text": "好"}])
    with pytest.raises(DataError, match=rf"in\.jsonl:1: the input already has a column '{name}'.*--prefix"):
        predict_file(classifier, source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    predict_file(classifier, source, tmp_path / "out.jsonl", prefix="fenlei_")
    first = read_jsonl(tmp_path / "out.jsonl")[0]
    assert first[name] == "mine"
    assert first["fenlei_prediction"] == "2"


def test_a_later_row_that_has_a_column_of_the_answer_is_set_aside(tmp_path: Path, classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a long prediction would end there, and the same command again, and with --prefix it is another prediction."""
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 2)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好", **({"confidence": 1} if at == 3 else {})} for at in range(5)])
    result = predict_file(classifier, source, tmp_path / "out.jsonl")
    assert (result.rows, result.rejected) == (4, 1)
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert rejected["line"] == 4
    assert "already has a column 'confidence'" in rejected["reason"]


def test_probabilities_clash_only_when_they_are_written(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好", "probabilities": 1}])
    assert predict_file(classifier, source, tmp_path / "out.jsonl").rows == 1
    with pytest.raises(DataError, match="'probabilities'"):
        predict_file(classifier, source, tmp_path / "out.jsonl", probabilities=True)


def test_csv_in_csv_out(tmp_path: Path, classifier: Any) -> None:
    (tmp_path / "in.csv").write_text('id,text\n1,"有, 逗号"\n2,"two\nlines"\n', encoding="utf-8")
    predict_file(classifier, tmp_path / "in.csv", tmp_path / "out.csv", probabilities=True)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["id"], row["text"], row["prediction"], row["calibrated"]) for row in rows] == [
        ("1", "有, 逗号", "5", "true"),
        ("2", "two\nlines", "9", "true"),
    ]
    assert json.loads(rows[0]["probabilities"]) == {"5": 0.9, "其他": 0.1}


def test_csv_says_when_it_has_no_place_for_a_column(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好"}, {"text": "好", "late": 1}])
    with pytest.raises(DataError, match=r"in\.jsonl:2: the first row has no column 'late'.*write \.jsonl"):
        predict_file(classifier, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("prefix", ["", "new_"])
def test_csv_has_a_place_for_what_is_not_promised_of_the_first_row(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class AmongCandidates(LengthClassifier):
        """Knows how novel a text is where it is asked among its own labels."""

        takes_labels = True

        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            offered = labels or [None] * len(texts)
            return [Prediction("其他", 0.9, {"其他": 0.9}, one is None, 0, novelty=0.5 if one is None else None) for one in offered]

    monkeypatch.setattr(bulk, "WINDOW_ROWS", 1)
    rows = [{"text": "好", "category": ["甲", "乙"]}, {"text": "两字", "category": None}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    predict_file(AmongCandidates(), source, tmp_path / "out.csv", prefix=prefix)  # type: ignore[arg-type]
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        header, *written = csv.reader(file)
    added = ("prediction", "confidence", "prediction_set", "abstained", "novelty", "calibrated", "tokens_cut")
    assert header == ["text", "category", *(prefix + name for name in added)]
    assert [row[header.index(f"{prefix}novelty")] for row in written] == ["", "0.5"]


def test_csv_leaves_a_missing_column_empty(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好", "note": "x"}, {"text": "好"}])
    predict_file(classifier, source, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["note"] for row in csv.DictReader(file)] == ["x", ""]


def test_a_full_disk_behind_standard_output_is_said(tmp_path: Path, classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.StringIO):
        def flush(self) -> None:
            raise reason

    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    monkeypatch.setattr("sys.stdout", Full())
    reason = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(DataError, match=r"standard output: could not be written \(No space left on device\)"):
        predict_file(classifier, source, "-")
    reason = BrokenPipeError(errno.EPIPE, "Broken pipe")
    with pytest.raises(BrokenPipeError):
        predict_file(classifier, source, "-")


def test_dash_reads_stdin_and_writes_stdout(classifier: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"text": "两字"}\n{"text": "三个字"}\n'.encode())))
    result = predict_file(classifier, "-", "-")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["2", "3"]
    assert result.rows == 2


@pytest.mark.parametrize("name", ["out.parquet", "out.jsonl.gz", "out", "out.xlsx"])
def test_a_target_of_another_format_is_refused_before_anything_is_read(tmp_path: Path, classifier: Any, name: str) -> None:
    with pytest.raises(ConfigError, match=r"predictions are written as \.jsonl, \.ndjson, \.csv or to '-'"):
        predict_file(classifier, tmp_path / "missing.jsonl", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bad", ["not json", '{"text": ""}', '{"other": 1}', '["no object"]', '{"text": "\\ud800"}'])
def test_a_bad_row_is_set_aside_with_line_and_reason(tmp_path: Path, classifier: Any, bad: str) -> None:
    (tmp_path / "in.jsonl").write_text(f'{{"text": "好"}}\n{bad}\n{{"text": "两字"}}\n', encoding="utf-8")
    result = predict_file(classifier, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["1", "2"]
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert rejected["line"] == 2
    assert rejected["reason"].startswith(f"{tmp_path / 'in.jsonl'}:2: ")
    assert (result.rows, result.rejected, result.rejected_file) == (2, 1, str(tmp_path / "out.jsonl.rejected.jsonl"))
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.rejected.jsonl"}


def test_an_older_target_survives_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FailsLater(LengthClassifier):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            if self.windows:
                raise ModelError("no more")
            return super().predict(texts)

    monkeypatch.setattr(bulk, "WINDOW_ROWS", 1)
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好"}, {"text": "好"}])
    (tmp_path / "out.jsonl").write_text("yesterday's\n")
    with pytest.raises(ModelError, match="no more"):
        predict_file(FailsLater(), source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert (tmp_path / "out.jsonl").read_text() == "yesterday's\n"
    assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl", "out.jsonl.partial", "out.jsonl.journal"}


def test_a_failing_classifier_leaves_nothing_behind(tmp_path: Path) -> None:
    class Failing(LengthClassifier):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            raise RequestError("no")

    with pytest.raises(RequestError):
        predict_file(Failing(), write_jsonl(tmp_path / "in.jsonl", [{"text": "好"}]), tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_text_whose_scores_are_no_numbers_is_set_aside(tmp_path: Path) -> None:
    """Without asking for the others more than once again. Where no text has any, it is the model's fault."""

    class Overflowing(LengthClassifier):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            if strange := [at for at, text in enumerate(texts) if text == "溢出"]:
                raise ScoresError(f"row {strange[0]}: expected finite scores, found [nan]", strange)
            return super().predict(texts)

    texts = ["好", "两字", "溢出", "三个字", "四个汉字"]
    source, picky = write_jsonl(tmp_path / "in.jsonl", [{"text": text} for text in texts]), Overflowing()
    result = predict_file(picky, source, tmp_path / "out.jsonl")  # type: ignore[arg-type]
    assert (result.rows, result.rejected) == (4, 1)
    assert picky.windows == [4]
    assert [row["prediction"] for row in read_jsonl(tmp_path / "out.jsonl")] == ["1", "2", "3", "4"]
    (rejected,) = read_jsonl(tmp_path / "out.jsonl.rejected.jsonl")
    assert rejected["reason"].startswith(f"{source}:3: its scores are no finite numbers")
    with pytest.raises(ScoresError, match="row 0: expected finite scores"):
        predict_file(picky, write_jsonl(source, [{"text": "溢出"}] * 3), tmp_path / "out.jsonl")  # type: ignore[arg-type]


def test_a_lone_string_is_no_list_of_labels(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "好"}])
    with pytest.raises(RequestError, match="labels: expected a list of labels, found one string '财经,体育'"):
        predict_file(classifier, source, tmp_path / "out.jsonl", labels="财经,体育")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_file_is_not_predicted_onto_itself(tmp_path: Path, classifier: Any) -> None:
    """Rows that cannot be read would stand nowhere any more."""
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "两字"}])
    content = source.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(source)
    for target in (source, tmp_path / "link.jsonl"):
        with pytest.raises(ConfigError, match="is the file that is read"):
            predict_file(classifier, source, target)
    assert source.read_bytes() == content


def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    real_open = Path.open

    def full(self: Path, mode: str = "r", **options: Any) -> Any:
        file = real_open(self, mode, **options)
        if "a" in mode:
            monkeypatch.setattr(file, "write", _no_space)
        return file

    source = write_jsonl(tmp_path / "in.jsonl", [{"text": "两字"}])
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(DataError, match=r"out\.jsonl: could not be saved \(.*No space left on device.*\); free some space"):
        predict_file(classifier, source, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def _no_space(text: str) -> int:
    raise OSError(28, "No space left on device")


def test_missing_folders_of_the_target_are_made(tmp_path: Path, classifier: Any) -> None:
    predict_file(classifier, write_jsonl(tmp_path / "in.jsonl", [{"text": "好"}]), tmp_path / "a" / "b" / "out.jsonl")
    assert read_jsonl(tmp_path / "a" / "b" / "out.jsonl")


@pytest.mark.parametrize(
    ("value", "written"),
    [(float("nan"), "null"), ([1.5, float("inf")], "[1.5, null]"), (2**70, str(2**70))],
    ids=["nan", "infinity", "big number"],
)
def test_what_json_has_no_word_for_is_still_valid_json(tmp_path: Path, classifier: Any, value: Any, written: str) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": "好", "odd": value}) + "\n", encoding="utf-8")
    predict_file(classifier, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    line = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert f'"odd": {written},' in line
    json.loads(line, parse_constant=_no_constant)


def _no_constant(name: str) -> None:
    pytest.fail(f"{name} is not JSON")


def test_a_chosen_column_is_what_is_classified(tmp_path: Path, classifier: Any) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"title": "两字", "body": "三个字"}])
    predict_file(classifier, source, tmp_path / "out.jsonl", text_column="title,body")
    assert read_jsonl(tmp_path / "out.jsonl")[0]["prediction"] == str(len("两字\n三个字"))
