"""Row numbers in the place of rows, for transformers.Trainer: the rows themselves stay in one array."""

from __future__ import annotations

from typing import Any, cast

import torch
from accelerate.data_loader import prepare_data_loader
from torch.utils.data import DataLoader, Dataset

from fenlei.text.batches import TrainingBatches


class Rows(Dataset[int]):
    """The numbers of so many rows."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, row: int) -> int:
        return row


def in_batches(rows: Dataset[int], batches: TrainingBatches) -> DataLoader[Any]:
    """What a training takes its steps from: each is told its rows."""
    loader: DataLoader[Any] = DataLoader(cast(Any, rows), batch_sampler=cast(Any, batches), collate_fn=_told)
    # One process, whatever their number: all are given the rows of a step, and each takes its share of them.
    return cast("DataLoader[Any]", prepare_data_loader(cast(Any, loader), num_processes=1, process_index=0))


def _told(rows: list[int]) -> dict[str, torch.Tensor]:
    return {"rows": torch.tensor(rows)}
