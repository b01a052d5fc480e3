"""Bulk prediction that is ended at any moment and started again."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc
import types
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from conftest import write_jsonl
from processes import ended, split

from fenlei.cli.main import main
from fenlei.data.encodings import HEAD_BYTES
from fenlei.errors import ConfigError, DataError, RequestError
from fenlei.inference import bulk, journal
from fenlei.inference.bulk import predict_file
from fenlei.inference.prediction import Prediction

ROWS = 23
BAD_LINES = (1, 6, 7, 12, 24, 28)


class Died(BaseException):
    """What `kill -9` is to a process, near enough: nothing catches it."""


class Counting:
    """Answers with the number of texts it was asked with this one, so that another window shows; dies when it was asked `lives` times."""

    takes_labels = False

    def __init__(self, lives: int = 1_000_000, name: str = "one") -> None:
        self.lives = lives
        self.name = name
        self.asked = 0

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
        self.lives -= 1
        if self.lives < 0:
            raise Died
        self.asked += len(texts)
        return [Prediction(f"{text}:{len(texts)}", 0.5, {}, True, 1) for text in texts]


@pytest.fixture(autouse=True)
def _small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 4)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    good = iter(range(ROWS))
    last = ROWS + len(BAD_LINES)
    lines = ["{broken" if line in BAD_LINES else json.dumps({"text": f"行{next(good)}", "n": line}) for line in range(1, last + 1)]
    path = tmp_path / "in.jsonl"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def predict(source: Path, target: Path, classifier: Any = None, **options: Any) -> bulk.BulkResult:
    return predict_file(classifier or Counting(), source, target, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def unbroken(source: Path, folder: Path, name: str) -> dict[str, bytes]:
    predict(source, folder / name)
    return files(folder)


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_ended_after_any_window_the_file_is_the_same_to_the_byte(source: Path, tmp_path: Path, name: str) -> None:
    whole = unbroken(source, tmp_path / "whole", name)
    assert set(whole) == {name, f"{name}.rejected.jsonl"}
    for lives in range(7):
        out = tmp_path / f"after{lives}"
        try:
            predict(source, out / name, Counting(lives))
        except Died:
            assert not (out / name).exists()
        classifier, told = Counting(), []
        result = predict(source, out / name, classifier, announce=told.append)
        assert files(out) == whole
        assert (result.rows, result.rejected) == (ROWS, len(BAD_LINES))
        if 0 < lives < 6:
            assert result.rows_before == 4 * lives == ROWS - classifier.asked
            assert told == [f"going on after the {4 * lives} rows that are predicted already"]


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_ended_at_any_system_call_nothing_is_lost_and_nothing_comes_twice(
    name: str, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fsync, rename and truncation in turn is the last thing that the process does, before it or after it: it removes no file."""
    whole = unbroken(source, tmp_path / "whole", name)
    real = {one: getattr(os, one) for one in ("fsync", "replace", "truncate")}
    unlink = Path.unlink
    calls_left = [0]

    def mortal(call_name: str) -> Any:
        def call(*args: Any) -> Any:
            calls_left[0] -= 1
            if calls_left[0] == 0:
                raise Died
            done = real[call_name](*args)
            calls_left[0] -= 1
            if calls_left[0] == 0:
                raise Died
            return done

        return call

    ends = 0
    for moment in range(1, 200):
        out = tmp_path / f"at{moment}"
        with monkeypatch.context() as patch:
            for one in real:
                patch.setattr(os, one, mortal(one))
            # What a dead process cannot do any more:
            patch.setattr(journal.Journal, "discard", lambda self: None)
            patch.setattr(Path, "unlink", lambda path, **options: unlink(path, **options) if calls_left[0] else None)
            patch.setattr(os, "getpid", itertools.count(1).__next__)  # nor has the next one its id
            calls_left[0] = moment
            for _ in range(2):  # the second try is ended as well, on its way to where the first was
                try:
                    predict(source, out / name)
                except Died:
                    ends += 1
                    calls_left[0] = 3
        predict(source, out / name)
        assert files(out) == whole, moment
        if calls_left[0] > 3:
            break
    else:
        pytest.fail("the prediction never came to its end")
    assert ends > 50


