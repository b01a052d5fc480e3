"""The end of a run: weights saved, loaded back, calibrated, measured beside the baseline, and described.

What is measured is what was written: the figures come from the run loaded from disk, not from the network in memory.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from fenlei.artifact import CHECKPOINTS, fingerprint, library_versions, whole_folder, write_manifest, write_text
from fenlei.config.model import ADAPTERS
from fenlei.data.columns import LABEL_COLUMN, READ_FROM
from fenlei.data.examples import Example, candidates_of
from fenlei.data.jsonvalues import to_json
from fenlei.errors import DataError
from fenlei.evaluation.figures import AnyMetrics, figures_of
from fenlei.inference.baseline import baseline_answers, calibrate_baseline
from fenlei.inference.checksums import checksums
from fenlei.inference.loading import HEAD_FILE, POOLING_FILE, encode_examples, load_run_from
from fenlei.inference.scoring import Scores, score
from fenlei.inference.trust import DevScores, save_novelty, save_scores
from fenlei.models.backbone import in_head, is_decoder, quiet_transformers
from fenlei.models.baseline import Baseline
from fenlei.models.fingerprint import weights_fingerprint
from fenlei.models.generate import GenerateMethod
from fenlei.models.head import HeadMethod
from fenlei.models.hub import is_local, local_file, resolved_revision
from fenlei.text.asking import QuestionEncoder
from fenlei.text.pairs import told_columns
from fenlei.text.windows import WINDOWED
from fenlei.training.exemplars import choose_exemplars, save_exemplars
from fenlei.training.frozen import states_are_kept
from fenlei.training.held_out import DEV, TEST, TEST_ROWS, lines_by_file
from fenlei.training.model_card import describe
from fenlei.training.promises import LEAST_CALIBRATING_ROWS, KnownRows, ScoreRows, make_promises
from fenlei.training.selection import kept_step
from fenlei.training.setup import Setup
from fenlei.training.vectors import score_frozen

LENGTH_RULES = {
    "truncate": "the text is cut at its end",
    "full": "the text is cut at its end",
    "head-tail": "the text is cut in its middle",
    "windows": "the text is read in overlapping windows, joined by attention",
    "mean": "the text is read in overlapping windows, joined by their mean",
    "max": "the text is read in overlapping windows, joined by their maximum",
}


@dataclass(frozen=True)
class Finished:
    """What is known of a run once it is on disk."""

    metrics: AnyMetrics
    baseline: AnyMetrics | None
    notes: tuple[str, ...]
    unmet: DataError | None
    """Why a promise that was asked for cannot be made; the run is whole without it."""
    manifest: dict[str, Any]
    """What `complete` writes."""


def finish(setup: Setup, out: Path, history: list[dict[str, Any]], *, head: nn.Module | None) -> Finished:
    """Writes the run's folder but for the manifest."""
    with whole_folder(out / "model") as folder, quiet_transformers():
        _save_model(setup, folder)
    # The run is loaded back below: two copies of a large network may not fit.
    _release(setup.method)
    manifest = _manifest(setup, history)
    run = load_run_from(out, manifest, device=setup.config.optimization.device, head=head)
    dataset, labels = setup.dataset, setup.dataset.labels

    def scores(examples: Sequence[Example], keep_states: bool = False) -> Scores:
        encoded = encode_examples(run.encoder, examples)
        if states_are_kept(run.method, setup, encoded):
            return score_frozen(run.method, setup.base, encoded, len(labels), keep_states=keep_states)
        return score(run.method, encoded, len(labels), keep_states=keep_states)

    dev = {
        name: DevScores(scores(part).logits, dataset.gold(part))
        for name, part in (("selecting", dataset.selecting), ("calibrating", dataset.calibrating))
    }
    save_scores(out, dev)
    known = KnownRows(dataset.calibrating, dataset.train, setup.label_ids)
    promises = make_promises(
        setup.config.trust, dev["calibrating"], known, labels.names, scores, setup.config.optimization.seed, dataset.labelling,
        setup.lessons.known, dev_is_natural=setup.lessons.dev_is_natural,
    )  # fmt: skip
    if promises.trust.novelty:
        save_novelty(out, promises.trust.novelty)
    manifest |= promises.trust.to_json()
    if setup.config.data.store_exemplars is not None:
        save_exemplars(out, _exemplars(setup, setup.config.data.store_exemplars, scores))
    gold = dev["selecting"].label_ids
    metrics = figures_of(gold, promises.trust.answers(promises.trust.probabilities(dev["selecting"].logits)), labels, uncertainty=True)
    baseline = _baseline(setup, out, gold) if setup.config.optimization.baseline else None
    if setup.config.data.test_ratio is not None:
        write_text(out / TEST_ROWS, _as_jsonl(setup.dataset.test))
    write_text(out / "config.yaml", setup.config.to_yaml())
    describe(out, manifest, metrics, baseline, history)
    return Finished(metrics, baseline, promises.notes, promises.unmet, manifest)


