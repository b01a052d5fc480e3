from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fenlei.errors import ModelError
from fenlei.hubs.fetch import NotFoundError
from fenlei.hubs.repository import Repository
from fenlei.inference.loading import _weights_folder
from fenlei.models import hub
from fenlei.models.hub import missing_parts, resolve_model, resolved_revision


def make_model(folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if name != without:
            (folder / name).write_text("{}")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of hubs that are reached over a network; their caches are the real ones."""
    questions: list[str] = []

    def refuse(repository: Repository, source: Any, missing: Any) -> Path:
        questions.append(repository.name)
        raise NotFoundError(["nobody was asked"])

    monkeypatch.setattr(hub, "fetch", refuse)
    return questions


def test_a_local_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    assert resolve_model(str(folder)) == folder


def test_nano_is_the_packaged_folder_even_beside_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "NANO_FOLDER", make_model(tmp_path / "packaged"))
    make_model(tmp_path / "nano")
    monkeypatch.chdir(tmp_path)
    assert resolve_model("nano") == tmp_path / "packaged"
    assert resolve_model("./nano") == Path("nano")


@pytest.mark.parametrize(
    ("without", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "a tokenizer"), ("model.safetensors", r"weights as \*\.safetensors")],
)
def test_what_a_local_folder_lacks_is_named(tmp_path: Path, without: str, named: str) -> None:
    folder = make_model(tmp_path / "mine", without=without)
    with pytest.raises(ModelError, match=f"mine: not a complete model folder, it lacks {named}"):
        resolve_model(str(folder))
    assert len(missing_parts(folder)) == 1


@pytest.mark.parametrize("tokenizer", ["tokenizer.json", "vocab.txt", "vocab.json", "spiece.model"])
def test_every_kind_of_tokenizer_counts(tmp_path: Path, tokenizer: str) -> None:
    folder = make_model(tmp_path / "mine", without="tokenizer.json")
    (folder / tokenizer).write_text("")
    assert missing_parts(folder) == []


def test_pickled_weights_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", without="model.safetensors")
    (folder / "pytorch_model.bin").write_text("")
    with pytest.raises(ModelError, match="only as pickle"):
        resolve_model(str(folder))


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", without="model.safetensors")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder / "model-1.safetensors").write_text("")
    with pytest.raises(ModelError, match=r"1 of its 2 weight files, among them model-2\.safetensors"):
        resolve_model(str(folder))
    (folder / "model-2.safetensors").write_text("")
    assert resolve_model(str(folder)) == folder


def test_a_broken_index_is_said(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine")
    (folder / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(ModelError, match=r"index\.json: not a readable index"):
        resolve_model(str(folder))


def test_a_run_given_as_a_model_points_to_its_model(tmp_path: Path) -> None:
    (tmp_path / "fenlei.json").write_text("{}")
    with pytest.raises(ModelError, match=r"it is a fenlei run, its model lies in .*model"):
        resolve_model(str(tmp_path))


def test_a_file_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_text("")
    with pytest.raises(ModelError, match="is a file; a model is a folder"):
        resolve_model(str(tmp_path / "weights.bin"))


@pytest.mark.parametrize("name", ["./models/qwen", "/models/qwen", "a/b/c", "~/nowhere", "qwen 3", ""])
def test_a_path_that_is_not_there_is_asked_of_no_hub(name: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        resolve_model(name)
    assert asked == []


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="revision 'v1': only a model on a hub"):
        resolve_model(str(make_model(tmp_path / "mine")), revision="v1")


@pytest.mark.parametrize(("name", "source"), [("hf:acme/tiny", "modelscope"), ("modelscope:acme/tiny", "huggingface")])
def test_a_prefix_and_another_source_are_refused(name: str, source: Any, asked: list[str]) -> None:
    with pytest.raises(ModelError, match="leave one of them out"):
        resolve_model(name, source=source)
    assert asked == []


def test_only_a_commit_of_the_cache_is_a_revision(tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    assert resolved_revision(tmp_path / "snapshots" / commit) == commit
    assert resolved_revision(tmp_path) is None
    assert resolved_revision(tmp_path / "snapshots" / "master") is None


def test_a_run_says_where_its_base_model_was_and_that_its_place_may_be_told(asked: list[str], tmp_path: Path) -> None:
    base = {"name": "acme/gone", "folder": "/gone/acme", "local": False, "revision": None}
    with pytest.raises(ModelError, match=r"'acme/gone', which was in /gone/acme .* base_model\.folder of fenlei\.json\. .*was not found"):
        _weights_folder({"tuning": "lora", "base_model": base}, tmp_path / "model")
    assert asked == ["acme/gone"]
