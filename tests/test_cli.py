from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import rich.console
from conftest import write_jsonl

from fenlei.cli import display
from fenlei.cli.demo import HEADLINES, free_folder
from fenlei.cli.main import main
from fenlei.cli.options import HELP
from fenlei.config import DataConfig, ModelConfig, OptimizationConfig, RunConfig, TrustConfig
from fenlei.errors import ConfigError, DataError
from fenlei.training.progress import Progress
from fenlei.training.promises import UnmetPromiseError
from fenlei.training.resume import way_on

COMMANDS = ("demo", "audit", "train", "evaluate", "predict", "serve", "suggest", "export", "download")
BUILTIN = Path(display.__file__).parents[1] / "data" / "builtin"


class FakeClassifier:
    """Says the first two characters of each text; remembers where it was loaded from."""

    loaded: tuple[str, str, bool] = ("", "", False)
    takes_labels = False

    @classmethod
    def load(cls, run: str, *, device: str, trust: TrustConfig, int8: bool, verify: bool) -> FakeClassifier:
        cls.loaded = (run, device, int8)
        return cls()

    def describe(self) -> dict[str, Any]:
        return {}

    def predict(self, texts: list[str]) -> list[Any]:
        return [
            SimpleNamespace(
                label=t[:2],
                answer=t[:2],
                confidence=0.75,
                probabilities={t[:2]: 0.75, "其他": 0.25},
                calibrated=len(t) < 9,
                tokens_cut=max(0, len(t) - 9),
                prediction_set=None,
                abstained=None,
                novelty=None,
            )
            for t in texts
        ]


