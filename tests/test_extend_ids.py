"""Other classes for a run whose rows have ids in place of names."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_NEWS
from extending import NEW, QUICK, weather

from fenlei import train
from fenlei.artifact import fingerprint, read_manifest
from fenlei.config import DataConfig
from fenlei.data.examples import Example
from fenlei.data.label_ids import may_hold_ids
from fenlei.errors import DataError
from fenlei.labels import LabelSet
from fenlei.report.evaluation import evaluate_run
from fenlei.training.extend import extend
from fenlei.training.extension_dev import with_own_dev
from fenlei.training.relabel import relabel
from fenlei.training.replay_prior import under_prior

NAMES = ("财经", "科技", "体育")
SHORT: dict[str, Any] = {"max_steps": 1, **QUICK}


def write_ids(path: Path, rows: list[dict[str, str]], names: tuple[str, ...] = NAMES) -> Path:
    path.write_text("".join(f"{row['text']}\t{names.index(row['label'])}\n" for row in rows), encoding="utf-8")
    return path


def write_names(path: Path, *names: str) -> str:
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    return str(path)


@pytest.fixture(scope="module", params=["named", "found"])
def run(request: pytest.FixtureRequest, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on ids, its class file named or found beside the data, which lies in `data` beside the run."""
    folder = tmp_path_factory.mktemp("ids") / "data"
    folder.mkdir()
    data = write_ids(folder / "train.txt", [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()])
    named = request.param == "named"
    names = write_names(folder / ("names.txt" if named else "class.txt"), *NAMES)
    return train(data, model=str(tiny_qwen), tuning="frozen", out=folder.with_name("run"), class_file=names if named else None, **SHORT).out


