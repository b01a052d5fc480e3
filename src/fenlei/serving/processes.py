"""`fenlei serve`: the port taken, then one server process, or several under a parent that keeps their number.

The parent passes SIGHUP on to its children, starts one again that died, and on SIGTERM lets all of them finish.
"""

from __future__ import annotations

import logging
import math
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections import deque
from multiprocessing.process import BaseProcess

from fenlei.artifact import read_manifest
from fenlei.errors import ConfigError
from fenlei.serving.life import BACKLOG, DIED, NEVER_LOADED, Settings, log_to_stderr, run_server
from fenlei.serving.metrics import SHARED_FOLDER

logger = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "::1", "localhost")
TICK_SECONDS = 0.2
MOST_DEATHS, WITHIN_SECONDS = 5, 60.0
"""More deaths than this a process in so short a time, and something is wrong that starting again does not cure."""
NOT_NOW, AGAIN_SECONDS = 4, 10.0
"""Exit code of a process that was to replace one and could not load the run; how long it is left alone while others answer."""


def serve(settings: Settings) -> int:
    """Serves until it is told to end; the exit code. FenleiError where it cannot begin."""
    log_to_stderr()
    if settings.workers > 1 and not hasattr(signal, "SIGHUP"):
        raise ConfigError(f"--workers {settings.workers}: several processes take signals, which are not there on Windows; leave it out")
    read_manifest(settings.run)
    if settings.host not in LOOPBACK and not settings.keys:
        logger.warning("listening on %s without an API key: whoever reaches the port is answered; see --api-key-file", settings.host)
    listener = listen(settings.host, settings.port)
    logger.info("loading %s; then on http://%s:%d", settings.run, settings.host, listener.getsockname()[1])
    if settings.workers == 1:
        return run_server(settings, listener)
    # Each process would take every core, and wait for the others at each product.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, _cores() // settings.workers)))
    with tempfile.TemporaryDirectory(prefix="fenlei-metrics-") as folder:
        os.environ[SHARED_FOLDER] = folder
        return _Parent(settings, listener).run()


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; ConfigError where the address cannot be had. Connections wait there until a server takes them."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
    except (OSError, OverflowError) as error:
        raise _cannot_listen(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        raise _cannot_listen(host, port, error) from error
    return listener


def _cannot_listen(host: str, port: int, error: Exception) -> ConfigError:
    return ConfigError(f"cannot listen on {host} port {port}: {error}; choose another --host or --port")


def _cores() -> int:
    """Those that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Parent:
    """Keeps `settings.workers` processes alive."""

    def __init__(self, settings: Settings, listener: socket.socket) -> None:
        self._settings = settings
        self._listener = listener
        self._children: list[BaseProcess] = []
        self._deaths: deque[float] = deque()
        self._again: dict[int, float] = {}  # when the replacement in a place is tried again
        self._tried = [-math.inf] * settings.workers  # when the process in each place began, if after one that could not load
        self._ending = threading.Event()

    def run(self) -> int:
        """Until it is told to end, or the processes cannot be kept alive; the exit code."""
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, lambda *_: self._ending.set())
        signal.signal(signal.SIGHUP, lambda *_: self._pass_on(signal.SIGHUP))
        self._children = [self._start() for _ in range(self._settings.workers)]
        code = 0
        while not self._ending.wait(TICK_SECONDS) and code == 0:
            code = self._replace_dead()
        self._listener.close()  # else the port would go on taking connections that nobody answers
        self._pass_on(signal.SIGTERM)
        for child in self._children:
            child.join()
        return code

    def _start(self, *, others_answer: bool = False) -> BaseProcess:
        child = multiprocessing.get_context("spawn").Process(target=_child, args=(self._settings, self._listener, others_answer))
        child.start()
        return child

    def _replace_dead(self) -> int:
        """0, or the exit code where there is no use in going on."""
        now = time.monotonic()
        for place, child in enumerate(self._children):
            if child.exitcode is None:
                continue
            if child.exitcode == NEVER_LOADED:
                return NEVER_LOADED
            if child.exitcode == NOT_NOW and self._others_answer(now):
                if now < self._again.setdefault(place, now + AGAIN_SECONDS):
                    continue
            elif self._died_too_often():
                logger.critical("%d processes died within %g s: giving up", len(self._deaths), WITHIN_SECONDS)
                return DIED
            self._again.pop(place, None)
            self._tried[place] = now if child.exitcode == NOT_NOW else -math.inf
            logger.error("process %s ended with %s: another one takes its place", child.pid, child.exitcode)
            self._children[place] = self._start(others_answer=True)
        return 0

    def _others_answer(self, now: float) -> bool:
        """Whether a process lives that did not begin just now after one that could not load: such a one loads yet, and may fail as well."""
        each = zip(self._children, self._tried, strict=True)
        return any(child.exitcode is None and now - tried > AGAIN_SECONDS for child, tried in each)

    def _died_too_often(self) -> bool:
        """Whether with the death of just now there are too many."""
        now = time.monotonic()
        self._deaths.append(now)
        while now - self._deaths[0] > WITHIN_SECONDS:
            self._deaths.popleft()
        return len(self._deaths) > MOST_DEATHS * self._settings.workers

    def _pass_on(self, told: signal.Signals) -> None:
        for child in self._children:
            if child.pid is not None and child.exitcode is None:
                os.kill(child.pid, told)


def _child(settings: Settings, listener: socket.socket, others_answer: bool) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    code = run_server(settings, listener, load_first=others_answer)
    # Where others answer, a run that cannot be loaded just now, as while its folder is exchanged, is no reason to end them.
    sys.exit(NOT_NOW if others_answer and code == NEVER_LOADED else code)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
