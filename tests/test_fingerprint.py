"""A model is told from another by a sample of its weights, or by all of them, and from a copy of itself by nothing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from fenlei.errors import ModelError
from fenlei.models import digest
from fenlei.models.fingerprint import weights_digest, weights_fingerprint


def tensors() -> dict[str, torch.Tensor]:
    return {
        "matrix": torch.arange(60, dtype=torch.bfloat16).reshape(12, 5),
        "norm": torch.ones(7),
        "count": torch.tensor(3),
        "experts": torch.ones(4, 2, 3, dtype=torch.float16),
    }


def saved(folder: Path, content: dict[str, torch.Tensor], name: str = "model.safetensors") -> Path:
    folder.mkdir(exist_ok=True)
    save_file(content, folder / name)
    return folder


@pytest.mark.parametrize("name", ["matrix", "norm", "count", "experts"])
def test_a_tensor_that_moved_is_noticed(name: str, tmp_path: Path) -> None:
    first = weights_fingerprint(saved(tmp_path / "a", tensors()))
    assert weights_fingerprint(saved(tmp_path / "copy", tensors())) == first
    moved = tensors()
    moved[name] = moved[name] * 2
    assert weights_fingerprint(saved(tmp_path / "b", moved)) != first


def test_names_types_and_shapes_count(tmp_path: Path) -> None:
    others = [
        {**tensors(), "norm": torch.ones(7, dtype=torch.bfloat16)},
        {**tensors(), "experts": torch.ones(4, 3, 2, dtype=torch.float16)},
        {("renamed" if key == "norm" else key): value for key, value in tensors().items()},
        {key: value for key, value in tensors().items() if key != "norm"},
    ]
    found = {weights_fingerprint(saved(tmp_path / str(at), one)) for at, one in enumerate([tensors(), *others])}
    assert len(found) == 5


def test_what_is_no_weight_of_the_model_does_not_count(tmp_path: Path) -> None:
    """A second copy beside model.safetensors is not read by transformers; of a model in shards, all are."""
    alone = weights_fingerprint(saved(tmp_path / "a", tensors()))
    assert weights_fingerprint(saved(tmp_path / "a", {"x": torch.ones(1)}, "consolidated.safetensors")) == alone
    shards = {"one.safetensors": {"a": torch.ones(2)}, "two.safetensors": {"b": torch.ones(2)}}
    for name, content in shards.items():
        saved(tmp_path / "sharded", content, name)
    index = {"weight_map": {key: name for name, content in shards.items() for key in content}}
    (tmp_path / "sharded" / "model.safetensors.index.json").write_text(json.dumps(index))
    before = weights_fingerprint(tmp_path / "sharded")
    assert weights_fingerprint(saved(tmp_path / "sharded", {"b": torch.zeros(2)}, "two.safetensors")) != before


def test_single_rows_that_moved_are_noticed_where_every_byte_counts(tmp_path: Path) -> None:
    """Rows of added tokens lie at the end of a matrix, and the sample in its middle."""
    first = weights_digest(saved(tmp_path / "a", tensors()))
    assert weights_digest(saved(tmp_path / "copy", tensors())) == first
    moved = tensors()
    moved["matrix"][-1] += 1
    assert weights_fingerprint(saved(tmp_path / "b", moved)) == weights_fingerprint(tmp_path / "a"), "the sample does not tell them apart"
    assert weights_digest(tmp_path / "b") != first


def test_a_file_is_read_whole_once_until_it_changes(tmp_path: Path) -> None:
    first = weights_digest(saved(tmp_path / "a", tensors()))
    read = digest._digest_of.cache_info().misses
    assert weights_digest(tmp_path / "a") == first
    assert digest._digest_of.cache_info().misses == read
    assert weights_digest(saved(tmp_path / "a", {**tensors(), "more": torch.ones(1)})) != first
    assert digest._digest_of.cache_info().misses == read + 1


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "gone.safetensors"}}))
    with pytest.raises(ModelError, match=r"gone\.safetensors: cannot be read .* fetch the model again"):
        weights_digest(tmp_path)


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = saved(tmp_path, tensors()) / "model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ModelError, match=r"model\.safetensors: cannot be read .* fetch the model again"):
        weights_fingerprint(tmp_path)