@pytest.fixture
def classifier(monkeypatch: pytest.MonkeyPatch) -> type[FakeClassifier]:
    monkeypatch.setattr("fenlei.inference.classifier.Classifier", FakeClassifier)
    return FakeClassifier


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the command asked of `train`, which does nothing but stop."""
    asked: list[dict[str, Any]] = []

    def train(**given: Any) -> None:
        asked.append(given)
        raise ConfigError("enough")

    monkeypatch.setattr("fenlei.training.fit.train", train)
    return asked


def options_of(asked: dict[str, Any]) -> dict[str, Any]:
    """What was said, as it differs from the defaults."""
    defaults = RunConfig().to_options()
    return {name: value for name, value in asked["config"].to_options().items() if value != defaults[name]}


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    heavy = {"torch", "transformers", "sklearn", "matplotlib", "numpy", "rich"}
    code = f"import sys; from fenlei.cli.main import main; main(['--help']); print(*sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    times = []
    for _ in range(3):
        began = time.monotonic()
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        times.append(time.monotonic() - began)
    assert child.stderr.strip() == ""
    assert all(command in child.stdout for command in COMMANDS)
    # 0.5 s on a free machine; this one may be busy.
    assert min(times) < 1.5


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"  Examples:\n    fenlei {command}" in shown
    assert "\b" not in shown
    assert "\\b" not in shown


def test_the_module_is_the_command() -> None:
    child = subprocess.run([sys.executable, "-m", "fenlei", "train", "--no-such"], capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 2
    assert "--no-such" in child.stderr


def test_version_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    import fenlei

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"fenlei {fenlei.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["trian"], "train"),
        (["train", "--tunning", "full"], "--tuning"),
        (["train", "rows.jsonl", "--tuning", "some"], "'full', 'lora', 'qlora', 'frozen'"),
        (["train", "rows.jsonl", "--epochs", "many"], "'--epochs'"),
        (["train", "rows.jsonl", "--model", "nano"], "--out"),
        (["evaluate", "run"], "DATA"),
        (["predict", "run"], "INPUT"),
        (["predict", "run", "rows.jsonl", "--text", "x"], "INPUT"),
        (["predict", "--text", "x"], "RUN_OR_MODEL"),
        (["predict", "run", "rows.jsonl", "--url", "http://127.0.0.1:1"], "RUN_OR_MODEL"),
        (["predict", "rows.jsonl", "--url", "http://127.0.0.1:1", "--int8"], "--url"),
        (["predict", "--text", "x", "--url", "http://127.0.0.1:1", "--labels", "a,b", "--multi-label"], "--url"),
        (["predict", "run", "--text", "x", "--out", "out.jsonl"], "--text"),
        (["predict", "run", "--text", "x", "--prefix", "new_"], "--text"),
        (["predict", "run", "--text", "x", "--follow"], "--text"),
        (["serve"], "RUN"),
        (["serve", "run", "--workers", "0"], "--workers"),
        (["export", "run"], "--out"),
        (["download"], "MODEL"),
    ],
)
def test_wrong_usage_ends_with_2_and_names_the_fault(arguments: list[str], named: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert named in captured.err
    assert captured.out == ""


def test_a_fenlei_error_is_one_block_without_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--epochs", "-1", "--lora-rank", "0", "--out", "run"]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Error: lora_rank must be at least 1, was 0\nepochs must be above 0, was -1.0\n"
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*given: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fenlei.models.hub.resolve_model", interrupted)
    assert main(["download", "acme/tiny"]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_every_field_of_the_configuration_is_an_option() -> None:
    fields = {one.name for part in (DataConfig, ModelConfig, OptimizationConfig, TrustConfig) for one in dataclasses.fields(part)}
    assert set(HELP) == fields - {"data"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], {}),
        (["--model", "nano"], {"model": "nano"}),
        (["--model-name-or-path", "nano"], {"model": "nano"}),
        (["--lr", "1e-4"], {"learning_rate": 1e-4}),
        (["--learning-rate", "1e-4"], {"learning_rate": 1e-4}),
        (["--text-column", "title,body", "--max-length", "64"], {"text_column": "title,body", "max_length": 64}),
        (["--no-baseline", "--gradient-checkpointing"], {"baseline": False, "gradient_checkpointing": True}),
        (["--early-stopping-patience", "2"], {"early_stopping_patience": 2}),
        (["--tuning", "lora", "--lora-dropout", "0.1"], {"tuning": "lora", "lora_dropout": 0.1}),
        (["--warmup-ratio", "0"], {"warmup_ratio": 0.0}),
    ],
)
@pytest.mark.parametrize("out", ["--out", "--output-dir"])
def test_options_reach_the_run(out: str, arguments: list[str], said: dict[str, Any], trained: list[dict[str, Any]]) -> None:
    assert main(["train", "rows.jsonl", out, "run", *arguments]) == 1
    assert options_of(trained[0]) == {"data": "rows.jsonl", **said}
    assert (trained[0]["out"], trained[0]["resume"]) == (Path("run"), False)


def test_the_command_line_wins_over_the_yaml_file(tmp_path: Path, trained: list[dict[str, Any]]) -> None:
    (tmp_path / "run.yaml").write_text("data: rows.jsonl\nmodel: nano\nbatch-size: 8\nepochs: 2\n")
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--epochs", "5", "--out", "run", "--resume"]) == 1
    assert options_of(trained[0]) == {"data": "rows.jsonl", "model": "nano", "batch_size": 8, "epochs": 5.0}
    assert trained[0]["resume"] is True


@pytest.mark.parametrize("command", ["train", "tune"])
def test_a_file_of_options_in_the_place_of_the_data_is_told_where_it_goes(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "run.yaml", "--out", "run"]) == 2
    assert "run.yaml is no labelled file; a file of options goes with --config" in " ".join(capsys.readouterr().err.split())


def test_an_unknown_key_in_the_yaml_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.yaml").write_text("batchsize: 8\n")
    assert main(["train", "--config", str(tmp_path / "run.yaml"), "--out", "run"]) == 1
    assert "unknown option 'batchsize' (did you mean 'batch_size'?)" in capsys.readouterr().err


def test_a_text_is_answered_with_label_confidence_and_bars(classifier: type[FakeClassifier], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "--text", "体育新闻", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "体育\t0.7500"
    assert [line.split()[0] for line in lines[1:]] == ["体育", "其他"]
    assert "75.0 %" in lines[1]
    assert lines[1].count("█") > 2 * lines[2].count("█") > 0
    assert classifier.loaded == ("run", "cpu", False)


@pytest.mark.parametrize("int8", [False, True])
def test_int8_is_asked_for_by_its_option(int8: bool, classifier: type[FakeClassifier]) -> None:
    assert main(["predict", "run", "--text", "央行", *(["--int8"] if int8 else [])]) == 0
    assert classifier.loaded == ("run", "auto", int8)


def test_what_weakens_an_answer_goes_to_stderr(classifier: type[FakeClassifier], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "--text", "体育新闻" * 3]) == 0
    assert "3 tokens of the text" in (err := capsys.readouterr().err)
    assert "not calibrated" in err
    assert "or its labels were changed since" in err


def test_texts_as_json_are_rows(classifier: type[FakeClassifier], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "run", "--text", "体育新闻", "--text", "财经", "--json", "--probabilities"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["prediction"] for row in rows] == ["体育", "财经"]
    assert list(rows[0]) == ["text", "prediction", "confidence", "probabilities", "calibrated", "tokens_cut"]


def test_a_file_is_predicted_into_a_file(classifier: type[FakeClassifier], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in.jsonl").write_text('{"id": 1, "text": "体育新闻"}\n', encoding="utf-8")
    assert main(["predict", "run", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl"), "--json"]) == 0
    assert json.loads((tmp_path / "out.jsonl").read_text(encoding="utf-8"))["prediction"] == "体育"
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["out"]) == (1, str(tmp_path / "out.jsonl"))


def test_only_data_goes_to_stdout(
    classifier: type[FakeClassifier], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO('{"text": "体育新闻"}\n{"text": "财经"}\n'.encode())))
    assert main(["predict", "run", "-", "--json"]) == 0
    captured = capsys.readouterr()
    assert [json.loads(line)["prediction"] for line in captured.out.splitlines()] == ["体育", "财经"]
    assert "2 rows in" in captured.err


def test_a_clash_of_columns_is_cured_with_prefix(
    classifier: type[FakeClassifier], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "体育", "prediction": 1}\n', encoding="utf-8")
    assert main(["predict", "run", str(tmp_path / "in.jsonl")]) == 1
    assert "--prefix" in capsys.readouterr().err
    assert main(["predict", "run", str(tmp_path / "in.jsonl"), "--prefix", "new_"]) == 0
    assert json.loads(capsys.readouterr().out)["new_prediction"] == "体育"


@pytest.mark.parametrize(
    "arguments",
    [
        ["rows.parquet.txt"],
        ["in.jsonl", "--out", "out.parquet"],
        ["in.jsonl", "--out", "./in.jsonl"],
        ["in.jsonl", "--text-column", "no"],
    ],
)
def test_bad_files_are_told_before_the_model_is_loaded(
    arguments: list[str], classifier: type[FakeClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "体育"}\n', encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(classifier, "loaded", None)
    assert main(["predict", "run", *arguments]) == 1
    assert classifier.loaded is None


def test_download_prints_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    assert main(["download", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
    assert main(["download", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"model": str(tmp_path), "folder": str(tmp_path), "revision": None}


def test_a_model_that_is_nowhere_ends_with_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", "acme/tiny", "--cache-dir", str(tmp_path)]) == 1
    assert "`nano`" in capsys.readouterr().err


def test_a_number_is_added_to_a_taken_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = tmp_path / "demo"
    assert free_folder(wanted) == wanted
    wanted.mkdir()
    assert free_folder(wanted) == wanted
    (wanted / "fenlei.json").write_text("{}")
    (tmp_path / "demo-2").write_text("a file")
    assert free_folder(wanted) == tmp_path / "demo-3"
    monkeypatch.chdir(wanted)
    assert free_folder(Path()) == tmp_path / "demo-3"


def test_the_headlines_of_the_demo_are_new() -> None:
    known = (BUILTIN / "train.jsonl").read_text(encoding="utf-8") + (BUILTIN / "test.jsonl").read_text(encoding="utf-8")
    assert not [headline for headline in HEADLINES if headline[:6] in known]


def test_the_whole_way(tiny_qwen: Path, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"

    def fenlei(*arguments: object) -> dict[str, Any]:
        assert main([str(argument) for argument in arguments] + ["--json"]) == 0
        return dict(json.loads(capsys.readouterr().out))

    trained = fenlei("train", toy_file, "--model", tiny_qwen, "--max-steps", 4, "--batch-size", 8, "--out", run)
    assert (trained["out"], sorted(trained["labels"])) == (str(run), ["体育", "科技", "财经"])
    assert trained["metrics"]["rows"] > 0
    assert trained["baseline"]["accuracy"] > 0
    predicted = fenlei("predict", run, toy_file, "--out", tmp_path / "out.jsonl", "--probabilities")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert predicted["rows"] == len(rows) == 60
    right = sum(row["prediction"] == row["label"] for row in rows)
    evaluated = fenlei("evaluate", run, toy_file, "--out", tmp_path / "report")
    assert evaluated["metrics"]["accuracy"] == pytest.approx(right / 60)
    assert evaluated["mistakes"] == 60 - right
    assert (tmp_path / "report" / "report.html").is_file()
    exported = fenlei("export", run, "--out", tmp_path / "exported", "--texts", toy_file)
    assert (exported["agreement"], exported["rows"]) == (1.0, 60)
    assert main(["train", str(toy_file), "--model", str(tiny_qwen), "--out", str(run)]) == 1
    assert "already holds a complete run" in capsys.readouterr().err


def test_what_there_is_to_say_of_the_test_rows_is_said_after_training(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--tuning", "frozen", "--max-steps", "2", "--no-baseline", "--device", "cpu", "--test-ratio", "0.2"]
    assert main(["train", str(toy_file), "--model", str(tiny_qwen), *asked, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err.partition("On the test rows (12)")[2]
    assert "The probabilities are not calibrated" in said


def test_what_to_type_next_can_be_typed(tiny_qwen: Path, toy_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "a b"
    asked = ["--model", str(tiny_qwen), "--method", "generate", "--tuning", "none", "--out", str(run)]
    assert main(["train", str(toy_file), *asked]) == 0
    err = capsys.readouterr().err
    assert f"fenlei predict '{run}' --text ..." in err
    assert "On the dev rows (" in err, "no checkpoint was selected on them"
    assert way_on("train", run) == f"`fenlei train --resume --out '{run}'`"


def test_places_and_labels_are_no_emoji(capsys: pytest.CaptureFixture[str]) -> None:
    display.notes().print("news.jsonl:100: type:book:fiction", markup=False)
    display.tables().print("news.jsonl:100: type:book:fiction", markup=False)
    assert set("".join(capsys.readouterr()).splitlines()) == {"news.jsonl:100: type:book:fiction"}


@pytest.fixture
def small_demo(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`fenlei demo` with a tiny model and few rows in the place of what is built in."""
    rows = [{"title": row["text"], "body": "正文", "label": row["label"]} for row in toy_rows]
    (tmp_path / "builtin").mkdir()
    for name, part in (("train", rows), ("test", rows[:12]), ("test.en", rows[:6]), ("test.ja", rows[:6])):
        write_jsonl(tmp_path / "builtin" / f"{name}.jsonl", part)
    monkeypatch.setattr("fenlei.models.hub.NANO_FOLDER", tiny_qwen)
    monkeypatch.setattr("fenlei.cli.demo._builtin", lambda: tmp_path / "builtin")
    return lambda *arguments: main(["demo", "--out", str(tmp_path / "demo"), *arguments])


