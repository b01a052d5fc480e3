"""Experiment trackers in their offline or local mode, each where it is installed: read back, what a run has told them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

from fenlei import ConfigError, FenleiError, ModelError, train
from fenlei.training.tracking import ADAPTERS, Trackers, names

pytestmark = pytest.mark.timeout(300)

TRACKERS = ("tensorboard", "swanlab", "wandb", "mlflow")

SCRIPT = """
import sys, warnings
warnings.simplefilter("ignore")
from fenlei.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
"""The command line in a process of its own: trackers start threads and processes, and warn of much."""


def trained_with(tracker: str, model: Path, data: Path, folder: Path) -> Path:
    """The folder of a run that has told `tracker`, which may reach no network, of itself."""
    import os

    out = folder / "run"
    environment = {
        **os.environ,
        "WANDB_MODE": "offline",
        "SWANLAB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "MLFLOW_EXPERIMENT_NAME": "news",
        "HOME": str(folder),
    }
    words = [
        "train",
        str(data),
        "--model",
        str(model),
        "--out",
        str(out),
        "--report-to",
        tracker,
        "--test-ratio",
        "0.2",
        "--max-steps",
        "4",
    ]
    words += ["--batch-size", "8", "--max-length", "24", "--device", "cpu", "--no-baseline", "--learning-rate", "0.000123"]
    done = subprocess.run([sys.executable, "-c", SCRIPT, *words], env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def told(request: pytest.FixtureRequest, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> Path:
    if find_spec(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    return trained_with(request.param, tiny_qwen, toy_file, tmp_path)


@pytest.mark.parametrize("told", ["tensorboard"], indirect=True)
def test_tensorboard(told: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(told / "logs"))
    events.Reload()
    tags = events.Tags()
    accuracy = json.loads((told / "metrics.json").read_text(encoding="utf-8"))["selecting"]["accuracy"]
    assert events.Scalars("dev/accuracy")[0].value == pytest.approx(accuracy)
    assert {"eval/macro_f1", "dev/macro_f1", "test/accuracy"} <= set(tags["scalars"])
    assert {"dev/confusion", "test/confusion"} <= set(tags["images"])
    assert events.Images("test/confusion")[0].width > 300
    texts = {name: events.Tensors(f"{name}/text_summary")[0].tensor_proto.string_val[0].decode() for name in ("options", "test/report")}
    assert '"learning_rate": 0.000123' in texts["options"]
    assert "<!doctype html>" in texts["test/report"]


@pytest.mark.parametrize("told", ["wandb"], indirect=True)
def test_wandb(told: Path) -> None:
    (folder,) = (told / "logs" / "wandb").glob("offline-run-*")
    said = b"".join(path.read_bytes() for path in folder.glob("*.wandb"))
    for name in ("eval/macro_f1", "dev/accuracy", "test/accuracy", "dev/confusion", "test/report", "learning_rate"):
        assert name.encode() in said, name
    media = [path.name for path in (folder / "files" / "media").rglob("*") if path.is_file()]
    assert sum(name.endswith(".png") for name in media) == 2
    assert any(name.endswith(".html") for name in media)


@pytest.mark.parametrize("told", ["swanlab"], indirect=True)
def test_swanlab(told: Path) -> None:
    files = [path for path in (told / "logs" / "swanlab").rglob("*") if path.is_file()]
    said = b"".join(path.read_bytes() for path in files)
    for name in ("eval/macro_f1", "dev/accuracy", "test/accuracy", "dev/confusion", "test/report", "learning_rate"):
        assert name.encode() in said, name
    assert sum(path.suffix == ".png" for path in files) == 2
    assert any(path.suffix == ".html" for path in files)


@pytest.mark.filterwarnings("ignore")  # MLflow's own client warns of SQLAlchemy and of pydantic
@pytest.mark.parametrize("told", ["mlflow"], indirect=True)
def test_mlflow(told: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{told.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("news")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.run_name == "run"
    assert run.info.status == "FINISHED"
    assert run.data.params["fenlei.learning_rate"] == "0.000123"
    assert {"eval_macro_f1", "dev/accuracy", "test/macro_f1"} <= run.data.metrics.keys()
    kept = {path.path for part in ("dev", "test") for path in client.list_artifacts(run.info.run_id, part)}
    assert {"dev/dev_confusion.png", "dev/README.md", "test/test_confusion.png", "test/report.html"} <= kept


@pytest.mark.parametrize("tracker", TRACKERS)
def test_one_that_is_not_installed_is_named_with_the_cure(
    tracker: str, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (tracker, "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"report_to '{tracker}': .*pip install 'fenlei\[trackers\]'"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", report_to=tracker, max_steps=1, device="cpu")


def test_a_training_that_fails_ends_as_one_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[bool] = []

    class Told:
        def __init__(self, run: Path, options: Mapping[str, Any]) -> None: ...

        def end(self, *, failed: bool) -> None:
            ended.append(failed)

    def trained(error: FenleiError | None) -> None:
        with Trackers() as trackers:
            trackers.begin("tensorboard", tmp_path, {})
            if error is not None:
                raise error

    monkeypatch.setitem(ADAPTERS, "tensorboard", cast(Any, Told))
    trained(None)
    with pytest.raises(ModelError):
        trained(ModelError("three steps in a row"))
    assert ended == [False, True]


def test_names_are_joined_by_commas() -> None:
    assert names("tensorboard, wandb") == ["tensorboard", "wandb"]
