"""From a labelled file and a model's name to a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainerState, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback

from fenlei.artifact import CHECKPOINTS, LOGS, check_free, saving
from fenlei.config import RunConfig
from fenlei.errors import FenleiError
from fenlei.evaluation.metrics import Metrics
from fenlei.evaluation.multi_label import MultiLabelMetrics
from fenlei.models.allocator import keep_freed_memory
from fenlei.models.backbone import quiet_transformers
from fenlei.models.devices import fitting
from fenlei.training.callbacks import ProgressCallback, StopOnInterrupt
from fenlei.training.checkpoints import STATE_FILE, Start, remove_newer, starting_point
from fenlei.training.finish import complete, finish
from fenlei.training.frames import keep_frames
from fenlei.training.frozen import states_to_learn_from
from fenlei.training.held_out import TEST_ROWS
from fenlei.training.imbalance import row_shares
from fenlei.training.progress import Progress
from fenlei.training.promises import UnmetPromiseError
from fenlei.training.ranks import Ranks, alone_in, is_first, join
from fenlei.training.rates import ATTENTION_RATE
from fenlei.training.recorded import recorder_for
from fenlei.training.resume import TRAIN, Command, check_unchanged, recall, recall_order, remember, remember_order, way_on
from fenlei.training.selecting import evaluation_of
from fenlei.training.setbacks import Setbacks
from fenlei.training.setup import SMALLER, Setup, prepare
from fenlei.training.spread import make_whole, spread_by
from fenlei.training.state_files import load_weights
from fenlei.training.tracking import Trackers, names, naming_the_option, until_done
from fenlei.training.trainer import RowTrainer

T = TypeVar("T")


class TrainingInterrupted(FenleiError):
    """Training was asked to stop; a checkpoint was left."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    out: Path
    labels: tuple[str, ...]
    metrics: Metrics | MultiLabelMetrics
    """Of the saved model, calibrated, on the selecting rows of dev."""
    baseline: Metrics | MultiLabelMetrics | None
    """Of TF-IDF with a linear classifier, trained on the same rows, on the same selecting rows."""
    notes: tuple[str, ...]
    trainable: int
    parameters: int
    seconds: float
    test_data: str | Path | None
    """What to give `evaluate`: what holds the test rows, or those set aside for test; None where there are none."""


def train(
    data: Any = None,
    *,
    out: str | Path,
    model: str | None = None,
    config: RunConfig | None = None,
    head: str | nn.Module | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    trackers: Trackers | None = None,
    **options: Any,
) -> TrainResult:
    """Trains, calibrates, measures and saves; returns figures on the selecting rows of dev.

    `data`, and the options `dev` and `test`, are what the command line takes, or frames: pandas, polars, a Hugging Face dataset (for `data`
    also a DatasetDict with its splits), anything that speaks Arrow. Rows of frames are kept in the run's folder.

    `options` are those of fenlei.config by name and win over `config`. `head` is the option's `linear` or `mlp`, or a module of the
    user's own that maps float32 (rows, hidden) to (rows, labels). `announce` is told each choice before training starts, and each
    setback that it lives through. `trackers` are those that the caller has more to tell of the run afterwards. ConfigError, DataError,
    ModelError and ArtifactError come before anything is trained; TrainingInterrupted after Ctrl-C or SIGTERM, with a checkpoint that
    `resume` goes on from; DataError at the end, with the run whole, where its calibrating rows cannot promise what `target_accuracy` asks.
    """
    data, options, notes = keep_frames(Path(out), data, options, (config or RunConfig()).data, resume=resume)
    named = {key: str(value) for key, value in (("data", data), ("model", model)) if value is not None}
    own_head = head if isinstance(head, nn.Module) else None
    if head is not None and own_head is None:
        options["head"] = head
    config = (config or RunConfig()).overridden({**named, **options})
    return run_training(
        config, out, lambda given: prepare(given, head=own_head, notes=notes), report=lambda result, _: result,
        head=own_head, resume=resume, progress=progress, announce=announce, trackers=trackers,
    )  # fmt: skip


