"""One server process: started, told to end or to take over a newer run, and ended with a code that says how it went.

SIGTERM and SIGINT: no new connections, what is in flight is answered, then the end, with 0. SIGHUP: the run in the folder is loaded beside
the one in service and takes its place. A model that is lost ends the process with 1.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvicorn

from fenlei.config import Device, TrustConfig
from fenlei.errors import FenleiError
from fenlei.inference.classifier import Classifier
from fenlei.models.allocator import keep_freed_memory
from fenlei.serving.app import create_app
from fenlei.serving.connections import PatientConnection
from fenlei.serving.gate import App
from fenlei.serving.keys import Keys
from fenlei.serving.limits import Limits
from fenlei.serving.metrics import Metrics
from fenlei.serving.model import ServedRun
from fenlei.serving.protocols.classify import Shape
from fenlei.serving.service import Service

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that may wait to be accepted."""
KEEP_ALIVE_SECONDS = 60
LINGER_SECONDS = 0.5
"""Between the last new connection and the closing of idle ones: what a caller is sending just now is answered still."""
DIED, NEVER_LOADED = 1, 3
"""Exit codes: the model was lost while serving; it could not be loaded to begin with."""


@dataclass(frozen=True)
class Settings:
    """What the service is told; each of its processes gets it whole."""

    run: Path
    host: str = "127.0.0.1"
    port: int = 8000
    device: Device = "auto"
    int8: bool = False
    trust: TrustConfig = field(default_factory=TrustConfig)
    workers: int = 1
    keys: Keys = field(default_factory=Keys)
    """Those that were there at the start: a process that replaces another admits whom the others admit."""
    cors_origins: tuple[str, ...] = ()
    served_model_name: str | None = None
    """None: the folder's name."""
    classify_shape: Shape = "vllm"
    log_texts: bool = False
    verify: bool = False
    limits: Limits = field(default_factory=Limits)


class Server(uvicorn.Server):
    """uvicorn's server around one service."""

    def __init__(self, settings: Settings, *, load_first: bool = False) -> None:
        """`load_first`: no connection is taken before the run is loaded, for others take them meanwhile."""
        self._settings = settings
        self._load_first = load_first
        self._service: Service | None = None
        self._reloading: asyncio.Task[None] | None = None
        self._reload_later = False
        self.died = False
        super().__init__(
            uvicorn.Config(
                self._make_app,
                factory=True,
                http=partial(PatientConnection, settings.limits.read_timeout),  # type: ignore[arg-type]  # whatever makes a protocol
                ws="none",
                lifespan="on",
                log_config=None,
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(settings.limits.drain)),
            )
        )

    def run_on(self, listener: socket.socket) -> int:
        """Serves on `listener` until the end; the exit code."""
        self.run(sockets=[listener])
        if not self.died:
            return 0
        return DIED if self.service.run.loaded else NEVER_LOADED

    def reload_later(self) -> None:
        """Asked before it serves: the run that is being loaded may be the former one, so what is in the folder is loaded again then."""
        self._reload_later = True

    @property
    def service(self) -> Service:
        assert self._service is not None, "the application is made when the server runs"
        return self._service

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._load_first and self.died:
            return  # without a server, uvicorn ends; with one, it would take connections that wait for the others
        await super().startup(sockets)
        if hasattr(signal, "SIGHUP") and threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._take_over)
            if self._reload_later:
                self._take_over()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Before uvicorn closes idle connections: a while in which every answer says that its connection ends."""
        self.service.end()
        to_others = self.died and self._settings.workers > 1  # who waits would hear from this one that the model has failed
        last = [] if to_others else [connection for listener in sockets or () for connection in _waiting(listener)]
        for server in self.servers:
            server.close()
        loop = asyncio.get_running_loop()
        await asyncio.gather(*(loop.connect_accepted_socket(self._protocol, one) for one in last))
        await asyncio.sleep(LINGER_SECONDS)
        await super().shutdown(sockets)
        self._captured_signals.clear()  # uvicorn would raise them again, and the process would not end with 0

    def _make_app(self) -> App:
        settings = self._settings
        load = partial(Classifier.load, device=settings.device, trust=settings.trust, int8=settings.int8, verify=settings.verify)
        run = ServedRun(settings.run, load, settings.served_model_name)
        self._service = Service(run, settings.limits, Metrics(), self._on_death, log_texts=settings.log_texts)
        if self._load_first:
            self._service.load()
        return create_app(
            self._service,
            keys=settings.keys,
            cors_origins=settings.cors_origins,
            classify_shape=settings.classify_shape,
            processes=settings.workers,
        )

    def _protocol(self) -> asyncio.Protocol:
        """What speaks on a connection, made as uvicorn makes it."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def _on_death(self) -> None:
        self.died = True
        self.should_exit = True

    def _take_over(self) -> None:
        self._reloading = asyncio.ensure_future(self._reload())

    async def _reload(self) -> None:
        try:
            await self.service.reload()
        except FenleiError as error:
            logger.error("the run before stays in service: %s", error)


def _waiting(listener: socket.socket) -> list[socket.socket]:
    """The connections that nobody has taken yet: their callers think them open, and closing the port would reset them."""
    found: list[socket.socket] = []
    with suppress(BlockingIOError):
        while len(found) < BACKLOG:
            found.append(listener.accept()[0])
    return found


def run_server(settings: Settings, listener: socket.socket, *, load_first: bool = False) -> int:
    """One process's life, from here to its exit code; for `load_first` see Server."""
    log_to_stderr()
    keep_freed_memory()
    server = Server(settings, load_first=load_first)
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, lambda *_: server.reload_later())  # until it serves: by default it kills
    return server.run_on(listener)


def log_to_stderr() -> None:
    """What the service says, a line an event."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    logging.getLogger("httpx").setLevel(logging.WARNING)
