"""Bulk prediction on a cluster. What needs no Ray is tested everywhere; the rest where it is installed (pip install 'fenlei[ray]')."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from fenlei.artifact import read_manifest
from fenlei.cli.main import app, main
from fenlei.cli.predict_ray import predict_on_ray
from fenlei.config import TrustConfig
from fenlei.errors import ConfigError, DataError, RequestError
from fenlei.inference import distributed, ray_engine
from fenlei.inference.bulk import predict_file
from fenlei.inference.distributed import Reading, RunToLoad, predict_distributed
from fenlei.inference.journal import State
from fenlei.inference.parts import PartDone, PartsFolder, parquet_bytes
from fenlei.inference.ray_engine import Cluster, resources
from fenlei.inference.storage import inside, is_folder, known_as, local_file, read_if_there, remove, row_files, write_whole
from fenlei.inference.windows import Answered, BulkOptions

RAY = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray Data: pip install 'fenlei[ray]'")


def rows_file(path: Path, rows: int, *, broken: Sequence[int] = ()) -> Path:
    lines = [json.dumps({"id": number, "text": f"第{number}条新闻"}, ensure_ascii=False) for number in range(rows)]
    path.write_text("".join((line[:-3] if number in broken else line) + "\n" for number, line in enumerate(lines)), encoding="utf-8")
    return path


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows of 4 rows, parts of 2 windows."""
    monkeypatch.setattr("fenlei.inference.bulk.WINDOW_ROWS", 4)
    monkeypatch.setattr(distributed, "WINDOW_ROWS", 4)
    monkeypatch.setattr(distributed, "PART_WINDOWS", 2)


def in_this_process(
    files: Sequence[str], read: Callable[..., Iterator[Any]], load: Callable[[], Any], cluster: Cluster, *, ordered: bool
) -> Iterator[Any]:
    """What the cluster does, the last piece first where order is not asked for."""
    work = load()
    pieces = [piece for number, file in enumerate(files) for piece in read(number, file)]
    return (work(piece) for piece in (pieces if ordered else reversed(pieces)))


def breaks(*asked: Any, **more: Any) -> Iterator[Any]:
    """The same, until the first piece is done."""
    yield next(in_this_process(*asked, **more))
    raise DataError("the machine is gone")


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "results", in_this_process)


class Lengths:
    """A run whose answer is the length of the text."""

    takes_labels = False
    run = "lengths"
    on_gpu = False

    def load(self) -> Lengths:
        return self

    def describe(self) -> dict[str, Any]:
        return {"labels": ["短"]}

    def predict(self, texts: Sequence[str], labels: Any = None) -> list[Any]:
        from fenlei.inference.prediction import Prediction

        return [Prediction(str(len(text)), 0.9, {str(len(text)): 0.9}, True, max(0, len(text) - 6)) for text in texts]


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_windows_are_the_same_rows_as_in_one_process(tmp_path: Path, small: None) -> None:
    windows = list(Reading(BulkOptions(), False).windows(str(rows_file(tmp_path / "in.jsonl", 10, broken=[1, 9]))))
    assert [[example.columns["id"] for example in window.examples] for window in windows] == [[0, 2, 3, 4], [5, 6, 7, 8], []]
    assert [len(window.rejected) for window in windows] == [1, 0, 1]


def test_rows_that_are_done_are_passed_over(tmp_path: Path, small: None) -> None:
    source = str(rows_file(tmp_path / "in.jsonl", 10, broken=[1]))
    windows = list(Reading(BulkOptions(), False, to_skip=5).windows(source))
    assert [[example.columns["id"] for example in window.examples] for window in windows] == [[5, 6, 7, 8], [9]]


def test_parts_are_windows_of_one_file_and_their_names_sort_as_rows_lie(tmp_path: Path, small: None) -> None:
    parts = list(Reading(BulkOptions(), False).each_part(3, str(rows_file(tmp_path / "in.jsonl", 18))))
    assert [part.name for part in parts] == ["part-000003-000000", "part-000003-000001", "part-000003-000002"]
    assert [[len(window.examples) for window in part.windows] for part in parts] == [[4, 4], [4, 4], [2]]


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_one_file_is_that_of_one_process(tmp_path: Path, small: None, no_ray: None, ending: str) -> None:
    source = rows_file(tmp_path / "in.jsonl", 11, broken=[2, 7])
    run: Any = Lengths()
    plain = predict_file(run, source, tmp_path / "plain" / f"out.{ending}")
    there = predict_distributed(run, source, tmp_path / "ray" / f"out.{ending}")
    assert everything(tmp_path / "ray") == everything(tmp_path / "plain")
    assert (there.rows, there.rejected, there.rows_cut, there.tokens_cut) == (9, 2, plain.rows_cut, plain.tokens_cut)


