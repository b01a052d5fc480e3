"""From a labelled file and a model's name to a run's folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import EarlyStoppingCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import get_last_checkpoint

from fenlei.artifact import claim_folder, saving
from fenlei.config import RunConfig
from fenlei.errors import FenleiError
from fenlei.evaluation.calibration import probabilities
from fenlei.evaluation.metrics import Metrics, compute_metrics
from fenlei.inference.scoring import score
from fenlei.models.backbone import is_decoder
from fenlei.models.head import HeadMethod
from fenlei.text.prompts import EncodedTexts
from fenlei.training.allocator import keep_freed_memory
from fenlei.training.callbacks import ProgressCallback, StopOnInterrupt
from fenlei.training.finish import finish
from fenlei.training.progress import Progress
from fenlei.training.setup import Setup, prepare
from fenlei.training.trainer import RowTrainer
from fenlei.training.vectors import cached_vectors


class TrainingInterrupted(FenleiError):
    """Training was asked to stop; a checkpoint was left."""


@dataclass(frozen=True)
class TrainResult:
    """A finished run."""

    out: Path
    labels: tuple[str, ...]
    metrics: Metrics
    """Of the saved model, calibrated, on the selecting rows of dev."""
    baseline: Metrics | None
    """Of TF-IDF with a linear classifier, trained on the same rows, on the same selecting rows."""
    notes: tuple[str, ...]
    trainable: int
    parameters: int
    seconds: float


def train(
    data: str | Path | None = None,
    *,
    out: str | Path,
    model: str | None = None,
    config: RunConfig | None = None,
    head: str | nn.Module | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    **options: Any,
) -> TrainResult:
    """Trains, calibrates, measures and saves; returns figures on the selecting rows of dev.

    `options` are those of fenlei.config by name and win over `config`. `head` is the option's `linear` or `mlp`, or a module of the
    user's own that maps float32 (rows, hidden) to (rows, labels). `announce` is told each choice before training starts. ConfigError,
    DataError, ModelError and ArtifactError come before anything is trained; TrainingInterrupted after Ctrl-C, with a checkpoint that
    `resume` goes on from.
    """
    began = time.monotonic()
    named = {key: str(value) for key, value in (("data", data), ("model", model)) if value is not None}
    own_head = head if isinstance(head, nn.Module) else None
    if head is not None and own_head is None:
        options["head"] = head
    config = (config or RunConfig()).replace(**named, **options)
    folder = Path(out)
    claim_folder(folder, resume=resume)
    keep_freed_memory()
    setup = prepare(config, head=own_head)
    for note in setup.notes:
        if announce:
            announce(note)
    history = _optimise(setup, folder, resume, progress)
    finished = finish(setup, folder, history, head=own_head)
    return TrainResult(
        folder, setup.dataset.labels.names, finished.metrics, finished.baseline, (*setup.notes, *finished.notes),
        setup.trainable, setup.parameters, time.monotonic() - began,
    )  # fmt: skip


def _optimise(setup: Setup, out: Path, resume: bool, progress: Callable[[Progress], None] | None) -> list[dict[str, Any]]:
    """Runs the loop; the best weights by macro F1 on the selecting rows are in the method afterwards. Returns the log history."""
    options = setup.config.optimization
    stop = StopOnInterrupt()
    callbacks: list[Any] = [stop]
    if options.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(options.early_stopping_patience))
    if progress:
        callbacks.append(ProgressCallback(progress, setup.batch_size))
    trainer = RowTrainer(
        setup.method,
        _training_arguments(setup, out),
        encoded=setup.train,
        vectors=_vectors(setup, setup.train),
        label_ids=setup.label_ids,
        evaluation=_evaluation(setup),
        batch_tokens=options.batch_tokens,
        label_smoothing=options.label_smoothing,
        callbacks=callbacks,
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = get_last_checkpoint(str(out / "checkpoints")) if resume else None
    with saving(out / "checkpoints"), stop.listening():
        trainer.train(resume_from_checkpoint=checkpoint)
    if stop.asked:
        step = trainer.state.global_step
        raise TrainingInterrupted(
            f"stopped after step {step} of {trainer.state.max_steps}; a checkpoint is left: continue with --resume --out {out}"
        )
    return list(trainer.state.log_history)


def _training_arguments(setup: Setup, out: Path) -> TrainingArguments:
    options = setup.config.optimization
    steps = setup.steps
    between = max(1, min(steps, setup.steps_an_epoch) // options.evals_per_epoch)
    return TrainingArguments(
        output_dir=str(out / "checkpoints"),
        per_device_train_batch_size=setup.batch_size,
        max_steps=steps,
        learning_rate=float(options.learning_rate or 0.0),
        lr_scheduler_type="cosine",
        warmup_steps=math.ceil(steps * options.warmup_ratio),
        weight_decay=options.weight_decay,
        max_grad_norm=options.max_grad_norm,
        optim="adamw_torch_fused" if setup.device.type in ("cpu", "cuda") else "adamw_torch",
        bf16=setup.autocast == torch.bfloat16,
        fp16=setup.autocast == torch.float16,
        use_cpu=setup.device.type == "cpu",
        eval_strategy="steps",
        eval_steps=between,
        save_strategy="steps",
        save_steps=between,
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="macro_f1",
        greater_is_better=True,
        logging_steps=10,
        seed=options.seed,
        data_seed=options.seed,
        report_to=[name.strip() for name in options.report_to.split(",")],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
    )


def _evaluation(setup: Setup) -> Callable[[HeadMethod], dict[str, float]]:
    """Figures on the selecting rows, uncalibrated, of the weights as they are."""
    labels = setup.dataset.labels
    gold = np.array(labels.ids([str(example.label) for example in setup.dataset.selecting]))
    autocast = setup.autocast if setup.precision.weights != torch.float32 else None
    vectors = _vectors(setup, setup.selecting)

    def evaluate(method: HeadMethod) -> dict[str, float]:
        if vectors is not None:
            with torch.inference_mode():
                logits = method.classify(torch.from_numpy(np.array(vectors))).cpu().numpy()
        else:
            logits = score(method, setup.selecting, len(labels), autocast=autocast).logits
        metrics = compute_metrics(gold, probabilities(logits), labels)
        return {"accuracy": metrics.accuracy, "macro_f1": metrics.macro_f1, "loss": metrics.log_loss}

    return evaluate


def _vectors(setup: Setup, encoded: EncodedTexts) -> np.ndarray | None:
    """What a frozen decoder says of every row; None where the backbone learns, or pools in ways of its own."""
    if setup.config.model.tuning != "frozen" or not is_decoder(setup.method.stock):
        return None
    return cached_vectors(setup.method, setup.base, encoded)
