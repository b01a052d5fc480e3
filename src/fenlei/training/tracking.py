"""Experiment trackers: what transformers' callbacks do not tell them - the run's own options, its figures, confusion matrix and report.

The runs are begun here, in the run's folder, and transformers' callbacks go on with what they find open. A tracker without an adapter
here (comet_ml, clearml, ...) gets what its callback tells it.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

from fenlei.artifact import LOGS, write_bytes
from fenlei.errors import ConfigError, FenleiError, first_line
from fenlei.evaluation.figures import AnyMetrics
from fenlei.evaluation.metrics import Metrics
from fenlei.training.ranks import is_first

PROJECT = "fenlei"
"""Where the trackers' own variables (WANDB_PROJECT, SWANLAB_PROJECT, MLFLOW_EXPERIMENT_NAME) name no other."""
FIGURES = ("accuracy", "micro_f1", "macro_f1", "weighted_f1", "log_loss", "expected_calibration_error")
"""What is told of a measurement."""


class TrackerError(ConfigError):
    """A tracker that is unknown, not installed, or not to be reached."""


class Tracker(Protocol):
    """One tracker's run."""

    def __init__(self, run: Path, options: Mapping[str, Any]) -> None:
        """Begins it, with the options of the run in the folder `run`."""

    def figures(self, named: Mapping[str, float]) -> None: ...

    def picture(self, name: str, png: Path) -> None: ...

    def document(self, name: str, path: Path) -> None: ...

    def end(self, *, failed: bool) -> None:
        """`failed`: the training did not come to its end."""