def test_either_engine_goes_on_with_what_the_other_has_begun(
    tmp_path: Path, small: None, no_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, run = rows_file(tmp_path / "in.jsonl", 11, broken=[2]), Lengths()
    wanted = tmp_path / "plain"
    predict_file(run, source, wanted / "out.jsonl")  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "results", breaks)
        for folder in ("first", "second"):
            with pytest.raises(DataError, match="gone"):
                predict_distributed(run, source, tmp_path / folder / "out.jsonl")  # type: ignore[arg-type]
    assert predict_file(run, source, tmp_path / "first" / "out.jsonl").rows_before == 4  # type: ignore[arg-type]
    assert predict_distributed(run, source, tmp_path / "second" / "out.jsonl").rows_before == 4  # type: ignore[arg-type]
    assert everything(tmp_path / "first") == everything(tmp_path / "second") == everything(wanted)


def test_rows_of_a_url_are_gone_on_with(tmp_path: Path, small: None, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, run = rows_file(tmp_path / "in.jsonl", 11), tmp_path / "out.jsonl", Lengths()
    predict_file(run, source, tmp_path / "plain.jsonl")  # type: ignore[arg-type]
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "results", breaks)
        with pytest.raises(DataError, match="gone"):
            predict_distributed(run, source.as_uri(), out)  # type: ignore[arg-type]
    assert (tmp_path / "out.jsonl.partial").exists()
    assert predict_distributed(run, source.as_uri(), out).rows_before == 4  # type: ignore[arg-type]
    assert out.read_bytes() == (tmp_path / "plain.jsonl").read_bytes()


def test_a_folder_of_files_becomes_parts_that_joined_are_the_rows_in_order(tmp_path: Path, small: None, no_ray: None) -> None:
    (tmp_path / "in").mkdir()
    run: Any = Lengths()
    for name, rows, broken in (("a.jsonl", 10, [3]), ("b.jsonl", 5, [])):
        source = rows_file(tmp_path / "in" / name, rows, broken=broken)
        predict_file(run, source, tmp_path / f"{name}.plain.jsonl")
    rows_file(tmp_path / "in" / "_hidden.jsonl", 3)
    (tmp_path / "in" / "c.jsonl").write_bytes(b"")  # as Spark leaves some
    (tmp_path / "in" / "class.txt").write_text("短\n长\n", encoding="utf-8")
    result = predict_distributed(run, tmp_path / "in", f"{tmp_path / 'out'}/")
    assert (result.rows, result.rejected, result.rows_before) == (14, 1, 0)
    joined = b"".join(part.read_bytes() for part in sorted((tmp_path / "out").glob("part-*.jsonl")))
    assert joined == (tmp_path / "a.jsonl.plain.jsonl").read_bytes() + (tmp_path / "b.jsonl.plain.jsonl").read_bytes()
    assert result.rejected_file == f"{tmp_path / 'out'}.rejected.jsonl"
    assert Path(result.rejected_file).read_bytes() == (tmp_path / "a.jsonl.plain.jsonl.rejected.jsonl").read_bytes()
    again = predict_distributed(run, tmp_path / "in", f"{tmp_path / 'out'}/")
    assert (again.rows, again.rejected, again.rows_before) == (14, 1, 14)


