"""The optimisation loop: transformers.Trainer, fed with row numbers.

The one subclass of Trainer in the house. It differs in four places, each for a promise of the design:
  - a step's rows go through the network in groups under a token budget, and the loss is averaged over the step's rows, so that
    `batch_tokens` changes memory and speed and nothing else;
  - evaluation is the same code as prediction;
  - a checkpoint holds the weights that learn, and only those, whole, and is the same from any number of processes;
  - of several processes, each takes its share of every step's rows.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

from fenlei.artifact import COMPLETE
from fenlei.errors import ArtifactError
from fenlei.models.devices import is_out_of_memory
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.models.passages import frozen_states
from fenlei.text.batches import Batch, TrainingBatches, batch_of, by_token_budget, sent
from fenlei.text.encoded import EncodedTexts
from fenlei.training import zero
from fenlei.training.checkpoints import seal, unseal
from fenlei.training.lessons import Taught
from fenlei.training.objectives import Loss
from fenlei.training.ranks import Ranks
from fenlei.training.rates import with_own_rate
from fenlei.training.recorded import RecordedPasses, Recorder
from fenlei.training.row_numbers import Rows, in_batches
from fenlei.training.selection import kept_step
from fenlei.training.setbacks import Setbacks
from fenlei.training.spread import blocks, spread_by, spread_on_cpu
from fenlei.training.state_files import load_spread_optimizer, load_weights, save_spread_optimizer, save_weights


class RowTrainer(Trainer):
    """Trainer over row numbers; see the module for what differs."""

    def __init__(
        self,
        method: HeadMethod | GenerateMethod,
        args: TrainingArguments,
        *,
        encoded: EncodedTexts,
        vectors: np.ndarray | None,
        targets: torch.Tensor | Taught,
        evaluation: Callable[[Any], dict[str, float]],
        selecting_rows: int,
        batch_tokens: int,
        loss: Loss,
        autocast: torch.dtype | None,
        setbacks: Setbacks,
        ranks: Ranks,
        shares: np.ndarray | None = None,
        alike: bool | None = None,
        recorder: Recorder | None = None,
        attention_rate: float = 1.0,
        **rest: Any,
    ) -> None:
        # Trainer insists on an evaluation set; `evaluate` below knows its own.
        super().__init__(model=method, args=args, train_dataset=Rows(len(encoded)), eval_dataset=Rows(0), **rest)
        self._method = method
        self._encoded = encoded
        self._vectors = vectors
        self._lengths = encoded.lengths
        self._targets = targets
        self._evaluation = evaluation
        self._selecting_rows = selecting_rows
        self._batch_tokens = batch_tokens
        self._loss = loss
        self._setbacks = setbacks
        self._ranks = ranks
        self._shares = shares
        self._attention_rate = attention_rate
        self._step_rows: list[int] = []
        self._step_loss = torch.zeros(())  # this process's part of it, maybe no number
        # Cached states have no length, and packed rows no padding: only else are rows of a step to be alike, unless it was begun otherwise.
        packs = isinstance(method, HeadMethod) and method.train().packs(int(self._lengths.max()), args.device)  # where a spread one will be
        self.alike = (vectors is None and not packs) if alike is None else alike
        self._learning = [weight for weight in method.parameters() if weight.requires_grad]
        self._spread = spread_by()
        self._parts: list[dict[str, Any]] = []  # the optimiser's groups, as they are before DeepSpeed takes them
        if self._spread == "FSDP":
            plugin = self.accelerator.state.fsdp_plugin
            plugin.transformer_cls_names_to_wrap = plugin.transformer_cls_names_to_wrap or blocks(method.stock)
        elif self._spread == "DEEPSPEED":
            zero.set_up(self.accelerator.state.deepspeed_plugin, autocast)
        if self._spread and isinstance(method, GenerateMethod):
            method.in_step = True
        # Not Trainer's bf16: that wraps the network for good, and evaluation would no longer be what prediction is.
        self._compute_in = autocast
        self._recorded = None if recorder is None else RecordedPasses(self._read_uncached, method, method.pad_id, recorder, setbacks.tell)

    def create_accelerator_and_postprocess(self) -> None:
        super().create_accelerator_and_postprocess()
        if spread_by() == "FSDP":
            spread_on_cpu(self.accelerator.state)
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        batches = TrainingBatches(self._lengths, self._train_batch_size, self.args.seed, self._shares, alike=self.alike)
        return in_batches(cast(Any, self.train_dataset), batches)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As Trainer does. What it forgets after each step is known, and need not be looked for in the whole network either."""
        network = cast(Any, self._method)
        if self._spread is None:
            network.zero_grad = self._forget_gradients
        try:
            return super().train(*args, **kwargs)
        finally:
            vars(network).pop("zero_grad", None)  # or else the weights could not be given back once they are saved

    def _forget_gradients(self) -> None:
        for weight in self._learning:
            weight.grad = None

    def training_step(self, model: torch.nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """One optimiser step's gradients; the mean loss of its rows. Where memory runs out, once more with half the tokens at once."""
        if not self._method.training:  # a walk over two thousand modules
            model.train()
        rows = self._step_rows = inputs["rows"].tolist()
        while True:
            try:
                return self._gradients(model, rows)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
            # Here, not above: while the error is handled, its traceback holds the memory of the failed step.
            self._batch_tokens = self._setbacks.take_less(self._batch_tokens)
            self.stop_recording()
            model.zero_grad()

    def _gradients(self, model: torch.nn.Module, rows: list[int]) -> torch.Tensor:
        total = torch.zeros((), device=self.args.device)
        own, turns = self._groups(rows)
        # Gradients of several processes are averaged, where the mean over the rows of all is wanted.
        scale = self._ranks.world / len(rows)
        for turn in range(turns):
            group = own[turn] if turn < len(own) else rows[:1]
            gold = self._gold(group)
            with self._gradients_stay_here(model, turn < turns - 1):
                loss = self._loss(self._logits(model, group), gold) * (scale if turn < len(own) else 0.0)
                self.accelerator.backward(loss)
            total += loss.detach()
        self._step_loss = total
        return total.nan_to_num(0.0, 0.0, 0.0)  # of a step that is left out: the mean that is shown must not suffer from it

    def _groups(self, rows: list[int]) -> tuple[list[list[int]], int]:
        """This process's groups of rows, and how many turns all take: networks whose weights are spread over processes run in step."""
        world = range(self._ranks.world)
        shares = [self._ranks.share(rows, self._lengths, rank) for rank in world]
        groups = [list(by_token_budget(self._lengths, share, self._batch_tokens)) for share in shares]
        return groups[self._ranks.rank], max(map(len, groups))

    def _gradients_stay_here(self, model: torch.nn.Module, more_follow: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, with the last group; spread ones with every group, to keep no more than their part."""
        if self._spread == "DEEPSPEED":  # which takes the optimiser's step with them
            self.accelerator.gradient_state._set_sync_gradients(not more_follow)
        together = self._ranks.world > 1 and more_follow and not self._spread
        return cast("AbstractContextManager[Any]", self.accelerator.no_sync(model)) if together else nullcontext()

    def _logits(self, model: torch.nn.Module, rows: list[int]) -> torch.Tensor:
        if self._vectors is not None:
            return cast(torch.Tensor, model(frozen_states(self._vectors, self._encoded, rows)).logits)
        batch = batch_of(self._encoded, rows, self._method.pad_id, self._batch_tokens)
        if self._recorded is not None and (replayed := self._recorded.logits(batch)) is not None:
            return replayed
        with self._autocast():
            return cast(torch.Tensor, model(batch).logits)

    def stop_recording(self) -> None:
        """Gives back the memory that short steps are replayed in; from now on they are launched."""
        if self._recorded is not None:
            self._recorded.stop()
            self._recorded = None  # it holds the trainer, which holds the optimiser: together they would wait for the garbage collector

    def _read_uncached(self, batch: Batch) -> torch.Tensor:
        """The logits; weights are cast anew each time, for what is recorded must be."""
        with torch.autocast(self.args.device.type, self._compute_in, enabled=self._compute_in is not None, cache_enabled=False):
            return cast(torch.Tensor, self._method(batch).logits)

    def _gold(self, rows: list[int]) -> Any:
        """What is known of these rows, for the loss."""
        known = self._targets[rows]
        return sent(known, self.args.device) if isinstance(known, torch.Tensor) else known.to(self.args.device)

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        """Of what learns: it is known, and need not be looked for in the whole network, unless an engine has spread it anew."""
        if self._spread is not None:
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        return self.accelerator.clip_grad_norm_(self._learning, self.args.max_grad_norm)

    def _get_grad_norm(self, model: torch.nn.Module, grad_norm: Any = None) -> Any:
        """Where the gradients are no numbers they are dropped: a step without any moves no weight."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        if math.isfinite(float(norm)):
            self._setbacks.went_well()
            return norm
        # In float16 it may be that gradients were scaled too far, which their scaler sees to; the loss itself is not scaled.
        if not self.args.fp16 or self._ranks.any(not math.isfinite(float(self._step_loss))):
            self._setbacks.skip(self._step_rows, self.state.global_step + 1, taken=self._spread == "DEEPSPEED")
            model.zero_grad()
        return None  # not into the log, which is to be JSON

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Figures on the selecting rows, under the names Trainer keeps its best checkpoint by."""
        self._method.eval()
        metrics = {f"eval_{name}": value for name, value in self._evaluation(self._method).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As Trainer does, for early stopping; but which checkpoint is kept, training/selection.py says."""
        is_higher: bool = super()._determine_best_metric(metrics, trial)
        self.state.best_global_step = kept_step(self.state.log_history, self._selecting_rows)
        return is_higher

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        """Whole, with a mark that says so, or not at all."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        try:
            if self._ranks.is_first:
                unseal(folder)
            self._ranks.wait()
            super()._save_checkpoint(model, trial)
            self._ranks.wait()
            if self._ranks.is_first:
                seal(folder)
        except (OSError, RuntimeError, SafetensorError) as error:  # torch.save gives a RuntimeError where the disk is full
            raise ArtifactError(f"{folder}: could not be saved ({error}); free some space, then continue with --resume") from error
        finally:
            if self._ranks.is_first and not (folder / COMPLETE).exists():
                shutil.rmtree(folder, ignore_errors=True)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The weights that learn, whole."""
        save_weights(self._method, Path(output_dir or cast(str, self.args.output_dir)), writes=self._ranks.is_first)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        optimizer = super().create_optimizer(model)
        # Adapters have no group without weight decay; DeepSpeed would leave an empty one out, and its checkpoints would not fit.
        groups = [group for group in optimizer.param_groups if group["params"]]
        if isinstance(self._method, HeadMethod) and self._method.pooling is not None and self._attention_rate != 1.0:
            groups = with_own_rate(groups, self._method.pooling, self._attention_rate)
        optimizer.param_groups[:] = groups
        if self._spread == "DEEPSPEED":
            self._parts = [dict(group) for group in optimizer.param_groups]
        return optimizer

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """As Trainer does; but Trainer would look for a checkpoint of DeepSpeed's own."""
        ours = resume_from_checkpoint if self._spread == "DEEPSPEED" else None
        theirs = None if ours else resume_from_checkpoint
        prepared = super()._prepare_for_training(max_steps, train_dataloader, theirs)  # type: ignore[no-untyped-call]
        if ours:
            self._load_from_checkpoint(ours)
            self._load_optimizer_and_scheduler(ours)
        return prepared

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        if self._spread is None:
            super()._save_optimizer_and_scheduler(output_dir)
        else:
            save_spread_optimizer(self.optimizer, self.lr_scheduler, self._parts, Path(output_dir), writes=self._ranks.is_first)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if self._spread is None or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)
        else:
            load_spread_optimizer(self.optimizer, self.lr_scheduler, self._parts, Path(checkpoint))

    def _load_scaler(self, checkpoint: str | None) -> None:
        """Of a training begun in float16, which may go on where there is none."""
        super()._load_scaler(checkpoint if self.args.fp16 else None)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        load_weights(self._method, Path(resume_from_checkpoint))

    def _load_best_model(self) -> None:
        best = Path(cast(str, self.state.best_model_checkpoint)).name  # by its name: the run's folder may have moved since
        load_weights(self._method, Path(cast(str, self.args.output_dir)) / best)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self._compute_in is None:
            return nullcontext()
        return torch.autocast(self.args.device.type, self._compute_in, cache_enabled=self._spread is None)  # copies would not be spread
