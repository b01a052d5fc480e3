"""What happens between two optimiser steps: progress is told, and an interruption becomes a checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from fenlei.training.progress import Progress
from fenlei.training.ranks import Ranks


class ProgressCallback(TrainerCallback):
    """Tells `report` of every step; loss is the mean since the last log."""

    def __init__(self, report: Callable[[Progress], None], rows_per_step: int) -> None:
        self._report = report
        self._rows_per_step = rows_per_step
        self._loss: float | None = None

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._began, self._first_step, self._evaluating = time.monotonic(), state.global_step, 0.0
        self._last = self._began

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        logs: dict[str, float] = kwargs.get("logs") or {}
        self._loss = logs.get("loss", self._loss)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last = time.monotonic()
        self._tell(state, None)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Evaluation is no training: it must not slow down the rate that the time left is computed from.
        self._evaluating += time.monotonic() - self._last
        figures = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        shown = {name: figures[name] for name in ("accuracy", "micro_f1", "macro_f1", "loss") if name in figures}
        self._tell(state, shown, figures["selection"])

    def _tell(self, state: TrainerState, metrics: dict[str, float] | None, selection: float | None = None) -> None:
        done = state.global_step - self._first_step
        seconds = max(1e-9, time.monotonic() - self._began - self._evaluating)
        steps_a_second = done / seconds
        left = (state.max_steps - state.global_step) / steps_a_second if done else None
        self._report(
            Progress(
                step=state.global_step,
                steps=state.max_steps,
                epoch=state.epoch or 0.0,
                loss=self._loss,
                rows_per_second=steps_a_second * self._rows_per_step,
                seconds_left=left,
                metrics=metrics,
                selection=selection,
            )
        )


class StopOnInterrupt(TrainerCallback):
    """Ends training after the current step, with a checkpoint, once the process was asked to stop (Ctrl-C, SIGTERM)."""

    def __init__(self, ranks: Ranks) -> None:
        self.asked = False
        self._ranks = ranks

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.asked = self._ranks.any(self.asked)  # all end after the same step
        if self.asked:
            control.should_save = True
            control.should_training_stop = True

    @contextmanager
    def listening(self) -> Iterator[None]:
        """While this holds, the first signal only asks; a second one ends the process as usual."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: Any) -> None:
            self.asked = True
            signal.signal(number, before[signal.Signals(number)])

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