def run_training(
    config: RunConfig,
    out: str | Path,
    build: Callable[[RunConfig], Setup],
    *,
    report: Callable[[TrainResult, dict[str, Any]], T],
    command: Command = TRAIN,
    head: nn.Module | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    trackers: Trackers | None = None,
) -> T:
    """As `train`, of what `build` makes of the configuration (resumed: of the one that the run was begun with).

    `report` is given the result and the manifest before the run counts as complete, so that a complete run has its report; what it gives
    is returned.
    """
    began = time.monotonic()
    say: Callable[[str], None] = announce if announce and is_first() else lambda note: None
    folder = Path(out)
    with alone_in(folder):
        check_free(folder, resume=resume)
        start = starting_point(folder) if resume else None
        if resume:
            config = recall(folder, command, config)
        keep_freed_memory()
        ranks = join(config.optimization.device)
        setup = build(config)
        rests_on = setup.rests_on()
        if resume:
            check_unchanged(folder, rests_on)
        elif ranks.is_first:
            with saving(folder):
                remember(folder, command, config, rests_on)
        together = [f"{ranks.world} processes: each takes its share of a step's rows"] if ranks.world > 1 else []
        notes = (*(start.notes if start else ()), *setup.notes, *together)
        for note in notes:
            say(note)
        told: list[str] = []

        def tell(note: str) -> None:
            told.append(note)
            say(note)

        with until_done(trackers) as trackers:
            trackers.begin(config.optimization.report_to, folder, setup.config.to_options())
            history = _optimise(setup, ranks, folder, command, start, progress, tell)
            finished = ranks.from_first(lambda: finish(setup, folder, history, head=head))
            for note in finished.notes:
                say(note)
            result = TrainResult(
                folder, setup.dataset.labels.names, finished.metrics, finished.baseline, (*notes, *told, *finished.notes),
                setup.trainable, setup.parameters, time.monotonic() - began, _test_data(setup, folder),
            )  # fmt: skip
            reported = report(result, finished.manifest)
            ranks.from_first(lambda: complete(folder, finished.manifest))
            trackers.outcome("dev", finished.metrics, [folder / "README.md"])
    if finished.unmet is not None:
        unmet = f"{folder}: the run is whole, but without what cannot be promised: {finished.unmet}"
        raise UnmetPromiseError(unmet, reported) from finished.unmet
    return reported


def _test_data(setup: Setup, out: Path) -> str | Path | None:
    options = setup.config.data
    if not setup.dataset.test or options.data is None:
        return None
    return out / TEST_ROWS if options.test_ratio is not None else options.test or options.data


def _optimise(
    setup: Setup,
    ranks: Ranks,
    out: Path,
    command: Command,
    start: Start | None,
    progress: Callable[[Progress], None] | None,
    tell: Callable[[str], None],
) -> list[dict[str, Any]]:
    """Runs the loop; the weights that macro F1 on the selecting rows chooses are in the method afterwards. Returns the log history."""
    if setup.config.model.tuning == "none":
        return []
    options = setup.config.optimization
    stop = StopOnInterrupt(ranks)
    callbacks: list[Any] = [stop]
    if options.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(options.early_stopping_patience))
    if progress and ranks.is_first:
        callbacks.append(ProgressCallback(progress, setup.batch_size))
    if start is not None:
        state = TrainerState.load_from_json(str(start.checkpoint / STATE_FILE))
        if _is_over(state, setup):  # all steps were done, and what comes after them was cut off
            load_weights(setup.method, start.best)
            return list(state.log_history)
        if ranks.is_first:
            remove_newer(start.checkpoint)
    vectors, evaluation = states_to_learn_from(setup, tell, anew=start is None), evaluation_of(setup, ranks)
    with naming_the_option(options.report_to):
        trainer = RowTrainer(
            setup.method,
            _training_arguments(setup, ranks, out),
            encoded=setup.train,
            vectors=vectors,
            targets=setup.lessons.targets,
            evaluation=evaluation,
            selecting_rows=len(setup.selecting),
            batch_tokens=setup.batch_tokens,
            loss=setup.lessons.loss,
            autocast=setup.autocast,
            setbacks=Setbacks(lambda row: setup.rows[row].where, tell, may_halve=ranks.world == 1),
            ranks=ranks,
            shares=row_shares(options.imbalance, setup.label_ids),
            alike=None if start is None else recall_order(out),
            recorder=recorder_for(setup, ranks),
            attention_rate=ATTENTION_RATE if setup.solved else 1.0,
            callbacks=callbacks,
        )
    if start is None and ranks.is_first:
        remember_order(out, alike=trainer.alike)
    trainer.remove_callback(PrinterCallback)
    _keep_logs(trainer, out)
    with quiet_transformers(), stop.listening(), fitting(setup.device, SMALLER, "the training"):
        trainer.train(resume_from_checkpoint=None if start is None else str(start.checkpoint))
    trainer.stop_recording()
    step, steps = trainer.state.global_step, trainer.state.max_steps
    if stop.asked and step < steps:
        raise TrainingInterrupted(f"stopped after step {step} of {steps}; a checkpoint is left: go on with {way_on(command.name, out)}")
    if spread_by():
        make_whole(setup.method, keep=ranks.is_first)
    return list(trainer.state.log_history)


