"""Training, from file to folder: what learns, what is saved, what comes back, and what happens when it is cut short."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
import time
import types
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from conftest import write_jsonl
from processes import ended, split
from runs import weights_of
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoTokenizer, BertForMaskedLM, Trainer

from fenlei import Classifier, TrainResult, train
from fenlei.artifact import read_manifest
from fenlei.cli.main import main
from fenlei.config import RunConfig
from fenlei.errors import ArtifactError, ConfigError, DataError, ModelError
from fenlei.labels import LabelSet
from fenlei.models.backbone import backbone_parameters, head_modules, load_network
from fenlei.report.evaluation import evaluate_run
from fenlei.text.batches import TrainingBatches
from fenlei.training import fit
from fenlei.training.checkpoints import seal, starting_point
from fenlei.training.dry_run import dry_run
from fenlei.training.fit import TrainingInterrupted
from fenlei.training.progress import Progress
from fenlei.training.setup import prepare
from fenlei.training.trainer import RowTrainer

QUICK: dict[str, Any] = {"max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False, "max_length": 48}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def poolerless_bert(tiny_bert: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same BERT, saved as a masked LM: its pooler is not in the files, and starts afresh with the head."""
    folder = tmp_path_factory.mktemp("poolerless")
    BertForMaskedLM.from_pretrained(tiny_bert).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny_qwen", {"tuning": "full"}),
        ("tiny_qwen", {"tuning": "lora"}),
        ("tiny_qwen", {"tuning": "lora", "lora_rank": 2}),
        ("tiny_qwen", {"tuning": "frozen"}),
        ("tiny_qwen", {"tuning": "full", "head": "mlp"}),
        ("tiny_qwen", {"tuning": "full", "head": "mlp", "layers": 1, "prompt": "zh"}),
        ("tiny_qwen", {"tuning": "lora", "head": "mlp"}),
        ("tiny_llama", {"tuning": "lora"}),
        ("tiny_bert", {"tuning": "full"}),
        ("tiny_bert", {"tuning": "lora", "layers": 1}),
        ("tiny_bert", {"tuning": "frozen"}),
        ("poolerless_bert", {"tuning": "full"}),
        ("poolerless_bert", {"tuning": "lora"}),
        ("poolerless_bert", {"tuning": "frozen"}),
    ],
)
def test_every_tuning_saves_what_it_learned_and_leaves_the_base_alone(
    model: str, options: dict[str, Any], toy_file: Path, tmp_path: Path, learned: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """The network in memory at the end of training against the one read back from the folder."""
    base: Path = request.getfixturevalue(model)
    before = {file: digest(file) for file in base.iterdir()}
    told: list[Progress] = []
    result = train(toy_file, model=str(base), out=tmp_path / "run", progress=told.append, learning_rate=0.01, **QUICK, **options)
    assert {file: digest(file) for file in base.iterdir()} == before
    assert isinstance(result, TrainResult)
    assert told[-1].step == 4
    assert 0 < result.trainable <= result.parameters
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    assert classifier.labels == result.labels
    np.testing.assert_allclose(classifier.logits(learned["texts"]).logits, learned["logits"], atol=1e-6)
    manifest = read_manifest(tmp_path / "run")
    assert manifest["tuning"] == options["tuning"]
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_it_learns_and_predicts_with_calibrated_confidence(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    data = write_jsonl(tmp_path / "train.jsonl", toy_rows)
    result = train(
        data, model=str(tiny_qwen), out=tmp_path / "run", dev=str(_copy(data, tmp_path)), tuning="full", epochs=25, learning_rate=0.005,
        batch_size=16, device="cpu", max_length=48, early_stopping_patience=None,
    )  # fmt: skip
    assert result.metrics.accuracy > 0.95, "60 rows seen 25 times must be known by heart"
    assert result.baseline is not None
    classifier = Classifier.load(tmp_path / "run")
    predictions = classifier.predict([row["text"] for row in toy_rows])
    assert np.mean([p.label == row["label"] for p, row in zip(predictions, toy_rows, strict=True)]) > 0.95
    for prediction in predictions:
        assert prediction.calibrated
        assert sum(prediction.probabilities.values()) == pytest.approx(1, abs=1e-5)
        assert prediction.confidence == max(prediction.probabilities.values()) == prediction.probabilities[prediction.label]
    assert classifier.temperature != 1.0


def _copy(data: Path, folder: Path) -> Path:
    copy = folder / "dev.jsonl"
    copy.write_bytes(data.read_bytes())
    return copy


def test_the_same_seed_gives_the_same_weights_and_another_does_not(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / name, tuning="lora", lora_dropout=0.1, seed=seed, **QUICK)
    a, b, c = (weights_of(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[key], b[key]) for key in a)
    assert any(not torch.equal(a[key], c[key]) for key in a)


@pytest.mark.usefixtures("exact")
def test_batch_tokens_changes_nothing_but_memory(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    for name, tokens in (("whole", 100_000), ("pieces", 40)):
        options = {**QUICK, "batch_tokens": tokens, "tuning": "full", "max_steps": 3, "learning_rate": 0.001}
        train(toy_file, model=str(tiny_qwen), out=tmp_path / name, **options)
    start = Classifier.load(tmp_path / "whole").logits(["体育"]).logits
    whole, pieces = weights_of(tmp_path / "whole"), weights_of(tmp_path / "pieces")
    # AdamW turns rounding into whole steps where a gradient is all but zero; everywhere else they must agree.
    apart = torch.cat([(whole[key] - pieces[key]).abs().flatten() for key in whole])
    assert (apart > 1e-5).float().mean() < 0.01
    np.testing.assert_allclose(Classifier.load(tmp_path / "pieces").logits(["体育"]).logits, start, atol=1e-4)


def test_gradients_are_forgotten_without_a_look_at_all_weights(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers: list[RowTrainer] = []
    looks: list[nn.Module] = []
    left: list[str] = []
    begin, look = RowTrainer.__init__, nn.Module.zero_grad
    monkeypatch.setattr(RowTrainer, "__init__", lambda self, *a, **k: (trainers.append(self), begin(self, *a, **k))[1])
    monkeypatch.setattr(nn.Module, "zero_grad", lambda self, *given: (looks.append(self), look(self, *given))[1])

    def watch(now: Progress) -> None:
        left.extend(name for name, weight in trainers[0]._method.named_parameters() if weight.grad is not None)

    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="lora", progress=watch, **QUICK)
    assert len(trainers) == 1
    assert not looks
    assert not left
    assert "zero_grad" not in vars(trainers[0]._method), "it would hold the weights when they are given back"


def test_a_training_of_one_step_learns(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """A rise of the learning rate over all of its steps would end before it."""
    for name, rate in (("still", 1e-12), ("run", 1e-3)):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / name, tuning="full", **{**QUICK, "max_steps": 1, "learning_rate": rate})
    still, run = weights_of(tmp_path / "still"), weights_of(tmp_path / "run")
    (head,) = (key for key in run if key.endswith("score.weight"))
    assert not torch.allclose(run[head], still[head], atol=1e-4)


def test_a_head_of_the_users_own(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(32, 3)
            self.scale = nn.Parameter(torch.ones(1))

        def forward(self, pooled: torch.Tensor) -> torch.Tensor:
            logits: torch.Tensor = self.inner(pooled) * self.scale
            return logits

    for tuning in ("full", "lora"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / tuning, head=Scaled(), tuning=tuning, **QUICK)
        with pytest.raises(ArtifactError, match="head of your own"):
            Classifier.load(tmp_path / tuning)
        classifier = Classifier.load(tmp_path / tuning, head=Scaled())
        assert classifier.predict_proba(["体育"]).shape == (1, 3)


@pytest.mark.parametrize("step", [5, 7, 17])  # in the first epoch, when an evaluation is due, in the third
def test_interrupted_and_resumed_ends_in_the_same_weights(step: int, tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_steps": 24, "tuning": "lora", "learning_rate": 0.01, "lora_dropout": 0.1}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)

    def interrupt(progress: Progress) -> None:
        if progress.step == step and progress.metrics is None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted, match=r"--resume"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", progress=interrupt, **options)
    assert not (tmp_path / "cut" / "fenlei.json").exists()
    with pytest.raises(ArtifactError, match="unfinished run; continue it with --resume"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", **options)
    with pytest.raises(ArtifactError, match=r"learning_rate was 0.01, now 0.5"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", resume=True, **{**options, "learning_rate": 0.5})
    train(out=tmp_path / "cut", resume=True)  # what it was begun with lies beside the checkpoint
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_a_run_that_stopped_early_and_was_cut_off_at_its_end_does_not_go_on(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "max_steps": 40, "evals_per_epoch": 3, "tuning": "lora", "learning_rate": 1e-9, "early_stopping_patience": 1}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("fenlei.training.fit.finish", killed)
        with pytest.raises(KeyboardInterrupt):
            train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", **options)
    train(out=tmp_path / "cut", resume=True)
    history = [json.loads((tmp_path / name / "metrics.json").read_text(encoding="utf-8"))["history"] for name in ("whole", "cut")]
    steps = [max(entry["step"] for entry in one) for one in history]
    assert steps[0] == steps[1] < 40
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_ctrl_c_on_the_command_line_leaves_a_checkpoint(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """A real signal to a process of its own."""
    words = ["train", str(toy_file), "--model", str(tiny_qwen), "--out", str(tmp_path / "run")]
    errors = tmp_path / "errors"

    def work() -> None:
        with errors.open("w", encoding="utf-8") as file, redirect_stderr(file):
            os.dup2(file.fileno(), 2)
            assert main([*words, "--max-steps", "100000", "--batch-size", "4", "--device", "cpu"]) == 1

    child = split(work)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "run").glob("checkpoints/checkpoint-*/trainer_state.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(child, signal.SIGINT)
    assert ended(child) == 0, errors.read_text(encoding="utf-8")
    told = errors.read_text(encoding="utf-8")
    assert "--resume" in told
    assert "Traceback" not in told
    assert list((tmp_path / "run").glob("checkpoints/checkpoint-*/trainer_state.json"))


def test_an_output_folder_that_holds_a_run_is_not_touched(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)
    before = {file: digest(file) for file in (tmp_path / "run").rglob("*") if file.is_file()}
    with pytest.raises(ArtifactError, match="already holds a complete run"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)
    with pytest.raises(ArtifactError, match="no checkpoint to resume from"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "empty", resume=True, **QUICK)
    assert {file: digest(file) for file in (tmp_path / "run").rglob("*") if file.is_file()} == before
    assert not (tmp_path / "empty").exists()


def test_nobody_else_trains_into_the_same_folder_meanwhile(tiny_bert: Path, toy_file: Path, tmp_path: Path) -> None:
    out, tried = tmp_path / "run", list[bool]()

    def meanwhile(_: Progress) -> None:
        for resume in (False, True):
            with pytest.raises(ArtifactError, match="run: another process trains there"):
                train(toy_file, model=str(tiny_bert), out=out, resume=resume, **QUICK)
            tried.append(resume)

    train(toy_file, model=str(tiny_bert), out=out, tuning="frozen", progress=meanwhile, **QUICK)
    assert tried
    assert read_manifest(out)["tuning"] == "frozen"
    assert not (out / "checkpoints").exists()


def test_a_checkpoint_that_cannot_be_saved_leaves_the_one_before_it(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**QUICK, "max_steps": 14, "tuning": "full"}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)
    saved: list[str] = []

    def full_at_the_second(self: RowTrainer, output_dir: str) -> None:
        saved.append(output_dir)
        if len(saved) == 2:
            raise RuntimeError("[enforce fail at inline_container.cc] unexpected pos")  # what torch.save says of a full disk
        Trainer._save_optimizer_and_scheduler(self, output_dir)

    with monkeypatch.context() as patch:
        patch.setattr(RowTrainer, "_save_optimizer_and_scheduler", full_at_the_second)
        with pytest.raises(ArtifactError, match=r"could not be saved .* --resume"):
            train(toy_file, model=str(tiny_qwen), out=tmp_path / "cut", **options)
    left = {path.name for path in (tmp_path / "cut" / "checkpoints").iterdir()}
    assert left == {"run.json", "checkpoint-7"}
    train(out=tmp_path / "cut", resume=True)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def _interrupted_at(step: int, out: Path, data: Path, model: Path, **options: Any) -> None:
    """Leaves a checkpoint of the step after `step`."""

    def interrupt(progress: Progress) -> None:
        if progress.step == step and progress.metrics is None:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train(data, model=str(model), out=out, progress=interrupt, **options)


def test_a_damaged_checkpoint_is_passed_over_and_the_end_is_the_same(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_steps": 20, "tuning": "lora", "learning_rate": 0.01}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)
    _interrupted_at(17, tmp_path / "cut", toy_file, tiny_qwen, **options)
    newest = Path("checkpoints/checkpoint-18")
    files = {path.name for path in (tmp_path / "cut" / newest).iterdir()}
    assert {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainable.safetensors", "trainer_state.json", "complete"} <= files
    starts = []
    for name in sorted(files):
        run = tmp_path / name
        shutil.copytree(tmp_path / "cut", run)
        content = bytearray((run / newest / name).read_bytes())
        content[len(content) // 2] ^= 1  # one bit, where torch.load would notice nothing
        (run / newest / name).write_bytes(content)
        start = starting_point(run)
        damaged = "" if name == "complete" else f"{name})"  # what its own checksums do not say of itself
        assert any(note.startswith("passed over") and f"checkpoint-18 is damaged ({damaged}" in note for note in start.notes)
        assert any(note.startswith("resuming from") and "checkpoint-18" not in note for note in start.notes)
        starts.append((start.checkpoint.name, start.best.name))
    assert len(set(starts)) == 1, "so one of them shows where all end"
    told: list[str] = []
    train(out=run, resume=True, announce=told.append)
    assert set(start.notes) <= set(told)
    whole, cut = weights_of(tmp_path / "whole"), weights_of(run)
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


def test_without_a_whole_checkpoint_resuming_is_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    _interrupted_at(2, tmp_path / "run", toy_file, tiny_qwen, **QUICK)
    (tmp_path / "run" / "checkpoints" / "checkpoint-3" / "optimizer.pt").write_bytes(b"")
    with pytest.raises(ArtifactError, match=r"no checkpoint can be gone on from .*checkpoint-3 is damaged \(optimizer\.pt\)"):
        train(out=tmp_path / "run", resume=True)


def test_best_weights_that_are_damaged_are_noticed_before_training_goes_on(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    _interrupted_at(9, tmp_path / "run", toy_file, tiny_qwen, **{**QUICK, "max_steps": 20})
    last, best = (tmp_path / "run" / "checkpoints" / f"checkpoint-{step}" for step in (10, 7))
    assert json.loads((last / "trainer_state.json").read_text())["best_model_checkpoint"] == str(best)
    weights = best / "trainable.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match=r"checkpoint-10: checkpoint-7 is damaged \(trainable\.safetensors\)"):
        train(out=tmp_path / "run", resume=True)


def test_a_run_that_moved_is_resumed_with_its_best_weights(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_steps": 20, "tuning": "frozen", "learning_rate": 10.0}  # the first epoch is the best
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)
    _interrupted_at(9, tmp_path / "cut", toy_file, tiny_qwen, **options)
    (tmp_path / "cut").rename(tmp_path / "moved")
    train(out=tmp_path / "moved", resume=True)
    whole, moved = weights_of(tmp_path / "whole"), weights_of(tmp_path / "moved")
    assert all(torch.equal(whole[key], moved[key]) for key in whole)


def test_a_copy_beside_the_checkpoints_is_none_of_them(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_steps": 20}
    _interrupted_at(9, tmp_path / "run", toy_file, tiny_qwen, **options)
    checkpoints = tmp_path / "run" / "checkpoints"
    shutil.copytree(checkpoints / "checkpoint-7", checkpoints / "checkpoint-7.bak")
    with pytest.raises(ArtifactError, match="unfinished run; continue it with --resume"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **options)
    result = train(out=tmp_path / "run", resume=True)
    assert any(note.startswith("resuming from") and note.endswith("checkpoint-10") for note in result.notes)


def test_rows_come_in_the_order_that_a_training_was_begun_in(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where rows of a step are of like length follows from the device, and a training may be gone on with on another."""
    _interrupted_at(2, tmp_path / "run", toy_file, tiny_qwen, **QUICK)
    begun = tmp_path / "run" / "checkpoints" / "run.json"
    told = json.loads(begun.read_text(encoding="utf-8"))
    elsewhere = not told["alike"]
    begun.write_text(json.dumps({**told, "alike": elsewhere}), encoding="utf-8")
    drawn: list[bool] = []

    def seen(*given: Any, alike: bool) -> TrainingBatches:
        drawn.append(alike)
        return TrainingBatches(*given, alike=alike)

    monkeypatch.setattr("fenlei.training.trainer.TrainingBatches", seen)
    train(out=tmp_path / "run", resume=True)
    assert set(drawn) == {elsewhere}


def test_what_tensorboard_shows_outlives_the_training(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a writer in place of TensorBoard's, which is no dependency: what matters is where it is told to write."""

    class Writer:
        def __init__(self, log_dir: str) -> None:
            Path(log_dir).mkdir(parents=True, exist_ok=True)
            self._file = Path(log_dir) / "events"

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self._file.write_text(f"{name} {value} {step}")

        def add_text(self, name: str, text: str, step: int = 0) -> None: ...
        def add_image(self, name: str, image: object, dataformats: str) -> None: ...
        def flush(self) -> None: ...
        def close(self) -> None: ...

    monkeypatch.setattr("transformers.integrations.integration_utils.is_tensorboard_available", lambda: True)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", types.SimpleNamespace(SummaryWriter=Writer))
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", report_to="tensorboard", **QUICK)
    assert (tmp_path / "run" / "logs" / "events").exists()
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "elsewhere"))
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "other", report_to="tensorboard", **QUICK)
    assert (tmp_path / "elsewhere" / "events").exists()
    assert not (tmp_path / "other" / "logs").exists()


def test_nothing_of_the_users_is_overwritten(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    (tmp_path / "work" / "model").mkdir(parents=True)
    (tmp_path / "work" / "model" / "mine.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="is not empty"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "work", **QUICK)
    assert (tmp_path / "work" / "model" / "mine.txt").read_text() == "mine"


def test_resuming_with_other_data_is_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.step == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(TrainingInterrupted):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", progress=interrupt, **QUICK)
    toy_file.write_text(toy_file.read_text(encoding="utf-8").replace("银行", "央行"), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"toy_news\.jsonl changed since the training was begun"):
        train(out=tmp_path / "run", resume=True)


def test_another_base_model_is_not_gone_on_with(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """Adapters that have half learned over one are of no use over another, and a finished run would name that one alone."""
    base = tmp_path / "base"
    shutil.copytree(tiny_qwen, base)
    _interrupted_at(1, tmp_path / "run", toy_file, base, tuning="lora", **QUICK)
    weights = load_file(base / "model.safetensors")
    for parameter in weights.values():
        parameter.mul_(1.001)
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match="run: the base model changed since the training was begun"):
        train(out=tmp_path / "run", resume=True)


def test_another_prompt_is_not_gone_on_with(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    labels, notes = tmp_path / "labels.yaml", "- name: 科技\n  description: 芯片和航天\n- 体育\n- 财经\n"
    labels.write_text(notes, encoding="utf-8")
    options = {**QUICK, "class_file": str(labels), "method": "generate", "tuning": "lora", "lora_rank": 2, "max_length": 300}
    _interrupted_at(1, tmp_path / "run", toy_file, tiny_qwen, **options)
    labels.write_text(notes.replace("航天", "软件"), encoding="utf-8")
    with pytest.raises(ArtifactError, match="run: the prompt changed since the training was begun"):
        train(out=tmp_path / "run", resume=True)


def test_a_training_that_was_begun_in_float16_goes_on_where_there_is_none(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    _interrupted_at(2, tmp_path / "run", toy_file, tiny_qwen, **QUICK)
    checkpoint = tmp_path / "run" / "checkpoints" / "checkpoint-3"
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000, "_growth_tracker": 0}
    torch.save(scaler, checkpoint / "scaler.pt")
    seal(checkpoint)
    train(out=tmp_path / "run", resume=True)
    assert read_manifest(tmp_path / "run")["tuning"] == "full"


def test_an_option_that_is_given_counts_where_it_has_its_default_too(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    _interrupted_at(1, tmp_path / "run", toy_file, tiny_qwen, seed=7, **QUICK)  # without the baseline
    with pytest.raises(ArtifactError, match="seed was 7, now 42"):
        train(out=tmp_path / "run", resume=True, seed=42)
    assert train(out=tmp_path / "run", resume=True, baseline=True).baseline is not None
    assert read_manifest(tmp_path / "run")["seed"] == 7


@pytest.mark.usefixtures("exact")
def test_ways_to_take_less_memory_may_be_others_than_at_the_beginning(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_steps": 5, "tuning": "full", "learning_rate": 0.001}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "whole", **options)
    _interrupted_at(2, tmp_path / "cut", toy_file, tiny_qwen, **options)
    train(out=tmp_path / "cut", resume=True, gradient_checkpointing=True)
    assert RunConfig.from_yaml(tmp_path / "cut" / "config.yaml").optimization.gradient_checkpointing
    whole, cut = weights_of(tmp_path / "whole"), weights_of(tmp_path / "cut")
    apart = torch.cat([(whole[key] - cut[key]).abs().flatten() for key in whole])
    assert (apart > 1e-5).float().mean() < 0.01


def test_a_damaged_run_is_an_error_and_never_a_random_answer(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    lost = {"full": "model.safetensors", "lora": "adapter_model.safetensors", "frozen": "head.safetensors"}
    for tuning, file in lost.items():
        run = tmp_path / tuning
        train(toy_file, model=str(tiny_qwen), out=run, tuning=tuning, **QUICK)
        path = run / "model" / file
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        with pytest.raises((ArtifactError, ModelError)):
            Classifier.load(run)
        path.unlink()
        with pytest.raises((ArtifactError, ModelError)):
            Classifier.load(run)


def test_a_run_that_lost_its_head_is_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="full", **QUICK)
    file = tmp_path / "run" / "model" / "model.safetensors"
    save_file({key: value for key, value in load_file(file).items() if not key.startswith("score")}, file, metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"model/model\.safetensors was changed.*score\.weight"):
        Classifier.load(tmp_path / "run")


def test_a_base_that_moved_or_changed_is_named(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_qwen, base)
    train(toy_file, model=str(base), out=tmp_path / "run", tuning="lora", **QUICK)
    config = base / "config.json"
    config.write_text(config.read_text().replace('"rms_norm_eps": 1e-06', '"rms_norm_eps": 1e-05'))
    with pytest.raises(ArtifactError, match="is not the base model that this run was trained on"):
        Classifier.load(tmp_path / "run")
    config.write_bytes((tiny_qwen / "config.json").read_bytes())
    weights = load_file(base / "model.safetensors")
    for parameter in weights.values():
        parameter.mul_(1.001)  # what more training does: the same names, shapes and sizes
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ArtifactError, match=r"\(other weights\); restore"):
        Classifier.load(tmp_path / "run")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ArtifactError, match=r"base_model.folder"):
        Classifier.load(tmp_path / "run")


def test_the_rows_set_aside_for_test_can_be_evaluated(tiny_qwen: Path, tmp_path: Path, toy_rows: list[dict[str, str]]) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"headline": row["text"], "body": "正文", "kind": row["label"]} for row in toy_rows]
    write_jsonl(data, rows)
    columns = {"text_column": "headline,body", "label_column": "kind"}
    result = train(data, model=str(tiny_qwen), out=tmp_path / "run", test_ratio=0.2, **columns, **QUICK)
    assert result.test_data is not None
    assert evaluate_run(result.out, result.test_data).metrics.rows == 12


def test_what_the_end_of_a_training_found_is_told_like_what_came_before(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    told: list[str] = []
    result = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", announce=told.append, **QUICK)
    assert told == list(result.notes)
    assert any(note.startswith("not calibrated: ") for note in told)


def test_the_column_that_texts_were_learned_from_is_read_in_other_files(
    tiny_qwen: Path, tmp_path: Path, toy_rows: list[dict[str, str]]
) -> None:
    """It was found by its name; in the other file `content` would be found before it."""
    run, titles, bodies = tmp_path / "run", tmp_path / "titles.jsonl", tmp_path / "bodies.jsonl"
    rows = [{"title": row["text"], "label": row["label"]} for row in toy_rows]
    write_jsonl(titles, rows)
    more = [{"content": "正文", **row} for row in rows]
    write_jsonl(bodies, more)
    train(titles, model=str(tiny_qwen), out=run, tuning="frozen", **QUICK)
    assert read_manifest(run)["read_from"] == ["title"]
    measured = [evaluate_run(run, file, device="cpu").metrics.log_loss for file in (bodies, titles)]
    assert measured[0] == pytest.approx(measured[1], abs=1e-5)

    out = tmp_path / "out.jsonl"
    assert main(["predict", str(run), str(bodies), "--out", str(out), "--device", "cpu"]) == 0
    predicted = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    evaluated = [json.loads(line) for line in (run / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    right = [row["confidence"] for row in evaluated]
    assert len(set(right)) > 10
    assert [row["confidence"] for row in predicted] == pytest.approx(right, abs=1e-5)
    frame = Classifier.load(run, device="cpu").predict_frame(pa.Table.from_pylist(more))
    assert [row["confidence"] for row in frame.to_pylist()] == pytest.approx(right, abs=1e-5)


def test_a_head_of_the_wrong_shape_is_named(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must give \(rows, 3\)"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", head=nn.Linear(32, 5), **QUICK)
    with pytest.raises(ConfigError, match="does not take float32"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", head=nn.Linear(31, 3), **QUICK)


def test_an_unknown_tracker_is_a_wrong_option(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="report_to 'nonesuch'"):
        train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", report_to="nonesuch", **QUICK)


def test_bad_data_is_met_before_anything_is_written(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    one_class = tmp_path / "one.jsonl"
    one_class.write_text('{"text": "a", "label": "x"}\n' * 9, encoding="utf-8")
    with pytest.raises(DataError, match="class"):
        train(one_class, model=str(tiny_qwen), out=tmp_path / "run", **QUICK)
    with pytest.raises(ModelError, match="nano"):
        train(toy_file, model=str(tmp_path / "no-model"), out=tmp_path / "run", **QUICK)
    assert not (tmp_path / "run").exists()


def test_disk_full_while_saving_leaves_nothing_half_written(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """A real refusal of the system to write more: a limit on file size, in a process of its own."""

    def work() -> None:
        import resource  # not on Windows

        real = fit.finish

        def full_disk(*args: Any, **options: Any) -> Any:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            return real(*args, **options)

        fit.finish = full_disk
        with pytest.raises(ArtifactError, match="could not be saved"):
            train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", max_steps=2, device="cpu", baseline=False)

    assert ended(split(work)) == 0
    left = {path.name for path in (tmp_path / "run").iterdir()}
    assert left == {"checkpoints"}, "only what --resume needs may stay"


def test_dry_run_explains_and_writes_nothing(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    plan = dry_run(toy_file, model=str(tiny_qwen), prompt="zh", long="truncate", **QUICK)
    assert sum(plan.labels.values()) == 51
    assert plan.texts_cut > 0
    assert plan.inputs[0].startswith("请判断")
    assert plan.inputs[0].endswith("类别：")
    assert plan.steps == 4
    assert plan.seconds > 0
    assert plan.memory_bytes > 0
    assert "nothing was trained" in str(plan)
    assert sorted(tmp_path.iterdir()) == [toy_file]


def test_a_dry_run_tries_what_training_does(tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In training mode, without which no activation is recomputed; and a frozen backbone reads a row once, whatever the epochs."""
    learning: list[bool] = []

    def paced(setup: Any, rows: list[int]) -> None:
        learning.append(setup.method.training)

    clock = iter(range(1000))
    monkeypatch.setattr("fenlei.training.dry_run._forward_backward", paced)
    monkeypatch.setattr("fenlei.training.dry_run.time.perf_counter", lambda: float(next(clock)))
    options = {key: value for key, value in QUICK.items() if key != "max_steps"}
    seconds = {
        (tuning, epochs): dry_run(toy_file, model=str(tiny_qwen), tuning=tuning, epochs=epochs, **options).seconds
        for tuning in ("frozen", "lora")
        for epochs in (1, 10)
    }
    assert all(learning)
    assert seconds["frozen", 10] == seconds["frozen", 1]
    assert seconds["lora", 10] == pytest.approx(10 * seconds["lora", 1])


def test_a_dry_run_clocks_what_a_gpu_has_computed(tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes are only launched there, and are waited for before each look at the clock."""
    came: list[str] = []

    def looked_at() -> float:
        came.append("clock")
        return float(len(came))

    monkeypatch.setattr("fenlei.training.dry_run._forward_backward", lambda setup, rows: came.append("passes"))
    monkeypatch.setattr("fenlei.training.dry_run._wait_for", lambda device: came.append("waited for"))
    monkeypatch.setattr("fenlei.training.dry_run.time", types.SimpleNamespace(perf_counter=looked_at))
    dry_run(toy_file, model=str(tiny_qwen), tuning="frozen", **QUICK)
    assert came == ["passes", "waited for", "clock"] * 2


def test_a_dry_run_of_what_learns_nothing_takes_no_time(tiny_qwen: Path, toy_file: Path) -> None:
    plan = dry_run(toy_file, model=str(tiny_qwen), method="generate", tuning="none", device="cpu")
    assert (plan.steps, plan.seconds) == (0, 0.0)


def test_choices_are_explained(tiny_qwen: Path, toy_file: Path) -> None:
    setup = prepare(RunConfig.from_options({"data": str(toy_file), "model": str(tiny_qwen)}))
    told = "\n".join(setup.notes)
    for name in ("tuning full", "learning_rate", "epochs", "max_length 256", "trainable parameters"):
        assert name in told
    assert None not in (setup.config.model.tuning, setup.config.optimization.learning_rate, setup.config.optimization.epochs)


@pytest.mark.parametrize(("model", "dtype"), [("tiny_qwen", torch.float32), ("tiny_qwen", torch.bfloat16), ("tiny_bert", torch.float32)])
def test_a_classifier_lends_its_head_to_the_same_labels_alone(
    model: str, dtype: torch.dtype, toy_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base: Path = request.getfixturevalue(model)
    own = prepare(RunConfig.from_options({"data": str(toy_file), "model": str(base)}))
    assert not any(note.startswith("head:") for note in own.notes)
    names = own.dataset.labels.names
    for folder, given in (("same", names), ("order", names[::-1]), ("others", ("A", "B", "C")), ("more", (*names, "D"))):
        classifier = load_network(base, LabelSet(given), int(own.tokenizer.pad_token_id), layers=None, dtype=dtype)
        for module in head_modules(classifier).values():
            for parameter in module.parameters():
                torch.nn.init.constant_(parameter, 0.5)
        classifier.save_pretrained(tmp_path / folder)
        own.tokenizer.save_pretrained(tmp_path / folder)
        setup = prepare(RunConfig.from_options({"data": str(toy_file), "model": str(tmp_path / folder)}))
        (note,) = (note for note in setup.notes if note.startswith("head:"))
        heads = {
            name: torch.cat([p.flatten() for p in module.parameters()])
            for name, module in head_modules(setup.method.stock).items()
            if any(True for _ in module.parameters())
        }
        pooler = heads.pop("bert.pooler", None)
        assert pooler is None or (pooler == 0.5).all(), "the pooler belongs to the pretrained model"
        (head,) = heads.values()
        assert head.dtype == torch.float32
        if folder == "same":
            assert note.endswith("a classifier of the same labels")
            assert (head == 0.5).all()
        else:
            assert note.startswith("head: fresh")
            assert given[0] in note
            assert 0 < head.abs().max() < 0.2, "drawn as transformers draws a new head"


def test_choices_are_those_for_the_blocks_that_are_kept(tiny_qwen: Path, toy_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A deep model cut down to a small one is trained as a small one: all of it, at a small model's learning rate."""
    whole = backbone_parameters(tiny_qwen, None)
    half = backbone_parameters(tiny_qwen, 1)
    assert half < whole
    monkeypatch.setattr("fenlei.training.defaults.LORA_FROM_PARAMETERS", (half + whole) // 2)
    for layers, tuning in ((None, "lora"), (1, "full")):
        setup = prepare(RunConfig.from_options({"data": str(toy_file), "model": str(tiny_qwen), "layers": layers}))
        assert setup.config.model.tuning == tuning
    assert sum(parameter.numel() for parameter in setup.method.stock.base_model.parameters()) == half, "what is counted is what is loaded"
    with pytest.raises(ConfigError, match="layers 3: the model has only 2"):
        prepare(RunConfig.from_options({"data": str(toy_file), "model": str(tiny_qwen), "layers": 3}))


def test_the_prompt_of_a_head_has_no_place_for_labels(tmp_path: Path, toy_file: Path) -> None:
    with pytest.raises(ConfigError, match=r"prompt has a place for the labels, \{labels\}, which method generate alone fills"):
        train(toy_file, model="nano", prompt="类别：{labels}\n文本：{text}", out=tmp_path / "run")


def test_no_data_and_no_model_are_said(tmp_path: Path, toy_file: Path) -> None:
    with pytest.raises(ConfigError, match="no data"):
        train(model="nano", out=tmp_path / "run")
    with pytest.raises(ConfigError, match="no model"):
        train(toy_file, out=tmp_path / "run")
