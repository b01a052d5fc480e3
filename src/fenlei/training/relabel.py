"""Other labels for a finished run, without training: renamed, merged, dropped; for a run that generates, also added.

Of a run with a head, probabilities change as they must and no further: those of merged labels add, those that are left when others are
dropped keep their proportions. A run that generates reads its labels: it is given the new list, and has to be measured again.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fenlei.artifact import MANIFEST, check_new, fingerprint, read_manifest, whole_folder, write_manifest
from fenlei.data.examples import Example
from fenlei.data.former_labels import FORMER_LABELS, former_labels
from fenlei.data.labelling import Labelling
from fenlei.errors import ConfigError
from fenlei.evaluation.decision import plain_decision
from fenlei.inference.checksums import EXEMPLARS, checksums
from fenlei.inference.loading import question_encoder_of
from fenlei.labels import LabelNote, LabelSet
from fenlei.models.backbone import load_tokenizer
from fenlei.text.instructions import Instruction
from fenlei.training.exemplars import load_exemplars, save_exemplars
from fenlei.training.label_plan import LabelPlan, plan_labels
from fenlei.training.relabel_head import with_head

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
    told = {**asked, "ids_moved": moved, FORMER_LABELS: _former(manifest, known, plan)}
    origin = {"relabelled_from": {"run": str(run), "manifest": fingerprint(folder / MANIFEST), **told}}
    with whole_folder(target) as new:
        _copy(folder, new, "model", "config.yaml", *(("baseline",) if plan.only_names else ()))
        if manifest["method"] == "generate":
            changed, notes = _generating(manifest, known, plan), list(GENERATED)
            _check_can_be_asked(folder, {**manifest, **changed}, plan.names)
        else:
            changed, notes = with_head(folder, new, {**manifest, **origin}, plan)
        kept = _kept_exemplars(folder, known, plan)
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
    changed["instruction"] = Instruction.from_json(manifest["prompt"], changed["instruction"]).with_notes(labels).to_json()
    _check_can_be_asked(folder, {**manifest, **changed}, names)
    moved = manifest.get("relabelled_from", {}).get("ids_moved", False)
    origin = {
        "relabelled_from": {
            "run": str(run),
            "manifest": fingerprint(folder / MANIFEST),
            "added": list(names[len(known) :]),
            "ids_moved": moved,
            FORMER_LABELS: former_labels(manifest),
        }
    }
    with whole_folder(target) as new:
        _copy(folder, new, "model", "config.yaml", EXEMPLARS)
        write_manifest(new, {**manifest, **changed, **origin, "labels": list(names), "files": checksums(new)})
    return Relabelled(target, names, GENERATED)


def _former(manifest: dict[str, Any], known: LabelSet, plan: LabelPlan) -> dict[str, str | None]:
    """What each label that the run or one before it has had is called now; None where it is dropped."""
    step = _called_now(known, plan)
    before = {old: None if new is None else step[new] for old, new in former_labels(manifest).items()}
    return {old: new for old, new in (before | step).items() if old != new}


def _called_now(known: LabelSet, plan: LabelPlan) -> dict[str, str | None]:
    """What each label of the run is to be called; None where it is dropped."""
    places = {name: plan.new_id(at) for at, name in enumerate(known)}
    return {name: None if at is None else plan.names[at] for name, at in places.items()}


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


def _kept_exemplars(run: Path, known: LabelSet, plan: LabelPlan) -> list[Example]:
    """Those of labels that stay, with what they and their candidates are to be called."""
    names = _called_now(known, plan)
    kept: list[Example] = []
    for row in load_exemplars(run):
        label = names[str(row.label)]
        if label is not None:
            offered = [now for one in row.candidates or () if (now := names.get(one, one)) is not None]
            kept.append(dataclasses.replace(row, label=label, candidates=tuple(dict.fromkeys(offered)) or None))
    return kept


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
    labelling = Labelling.from_json(manifest)
    decision = plain_decision(len(plan.names), labelling.ancestors(LabelSet(plan.names))).to_json() if labelling.multi_label else None
    return {"instruction": instruction, "calibrated": False, "temperature": 1.0, "decision": decision, **fitted}
