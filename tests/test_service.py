"""The service over real sockets: its routes, its limits, what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import TOY_NEWS
from huggingface_hub import TextClassificationOutputElement
from serving import Running, running
from starlette.requests import Request

from fenlei import Classifier, train
from fenlei.data.columns import LABEL_NAMES, TEXT_NAMES
from fenlei.errors import ConfigError, RequestError
from fenlei.serving import processes
from fenlei.serving.app import PAGE
from fenlei.serving.keys import Keys
from fenlei.serving.life import Settings
from fenlei.serving.limits import Limits
from fenlei.serving.model import Served
from fenlei.serving.processes import listen
from fenlei.serving.protocols.classify import InfinityResponse, VllmResponse
from fenlei.serving.protocols.errors import HuggingFaceError, OpenAIError, TeiError
from fenlei.serving.protocols.own import OwnResponse
from fenlei.serving.protocols.state import _is_from_here

QUICK: dict[str, Any] = {"max_steps": 4, "batch_size": 8, "device": "cpu", "baseline": False}
LIMITS = Limits(max_texts=40, max_characters=2000, max_body=100_000, read_timeout=1.0, timeout=20.0)
SURROGATE = b'{"%s": ["\\ud800"]}'


@pytest.fixture(scope="module")
def head_run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_qwen, tmp_path_factory.mktemp("head") / "news", max_length=64)


@pytest.fixture(scope="module")
def generate_run(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_qwen, tmp_path_factory.mktemp("generate") / "asked", method="generate", tuning="full", max_length=200)


def trained(model: Path, out: Path, **options: Any) -> Path:
    train(TOY_NEWS, model=str(model), out=out, **QUICK, **options)
    return out


@pytest.fixture(scope="module")
def service(head_run: Path) -> Iterator[Running]:
    with running(head_run, limits=LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def asked(generate_run: Path) -> Iterator[Running]:
    with running(generate_run, limits=LIMITS) as one:
        yield one


@pytest.fixture(scope="module")
def texts() -> list[str]:
    lines = TOY_NEWS.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def test_answers_are_those_of_the_classifier(service: Running, head_run: Path, texts: list[str]) -> None:
    """Each text alone, from 16 connections at once, against one call for all."""
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda text: service.post("/v1/classify", {"texts": [text]}), texts))
    expected = Classifier.load(head_run, device="cpu").predict(texts)
    for reply, one in zip(replies, expected, strict=True):
        OwnResponse.model_validate_json(reply.body)
        (answer,) = reply.json["results"]
        assert answer["label"] == one.label
        assert answer["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)
        assert answer["calibrated"] == one.calibrated
    together = service.post("/v1/classify", {"texts": texts[:40]}).json["results"]
    assert [one["label"] for one in together] == [one.label for one in expected[:40]]


def test_what_was_cut_is_said(service: Running) -> None:
    short, long = service.post("/v1/classify", {"texts": ["短", "国足热身赛" * 100]}).json["results"]
    assert short["tokens_cut"] == 0
    assert long["tokens_cut"] > 100


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/classify", {"input": ["短", "@"]}),
        ("/classify", {"input": ["短", "@"], "raw_scores": False}),
        ("/classify", {"text": "@", "category": ""}),
        ("/predict", {"inputs": [["短"], ["@"]]}),
        ("/", {"inputs": ["短", "@"]}),
    ],
)
def test_what_was_cut_is_said_beside_answers_that_have_no_place_for_it(path: str, body: dict[str, Any], service: Running) -> None:
    long = "国足热身赛" * 100
    (_, cut) = service.post("/v1/classify", {"texts": ["短", long]}).json["results"]
    answer = service.post(path, json.loads(json.dumps(body).replace("@", long)))
    assert answer.status == 200
    assert answer.headers["x-tokens-cut"] == str(cut["tokens_cut"])
    assert service.post(path, json.loads(json.dumps(body).replace("@", "短"))).headers["x-tokens-cut"] == "0"


def hold_answers(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """From now on the model answers when the event is set."""
    held, answer = threading.Event(), Served.answer

    def wait(self: Served, *given: Any) -> Any:
        held.wait(20)
        return answer(self, *given)

    monkeypatch.setattr(Served, "answer", wait)
    return held


def test_too_late_and_too_many_are_said_over_http(head_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(head_run, limits=Limits(max_queue=4, max_texts=4, timeout=1.0)) as service:
        held = hold_answers(monkeypatch)
        with ThreadPoolExecutor(3) as callers:
            first = callers.submit(service.post, "/v1/classify", {"texts": ["一"]})
            time.sleep(0.3)  # the model has it
            waiting = callers.submit(service.post, "/classify", {"input": ["二"] * 4})
            time.sleep(0.3)
            refused = service.post("/predict", {"inputs": "三"})
            assert (refused.status, refused.json["error_type"]) == (429, "overloaded")
            assert int(refused.headers["retry-after"]) >= 1
            assert first.result().status == 504
            assert waiting.result().status == 504
            assert "not answered within 1 s" in first.result().json["error"]["message"]
            held.set()
        assert service.post("/v1/classify", {"texts": ["四"]}).status == 200


def test_health_asks_the_model_and_not_the_clock(head_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.serving.service.PING_SECONDS", 0.3)
    with running(head_run) as service:
        assert service.get("/health").status == 200
        held = hold_answers(monkeypatch)
        with ThreadPoolExecutor(1) as callers:
            stuck = callers.submit(service.post, "/v1/classify", {"texts": ["一"]})
            time.sleep(0.2)
            assert service.get("/health").status == 503
            held.set()
            assert stuck.result().status == 200
        assert service.get("/health").status == 200


def test_listening_wider_without_a_key_is_warned_of(
    head_run: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(processes, "run_server", lambda settings, listener: listener.close() or 0)
    monkeypatch.setattr(processes, "listen", lambda host, port: listen("127.0.0.1", port))
    processes.serve(Settings(head_run, host="127.0.0.1", port=0))
    assert "without an API key" not in caplog.text
    processes.serve(Settings(head_run, host="0.0.0.0", port=0))
    assert "listening on 0.0.0.0 without an API key" in caplog.text


def test_requests_share_passes(service: Running, texts: list[str]) -> None:
    def passes() -> tuple[float, float]:
        figures = dict(line.rsplit(" ", 1) for line in service.get("/metrics").body.decode().splitlines() if line[0] != "#")
        return float(figures["fenlei_pass_texts_count"]), float(figures["fenlei_pass_texts_sum"])

    passes_before, texts_before = passes()
    with ThreadPoolExecutor(32) as pool:
        assert {one.status for one in pool.map(lambda text: service.post("/v1/classify", {"texts": [text]}), texts * 3)} == {200}
    passes_after, texts_after = passes()
    assert texts_after - texts_before == 180
    assert passes_after - passes_before < 120


def test_a_run_is_not_described_anew_for_every_request(service: Running, texts: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    service.post("/v1/classify", {"texts": texts[:1]})
    described: list[Classifier] = []
    whole = Classifier.describe
    monkeypatch.setattr(Classifier, "describe", lambda self: (described.append(self), whole(self))[1])
    assert {service.post("/v1/classify", {"texts": [text]}).status for text in texts[:5]} == {200}
    assert not described


def test_vllm(service: Running, head_run: Path) -> None:
    labels = Classifier.load(head_run, device="cpu").labels
    reply = service.post("/classify", {"input": ["甲", "乙"], "model": "news", "user": None, "priority": 0})
    found = VllmResponse.model_validate_json(reply.body, extra="forbid")
    assert [one.index for one in found.data] == [0, 1]
    for one in found.data:
        assert len(one.probs) == one.num_classes == len(labels)
        assert sum(one.probs) == pytest.approx(1)
        assert one.label == labels[one.probs.index(max(one.probs))]
    assert found.usage.prompt_tokens == found.usage.total_tokens > 0
    assert found.id.startswith("classify-")
    single = service.post("/classify", {"input": "甲", "use_activation": False}).json["data"]
    assert len(single) == 1
    assert max(single[0]["probs"]) < 0, "logits were asked for"
    problem(service.post("/classify", {"input": [1, 2, 3]}), 400, OpenAIError)
    problem(service.post("/classify", {"input": []}), 400, OpenAIError)
    problem(service.post("/classify", {"input": "甲", "truncate_prompt_tokens": 3}), 400, OpenAIError)
    missing = service.post("/classify", {"input": "甲", "model": "gpt"})
    problem(missing, 404, OpenAIError)
    assert missing.json["error"]["type"] == "NotFoundError"


def test_a_name_to_be_served_under_is_that_of_requests_and_answers(generate_run: Path, asked: Running) -> None:
    """The request that docs/scale.md sends to vLLM, sent to the command that it shows in vLLM's place."""
    shown = (Path(__file__).parents[1] / "docs" / "scale.md").read_text(encoding="utf-8")
    (name,) = {*re.findall(r"(?:vllm|fenlei) serve .*--served-model-name (\w+)", shown)}
    (body,) = re.findall(r"localhost:8000/classify .*-d '(.*)'", shown)
    with running(generate_run, served_model_name=name) as named:
        assert VllmResponse.model_validate_json(named.post("/classify", json.loads(body)).body).model == name
        assert [one["id"] for one in named.get("/v1/models").json["data"]] == [name]
    problem(asked.post("/classify", json.loads(body)), 404, OpenAIError)


