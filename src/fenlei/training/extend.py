"""New classes for a finished run, without starting over.

The run's weights are gone on with, its head grown by rows; what is learned are the new classes' rows, a replay of known ones, and what the
run said of both before (Li and Hoiem 2016, Learning without Forgetting; Rebuffi et al. 2017, iCaRL).
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fenlei.artifact import MANIFEST, fingerprint, read_json, read_manifest, write_text
from fenlei.config import RunConfig
from fenlei.data.columns import learned_from
from fenlei.data.examples import Rows
from fenlei.data.extension import class_file_names, columns_of_old, load_extension, read_rows, refuse_unread
from fenlei.data.former_labels import FORMER_LABELS, former_labels
from fenlei.data.label_ids import may_hold_ids, with_names
from fenlei.data.labelling import Labelling
from fenlei.errors import ConfigError, DataError
from fenlei.evaluation.calibration import Calibration
from fenlei.inference.loading import load_run
from fenlei.inference.trust import load_trust
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_tokenizer
from fenlei.models.head import HeadMethod
from fenlei.text.instructions import Instruction
from fenlei.training.exemplars import load_exemplars
from fenlei.training.extension_dev import dev_is_natural, dev_may_have_trained, with_own_dev
from fenlei.training.extension_report import ASKED, Cost, Extension, card_section, compared
from fenlei.training.fit import TrainResult, run_training
from fenlei.training.former_answers import as_it_learns, former_answers
from fenlei.training.growth import settle_new_rows, take_over
from fenlei.training.held_out import DEV, TEST, files_read, lines_of, rows_of, untold_test_rows
from fenlei.training.lessons import Lessons, taught, taught_loss
from fenlei.training.objectives import choose_loss
from fenlei.training.progress import Progress
from fenlei.training.ranks import is_first
from fenlei.training.replay_prior import classes_before, counts_of_all, prior_of_replay, under_prior
from fenlei.training.resume import Command
from fenlei.training.setup import Setup, prepare
from fenlei.training.spread import spread_by

REPORT = "extension.json"
ENOUGH_STEPS, LARGEST_BATCH, LEAST_BATCH, MOST_EPOCHS = 100, 32, 8, 10
"""One pass over the rows in this many optimiser steps or more is enough for weights that have learned the task already."""
COST, MOST_OVER_MANY = 0.25, 3
"""Over many rows there are more passes, up to MOST_OVER_MANY, as long as all costs no more than this share of training again on all rows:
what the known classes were given, new ones need too."""
ANEW = ("learning_rate", "batch_size", "batch_tokens", "epochs", "max_steps", "early_stopping_patience")
"""Options of the run that were right for learning from nothing, or on the machine of that time."""
KEPT = ("prompt", "shots")
"""Options of the run that cannot be others: what it said before is asked, and learned from, under the prompt that it knows."""


def extend(
    run: str | Path,
    new_data: str | Path,
    *,
    out: str | Path,
    replay: str | Path | Sequence[str | Path] | None = None,
    resume: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[str], None] | None = None,
    **options: Any,
) -> Extension:
    """A run over the labels of `run` and those of `new_data`, in `out`; `run` stays as it is.

    `replay`: labelled rows of known classes, in one file or several, of which as many are taken as there are new rows; else the exemplars
    that the run keeps.
    `options` are those of fenlei.config by name, beside what the run was trained with. The report is `extension.json` in the new folder,
    and in its README.md. DataError where new rows are of known classes or replayed ones of others, and where there is nothing to replay;
    ConfigError for runs whose head cannot grow; else the errors of `train`.
    """
    if spread_by():
        raise ConfigError("extend asks the whole network before it trains, and FSDP and DeepSpeed spread it; launch with torchrun")
    folder = Path(run)
    manifest = read_manifest(folder)
    _refuse_what_cannot_grow(folder, manifest, options.get("tuning") or manifest["tuning"])
    config = _extended_config(folder, new_data, options)
    known = LabelSet(tuple(manifest["labels"]))
    rows = _replayed(folder, replay, config, known, learned_from(manifest)["usual_text"])
    started: list[_Start] = []

    def build(given: RunConfig) -> Setup:
        setup, start = _build(folder, manifest, given, rows, known)
        started.append(start)
        return setup

    def report(training: TrainResult, extended: dict[str, Any]) -> Extension:
        start, trust = started[0], load_trust(training.out, extended)
        cost = replace(start.cost, seconds=start.cost.seconds + _learning_seconds(training.out))
        result = compared(training, known, start.before, trust, cost, row_candidates=bool(extended.get("row_candidates")))
        if is_first():
            write_text(training.out / REPORT, json.dumps(result.to_json(), ensure_ascii=False, indent=2) + "\n")
            card = training.out / "README.md"
            write_text(card, card.read_text(encoding="utf-8") + card_section(result))
        return result

    command = Command("extend", folder)
    return run_training(config, out, build, command=command, report=report, resume=resume, progress=progress, announce=announce)


@dataclass(frozen=True)
class _Start:
    """What was known before the first step."""

    before: dict[str, np.ndarray]
    """By part of dev: ids that the run answered, int64 (rows,)."""
    cost: Cost
    """Its seconds are those in which the run was asked."""


def _refuse_what_cannot_grow(run: Path, manifest: dict[str, Any], tuning: str) -> None:
    if manifest["head"] == "custom":
        raise ConfigError(f"{run}: a head of your own knows its number of labels alone; train again with a larger one")
    if manifest.get("merged"):
        raise ConfigError(
            f"{run}: its labels were merged, each now a sum of outputs; train again on rows that have the labels as they are now"
        )
    if Labelling.from_json(manifest).multi_label:
        raise ConfigError(
            f"{run}: gives several labels a text; rows of new classes say nothing of its old ones, so train again on all rows"
        )
    if tuning == "qlora":
        raise ConfigError(
            f"{run}: its adapters (QLoRA) lie over weights in 4 bits, which cannot be gone on with; train again on all rows, or go on over "
            "the base model as it is, where that fits into memory: extend(..., tuning='lora') from Python"
        )
    if tuning not in (manifest["tuning"], "lora" if manifest["tuning"] == "qlora" else None):
        raise ConfigError(
            f"tuning {tuning!r}: {run} goes on as it was trained, {manifest['tuning']!r}, for its weights are stored so; leave it out"
        )


def _extended_config(run: Path, new_data: str | Path, options: dict[str, Any]) -> RunConfig:
    before, usual = RunConfig.from_yaml(run / "config.yaml").to_options(), RunConfig().to_options()
    anew = {key: usual[key] for key in ANEW}
    files = dict.fromkeys(("class_file", "dev", "test", "test_ratio"))  # dev_ratio stays: new rows give dev the share that known ones gave
    given = {key: value for key, value in options.items() if value is not None}
    refuse_unread(given)
    changed = next((key for key in KEPT if given.get(key, before[key]) != before[key]), None)
    if changed is not None:
        raise ConfigError(f"{changed}: a run goes on with the prompt that it was trained with; leave it out, or train again on all rows")
    # A baseline would be fitted on the few rows that are replayed, and look worse than one that has seen what the run has seen.
    kept = {**before, **anew, **files, "baseline": False}
    return RunConfig().replace(**kept).overridden({"data": str(new_data), **given})  # of the run's own options none counts as given


def _replayed(
    run: Path, replay: str | Path | Sequence[str | Path] | None, config: RunConfig, known: LabelSet, usual_text: Sequence[str]
) -> Rows:
    if replay is not None:
        files = [replay] if isinstance(replay, str | Path) else replay
        return tuple(row for file in files for row in read_rows(file, config.data, usual_text=usual_text))
    kept = load_exemplars(run)
    if not kept:
        raise DataError(
            f"{run}: keeps no rows of its {len(known)} classes, which it would forget over new ones; give labelled rows of them with "
            "--replay, such as the file it was trained on (a run trained with --store-exemplars needs none)"
        )
    return kept


def _build(run: Path, manifest: dict[str, Any], config: RunConfig, replay: Rows, known: LabelSet) -> tuple[Setup, _Start]:
    """The grown network, ready to go on learning, and what the run said before."""
    holds_ids = _holds_ids(run, manifest, config, known)
    replay = with_names(replay, known, holds_ids)
    setup = _prepared(run, manifest, config, replay, known, holds_ids)
    loaded = load_run(run, device="cpu", fold=True)  # in float32, the adapters apart
    grown = take_over(setup.method, loaded.method, len(known), len(setup.dataset.labels))
    del loaded
    began = time.monotonic()
    answered = Calibration.from_json(manifest)
    with as_it_learns(setup.method):
        said = former_answers(setup, answered, known, setup.dataset.train, setup.train)
    before = {
        name: former_answers(setup, answered, known, rows).logits.argmax(axis=1)
        for name, rows in (("selecting", setup.dataset.selecting), ("calibrating", setup.dataset.calibrating))
    }
    of_all = counts_of_all(setup.class_counts, known, replay, _learned_before(run, manifest)[0], classes_before(manifest))
    evenly = setup.config.optimization.imbalance == "balanced-sampling"  # classes come alike, and are to be taken so
    prior = prior_of_replay(of_all if evenly else setup.class_counts, of_all)
    if grown and said.pooled is not None and isinstance(setup.method, HeadMethod):
        settle_new_rows(setup.method, grown, said.pooled, setup.label_ids, len(known), prior)
    new = sum(row.label not in known for row in setup.dataset.train)
    cost = _cost(run, manifest, setup, new, time.monotonic() - began)
    label_ids, alone = torch.from_numpy(setup.label_ids), choose_loss(setup.config, of_all)
    by_answer = setup.config.model.objective == "tokens"  # whose loss sees the right label alone
    natural = dev_is_natural(setup, manifest, of_all)
    origin = _origin(run, manifest, known, cost, label_ids=any(holds_ids(source) for source in {row.source for row in replay}))
    origin |= {"dev_is_natural": natural, "dev_may_have_trained": dev_may_have_trained(setup, manifest)}
    origin |= {"all_classes": dict(zip(setup.dataset.labels, of_all.tolist(), strict=True))}
    lessons = Lessons(
        label_ids if by_answer else taught(label_ids, torch.from_numpy(said.logits)),
        alone if by_answer else taught_loss(under_prior(alone, prior)),
        known=len(known),
        dev_is_natural=natural,
        exemplars=load_exemplars(run) if config.data.store_exemplars is not None else (),
        origin={**columns_of_old(manifest, config.data), "extended_from": origin},
    )
    return replace(setup, lessons=lessons, solved=False), _Start(before, cost)  # the head begins as the run's


def _prepared(
    run: Path, manifest: dict[str, Any], config: RunConfig, replay: Rows, known: LabelSet, holds_ids: Callable[[str], bool]
) -> Setup:
    """The network over all labels, its new weights as they come, and the rows that it is to learn from."""
    instruction = Instruction.from_json(manifest["prompt"], manifest["instruction"]) if manifest["method"] == "generate" else None
    shown = {text for text, _ in instruction.examples} if instruction else set()
    replay, left_out = _untested(run, manifest, replay)
    if config.data.dev is None:
        replay = with_own_dev(replay, manifest, RunConfig.from_yaml(run / "config.yaml").data, known, holds_ids)
    replay = tuple(row for row in replay if row.text not in shown)  # the prompt has the answer to these
    was_dev = [rows_of(manifest, part) for part in DEV]
    dataset = load_extension(
        config.data, known, replay, was_dev,
        seed=config.optimization.seed, holds_ids=holds_ids, usual_text=learned_from(manifest)["usual_text"],
    )  # fmt: skip
    dataset = replace(dataset, labelling=Labelling.from_json(manifest), notes=(*left_out, *dataset.notes))
    if instruction is not None:
        instruction = instruction.with_notes(dataset.label_notes)
    rows, epochs = _learned_before(run, manifest)
    rows += sum(row.label not in known for row in dataset.train)
    config = _with_passes(config, len(dataset.train), COST * rows * epochs / len(dataset.train) - ASKED)
    return prepare(config, dataset=dataset, instruction=instruction, tokenizer=load_tokenizer(run / "model"))


def _untested(run: Path, manifest: dict[str, Any], replay: Rows) -> tuple[Rows, list[str]]:
    """The replay without the rows that are to test the run, and what is said of them."""
    was_test = rows_of(manifest, TEST)
    kept = tuple(row for row in replay if not was_test(row))
    if not kept:
        raise DataError(f"{run}: every row of the replay is one of its test rows, from which nothing is to be learned; give others")
    told = [] if kept == load_exemplars(run) else untold_test_rows(run, manifest, kept)  # exemplars were chosen from rows that train
    left_out = len(replay) - len(kept)
    return kept, [*told, *([f"{left_out:,} rows of the replay are test rows of the run, and are left out"] if left_out else [])]


def _holds_ids(run: Path, manifest: dict[str, Any], config: RunConfig, known: LabelSet) -> Callable[[str], bool]:
    """Whether a file may have ids: where it might have when the run was trained, or the class file given now has all names."""
    trained = RunConfig.from_yaml(run / "config.yaml").data
    told = tuple(class_file_names(config.data))
    return cache(lambda source: told[: len(known)] == known.names or may_hold_ids(source, known, trained, manifest))


def _origin(run: Path, manifest: dict[str, Any], known: LabelSet, cost: Cost, *, label_ids: bool) -> dict[str, Any]:
    """What the manifest says of the run that it comes from."""
    told = {"run": str(run), "manifest": fingerprint(run / MANIFEST), "known_labels": len(known), "label_ids": label_ids}
    cost_of_all = {"all_rows": cost.retraining_rows, "all_epochs": cost.retraining_epochs}
    rows = {"files": sorted(files_read(manifest)), TEST: lines_of(manifest, TEST)}
    return {**told, **cost_of_all, **rows, FORMER_LABELS: former_labels(manifest)}


def _with_passes(config: RunConfig, rows: int, affordable: float) -> RunConfig:
    """As many passes over many rows as are `affordable`, in quarters; smaller steps, then more passes, over few."""
    options = config.optimization
    if config.model.tuning in ("frozen", "none") or options.max_steps is not None:
        return config
    size = options.batch_size or LARGEST_BATCH
    while options.batch_size is None and size > LEAST_BATCH and rows / size < ENOUGH_STEPS:
        size //= 2
    needed = min(MOST_EPOCHS, math.ceil(ENOUGH_STEPS * size / rows))
    epochs = options.epochs or max(1.0, needed, min(MOST_OVER_MANY, math.floor(4 * affordable) / 4))
    return config.replace(batch_size=size, epochs=float(epochs))


def _learned_before(run: Path, manifest: dict[str, Any]) -> tuple[int, float]:
    """The rows that a run has learned from, without those replayed, and the passes over them when it was trained."""
    earlier = manifest.get("extended_from")
    if earlier:
        return int(earlier["all_rows"]), float(earlier["all_epochs"])
    rows, options = int(manifest["data"]["rows"]["train"]), RunConfig.from_yaml(run / "config.yaml").optimization
    if options.max_steps is not None and options.batch_size is not None:
        return rows, options.max_steps * options.batch_size / rows
    return rows, options.epochs or 1.0


def _cost(run: Path, manifest: dict[str, Any], setup: Setup, new: int, seconds: float) -> Cost:
    """What is learned here, and what training on all rows would be."""
    rows, epochs = _learned_before(run, manifest)
    trained = 0.0 if setup.config.model.tuning == "none" else setup.steps * setup.batch_size / len(setup.train)
    return Cost(new, len(setup.train) - new, trained, seconds, rows + new, epochs)


def _learning_seconds(out: Path) -> float:
    """Of the training loop, as its history has it."""
    history = read_json(out / "metrics.json")["history"]
    return float(next((entry["train_runtime"] for entry in reversed(history) if "train_runtime" in entry), 0.0))
