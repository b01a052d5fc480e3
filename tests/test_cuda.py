"""On a real GPU: what holds on the CPU holds there, and both say the same. Skipped where there is none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fenlei import Classifier, train
from fenlei.config import RunConfig
from fenlei.inference.scoring import score
from fenlei.text.batches import DocumentBatch, batch_of
from fenlei.training.fit import TrainResult
from fenlei.training.recorded import RecordedPasses, never_waiting
from fenlei.training.setup import prepare
from fenlei.training.vectors import cache_folder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")

RUN: dict[str, Any] = {"max_steps": 12, "batch_size": 8, "learning_rate": 0.003, "baseline": False, "max_length": 200}
APART = 0.03
"""Of probabilities, between bfloat16 on a GPU and what the CPU computes in."""


def trained(model: Path, data: Path, out: Path, **options: Any) -> TrainResult:
    return train(data, model=str(model), out=out, **{**RUN, "device": "cuda", **options})


@pytest.mark.parametrize(
    ("base", "options"),
    [
        ("tiny_qwen", {"tuning": "full"}),
        ("tiny_qwen", {"tuning": "lora"}),
        ("tiny_qwen", {"tuning": "frozen"}),
        ("tiny_llama", {"tuning": "lora", "head": "mlp"}),
        ("tiny_bert", {"tuning": "full"}),
        ("tiny_bert", {"tuning": "lora"}),
        ("tiny_qwen", {"tuning": "lora", "long": "windows", "max_length": 16}),
        ("tiny_qwen", {"tuning": "lora", "gradient_checkpointing": True}),
        ("tiny_qwen", {"tuning": "lora", "lora_dropout": 0.1}),
        ("tiny_qwen", {"tuning": "lora", "memory": "8GB"}),
        ("tiny_qwen", {"method": "generate", "tuning": "lora"}),
        ("tiny_qwen", {"method": "generate", "tuning": "full", "objective": "tokens"}),
        ("tiny_llama", {"method": "generate", "tuning": "none"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(str(one) for one in value.values()),
)
def test_trained_saved_loaded_asked(
    base: str, options: dict[str, Any], toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    result = trained(request.getfixturevalue(base), toy_file, tmp_path / "run", **options)
    assert not any("launched" in note or "out of memory" in note for note in result.notes), result.notes
    texts = [row["text"] for row in toy_rows[:12]]
    classifier = Classifier.load(tmp_path / "run", device="cuda")
    assert classifier.device.type == "cuda"
    together = classifier.predict_proba(texts)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts])
    np.testing.assert_allclose(alone, together, atol=APART)
    np.testing.assert_allclose(Classifier.load(tmp_path / "run", device="cuda").predict_proba(texts), together, atol=1e-6)
    np.testing.assert_allclose(Classifier.load(tmp_path / "run", device="cpu").predict_proba(texts), together, atol=APART)


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_short_steps_are_replayed_and_give_what_launched_ones_give(
    tuning: str, tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []
    real = RecordedPasses.logits

    def watched(self: RecordedPasses, batch: Any) -> torch.Tensor | None:
        found = real(self, batch)
        seen.append(found is not None)
        return found

    monkeypatch.setattr(RecordedPasses, "logits", watched)
    result = trained(tiny_qwen, toy_file, tmp_path / "replayed", tuning=tuning, max_steps=30)
    assert sum(seen) > 10, result.notes
    with monkeypatch.context() as patch:
        patch.setattr("fenlei.training.fit.recorder_for", lambda setup, ranks: None)
        trained(tiny_qwen, toy_file, tmp_path / "launched", tuning=tuning, max_steps=30)
    texts = [row["text"] for row in toy_rows]
    replayed, launched = (Classifier.load(tmp_path / name, device="cuda").predict_proba(texts) for name in ("replayed", "launched"))
    np.testing.assert_allclose(replayed, launched, atol=2 * APART)


def test_a_cut_off_training_goes_on(tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cut(Exception):
        pass

    def cut(now: Any) -> None:
        if now.step == 9:
            raise Cut

    with pytest.raises(Cut):
        trained(tiny_qwen, toy_file, tmp_path / "run", tuning="lora", progress=cut)
    result = train(out=tmp_path / "run", resume=True)
    assert any(note.startswith("resuming from") for note in result.notes)


def test_the_tokens_at_once_follow_from_the_memory(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    result = trained(tiny_qwen, toy_file, tmp_path / "run", tuning="lora")
    (note,) = (note for note in result.notes if note.startswith("batch_tokens"))
    assert note.startswith("batch_tokens 16384: tokens at once, ")


def test_scoring_asks_the_gpu_for_nothing_but_its_answers(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    """Where a batch is begun, whatever waits for the GPU is an error."""
    trained(tiny_qwen, toy_file, tmp_path / "run", tuning="lora")
    trained(tiny_qwen, toy_file, tmp_path / "asks", method="generate", tuning="lora")
    for run in ("run", "asks"):
        classifier = Classifier.load(tmp_path / run, device="cuda")
        method, real = classifier._run.method, type(classifier._run.method).forward
        encoded = classifier._run.encoder.encode([row["text"] for row in toy_rows])
        usual = score(method, encoded, 3, batch_tokens=300).logits

        def watched(batch: Any, method: Any = method, real: Any = real) -> Any:
            with never_waiting():
                return real(method, batch)

        method.forward = watched
        np.testing.assert_allclose(score(method, encoded, 3, batch_tokens=300).logits, usual, atol=1e-3)


def test_the_cache_of_states_is_there(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    trained(tiny_qwen, toy_file, tmp_path / "run", tuning="frozen")
    assert list(cache_folder().glob("*.npy"))


def test_windows_computed_again_drop_out_the_same(tiny_qwen: Path, toy_file: Path) -> None:
    options = {"data": str(toy_file), "model": str(tiny_qwen), "device": "cuda", "long": "windows", "max_length": 16}
    setup = prepare(RunConfig.from_options({**options, "tuning": "lora", "lora_dropout": 0.5}))
    method = setup.method.train()
    batch = batch_of(setup.train, range(8), method.pad_id, 40)
    assert isinstance(batch, DocumentBatch)

    def gradients(recompute: bool) -> dict[str, torch.Tensor]:
        method.zero_grad()
        torch.manual_seed(1)
        method(replace(batch, recompute=recompute)).logits.sin().sum().backward()
        return {name: weight.grad.clone() for name, weight in method.named_parameters() if weight.grad is not None}

    kept, again = gradients(False), gradients(True)
    assert kept.keys() == again.keys()
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, rtol=APART, atol=APART * float(gradient.abs().max()), msg=name)
