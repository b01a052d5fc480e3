"""A service asked from Python and from the command line: the answers of the classifier, and patience."""

from __future__ import annotations

import csv
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from conftest import TOY_NEWS, write_jsonl
from serving import Running, running

from fenlei import Classifier, Client, train
from fenlei.cli.main import main
from fenlei.config import RunConfig, TrustConfig
from fenlei.errors import ConfigError, ModelError, RequestError
from fenlei.inference import bulk
from fenlei.inference.bulk import predict_file
from fenlei.serving.limits import Limits


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options: dict[str, Any] = {"max_steps": 4, "device": "cpu", "baseline": False, "max_length": 64}
    return train(TOY_NEWS, model=str(tiny_qwen), out=tmp_path_factory.mktemp("client") / "news", **options).out


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[Running]:
    with running(run, limits=Limits(max_texts=7, max_queue=14, max_body=4000)) as one:
        yield one


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [json.loads(line)["text"] for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]


def test_it_answers_as_the_classifier_does(service: Running, run: Path, texts: list[str]) -> None:
    """More texts than a request takes, and more requests at a time than the queue: refused ones are sent again."""
    classifier = Classifier.load(run, device="cpu")
    client = Client(service.url + "/", connections=6)
    assert client.labels == classifier.labels
    assert not client.takes_labels
    answers = client.predict(texts * 2)
    assert client.predict([]) == []
    assert client.predict(["国" * 300])[0].tokens_cut > 100
    for one, other in zip(answers, classifier.predict(texts * 2), strict=True):
        assert one.label == other.label
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        assert (one.calibrated, one.tokens_cut, one.abstained, one.prediction_set, one.novelty) == (
            other.calibrated,
            other.tokens_cut,
            other.abstained,
            other.prediction_set,
            pytest.approx(other.novelty) if other.novelty is not None else None,
        )


def test_what_the_service_refuses_is_not_tried_again(service: Running) -> None:
    client = Client(service.url)
    began = time.monotonic()
    with pytest.raises(RequestError, match=r"texts 0 to 0: .*413"):
        client.predict(["国" * 3000])
    with pytest.raises(RequestError, match=r"422.*knows its 3 labels"):
        client.predict(["国"], labels=["甲", "乙"])
    with pytest.raises(RequestError, match="one list of labels for each of 1"):
        client.predict(["国"], labels=[["甲"], ["乙"]])
    with pytest.raises(RequestError, match="one string"):
        client.predict("国")
    assert time.monotonic() - began < 5
    with pytest.raises(RequestError, match="write http"):
        Client("localhost:8000")


def test_nobody_there_is_said_after_the_patience() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ModelError, match=r"not reached .*gave up after 0.5 s"):
        Client(f"http://127.0.0.1:{port}", patience=0.5).predict(["国"])


