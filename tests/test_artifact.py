"""Files and folders that are whole or not there, and the one place that sees to it."""

from __future__ import annotations

import errno
import json
import re
from pathlib import Path

import pytest

from fenlei.artifact import check_free, check_new, is_taken, saving, whole_file, whole_folder, write_manifest, write_text
from fenlei.cli.main import main
from fenlei.errors import ArtifactError, ConfigError, DataError

SOURCE = Path(__file__).parents[1] / "src" / "fenlei"


def fail_half_way(path: Path) -> None:
    path.write_text("half")
    raise KeyError


def test_only_one_module_renames_and_clears_the_way() -> None:
    """Whole-or-not-at-all and "is something there already" are decided in artifact.py, nowhere else.

    But for the cache of dequantised models, which lies floors below it.
    """
    own_way = re.compile(r"os\.replace\(|\.rename\(|any\(\w+\.iterdir\(\)\)")
    found = [str(path.relative_to(SOURCE)) for path in sorted(SOURCE.rglob("*.py")) if own_way.search(path.read_text(encoding="utf-8"))]
    assert found == ["artifact.py", "models/gguf.py"]


def test_a_file_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "new" / "file.txt"
    with whole_file(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with pytest.raises(KeyError), whole_file(target) as temporary:
        fail_half_way(temporary)
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]


def test_a_reading_error_is_not_blamed_on_the_file_being_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="the input went away"), whole_file(tmp_path / "out.jsonl"):
        raise OSError("the input went away")


def test_a_failed_write_names_file_and_cure(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtifactError, match=r"file/out: could not be saved \(.*\); free some space"):
        write_text(tmp_path / "file" / "out", "x")
    with pytest.raises(DataError, match="No space left"), saving(tmp_path / "out", DataError):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_folder_is_replaced_whole_or_left_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("first", "second"):
        with whole_folder(target) as folder:
            (folder / "weights").write_text(content)
    with pytest.raises(KeyError), whole_folder(target) as folder:
        fail_half_way(folder / "weights")
    assert (target / "weights").read_text() == "second"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_name_that_is_no_utf8_is_written_and_read_back(tmp_path: Path) -> None:
    """Python holds the byte ff of a file name as a lone surrogate, which UTF-8 refuses: not at the end of a long training."""
    write_manifest(tmp_path, {"data": "news-\udcff.jsonl"})
    assert json.loads((tmp_path / "fenlei.json").read_text(encoding="utf-8"))["data"] == "news-\udcff.jsonl"


def test_what_is_in_the_way_of_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "run").mkdir()
    write_manifest(tmp_path / "run", {})
    for free in ("absent", "empty"):
        check_new(tmp_path / free)
        assert not is_taken(tmp_path / free)
    check_new(tmp_path / "full", but=("mine.txt",))
    for taken, said in (("file", "is a file"), ("full", "is not empty"), ("run", "already holds a complete run")):
        assert is_taken(tmp_path / taken)
        with pytest.raises(ArtifactError, match=said):
            check_new(tmp_path / taken)


def test_a_url_is_no_place_to_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A Path would make a folder called `s3:` of it, where nobody looks."""
    from fenlei.annotation.exchange import checked_out
    from fenlei.audit.fix import checked_fix_target
    from fenlei.export.merged import export_merged
    from fenlei.export.onnx_folder import export_onnx
    from fenlei.inference.bulk import checked_target
    from fenlei.report.evaluation import evaluate_run
    from fenlei.training.ranks import alone_in

    monkeypatch.chdir(tmp_path)
    for write in (
        lambda: check_new(Path("s3://b/run")),
        lambda: alone_in(Path("s3://b/run")),
        lambda: checked_target("s3://b/p.jsonl", "x.jsonl"),
        lambda: checked_fix_target("s3://b/p.jsonl"),
        lambda: checked_out(Path("s3://b/p.jsonl"), "jsonl", []),
        lambda: evaluate_run("run", "x.jsonl", out="s3://b/report"),
        lambda: export_merged("run", "s3://b/exported"),
        lambda: export_onnx("run", "s3://b/exported"),
    ):
        with pytest.raises(ConfigError, match=r"s3:/.*: is a URL, and what is written stays on this machine"):
            write()
    assert main(["predict", "run", "x.jsonl", "--out", "s3://b/p.jsonl"]) == 1
    assert "is a URL" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_folder_beside_the_new_one_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.tmp").mkdir()
    (tmp_path / "model.tmp" / "mine.txt").write_text("mine")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for target in (tmp_path / "model", Path(".")):
        with whole_folder(target) as folder:
            (folder / "weights").write_text("whole")
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.t*")) == ["model.tmp", "model.tmp/mine.txt"]
    assert (tmp_path / "model" / "weights").exists()
    assert (tmp_path / "here" / "weights").exists()


def test_checkpoints_of_somebody_else_are_in_the_way(tmp_path: Path) -> None:
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "teacher").mkdir(parents=True)
    for hidden in (".lock", ".run.json.7.tmp"):
        (checkpoints / hidden).write_text("")
    check_free(tmp_path, resume=False)  # what a killed training of ours left before its first step
    (checkpoints / "epoch1.pt").write_text("theirs")
    with pytest.raises(ArtifactError, match="checkpoints: holds what no training of fenlei left"):
        check_free(tmp_path, resume=False)
    (checkpoints / "run.json").write_text("{}")
    check_free(tmp_path, resume=False)