def _is_over(state: TrainerState, setup: Setup) -> bool:
    """Whether the loop ended at a checkpoint: at its last step, or where early stopping had lost patience.

    Trainer restores the count of evaluations without gain, but clears the wish to stop.
    """
    patience = setup.config.optimization.early_stopping_patience
    if patience is None or state.global_step >= setup.steps:
        return state.global_step >= setup.steps
    kept: Any = state.stateful_callbacks  # as read from a file, it holds what each callback had, by its name
    return bool(EarlyStoppingCallback.from_state(kept[EarlyStoppingCallback.__name__]).early_stopping_patience_counter >= patience)


def _keep_logs(trainer: RowTrainer, out: Path) -> None:
    """TensorBoard's files in the run's folder: its own choice are the checkpoints, which go at the end. TENSORBOARD_LOGGING_DIR wins."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = str(out / LOGS)


def _training_arguments(setup: Setup, ranks: Ranks, out: Path) -> TrainingArguments:
    options = setup.config.optimization
    steps = setup.steps
    between = max(1, min(steps, setup.steps_an_epoch) // options.evals_per_epoch)
    arguments = TrainingArguments(
        output_dir=str((out / CHECKPOINTS).resolve()),
        per_device_train_batch_size=setup.batch_size,
        max_steps=steps,
        learning_rate=float(options.learning_rate or 0.0),
        lr_scheduler_type="cosine",
        warmup_steps=min(steps - 1, math.ceil(steps * options.warmup_ratio)),  # the first step of a rise moves nothing
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        optim="adamw_torch_fused" if setup.device.type in ("cpu", "cuda") else "adamw_torch",
        fp16=setup.autocast == torch.float16,
        use_cpu=setup.device.type == "cpu" and spread_by() != "DEEPSPEED",  # which accelerate leaves out where a CPU is asked for
        ddp_backend="gloo" if ranks.world > 1 and setup.device.type == "cpu" else None,
        # All that learns is read in every forward pass, but in a model of texts and images, whose other parts learn too.
        ddp_find_unused_parameters=setup.method.stock.config.get_text_config() is not setup.method.stock.config,
        eval_strategy="steps",
        eval_steps=between,
        save_strategy="steps",
        save_steps=between,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="selection",
        restore_callback_states_from_checkpoint=True,
        greater_is_better=True,
        logging_steps=10,
        seed=options.seed,
        data_seed=options.seed,
        report_to=names(options.report_to),
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_nan_inf_filter=False,  # asks the GPU twice a step, and Setbacks sees to it
        remove_unused_columns=False,
    )
    arguments._n_gpu = min(1, arguments.n_gpu)  # torch's DataParallel cannot split our batches; torchrun is the way to many GPUs
    arguments.mixed_precision = "fp16" if arguments.fp16 else "no"  # else a launcher's wins, which wraps the network for good
    return arguments
