"""The report of a run: its files, its rows, and that no text or label in it can do harm."""

import io
import json
import os
import re
import sys
import tracemalloc
import warnings
import weakref
from dataclasses import replace
from html.parser import HTMLParser

import matplotlib
import numpy as np
import pytest
from conftest import write_jsonl
from matplotlib.font_manager import FontProperties
from rich.console import Console

from fenlei.data.examples import Example
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation import plots
from fenlei.evaluation.abstention import AbstentionRule
from fenlei.evaluation.calibration import Calibration, fit_temperature
from fenlei.evaluation.conformal import ConformalRule
from fenlei.evaluation.metrics import compute_metrics
from fenlei.evaluation.plots import confusion_plot, font_for, ticks_of
from fenlei.inference.classifier import Classifier, _Asked
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import Trust
from fenlei.labels import LabelSet
from fenlei.models.baseline import Baseline
from fenlei.report import evaluation as module
from fenlei.report.charts import BOTTOM, TOP, coverage_chart
from fenlei.report.comparison import Contender, Entry, compare, differing_rows, names_of
from fenlei.report.confidence import Silence
from fenlei.report.evaluation import evaluate_run
from fenlei.report.files import write_rows as write_report_rows
from fenlei.report.lengths import by_length, what_was_cut
from fenlei.report.mistakes import SHOWN_PAIRS, find_mistakes, most_confused
from fenlei.report.page import _matrix
from fenlei.report.tables import comparison_table, metrics_tables
from fenlei.report.wording import confidence_lines, facts, percent, verdict

LABELS = ("体育", "财经", "科学")
RC_PARAMS = dict(matplotlib.rcParams)
FILES = {"metrics.json", "report.html", "report.md", "confusion.png", "bad_cases.jsonl", "predictions.jsonl"}
NASTY = ("<script>alert(1)</script>", "a,b|c\n`d` & $x_1$", "[bold]🎉[/bold]")
DRAWN = {}


@pytest.fixture(autouse=True)
def _each_picture_is_drawn_once(monkeypatch):
    """Most tests here evaluate the same few rows, and nothing of a report takes longer than its picture."""

    def drawn(metrics):
        key = (*metrics.names, metrics.confusion.tobytes())
        if key not in DRAWN:
            DRAWN[key] = confusion_plot(metrics)
        return DRAWN[key]

    monkeypatch.setattr(module, "confusion_plot", drawn)


class KeywordClassifier(Classifier):
    """Scores the label whose name the text contains, else the first, so that its confidence is what the text ends in."""

    def __init__(self, labels=LABELS, tokens_cut=0, calibrated=True, **promises):
        super().__init__(None, Trust(Calibration(), calibrated, **promises))
        self._names, self._tokens_cut, self.windows = tuple(labels), tokens_cut, []

    @property
    def labels(self):
        return self._names

    @property
    def takes_labels(self):
        return False

    def _asked(self, labels, rows):
        return _Asked(None, self._names, None, np.ones(rows, dtype=bool))

    def logits(self, texts, *, labels=None, progress=None):
        self.windows.append(len(texts))
        logits = np.log(np.stack([self._shares(text) for text in texts]))
        return Scores(logits, np.full(len(texts), self._tokens_cut))

    def _shares(self, text):
        best = next((at for at, name in enumerate(self.labels) if name in text), 0)
        confidence = float(text.rsplit(" ", 1)[1])
        row = np.full(len(self.labels), (1 - confidence) / (len(self.labels) - 1), dtype=np.float32)
        row[best] = confidence
        return row


ROWS = [
    {"id": 1, "text": "体育 新闻 0.9", "label": "体育"},
    {"id": 2, "text": "财经 新闻 0.6", "label": "科学"},
    {"id": 3, "text": "科学 新闻 0.8", "label": "科学"},
    {"id": 4, "text": "体育 新闻 0.95", "label": "财经"},
    {"id": 5, "text": "财经 新闻 0.7", "label": "财经"},
]


def read_rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def data(tmp_path):
    return write_jsonl(tmp_path / "dev.jsonl", ROWS)


@pytest.fixture
def run(tmp_path):
    """A run's folder with nothing but a baseline in it."""
    folder = tmp_path / "run"
    Baseline.fit([row["text"] for row in ROWS], LabelSet(LABELS).ids([row["label"] for row in ROWS]), 3).save(folder / "baseline")
    return folder