def test_infinity(service: Running) -> None:
    reply = service.post("/classify", {"input": ["甲", "乙"], "model": "default/not-specified", "raw_scores": False})
    found = InfinityResponse.model_validate_json(reply.body, extra="forbid")
    assert len(found.data) == 2
    for scores in found.data:
        assert [one.score for one in scores] == sorted((one.score for one in scores), reverse=True)
        assert sum(one.score for one in scores) == pytest.approx(1)
    problem(service.post("/classify", {"input": "甲", "raw_scores": False}), 400, OpenAIError)


def test_tei(service: Running) -> None:
    reply = service.post("/predict", {"inputs": "甲"})
    assert [set(one) for one in reply.json] == [{"score", "label"}] * 3
    assert reply.json[0]["score"] == max(one["score"] for one in reply.json)
    assert int(reply.headers["x-compute-characters"]) == 1
    assert reply.headers["x-compute-time"] == reply.headers["x-total-time"]
    assert service.post("/predict", {"inputs": ["甲"]}).json == reply.json
    batch = service.post("/predict", {"inputs": [["甲"], ["乙"]]}).json
    assert len(batch) == 2
    assert batch[0] == [{"label": one["label"], "score": pytest.approx(one["score"], abs=1e-5)} for one in reply.json]
    assert service.post("/predict", {"inputs": "甲", "raw_scores": True}).json[0]["score"] < 0
    for pair in (["甲", "乙"], ["甲", "乙", "丙"], [["甲"], ["乙", "丙"]]):
        refused = service.post("/predict", {"inputs": pair})
        problem(refused, 422, TeiError)
        assert refused.json["error_type"] == "validation"
        assert "pair" in refused.json["error"]
    problem(service.post("/predict", {"inputs": [["甲"]] * 41}), 422, TeiError)
    empty = service.post("/predict", {"inputs": []})
    problem(empty, 400, TeiError)
    assert empty.json["error_type"] == "empty"
    long = {"inputs": [["甲"], ["甲乙丙" * 300]]}
    refused = service.post("/predict", {**long, "truncate": False})
    problem(refused, 413, TeiError)
    assert "truncate: true" in refused.json["error"]
    assert len(service.post("/predict", {**long, "truncate": True}).json) == 2
    assert service.post("/predict", {"inputs": "甲", "truncate": False}).json == reply.json
    info = service.get("/info").json
    assert info["model_type"]["classifier"]["id2label"]["0"] == next(iter(info["model_type"]["classifier"]["label2id"]))
    assert info["max_client_batch_size"] == 40
    assert info["max_labels"] == 1000


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/predict", {"inputs": ["甲", "乙"]}, 422),
        ("/predict", {"inputs": [["甲", "乙"]]}, 422),
        ("/classify", {"input": ["甲", "乙"]}, 400),
        ("/classify", {"input": [["甲", "乙"]]}, 400),
        ("/classify", {"text": "甲"}, 400),
        ("/", {"inputs": "甲"}, 400),
        ("/", {"inputs": [["甲", "乙"]]}, 400),
    ],
)
def test_pairs_are_sent_to_the_route_that_takes_them(
    path: str, body: dict[str, Any], status: int, service: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Classifier, "pairs", True)
    refused = service.post(path, body)
    assert refused.status == status
    assert "trained on pairs of texts; send them to /v1/classify" in refused.body.decode()