class Moody(BaseHTTPRequestHandler):
    """Answers a 503 and a 429 before each good answer."""

    asked: ClassVar[list[str]] = []
    keys: ClassVar[set[str | None]] = set()

    def do_GET(self) -> None:
        self.reply({"max_client_batch_size": 10, "max_body_bytes": 1000, "takes_labels": True})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        answer = {"label": "a", "confidence": 1.0, "probabilities": {"a": 1.0}, "calibrated": True, "tokens_cut": 0}
        self.reply({"results": [{**answer, "prediction_set": ["a"], "abstained": False, "novelty": 0.5}]})

    def reply(self, body: dict[str, Any]) -> None:
        self.asked.append(self.path)
        self.keys.add(self.headers["Authorization"])
        status = (503, 429, 200)[(len(self.asked) - 1) % 3]
        told = json.dumps(body if status == 200 else {"error": {"message": "busy"}}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None: ...


def test_a_busy_or_starting_service_is_waited_for() -> None:
    with listening(Moody) as url:
        (answer,) = Client(url, api_key="the-key", connections=1).predict(["x"])
    assert answer.prediction_set == ("a",)
    assert Moody.asked == ["/info"] * 3 + ["/v1/classify"] * 3
    assert Moody.keys == {"Bearer the-key"}


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address at which it answers."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Scripted(BaseHTTPRequestHandler):
    """Answers a request with the status that `status_of` gives for it, each text with itself as its label.

    `version_of` gives the version of the run by the number of requests so far, `promises_of` what it answers with.
    """

    status_of: ClassVar[Callable[[dict[str, Any]], int]]
    version_of: ClassVar[Callable[[int], str]]
    promises_of: ClassVar[Callable[[int], str]]
    limits: ClassVar[dict[str, Any]]
    asked: ClassVar[list[dict[str, Any]]]

    def do_GET(self) -> None:
        told = {"max_client_batch_size": 8, "max_body_bytes": 1_000_000, "takes_labels": True}
        asked = len(self.asked)
        self.reply(200, {**told, "model_sha": type(self).version_of(asked), "answers_sha": type(self).promises_of(asked), **self.limits})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        answer = {"confidence": 1.0, "probabilities": {}, "calibrated": True, "tokens_cut": 0}
        results = [{**answer, "label": text} for text in body["texts"]]
        asked = len(self.asked)
        told = {"version": type(self).version_of(asked), "answers_sha": type(self).promises_of(asked), "error": {"message": "not this"}}
        self.reply(type(self).status_of(body), {**told, "results": results})

    def reply(self, status: int, body: dict[str, Any]) -> None:
        told = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(told)))
        self.end_headers()
        self.wfile.write(told)

    def log_message(self, *_: object) -> None: ...


@contextmanager
def scripted(
    status_of: Callable[[dict[str, Any]], int],
    version_of: Callable[[int], str] = lambda asked: "one",
    promises_of: Callable[[int], str] = lambda asked: "none",
    **limits: Any,
) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A service's address, and what it is asked."""
    asked: list[dict[str, Any]] = []
    told = {"status_of": status_of, "version_of": version_of, "promises_of": promises_of}
    script = {**{name: staticmethod(one) for name, one in told.items()}, "limits": limits, "asked": asked}
    with listening(type("One", (Scripted,), script)) as url:
        yield url, asked


@pytest.mark.parametrize(
    ("given", "sent"),
    [("the-key-of-ours\r\n", b"Bearer the-key-of-ours"), ("密钥密钥", "Bearer 密钥密钥".encode()), ("", None), (" \n", None)],
    ids=["from a file", "Chinese", "none", "blank"],
)
def test_a_key_is_sent_as_the_service_reads_it(given: str, sent: bytes | None) -> None:
    class Asked(Moody):
        asked: ClassVar[list[str]] = []
        keys: ClassVar[set[str | None]] = set()

    with listening(Asked) as url:
        assert Client(url, api_key=given).takes_labels
    assert {key and key.encode("latin-1") for key in Asked.keys} == {sent}


def test_a_key_that_no_header_takes_is_said_at_once_and_kept_secret() -> None:
    with pytest.raises(RequestError, match="api_key: holds a line end") as said:
        Client("http://127.0.0.1:1", api_key="secret\nmore")
    assert "secret" not in str(said.value)


@pytest.mark.parametrize("status", [401, 404, 500, 503])
def test_no_row_is_blamed_for_what_is_wrong_with_the_service(status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 16)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    texts = [f"row {at}" for at in range(48)]
    write_jsonl(source, ({"text": text} for text in texts))
    wrong = {"row 20"}
    with scripted(lambda body: 200 if wrong.isdisjoint(body["texts"]) else status) as (url, asked):
        with pytest.raises(ModelError, match=f"texts 0 to 7: .* answered {status}: not this"):
            predict_file(Client(url, patience=0.1), source, out)
        assert {path.name for path in tmp_path.iterdir()} == {"in.jsonl", "out.jsonl.partial", "out.jsonl.journal"}
        assert len(asked) <= 6, "it was looked for a row at fault"
        wrong.clear()
        result = predict_file(Client(url), source, out)
    assert (result.rows, result.rows_before, result.rejected) == (48, 16, 0)
    assert [json.loads(line)["prediction"] for line in out.read_text().splitlines()] == texts