def test_the_very_file_that_trained_the_run_is_replayed(run: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """Ids of new rows are named by a class file, and ids of all mean the same in the extended run, and in the one after that."""
    data = run.parent / "data" / "train.txt"
    more = write_names(tmp_path / "more.txt", *NAMES, NEW)
    new = write_ids(tmp_path / "new.txt", weather(), (*NAMES, NEW))
    dev = write_ids(tmp_path / "dev.txt", [*toy_rows, *weather()], (*NAMES, NEW))
    out = extend(run, new, replay=data, dev=str(dev), class_file=more, out=tmp_path / "out", **SHORT).training.out
    assert read_manifest(out)["labels"] == [*NAMES, NEW]
    assert evaluate_run(out, dev, device="cpu").metrics.rows == len(toy_rows) + len(weather())

    traffic = [{"text": f"{row['text']}路口", "label": "交通"} for row in weather()]
    further = extend(
        out,
        write_ids(tmp_path / "traffic.txt", traffic, (*NAMES, NEW, "交通")),
        replay=data,
        out=tmp_path / "further",
        class_file=write_names(tmp_path / "further.txt", *NAMES, NEW, "交通"),
        **SHORT,
    ).training.out
    assert read_manifest(further)["labels"] == [*NAMES, NEW, "交通"]


def test_ids_in_a_file_that_lies_elsewhere_are_those_of_the_run(run: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """Where the class file was found beside the training rows too, and none is beside these."""
    measured = evaluate_run(run, write_ids(tmp_path / "test.txt", toy_rows), out=tmp_path / "report", device="cpu").metrics
    assert {one.name: one.support for one in measured.classes} == Counter(row["label"] for row in toy_rows)


def test_ids_go_on_to_stand_for_names_where_new_rows_have_them(run: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """Without a class file of the extension: the run's own names its ids, and so the extended run's."""
    data, new = run.parent / "data" / "train.txt", tmp_path / "new.txt"
    new.write_text("".join(f"{row['text']}\t{NEW}\n" for row in weather()), encoding="utf-8")
    result = extend(run, new, replay=data, out=tmp_path / "out", **SHORT)
    assert result.training.labels == (*NAMES, NEW)
    assert result.changes[0].rows == sum(read_manifest(run)["data"]["rows"][part] for part in ("selecting", "calibrating"))
    assert read_manifest(result.training.out)["extended_from"]["label_ids"]
    elsewhere = write_ids(tmp_path / "test.txt", [*toy_rows, *weather()], (*NAMES, NEW))
    measured = evaluate_run(result.training.out, elsewhere, device="cpu").metrics
    assert {one.name: one.support for one in measured.classes} == Counter(row["label"] for row in [*toy_rows, *weather()])


def test_ids_of_the_replay_tell_how_often_classes_come(
    run: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As their names do; read as they are, they would be of no known class, and nothing of what is replayed would be corrected."""
    folder = run.parent / "data"

    def with_names(name: str, rows: list[dict[str, str]]) -> Path:
        (folder / name).write_text("".join(f"{row['text']}\t{row['label']}\n" for row in rows), encoding="utf-8")
        return folder / name

    priors: list[torch.Tensor] = []
    monkeypatch.setattr("fenlei.data.extension.LEAST_REPLAYED", 1)
    monkeypatch.setattr("fenlei.training.extend.under_prior", lambda loss, prior: priors.append(prior) or under_prior(loss, prior))
    new, dev = with_names("new.txt", weather()), with_names("dev.txt", [*toy_rows, *weather()])
    for replay in (write_ids(folder / "ids.txt", toy_rows[::-1]), with_names("named.txt", toy_rows[::-1])):
        extend(run, new, replay=replay, dev=str(dev), out=tmp_path / replay.stem, **SHORT)
    assert torch.equal(*priors)
    assert (priors[0][:3] < 0).all()


def test_an_id_without_a_name_is_refused(run: Path, tmp_path: Path) -> None:
    new = write_ids(tmp_path / "new.txt", weather(), (*NAMES, NEW))
    given: dict[str, Any] = {"replay": run.parent / "data" / "train.txt", "out": tmp_path / "out", **SHORT}
    with pytest.raises(DataError, match=r"new\.txt:1: label '3' is a number, .*--class-file with the 3 names of the run.*ids 0 to 2"):
        extend(run, new, **given)
    with pytest.raises(DataError, match=r"wrong\.txt: expected the 3 names of the run in its order, .*begin with '财经', '科技', '体育'"):
        extend(run, new, class_file=write_names(tmp_path / "wrong.txt", "体育", *NAMES[:2], NEW), **given)
    with pytest.raises(DataError, match=r"new\.txt:1: label '3' is neither a class name nor an id from 0 to 2"):
        extend(run, new, class_file=write_names(tmp_path / "old.txt", *NAMES), **given)
    assert not (tmp_path / "out").exists()


def test_a_class_file_may_name_classes_without_rows(run: Path, tmp_path: Path) -> None:
    """Ids stay what the file says."""
    names = (*NAMES, "交通", NEW)
    new = write_ids(tmp_path / "new.txt", weather(), names)
    said: list[str] = []
    result = extend(
        run,
        new,
        replay=run.parent / "data" / "train.txt",
        class_file=write_names(tmp_path / "all.txt", *names),
        out=tmp_path / "out",
        announce=said.append,
        **SHORT,
    )
    assert result.training.labels == names
    assert result.new[0].support == 0
    assert any("no new row is of class '交通', so it cannot be learned" in note for note in said)


def test_a_class_file_beside_the_rows_is_the_runs_if_it_begins_as_the_run_does(tmp_path: Path) -> None:
    rows = write_ids(tmp_path / "rows.txt", [])
    for beside, same in ((NAMES, True), (NAMES[:2], True), ((*NAMES, NEW), True), (NAMES[::-1], False), (("a", "b"), False)):
        write_names(tmp_path / "class.txt", *beside)
        assert may_hold_ids(rows, LabelSet(NAMES), DataConfig(), {}) is same
    (tmp_path / "class.txt").unlink()
    assert not may_hold_ids(rows, LabelSet(NAMES), DataConfig(), {})
    assert may_hold_ids(rows, LabelSet(NAMES), DataConfig(class_file="names.txt"), {})
    assert may_hold_ids(rows, LabelSet(NAMES), DataConfig(), {"data": {"label_ids": True}})
    assert not may_hold_ids(rows, LabelSet(NAMES), DataConfig(), {"data": {"label_ids": True}, "relabelled_from": {"ids_moved": True}})


def test_dev_rows_with_ids_that_nothing_names_any_more_are_not_brought_along(toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """As of a run that does not say that its rows had ids, and whose class file has gone from beside them."""
    data = write_ids(tmp_path / "train.txt", toy_rows)
    manifest = {"data": {"files": {str(data): fingerprint(data)}, "selecting": {str(data): "1-3"}}}
    copies = tuple(Example(row["text"], row["label"], "copy.jsonl", at) for at, row in enumerate(toy_rows[:4], start=1))
    assert with_own_dev(copies, manifest, DataConfig(), LabelSet(NAMES), lambda source: False) == copies
    copied, *beside = with_own_dev(copies, manifest, DataConfig(), LabelSet(NAMES), lambda source: True)
    assert copied == copies[3]
    assert [(row.where, row.label) for row in beside] == [(f"{data}:{at + 1}", toy_rows[at]["label"]) for at in range(3)]


def test_ids_of_labels_that_moved_are_not_read(run: Path, tmp_path: Path) -> None:
    """Once the first label is dropped, the id of the second would stand for the third; renamed labels keep their places."""
    data = run.parent / "data" / "train.txt"
    renamed = relabel(run, rename={"科技": "数码"}, out=tmp_path / "renamed").out
    before = evaluate_run(run, data, out=tmp_path / "report", device="cpu").metrics
    assert before.accuracy == evaluate_run(renamed, data, device="cpu").metrics.accuracy
    dropped = relabel(run, drop=["财经"], out=tmp_path / "dropped").out
    again = relabel(dropped, rename={"科技": "数码"}, out=tmp_path / "again").out
    for moved in (dropped, again):
        with pytest.raises(DataError, match=r"train\.txt:\d+"):
            evaluate_run(moved, data, device="cpu")


def test_names_of_before_are_known_after_an_extension_too(run: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    renamed = relabel(run, rename={"科技": "数码"}, out=tmp_path / "renamed").out
    new, before = tmp_path / "new.txt", tmp_path / "before.txt"
    for path, rows in ((new, weather()), (before, toy_rows)):
        path.write_text("".join(f"{row['text']}\t{row['label']}\n" for row in rows), encoding="utf-8")
    out = extend(renamed, new, replay=run.parent / "data" / "train.txt", out=tmp_path / "out", **SHORT).training.out
    measured = evaluate_run(out, before, device="cpu")
    assert {one.name: one.support for one in measured.metrics.classes} == {"财经": 20, "数码": 20, "体育": 20, NEW: 0}