class Elements(HTMLParser):
    """Every element and attribute that a browser would see, and every text outside style."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text, self._style = [], [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._style = tag == "style"

    def handle_data(self, data):
        if not self._style:
            self.text.append(data)


def test_writes_every_file_and_nothing_else(run, data):
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier())
    assert evaluation.out == run / "report"
    assert {file.name for file in evaluation.out.iterdir()} == FILES
    assert (evaluation.out / "confusion.png").read_bytes().startswith(b"\x89PNG")
    figures = json.loads((evaluation.out / "metrics.json").read_text())
    assert figures["accuracy"] == evaluation.metrics.accuracy == 0.6
    assert figures["baseline"]["accuracy"] == evaluation.baseline.accuracy == 1.0


def test_a_row_of_a_matrix_is_a_line_of_the_figures(run, data):
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier())
    lines = [line.strip().rstrip(",") for line in (run / "report" / "metrics.json").read_text(encoding="utf-8").splitlines()]
    for row in evaluation.metrics.confusion.tolist():
        assert str(row) in lines
    assert '"accuracy": 0.6' in lines


def test_predictions_keep_every_row_and_column_in_order(run, data):
    evaluate_run(run, data, classifier=KeywordClassifier())
    written = read_rows(run / "report" / "predictions.jsonl")
    assert [{name: row[name] for name in ("id", "text", "label")} for row in written] == ROWS
    assert [row["prediction"] for row in written] == ["体育", "财经", "科学", "体育", "财经"]
    assert list(written[0])[:3] == ["id", "text", "label"]
    assert sum(written[0]["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def test_bad_cases_are_the_wrong_rows_the_surest_first(run, data):
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier())
    bad = read_rows(run / "report" / "bad_cases.jsonl")
    assert [(row["id"], row["gold"], row["prediction"], row["confidence"]) for row in bad] == [
        (4, "财经", "体育", 0.95),
        (2, "科学", "财经", 0.6),
    ]
    assert [row["where"] for row in bad] == [f"{data}:4", f"{data}:2"]
    assert [mistake.row for mistake in evaluation.mistakes] == [3, 1]
    assert evaluation.mistakes[0].gold_probability == pytest.approx(0.025)


def test_evaluating_again_replaces_the_report_and_leaves_other_files(run, data, tmp_path):
    out = tmp_path / "elsewhere" / "deep"
    evaluate_run(run, data, out=out, classifier=KeywordClassifier())
    (out / "mine.txt").write_text("kept")
    first = (out / "report.html").read_bytes()
    evaluate_run(run, write_jsonl(data, ROWS[:3]), out=out, classifier=KeywordClassifier())
    assert {file.name for file in out.iterdir()} == FILES | {"mine.txt"}
    assert (out / "report.html").read_bytes() != first
    assert not (run / "report").exists()


def test_nothing_of_an_earlier_evaluation_stays_beside_a_report(run, data, tmp_path):
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    out = run / "report"
    evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])
    assert {file.name for file in out.iterdir()} == FILES | {"differences.jsonl"}
    evaluate_run(run, data, classifier=KeywordClassifier())
    assert {file.name for file in out.iterdir()} == FILES


def test_an_unknown_label_is_named_with_its_place_before_anything_is_classified(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", [ROWS[0], {"text": "x 0.9", "label": "体育类"}, {"text": "y 0.9", "label": "?"}])
    classifier = KeywordClassifier()
    with pytest.raises(
        DataError, match=r"dev\.jsonl:2: label '体育类' is not one of '体育', '财经', '科学' \(did you mean '体育'\?\), and 1 more rows"
    ):
        evaluate_run(run, data, classifier=classifier)
    assert not classifier.windows
    assert not (run / "report").exists()


def test_a_column_that_would_be_written_twice_is_refused_and_a_prefix_cures_it(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", [{**row, "prediction": "mine"} for row in ROWS])
    with pytest.raises(DataError, match=r"dev\.jsonl:1: the input already has a column 'prediction'.*--prefix"):
        evaluate_run(run, data, classifier=KeywordClassifier())
    evaluate_run(run, data, prefix="new_", classifier=KeywordClassifier())
    row = read_rows(run / "report" / "predictions.jsonl")[0]
    assert (row["prediction"], row["new_prediction"]) == ("mine", "体育")


def test_a_full_disk_leaves_no_half_file(run, data, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ArtifactError, match="No space left"):
        evaluate_run(run, data, classifier=KeywordClassifier())
    assert list((run / "report").iterdir()) == []


def test_the_rows_of_a_report_are_made_one_at_a_time(run, data, monkeypatch):
    class Row(dict):
        """A dict that can be seen to go."""

    written, made, alive = module._written_row, [], []

    def watched(*given):
        row = Row(written(*given))
        made.append(weakref.ref(row))
        alive.append(sum(one() is not None for one in made))
        return row

    monkeypatch.setattr(module, "_written_row", watched)
    evaluate_run(run, data, classifier=KeywordClassifier())
    assert len(made) == len(ROWS) + 2, "every row, and the two that are wrong again"
    assert max(alive) <= 2, "the row before may still be there"


def test_rows_are_never_all_in_memory_as_text(tmp_path):
    path = tmp_path / "rows.jsonl"
    tracemalloc.start()
    try:
        write_report_rows(path, ({"at": at, "text": "长" * 1000 + "\udcff"} for at in range(2000)))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20, "as text they are 4 MB, as bytes 6"
    finally:
        tracemalloc.stop()
    assert read_rows(path) == [{"at": at, "text": "长" * 1000 + "\udcff"} for at in range(2000)]


def test_columns_are_those_of_the_training_and_ids_become_names(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("text_column: headline\nlabel_column: kind\nclass_file: long/gone.txt\n")
    rows = [
        {"text": "科学 0.9", "headline": "财经 0.9", "kind": 1, "label": "x"},
        {"text": "", "headline": "体育 0.9", "kind": "体育", "label": "x"},
    ]
    evaluation = evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", rows), classifier=KeywordClassifier())
    assert evaluation.metrics.accuracy == 1.0
    assert evaluation.baseline is None


def test_a_class_file_beside_the_data_names_ids_only_where_it_is_the_runs(tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", [{"text": "财经 0.9", "label": "1"}])
    (tmp_path / "class.txt").write_text("\n".join(LABELS), encoding="utf-8")
    assert evaluate_run(tmp_path / "run", data, classifier=KeywordClassifier()).metrics.accuracy == 1.0
    (tmp_path / "class.txt").write_text("财经\n体育\n科学", encoding="utf-8")
    with pytest.raises(DataError, match="label '1' is not one of"):
        evaluate_run(tmp_path / "run", data, classifier=KeywordClassifier())


def test_a_folder_gives_its_test_file_else_dev_with_a_warning(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    for part, rows in (("train", ROWS), ("dev", ROWS[:2])):
        write_jsonl(folder / f"{part}.jsonl", rows)
    on_dev = evaluate_run(tmp_path / "run", folder, classifier=KeywordClassifier())
    assert on_dev.metrics.rows == 2
    assert any("dev rows" in note for note in on_dev.notes)
    write_jsonl(folder / "test.jsonl", ROWS[:3])
    on_test = evaluate_run(tmp_path / "run", folder, classifier=KeywordClassifier())
    assert on_test.metrics.rows == 3
    assert not any("dev rows" in note for note in on_test.notes)


def test_every_shard_of_a_test_part_is_measured(tmp_path):
    folder, run = tmp_path / "data", tmp_path / "run"
    folder.mkdir()
    shards = [write_jsonl(folder / f"test-0000{at}-of-00002.jsonl", rows) for at, rows in enumerate((ROWS[:3], ROWS[3:]))]
    whole = evaluate_run(run, write_jsonl(tmp_path / "all.jsonl", ROWS), classifier=KeywordClassifier()).metrics
    for data in (folder, folder / "test-*.jsonl"):
        found = evaluate_run(run, data, classifier=KeywordClassifier())
        assert found.metrics == whole
        assert f"{data}: 2 files are measured as one: {shards[0].name}, {shards[1].name}" in found.notes
        places = [row["where"] for row in read_rows(run / "report" / "predictions.jsonl")]
        assert places == [*(f"{shards[0]}:{line}" for line in (1, 2, 3)), *(f"{shards[1]}:{line}" for line in (1, 2))]

    write_jsonl(shards[1], [{"text": "x 0.9", "label": "?"}])
    with pytest.raises(DataError, match=r"test-00001-of-00002\.jsonl:1: label '\?' is not one of"):
        evaluate_run(run, folder, classifier=KeywordClassifier())
    shards[1].unlink()
    for data in (folder, folder / "test-*.jsonl"):
        with pytest.raises(DataError, match=r"expected 2 files of test, found test-00000-of-00002\.jsonl, without test-00001-of-00002;"):
            evaluate_run(run, data, classifier=KeywordClassifier())
    assert evaluate_run(run, shards[0], classifier=KeywordClassifier()).metrics.rows == 3


def test_a_test_file_without_labels_gives_way_to_dev(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    dev = write_jsonl(folder / "dev.jsonl", ROWS[:2])
    write_jsonl(folder / "test.jsonl", [{**row, "label": ""} for row in ROWS])
    found = evaluate_run(tmp_path / "run", folder, classifier=KeywordClassifier())
    assert found.metrics.rows == 2
    said = "expected labels in column 'label', found none in any row"
    assert any("test.jsonl is not used: " in note and said in note for note in found.notes)
    assert any(note.startswith(f"{dev}: dev rows, since the test file has no labels") for note in found.notes)
    dev.unlink()
    with pytest.raises(DataError, match=rf"test\.jsonl: {said}"):
        evaluate_run(tmp_path / "run", folder, classifier=KeywordClassifier())


@pytest.mark.parametrize("name", ["predictions.jsonl", "bad_cases.jsonl"])
def test_a_report_is_never_written_over_the_rows_that_it_is_of(run, data, name):
    evaluate_run(run, data, classifier=KeywordClassifier())
    rows = run / "report" / name
    before = rows.read_bytes()
    with pytest.raises(ConfigError, match=f"{name}: holds the rows to evaluate, and the report in .* would be written over it"):
        evaluate_run(run, rows, prefix="again_", classifier=KeywordClassifier())
    assert rows.read_bytes() == before
    elsewhere = evaluate_run(run, rows, out=run / "again", prefix="again_", classifier=KeywordClassifier())
    assert elsewhere.metrics.rows == len(before.splitlines())


def test_rows_are_classified_in_windows_and_progress_is_told(run, data, monkeypatch):
    monkeypatch.setattr("fenlei.report.answering.WINDOW_ROWS", 2)
    classifier, told = KeywordClassifier(), []
    evaluate_run(run, data, classifier=classifier, progress=told.append)
    assert classifier.windows == [2, 2, 1]
    assert told == [2, 4, 5]


def test_what_was_cut_absent_or_uncalibrated_is_said(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", ROWS[:1])
    notes = "\n".join(evaluate_run(run, data, classifier=KeywordClassifier(tokens_cut=7, calibrated=False)).notes)
    assert "1 of 1 texts were longer" in notes
    assert "7 tokens" in notes
    assert "not calibrated" in notes
    assert "2 of 3 classes have no row here" in notes
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "7 tokens were not read" in page


def test_a_baseline_of_other_labels_is_refused(run, data):
    with pytest.raises(ArtifactError, match="knows 3 labels, the run 4"):
        evaluate_run(run, data, classifier=KeywordClassifier([*LABELS, "教育"]))


def test_the_baselines_own_temperature_is_used(run, data):
    plain = evaluate_run(run, data, classifier=KeywordClassifier()).baseline
    fitted = Baseline.load(run / "baseline")
    gold = np.array(LabelSet(LABELS).ids([row["label"] for row in ROWS]))
    temperature = fit_temperature(fitted.logits([row["text"] for row in ROWS]), gold)
    module.Baseline(fitted.vectorizers, fitted.weights, fitted.bias, fitted.characters, temperature).save(run / "baseline")
    assert evaluate_run(run, data, classifier=KeywordClassifier()).baseline.log_loss < plain.log_loss


def test_texts_and_labels_cannot_run_or_break_the_page(tmp_path):
    attack = '"><img src=x onerror=alert(2)><script src="http://evil"></script>'
    rows = [{"text": f"{attack} {at} 0.9", "label": label} for at, label in enumerate([*NASTY, *NASTY[1:]])]
    data = write_jsonl(tmp_path / "dev.jsonl", rows)
    evaluate_run(tmp_path / "run", data, classifier=KeywordClassifier(NASTY))
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    seen = Elements(page)
    assert "script" not in seen.tags
    assert not [name for name, _ in seen.attributes if name.startswith("on")]
    assert not [name for name, _ in seen.attributes if name in ("src", "href")]
    assert "img" not in seen.tags
    assert sum(NASTY[0] in text for text in seen.text) >= 3  # shown as the text it is: class table, matrix, errors
    assert any(attack in text for text in seen.text)
    assert "default-src 'none'" in page
    assert not re.search(r"https?://", re.sub(r"http://evil", "", page))


def test_nasty_names_do_not_break_markdown_terminal_or_picture(tmp_path):
    DRAWN.clear()  # this one is drawn here, where warnings are errors
    rows = [{"text": f"{at} 0.9", "label": label} for at, label in enumerate(NASTY)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluation = evaluate_run(tmp_path / "run", write_jsonl(tmp_path / "dev.jsonl", rows), classifier=KeywordClassifier(NASTY))
    text = (tmp_path / "run" / "report" / "report.md").read_text(encoding="utf-8")
    assert not re.search(r"(?<!\\)<", text)
    table = [line for line in text.split("## By class")[1].split("##")[0].splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(NASTY)
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in table} == {6}
    assert "[bold]" in printed(metrics_tables(evaluation.metrics))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such file name")
def test_a_folder_whose_name_is_not_utf8_does_not_lose_the_report(tmp_path):
    run = tmp_path / os.fsdecode(b"run\xff")
    evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", ROWS), classifier=KeywordClassifier())
    assert {file.name for file in (run / "report").iterdir()} == FILES
    assert json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))["rows"] == 5


def printed(tables, width=120):
    file = io.StringIO()
    Console(width=width, file=file).print(tables)
    return file.getvalue()


def random_metrics(n_labels, rows=200, names=None, seed=0):
    rng = np.random.default_rng(seed)
    labels = LabelSet(tuple(names or (f"class {at}" for at in range(n_labels))))
    return compute_metrics(rng.integers(0, n_labels, rows), rng.dirichlet(np.ones(n_labels), rows), labels)


def test_most_confused_pairs_are_the_largest_cells_beside_the_diagonal():
    metrics = random_metrics(4)
    pairs = most_confused(metrics)
    off_diagonal = sorted((metrics.confusion[a, b] for a in range(4) for b in range(4) if a != b), reverse=True)
    assert [pair.rows for pair in pairs] == off_diagonal[:SHOWN_PAIRS]
    gold, predicted = metrics.names.index(pairs[0].gold), metrics.names.index(pairs[0].predicted)
    assert metrics.confusion[gold, predicted] == pairs[0].rows
    assert pairs[0].share == pairs[0].rows / metrics.classes[gold].support
    perfect = compute_metrics(np.array([0, 1]), np.eye(2), LabelSet(("a", "b")))
    assert most_confused(perfect) == ()


def test_a_font_is_taken_only_if_it_has_every_character():
    assert isinstance(font_for(["plain", "Ünïcode"]), FontProperties)
    assert font_for(["财经"], families=["DejaVu Sans"]) is None
    assert font_for(["plain"], families=["No Such Font"]) is None


def test_without_a_font_the_ticks_are_numbers_and_a_note_says_which(monkeypatch):
    monkeypatch.setattr(plots, "font_for", lambda names: None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plot = confusion_plot(random_metrics(3, names=LABELS))
    assert plot.png.startswith(b"\x89PNG")
    assert "1 = 体育, 2 = 财经, 3 = 科学" in plot.note


def test_long_names_are_told_apart_in_the_picture():
    ticks, _, note = ticks_of(["customer_service_refund", "customer_service_return", "x"])
    assert len(set(ticks)) == 3
    assert note is None
    ticks, _, note = ticks_of(["customer_service_a_refunded", "customer_service_b_refunded"])
    assert ticks == ["1", "2"]
    assert "1 = customer_service_a_refunded, 2 = customer_service_b_refunded" in note


def test_a_formula_in_a_label_is_not_typeset():
    assert confusion_plot(random_metrics(2, names=["$\\frac$", "b"])).png.startswith(b"\x89PNG")


@pytest.mark.parametrize("n_labels", [2, 31, 201])
def test_plots_of_any_size_leave_global_state_alone(n_labels):
    assert confusion_plot(random_metrics(n_labels)).note is None
    assert dict(matplotlib.rcParams) == RC_PARAMS


def test_many_classes_show_confusions_instead_of_the_matrix(tmp_path):
    names = [f"名{at:02d}" for at in range(60)]
    rows = [{"text": f"{name} 0.9", "label": name} for name in names] + [{"text": "名00 0.9", "label": "名01"}]
    evaluate_run(tmp_path / "run", write_jsonl(tmp_path / "dev.jsonl", rows), classifier=KeywordClassifier(names))
    page = (tmp_path / "run" / "report" / "report.html").read_text(encoding="utf-8")
    assert "With 60 classes" in page
    assert len(page) < 500_000


def test_of_many_classes_only_cells_with_rows_are_made():
    few, many = random_metrics(40), random_metrics(60)
    assert sum(len(row["cells"]) for row in _matrix(few)) == 40 * 40
    made = {(at, cell["at"]): cell["count"] for at, row in enumerate(_matrix(many)) for cell in row["cells"]}
    assert made == {(a, b): many.confusion[a, b] for a in range(60) for b in range(60) if many.confusion[a, b]}


def test_the_verdict_is_plain_where_the_baseline_wins():
    good, bad = (
        compute_metrics(np.array([0, 1]), np.eye(2), LabelSet(("a", "b"))),
        compute_metrics(np.array([0, 1]), np.eye(2)[[0, 0]], LabelSet(("a", "b"))),
    )
    assert "50.0 points more accurate" in verdict(good, bad)
    assert verdict(bad, good).startswith("The TF-IDF baseline is better: the model is 50.0 points less accurate")
    assert "level at 100.0 %" in verdict(good, good)
    assert "No TF-IDF baseline" in verdict(good, None)


def test_what_is_not_certain_is_not_told_as_certain(run, tmp_path):
    assert [percent(share) for share in (1.0, 0.9997, 0.9184, 0.0003, 0.0)] == ["100.0 %", "> 99.9 %", "91.8 %", "< 0.1 %", "0.0 %"]
    rule = AbstentionRule(0.99973, target_accuracy=0.8)
    evaluation = evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", ROWS), classifier=KeywordClassifier(abstention=rule))
    assert any("from confidence 0.99973 on" in line for line in confidence_lines(evaluation.metrics, evaluation.confidence))
    assert "from 0.99973 on" in (run / "report" / "report.html").read_text(encoding="utf-8")


def test_names_and_counts_of_the_page_can_be_read(run, tmp_path):
    rows = [{"text": f"{'体育' if at < 7 else '财经'} 0.9", "label": "体育"} for at in range(10)]
    evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", rows), classifier=KeywordClassifier())
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "right strong" not in page, "white on a pale cell"
    assert "ellipsis" not in re.search(r"^\.tag {.*$", page, re.MULTILINE)[0]
    for opened in ('<td class="text" dir="auto">', '<span class="tag wrong" dir="auto">', '<h1 dir="auto">'):
        assert opened in page, "an Arabic text would stand in the wrong order"


def test_tables_show_the_baseline_beside_the_model():
    model, baseline = random_metrics(3), random_metrics(3, seed=1)
    shown = printed(metrics_tables(model, baseline))
    for metrics in (model, baseline):
        assert f"{100 * metrics.accuracy:.1f} %" in shown
        assert f"{metrics.classes[2].f1:.3f}" in shown
    assert "95 % interval" in shown


def test_facts_leave_out_what_the_manifest_does_not_say():
    assert facts({}) == ()
    assert ("Confidence", "calibrated, temperature 1.250") in facts({"calibrated": True, "temperature": 1.25})
    scaled = {"calibrated": True, "temperature": 1.25, "vector_scaling": {"scale": [1.0], "bias": [0.0]}}
    assert ("Confidence", "calibrated, vector scaling") in facts(scaled)


# Trust, lengths, comparison


MANY = [
    {"text": f"{LABELS[at % 3]} {'长' * (at % 40)} {0.55 + 0.04 * (at % 11):.2f}", "label": LABELS[(at + (at % 7 == 0)) % 3]}
    for at in range(210)
]


def test_the_report_says_what_silence_and_sets_were_worth(run, tmp_path):
    rule = AbstentionRule(0.7, target_accuracy=0.8)
    sets = ConformalRule("lac", 0.9, np.full(3, 0.4), False, 100)
    evaluation = evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", MANY), classifier=KeywordClassifier(abstention=rule, sets=sets))
    sure = [float(row["text"].rsplit(" ", 1)[1]) for row in MANY]
    right = [row["text"].startswith(row["label"]) for row in MANY]
    answered = [one >= 0.7 - 1e-6 for one in sure]
    silence = evaluation.confidence.silence
    assert (silence.answered, silence.rows) == (sum(answered), 210)
    assert silence.accuracy == pytest.approx(sum(r for r, a in zip(right, answered, strict=True) if a) / sum(answered))
    held = evaluation.confidence.sets
    assert held.empty == pytest.approx(sum(one < 0.6 - 1e-6 for one in sure) / 210)
    assert held.reached == pytest.approx(sum(r for r, s in zip(right, sure, strict=True) if s >= 0.6 - 1e-6) / 210)
    written = read_rows(run / "report" / "predictions.jsonl")
    assert len(written) == 210  # abstained rows are marked, never dropped
    assert [row["abstained"] for row in written] == [not one for one in answered]
    assert [row["prediction_set"] == [] for row in written] == [one < 0.6 - 1e-6 for one in sure]
    figures = json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))
    assert figures["confidence"]["silence"]["answered"] == sum(answered)
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    assert "An empty set means" in page
    assert "Prediction sets (lac)" in (run / "report" / "report.md").read_text(encoding="utf-8")


def test_rows_that_nothing_was_promised_for_do_not_count(run, tmp_path):
    class Half(KeywordClassifier):
        def _asked(self, labels, rows):
            return _Asked(None, self._names, None, np.arange(rows) % 2 < self.held)

    promised = Half(abstention=AbstentionRule(0.7), sets=ConformalRule("lac", 0.9, np.full(3, 0.4), False, 100))
    promised.held = 1
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    evaluation = evaluate_run(run, data, classifier=promised)
    assert [note for note in evaluation.notes if "raw network" in note] == [
        "105 of 210 rows were asked among labels that nothing was fitted on; their probabilities are the raw network's"
    ]
    found = evaluation.confidence
    written = read_rows(run / "report" / "predictions.jsonl")
    assert (found.silence.rows, found.silence.unpromised, found.sets.unpromised) == (105, 105, 105)
    assert found.silence.answered == sum(row["abstained"] is False for row in written if "abstained" in row)
    sets = [row["prediction_set"] for row in written if "prediction_set" in row]
    assert sum(rows for _, rows in found.sets.sizes) == len(sets) == 105
    assert found.sets.empty == sum(not one for one in sets) / 105
    assert "105 rows were asked among labels that nothing was fitted on" in (run / "report" / "report.html").read_text(encoding="utf-8")
    assert (run / "report" / "report.md").read_text(encoding="utf-8").count("105 more rows") == 2
    promised.held = 0
    evaluation = evaluate_run(run, data, classifier=promised)
    assert (evaluation.confidence.silence, evaluation.confidence.sets) == (None, None)
    assert any("The probabilities are not calibrated" in note for note in evaluation.notes)


def test_plots_are_drawn_by_the_browser_with_nothing_from_outside(run, tmp_path):
    (run / "metrics.json").write_text(
        json.dumps({"history": [{"step": 10, "loss": 2.0}, {"step": 20, "eval_loss": 1.0, "eval_accuracy": 0.8, "eval_macro_f1": 0.7}]})
    )
    evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", MANY), classifier=KeywordClassifier())
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    seen = Elements(page)
    assert seen.tags.count("svg") == 5  # reliability, coverage, length, loss, selecting rows
    names = [value for name, value in seen.attributes if name == "aria-label"]
    assert any("Reliability" in name for name in names)
    assert not re.search(r"nan|inf,|,inf", " ".join(value for name, value in seen.attributes if name == "points"))
    assert "url(" not in page


def test_lengths_part_the_rows_and_find_what_was_cut():
    lengths, right = np.repeat([3, 5, 900], 40), np.array([True] * 100 + [False] * 20)
    groups = by_length(lengths, right, np.where(lengths == 900, 12, 0))
    assert sum(one.rows for one in groups) == 120
    assert [(one.shortest, one.longest) for one in groups] == [(3, 3), (5, 5), (900, 900)]
    assert groups[-1].accuracy == 0.5
    assert groups[-1].cut == 40
    cut = what_was_cut(right, np.where(lengths == 900, 12, 0))
    assert (cut.rows, cut.tokens, cut.accuracy, cut.whole_accuracy) == (40, 480, 0.5, 1.0)
    assert what_was_cut(right, np.zeros(120)) is None
    assert len(by_length([7], np.array([True]), [0])) == 1


def test_sure_and_wrong_rows_are_suspected_of_their_label():
    probabilities = np.array([[0.9, 0.1]] * 10 + [[0.1, 0.9]] * 10 + [[0.95, 0.05], [0.55, 0.45]])
    gold = np.array([0] * 10 + [1] * 10 + [1, 1])
    rows = tuple(Example("x", str(at), "f", 1) for at in gold)
    found = find_mistakes(rows, gold, probabilities, LabelSet(("0", "1")))
    assert [(one.row, one.label_suspected) for one in found] == [(20, True), (21, False)]


def test_runs_are_compared_on_the_same_rows_and_differences_written(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    always_first = KeywordClassifier()
    always_first._shares = lambda text: np.array([0.8, 0.1, 0.1])
    evaluation = evaluate_run(run, data, classifier=always_first, compare_with=[earlier])
    first, baseline, other = evaluation.comparison
    assert (first.name, baseline.name, other.name) == ("run", "TF-IDF baseline", "other")
    assert first.metrics.accuracy == pytest.approx(1 / 3, abs=0.05)
    right = np.array([row["text"].startswith(row["label"]) for row in MANY])
    constant = np.array([row["label"] == "体育" for row in MANY])
    assert (other.test.only_second, other.test.only_first) == ((right & ~constant).sum(), (constant & ~right).sum())
    assert other.p_value >= other.test.p_value
    differing = read_rows(run / "report" / "differences.jsonl")
    assert all(len({said["prediction"] for said in row["predictions"].values()}) > 1 for row in differing)
    for name, row_ends in (("report.html", "</tr>"), ("report.md", "\n")):
        told = (run / "report" / name).read_text(encoding="utf-8")
        assert "Side by side" in told
        beside = told[told.index("F1 by class") :]
        for at, label in enumerate(LABELS):
            row = beside[beside.index(label) :].partition(row_ends)[0]
            assert all(f"{one.metrics.classes[at].f1:.3f}" in row for one in evaluation.comparison), row


def test_what_differs_is_told_without_a_look_at_every_row_for_each(monkeypatch):
    labels, gold = LabelSet(LABELS), np.arange(60) % 3
    rows = [Example(str(at), LABELS[at % 3], "f", at + 1) for at in range(60)]
    sides = [np.full((60, 3), 0.1, dtype=np.float32) for _ in range(2)]
    for shift, side in enumerate(sides):
        side[np.arange(60), (gold + shift) % 3] = 0.8
    contenders = compare([Entry(name, side) for name, side in zip("ab", sides, strict=True)], gold, labels)
    predicted, looked = Contender.predicted.fget, []
    monkeypatch.setattr(Contender, "predicted", property(lambda one: looked.append(one) or predicted(one)))
    told = list(differing_rows(contenders, rows, labels))
    assert len(told) == 60
    assert len(looked) == 2
    assert told[0]["predictions"] == {name: {"prediction": said, "confidence": 0.8} for name, said in zip("ab", LABELS[:2], strict=True)}


def test_a_comparison_shows_any_name_and_every_figure_whole(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    evaluate_run(run, data, out=tmp_path / "a|b" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "a|b" / "report" / "predictions.jsonl"
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])
    beside = (run / "report" / "report.md").read_text(encoding="utf-8").split("F1 by class")[1].split("##")[0]
    table = [line for line in beside.splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(LABELS)
    assert len({len(re.findall(r"(?<!\\)\|", line)) for line in table}) == 1
    assert "…" not in printed(comparison_table(evaluation.comparison), width=60)


def test_runs_of_one_name_are_told_apart(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    earlier = [tmp_path / above / "run" / "report" / "predictions.jsonl" for above in ("a", "b")]
    for path in earlier:
        evaluate_run(run, data, out=path.parent, classifier=KeywordClassifier())
    always_first = KeywordClassifier()
    always_first._shares = lambda text: np.array([0.8, 0.1, 0.1])
    evaluation = evaluate_run(run, data, classifier=always_first, compare_with=earlier)
    names = [one.name for one in evaluation.comparison]
    assert names == [f"{tmp_path.name}/run", "TF-IDF baseline", "a/run", "b/run"]
    assert all(list(row["predictions"]) == names for row in read_rows(run / "report" / "differences.jsonl"))
    assert names_of([run, earlier[0], earlier[0]]) == [f"{tmp_path.name}/run", "a/run", "a/run (3)"]


def test_a_report_elsewhere_is_called_by_its_own_folder(run, tmp_path):
    files = [tmp_path / "reports" / name / "predictions.jsonl" for name in ("qwen", "bert")]
    for file in files:
        file.parent.mkdir(parents=True)
        write_jsonl(file, ROWS)
    assert names_of([run, *files]) == ["run", "qwen", "bert"]


@pytest.mark.parametrize("of_another_run", [False, True])
def test_predictions_are_read_under_the_prefix_that_they_were_written_with(run, tmp_path, of_another_run):
    """The rows may be the predictions of a third run, whose columns have the bare names."""
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    always_first = KeywordClassifier()
    always_first._shares = lambda text: np.array([0.8, 0.1, 0.1])
    if of_another_run:
        evaluate_run(run, data, out=tmp_path / "third", classifier=always_first)
        data = tmp_path / "third" / "predictions.jsonl"
    first = evaluate_run(run, data, prefix="new_", out=tmp_path / "a", classifier=KeywordClassifier())
    assert first.metrics.accuracy > 0.5
    second = evaluate_run(
        run, data, prefix="newer_", out=tmp_path / "b", classifier=always_first, compare_with=[tmp_path / "a" / "predictions.jsonl"]
    )
    assert second.comparison[-1].name == "a"
    assert second.comparison[-1].metrics.accuracy == first.metrics.accuracy
    assert second.metrics.accuracy < 0.5


def test_rounded_probabilities_have_no_log_loss(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])
    told = json.loads((run / "report" / "metrics.json").read_text(encoding="utf-8"))["comparison"]
    assert [one["metrics"]["log_loss"] is None for one in told] == [False, False, True]
    lines = printed(comparison_table(evaluation.comparison)).splitlines()
    assert " - " in next(line for line in lines if "other" in line)
    table = (run / "report" / "report.md").read_text(encoding="utf-8").partition("## Side by side")[2]
    assert " | - | " in next(line for line in table.splitlines() if line.startswith("| other |"))


def test_an_answer_that_six_places_do_not_tell_from_another_stays_the_answer(run, data, tmp_path):
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    rows = [{**row, "prediction": "科学", "probabilities": {"体育": 0.0, "财经": 0.5, "科学": 0.5}} for row in read_rows(earlier)]
    write_jsonl(earlier, rows)
    other = evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier]).comparison[-1]
    assert {LABELS[at] for at in other.predicted} == {"科学"}
    assert other.metrics.accuracy == sum(row["label"] == "科学" for row in ROWS) / len(ROWS)


def test_rows_that_are_answered_are_drawn_within_the_plot(run, tmp_path):
    """Fewer of them are right than of any rows on the curve, which begins with more of them."""
    confidence = evaluate_run(run, write_jsonl(tmp_path / "dev.jsonl", MANY), classifier=KeywordClassifier()).confidence
    silence = Silence(0.99, 0.9, answered=1, rows=210, unpromised=0, accuracy=0.0, interval=(0.0, 0.8))
    chart = coverage_chart(replace(confidence, accuracies=(1.0,) * len(confidence.coverages), silence=silence))
    ((_, y, _),) = chart.lines[0].dots
    assert TOP <= y <= BOTTOM


def test_a_file_of_rows_with_candidates_need_not_name_every_label(run, tmp_path):
    offered = [{**row, "category": ["体育", "财经"]} for row in ROWS if row["label"] != "科学"]
    data = write_jsonl(tmp_path / "dev.jsonl", offered)
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    among = [{**row, "probabilities": {name: row["probabilities"][name] for name in row["category"]}} for row in read_rows(earlier)]
    write_jsonl(earlier, among)
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])
    assert evaluation.comparison[-1].metrics.accuracy == evaluation.metrics.accuracy
    write_jsonl(earlier, [{**row, "probabilities": {**row["probabilities"], "教育": 0.0}} for row in among])
    with pytest.raises(ArtifactError, match="the evaluated run does not know '教育'"):
        evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])


def test_a_baseline_that_does_not_know_the_labels_offered_is_left_out(run, tmp_path):
    class Offered(KeywordClassifier):
        takes_labels = True

        def describe(self):
            return {}

    data = write_jsonl(tmp_path / "dev.jsonl", [{**row, "category": [*LABELS, "教育"]} for row in ROWS])
    evaluation = evaluate_run(run, data, classifier=Offered())
    assert evaluation.baseline is None
    assert any("baseline is left out" in note for note in evaluation.notes)
    assert "was measured on these rows" in (run / "report" / "report.md").read_text(encoding="utf-8")


def test_an_earlier_evaluation_is_read_whatever_line_ends_its_texts_hold(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", [{**MANY[0], "text": "前一行\u2028后一行\x85" + MANY[0]["text"]}, *MANY[1:]])
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    evaluation = evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[earlier])
    assert evaluation.comparison[-1].metrics.accuracy == evaluation.metrics.accuracy


def test_what_cannot_be_compared_is_said(run, tmp_path):
    data = write_jsonl(tmp_path / "dev.jsonl", MANY)
    evaluate_run(run, data, out=tmp_path / "other" / "report", classifier=KeywordClassifier())
    earlier = tmp_path / "other" / "report" / "predictions.jsonl"
    shorter = write_jsonl(tmp_path / "shorter.jsonl", MANY[:-1])
    with pytest.raises(DataError, match=r"predictions\.jsonl:210: is of other rows"):
        evaluate_run(run, shorter, classifier=KeywordClassifier(), compare_with=[earlier])
    with pytest.raises(DataError, match="expected a run's folder, or the predictions"):
        evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[data])
    more = evaluate_run(tmp_path / "none", data, classifier=KeywordClassifier([*LABELS, "教育"]), compare_with=[earlier])
    assert more.comparison[1].metrics.accuracy == more.metrics.accuracy
    evaluate_run(tmp_path / "none", data, out=tmp_path / "more" / "report", classifier=KeywordClassifier([*LABELS, "教育"]))
    with pytest.raises(ArtifactError, match="the evaluated run does not know '教育'"):
        evaluate_run(run, data, classifier=KeywordClassifier(), compare_with=[tmp_path / "more" / "report" / "predictions.jsonl"])
