"""Data sets from the hubs: which files of one are its splits, and a way from the name to a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from endless import ENDLESS
from hub_lookalike import Hub, Repository, reached
from huggingface_hub import constants as hf_constants

from fenlei import train
from fenlei.audit.audit import audit_data
from fenlei.cli.main import main
from fenlei.config import DataConfig, RunConfig
from fenlei.data.dataset_card import subsets_of
from fenlei.data.examples import Example
from fenlei.data.extension import load_extension
from fenlei.data.remote import is_remote, remote_files
from fenlei.data.sources import measured_files, one_file, part_files
from fenlei.data.splits import load_dataset
from fenlei.errors import DataError
from fenlei.labels import LabelSet
from fenlei.training.student_rows import student_config


def lines(*rows: dict[str, Any]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def parquet(rows: list[dict[str, Any]]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return bytes(sink.getvalue())


ROW = lines({"text": "甲", "label": "a"})
CARD = """---
license: cc0-1.0
configs:
- config_name: tnews
  data_files:
  - split: train
    path: tnews/train-*
  - split: validation
    path: tnews/validation-*
  - split: test
    path: tnews/test-*
- config_name: iflytek
  data_files:
  - split: train
    path: iflytek/train-*
---
# A benchmark
"""
CLUE = {
    "README.md": CARD.encode(),
    "tnews/train-00000-of-00002.parquet": b"0",
    "tnews/train-00001-of-00002.parquet": b"1",
    "tnews/validation-00000-of-00001.parquet": b"2",
    "tnews/test-00000-of-00001.parquet": b"3",
    "iflytek/train-00000-of-00001.parquet": b"4",
    "model.safetensors": b"weights",
    "loader.py": b"raise SystemExit",
}
FUDAN = {"README.md": "# 复旦".encode(), "train.jsonl": ROW, "test.jsonl": ROW, "data/notes.pdf": b""}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with reached(monkeypatch, tmp_path) as server:
        server.repositories["datasets/acme/clue"] = Repository(dict(CLUE))
        server.repositories["datasets/swift/fudan"] = Repository(dict(FUDAN), branch="master")
        yield server


def names(files: tuple[Path, ...]) -> list[str]:
    return [file.name for file in files]


def test_a_card_says_which_files_are_which_split_of_which_subset(hub: Hub) -> None:
    files = remote_files("hf:acme/clue:tnews")
    assert names(files.train) == ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    assert (names(files.dev), names(files.test)) == (["validation-00000-of-00001.parquet"], ["test-00000-of-00001.parquet"])
    sent = {name for name, _ in hub.asked}
    assert sent == {"README.md", *(name for name in CLUE if name.startswith("tnews/"))}, "nothing of the other subset, no code, no weights"
    hub.requests.clear()
    assert remote_files("hf:acme/clue:tnews") == files
    assert hub.requests == []


def test_one_split_can_be_asked_for(hub: Hub) -> None:
    alone = remote_files("hf:acme/clue:tnews/validation")
    assert (names(alone.train), alone.dev, alone.test) == (["validation-00000-of-00001.parquet"], (), ())
    assert {name for name, _ in hub.asked} == {"README.md", "tnews/validation-00000-of-00001.parquet"}
    assert part_files("hf:acme/clue:tnews/validation", "test") == alone.train
    assert names(part_files("hf:acme/clue:tnews", "dev")) == ["validation-00000-of-00001.parquet"]


def test_without_a_card_names_of_files_decide_as_in_a_folder(hub: Hub) -> None:
    files = remote_files("modelscope:swift/fudan")
    assert (names(files.train), names(files.dev), names(files.test)) == (["train.jsonl"], [], ["test.jsonl"])
    assert {name for name, _ in hub.asked} == {"README.md", "train.jsonl", "test.jsonl"}
    assert names(remote_files("modelscope:swift/fudan@master:test").train) == ["test.jsonl"]
    file, is_dev = one_file("modelscope:swift/fudan")
    assert (Path(file).name, is_dev) == ("test.jsonl", False)


@pytest.mark.parametrize(
    "train_files",
    [
        ["data/train-00000-of-00001-a09b74b3ef9c3b56.parquet"],
        ["data/train-00000-of-00002-a09b74b3ef9c3b56.parquet", "data/train-00001-of-00002-0b6d5f0f1f1e2a3c.parquet"],
        ["cnews.train.txt"],
    ],
    ids=["fingerprint", "shards", "word"],
)
def test_a_split_that_is_named_is_the_one_of_the_whole(hub: Hub, train_files: list[str]) -> None:
    """The first two are as older versions of Hugging Face datasets pushed them, without a card that names them."""
    hub.repositories["datasets/acme/old"] = Repository({name: ROW for name in (*train_files, "cnews.vocab.txt")})
    for name in ("hf:acme/old", "hf:acme/old:train"):
        assert names(remote_files(name).train) == [Path(file).name for file in train_files]
    with pytest.raises(DataError, match="no file of split 'test', found"):
        remote_files("hf:acme/old:test")


def test_a_cache_that_holds_a_part_is_completed_or_taken_as_it_is(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an interrupted load_dataset leaves it, whose files come one by one: nothing in it says which there are."""
    shards = ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]
    huggingface_hub.hf_hub_download("acme/clue", f"tnews/{shards[0]}", repo_type="dataset")
    monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", True)
    assert names(remote_files("hf:acme/clue:tnews/train").train) == shards[:1]
    monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", False)
    assert names(remote_files("hf:acme/clue:tnews/train").train) == shards
    assert [name for name, _ in hub.asked] == [f"tnews/{shards[0]}", "README.md", f"tnews/{shards[1]}"]


