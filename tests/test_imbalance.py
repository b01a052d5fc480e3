"""Uneven classes: every cure does what its paper says, and helps the small class."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from conftest import write_jsonl

from fenlei import Classifier, train
from fenlei.config import Imbalance, RunConfig
from fenlei.errors import ConfigError
from fenlei.text.batches import TrainingBatches
from fenlei.training.imbalance import check_imbalance, class_counts, cure_of, proposal, row_shares
from fenlei.training.objectives import choose_loss
from fenlei.training.setup import prepare

COUNTS = np.array([1000, 100, 10])
LOGITS, GOLD = torch.tensor([[2.0, 0.5, -1.0], [0.3, 0.1, 0.2], [1.0, -2.0, 0.0]]), torch.tensor([0, 2, 1])


def loss(kind: str, **more: Any) -> torch.Tensor:
    return choose_loss(RunConfig.from_options({"imbalance": kind, **more}), COUNTS)(LOGITS, GOLD)


def cross_entropy(logits: torch.Tensor, **more: Any) -> torch.Tensor:
    return torch.nn.functional.cross_entropy(logits, GOLD, **more)


def test_each_cure_is_its_formula() -> None:
    torch.testing.assert_close(loss("none"), cross_entropy(LOGITS, reduction="sum"))
    torch.testing.assert_close(loss("balanced-sampling"), loss("none"), msg="rows are drawn otherwise, and count alike")
    weights = torch.tensor([1110 / 3 / count for count in COUNTS.tolist()])
    torch.testing.assert_close(loss("balanced"), cross_entropy(LOGITS, weight=weights, reduction="sum"))
    torch.testing.assert_close(
        loss("logit-adjustment"), cross_entropy(LOGITS + torch.log(torch.tensor(COUNTS / 1110)).float(), reduction="sum")
    )
    p = LOGITS.softmax(dim=1)[torch.arange(3), GOLD]
    torch.testing.assert_close(loss("focal"), (-((1 - p) ** 2) * p.log()).sum())
    effective = torch.tensor([(1 - 0.999**count) / 0.001 for count in COUNTS.tolist()])
    found = cure_of("effective-number", COUNTS).weights
    assert found is not None
    torch.testing.assert_close(found / found[0], (effective[0] / effective).float())


@pytest.mark.parametrize("kind", ["balanced", "effective-number"])
def test_weights_leave_the_mean_row_as_it_was(kind: Any) -> None:
    """Else the learning rate would mean another thing."""
    weights = cure_of(kind, COUNTS).weights
    assert weights is not None
    assert float((weights * torch.tensor(COUNTS)).sum() / COUNTS.sum()) == pytest.approx(1)
    assert weights[2] > weights[1] > weights[0]


def test_cures_stand_beside_smoothing_and_candidates() -> None:
    smooth = cross_entropy(LOGITS, weight=torch.tensor([1110 / 3 / count for count in COUNTS.tolist()]), reduction="none")
    assert loss("balanced", label_smoothing=0.1) != smooth.sum()
    config = RunConfig.from_options({"imbalance": "logit-adjustment", "label_smoothing": 0.1})
    logits = LOGITS.clone().requires_grad_()
    offered = logits.masked_fill(torch.tensor([[False, True, False], [True, False, False], [False, False, True]]), -torch.inf)
    choose_loss(config, COUNTS)(offered, GOLD).backward()
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


def test_a_class_without_rows_breaks_nothing() -> None:
    for kind in get_args(Imbalance):
        cure = cure_of(kind, np.array([5, 0]))
        assert all(torch.isfinite(one).all() for one in (cure.weights, cure.log_prior) if one is not None)
    shares = row_shares("balanced-sampling", np.array([0, 0, 2, 0]))
    assert shares is not None
    np.testing.assert_allclose(shares, [1 / 6, 1 / 6, 1 / 2, 1 / 6])


def test_classes_are_drawn_alike_and_by_the_seed() -> None:
    label_ids = np.repeat([0, 1], [950, 50])
    shares = row_shares("balanced-sampling", label_ids)
    batches = TrainingBatches(np.ones(1000, dtype=np.int64), 32, seed=1, shares=shares)
    drawn = [row for batch in batches for row in batch]
    assert len(drawn) == 1000
    assert 0.45 < label_ids[drawn].mean() < 0.55
    assert drawn == [row for batch in batches for row in batch]
    batches.set_epoch(1)
    assert drawn != [row for batch in batches for row in batch]


def test_several_labels_a_row_have_thresholds_instead(tmp_path: Path, tiny_qwen: Path) -> None:
    path = tmp_path / "many.jsonl"
    rows = [{"text": f"第{at}条", "label": ["甲"] if at % 20 else ["甲", "乙"]} for at in range(60)]
    write_jsonl(path, rows)
    with pytest.raises(ConfigError, match="one label a row"):
        prepare(RunConfig.from_options({"data": str(path), "model": str(tiny_qwen), "imbalance": "balanced"}))
    np.testing.assert_array_equal(class_counts(np.array([[True, False], [True, True]]), 2), [2, 1])


def test_tokens_know_no_labels_to_compare() -> None:
    for kind in ("focal", "logit-adjustment"):
        with pytest.raises(ConfigError, match="objective 'tokens'"):
            RunConfig.from_options({"method": "generate", "objective": "tokens", "imbalance": kind})
    assert "balanced-sampling" in str(proposal(RunConfig.from_options({"method": "generate", "objective": "tokens"}), COUNTS))


@pytest.fixture
def uneven_file(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    """One class with a twentieth of the rows of the other, and texts that say which only in part."""
    generator = np.random.default_rng(0)
    rows = []
    for at in range(210):
        label = "稀" if at % 21 == 20 else "常"
        told = generator.random() < 0.5 if label == "稀" else generator.random() < 0.05
        rows.append({"text": f"第{int(generator.integers(0, 9))}条{'快讯' if told else '消息'}", "label": label})
    return write_jsonl(tmp_path / "uneven.jsonl", rows)


def test_a_cure_is_proposed_from_ten_to_one_on() -> None:
    config = RunConfig.from_options({})
    assert proposal(config, np.array([100, 10])) is not None
    assert proposal(config, np.array([99, 10])) is None
    assert proposal(config, np.array([99, 10, 0])) is None, "a class without rows is another matter"


def test_where_nothing_learns_nothing_is_evened_out() -> None:
    config = RunConfig.from_options({"method": "generate", "tuning": "none", "imbalance": "balanced-sampling"})
    with pytest.raises(ConfigError, match="imbalance 'balanced-sampling' changes what is learned, and with tuning 'none' nothing is"):
        check_imbalance(config, multi_label=False)


def test_training_proposes_a_cure_and_takes_none_by_itself(uneven_file: Path, toy_file: Path, tiny_qwen: Path) -> None:
    more = {"model": str(tiny_qwen), "tuning": "frozen", "device": "cpu"}
    setup = prepare(RunConfig.from_options({"data": str(uneven_file), **more}))
    assert setup.config.optimization.imbalance == "none"
    (note,) = [note for note in setup.notes if note.startswith("uneven classes")]
    assert "--imbalance logit-adjustment" in note
    assert not any("classes are uneven" in note for note in setup.notes), "said once"
    cured = prepare(RunConfig.from_options({"data": str(uneven_file), "imbalance": "focal", **more}))
    assert not any(note.startswith("uneven classes") for note in cured.notes)
    assert any("classes are uneven" in note for note in cured.notes)
    even = prepare(RunConfig.from_options({"data": str(toy_file), **more}))
    assert not any(note.startswith("uneven classes") for note in even.notes)


def test_a_cure_finds_more_of_the_small_class(uneven_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Of two classes that half the small one's texts cannot tell apart, the plain loss answers the large one."""

    def lead_of_small(imbalance: str) -> float:
        out = tmp_path / imbalance
        train(
            uneven_file, out=out, model=str(tiny_qwen), tuning="frozen", learning_rate=0.05, epochs=8, device="cpu", baseline=False,
            imbalance=imbalance,
        )  # fmt: skip
        classifier = Classifier.load(out, device="cpu")
        column = classifier.labels.index("稀")
        logits = classifier.logits([f"第{at}条快讯" for at in range(9)]).logits
        return float((logits[:, column] - logits[:, 1 - column]).mean())

    plain = lead_of_small("none")
    for kind in ("balanced", "logit-adjustment", "balanced-sampling"):
        assert lead_of_small(kind) > plain + 0.5