def test_rows_that_are_nearly_all_bad_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than a window of them is held, each is told as progress, and ended after any they are gone on with."""
    source, good = tmp_path / "in.jsonl", (3, 30, 31)
    source.write_text("".join(f'{{"text": "行{line}"}}\n' if line in good else "{broken\n" for line in range(1, 48)), encoding="utf-8")
    appended: list[tuple[int, int]] = []
    append = journal.Journal.append

    def counted(self: journal.Journal, text: str, rejected: str, state: journal.State) -> None:
        if len(appended) == lives:
            raise Died
        append(self, text, rejected, state)
        appended.append((text.count("\n"), rejected.count("\n")))

    monkeypatch.setattr(journal.Journal, "append", counted)
    lives, done = 100, list[int]()
    predict(source, tmp_path / "whole" / "out.jsonl", progress=done.append)
    whole = files(tmp_path / "whole")
    windows = appended[:-1]  # the last says that it is complete
    assert max(map(sum, windows)) <= 2 * 4 - 1
    assert done == list(itertools.accumulate(map(sum, windows)))
    assert done[-1] == 47
    discard = journal.Journal.discard
    for first in range(len(windows) + 1):
        # What a dead process cannot do any more:
        monkeypatch.setattr(journal.Journal, "discard", lambda self: None)
        appended, lives = [], first
        with pytest.raises(Died):
            predict(source, tmp_path / f"cut{first}" / "out.jsonl")
        monkeypatch.setattr(journal.Journal, "discard", discard)
        begun, lives = appended, 100
        appended = []
        predict(source, tmp_path / f"cut{first}" / "out.jsonl")
        assert [*begun, *appended[:-1]] == windows, "none is done twice"
        assert files(tmp_path / f"cut{first}") == whole


def test_nobody_else_writes_the_same_file_meanwhile(source: Path, tmp_path: Path) -> None:
    whole = unbroken(source, tmp_path / "whole", "out.jsonl")
    out = tmp_path / "twice" / "out.jsonl"

    class Meanwhile(Counting):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            if self.asked:
                with pytest.raises(ConfigError, match=r"out\.jsonl: another process writes it"):
                    predict(source, out)
            return super().predict(texts)

    predict(source, out, Meanwhile())
    assert files(out.parent) == whole


def test_what_was_complete_is_not_predicted_again(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = unbroken(source, tmp_path / "whole", "out.jsonl")
    real = os.replace
    for last in (1, 2):  # the rejected rows have their name; the predicted ones have it too
        out = tmp_path / f"named{last}"
        named: list[str] = []

        def mortal(whole_file: Path, target: Path, last: int = last, named: list[str] = named) -> None:
            real(whole_file, target)
            named.extend([target.name] if "journal" not in target.name else [])
            if len(named) == last:
                raise Died

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", mortal)
            with pytest.raises(Died):
                predict(source, out / "out.jsonl")
        assert named == ["out.jsonl.rejected.jsonl", "out.jsonl"][:last]
        classifier = Counting()
        result = predict(source, out / "out.jsonl", classifier)
        assert classifier.asked == 0
        assert (result.rows, result.rejected) == (ROWS, len(BAD_LINES))
        assert files(out) == whole


def test_a_named_pipe_is_read_once(source: Path, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with subprocess.Popen(f"cat {source} > {pipe}", shell=True):
        assert predict(pipe, tmp_path / "out.jsonl").rows == ROWS


def test_the_command_reads_a_pipe_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `<(zcat rows.gz)` of a shell, with more in it than is looked at to tell the format."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, ({"text": f"{at}{'x' * 50_000}"} for at in range(ROWS)))
    assert source.stat().st_size > HEAD_BYTES
    monkeypatch.setattr("fenlei.cli.predict.load_named", lambda *given: (Counting(), None))
    with subprocess.Popen(["cat", str(source)], stdout=subprocess.PIPE) as cat:
        assert cat.stdout is not None
        assert main(["predict", "run", f"/dev/fd/{cat.stdout.fileno()}", "--out", str(out)]) == 0
    assert len(out.read_text(encoding="utf-8").splitlines()) == ROWS


def test_torn_rows_behind_the_journal_are_cut_off(source: Path, tmp_path: Path) -> None:
    whole = unbroken(source, tmp_path / "whole", "out.jsonl")
    with pytest.raises(Died):
        predict(source, tmp_path / "cut" / "out.jsonl", Counting(3))
    for name in ("out.jsonl.partial", "out.jsonl.rejected.partial"):
        with (tmp_path / "cut" / name).open("ab") as file:
            file.write(b'{"text": "half a r')
    predict(source, tmp_path / "cut" / "out.jsonl")
    assert files(tmp_path / "cut") == whole


def test_what_was_begun_with_something_else_is_not_gone_on_with(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "cut" / "out.jsonl"
    with pytest.raises(Died):
        predict(source, out, Counting(3))
    before = files(out.parent)
    with pytest.raises(ConfigError, match=r"begun there with another model; repeat its command .*out\.jsonl\.journal to start over"):
        predict(source, out, Counting(name="two"))
    with pytest.raises(ConfigError, match="another set of options"):
        predict(source, out, probabilities=True)
    with pytest.raises(ConfigError, match="another source"):
        predict(Path(shutil.copy(source, tmp_path / "other.jsonl")), out)
    with source.open("a", encoding="utf-8") as file:
        file.write('{"text": "more"}\n')
    with pytest.raises(ConfigError, match="another source"):
        predict(source, out)
    assert files(out.parent) == before
    (out.parent / "out.jsonl.journal").unlink()
    assert predict(source, out).rows == ROWS + 1


def test_a_file_that_lost_rows_since_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(Died):
        predict(source, tmp_path / "out.jsonl", Counting(3))
    os.truncate(tmp_path / "out.jsonl.partial", 10)
    with pytest.raises(DataError, match=r"out\.jsonl\.partial: shorter than .*out\.jsonl\.journal says"):
        predict(source, tmp_path / "out.jsonl")
    (tmp_path / "out.jsonl.journal").write_bytes(b'{"task')
    with pytest.raises(DataError, match=r"out\.jsonl\.journal: cannot be read"):
        predict(source, tmp_path / "out.jsonl")


def test_a_source_that_breaks_off_keeps_what_was_done(source: Path, tmp_path: Path) -> None:
    packed = tmp_path / "in.jsonl.gz"
    lines = [json.dumps({"text": os.urandom(300).hex()}) + "\n" for _ in range(5000)]
    packed.write_bytes(gzip.compress("".join(lines).encode()))
    whole = packed.read_bytes()
    packed.write_bytes(whole[: int(len(whole) * 0.9)])
    with pytest.raises(DataError, match="the file breaks off or is damaged"):
        predict(packed, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl.partial").stat().st_size > 2_000_000


def test_rejected_rows_of_an_earlier_prediction_do_not_stay(source: Path, tmp_path: Path) -> None:
    predict(source, tmp_path / "out.jsonl")
    source.write_text('{"text": "good"}\n', encoding="utf-8")
    assert predict(source, tmp_path / "out.jsonl").rejected_file is None
    assert not (tmp_path / "out.jsonl.rejected.jsonl").exists()


def test_a_row_that_the_classifier_refuses_is_set_aside_and_the_others_answered(source: Path, tmp_path: Path) -> None:
    class Picky(Counting):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            if any(text in ("行2", "行9", "行11", "行20", "行21", "行22") for text in texts):
                raise RequestError("not this one")
            return super().predict(texts)

    result = predict(source, tmp_path / "out.jsonl", Picky())
    assert (result.rows, result.rejected) == (ROWS - 6, len(BAD_LINES) + 6)
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [row["text"] for row in written] == [f"行{n}" for n in range(ROWS) if n not in (2, 9, 11, 20, 21, 22)]
    assert all(row["prediction"].startswith(row["text"] + ":") for row in written)
    rejected = [json.loads(line) for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(row["reason"] == f"{source}:{row['line']}: not this one" for row in rejected) == 6
    again = tmp_path / "again" / "out.jsonl"
    with pytest.raises(Died):
        predict(source, again, Picky(lives=8))
    predict(source, again, Picky())
    assert again.read_bytes() == (tmp_path / "out.jsonl").read_bytes()


@pytest.mark.parametrize("lines", [1, 20], ids=["one window", "several windows"])
def test_a_file_of_bad_rows_alone_is_an_error(lines: int, source: Path, tmp_path: Path) -> None:
    source.write_text("{broken\n" + lines * "{again\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"none of its rows can be read; the first: .*in\.jsonl:1: broken JSON"):
        predict(source, tmp_path / "out.jsonl")
    assert set(files(tmp_path)) == {"in.jsonl"}


@pytest.mark.parametrize(
    ("name", "content", "good", "bad"),
    [
        ("a.csv", 'text,n\n"两\n行",1\nno field\n好,2\n', ["两\n行", "好"], [4]),
        ("a.tsv", "text\tn\n好\t1\nno tab\n吗\t2\n", ["好", "吗"], [3]),
        ("a.json", '[{"text": "好"}, 7, {"text": ""}, {"text": "吗"}]', ["好", "吗"], [2, 3]),
        ("a.csv", "text,n\n好,1\n坏\\xff,2\n吗,3\n", ["好", "吗"], [3]),
        ("a.csv", 'text,n\n好,1\n"坏\n\\xff",2\n吗,3\n', ["好", "吗"], [3]),
        ("a.jsonl", '{"text": "好"}\n{"text": "\\xff"}\n{"text": "吗"}\n', ["好", "吗"], [2]),
        ("a.txt", "好\n\\xff\n吗\n", ["好", "吗"], [2]),
    ],
    ids=["csv", "tsv", "json", "csv bytes", "csv bytes in a quoted field", "jsonl bytes", "txt bytes"],
)
def test_every_format_goes_on_after_a_bad_row(tmp_path: Path, name: str, content: str, good: list[str], bad: list[int]) -> None:
    (tmp_path / name).write_bytes(content.encode().replace(b"\\xff", b"\xff"))
    result = predict(tmp_path / name, tmp_path / "out.jsonl")
    written = [json.loads(line)["text"] for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    rejected = [json.loads(line)["line"] for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()]
    assert (written, rejected) == (good, bad)
    assert result.rows + result.rejected == len(good) + len(bad)


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl"])
def test_a_row_of_too_many_brackets_is_set_aside(name: str, tmp_path: Path) -> None:
    source, nested = tmp_path / "in.jsonl", f'{{"text": "x", "nan": NaN, "a": {"[" * 600}{"]" * 600}}}\n'
    source.write_text(f'{{"text": "one", "nan": 1, "a": []}}\n{nested}{{"text": "two", "nan": 1, "a": [[1]]}}\n', encoding="utf-8")
    result = predict(source, tmp_path / name)
    assert (result.rows, result.rejected) == (2, 1)
    assert "in.jsonl:2: brackets more than 100 deep" in (tmp_path / f"{name}.rejected.jsonl").read_text(encoding="utf-8")


def test_from_pipe_to_pipe_bad_rows_go_to_standard_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n{\n{"text": "b"}\n')))
    result = predict_file(Counting(), "-", "-")  # type: ignore[arg-type]
    said = capsys.readouterr()
    assert [json.loads(line)["text"] for line in said.out.splitlines()] == ["a", "b"]
    assert json.loads(said.err)["line"] == 2
    assert (result.rows, result.rejected, result.rejected_file) == (2, 1, None)


def test_memory_does_not_grow_with_what_comes_through_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """20 MB of rows, in a few hundred kB beside the first mebibyte, which tells the encoding."""

    class Endless(io.RawIOBase):
        left = 2_000

        def readable(self) -> bool:
            return True

        def readline(self, size: int | None = -1, /) -> bytes:
            self.left -= 1
            return b'{"text": "%s"}\n' % (b"%06d" % self.left * 1700) if self.left >= 0 else b""

    monkeypatch.setattr(bulk, "WINDOW_ROWS", 8)
    with open(os.devnull, "w") as nowhere:
        monkeypatch.setattr("sys.stdin", types.SimpleNamespace(buffer=Endless()))
        monkeypatch.setattr("sys.stdout", nowhere)
        tracemalloc.start()
        try:
            result = predict_file(Counting(), "-", "-")  # type: ignore[arg-type]
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert result.rows == 2_000
    assert peak < 8_000_000


def test_a_pipe_into_a_file_starts_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    def piped(classifier: Any) -> Any:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(source.read_bytes())))
        return predict(Path("-"), tmp_path / "out.jsonl", classifier)

    with pytest.raises(Died):
        piped(Counting(3))
    assert set(files(tmp_path)) == {"in.jsonl"}
    assert piped(Counting()).rows == ROWS


def test_a_growing_file_is_followed_and_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.data.growing.POLL_SECONDS", 0.0)
    source, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    written: list[str] = []
    pieces = iter(['{"text": "a"}\n{"te', 'xt": "b"}\n{bad\n', "", '{"text": "c"}\n'])

    def grow(_: float) -> None:
        piece = next(pieces, None)
        if piece is None:
            raise KeyboardInterrupt
        written.append(out.read_text(encoding="utf-8") if out.exists() else "")
        with source.open("a", encoding="utf-8") as file:
            file.write(piece)

    source.touch()
    monkeypatch.setattr("fenlei.data.growing.time.sleep", grow)
    with pytest.raises(KeyboardInterrupt):
        predict(source, out, follow=True)
    assert [text.count("\n") for text in written] == [0, 1, 2, 2], "a row is written as soon as its line is whole"
    pieces = iter(['{"text": "d"}\n'])
    with pytest.raises(KeyboardInterrupt):
        predict(source, out, follow=True)
    assert [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()] == ["a", "b", "c", "d"]
    assert [json.loads(line)["line"] for line in (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()] == [3]
    source.write_text("", encoding="utf-8")
    with pytest.raises(ConfigError, match="another source"):
        predict(source, out, follow=True)


@pytest.mark.parametrize(("bad", "set_aside"), [(b"caf\xe9", [2]), (b"na\xefve", [])], ids=["in neither", "GB18030 too"])
def test_one_line_in_another_encoding_does_not_decide_for_a_followed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bad: bytes, set_aside: list[int]
) -> None:
    source, out = tmp_path / "log.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b"".join(b'{"text": "%s"}\n' % text for text in (b"a", bad, "café".encode(), "中文".encode())))

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fenlei.data.growing.time.sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        predict(source, out, follow=True)
    texts = [json.loads(line)["text"] for line in out.read_text(encoding="utf-8").splitlines()]
    assert len(texts) == 4 - len(set_aside)
    assert texts[-2:] == ["café", "中文"]
    rejected = "".join(path.read_text(encoding="utf-8") for path in tmp_path.glob("*.rejected.jsonl"))
    assert [json.loads(line)["line"] for line in rejected.splitlines()] == set_aside


@pytest.mark.skipif(sys.platform != "linux", reason="other systems allow no such file name")
def test_a_bad_row_of_a_file_whose_name_is_no_unicode_is_set_aside(tmp_path: Path) -> None:
    source = tmp_path / os.fsdecode(b"in\xff.jsonl")
    source.write_text('{"text": "a"}\n{bad\n', encoding="utf-8")
    result = predict(source, tmp_path / "out.jsonl")
    assert (result.rows, result.rejected) == (1, 1)
    (rejected,) = (tmp_path / "out.jsonl.rejected.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(rejected)["line"] == 2


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl.gz", "-"])
def test_what_cannot_be_followed_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.csv").write_text("text\na\n")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n'))
    with pytest.raises(DataError, match="can be followed while they grow"):
        predict(Path(name) if name == "-" else tmp_path / name, tmp_path / "out.jsonl", follow=True)


def test_a_followed_target_that_is_something_else_is_not_touched(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out.jsonl").write_text("mine")
    with pytest.raises(ConfigError, match="choose another --out"):
        predict(source, tmp_path / "out.jsonl", follow=True)
    assert (tmp_path / "out.jsonl").read_text() == "mine"


def test_a_complete_result_is_not_taken_for_that_of_a_pipe_that_broke_off(source: Path, tmp_path: Path) -> None:
    """Killed while it predicted rows from a pipe into a name that a finished prediction has, a process leaves its journal there."""
    out = tmp_path / "out.jsonl"
    predict(source, out)
    before = out.read_bytes()
    journal.Journal(out, lambda: {"source": None}).append("{}\n", "", journal.State(rows=1))
    with pytest.raises(ConfigError, match="choose another --out"):
        predict(source, out, follow=True)
    assert out.read_bytes() == before


def test_a_followed_file_begun_by_an_earlier_version_is_begun_anew(tmp_path: Path) -> None:
    """Its journal does not say that rows went to the target itself."""
    out = tmp_path / "out.jsonl"
    task = {"source": {"start": "x"}, "model": "m", "set of options": {"follow": True}}
    (tmp_path / "out.jsonl.journal").write_text(json.dumps({"task": task, "state": asdict(journal.State())}), encoding="utf-8")
    out.write_text('{"torn', encoding="utf-8")
    journal.Journal(out, lambda: task, in_place=True).append("{}\n", "", journal.State(rows=1))
    assert out.read_text(encoding="utf-8") == "{}\n"


def test_what_an_earlier_version_has_begun_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    """Its journal knows these options and no other; the column of the labels is the run's."""
    with pytest.raises(Died):
        predict(source, tmp_path / "out.jsonl", Counting(3))
    begun = json.loads((tmp_path / "out.jsonl.journal").read_text(encoding="utf-8"))["task"]
    options = {"text_column", "pair_column", "probabilities", "prefix", "labels", "passages", "window", "follow"}
    assert set(begun["set of options"]) == options


def test_killed_for_real_and_started_again(source: Path, tmp_path: Path) -> None:
    """Processes that get SIGKILL at whatever they are doing; one a text is slow enough to be hit."""

    class Slow(Counting):
        def predict(self, texts: Sequence[str], labels: Any = None) -> list[Prediction]:
            time.sleep(0.02)
            return super().predict(texts)

    whole = unbroken(source, tmp_path / "whole", "out.jsonl")
    out = tmp_path / "killed" / "out.jsonl"
    ready, begins = os.pipe()

    def work() -> None:
        os.write(begins, b".")
        predict(source, out, Slow())

    for wait in (0.03, 0.05, 0.04):
        child = split(work)
        os.read(ready, 1)
        time.sleep(wait)
        os.kill(child, signal.SIGKILL)
        ended(child)
    os.close(ready)
    os.close(begins)
    predict(source, out)
    assert files(out.parent) == whole
