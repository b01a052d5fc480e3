"""Labels of a run that answers with a head: its rows, its calibration, and what it promised, for labels renamed, merged and dropped."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fenlei.artifact import read_json, write_text
from fenlei.config import RunConfig
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError
from fenlei.evaluation.calibration import Calibration
from fenlei.evaluation.decision import Decision
from fenlei.evaluation.figures import figures_of
from fenlei.inference.loading import POOLING_FILE
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import NOVELTY, DevScores, NoveltyRule, fit_promises, load_scores, load_trust, save_novelty, save_scores
from fenlei.labels import LabelSet
from fenlei.models.backbone import output_weights
from fenlei.models.merging import Merging, added
from fenlei.training.label_plan import LabelPlan
from fenlei.training.model_card import describe

MLP_OUTPUTS = frozenset(("score.out.weight", "score.out.bias"))
NO_STATES = "novelty is told by energy now: Mahalanobis distances take the rows' states, which the run does not keep"
"""Of a run that loses a label, whose texts are to be strange to it."""


def with_head(run: Path, new: Path, manifest: dict[str, Any], plan: LabelPlan) -> tuple[dict[str, Any], list[str]]:
    """What changes in the manifest of a run with a head; its files are changed in `new`."""
    calibration = Calibration.from_json(manifest)
    before = _outputs(manifest, calibration)
    outputs = [tuple(sorted(one for label in part for one in before.outputs[label])) for part in plan.parts]
    kept = sorted(one for label in outputs for one in label)
    if len(kept) < len(before.names):
        _keep_rows(new / "model", manifest, kept, len(before.names))
    names = tuple(before.names[one] for one in kept)
    merged = manifest.get("merged") is not None or any(len(part) > 1 for part in plan.parts)
    changed: dict[str, Any] = {"labels": list(plan.names), "abstention": None, "prediction_sets": None, "merged": None}
    changed["decision"] = _decision(manifest, plan)
    told = []
    if len(kept) < len(before.names) and manifest["novelty"] == "mahalanobis":
        changed["novelty"] = "energy"
        told.append(NO_STATES)
    if merged:
        places = tuple(tuple(kept.index(one) for one in label) for label in outputs)
        made = Merging(names, places, *(tuple(values[one] for one in kept) for values in (before.scale, before.bias)))
        changed |= {"merged": made.to_json(), **Calibration().to_json()}
    else:
        names = plan.names
        changed |= _sliced(calibration, kept).to_json()
    _name_outputs(new / "model" / "config.json", names)
    changed, notes = _with_promises(run, new, {**manifest, **changed}, changed, plan, calibration if merged else None)
    return changed, [*told, *notes]


def _decision(manifest: dict[str, Any], plan: LabelPlan) -> dict[str, Any] | None:
    """Multi-label: the thresholds of the labels that are left."""
    if not manifest.get("decision"):
        return None
    fitted = Decision.from_json(manifest["decision"]).thresholds
    above = Labelling.from_json(manifest).ancestors(LabelSet(plan.names))
    return Decision(tuple(fitted[part[0]] for part in plan.parts), above).to_json()


def _outputs(manifest: dict[str, Any], calibration: Calibration) -> Merging:
    """The run's outputs, calibrated, each a label of its own where nothing has been merged yet."""
    if manifest.get("merged"):
        return Merging.from_json(manifest["merged"])
    count = len(manifest["labels"])
    alone = tuple((at,) for at in range(count))
    scale, bias = calibration.scale or (1 / calibration.temperature,) * count, calibration.bias or (0.0,) * count
    return Merging(tuple(manifest["labels"]), alone, scale, bias)


def _sliced(calibration: Calibration, kept: Sequence[int]) -> Calibration:
    if calibration.scale is None or calibration.bias is None:
        return calibration
    return Calibration(calibration.temperature, tuple(calibration.scale[at] for at in kept), tuple(calibration.bias[at] for at in kept))