def test_parts_that_are_there_are_not_answered_again(tmp_path: Path, small: None, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    source, run = rows_file(tmp_path / "in.jsonl", 18), Lengths()
    predict_distributed(run, source, tmp_path / "whole", part_format="jsonl")  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(distributed, "results", breaks)
        with pytest.raises(DataError, match="gone"):
            predict_distributed(run, source, tmp_path / "out", part_format="jsonl")  # type: ignore[arg-type]
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    result = predict_distributed(run, source, tmp_path / "out", part_format="jsonl")  # type: ignore[arg-type]
    assert (result.rows, result.rows_before) == (18, 2)  # the last part came first
    parts = [{path.name: path.read_bytes() for path in (tmp_path / name).glob("part-*")} for name in ("out", "whole")]
    assert parts[0] == parts[1]
    assert len(parts[0]) == 3


def test_a_folder_that_an_earlier_version_has_begun_is_gone_on_with(tmp_path: Path, no_ray: None) -> None:
    """It knows these options and no other; the column of the labels is the run's."""
    predict_distributed(Lengths(), rows_file(tmp_path / "in.jsonl", 3), tmp_path / "out", part_format="jsonl")  # type: ignore[arg-type]
    begun = json.loads((tmp_path / "out" / "_fenlei.json").read_text(encoding="utf-8"))
    options = {"text_column", "pair_column", "probabilities", "prefix", "labels", "passages", "window", "part"}
    assert set(begun["set of options"]) == options


def test_a_folder_is_taken_for_one_prediction_only(tmp_path: Path, no_ray: None) -> None:
    source, run = rows_file(tmp_path / "in.jsonl", 3), Lengths()
    predict_distributed(run, source, tmp_path / "out", part_format="jsonl")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="another set of options"):
        predict_distributed(run, source, tmp_path / "out", part_format="jsonl", probabilities=True)  # type: ignore[arg-type]
    (tmp_path / "mine").mkdir()
    rows_file(tmp_path / "mine" / "rows.jsonl", 2)
    with pytest.raises(ConfigError, match=r"rows\.jsonl, which is no part"):
        predict_distributed(run, source, tmp_path / "mine")  # type: ignore[arg-type]


def test_a_folder_that_nothing_was_written_into_is_free_again(tmp_path: Path, no_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreached(*asked: Any, **more: Any) -> Iterator[Any]:
        raise ConfigError("needs Ray Data")

    source, run, out = rows_file(tmp_path / "in.jsonl", 3), Lengths(), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(distributed, "results", unreached)
        with pytest.raises(ConfigError, match="needs Ray Data"):
            predict_distributed(run, source, out, part_format="jsonl")  # type: ignore[arg-type]
    assert (out / "_fenlei.json").exists()
    result = predict_distributed(run, source, out, part_format="jsonl", probabilities=True)  # type: ignore[arg-type]
    assert result.rows == 3
    with pytest.raises(ConfigError, match=r"another set of options; .* remove the folder to start over"):
        predict_distributed(run, source, out, part_format="jsonl")  # type: ignore[arg-type]


def test_a_folder_of_which_no_row_can_be_answered_is_an_error(tmp_path: Path, no_ray: None) -> None:
    class Refusing(Lengths):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Any]:
            raise RequestError("knows its own labels and no other")

    source, out = rows_file(tmp_path / "in.jsonl", 3), tmp_path / "out"
    with pytest.raises(DataError, match=r"none of 3 rows could be predicted; the first: .*in\.jsonl:1: knows its own labels"):
        predict_distributed(Refusing(), source, out, part_format="jsonl")  # type: ignore[arg-type]
    assert not (out / "_SUCCESS").exists()


def test_parquet_parts_in_and_out(tmp_path: Path, no_ray: None) -> None:
    import pyarrow.parquet as pq

    (tmp_path / "in").mkdir()
    rows = [{"text": "一条", "note": None}, {"text": "两条新闻", "note": None}]
    (tmp_path / "in" / "rows.parquet").write_bytes(parquet_bytes(rows, "rows"))
    run: Any = Lengths()
    predict_distributed(run, tmp_path / "in", tmp_path / "out", part_format="parquet")
    found = pq.read_table(tmp_path / "out" / "part-000000-000000.parquet")
    assert found.column("prediction").to_pylist() == ["2", "4"]
    assert str(found.schema.field("note").type) == "string"
    with pytest.raises(DataError, match="one kind of value a column"):
        parquet_bytes([{"a": 1}, {"a": "一"}], "part-0")