def test_a_part_that_a_data_set_lacks_is_said(hub: Hub) -> None:
    with pytest.raises(DataError, match="modelscope:swift/fudan: has no split called dev, but train, test; name the one that is meant"):
        load_dataset(DataConfig(data="modelscope:swift/fudan", dev="modelscope:swift/fudan"), seed=0)
    with pytest.raises(DataError, match="has no split called dev, but train, test"):
        audit_data("modelscope:swift/fudan", dev="modelscope:swift/fudan")
    with pytest.raises(DataError, match="hf:acme/clue:iflytek: has no split called test or dev, but train"):
        one_file("hf:acme/clue:iflytek")


def test_what_is_measured_needs_no_train_split_and_lacks_no_shard(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["datasets/acme/tested"] = Repository({"test.jsonl": ROW})
    file, is_dev = one_file("hf:acme/tested")
    assert (Path(file).name, is_dev) == ("test.jsonl", False)
    with pytest.raises(DataError, match="expected a train file in the folder"):
        remote_files("hf:acme/tested")

    shards = ["test-00000-of-00002.jsonl", "test-00001-of-00002.jsonl"]
    card = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test-*\n---\n"
    for name in ("whole", "part"):
        hub.repositories[f"datasets/acme/{name}"] = Repository({"README.md": card, **dict.fromkeys(shards, ROW)})
    files, is_dev = measured_files("hf:acme/whole")
    assert ([Path(one).name for one in files], is_dev) == (shards, False)
    with pytest.raises(DataError, match=f"found 2, {', '.join(shards)}; name the file"):
        one_file("hf:acme/whole")
    huggingface_hub.hf_hub_download("acme/part", shards[0], repo_type="dataset")
    monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match=r"expected 2 files of test, found test-00000-of-00002\.jsonl, without test-00001-of-00002"):
        measured_files("hf:acme/part:test")