def complete(out: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, last of all; what a training would go on from is needed no more."""
    write_manifest(out, {**manifest, "files": checksums(out)})
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)


def _release(method: nn.Module) -> None:
    """Gives back the memory of its weights; as `to("meta")`, which those of bitsandbytes do not take."""
    for module in method.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            empty = torch.empty(weight.shape, dtype=weight.dtype, device="meta")
            module._parameters[name] = nn.Parameter(empty, requires_grad=False)


def _save_model(setup: Setup, folder: Path) -> None:
    """Full: a stock folder. LoRA: adapter and head as PEFT writes them. Frozen: the head alone. Config and tokenizer always."""
    network, tuning = setup.method.network, setup.config.model.tuning
    stock = setup.method.stock
    if tuning == "full":
        if isinstance(setup.method, GenerateMethod):
            cast(Any, stock).to(setup.precision.weights).save_pretrained(folder)
        elif setup.head_kind == "linear":
            cast(Any, stock.base_model).to(setup.precision.weights)  # the head stays float32
            stock.save_pretrained(folder)
        else:
            cast(Any, stock.base_model).to(setup.precision.weights).save_pretrained(folder)
    elif tuning in ADAPTERS:
        cast(Any, network).save_pretrained(folder)
    stock.config.save_pretrained(folder)
    if tuning == "frozen" or (tuning == "full" and setup.head_kind not in ("linear", None)):
        head = {key: value.contiguous() for key, value in stock.state_dict().items() if in_head(stock, key)}
        save_file(head, folder / HEAD_FILE)
    if isinstance(setup.method, HeadMethod) and setup.method.pooling is not None:
        weights = {key: value.contiguous() for key, value in setup.method.pooling.state_dict().items()}
        if weights:
            save_file(weights, folder / POOLING_FILE)
    setup.tokenizer.save_pretrained(folder)


def _manifest(setup: Setup, history: list[dict[str, Any]]) -> dict[str, Any]:
    model = setup.config.model
    return {
        "labels": list(setup.dataset.labels),
        **setup.dataset.labelling.to_json(),
        **told_columns(setup.config.data.text_column, setup.config.data.pair_column),
        LABEL_COLUMN: next((row.label_column for row in setup.dataset.train if row.label_column is not None), None),
        READ_FROM: next((list(row.text_columns) for row in setup.dataset.train if row.text_columns), []),
        "method": model.method,
        "tuning": model.tuning,
        "head": setup.head_kind,
        "prompt": setup.encoder.template,
        "max_length": setup.encoder.max_length,
        "long": setup.encoder.long,
        "length_rule": _length_rule(setup),
        **_method_facts(setup),
        "layers": model.layers,
        "base_model": {
            "name": model.model,
            "local": is_local(str(model.model)),
            "file": local_file(str(model.model)),
            "revision": resolved_revision(setup.base) or model.revision,
            "folder": str(setup.base.resolve()),
            "config_sha256": fingerprint(setup.base / "config.json"),
            "weights_fingerprint": weights_fingerprint(setup.base),
        },
        "parameters": {"all": setup.parameters, "trainable": setup.trainable},
        "best_step": kept_step(history, len(setup.selecting)),
        "data": {
            "files": setup.data_fingerprints(),
            "label_ids": setup.dataset.ids_named,
            "rows": {name: len(getattr(setup.dataset, name)) for name in ("train", "selecting", "calibrating", "test")},
            "classes": dict(zip(setup.dataset.labels, setup.class_counts.tolist(), strict=True)),
            "characters": _characters(setup.dataset.train),
            **{part: lines_by_file(getattr(setup.dataset, part)) for part in (*DEV, TEST)},
        },
        **setup.lessons.origin,
        "seed": setup.config.optimization.seed,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "libraries": library_versions(),
    }


def _characters(examples: Sequence[Example]) -> dict[str, int]:
    """How long texts are, of pairs both together."""
    lengths = [len(example.whole) for example in examples]
    return {"median": int(np.median(lengths)), "longest": max(lengths)}


def _length_rule(setup: Setup) -> str:
    if isinstance(setup.encoder, QuestionEncoder) and setup.encoder.long in WINDOWED:
        return "the text is read in overlapping windows, whose scores are averaged"
    of_pairs = "" if setup.config.data.pair_column is None else "the longer text of the pair is shortened first: "
    return of_pairs + LENGTH_RULES[setup.encoder.long]


def _method_facts(setup: Setup) -> dict[str, Any]:
    """What only one of the methods has to say."""
    if isinstance(setup.encoder, QuestionEncoder):
        candidates = {example.candidates for example in setup.dataset.calibrating}
        return {
            "instruction": setup.encoder.instruction.to_json(),
            "objective": setup.config.model.objective if setup.config.model.tuning != "none" else None,
            "prior_correction": cast(GenerateMethod, setup.method).correct_prior,
            "row_candidates": any(asked is not None for asked in candidates),
            "fitted_among_all": any(asked is None or set(asked) >= set(setup.dataset.labels) for asked in candidates),
        }
    return {"pooling": "last real token" if is_decoder(setup.method.stock) else "the encoder's own"}


def _baseline(setup: Setup, out: Path, gold: np.ndarray) -> AnyMetrics:
    """Fitted on the same rows, calibrated on the same rows, and kept in the run so that `evaluate` can show it beside the model."""
    dataset, labelling, labels = setup.dataset, setup.dataset.labelling, setup.dataset.labels
    calibrating, selecting = dataset.calibrating, dataset.selecting
    baseline = Baseline.fit([e.whole for e in dataset.train], setup.label_ids, len(labels), seed=setup.config.optimization.seed)
    if len(calibrating) >= LEAST_CALIBRATING_ROWS:
        fitted_on = [e.whole for e in calibrating]
        baseline = calibrate_baseline(baseline, fitted_on, dataset.gold(calibrating), labelling, labels, _asked_among(setup, calibrating))
    with whole_folder(out / "baseline") as folder:
        baseline.save(folder)
    answers = baseline_answers(baseline, [e.whole for e in selecting], labelling, labels, _asked_among(setup, selecting))
    return figures_of(gold, answers, labels, uncertainty=True)


def _asked_among(setup: Setup, rows: Sequence[Example]) -> list[tuple[str, ...] | None] | None:
    """The candidates of rows, where the network is asked among them; None where it answers with all labels, as a head does."""
    return candidates_of(rows) if isinstance(setup.encoder, QuestionEncoder) else None


def _exemplars(setup: Setup, count: int, score: ScoreRows) -> tuple[Example, ...]:
    """Those that an older run chose, and as many of every other class."""
    carried = setup.lessons.exemplars
    known = {row.label for row in carried}
    others = [row for row in setup.dataset.train if row.label not in known]
    return (*carried, *choose_exemplars(others, count, score, setup.config.optimization.seed))


def _as_jsonl(examples: tuple[Example, ...]) -> str:
    """The rows set aside for test, kept so that `evaluate` can be given them."""
    return "".join(to_json(example.named_columns) + "\n" for example in examples)
