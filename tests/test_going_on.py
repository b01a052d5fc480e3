"""Extensions and distillations that were stopped: their own command goes on with them and ends in the same, and no other does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import TOY_NEWS, write_jsonl
from safetensors.torch import load_file

from fenlei import train
from fenlei.artifact import read_manifest
from fenlei.cli.main import main
from fenlei.errors import ArtifactError
from fenlei.training import distill as distilling
from fenlei.training import extend as extending
from fenlei.training.distill import distill
from fenlei.training.extend import extend
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.progress import Progress

pytestmark = pytest.mark.usefixtures("asked_once")
OPTIONS: dict[str, Any] = {"device": "cpu", "baseline": False, "batch_size": 16, "learning_rate": 3e-3}
LONG_ENOUGH = {"max_steps": 9, "evals_per_epoch": 1}
Begin = Callable[..., Any]


@pytest.fixture(scope="module")
def home(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with labelled rows, a run that was trained on them, one that was not trained as long, new rows and texts without labels."""
    folder = tmp_path_factory.mktemp("home")
    data = folder / "toy_news.jsonl"
    data.write_bytes(TOY_NEWS.read_bytes())
    for name, steps in (("run", 6), ("other", 2)):
        train(data, model=str(tiny_qwen), out=folder / name, max_steps=steps, tuning="lora", lora_rank=2, dev_ratio=0.3, **OPTIONS)
    for name, row in (("new", {"label": "天气"}), ("pool", {})):
        rows = [{"text": f"{name}：明天有雨，第{at}号台风", **row} for at in range(20)]
        write_jsonl(folder / f"{name}.jsonl", rows)
    return folder


@pytest.fixture(params=["distill", "extend"])
def begin(request: pytest.FixtureRequest, home: Path, tiny_qwen: Path) -> Begin:
    """`distill` or `extend`, into a folder."""

    def begin_to(out: Path, run: str = "run", **options: Any) -> Any:
        if request.param == "distill":
            given = {"unlabeled": home / "pool.jsonl", "tuning": "lora", "lora_rank": 2, **options}
            return distill(home / run, str(tiny_qwen), out=out, **LONG_ENOUGH, **OPTIONS, **given)
        return extend(home / run, home / "new.jsonl", replay=home / "toy_news.jsonl", out=out, **LONG_ENOUGH, **OPTIONS, **options)

    return begin_to


def command_of(begin: Begin, request: pytest.FixtureRequest) -> str:
    return str(request.node.callspec.params["begin"])


def stopped(begin: Begin, out: Path) -> str:
    """Begins and stops after some steps; what is said of it."""

    def stop(now: Progress) -> None:
        if now.step == 5 and now.metrics is None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted) as told:
        begin(out, progress=stop)
    return str(told.value)


def told_of(out: Path) -> dict[str, Any]:
    """The report, without what was measured by the clock."""
    path = next(out / name for name in (distilling.REPORT, extending.REPORT) if (out / name).exists())
    told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    told.get("cost", {}).pop("seconds", None)
    for role in ("teacher", "student"):
        for clocked in ("rows_per_second", "name"):
            told.get(role, {}).pop(clocked, None)
    return told


def test_stopped_and_gone_on_with_it_ends_in_the_same(begin: Begin, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    begin(tmp_path / "whole")
    told = stopped(begin, tmp_path / "cut")
    assert f"the same `fenlei {command_of(begin, request)}` command and --resume" in told
    begin(tmp_path / "cut", resume=True)
    for file in (tmp_path / "whole" / "model").glob("*.safetensors"):
        whole, cut = load_file(file), load_file(tmp_path / "cut" / "model" / file.name)
        assert all(torch.equal(whole[key], cut[key]) for key in whole)
    assert told_of(tmp_path / "whole") == told_of(tmp_path / "cut")
    of_whole, of_cut = (read_manifest(tmp_path / name) for name in ("whole", "cut"))
    origin = "distilled_from" if "distilled_from" in of_whole else "extended_from"
    assert of_whole[origin] == of_cut[origin]


def test_nothing_else_goes_on_with_it(
    begin: Begin, request: pytest.FixtureRequest, home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cut"
    stopped(begin, out)
    command = command_of(begin, request)
    assert main(["train", "--resume", "--out", str(out)]) == 1
    assert f"begun by `fenlei {command}`; go on with the same `fenlei {command}` command and --resume" in capsys.readouterr().err
    with pytest.raises(ArtifactError, match=rf"begun from the run in {home / 'run'}, and that in {home / 'other'} is now another"):
        begin(out, "other", resume=True)
    if command == "distill":
        with pytest.raises(ArtifactError, match=r"pool\.jsonl was left out since the training was begun"):
            begin(out, unlabeled=None, resume=True)
    assert not (out / "fenlei.json").exists()


def test_a_training_is_gone_on_with_by_train_alone(home: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    def begin_to(out: Path, **options: Any) -> Any:
        return train(home / "toy_news.jsonl", model=str(tiny_qwen), out=out, tuning="frozen", **LONG_ENOUGH, **OPTIONS, **options)

    assert f"`fenlei train --resume --out {tmp_path / 'cut'}`" in stopped(begin_to, tmp_path / "cut")
    with pytest.raises(ArtifactError, match=r"begun by `fenlei train`; go on with `fenlei train --resume --out"):
        distill(home / "run", str(tiny_qwen), out=tmp_path / "cut", resume=True)
    begun = tmp_path / "cut" / "checkpoints" / "run.json"
    older = {key: value for key, value in json.loads(begun.read_text(encoding="utf-8")).items() if key not in ("command", "run")}
    begun.write_text(json.dumps(older, ensure_ascii=False), encoding="utf-8")  # as an older fenlei wrote it
    train(out=tmp_path / "cut", resume=True)


def test_a_complete_run_has_its_report(begin: Begin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended while the report is made, it is not complete yet, and going on makes up for it."""
    with monkeypatch.context() as patch:
        for module, name in ((distilling, "_concluded"), (extending, "compared")):
            patch.setattr(module, name, lambda *_, **__: pytest.fail("the machine lost its power"))
        with pytest.raises(pytest.fail.Exception, match="power"):
            begin(tmp_path / "out")
    assert not (tmp_path / "out" / "fenlei.json").exists()
    begin(tmp_path / "out", resume=True)
    assert told_of(tmp_path / "out")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert card.count("## Distilled") + card.count("## Extended") == 1
    assert not (tmp_path / "out" / "checkpoints").exists()
