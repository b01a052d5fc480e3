"""A linear head over a frozen decoder begins where ridge regression ends, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from safetensors.torch import load_file
from sklearn.linear_model import Ridge
from torch import nn

from fenlei import train
from fenlei.config import RunConfig
from fenlei.models.passages import average
from fenlei.training import frozen, solved_head, vectors
from fenlei.training.defaults import propose_prompt
from fenlei.training.extend import extend
from fenlei.training.setup import Setup, prepare
from fenlei.training.solved_head import PENALTIES, SHARPNESS, begin_solved, solved_weight
from fenlei.training.vectors import cached_vectors

QUICK: dict[str, Any] = {"device": "cpu", "baseline": False}
STILL: dict[str, Any] = {**QUICK, "max_steps": 1, "learning_rate": 1e-12}


def prepared(data: Path, model: Path, **options: Any) -> Setup:
    return prepare(RunConfig.from_options({"data": str(data), "model": str(model), "tuning": "frozen", "device": "cpu", **options}))


def begun(setup: Setup) -> torch.Tensor:
    states = cached_vectors(setup.method, setup.base, setup.train)  # type: ignore[arg-type]
    begin_solved(setup.method, states, setup.train, setup.label_ids, setup.config.optimization.imbalance)  # type: ignore[arg-type]
    return setup.method.stock.score.weight.detach().clone()  # type: ignore[union-attr, return-value]


def clouds(shift: float, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three clouds about a large common mean, the dimensions of different sizes."""
    random = np.random.default_rng(0)
    gold = np.arange(rows) % 3
    states = (random.normal(size=(3, 12))[gold] + 0.3 * random.normal(size=(rows, 12))) * np.logspace(-2, 1, 12) + shift
    return states.astype(np.float32), np.eye(3, dtype=bool)[gold]


@pytest.mark.parametrize("shift", [0.0, 50.0])
def test_the_weight_is_that_of_ridge_regression(shift: float) -> None:
    states, targets = clouds(shift)
    weight = solved_weight(states, targets, np.ones(len(states)))
    size = states.std(axis=0, dtype=np.float64)
    wanted = SHARPNESS * (targets - 1 / 3) + np.log(1 / 3)
    each = [Ridge(penalty, fit_intercept=False).fit(states / size, wanted).coef_ / size for penalty in PENALTIES]
    assert min(np.abs(weight - one).max() for one in each) < 1e-3 * np.abs(weight).max()
    assert ((states @ weight.T).argmax(axis=1) == targets.argmax(axis=1)).mean() == 1.0


def test_a_state_that_never_changes_breaks_nothing() -> None:
    states, targets = clouds(0.0)
    weight = solved_weight(np.concatenate([states, np.zeros((len(states), 1), np.float32)], axis=1), targets, np.ones(len(states)))
    assert np.isfinite(weight).all()
    assert (weight[:, -1] == 0).all()