def test_paths_through_fsspec(tmp_path: Path) -> None:
    folder = "memory://fenlei-test/rows"
    content = rows_file(tmp_path / "in.jsonl", 3, broken=[1]).read_bytes()
    write_whole(inside(folder, "b.jsonl"), content)
    write_whole(inside(folder, "a.jsonl"), content)
    write_whole(inside(folder, "_SUCCESS"), b"")
    files = row_files(folder)
    assert [file.rpartition("/")[2] for file in files] == ["a.jsonl", "b.jsonl"]
    assert is_folder(folder)
    assert known_as(files[0])["bytes"] == len(content)
    (window,) = Reading(BulkOptions(), False).windows(files[0])
    assert [example.source for example in window.examples] == [files[0]] * 2
    assert json.loads(window.rejected[0])["reason"].startswith(f"{files[0]}:2")
    with local_file(files[0]) as copy:
        assert copy.read_bytes() == content
    assert not copy.exists()
    remove(files[1])
    assert read_if_there(files[1]) is None


def test_a_file_may_be_called_like_a_pattern(tmp_path: Path) -> None:
    odd = str(rows_file(tmp_path / "a[1].jsonl", 1))
    assert row_files(odd) == (odd,)
    fitting = str(rows_file(tmp_path / "a1.jsonl", 1))
    assert row_files(odd) == (odd,)
    assert row_files(str(tmp_path / "a*.jsonl")) == (fitting, odd)


