"""Models from Hugging Face and ModelScope, through their own client libraries, from a hub on loopback that speaks both protocols."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import modelscope_hub
import pytest
from hub_lookalike import COMMIT, Hub, Repository, reached, turn_to
from huggingface_hub import constants as hf_constants

from fenlei import train
from fenlei.cli.main import main
from fenlei.errors import ModelError
from fenlei.models.hub import missing_parts, resolve_model, resolved_revision

Source = Literal["huggingface", "modelscope"]
BOTH: list[Source] = ["huggingface", "modelscope"]
WEIGHTS = bytes(range(256)) * 1000
MODEL = {
    "config.json": b"{}",
    "tokenizer.json": b'{"model": {}}',
    "tokenizer_config.json": b'{"pad_token": "<pad>"}',
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"pickled",
    "modeling_tiny.py": b"raise SystemExit",
    "onnx/model.json": b"{}",
    "consolidated.safetensors": b"again",
}
FETCHED = {"config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"}

Get = Callable[..., Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with reached(monkeypatch, tmp_path) as server:
        for branch in ("main", "master"):
            server.repositories[f"models/acme/{branch}"] = Repository(dict(MODEL), branch=branch)
        yield server


@pytest.fixture
def get(tmp_path: Path) -> Get:
    """The model of a source, into a cache of the test's own."""

    def get(source: Source, name: str | None = None, **options: Any) -> Path:
        modelscope_hub.set_default_config(None)  # it keeps what the environment held at first
        name = name or ("acme/main" if source == "huggingface" else "acme/master")
        return resolve_model(name, source=source, cache_dir=tmp_path / "cache", **options)

    return get


