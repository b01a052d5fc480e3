"""A run's folder from strangers, or from a disk that forgot: named, never believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import TOY_NEWS

from fenlei.artifact import LARGEST_JSON, read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.errors import ArtifactError, ModelError
from fenlei.inference.checksums import COVERED, verify
from fenlei.inference.classifier import Classifier
from fenlei.models.hub import weight_files
from fenlei.training.fit import train

TEXTS = ["央行宣布下调存款准备金率", "球队夺冠"]


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train(TOY_NEWS, model=str(tiny_qwen), out=out, tuning="full", max_steps=2, batch_size=8, device="cpu", dev_ratio=0.2)
    return out


def halved(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 4
    return bytes(changed)


def outcome(run: Path, verified: bool) -> tuple[str, np.ndarray | None]:
    """The refusal, or the answer; any other error fails the test."""
    try:
        return "", Classifier.load(run, device="cpu", verify=verified).logits(TEXTS).logits
    except ArtifactError as error:
        return str(error), None


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "halved": halved, "flipped": flipped, "emptied": lambda content: b"", "removed": lambda content: None,
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_whatever_is_damaged_is_named_or_does_not_matter(run: Path, tmp_path: Path, damage: str) -> None:
    whole = Classifier.load(run, device="cpu", verify=True).logits(TEXTS).logits
    names = sorted(path.relative_to(run) for path in run.rglob("*") if path.is_file())
    assert len(names) > 8
    for name in names:
        copy = tmp_path / name.as_posix().replace("/", "_")
        shutil.copytree(run, copy)
        content = DAMAGES[damage]((copy / name).read_bytes())
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        for verified in (True, False):
            refusal, answer = outcome(copy, verified)
            if answer is None:
                assert name.name in refusal or str(name.parent) in refusal, name
            elif verified:
                assert name.parts[0] not in (*COVERED, "fenlei.json"), name
                np.testing.assert_array_equal(answer, whole)
        shutil.rmtree(copy)


def edited(run: Path, target: Path, **changes: Any) -> Path:
    """A copy whose fenlei.json says something else, with a checksum that fits, as a stranger would write it."""
    shutil.copytree(run, target)
    manifest = read_manifest(run)
    write_manifest(target, {**manifest, **changes})
    return target


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": 5}, {"labels": []}, {"labels": [1, 2, 3]}, {"temperature": "hot"}, {"temperature": 0}, {"temperature": float("nan")},
        {"max_length": True}, {"layers": -1}, {"method": "shell"}, {"base_model": "x"}, {"parameters": {}}, {"prompt": ["{text}"]},
    ],
    ids=str,
)  # fmt: skip
def test_a_manifest_of_another_shape_is_an_error_that_names_the_field(run: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=rf"fenlei\.json: {next(iter(changes))} is .*, which no run has"):
        Classifier.load(edited(run, tmp_path / "run", **changes))


def test_a_changed_figure_is_noticed_but_the_base_models_place_may_change(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "fenlei.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["base_model"]["folder"] = "/elsewhere"
    path.write_text(json.dumps(manifest), encoding="utf-8")
    Classifier.load(tmp_path / "run", verify=True)
    manifest["temperature"] += 0.1
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"fenlei\.json: damaged \(its checksum"):
        Classifier.load(tmp_path / "run")


def test_bombs_are_refused(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "fenlei.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ArtifactError, match=r"fenlei\.json: damaged"):
        read_manifest(tmp_path / "run")
    with path.open("wb") as file:
        file.truncate(LARGEST_JSON + 1)
    with pytest.raises(ArtifactError, match="larger than 64 MiB"):
        read_manifest(tmp_path / "run")


def test_names_that_lead_out_of_the_folder_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    shutil.copytree(run, tmp_path / "run")
    manifest = read_manifest(run)
    with pytest.raises(ArtifactError, match=r"\.\./secret leads out of the folder"):
        verify(tmp_path / "run", {**manifest, "files": {"../secret": "x"}})
    (tmp_path / "run" / "model" / "README.md").symlink_to(tmp_path / "secret")
    with pytest.raises(ArtifactError, match=r"model/README\.md leads out of the folder"):
        verify(tmp_path / "run", {**manifest, "files": {**manifest["files"], "model/README.md": "x"}})
    with pytest.raises(ArtifactError, match=r"model/README\.md is new"):
        verify(tmp_path / "run", manifest)
    for name in ("../other/weights.safetensors", "/etc/passwd", ".."):
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": name}}))
        with pytest.raises(ModelError, match="is not the name of a file in this folder"):
            weight_files(tmp_path)


def test_pickled_weights_are_not_opened(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path / "run")
    weights = tmp_path / "run" / "model" / "model.safetensors"
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ArtifactError, match=r"model/model\.safetensors is missing"):
        Classifier.load(tmp_path / "run")


def test_a_run_without_checksums_says_so_when_asked(run: Path, tmp_path: Path) -> None:
    old = edited(run, tmp_path / "run", files=None)
    Classifier.load(old)
    with pytest.raises(ArtifactError, match="saved without checksums"):
        Classifier.load(old, verify=True)


def test_evaluate_and_export_compare_on_request(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = shutil.copytree(run, tmp_path / "run") / "model" / "model.safetensors"
    weights.write_bytes(flipped(weights.read_bytes()))
    data, damaged = str(TOY_NEWS), str(tmp_path / "run")
    for command in (
        ["evaluate", damaged, data, "--device", "cpu"],
        ["evaluate", str(run), data, "--out", str(tmp_path / "report"), "--compare", damaged, "--device", "cpu"],
        ["export", damaged, "--out", str(tmp_path / "exported")],
    ):
        assert main([*command, "--verify"]) == 1
        assert "model/model.safetensors was changed" in capsys.readouterr().err
    assert not (tmp_path / "report").exists()
    assert not (tmp_path / "exported").exists()