def test_relative_paths_are_those_of_the_command(tmp_path: Path, small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker of a cluster that runs already is in another folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    rows_file(here / "in.jsonl", 5, broken=[1])

    def elsewhere(*asked: Any, **more: Any) -> Iterator[Any]:
        monkeypatch.chdir(there)
        yield from in_this_process(*asked, **more)

    monkeypatch.setattr(distributed, "results", elsewhere)
    monkeypatch.chdir(here)
    assert RunToLoad("runs/news").run == str(here / "runs" / "news")
    result = predict_distributed(Lengths(), "in.jsonl", "out/")  # type: ignore[arg-type]
    assert (result.rows, result.rejected) == (4, 1)
    assert len(list((here / "out").glob("part-*.jsonl"))) == 1
    assert json.loads((here / "out.rejected.jsonl").read_text(encoding="utf-8"))["reason"].startswith("in.jsonl:2")
    assert not list(there.iterdir())


def test_what_cannot_be_reached_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Protocol not known"):
        row_files("nowhere://rows")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files of rows"):
        row_files(str(tmp_path / "empty"))
    with pytest.raises(DataError, match="no such file"):
        list(Reading(BulkOptions(), False).windows(str(tmp_path / "missing.jsonl")))


def test_a_damaged_note_is_named(tmp_path: Path) -> None:
    folder = PartsFolder(str(tmp_path), "jsonl")
    assert folder.done("part-000000-000000") is None
    assert folder.write("part-000000-000000", [Answered([], [], ["{}\n"], 0, 0)]) == PartDone("part-000000-000000", 0, 0, 0, ["{}\n"])
    assert not list(tmp_path.glob("part-*"))  # no rows, no part
    (tmp_path / "_done" / "part-000000-000000.json").write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        folder.done("part-000000-000000")


def test_rows_that_were_set_aside_may_be_of_a_file_whose_name_is_no_unicode(tmp_path: Path) -> None:
    PartsFolder(str(tmp_path / "out"), "jsonl").finish({"part-0": ['{"reason": "in\udcff.jsonl:2"}\n']}, State(rejected=1))
    assert json.loads((tmp_path / "out.rejected.jsonl").read_text(encoding="utf-8"))["reason"] == "in\udcff.jsonl:2"


def test_several_files_do_not_fit_one(tmp_path: Path, no_ray: None) -> None:
    for name in ("a.jsonl", "b.jsonl"):
        rows_file(tmp_path / name, 2)
    with pytest.raises(ConfigError, match="2 files go to a folder"):
        predict_distributed(Lengths(), tmp_path, tmp_path / "out.jsonl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("there", "largest", "asked", "expected"),
    [
        ({"CPU": 16.0}, 16, Cluster(), (4, {"num_cpus": 4})),
        ({"CPU": 2.0}, 2, Cluster(workers=2), (2, {"num_cpus": 1})),
        ({"CPU": 2.0}, 2, Cluster(workers=4), (4, {"num_cpus": 0.5})),
        ({"CPU": 16.0, "GPU": 8.0}, 16, Cluster(), (8, {"num_gpus": 1})),
        ({"CPU": 16.0, "GPU": 8.0}, 16, Cluster(workers=3, use_gpus=False), (3, {"num_cpus": 5})),
        ({"CPU": 32.0}, 8, Cluster(workers=3), (3, {"num_cpus": 8})),
        ({"CPU": 20.0}, 2, Cluster(), (10, {"num_cpus": 2})),
    ],
)
def test_each_worker_gets_its_share_and_no_more_than_a_machine_has(
    there: dict[str, float], largest: int, asked: Cluster, expected: Any
) -> None:
    assert resources(there, largest, asked) == expected


@pytest.mark.parametrize(("device", "int8", "wanted"), [("auto", False, True), ("auto", True, False), ("cpu", False, False)])
def test_gpus_are_kept_for_what_computes_on_them(device: Any, int8: bool, wanted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Cluster] = []
    monkeypatch.setattr(distributed, "predict_distributed", lambda *given, cluster, **options: asked.append(cluster))
    predict_on_ray("run", "in.jsonl", "out.jsonl", None, None, None, device, TrustConfig(), int8, False, None)
    assert [cluster.use_gpus for cluster in asked] == [wanted]


def test_without_ray_the_error_names_the_cure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    for name in (*ray_engine.QUIET, *ray_engine.ALONE):
        monkeypatch.setenv(name, "0")
    with pytest.raises(ConfigError, match=r"pip install 'fenlei\[ray\]'"):
        predict_distributed(Lengths(), rows_file(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [["--workers", "2"], ["--engine", "ray", "--follow"], ["--engine", "ray", "--url", "http://127.0.0.1:1"], ["--out-format", "parquet"]],
)
def test_options_that_do_not_go_together_are_wrong_usage(options: list[str]) -> None:
    given = ["in.jsonl"] if "--url" in options else ["run", "in.jsonl"]
    assert CliRunner().invoke(app, ["predict", *given, *options]).exit_code == 2


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from conftest import TOY_NEWS

    from fenlei import train

    folder = tmp_path_factory.mktemp("ray") / "run"
    train(TOY_NEWS, model=str(tiny_qwen), out=folder, max_steps=1, device="cpu", baseline=False)
    return folder


def test_a_run_is_described_without_its_network_as_with_it(run: Path) -> None:
    there = RunToLoad(str(run), "cpu")
    classifier = there.load()
    assert there.describe() == classifier.describe()
    assert there.takes_labels == classifier.takes_labels
    assert read_manifest(run)["method"] == "head"


def test_a_head_is_asked_among_no_other_labels(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(distributed, "results", lambda *asked, **more: pytest.fail("Ray is asked"))
    source = rows_file(tmp_path / "in.jsonl", 2)
    given = ["--engine", "ray", "--labels", "财经,军事", "--out", f"{tmp_path}/out/"]
    assert main(["predict", str(run), str(source), *given]) == 1
    assert "this run answers with a head that knows its 3 labels and no other; leave --labels out" in capsys.readouterr().err


@RAY
@pytest.mark.timeout(300)
def test_on_a_real_ray_the_file_is_that_of_one_process(run: Path, tmp_path: Path) -> None:
    source = rows_file(tmp_path / "in.jsonl", 5000, broken=[17])
    predict = [sys.executable, "-m", "fenlei", "predict", str(run), str(source), "--device", "cpu", "--json"]
    on_ray = ["--engine", "ray", "--workers", "2"]
    commands = {"plain.jsonl": [], "ray.jsonl": on_ray, "parts/": on_ray}
    for name, more in commands.items():
        done = subprocess.run([*predict, "--out", f"{tmp_path}/{name}", *more], capture_output=True, text=True, env=dict(os.environ))
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["rows"] == 4999
    wanted = (tmp_path / "plain.jsonl").read_bytes()
    assert (tmp_path / "ray.jsonl").read_bytes() == wanted
    assert b"".join(part.read_bytes() for part in sorted((tmp_path / "parts").glob("part-*"))) == wanted
    assert (tmp_path / "ray.jsonl.rejected.jsonl").read_bytes() == (tmp_path / "parts.rejected.jsonl").read_bytes()


@RAY
@pytest.mark.timeout(300)
def test_on_a_real_ray_our_errors_are_ours(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('id,text\n1,一\n2,"二\n', encoding="utf-8")
    command = [sys.executable, "-m", "fenlei", "predict", str(run), str(tmp_path / "in.csv"), "--engine", "ray", "--workers", "1"]
    done = subprocess.run([*command, "--out", str(tmp_path / "out.jsonl")], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"{tmp_path / 'in.csv'}:" in done.stderr
    assert "Traceback" not in done.stderr
