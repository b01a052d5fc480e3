"""The service as a process: signals, workers, and how it ends."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from conftest import TOY_NEWS
from serving import running

from fenlei import train
from fenlei.artifact import DIGEST, read_manifest, write_manifest
from fenlei.cli.main import main
from fenlei.cli.trust import BARE_TEXTS
from fenlei.errors import ModelError
from fenlei.serving import life, model, processes
from fenlei.serving.life import DIED, NEVER_LOADED, Server, Settings, run_server
from fenlei.serving.processes import listen

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")
BODY = json.dumps({"texts": ["央行下调利率", "国足取胜"]})


@pytest.fixture(autouse=True)
def _sighup() -> Iterator[None]:
    """What a test does with SIGHUP in this process is undone: children begin with what is ignored."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="module")
def runs(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two runs."""
    folder = tmp_path_factory.mktemp("life")
    options: dict[str, Any] = {"model": str(tiny_qwen), "max_steps": 2, "device": "cpu", "baseline": False, "max_length": 64}
    return [train(TOY_NEWS, out=folder / name, seed=seed, **options).out for seed, name in enumerate(("one", "two"))]


@contextmanager
def process(run: Path, *options: str) -> Iterator[tuple[psutil.Process, int]]:
    """`fenlei serve` and its port, when it is ready."""
    command = [sys.executable, "-m", "fenlei", "serve", str(run), "--port", "0", "--device", "cpu", *options]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    port = next(int(found[1]) for line in child.stderr if (found := re.search(r"http://127.0.0.1:(\d+)", line)))
    reader = threading.Thread(target=child.stderr.read)  # so that it never waits for one
    reader.start()
    try:
        wait_for(lambda: ask(port, "GET", "/ready")[0] == 200)
        yield psutil.Process(child.pid), port
    finally:
        for one in psutil.Process(child.pid).children(recursive=True) if child.poll() is None else []:
            one.kill()
        child.kill()
        child.wait()
        reader.join()
        child.stderr.close()


def ask(port: int, method: str, path: str, body: str | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or "null")
    finally:
        connection.close()


def wait_for(what: Any, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until
        time.sleep(0.05)


class Load:
    """Callers on kept connections, one request after another, until nobody takes their connection any more."""

    def __init__(self, port: int, callers: int = 8) -> None:
        self.statuses: list[int] = []
        self.lost: list[str] = []
        self.versions: set[str] = set()
        self._port = port
        self._threads = [threading.Thread(target=self._call) for _ in range(callers)]
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(30)

    def _call(self) -> None:
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=30)
            try:
                connection.connect()
            except OSError:
                return
            try:
                while connection.sock is not None:  # http.client closes it where the answer says so
                    connection.request("POST", "/v1/classify", BODY, {"Content-Type": "application/json"})
                    answer = connection.getresponse()
                    self.versions.add(json.loads(answer.read()).get("version", ""))
                    self.statuses.append(answer.status)
            except (OSError, http.client.HTTPException) as error:
                self.lost.append(repr(error))
            finally:
                connection.close()


def test_it_takes_over_a_newer_run_and_ends_when_all_are_answered(runs: list[Path], tmp_path: Path) -> None:
    link = tmp_path / "current"
    link.symlink_to(runs[0])
    with process(link) as (server, port):
        load = Load(port)
        wait_for(lambda: len(load.statuses) > 50)
        link.unlink()
        link.symlink_to(runs[1])
        server.send_signal(signal.SIGHUP)
        wait_for(lambda: len(load.versions) == 2)
        told = len(load.statuses)
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        load.join()
    assert set(load.statuses) == {200}
    assert load.lost == []
    assert len(load.statuses) > told


def test_a_reload_that_comes_while_a_replacement_loads_is_not_missed(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, load, versions = tmp_path / "current", model.ServedRun.load, []
    link.symlink_to(runs[0])

    def and_the_link_moves(run: model.ServedRun) -> model.Served:
        served = load(run)
        versions.append(served.version)
        if len(versions) == 1:
            link.unlink()
            link.symlink_to(runs[1])
            os.kill(os.getpid(), signal.SIGHUP)
        return served

    async def until_it_took_over(server: Server) -> None:
        if server._reloading is not None:
            await server._reloading

    monkeypatch.setattr(life, "keep_freed_memory", lambda: None)  # it is for the rest of the process, which is that of all tests
    monkeypatch.setattr(model.ServedRun, "load", and_the_link_moves)
    monkeypatch.setattr(Server, "main_loop", until_it_took_over)
    assert run_server(Settings(link, device="cpu"), listen("127.0.0.1", 0), load_first=True) == 0
    assert versions == [read_manifest(run)[DIGEST][: model.VERSION_DIGITS] for run in runs]


def test_a_reload_that_comes_while_the_command_begins_does_not_end_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    came: list[int] = []
    signal.signal(signal.SIGHUP, lambda told, _: came.append(told))  # in place of the default, which would end all tests
    monkeypatch.setattr("fenlei.cli.serve._need_extra", lambda: signal.raise_signal(signal.SIGHUP))
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert not came


def test_a_connection_that_nobody_has_taken_yet_is_answered_at_the_end(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    main_loop = Server.main_loop
    callers: list[http.client.HTTPConnection] = []

    async def and_one_comes(server: Server) -> None:
        await main_loop(server)  # and nothing between it and the end: what comes here only waits at the port
        callers.append(http.client.HTTPConnection("127.0.0.1", service.port, timeout=30))
        callers[0].request("POST", "/v1/classify", BODY, {"Content-Type": "application/json"})

    monkeypatch.setattr(Server, "main_loop", and_one_comes)
    with running(runs[0]) as service:
        pass
    answer = callers[0].getresponse()
    assert answer.status == 200
    assert answer.headers["connection"] == "close"
    callers[0].close()


def test_two_workers_count_together_and_end_when_all_are_answered(runs: list[Path]) -> None:
    with process(runs[0], "--workers", "2") as (parent, port):
        with ExitStack() as opened:
            kept = both_ready(parent, port, opened)
            for connection, requests in zip(kept, (3, 5), strict=True):
                assert [status(connection, "POST", "/v1/classify", BODY) for _ in range(requests)] == [200] * requests
            wait_for(lambda: {counted(connection) for connection in kept} == {8}, 10)  # counted a moment after the answer has left
        load = Load(port)
        wait_for(lambda: load.statuses.count(200) > 50)
        told = len(load.statuses)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        load.join()
    assert load.lost == []
    assert set(load.statuses[told:]) <= {200}
    assert len(load.statuses) > told


def test_a_killed_worker_is_replaced_while_the_others_go_on(runs: list[Path]) -> None:
    with process(runs[0], "--workers", "2") as (parent, port):
        wait_for(lambda: len(workers(parent)) == 2)
        victim, survivor = workers(parent)
        with ExitStack() as opened:
            both_ready(parent, port, opened)
        os.kill(victim.pid, signal.SIGKILL)
        wait_for(lambda: ask(port, "POST", "/v1/classify", BODY)[0] == 200)
        for _ in range(20):
            assert ask(port, "POST", "/v1/classify", BODY)[0] == 200  # none by the one that is loading yet
        wait_for(lambda: len(workers(parent)) == 2 and victim not in workers(parent))
        assert survivor in workers(parent)
        assert ask(port, "POST", "/admin/reload") == (202, {"status": "reloading", "processes": 2})
        children = workers(parent)
        parent.send_signal(signal.SIGTERM)
        assert parent.wait(30) == 0
        assert not [one for one in children if one.is_running()]


def both_ready(parent: psutil.Process, port: int, opened: ExitStack) -> list[http.client.HTTPConnection]:
    """A connection to each of the two workers, once both have loaded: that one has says nothing of the other."""
    kept: dict[int, http.client.HTTPConnection] = {}

    def all_are() -> bool:
        if len(kept) < 2:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            connection.connect()
            if (worker := taken_by(parent, connection)) in kept:
                connection.close()
            else:
                kept[worker] = opened.enter_context(closing(connection))
        # All of them each time: a connection that lies idle is closed.
        return [status(one, "GET", "/ready") for one in kept.values()] == [200, 200]

    wait_for(all_are)
    return list(kept.values())


def status(connection: http.client.HTTPConnection, method: str, path: str, body: str | None = None) -> int:
    """Of one request over a connection that stays open."""
    connection.request(method, path, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    answer.read()
    return answer.status


def taken_by(parent: psutil.Process, connection: http.client.HTTPConnection) -> int:
    """The worker at the other end."""
    own, found = connection.sock.getsockname(), []

    def taken() -> list[int]:
        found[:] = [one.pid for one in workers(parent) if own in [end.raddr for end in one.net_connections("tcp")]]
        return found

    wait_for(taken)
    return found[0]


def counted(connection: http.client.HTTPConnection) -> int:
    """Requests to /v1/classify that were answered, as /metrics has it."""
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    found = re.search(r'^fenlei_requests_total\{route="/v1/classify",status="200"\} ([\d.]+)$', text, re.MULTILINE)
    assert found, text
    return int(float(found[1]))


def workers(parent: psutil.Process) -> list[psutil.Process]:
    found = []
    for one in parent.children():
        with suppress(psutil.Error):  # it has ended meanwhile
            found += [one] if "spawn_main" in " ".join(one.cmdline()) else []
    return sorted(found, key=lambda one: one.pid)


def test_a_run_that_cannot_be_loaded_ends_it(runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "nowhere"), "--port", "0"]) == 1
    assert "no such folder" in capsys.readouterr().err
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "fenlei.json").write_bytes((runs[0] / "fenlei.json").read_bytes())
    ended: list[int] = []
    server = Server(Settings(broken, device="cpu"))
    thread = threading.Thread(target=lambda: ended.append(server.run_on(listen("127.0.0.1", 0))))
    thread.start()
    thread.join(30)
    assert ended == [NEVER_LOADED]


def test_a_replacement_that_cannot_be_loaded_leaves_waiting_connections_to_the_others(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "fenlei.json").write_bytes((runs[0] / "fenlei.json").read_bytes())
    with listen("127.0.0.1", 0) as listener, listener.dup() as others, socket.create_connection(listener.getsockname()):
        server = Server(Settings(tmp_path, device="cpu", workers=2), load_first=True)
        assert server.run_on(listener) == NEVER_LOADED
        others.settimeout(5)
        others.accept()[0].close()


@pytest.mark.parametrize("workers", [1, 2])
def test_so_does_a_process_whose_model_is_lost(workers: int, runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there are others: alone it says that it ends."""
    asked: list[socket.socket] = []
    monkeypatch.setattr(life, "_waiting", lambda listener: asked.append(listener) or [])
    with running(runs[0], workers=workers) as service:
        service.server._on_death()
    assert len(asked) == (1 if workers == 1 else 0)


def test_damage_that_loads_ends_it_where_files_are_compared(runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = shutil.copytree(runs[0], tmp_path / "run") / "model" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-4] ^= 1
    weights.write_bytes(content)
    asked: list[Settings] = []
    monkeypatch.setattr(processes, "serve", lambda settings: asked.append(settings) or 0)
    assert main(["serve", str(tmp_path / "run"), "--verify", "--device", "cpu"]) == 0
    ended: list[int] = []
    thread = threading.Thread(target=lambda: ended.append(Server(asked[0]).run_on(listen("127.0.0.1", 0))))
    thread.start()
    thread.join(30)
    assert ended == [NEVER_LOADED]


def test_a_process_that_replaces_another_has_the_keys_of_the_start(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "keys").write_text("the-key-of-the-start\n")
    asked: list[Settings] = []
    monkeypatch.setattr(processes, "serve", lambda settings: asked.append(settings) or 0)
    assert main(["serve", str(runs[0]), "--workers", "2", "--api-key-file", str(tmp_path / "keys")]) == 0
    (tmp_path / "keys").unlink()
    Server(asked[0])._make_app()
    assert asked[0].keys.admit(b"Bearer the-key-of-the-start")
    assert not asked[0].keys.admit(b"Bearer another-key")


def test_promises_that_texts_without_candidates_cannot_have_are_told_at_the_start(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(processes, "serve", lambda settings: 0)
    for among_all in (True, False):
        write_manifest(tmp_path, {**read_manifest(runs[0]), "fitted_among_all": among_all})
        assert main(["serve", str(tmp_path), "--min-confidence", "0.3"]) == 0
        assert (BARE_TEXTS in capsys.readouterr().err) is not among_all


@pytest.mark.parametrize(("others_answer", "code"), [(False, NEVER_LOADED), (True, processes.NOT_NOW)])
def test_a_replacement_that_cannot_be_loaded_does_not_end_the_others(
    others_answer: bool, code: int, runs: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "run_server", lambda *_, **__: NEVER_LOADED)
    with listen("127.0.0.1", 0) as listener, pytest.raises(SystemExit) as ended:
        processes._child(Settings(runs[0]), listener, others_answer)
    assert ended.value.code == code


def test_a_replacement_that_cannot_be_loaded_is_tried_again_later_and_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, started = SimpleNamespace(now=0.0, monotonic=lambda: clock.now), []
    answers, failed = (SimpleNamespace(exitcode=code, pid=1) for code in (None, processes.NOT_NOW))
    monkeypatch.setattr(processes, "time", clock)
    monkeypatch.setattr(processes._Parent, "_start", lambda *_, **__: started.append(clock.now) or failed)
    with listen("127.0.0.1", 0) as listener:
        parent = processes._Parent(Settings(Path("run"), workers=2), listener)
    parent._children = [answers, failed]
    for second in range(100):
        clock.now = second
        assert parent._replace_dead() == 0
    assert 5 <= len(started) <= 100 / processes.AGAIN_SECONDS
    answers.exitcode = -9
    assert DIED in [parent._replace_dead() for _ in range(20)], "nobody is left who answers"


def test_a_replacement_that_is_loading_after_one_that_could_not_is_nobody_who_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0, monotonic=lambda: clock.now)
    loading = cycle((8.0, 8.5, 9.0, 9.5))  # seconds until it fails: there is always another one under way

    class Replacement:
        pid = 1

        def __init__(self) -> None:
            self.fails = clock.now + next(loading)

        @property
        def exitcode(self) -> int | None:
            return None if clock.now < self.fails else processes.NOT_NOW

    monkeypatch.setattr(processes, "time", clock)
    monkeypatch.setattr(processes._Parent, "_start", lambda *_, **__: Replacement())
    with listen("127.0.0.1", 0) as listener:
        parent = processes._Parent(Settings(Path("run"), workers=4), listener)
    parent._children = [SimpleNamespace(exitcode=DIED, pid=1) for _ in range(4)]
    codes = []
    for tick in range(600):
        clock.now = processes.TICK_SECONDS * tick
        codes.append(parent._replace_dead())
    assert DIED in codes, "two minutes in which nobody answers, and it goes on"


def test_a_model_that_fails_for_good_ends_the_service_with_an_error(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with running(runs[0]) as service:
        monkeypatch.setattr(model.Served, "answer", fail)
        assert service.post("/v1/classify", {"texts": ["好"]}).status == 503
        wait_for(lambda: service.server.should_exit, 5)
        assert service.server.died
    assert DIED != 0


def test_a_dead_model_is_unhealthy_and_answers_nobody(runs: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ModelError("expected finite scores, found NaN")

    monkeypatch.setattr(Server, "_on_death", lambda self: None)  # which would end it before it could be asked
    with running(runs[0]) as service:
        with monkeypatch.context() as patch:
            patch.setattr(model.Served, "answer", fail)
            assert service.post("/v1/classify", {"texts": ["好"]}).status == 503
        for path in ("/health", "/ready"):
            assert service.get(path).status == 503, path
        for path, body in (("/v1/classify", {"texts": ["好"]}), ("/classify", {"input": "好"}), ("/predict", {"inputs": "好"})):
            refused = service.post(path, body)
            assert refused.status == 503, path
            assert "the model has failed" in str(refused.json["error"])


def test_an_address_that_is_taken_is_said(runs: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    taken = listen("127.0.0.1", 0)
    try:
        assert main(["serve", str(runs[0]), "--port", str(taken.getsockname()[1])]) == 1
        assert "choose another" in capsys.readouterr().err
    finally:
        taken.close()
