"""Steps that are replayed are the steps that would have been launched. Without a GPU, replaying is doing the same again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import weights_of

from fenlei import train
from fenlei.text.batches import Batch
from fenlei.training import recorded
from fenlei.training.recorded import LENGTH_STEP, RecordedPasses, padded
from fenlei.training.trainer import RowTrainer

pytestmark = pytest.mark.usefixtures("exact")

OPTIONS: dict[str, Any] = {
    "max_steps": 12, "batch_size": 8, "learning_rate": 0.003, "device": "cpu", "baseline": False, "prompt": "{text}", "max_length": 64,
}  # fmt: skip


class Again:
    """A recorder whose replay is the work itself."""

    replays = 0

    def rehearse(self, work: Callable[[], None]) -> None:
        work()

    def record(self, work: Callable[[], None]) -> Callable[[], None]:
        work()

        def replay() -> None:
            self.replays += 1
            with torch.enable_grad():  # a graph asks nobody
                work()

        return replay


class Waits(Again):
    """A recorder for a network that cannot be recorded."""

    def rehearse(self, work: Callable[[], None]) -> None:
        raise RuntimeError("called a synchronizing CUDA operation")


def trained(model: Path, data: Path, out: Path, recorder: Again | None, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr("fenlei.training.fit.recorder_for", lambda setup, ranks: recorder)
        return train(data, model=str(model), out=out, **{**OPTIONS, **options})


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("batch_tokens", [4096, 120], ids=["one-group", "groups"])
def test_replayed_steps_are_the_launched_ones(
    tuning: str, batch_tokens: int, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder, options = Again(), {"tuning": tuning, "batch_tokens": batch_tokens}
    trained(tiny_qwen, toy_file, tmp_path / "launched", None, monkeypatch, **options)
    result = trained(tiny_qwen, toy_file, tmp_path / "replayed", recorder, monkeypatch, **options)
    assert recorder.replays > 8
    assert not any("launched" in note for note in result.notes)
    launched, replayed = weights_of(tmp_path / "launched"), weights_of(tmp_path / "replayed")
    assert launched.keys() == replayed.keys()
    for name, weight in launched.items():
        torch.testing.assert_close(replayed[name], weight, atol=2e-4, rtol=2e-3, msg=name)


def test_what_cannot_be_recorded_is_launched_and_said(
    tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = trained(tiny_qwen, toy_file, tmp_path / "run", Waits(), monkeypatch, tuning="lora")
    said = [note for note in result.notes if "launched kernel by kernel" in note]
    assert said == ["short steps are launched kernel by kernel, as they cannot be replayed: called a synchronizing CUDA operation"]


def test_other_numbers_than_before_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    network, told = torch.nn.Embedding(9, 2), list[str]()
    shift = iter([0.0, 0.0, 1.0])  # rehearsed, recorded, replayed

    def read(batch: Batch) -> torch.Tensor:
        return network(batch.input_ids).mean(dim=1) + next(shift)

    passes = RecordedPasses(read, network, 0, Again(), told.append)
    batch = Batch(torch.ones(2, 3, dtype=torch.long), torch.ones(2, 3, dtype=torch.long))
    monkeypatch.setattr(recorded, "TIMES_BEFORE", 0)
    assert passes.logits(batch) is None
    assert told == [
        "short steps are launched kernel by kernel, as they cannot be replayed: replayed, a step gives other numbers than before"
    ]


def test_padding_is_real_to_nobody() -> None:
    batch = Batch(torch.ones(2, 11, dtype=torch.long), torch.ones(2, 11, dtype=torch.long))
    longer = padded(batch, 7)
    assert longer.input_ids.shape == (2, 16)
    assert longer.input_ids.shape[1] % LENGTH_STEP == 0
    assert longer.input_ids[:, 11:].eq(7).all()
    assert longer.attention_mask.sum() == 22


def test_out_of_memory_ends_it(tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder, real, calls = Again(), RowTrainer._logits, iter(range(100))

    def tight(self: RowTrainer, model: Any, rows: list[int]) -> torch.Tensor:
        if next(calls) == 6:
            before.append(recorder.replays)
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, model, rows)

    before: list[int] = []
    monkeypatch.setattr(RowTrainer, "_logits", tight)
    trained(tiny_qwen, toy_file, tmp_path / "run", recorder, monkeypatch, tuning="lora")
    assert before[0] > 0
    assert recorder.replays <= before[0]


@pytest.mark.parametrize("recorder", [Again, Waits])
def test_what_replaying_took_is_given_back(
    recorder: type[Again], tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its gradients; and the trainer, which it would keep, and the optimiser with it, until the garbage collector comes."""
    trainers: list[RowTrainer] = []
    passes: list[RecordedPasses] = []
    begin = RowTrainer.__init__

    def watched(self: RowTrainer, *given: Any, **named: Any) -> None:
        begin(self, *given, **named)
        trainers.append(self)
        passes.extend([] if self._recorded is None else [self._recorded])

    monkeypatch.setattr(RowTrainer, "__init__", watched)
    trained(tiny_qwen, toy_file, tmp_path / "run", recorder(), monkeypatch, tuning="lora")
    (trainer,), (recorded_passes,) = trainers, passes
    assert trainer._recorded is None
    assert recorded_passes._gradients == []