@pytest.mark.parametrize("status", [413, 422])
def test_a_row_that_the_service_refuses_is_set_aside(status: int, tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, ({"text": f"row {at}"} for at in range(20)))
    with scripted(lambda body: status if "row 11" in body["texts"] else 200) as (url, _):
        result = predict_file(Client(url), source, out)
    assert (result.rows, result.rejected) == (19, 1)
    (rejected,) = (tmp_path / "out.jsonl.rejected.jsonl").read_text().splitlines()
    assert json.loads(rejected)["line"] == 12


@pytest.mark.parametrize("status", [413, 504])
def test_what_is_too_much_at_once_is_asked_in_halves(status: int) -> None:
    texts = [str(at) for at in range(8)]
    labels = [[text] for text in texts]
    with scripted(lambda body: status if len(body["texts"]) > 2 else 200) as (url, asked):
        assert [one.label for one in Client(url).predict(texts, labels=labels)] == texts
    assert [len(body["texts"]) for body in asked] == [8, 4, 2, 2, 4, 2, 2]
    assert all(body["labels"] == [[text] for text in body["texts"]] for body in asked)


def test_what_is_not_answered_in_time_is_asked_in_halves() -> None:
    """Where the service would take longer than the caller waits."""

    def slow(body: dict[str, Any]) -> int:
        time.sleep(0.4 if len(body["texts"]) > 2 or "slow" in body["texts"] else 0)
        return 200

    with scripted(slow) as (url, _):
        assert [one.label for one in Client(url, timeout=0.3, patience=1).predict(list("0123"))] == list("0123")
        with pytest.raises(ModelError, match=r"not answered within 0.3 s; gave up after 0.1 s"):
            Client(url, timeout=0.3, patience=0.1).predict(["slow"])


@pytest.mark.parametrize(("status", "kind", "said"), [(413, RequestError, "413: not this$"), (504, ModelError, r"504: .*gave up")])
def test_a_text_that_is_too_much_alone_is_named(status: int, kind: type[Exception], said: str) -> None:
    with (
        scripted(lambda body: status if "2" in body["texts"] else 200) as (url, asked),
        pytest.raises(kind, match=f"texts 2 to 2: .*{said}"),
    ):
        Client(url, patience=0.3).predict(list("0123"))
    assert (asked.count({"texts": ["2"]}) > 1) is (status == 504), "later it may be answered"


@pytest.mark.parametrize(("limits", "sizes"), [({"max_labels": 10}, [2, 3, 1, 1]), ({}, [7])], ids=["told", "an older service"])
def test_no_request_has_more_labels_than_the_service_takes(limits: dict[str, Any], sizes: list[int]) -> None:
    """Lists that are the same count once, as the service counts them."""
    labels = [["a", *"bcde"], ["b", *"cdef"], ["c", *"defg"], ["c", *"defg"], None, list("abcdefghij"), list("bcdefghij")]
    with scripted(lambda body: 200, **limits) as (url, asked):
        Client(url, connections=1).predict([str(at) for at in range(7)], labels=labels)
    assert [len(body["texts"]) for body in asked] == sizes


def test_texts_and_labels_are_taken_in_whatever_they_stand() -> None:
    """But for a lone string, whose characters would be sent."""
    pandas = pytest.importorskip("pandas")
    texts, labels = ["a", "b"], np.array(["a", "b"])
    with scripted(lambda body: 200) as (url, asked):
        for given in (pandas.Series(texts, index=[7, 9]), iter(texts)):
            assert [one.label for one in Client(url).predict(given, labels=labels)] == texts
        assert asked == [{"texts": texts, "labels": texts}] * 2
        asked.clear()
        with pytest.raises(RequestError, match="found one string '财经,体育'"):
            Client(url).predict(texts, labels="财经,体育")
        assert asked == []