def files_of(folder: Path) -> set[str]:
    return {path.name for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")}


@pytest.mark.parametrize("source", BOTH)
def test_only_weights_configuration_and_tokenizer_are_fetched_and_once(hub: Hub, get: Get, source: Source) -> None:
    folder = get(source)
    assert files_of(folder) == FETCHED
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert {name for name, _ in hub.asked} == FETCHED
    assert resolved_revision(folder) == (COMMIT if source == "huggingface" else None)
    hub.requests.clear()
    assert get(source) == folder
    assert hub.requests == []


@pytest.mark.parametrize("source", BOTH)
def test_either_name_of_the_default_branch_does(hub: Hub, get: Get, source: Source) -> None:
    assert files_of(get(source, revision="master")) == FETCHED
    assert files_of(get(source, revision="main")) == FETCHED


@pytest.mark.parametrize("source", BOTH)
def test_what_breaks_off_is_resumed_where_it_broke(hub: Hub, get: Get, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut["model.safetensors"] = [100_000]
    folder = get(source)
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    first, second = hub.sent("model.safetensors")
    assert first == ""
    assert second == "bytes=100000-"


@pytest.mark.parametrize("source", BOTH)
def test_a_download_that_ended_in_the_middle_is_not_the_model_and_is_gone_on_with(
    hub: Hub, get: Get, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a model that lacks a file, another is never loaded: neither one that must be there nor one that need not, as this one."""
    hub.cut["tokenizer_config.json"] = [3] * 50
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_RETRY_TIMES", 0)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    with pytest.raises(ModelError, match="was not found"):
        get(source)
    whole = {name for name, _ in hub.asked} - {"tokenizer_config.json"}
    assert "model.safetensors" in whole
    hub.cut.clear()
    hub.asked.clear()
    folder = get(source)
    assert files_of(folder) == FETCHED
    assert {name for name, _ in hub.asked} == {"tokenizer_config.json"}


@pytest.mark.parametrize("source", BOTH)
def test_other_bytes_than_promised_are_refused_and_forgotten(hub: Hub, get: Get, source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelscope_hub._download.DOWNLOAD_INTEGRITY_RETRY_BACKOFF", 0.01)
    hub.wrong.add("model.safetensors")
    with pytest.raises(ModelError, match=r"model\.safetensors arrived damaged"):
        get(source)
    hub.wrong.clear()
    hub.asked.clear()
    assert (get(source) / "model.safetensors").read_bytes() == WEIGHTS
    assert {name for name, _ in hub.asked} == {"model.safetensors"}


def test_a_small_file_that_arrives_damaged_is_found_too(hub: Hub, get: Get) -> None:
    hub.wrong.add("tokenizer.json")
    with pytest.raises(ModelError, match=r"tokenizer\.json arrived damaged \(git-sha1"):
        get("huggingface")


@pytest.mark.parametrize(("source", "variable"), [("huggingface", "HF_TOKEN"), ("modelscope", "MODELSCOPE_API_TOKEN")])
def test_a_private_model_takes_a_token(hub: Hub, get: Get, source: Source, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    branch = "main" if source == "huggingface" else "master"
    hub.repositories["models/acme/own"] = Repository(dict(MODEL), branch=branch, token="right")
    with pytest.raises(ModelError, match=rf"no token was given \({variable}"):
        get(source, "acme/own")
    monkeypatch.setenv(variable, "wrong")
    with pytest.raises(ModelError, match="the token that was given has no access"):
        get(source, "acme/own")
    monkeypatch.setenv(variable, "right")
    assert files_of(get(source, "acme/own")) == FETCHED


@pytest.mark.parametrize("source", BOTH)
def test_what_is_not_there_is_said(hub: Hub, get: Get, source: Source) -> None:
    with pytest.raises(ModelError, match=f"no such model on {hub.endpoint}"):
        get(source, "acme/nothing")
    with pytest.raises(ModelError, match="it has no revision 'v9'"):
        get(source, revision="v9")


@pytest.mark.parametrize("source", BOTH)
def test_a_model_whose_weights_are_pickle_alone_is_told_from_one_that_is_not_there(hub: Hub, get: Get, source: Source) -> None:
    files = {"config.json": b"{}", "vocab.txt": b"[PAD]", "pytorch_model.bin": b"pickled"}
    branch = "main" if source == "huggingface" else "master"
    hub.repositories["models/acme/pickled"] = Repository(files, branch=branch)
    with pytest.raises(ModelError, match=r"'acme/pickled' could not be taken(.|\n)*as pickle alone.*save_pretrained"):
        get(source, "acme/pickled")
    assert not any(name.endswith(".bin") for name, _ in hub.asked)


@pytest.mark.parametrize("source", BOTH)
def test_without_a_network_the_cache_answers_and_else_the_error_names_the_mirrors_variable(
    hub: Hub, get: Get, source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = get(source)
    nowhere = "http://127.0.0.1:9"
    turn_to(nowhere, monkeypatch)
    monkeypatch.setattr("modelscope_hub._legacy_api.REPO_TREE_PAGE_MAX_ATTEMPTS", 1)
    assert get(source) == folder
    with pytest.raises(ModelError, match=rf"{nowhere} cannot be reached.* (HF_ENDPOINT|MODELSCOPE_ENDPOINT)"):
        get(source, "acme/other")


@pytest.mark.parametrize("source", BOTH)
@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_no_hub_is_asked(hub: Hub, get: Get, source: Source, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=f"not asked, {variable} is set"):
        get(source)
    assert hub.requests == []


def test_auto_asks_one_after_the_other_and_says_what_each_answered(hub: Hub, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    modelscope_hub.set_default_config(None)
    assert resolve_model("acme/main", cache_dir=cache).parent.name == "snapshots"
    assert files_of(resolve_model("acme/master", cache_dir=cache)) == FETCHED
    hub.requests.clear()
    assert files_of(resolve_model("acme/master", cache_dir=cache)) == FETCHED
    assert hub.requests == [], "what is in ModelScope's cache is not asked of Hugging Face"
    with pytest.raises(ModelError) as caught:
        resolve_model("acme/nothing", cache_dir=cache)
    for said in ("a folder of this name", "the Hugging Face cache: not there", "the ModelScope cache: not there"):
        assert said in str(caught.value)
    assert str(caught.value).count("no such model on") == 2


@pytest.mark.parametrize(("prefix", "source"), [("hf:", "huggingface"), ("modelscope:", "modelscope")])
def test_a_prefix_names_the_hub(hub: Hub, tmp_path: Path, prefix: str, source: Source) -> None:
    branch = "main" if source == "huggingface" else "master"
    modelscope_hub.set_default_config(None)
    assert missing_parts(resolve_model(f"{prefix}acme/{branch}", cache_dir=tmp_path / "cache")) == []
    with pytest.raises(ModelError) as caught:
        resolve_model(f"{prefix}acme/nothing", cache_dir=tmp_path / "cache")
    assert ("ModelScope" in str(caught.value)) == (source == "modelscope")


def test_modelscope_is_not_asked_for_bare_names_or_without_its_client(
    hub: Hub, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match="ModelScope: not asked, its ids have the form owner/name"):
        resolve_model("bert-base-chinese", cache_dir=tmp_path)
    monkeypatch.setattr("fenlei.hubs.modelscope.importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"its client is not installed \(pip install modelscope-hub\)"):
        get("modelscope")


def test_a_cache_that_modelscope_filled_itself_is_completed_or_taken_as_it_is(
    hub: Hub, get: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in it says whether it is whole: the hub is asked, and where it cannot be, what has all that is needed will do."""
    folder = tmp_path / "cache" / "models" / "acme--master" / "snapshots" / "master"
    folder.mkdir(parents=True)
    for name in FETCHED - {"tokenizer_config.json"}:
        (folder / name).write_bytes(MODEL[name])
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert get("modelscope") == folder
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert get("modelscope") == folder
    assert files_of(folder) == FETCHED
    assert {name for name, _ in hub.asked} == {"tokenizer_config.json"}


@pytest.mark.parametrize("source", BOTH)
def test_the_command_reads_the_variables_of_the_hubs(hub: Hub, source: Source, tmp_path: Path) -> None:
    """In a process of its own: the libraries read them when they are imported."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.endpoint,
        "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_OFFLINE": "0",
        "MODELSCOPE_DOMAIN": hub.endpoint,
        "MODELSCOPE_CACHE": str(tmp_path / "ms"),
        "MODELSCOPE_HOME": str(tmp_path / "home"),
    }
    del environment["MODELSCOPE_ENDPOINT"]
    name = "acme/main" if source == "huggingface" else "acme/master"
    command = [sys.executable, "-m", "fenlei", "download", name, "--source", source]
    child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert child.returncode == 0, child.stderr
    folder = Path(child.stdout.strip())
    assert folder.is_relative_to(tmp_path / ("hf" if source == "huggingface" else "ms"))
    assert files_of(folder) == FETCHED


def test_the_command_ends_with_the_reason(hub: Hub, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["download", "hf:acme/nothing", "--cache-dir", str(tmp_path)]) == 1
    assert "no such model on" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub 2.4 uploads in httpx2's older words
def test_a_run_is_exported_pushed_and_fetched_again(
    hub: Hub, tiny_qwen: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, out = tmp_path / "run", tmp_path / "exported"
    train(toy_file, model=str(tiny_qwen), out=run, max_steps=1, batch_size=8, device="cpu", baseline=False, max_length=48)
    monkeypatch.setattr(hf_constants, "HF_HUB_DISABLE_XET", True)
    export = ["export", str(run), "--push-to-hub", "acme/news", "--private", "--json", "--texts", str(toy_file)]
    assert main([*export, "--out", str(out)]) == 1
    assert "no token was given" in capsys.readouterr().err
    monkeypatch.setenv("HF_TOKEN", "right")
    assert main([*export, "--out", str(tmp_path / "again")]) == 0
    assert json.loads(capsys.readouterr().out)["pushed_to"] == f"{hub.endpoint}/acme/news"
    pushed = {path.removeprefix("models/acme/news/"): content for path, content in hub.committed.items()}
    assert pushed == {path.name: path.read_bytes() for path in out.iterdir()}, "each file as it is, and none besides"
    assert "library_name: transformers" in pushed["README.md"].decode()
    hub.repositories["models/acme/news"].files = pushed
    fetched = resolve_model("hf:acme/news", cache_dir=tmp_path / "cache")
    assert (fetched / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["news", "a/b/c", "modelscope:acme/news"])
def test_where_nothing_can_be_pushed_nothing_is_computed(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "out"), "--push-to-hub", name]) == 1
    assert name in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