def test_an_extension_takes_its_new_rows_from_train_and_its_dev_rows_from_dev(hub: Hub) -> None:
    def some(count: int) -> bytes:
        return lines(*({"text": f"新{place}", "label": "新"} for place in range(count)))

    hub.repositories["datasets/acme/new"] = Repository({"train.jsonl": some(8), "dev.jsonl": some(4), "test.jsonl": some(2)})
    known = tuple(Example(f"{label}{place}", label, "x", place + 1) for label in "ab" for place in range(20))
    config = DataConfig(data="hf:acme/new", dev="hf:acme/new")
    found = load_extension(config, LabelSet(("a", "b")), known, (lambda row: False,) * 2, seed=0)
    assert sum(row.label == "新" for row in found.train) == 8
    assert len(found.selecting) + len(found.calibrating) == 4


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf:acme/clue", r"several subsets, tnews, iflytek; name one, as in hf:acme/clue:tnews"),
        ("hf:acme/clue:validation", r"several subsets, tnews, iflytek; name one, as in hf:acme/clue:tnews/validation"),
        ("hf:acme/clue:afqmc/train", "no subset 'afqmc', but tnews, iflytek"),
        ("hf:acme/clue:tnews/dev", "no split 'dev', but train, validation, test"),
        ("hf:acme/none", "the data set was not found(.|\n)*no such data set on"),
        ("hf:acme/clue@v9:tnews", "it has no revision 'v9'"),
        ("modelscope:swift/fudan:dev", r"no file of split 'dev', found test\.jsonl, train\.jsonl"),
        ("hf:a/b/c", r"expected a data set on a hub as hf:OWNER/NAME\[@REVISION\]"),
    ],
)
def test_what_is_not_there_is_said(hub: Hub, name: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        remote_files(name)


@pytest.mark.parametrize(
    ("front", "splits", "folder"),
    [
        ("configs: [{config_name: default, data_files: train.csv}]", {"train": ("train.csv",)}, ""),
        (
            "configs: [{config_name: default, data_files: {train: [a.csv, b.csv], test: c.csv}}]",
            {"train": ("a.csv", "b.csv"), "test": ("c.csv",)},
            "",
        ),
        ("configs: [{config_name: default, data_dir: /x/, data_files: [{split: dev, path: d-*}]}]", {"dev": ("x/d-*",)}, "x/"),
        ("configs: [{config_name: default, data_dir: x}]", {}, "x/"),
    ],
)
def test_every_form_of_the_front_matter(tmp_path: Path, front: str, splits: dict[str, Any], folder: str) -> None:
    card = tmp_path / "README.md"
    card.write_text(f"---\n{front}\n---\n# Rows --- and more\n", encoding="utf-8")
    (subset,) = subsets_of(card).values()
    assert (subset.splits, subset.folder, subset.is_default) == (splits, folder, True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# No front matter",
        "---\n: [\n---\n",
        "---\nconfigs: 3\n---\n",
        "---\nconfigs: [3]\n---\n",
        f"---\nconfigs: [{{config_name: [{ENDLESS}]}}]\n---\n",
    ],
)
def test_a_card_that_says_nothing_is_no_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "README.md").write_text(text, encoding="utf-8")
    assert subsets_of(tmp_path / "README.md") == {}


def test_a_file_of_such_a_name_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_remote("hf:acme/clue")
    (tmp_path / "hf:acme").mkdir()
    (tmp_path / "hf:acme" / "clue").write_text("")
    assert not is_remote("hf:acme/clue")
    assert not is_remote(Path("news.jsonl"))
    assert not is_remote("hf://datasets/acme/clue/train.jsonl"), "a URL of fsspec"


def test_a_student_learns_from_the_rows_on_a_hub_that_its_teacher_was_trained_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(RunConfig.from_options({"data": "hf:acme/news"}).to_yaml(), encoding="utf-8")
    config = student_config(tmp_path, {"seed": 7}, {"model": "nano"}, None)
    assert (config.data.data, config.optimization.seed) == ("hf:acme/news", 7)


def test_from_a_name_to_a_run_its_evaluation_its_prediction_and_its_audit(
    hub: Hub, tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = {"train": toy_rows[:36], "dev": toy_rows[36:48], "test": toy_rows[48:]}
    files = {f"{name}.parquet": parquet(rows) for name, rows in split.items()}
    hub.repositories["datasets/acme/news"] = Repository(files)
    out = tmp_path / "run"
    result = train("hf:acme/news", model=str(tiny_qwen), out=out, max_steps=2, batch_size=8, device="cpu", max_length=48)
    assert result.test_data == "hf:acme/news"
    assert "data: hf:acme/news" in (out / "config.yaml").read_text(encoding="utf-8")
    assert main(["evaluate", str(out), "hf:acme/news", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["metrics"]["rows"] == 12
    assert main(["predict", str(out), "hf:acme/news:dev", "--out", str(tmp_path / "dev.jsonl")]) == 0
    assert len((tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()) == 12
    hub.repositories["datasets/acme/pool"] = Repository({"train.jsonl": lines(*({"text": row["text"]} for row in toy_rows))})
    capsys.readouterr()
    assert main(["suggest", str(out), "hf:acme/pool", "-n", "3", "--device", "cpu"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert main(["audit", "hf:acme/news:train", "--test", "hf:acme/news:test"]) == 0
    assert main(["download", "hf:acme/news", "--dataset"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.splitlines()[-3:]] == ["train.parquet", "dev.parquet", "test.parquet"]