def test_the_demo_shows_everything_once(small_demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert small_demo() == 0
    shown = capsys.readouterr().out
    assert "On 12 rows" in shown
    assert "TF-IDF baseline" in shown
    for language in ("English", "Japanese"):
        assert re.search(rf"in {language}, which it was not trained on: [\d.]+ % of 6 right \(TF-IDF baseline [\d.]+ %\)", shown)
    for headline in HEADLINES:
        assert re.search(rf"(财经|体育|科技) +[\d.]+ % +{headline}", shown)
    assert f"fenlei export {tmp_path / 'demo'} --out exported" in shown
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
    assert json.loads((tmp_path / "demo" / "fenlei.json").read_text(encoding="utf-8"))["tuning"] == "full"


def test_a_second_demo_goes_beside_the_first(small_demo: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "mine.txt").write_text("")
    assert small_demo("--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["run"] == str(tmp_path / "demo-2")
    assert told["test"]["metrics"]["rows"] == 12
    assert list(told["other_languages"]) == ["English", "Japanese"]
    assert [row["text"] for row in told["headlines"]] == list(HEADLINES)
    assert [path.name for path in (tmp_path / "demo").iterdir()] == ["mine.txt"]


def at(step: int, **given: Any) -> Progress:
    return Progress(step=step, steps=100, epoch=step / 50, loss=0.5, rows_per_second=120.0, seconds_left=75.0, **given)


def show(monkeypatch: pytest.MonkeyPatch, *, terminal: bool) -> tuple[io.StringIO, Callable[[], display.TrainingDisplay]]:
    screen = io.StringIO()
    console = rich.console.Console(file=screen, force_terminal=terminal, width=100)
    monkeypatch.setattr(display, "notes", lambda: console)
    return screen, display.TrainingDisplay


def test_on_a_terminal_training_is_a_bar_with_loss_rate_and_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, start = show(monkeypatch, terminal=True)
    with start() as bar:
        bar(at(40))
    assert "40/100" in screen.getvalue()
    assert "loss 0.5000  120.0 rows/s  1:15 left" in screen.getvalue()


def test_in_a_log_training_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, start = show(monkeypatch, terminal=False)
    with start() as lines:
        for step in range(1, 60):
            lines(at(step))
        lines(at(60, metrics={"accuracy": 0.875, "macro_f1": 0.8}))
    assert screen.getvalue().splitlines() == [
        "step 1/100  loss 0.5000  120.0 rows/s  1:15 left",
        "epoch 1.20  accuracy 0.8750  macro f1 0.8000",
    ]


def test_rows_are_counted_in_a_log_now_and_then(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    clock = iter((0.0, 10.0, 40.0, 50.0))
    monkeypatch.setattr(display, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with display.counting_rows("predicting", "rows.jsonl") as progress:
        for done in (5_000, 6_000, 9_000, 10_000):
            progress(done)
    assert capsys.readouterr().err == "predicting: 9,000 rows, 100 rows/s\n"


def test_a_bar_that_fails_leaves_the_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, start = show(monkeypatch, terminal=True)
    bar = start()
    bar.__enter__()(at(1))
    bar.__exit__(DataError, DataError("no"), None)
    assert bar._bars is not None
    assert not bar._bars.live.is_started


def test_long_waits_are_told_in_hours() -> None:
    assert display._clock(3725.4) == "1:02:05"
    assert display._clock(5) == "0:05"


def test_runs_to_compare_and_promises_reach_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def evaluate_run(run: Path, data: str, **options: Any) -> None:
        told.update(options)
        raise DataError("enough")

    monkeypatch.setattr("fenlei.report.evaluation.evaluate_run", evaluate_run)
    monkeypatch.setattr("fenlei.artifact.read_manifest", lambda run: {"labels": ["体育", "财经"]})
    words = ["evaluate", "runs/a", "test.jsonl", "--compare", "runs/b", "runs/c", "--target-accuracy", "0.9", "--set-coverage", "0.95"]
    assert main(words) == 1
    assert told["compare_with"] == ["runs/b", "runs/c"]
    assert told["trust"] == TrustConfig(target_accuracy=0.9, set_coverage=0.95)
    assert main(["evaluate", "runs/a", "test.jsonl", "--compare", "b", "--compare", "c"]) == 1
    assert told["compare_with"] == ["b", "c"]


def test_an_extension_is_shown_before_the_promise_that_it_cannot_give(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def extend(*_: Any, **__: Any) -> None:
        raise UnmetPromiseError("not promised", SimpleNamespace(training=SimpleNamespace(labels=("a", "b")), to_json=lambda: {"new": []}))

    monkeypatch.setattr("fenlei.training.extend.extend", extend)
    assert main(["extend", "run", "new.jsonl", "--out", "more", "--json"]) == 1
    said = capsys.readouterr()
    assert json.loads(said.out) == {"out": "more", "labels": ["a", "b"], "new": []}
    assert said.err == "Error: not promised\n"


def test_a_second_file_to_evaluate_and_contradicting_promises_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "runs/a", "test.jsonl", "other.jsonl"]) == 2
    assert "--compare" in capsys.readouterr().err
    assert main(["predict", "runs/a", "--text", "x", "--target-accuracy", "0.9", "--min-confidence", "0.5"]) == 1
    assert "exclude each other" in capsys.readouterr().err
    assert main(["predict", "runs/a", "--text", "x", "--target-accuracy", "99"]) == 1
    assert "between 0 and 1" in capsys.readouterr().err
    for command in (["predict", "runs/a", "--text", "x"], ["evaluate", "runs/a", "test.jsonl"]):
        assert main([*command, "--set-score", "raps"]) == 1
        assert "set_score 'raps' has no effect without set_coverage" in capsys.readouterr().err