class TensorBoard:
    """Event files in the run's `logs/`; TENSORBOARD_LOGGING_DIR wins."""

    def __init__(self, run: Path, options: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(log_dir=os.path.expanduser(os.environ.get("TENSORBOARD_LOGGING_DIR") or run / LOGS))
        self._writer.add_text("options", _as_markdown(json.dumps(options, ensure_ascii=False, indent=2)))

    def figures(self, named: Mapping[str, float]) -> None:
        for name, value in named.items():
            self._writer.add_scalar(name, value, 0)

    def picture(self, name: str, png: Path) -> None:
        from matplotlib.image import imread

        self._writer.add_image(name, imread(io.BytesIO(png.read_bytes()))[..., :3], dataformats="HWC")

    def document(self, name: str, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self._writer.add_text(name, text if path.suffix == ".md" else _as_markdown(text))

    def end(self, *, failed: bool) -> None:
        self._writer.close()


class WeightsAndBiases:
    """W&B; WANDB_MODE=offline keeps it in the run's `logs/`."""

    def __init__(self, run: Path, options: Mapping[str, Any]) -> None:
        import wandb

        self._wandb: Any = wandb
        (run / LOGS).mkdir(parents=True, exist_ok=True)
        try:
            self._run: Any = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT), name=run.resolve().name, dir=str(run / LOGS), config=dict(options)
            )
        except wandb.Error as error:
            raise TrackerError(f"report_to 'wandb': {first_line(error)}; log in with `wandb login`, or set WANDB_MODE=offline") from error

    def figures(self, named: Mapping[str, float]) -> None:
        self._run.summary.update(dict(named))

    def picture(self, name: str, png: Path) -> None:
        self._run.log({name: self._wandb.Image(str(png))})

    def document(self, name: str, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self._run.log({name: self._wandb.Html(text if path.suffix == ".html" else f"<pre>{_escaped(text)}</pre>", inject=False)})

    def end(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


class SwanLab:
    """SwanLab; SWANLAB_MODE=local or offline keeps it in the run's `logs/`."""

    def __init__(self, run: Path, options: Mapping[str, Any]) -> None:
        import swanlab

        self._swanlab: Any = swanlab
        folder = run / LOGS / "swanlab"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            swanlab.init(
                project=os.environ.get("SWANLAB_PROJECT", PROJECT), name=run.resolve().name, log_dir=str(folder), config=dict(options)
            )
        except (RuntimeError, ValueError, OSError, swanlab.exceptions.AuthenticationError) as error:
            raise TrackerError(
                f"report_to 'swanlab': {first_line(error)}; log in with `swanlab login`, or set SWANLAB_MODE=local"
            ) from error

    def figures(self, named: Mapping[str, float]) -> None:
        self._swanlab.log(dict(named))

    def picture(self, name: str, png: Path) -> None:
        self._swanlab.log({name: self._swanlab.Image(str(png))})

    def document(self, name: str, path: Path) -> None:
        text = path.read_text(encoding="utf-8")
        self._swanlab.log({name: self._swanlab.Html(text) if path.suffix == ".html" else self._swanlab.Text(text)})

    def end(self, *, failed: bool) -> None:
        told = {"state": "crashed", "error": "the training did not come to its end"} if failed else {}
        self._swanlab.finish(**told)


class MlFlow:
    """MLflow; MLFLOW_TRACKING_URI says where, a local file or folder among others."""

    def __init__(self, run: Path, options: Mapping[str, Any]) -> None:
        import mlflow

        self._mlflow: Any = mlflow
        try:
            mlflow.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT))
            mlflow.start_run(run_name=run.resolve().name)
            mlflow.log_dict(dict(options), "options.json")
            mlflow.log_params({f"fenlei.{name}": value for name, value in options.items()})
        except mlflow.MlflowException as error:
            raise TrackerError(f"report_to 'mlflow': {first_line(error)}; MLFLOW_TRACKING_URI names a server, or a local file") from error

    def figures(self, named: Mapping[str, float]) -> None:
        self._mlflow.log_metrics(dict(named))

    def picture(self, name: str, png: Path) -> None:
        self._mlflow.log_artifact(str(png), name.rpartition("/")[0])

    def document(self, name: str, path: Path) -> None:
        self._mlflow.log_artifact(str(path), name.rpartition("/")[0])

    def end(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


ADAPTERS: dict[str, type[Tracker]] = {"tensorboard": TensorBoard, "wandb": WeightsAndBiases, "swanlab": SwanLab, "mlflow": MlFlow}


class Trackers:
    """Those of one run, from its beginning to where its context ends: after training, or after the evaluation that follows it."""

    def __init__(self) -> None:
        self._open: list[Tracker] = []

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        while self._open:
            self._open.pop().end(failed=kind is not None)

    def begin(self, report_to: str, run: Path, options: Mapping[str, Any]) -> None:
        """Begins a run in each tracker that `report_to` names. TrackerError where one is not installed, or cannot be reached."""
        if not is_first():
            return
        with naming_the_option(report_to):
            for name in names(report_to):
                if name in ADAPTERS:
                    self._open.append(ADAPTERS[name](run, options))

    def outcome(self, part: str, metrics: AnyMetrics, documents: Sequence[Path]) -> None:
        """Tells what was measured on `part` of the data: figures, the confusion matrix (where rows have one label), documents."""
        if not self._open:
            return
        with tempfile.TemporaryDirectory() as folder:
            picture = Path(folder) / f"{part}_confusion.png"
            if isinstance(metrics, Metrics):
                from fenlei.evaluation.plots import confusion_plot  # matplotlib, which takes most of a second

                write_bytes(picture, confusion_plot(metrics).png)
            for tracker in self._open:
                tracker.figures({f"{part}/{name}": float(getattr(metrics, name)) for name in FIGURES})
                if picture.exists():
                    tracker.picture(f"{part}/confusion", picture)
                for path in documents:
                    tracker.document(f"{part}/{path.stem}", path)


def until_done(trackers: Trackers | None) -> AbstractContextManager[Trackers]:
    """`trackers`, left open for their owner; where there are none, new ones for as long as this holds."""
    return Trackers() if trackers is None else nullcontext(trackers)


def names(report_to: str) -> list[str]:
    """`tensorboard, wandb` as names."""
    return [name.strip() for name in report_to.split(",")]


@contextmanager
def naming_the_option(report_to: str) -> Iterator[None]:
    """Turns the trackers' complaints about a name or a missing package into one about the option."""
    try:
        yield
    except FenleiError:
        raise
    except (ValueError, RuntimeError, ImportError) as error:
        if report_to == "none":
            raise
        raise TrackerError(
            f"report_to {report_to!r}: {error}; install the tracker (pip install 'fenlei[trackers]'), or leave the option out"
        ) from error


def _as_markdown(text: str) -> str:
    return "".join(f"    {line}\n" for line in text.splitlines())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