def _keep_rows(model: Path, manifest: dict[str, Any], kept: Sequence[int], count: int) -> None:
    """Removes the other rows from the last layer of the head, in the file where it lies."""
    if manifest["head"] == "custom":
        raise ConfigError("drop: a head of your own has rows that only its module knows; train again without the label")
    outputs = MLP_OUTPUTS if manifest["head"] == "mlp" else output_weights(model)
    found = 0
    for path in sorted(model.glob("*.safetensors")):
        if path.name == POOLING_FILE:  # its last layer weighs windows, and has the name of the head's
            continue
        with safe_open(path, framework="pt") as stored:
            keys = {key for key in stored.keys() if any(key == name or key.endswith(f".{name}") for name in outputs)}
            if not keys:
                continue
            weights, metadata = {key: stored.get_tensor(key) for key in stored.keys()}, stored.metadata()
        if any(len(weights[key]) != count for key in keys):
            raise ArtifactError(f"{path}: its head has not the {count} labels of the run; restore the folder, or train again")
        weights |= {key: weights[key][list(kept)].contiguous() for key in keys}
        save_file(weights, path, metadata=metadata)
        found += len(keys)
    if not found:
        raise ArtifactError(f"{model}: no file holds the last layer of the head; restore the folder, or train again")


def _name_outputs(config: Path, names: Sequence[str]) -> None:
    told = read_json(config)
    told["id2label"] = {str(at): name for at, name in enumerate(names)}
    told["label2id"] = {name: at for at, name in enumerate(names)}
    write_text(config, json.dumps(told, ensure_ascii=False, indent=2) + "\n")


def _with_promises(
    run: Path, new: Path, manifest: dict[str, Any], changed: dict[str, Any], plan: LabelPlan, folded: Calibration | None
) -> tuple[dict[str, Any], list[str]]:
    """The same with threshold, sets and novelty fitted anew on the dev scores that the run keeps, and its figures."""
    notes = []
    dev = {part: _rescored(scores, plan, folded) for part, scores in load_scores(run).items()}
    save_scores(new, dev)
    if manifest["novelty"] in ("energy", "joint energy"):
        save_novelty(new, NoveltyRule.of(manifest["novelty"], Scores(dev["calibrating"].logits, np.zeros(0))))
    elif manifest["novelty"] is not None:
        shutil.copy2(run / NOVELTY, new / NOVELTY)
    trust = load_trust(new, manifest)
    fitted = fit_promises(RunConfig.from_yaml(new / "config.yaml").trust, trust, dev["calibrating"])
    trust = dataclasses.replace(trust, abstention=fitted.abstention, sets=fitted.sets)
    if fitted.unmet is not None:
        notes.append(f"the run does not promise all that was asked: {fitted.unmet}")
    changed = {**changed, **trust.to_json()}
    selecting = dev["selecting"]
    answers = trust.answers(trust.probabilities(selecting.logits))
    metrics = figures_of(selecting.label_ids, answers, LabelSet(plan.names), uncertainty=True)
    history = read_json(run / "metrics.json").get("history", []) if (run / "metrics.json").exists() else []
    describe(new, {**manifest, **changed}, metrics, None, history)
    if (run / "baseline").is_dir() and not plan.only_names:
        notes.append("the TF-IDF baseline knew the labels as they were, and is left out")
    return changed, notes


def _rescored(dev: DevScores, plan: LabelPlan, folded: Calibration | None) -> DevScores:
    """Dev scores over the labels to be, without the rows of those dropped; `folded` goes before where labels are merged."""
    if dev.label_ids.ndim == 2:  # multi-label: a row that loses a label keeps the others
        columns = [part[0] for part in plan.parts]
        return DevScores(np.ascontiguousarray(dev.logits[:, columns]), np.ascontiguousarray(dev.label_ids[:, columns]))
    places = [plan.new_id(at) for at in range(dev.logits.shape[1])]
    kept = np.array([places[label] is not None for label in dev.label_ids.tolist()], dtype=bool)
    label_ids = np.array([places[label] for label in dev.label_ids[kept].tolist()], dtype=np.int64)
    logits = dev.logits[kept]
    if folded is None:
        return DevScores(np.ascontiguousarray(logits[:, [part[0] for part in plan.parts]]), label_ids)
    joined = added(torch.from_numpy(folded.apply(logits)), plan.parts).numpy()
    return DevScores(joined.astype(np.float32), label_ids)
