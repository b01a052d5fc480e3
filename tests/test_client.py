"""A service asked from Python and from the command line: the answers of the classifier, and patience."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
from serving import Running, running

from fenlei import Classifier, Client, train
from fenlei.cli.main import main
from fenlei.errors import RequestError
from fenlei.serving.limits import Limits

NEWS = Path(__file__).parent / "data" / "toy_news.jsonl"


@pytest.fixture(scope="module")
def run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options: dict[str, Any] = {"max_steps": 4, "device": "cpu", "baseline": False, "max_length": 64}
    return train(NEWS, model=str(tiny_qwen), out=tmp_path_factory.mktemp("client") / "news", **options).out


@pytest.fixture(scope="module")
def service(run: Path) -> Iterator[Running]:
    with running(run, limits=Limits(max_texts=7, max_queue=14, max_body=4000)) as one:
        yield one


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [json.loads(line)["text"] for line in NEWS.read_text(encoding="utf-8").splitlines()]


def test_it_answers_as_the_classifier_does(service: Running, run: Path, texts: list[str]) -> None:
    """More texts than a request takes, and more requests at a time than the queue: refused ones are sent again."""
    classifier = Classifier.load(run, device="cpu")
    with Client(service.url + "/", connections=6) as client:
        assert client.labels == classifier.labels
        assert not client.takes_labels
        answers = client.predict(texts * 2)
        assert client.predict([]) == []
        assert client.predict(["国" * 500])[0].tokens_cut > 100
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
    with Client(service.url) as client:
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
    with (
        Client(f"http://127.0.0.1:{port}", patience=0.5) as client,
        pytest.raises(RequestError, match=r"not reached .*gave up after 0.5 s"),
    ):
        client.predict(["国"])


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
    server = HTTPServer(("127.0.0.1", 0), Moody)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Client(f"http://127.0.0.1:{server.server_port}", api_key="the-key", connections=1) as client:
            (answer,) = client.predict(["x"])
        assert answer.prediction_set == ("a",)
        assert Moody.asked == ["/info"] * 3 + ["/v1/classify"] * 3
        assert Moody.keys == {"Bearer the-key"}
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_file_is_predicted_by_a_service(service: Running, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "--url", service.url, str(NEWS), "--out", str(tmp_path / "far.csv"), "--probabilities"]) == 0
    assert main(["predict", str(run), str(NEWS), "--out", str(tmp_path / "near.csv"), "--probabilities", "--device", "cpu"]) == 0
    far, near = (list(csv.DictReader((tmp_path / name).open(encoding="utf-8"))) for name in ("far.csv", "near.csv"))
    assert [row["prediction"] for row in far] == [row["prediction"] for row in near]
    assert [list(row) for row in far] == [list(row) for row in near]
    capsys.readouterr()
    assert main(["predict", "--url", service.url, "--text", "国足取胜", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] in {row["prediction"] for row in near} | {row["label"] for row in near}
    assert main(["predict", "--url", service.url, "--text", "国足取胜", "--labels", "甲,乙"]) == 1
    assert "knows its 3 labels" in capsys.readouterr().err


def test_a_client_needs_no_torch() -> None:
    code = "import sys, fenlei; fenlei.Client; print(*sorted({'torch', 'transformers', 'fastapi', 'uvicorn'} & set(sys.modules)))"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert child.stdout.strip() == ""
