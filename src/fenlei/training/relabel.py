"""Other labels for a finished run, without training: renamed, merged, dropped; for a run that generates, also added.

Of a run with a head, probabilities change as they must and no further: those of merged labels add, those that are left when others are
dropped keep their proportions. A run that generates reads its labels: it is given the new list, and has to be measured again.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from fenlei.artifact import MANIFEST, check_new, fingerprint, read_json, read_manifest, whole_folder, write_manifest, write_text
from fenlei.config import RunConfig
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError, DataError
from fenlei.evaluation.calibration import Calibration
from fenlei.evaluation.decision import Decision, plain_decision
from fenlei.evaluation.figures import figures_of
from fenlei.inference.checksums import checksums
from fenlei.inference.loading import question_encoder_of
from fenlei.inference.scoring import Scores
from fenlei.inference.trust import NOVELTY, DevScores, NoveltyRule, load_scores, load_trust, save_novelty, save_scores
from fenlei.labels import LabelNote, LabelSet
from fenlei.models.backbone import load_tokenizer, output_weights
from fenlei.models.merging import Merging, added
from fenlei.training.exemplars import load_exemplars, save_exemplars
from fenlei.training.label_plan import LabelPlan, plan_labels
from fenlei.training.model_card import model_card

MLP_OUTPUTS = frozenset(("score.out.weight", "score.out.bias"))
GENERATED = ("this run reads its labels, so it answers anew: measure it with `fenlei evaluate`",)


@dataclass(frozen=True)
class Relabelled:
    """A run with other labels."""

    out: Path
    labels: tuple[str, ...]
    notes: tuple[str, ...]


def relabel(
    run: str | Path,
    *,
    out: str | Path,
    rename: Mapping[str, str] | None = None,
    merge: Mapping[str, Sequence[str]] | None = None,
    drop: Sequence[str] = (),
) -> Relabelled:
    """Writes the run `out`; `run` stays as it is. `rename`: old name to new; `merge`: new name to the old ones that it is made of.

    ConfigError for labels that the run does not have, that clash or cannot be asked, for several labels a text to be merged, and where a
    head of the user's own would lose rows; ArtifactError where `out` is taken or the run incomplete.
    """
    folder, target = Path(run), Path(out)
    manifest = read_manifest(folder)
    known = LabelSet(tuple(manifest["labels"]))
    labelling = Labelling.from_json(manifest)
    rename = {old: labelling.path(new, "rename") for old, new in (rename or {}).items()}
    merge = {labelling.path(new, "merge"): part for new, part in (merge or {}).items()}
    plan = plan_labels(known, rename, merge, drop)
    check_new(target)
    _check_several_labels(manifest, plan)
    asked = {"rename": rename, "merge": {name: list(part) for name, part in merge.items()}, "drop": list(drop)}
    moved = not plan.only_names or manifest.get("relabelled_from", {}).get("ids_moved", False)
    origin = {"relabelled_from": {"run": str(run), "manifest": fingerprint(folder / MANIFEST), **asked, "ids_moved": moved}}
    with whole_folder(target) as new:
        _copy(folder, new, "model", "config.yaml", *(("baseline",) if plan.only_names else ()))
        if manifest["method"] == "generate":
            changed, notes = _generating(manifest, known, plan), list(GENERATED)
            _check_can_be_asked(folder, {**manifest, **changed}, plan.names)
        else:
            changed, notes = _with_head(folder, new, {**manifest, **origin}, plan)
        kept = [dataclasses.replace(row, label=plan.names[at]) for row, at in _kept_exemplars(folder, known, plan)]
        if kept:
            save_exemplars(new, kept)
        write_manifest(new, {**manifest, **changed, **origin, "labels": list(plan.names), "files": checksums(new)})
    return Relabelled(target, plan.names, tuple(notes))


def add_labels(run: str | Path, labels: Mapping[str, LabelNote], *, out: str | Path) -> Relabelled:
    """A generate run over its labels and further ones, with what is known of them, in `out`; nothing is trained.

    ConfigError for a run with a head, which has to learn new labels, for labels that the run has, and for those that cannot be asked.
    """
    folder, target = Path(run), Path(out)
    manifest = read_manifest(folder)
    known = LabelSet(tuple(manifest["labels"]))
    if manifest["method"] != "generate":
        raise ConfigError(f"{run}: answers with a head, which learns labels from rows; give a file of labelled rows of the new classes")
    labelling = Labelling.from_json(manifest)
    labels = {labelling.path(name, "labels"): note for name, note in labels.items()}
    there = next((name for name in labels if name in known), None)
    if there is not None:
        raise ConfigError(f"{there!r} is a label of the run already; give new ones alone")
    check_new(target)
    names = labelling.completed((*known, *labels))
    plan = LabelPlan(names, tuple((at,) for at in range(len(names))))
    changed = _generating({**manifest, "labels": list(names)}, LabelSet(names), plan)
    told = {name: {"description": note.description, "aliases": list(note.aliases)} for name, note in labels.items()}
    changed["instruction"]["notes"] |= {name: note for name, note in told.items() if note["description"] or note["aliases"]}
    _check_can_be_asked(folder, {**manifest, **changed}, names)
    moved = manifest.get("relabelled_from", {}).get("ids_moved", False)
    origin = {
        "relabelled_from": {
            "run": str(run),
            "manifest": fingerprint(folder / MANIFEST),
            "added": list(names[len(known) :]),
            "ids_moved": moved,
        }
    }
    with whole_folder(target) as new:
        _copy(folder, new, "model", "config.yaml")
        write_manifest(new, {**manifest, **changed, **origin, "labels": list(names), "files": checksums(new)})
    return Relabelled(target, names, GENERATED)


def _check_several_labels(manifest: dict[str, Any], plan: LabelPlan) -> None:
    """ConfigError where a text may have several labels and `plan` joins some, or leaves one without the label that it lies below."""
    labelling = Labelling.from_json(manifest)
    if not labelling.multi_label:
        return
    merged = next((name for name, part in zip(plan.names, plan.parts, strict=True) if len(part) > 1), None)
    if merged is not None:
        raise ConfigError(
            f"merge: a text may have several of the labels that would make up {merged!r}, so their probabilities do not add; rename or "
            "drop them, or train again on rows that have it"
        )
    missing = next((name for name in labelling.completed(plan.names) if name not in plan.names), None)
    if missing is not None:
        below = next(name for name in plan.names if missing in labelling.completed([name]))
        raise ConfigError(f"{below!r} would lie below {missing!r}, which would be no label; rename or drop both")


def _check_can_be_asked(run: Path, manifest: Mapping[str, Any], names: Sequence[str]) -> None:
    """ConfigError for labels that leave no room for a text, or that the model cannot tell apart: else it would come with the first text."""
    if not manifest.get("row_candidates"):  # else rows are asked among candidates of their own, and all labels may be too many
        question_encoder_of(manifest, LabelSet(tuple(names)), load_tokenizer(run / "model")).question()


def _copy(run: Path, new: Path, *names: str) -> None:
    for name in names:
        if (run / name).is_dir():
            shutil.copytree(run / name, new / name)
        elif (run / name).exists():
            shutil.copy2(run / name, new / name)


def _kept_exemplars(run: Path, known: LabelSet, plan: LabelPlan) -> list[tuple[Any, int]]:
    places = [(row, plan.new_id(known.id(str(row.label)))) for row in load_exemplars(run)]
    return [(row, at) for row, at in places if at is not None]


def _generating(manifest: dict[str, Any], known: LabelSet, plan: LabelPlan) -> dict[str, Any]:
    """What changes in the manifest of a run that generates: what was fitted on its label set does not hold for another."""
    named = {name: plan.new_id(at) for at, name in enumerate(known)}
    instruction = dict(manifest["instruction"])
    shown = next((label for _, label in instruction["examples"] if named[label] is None), None)
    if shown is not None:
        raise ConfigError(f"drop: an example of {shown!r} stands in the run's prompt; train again without it")
    instruction["examples"] = [[text, plan.names[named[label] or 0]] for text, label in instruction["examples"]]
    alone = {at: part[0] for at, part in enumerate(plan.parts) if len(part) == 1}
    notes = instruction["notes"]
    instruction["notes"] = {plan.names[at]: notes[known.name(old)] for at, old in alone.items() if known.name(old) in notes}
    fitted = dict.fromkeys(("vector_scaling", "abstention", "prediction_sets", "novelty"))
    decision = _decision(manifest, plan, plain=True)
    return {"instruction": instruction, "calibrated": False, "temperature": 1.0, "decision": decision, **fitted}


def _decision(manifest: dict[str, Any], plan: LabelPlan, *, plain: bool = False) -> dict[str, Any] | None:
    """Multi-label: the thresholds of the labels as they are now, or `plain`, those of labels that nothing was fitted for."""
    labelling = Labelling.from_json(manifest)
    if not labelling.multi_label:
        return None
    above = labelling.ancestors(LabelSet(plan.names))
    if plain:
        return plain_decision(len(plan.names), above).to_json()
    fitted = Decision.from_json(manifest["decision"]).thresholds
    return Decision(tuple(fitted[part[0]] for part in plan.parts), above).to_json()


def _with_head(run: Path, new: Path, manifest: dict[str, Any], plan: LabelPlan) -> tuple[dict[str, Any], list[str]]:
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
    if merged:
        places = tuple(tuple(kept.index(one) for one in label) for label in outputs)
        made = Merging(names, places, *(tuple(values[one] for one in kept) for values in (before.scale, before.bias)))
        changed |= {"merged": made.to_json(), **Calibration().to_json()}
    else:
        names = plan.names
        changed |= _sliced(calibration, kept).to_json()
    _name_outputs(new / "model" / "config.json", names)
    return _with_promises(run, new, {**manifest, **changed}, changed, plan, calibration if merged else None)


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
        unsorted = NoveltyRule(manifest["novelty"], np.zeros(0))
        known = unsorted.raw(Scores(dev["calibrating"].logits, np.zeros(0)))
        save_novelty(new, NoveltyRule(manifest["novelty"], np.sort(known)))
    elif manifest["novelty"] is not None:
        _copy(run, new, NOVELTY)
    asked = RunConfig.from_yaml(new / "config.yaml").trust
    try:
        trust = load_trust(new, manifest, asked)
    except DataError as error:
        notes.append(f"the run gives every answer: {error}")
        trust = load_trust(new, manifest)
    changed = {**changed, **trust.to_json()}
    selecting = dev["selecting"]
    answers = trust.answers(trust.probabilities(selecting.logits))
    metrics = figures_of(selecting.label_ids, answers, LabelSet(plan.names), uncertainty=True)
    history = read_json(run / "metrics.json").get("history", []) if (run / "metrics.json").exists() else []
    figures = {"selecting": metrics.to_json(), "baseline": None, "history": history}
    write_text(new / "metrics.json", json.dumps(figures, ensure_ascii=False, indent=2) + "\n")
    write_text(new / "README.md", model_card({**manifest, **changed}, metrics, None))
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