@pytest.mark.parametrize("other", ["version_of", "promises_of"], ids=["another run", "other promises"])
def test_a_file_is_not_predicted_by_two_runs(other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor by one under two sets of promises. The second takes over when the first has answered a window."""
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 8)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, ({"text": f"row {at}"} for at in range(24)))
    takes_over: dict[str, Any] = {other: lambda asked: "one" if asked <= 1 else "two"}
    with scripted(lambda body: 200, **takes_over) as (url, asked):
        client = Client(url)
        with pytest.raises(ModelError, match="another run took over"):
            predict_file(client, source, out)
        assert len(asked) == 2
        with pytest.raises(ConfigError, match="begun there with another model"):
            predict_file(client, source, out)
        assert predict_file(client, source, tmp_path / "other.jsonl").rows == 24


def test_what_is_to_be_done_is_said_where_another_run_took_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bulk, "WINDOW_ROWS", 8)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, ({"text": f"row {at}"} for at in range(24)))
    with scripted(lambda body: 200, lambda asked: "one" if asked <= 1 else "two") as (url, _):
        command = ["predict", "--url", url, str(source), "--out", str(out)]
        assert main(command) == 1
        said = capsys.readouterr().err
        assert "goes on from there, with the same run" in said
        assert "begin anew, or serve the former run again" in said
        assert main(command) == 1
        said = capsys.readouterr().err
        assert f"remove {out}.journal to start over" in said
        assert "goes on from there" not in said


def test_texts_without_a_file_are_answered_by_whichever_run_is_there() -> None:
    texts = [str(at) for at in range(24)]
    with scripted(lambda body: 200, str) as (url, _):
        assert [one.label for one in Client(url).predict(texts)] == texts


def test_a_run_with_other_promises_is_another_classifier(service: Running, run: Path) -> None:
    with running(run, trust=TrustConfig(min_confidence=0.5)) as other:
        one, two = (Client(url).describe() for url in (service.url, other.url))
    assert {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)} == {"answers_sha"}


def test_a_run_in_8_bit_integers_is_another_classifier(service: Running, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, one = Classifier.describe, Client(service.url).describe()
    monkeypatch.setattr(Classifier, "describe", lambda self: {**whole(self), "int8": True})  # as it says where it is loaded so
    with running(run) as other:
        two = Client(other.url).describe()
    assert {name for name in one.keys() | two.keys() if one.get(name) != two.get(name)} == {"answers_sha"}


def test_an_answer_says_what_it_was_given_with(service: Running) -> None:
    answer, info = service.post("/v1/classify", {"texts": ["国"]}).json, service.get("/info").json
    assert (answer["version"], answer["answers_sha"]) == (info["model_sha"], info["answers_sha"])


def test_the_same_run_on_another_machine_is_the_same_classifier(service: Running, run: Path, tmp_path: Path) -> None:
    """The run may have another name there, its base model may lie elsewhere, and one balancer stand before both."""
    manifest = shutil.copytree(run, tmp_path / "copy") / "fenlei.json"
    told = json.loads(manifest.read_text(encoding="utf-8"))
    told["base_model"]["folder"] = str(tmp_path / "elsewhere")
    manifest.write_text(json.dumps(told), encoding="utf-8")
    with running(manifest.parent, served_model_name="another") as other:
        assert Client(other.url).describe() == Client(service.url).describe()
    assert "fitted_among_all" not in Client(service.url).describe()  # or what was begun with a service of before would not go on


@pytest.mark.parametrize("told", [b"<html>", b"[]", b'{"model_id": "x", "max_client_batch_size": 32}'], ids=["a page", "a list", "TEI"])
def test_an_address_of_something_else_is_said(told: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        def log_message(self, *_: object) -> None: ...

    with listening(Other) as url:
        assert main(["predict", "--url", url, "--text", "国足取胜"]) == 1
    assert "/info is not that of `fenlei serve`" in capsys.readouterr().err


def test_a_file_is_predicted_by_a_service(service: Running, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--url", service.url, str(TOY_NEWS), "--out", str(tmp_path / "far.csv"), "--probabilities"]) == 0
    assert main(["predict", str(run), str(TOY_NEWS), "--out", str(tmp_path / "near.csv"), "--probabilities", "--device", "cpu"]) == 0
    far, near = (list(csv.DictReader((tmp_path / name).read_text(encoding="utf-8").splitlines())) for name in ("far.csv", "near.csv"))
    assert [row["prediction"] for row in far] == [row["prediction"] for row in near]
    assert [list(row) for row in far] == [list(row) for row in near]
    capsys.readouterr()
    assert main(["predict", "--url", service.url, "--text", "国足取胜", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] in {row["prediction"] for row in near} | {row["label"] for row in near}
    assert main(["predict", "--url", service.url, "--text", "国足取胜", "--labels", "甲,乙"]) == 1
    assert "knows its 3 labels" in capsys.readouterr().err


@pytest.fixture(scope="module")
def on_body(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Running]]:
    """A run that was trained on the column `body`, and its service."""
    folder = shutil.copytree(run, tmp_path_factory.mktemp("body") / "run")
    config = RunConfig.from_yaml(folder / "config.yaml").replace(text_column="body")
    (folder / "config.yaml").write_text(config.to_yaml(), encoding="utf-8")
    with running(folder) as one:
        yield folder, one


def test_the_column_that_the_run_was_trained_on_is_read_through_a_service_too(
    on_body: tuple[Path, Running], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder, one), source = on_body, tmp_path / "in.jsonl"
    source.write_text(json.dumps({"text": "短", "body": "国" * 300}) + "\n", encoding="utf-8")
    assert main(["predict", "--url", one.url, str(source), "--out", str(tmp_path / "far.jsonl")]) == 0
    assert "text from 'body'" in capsys.readouterr().err
    assert main(["predict", str(folder), str(source), "--out", str(tmp_path / "near.jsonl"), "--device", "cpu"]) == 0
    far, near = (json.loads((tmp_path / name).read_text(encoding="utf-8")) for name in ("far.jsonl", "near.jsonl"))
    assert far["tokens_cut"] == near["tokens_cut"] > 100
    assert far["prediction"] == near["prediction"]


@pytest.mark.parametrize("row", [{"text": "短"}, {"text": "短", "body": "国" * 300}], ids=["text", "both"])
def test_from_python_a_service_reads_the_column_that_the_run_itself_would(
    row: dict[str, str], on_body: tuple[Path, Running], tmp_path: Path
) -> None:
    (folder, one), source = on_body, tmp_path / "in.jsonl"
    source.write_text(json.dumps(row) + "\n", encoding="utf-8")
    far = predict_file(Client(one.url), source, tmp_path / "far.jsonl")
    near = predict_file(Classifier.load(folder, device="cpu"), source, tmp_path / "near.jsonl")
    assert (far.rows, far.tokens_cut) == (near.rows, near.tokens_cut) == (1, 0)


def test_labels_that_a_head_does_not_know_are_refused_before_a_row_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = {"classifier": {"id2label": {"0": "甲", "1": "乙"}}}
    with scripted(lambda body: 200, takes_labels=False, model_type=names) as (url, asked):
        command = ["predict", "--url", url, str(TOY_NEWS), "--out", str(tmp_path / "out.jsonl"), "--labels"]
        assert main([*command, "甲,丙"]) == 1
        assert asked == []
        assert "knows its 2 labels and no other" in capsys.readouterr().err
        assert main([*command, "乙,甲"]) == 0, "its own are no others"


def test_a_client_needs_no_torch() -> None:
    code = "import sys, fenlei; fenlei.Client; print(*sorted({'torch', 'transformers', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout.strip() == ""