def test_a_run_begins_there(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", **STILL)
    saved = load_file(tmp_path / "run" / "model" / "head.safetensors")
    assert torch.allclose(next(iter(saved.values())), begun(prepared(toy_file, tiny_qwen)), rtol=1e-4, atol=1e-6)


def test_a_state_without_a_number_is_left_to_the_training(toy_file: Path, tiny_qwen: Path) -> None:
    setup = prepared(toy_file, tiny_qwen)
    states = np.array(cached_vectors(setup.method, setup.base, setup.train))  # type: ignore[arg-type]
    head = setup.method.stock.score.weight  # type: ignore[union-attr]
    states[3] = np.nan
    begin_solved(setup.method, states, setup.train, setup.label_ids, "none")  # type: ignore[arg-type]
    wanted = solved_weight(np.delete(states, 3, axis=0), np.eye(3, dtype=bool)[np.delete(setup.label_ids, 3)], np.ones(len(states) - 1))
    assert np.allclose(head.detach().numpy(), wanted, rtol=1e-3, atol=1e-5)  # type: ignore[operator]
    before = head.detach().clone()  # type: ignore[operator]
    begin_solved(setup.method, np.full_like(states, np.nan), setup.train, setup.label_ids, "none")  # type: ignore[arg-type]
    assert torch.equal(head, before)  # type: ignore[arg-type]


def test_windows_are_joined_as_they_are_at_first(tiny_qwen: Path, tmp_path: Path) -> None:
    """Attention weighs every window alike before it has learned."""
    rows = [{"text": f"{word}。" * count, "label": word} for word in ("足球", "股票", "电影") for count in range(3, 43, 4)]
    data = write_jsonl(tmp_path / "long.jsonl", rows)
    setup = prepared(data, tiny_qwen, long="windows", max_length=32, dev_ratio=0.4)
    assert setup.train.windows is not None
    assert setup.train.windows.counts.max() > 1
    counts = torch.from_numpy(setup.train.windows.counts)
    states = average(torch.from_numpy(np.array(cached_vectors(setup.method, setup.base, setup.train))), counts).numpy()  # type: ignore[arg-type]
    wanted = solved_weight(states, np.eye(3, dtype=bool)[setup.label_ids], np.ones(len(states)))
    assert np.allclose(begun(setup).numpy(), wanted, rtol=1e-3, atol=1e-5)


def test_texts_without_labels_stand_behind_the_rows_that_solve(tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a student's do: whole groups of windows are of none of the rows."""
    monkeypatch.setattr(vectors, "SCORED_ROWS", 4)
    texts = [f"{word}。" * count for word in ("足球", "股票") for count in range(3, 43, 4)]
    data = write_jsonl(tmp_path / "long.jsonl", ({"text": one, "label": one[:2]} for one in texts))
    config = RunConfig.from_options(
        {"data": str(data), "model": str(tiny_qwen), "tuning": "frozen", "device": "cpu", "long": "windows", "max_length": 32}
    )
    alone = prepare(config)
    with_more = prepare(config, unlabelled=[replace(alone.dataset.train[0], text=text + "。", label=None) for text in texts])
    assert torch.allclose(begun(with_more), begun(alone), rtol=1e-3, atol=1e-5)


def test_several_labels(tiny_qwen: Path, tmp_path: Path) -> None:
    words = ("足球", "股票", "电影")
    rows = [{"text": f"{one}{other}第{at}", "label": sorted({one, other})} for at in range(8) for one in words for other in words]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    setup = prepared(data, tiny_qwen)
    begun(setup)
    states = torch.from_numpy(np.array(cached_vectors(setup.method, setup.base, setup.train)))  # type: ignore[arg-type]
    assert (((setup.method(states).logits > 0).detach().numpy() == setup.label_ids).mean()) > 0.9


@pytest.mark.parametrize("cure", ["balanced", "effective-number", "logit-adjustment", "balanced-sampling"])
def test_cures_take_classes_alike(cure: str, tiny_qwen: Path, tmp_path: Path) -> None:
    """Texts that say nothing of their label: only how often each comes tells them apart."""
    rows = [{"text": f"第{at % 7}条", "label": "稀" if at % 15 == 14 else "常"} for at in range(150)]
    data = write_jsonl(tmp_path / "uneven.jsonl", rows)

    def ahead(kind: str) -> float:
        setup = prepared(data, tiny_qwen, imbalance=kind)
        begun(setup)
        logits = setup.method(torch.from_numpy(np.array(cached_vectors(setup.method, setup.base, setup.train)))).logits  # type: ignore[arg-type]
        places = [setup.dataset.labels.names.index(name) for name in ("常", "稀")]
        return float((logits[:, places[0]] - logits[:, places[1]]).mean().detach())

    assert ahead("none") > 2.0
    assert abs(ahead(cure)) < 1.0


def test_a_sample_of_many_rows_is_enough(toy_file: Path, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every part of the file, which may be sorted by label."""
    whole = begun(prepared(toy_file, tiny_qwen))
    monkeypatch.setattr(vectors, "SCORED_ROWS", 7)
    assert torch.allclose(begun(prepared(toy_file, tiny_qwen)), whole, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(solved_head, "MOST_ROWS", 30)
    lines = toy_file.read_text(encoding="utf-8").splitlines()
    toy_file.write_text("\n".join(sorted(lines, key=lambda line: json.loads(line)["label"])) + "\n", encoding="utf-8")
    setup = prepared(toy_file, tiny_qwen)
    assert len(set(setup.label_ids[:30])) == 2, "the first rows know nothing of the third class"
    weight = begun(setup)
    assert not torch.allclose(weight, whole)
    states = torch.from_numpy(np.array(cached_vectors(setup.method, setup.base, setup.train)))  # type: ignore[arg-type]
    right = setup.method(states).logits.argmax(dim=1).numpy() == setup.label_ids
    assert min(right[setup.label_ids == label].mean() for label in range(3)) > 0.5


GENERATES = {"method": "generate", "tuning": "lora"}


@pytest.mark.parametrize(
    ("options", "solves"),
    [({}, True), ({"head": "mlp"}, False), ({"tuning": "lora"}, False), ({"tuning": "full"}, False), (GENERATES, False)],
)
def test_only_a_linear_head_over_a_frozen_decoder_is_solved(options: dict[str, Any], solves: bool, toy_file: Path, tiny_qwen: Path) -> None:
    assert prepared(toy_file, tiny_qwen, **options).solved is solves


def test_an_encoder_and_a_head_of_the_users_own_are_not(toy_file: Path, tiny_qwen: Path, tiny_bert: Path) -> None:
    encoder = prepared(toy_file, tiny_bert)
    assert not encoder.solved
    assert encoder.config.optimization.learning_rate == 1e-3
    own = RunConfig.from_options({"data": str(toy_file), "model": str(tiny_qwen), "tuning": "frozen", "device": "cpu"})
    assert not prepare(own, head=nn.Linear(prepared(toy_file, tiny_qwen).method.stock.config.hidden_size, 3)).solved  # type: ignore[union-attr]


def test_the_head_of_a_classifier_of_the_same_labels_stays(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "first", tuning="full", learning_rate=1e-3, max_steps=2, **QUICK)
    base = tmp_path / "first" / "model"
    setup = prepared(toy_file, base)
    had = setup.method.stock.score.weight.detach().clone()  # type: ignore[union-attr, operator]
    assert not setup.solved
    train(toy_file, model=str(base), out=tmp_path / "second", tuning="frozen", **STILL)
    assert torch.allclose(next(iter(load_file(tmp_path / "second" / "model" / "head.safetensors").values())), had, atol=1e-6)


def test_an_extension_goes_on_with_the_head_it_has(
    toy_file: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", **STILL)
    new = write_jsonl(tmp_path / "new.jsonl", ({"text": f"明天有雨第{at}", "label": "天气"} for at in range(20)))
    monkeypatch.setattr(frozen, "begin_solved", None)  # a call would raise
    extend(tmp_path / "run", new, replay=toy_file, out=tmp_path / "out", **STILL)
    before, after = (next(iter(load_file(tmp_path / name / "model" / "head.safetensors").values())) for name in ("run", "out"))
    assert torch.allclose(after[:3], before, atol=1e-6)


def test_a_run_tells_where_its_head_begins(toy_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    result = train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", max_steps=1, **QUICK)
    assert any(note.startswith("learning_rate 0.0001") and note.endswith("does not begin at random") for note in result.notes)


def test_a_large_decoder_that_learns_nothing_is_proposed_a_prompt() -> None:
    def proposed(parameters: int, *, decodes: bool = True, **options: Any) -> str | None:
        return propose_prompt(RunConfig.from_options({"tuning": "frozen", **options}).model, parameters, decodes=decodes)

    assert "--prompt zh" in (proposed(500_000_000) or "")
    assert proposed(5_000_000) is proposed(500_000_000, decodes=False) is proposed(500_000_000, prompt="zh") is None
    assert proposed(500_000_000, tuning="lora") is None