def test_a_text_at_fault_has_its_place_in_the_request(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestError, match=r"text 2 .* is no valid Unicode"):
        asyncio.run(service.server.service.classify(["a", "b", "\ud800", "c"]))
    monkeypatch.setattr(Classifier, "pairs", True)
    with pytest.raises(RequestError, match=r"text 1 .* is no valid Unicode"):
        asyncio.run(service.server.service.classify([("a", "b"), ("c", "\ud800")]))


def test_a_request_is_answered_by_one_run(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another took over when the first of its texts was answered."""
    answer, passes = Served.answer, []

    def taken_over(self: Served, texts: Any, labels: Any) -> Any:
        passes.append(len(texts))
        first, *others = answer(self, texts, labels)
        return [replace(first, version="older") if len(passes) == 1 else first, *others]

    monkeypatch.setattr(Served, "answer", taken_over)
    reply = service.post("/v1/classify", {"texts": ["甲", "乙"]})
    assert (reply.status, reply.json["version"]) == (200, service.get("/ready").json["version"])
    assert passes == [2, 2]


def test_hugging_face(service: Running) -> None:
    reply = service.post("/", {"inputs": "甲"})
    (one,) = reply.json
    assert [set(score) for score in one] == [{"label", "score"}] * 3
    as_their_client_reads_it = TextClassificationOutputElement.parse_obj_as_list(reply.body)[0]
    assert [(score.label, score.score) for score in as_their_client_reads_it] == [(score["label"], score["score"]) for score in one]
    two = service.post("/", {"inputs": ["甲", "乙"], "parameters": {"top_k": 1}}).json
    assert [len(scores) for scores in two] == [1, 1]
    assert service.post("/", {"inputs": "甲", "parameters": {"function_to_apply": "none"}}).json[0][0]["score"] < 0
    problem(service.post("/", {"inputs": "甲", "parameters": {"function_to_apply": "sigmoid"}}), 400, HuggingFaceError)
    problem(service.post("/", {"input": "甲"}), 400, HuggingFaceError)


def test_candidates_in_a_string(asked: Running, service: Running) -> None:
    found = asked.post("/classify", {"text": "央行下调利率", "category": "财经,科技，军事"}).json
    assert found["status"] == "success"
    assert found["predicted_category"] in ("财经", "科技", "军事")
    refused = service.post("/classify", {"text": "央行下调利率", "category": "财经,科技"})
    problem(refused, 400, OpenAIError)
    assert "head" in refused.json["error"]["message"]
    assert service.post("/classify", {"text": "央行下调利率"}).status == 200


def test_labels_with_a_request(asked: Running, generate_run: Path) -> None:
    wanted = [["财经", "军事"], None, ["体育", "天气", "财经"]]
    words = ["央行下调利率", "国足取胜", "明日有雨"]
    reply = asked.post("/v1/classify", {"texts": words, "labels": wanted}).json["results"]
    for answer, one in zip(reply, Classifier.load(generate_run, device="cpu").predict(words, labels=wanted), strict=True):
        assert answer["label"] == one.label
        assert answer["probabilities"] == pytest.approx(one.probabilities, abs=1e-5)
        assert answer["calibrated"] is one.calibrated
    for wrong in ([], [["财经"], []], ["a", "\ud800"], [[]], [["财经"]] * 4, ["x"] * 1001):
        refused = asked.post("/v1/classify", {"texts": words[:2], "labels": wrong})
        assert refused.status == 422, (wrong, refused)
    twice = asked.post("/v1/classify", {"texts": words[:2], "labels": ["财经", "财经"]})
    assert twice.status == 200
    assert [one["probabilities"] for one in twice.json["results"]] == [{"财经": pytest.approx(1.0)}] * 2


def test_state(service: Running, head_run: Path) -> None:
    assert service.get("/health").json == {"status": "ready"}
    ready = service.get("/ready").json
    assert ready["run"] == "news"
    (card,) = service.get("/v1/models").json["data"]
    assert card["id"] == "news"
    assert card["max_model_len"] == 64
    assert card["version"] == ready["version"]
    assert service.get("/version").status == 200
    assert "fenlei_requests_total" in service.get("/metrics").body.decode()
    assert "/v1/classify" in service.get("/openapi.json").json["paths"]
    problem(service.get("/nowhere"), 404, OpenAIError)
    problem(service.get("/v1/classify"), 405, OpenAIError)


@pytest.mark.parametrize(("name", "expected"), [("USUAL", TEXT_NAMES), ("LABELS", LABEL_NAMES)], ids=["texts", "labels"])
def test_the_page_knows_the_names_of_columns_that_fenlei_knows(name: str, expected: tuple[str, ...]) -> None:
    script = (PAGE / "tables.js").read_text(encoding="utf-8")
    names = re.search(rf"const {name} = (\[.*?\]);", script, re.DOTALL)
    assert names is not None
    assert tuple(json.loads(names[1])) == expected


def problem(reply: Any, status: int, shape: type[OpenAIError] | type[TeiError] | type[HuggingFaceError]) -> None:
    assert reply.status == status, reply
    shape.model_validate_json(reply.body, extra="forbid")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/classify", b"", 422),
        ("/v1/classify", b"{", 400),
        ("/v1/classify", b"[]", 422),
        ("/v1/classify", b'{"texts": []}', 422),
        ("/v1/classify", b'{"texts": "one"}', 422),
        ("/v1/classify", b'{"texts": [NaN]}', 422),
        ("/v1/classify", b'{"texts": [1e999, null, {}]}', 422),
        ("/v1/classify", b'{"texts": ["a"], "lables": ["b"]}', 422),
        ("/v1/classify", b'{"texts": ["a"], "\\ud800": 1}', 422),
        ("/v1/classify", b'{"texts": ["\\ud800"]}', 422),
        ("/v1/classify", b'{"texts": ["\xff"]}', 400),
        ("/v1/classify", b"[" * 50_000, 400),
        ("/v1/classify", b'{"texts": ' + b"[" * 20_000 + b"]" * 20_000 + b"}", 400),
        ("/v1/classify", b'{"texts": [' + b"1" * 10_000 + b"]}", 400),
        ("/v1/classify", b'{"texts": ["' + b"a" * 2001 + b'"]}', 413),
        ("/v1/classify", b'{"texts": ["' + b"a" * 100_001 + b'"]}', 413),
        ("/v1/classify", json.dumps({"texts": ["a"] * 41}).encode(), 422),
        ("/classify", b'{"input": ["\\ud800"]}', 400),
        ("/predict", b'{"inputs": "\\ud800"}', 422),
        ("/", b'{"inputs": "\\ud800"}', 400),
        ("/", b"nonsense", 400),
    ],
)
def test_a_hostile_body_is_refused_in_the_words_of_its_route(service: Running, path: str, body: bytes, status: int) -> None:
    reply = service.post(path, body)
    assert reply.status == status, reply
    told = reply.json["error"]
    assert told["message"] if isinstance(told, dict) else told
    assert service.post("/v1/classify", {"texts": ["好"]}).status == 200


@pytest.mark.parametrize("body", [{"texts": [1] * 45_000}, {str(at): 1 for at in range(8_000)}, {"texts": {"a": 1}}])
def test_what_is_wrong_a_thousand_times_is_said_once(service: Running, body: dict[str, Any]) -> None:
    began = time.monotonic()
    reply = service.post("/v1/classify", json.dumps(body, separators=(",", ":")).encode())
    assert reply.status == 422
    assert len(reply.body) < 1000
    assert time.monotonic() - began < 1


def test_odd_texts_are_texts(service: Running) -> None:
    odd = ["", "\x00", " \n\t", "😀" * 100, "<|im_end|>", "a\u0301", "\u202e", "国" * 2000]
    assert len(service.post("/v1/classify", {"texts": odd}).json["results"]) == len(odd)


def raw(service: Running, data: bytes, *, half_close: bool = False, wait: float = 5.0) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=wait) as connection:
        connection.sendall(data)
        if half_close:
            connection.shutdown(socket.SHUT_WR)
        received = b""
        try:
            while part := connection.recv(65536):
                received += part
        except (TimeoutError, ConnectionError):
            pass
        return received


def test_a_body_that_drips_or_never_ends_is_given_up(service: Running) -> None:
    head = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{"
    began = time.monotonic()
    assert b" 408 " in raw(service, head)
    assert time.monotonic() - began < 4
    endless = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"2000\r\n" + b"a" * 8192 + b"\r\n"
    assert b" 413 " in raw(service, endless + (b"2000\r\n" + b"a" * 8192 + b"\r\n") * 20)
    large = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Length: 999999999999999999\r\n\r\n"
    assert b" 413 " in raw(service, large)


def test_a_large_body_is_refused_so_that_its_sender_reads_why(service: Running) -> None:
    for _ in range(10):
        assert service.post("/v1/classify", b"a" * 350_000).status == 413


def test_a_head_that_drips_is_given_up(service: Running) -> None:
    with ExitStack() as opened:
        address = ("127.0.0.1", service.port)
        silent, begun, kept = (opened.enter_context(socket.create_connection(address, timeout=8)) for _ in range(3))
        began = time.monotonic()
        begun.sendall(b"POST /v1/cla")
        kept.sendall(b"GET /version HTTP/1.1\r\nHost: a\r\n\r\n")
        assert kept.recv(65536).startswith(b"HTTP/1.1 200")
        kept.sendall(b"GET /ver")
        for connection in (silent, begun, kept):
            assert connection.recv(65536) == b""
        assert time.monotonic() - began < 5


def test_broken_http_and_half_closed_connections_hurt_nobody(service: Running) -> None:
    body = json.dumps({"texts": ["好"] * 40}).encode()
    whole = b"POST /v1/classify HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    for data in (b"\x00\xff\x16\x03", b"GET / HTTP/9.9\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: -5\r\n\r\n", whole[:90], whole):
        raw(service, data, half_close=True, wait=2)
    for _ in range(20):
        with socket.create_connection(("127.0.0.1", service.port)) as connection:
            connection.sendall(whole)
    assert service.post("/v1/classify", {"texts": ["好"]}).status == 200
    assert service.get("/health").status == 200


def test_many_idle_connections_are_no_burden(service: Running) -> None:
    idle = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(200)]
    try:
        assert service.post("/v1/classify", {"texts": ["好"]}).status == 200
    finally:
        for one in idle:
            one.close()


def test_no_text_is_logged_unless_asked(head_run: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for wanted in (False, True):
        caplog.clear()
        with running(head_run, log_texts=wanted) as one:
            one.post("/v1/classify", {"texts": ["秘密的一句话"]})
            one.get(f"/{quote('秘密的一句话')}?text={quote('秘密的一句话')}")
            one.post("/v1/classify", {"texts": [{"秘密的一句话": 1}], "秘密的一句话": 1})
        assert ("秘密的一句话" in caplog.text) is wanted
        assert quote("秘密") not in caplog.text


@pytest.mark.parametrize("header", ["Origin", "Sec-Fetch-Site", "X-Forwarded-For", "Forwarded", "Via"])
def test_without_keys_no_browser_or_proxy_reloads(service: Running, header: str) -> None:
    """Any page that is open on this machine may send such a request, and a proxy on it passes on those of others."""
    problem(service.post("/admin/reload", headers={header: "127.0.0.1"}), 401, OpenAIError)


@pytest.mark.parametrize(("caller", "here"), [("::ffff:127.0.0.1", True), ("::1", True), ("::ffff:10.0.0.1", False)])
def test_a_caller_on_this_machine_is_known_where_one_port_listens_for_both_kinds_of_addresses(caller: str, here: bool) -> None:
    assert _is_from_here(Request({"type": "http", "client": (caller, 1), "headers": []})) is here


def test_a_key_opens_all_but_what_must_be_open(head_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "keys").write_text("# ours\nfirst-key-of-two\n\nsecond-key-of-two\n")
    monkeypatch.setenv("FENLEI_API_KEYS", "third-key-of-environment")
    with running(head_run, keys=Keys.read(tmp_path / "keys", os.environ), cors_origins=("https://ours.example",)) as one:
        for path in ("/health", "/ready", "/", "/docs", "/openapi.json"):
            assert one.get(path).status == 200, path
        for path in ("/metrics", "/info", "/v1/models", "/nowhere"):
            assert one.get(path).status == 401, path
        for path, shape in (("/v1/classify", OpenAIError), ("/classify", OpenAIError), ("/predict", TeiError), ("/", HuggingFaceError)):
            problem(one.post(path, b"not even read", {"Authorization": "Bearer first-key-of-twO"}), 401, shape)
            assert one.post(path, {}).headers["www-authenticate"] == "Bearer"
        problem(one.post("/admin/reload"), 401, OpenAIError)
        for header in ("first-key-of-two", "Basic first-key-of-two", "Bearer", "Bearer ", "Bearer first-key-of-two,", "Bearer é"):
            assert one.get("/info", {"Authorization": header.encode().decode("latin-1")}).status == 401, header
        for key in ("first-key-of-two", "second-key-of-two", "third-key-of-environment"):
            assert one.get("/info", {"Authorization": f"bearer {key}"}).status == 200
        asks = {
            "Origin": "https://ours.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization",
        }
        allowed = one.send("OPTIONS", "/v1/classify", headers=asks)
        assert allowed.headers["access-control-allow-origin"] == "https://ours.example"
        answered = one.post("/", {"inputs": "短"}, {"Origin": "https://ours.example", "Authorization": "Bearer first-key-of-two"})
        assert {"Retry-After", "x-tokens-cut"} == set(answered.headers["access-control-expose-headers"].split(", "))
        strangers = one.send("OPTIONS", "/v1/classify", headers={**asks, "Origin": "https://theirs.example"})
        assert "access-control-allow-origin" not in strangers.headers


def test_no_other_site_may_call_by_default(service: Running) -> None:
    reply = service.post("/v1/classify", {"texts": ["好"]}, {"Origin": "https://theirs.example"})
    assert not [name for name in reply.headers if name.startswith("access-control")]


def test_keys_that_cannot_be_meant_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("# none\n")
    for file, environment, said in (
        (tmp_path / "empty", {}, "holds no"),
        (tmp_path / "no", {}, "read"),
        (None, {"FENLEI_API_KEYS": "short"}, "fewer"),
    ):
        with pytest.raises(ConfigError, match=said):
            Keys.read(file, environment)


def test_keys_are_read_behind_the_mark_that_windows_editors_write(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"\xef\xbb\xbffirst-key-of-two\r\nsecond-key-of-two\r\n")
    keys = Keys.read(tmp_path / "keys", {})
    assert keys.admit(b"Bearer first-key-of-two")
    assert keys.admit(b"Bearer second-key-of-two")


def test_several_processes_are_refused_where_signals_cannot_lead_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("signal.SIGHUP", raising=False)
    with pytest.raises(ConfigError, match=r"--workers 2: .*Windows"):
        processes.serve(Settings(tmp_path, workers=2))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_queue": 0},
        {"timeout": 0.0},
        {"max_texts": 2000},
        {"window": -1.0},
        {"timeout": float("nan")},
        {"window": float("inf")},
        {"drain": float("inf")},
    ],
)
def test_limits_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Limits(**wrong)


def test_a_newer_run_is_taken_over_without_a_dropped_request(head_run: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    newer = trained(tiny_qwen, tmp_path / "newer", max_length=32, seed=7)
    link = tmp_path / "current"
    link.symlink_to(head_run)
    with running(link) as one:
        before = one.get("/ready").json["version"]
        stop = threading.Event()
        seen: list[tuple[int, str]] = []

        def ask() -> None:
            while not stop.is_set():
                reply = one.post("/v1/classify", {"texts": ["好"]})
                seen.append((reply.status, reply.json.get("version", "")))

        askers = [threading.Thread(target=ask) for _ in range(4)]
        for asker in askers:
            asker.start()
        link.unlink()
        link.symlink_to(newer)
        reloaded = one.post("/admin/reload").json
        after = one.get("/ready").json["version"]
        time.sleep(0.2)
        stop.set()
        for asker in askers:
            asker.join()
        assert reloaded["version"] == after != before
        assert {status for status, _ in seen} == {200}
        assert {version for _, version in seen} == {before, after}
        link.unlink()
        link.symlink_to(tmp_path / "gone")
        refused = one.post("/admin/reload")
        problem(refused, 422, OpenAIError)
        assert one.post("/v1/classify", {"texts": ["好"]}).json["version"] == after
