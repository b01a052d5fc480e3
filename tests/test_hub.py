from __future__ import annotations

import json
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub
import pytest

from fenlei.errors import ModelError
from fenlei.models import hub
from fenlei.models.hub import missing_parts, resolve_model, resolved_revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def make_model(folder: Path, *, without: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        if name != without:
            (folder / name).write_text("{}")
    return folder


def cached(cache: Path, name: str) -> Path:
    """A folder in the layout of the Hugging Face cache."""
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(COMMIT)
    return model / "snapshots" / COMMIT


@pytest.fixture(autouse=True)
def no_modelscope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope", None)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was asked of Hugging Face online, which answers nothing here; its cache is the real one."""
    questions: list[str] = []
    real = huggingface_hub.snapshot_download

    def snapshot_download(name: str, *, local_files_only: bool, **options: Any) -> Any:
        if local_files_only:
            return real(name, local_files_only=True, **options)
        questions.append(name)
        raise ConnectionError("no route to huggingface.co\nsecond line")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return questions


@pytest.fixture
def modelscope(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A stand-in for the package modelscope; `answers` maps offline to a folder, anything else is an error of its own."""
    state: dict[str, Any] = {"calls": [], "answers": {}}

    class NotExistError(Exception):
        pass

    def snapshot_download(name: str, **options: Any) -> str:
        state["calls"].append((name, options))
        if options["local_files_only"] not in state["answers"]:
            raise NotExistError("no such model on ModelScope")
        return str(state["answers"][options["local_files_only"]])

    modules = {
        name: ModuleType(name) for name in ("modelscope", "modelscope.hub", "modelscope.hub.snapshot_download", "modelscope.hub.errors")
    }
    modules["modelscope"].__spec__ = ModuleSpec("modelscope", None)
    modules["modelscope.hub.snapshot_download"].snapshot_download = snapshot_download  # type: ignore[attr-defined]
    modules["modelscope.hub.errors"].NotExistError = NotExistError  # type: ignore[attr-defined]
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return state


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
    (tmp_path / "weights.gguf").write_text("")
    with pytest.raises(ModelError, match="is a file; a model is a folder"):
        resolve_model(str(tmp_path / "weights.gguf"))


@pytest.mark.parametrize("name", ["./models/qwen", "/models/qwen", "a/b/c", "~/nowhere", "qwen 3", ""])
def test_a_path_that_is_not_there_is_asked_of_no_hub(name: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError):
        resolve_model(name)
    assert asked == []


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="revision 'v1': only a model on a hub"):
        resolve_model(str(make_model(tmp_path / "mine")), revision="v1")


def test_a_cached_model_needs_no_network(tmp_path: Path, asked: list[str]) -> None:
    folder = make_model(cached(tmp_path, "acme/tiny"))
    found = resolve_model("acme/tiny", cache_dir=tmp_path)
    assert found == folder
    assert resolved_revision(found) == COMMIT
    assert asked == []


def test_an_interrupted_download_is_not_taken_for_the_model(tmp_path: Path, asked: list[str]) -> None:
    make_model(cached(tmp_path, "acme/tiny"), without="model.safetensors")
    with pytest.raises(ModelError, match=r"the Hugging Face cache: .* lacks weights"):
        resolve_model("acme/tiny", cache_dir=tmp_path)
    assert asked == ["acme/tiny"]


def test_without_a_hub_the_error_lists_what_was_tried_and_what_will_do(tmp_path: Path, asked: list[str]) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model("acme/tiny", revision="v1", cache_dir=tmp_path)
    message = str(caught.value)
    assert "model 'acme/tiny' at revision 'v1' was not found" in message
    assert "the Hugging Face cache: not there" in message
    assert "Hugging Face: no route to huggingface.co" in message
    assert "second line" not in message
    assert "ModelScope: not asked, the package modelscope is not installed (pip install modelscope)" in message
    assert "a local folder" in message
    assert "`nano`" in message


def test_caches_come_before_hubs(tmp_path: Path, asked: list[str], modelscope: dict[str, Any]) -> None:
    modelscope["answers"] = {True: make_model(tmp_path / "scope")}
    assert resolve_model("acme/tiny", cache_dir=tmp_path) == tmp_path / "scope"
    assert asked == []


def test_modelscope_is_asked_after_hugging_face(tmp_path: Path, asked: list[str], modelscope: dict[str, Any]) -> None:
    modelscope["answers"] = {False: make_model(tmp_path / "scope")}
    assert resolve_model("acme/tiny", revision="v2", cache_dir=tmp_path) == tmp_path / "scope"
    assert asked == ["acme/tiny"]
    name, options = modelscope["calls"][-1]
    assert (name, options["revision"], options["cache_dir"]) == ("acme/tiny", "v2", str(tmp_path))
    assert "*.safetensors" in options["allow_patterns"]
    assert not any("bin" in pattern for pattern in options["allow_patterns"])


def test_an_empty_modelscope_folder_is_not_the_model(tmp_path: Path, asked: list[str], modelscope: dict[str, Any]) -> None:
    # Its library leaves one behind when a download fails, and then finds it offline.
    (tmp_path / "empty").mkdir()
    modelscope["answers"] = {True: tmp_path / "empty"}
    with pytest.raises(ModelError, match=r"the ModelScope cache: .*empty lacks config\.json"):
        resolve_model("acme/tiny", cache_dir=tmp_path)


@pytest.mark.parametrize(("source", "other"), [("huggingface", "ModelScope"), ("modelscope", "Hugging Face")])
def test_a_named_source_is_the_only_one(source: Any, other: str, tmp_path: Path, asked: list[str], modelscope: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as caught:
        resolve_model("acme/tiny", source=source, cache_dir=tmp_path)
    assert other not in str(caught.value)
    assert bool(asked) == (source == "huggingface")
    assert bool(modelscope["calls"]) == (source == "modelscope")


def test_modelscope_knows_no_bare_names(asked: list[str], modelscope: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="ModelScope: not asked, its ids have the form owner/name"):
        resolve_model("bert-base-chinese", cache_dir=tmp_path)
    assert modelscope["calls"] == []


def test_only_a_commit_of_the_cache_is_a_revision(tmp_path: Path) -> None:
    assert resolved_revision(tmp_path) is None
    assert resolved_revision(tmp_path / "snapshots" / "master") is None
