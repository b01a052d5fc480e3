"""Every request passes here, before anything reads it: key, size, time, a caller who left; counted and logged on its way out."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any

from fenlei.data.jsonvalues import to_json
from fenlei.serving.keys import Keys
from fenlei.serving.metrics import OTHER
from fenlei.serving.problems import ProblemError
from fenlei.serving.protocols.errors import said
from fenlei.serving.service import Service

access = logging.getLogger("fenlei.serving.access")

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

CLOSE = (b"connection", b"close")
DISCARDED, DISCARDING_SECONDS = 4, 1.0
"""How many times the largest body, and how long, is read of a request that is refused already."""


class Gate:
    """An ASGI application around another. `open_paths` need no key; `counted` are the routes that metrics name."""

    def __init__(self, app: App, service: Service, keys: Keys, open_paths: frozenset[tuple[str, str]], counted: frozenset[str]) -> None:
        self._app = app
        self._service = service
        self._keys = keys
        self._open = open_paths
        self._counted = counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        answer = _Answer(send, self._service)
        try:
            await self._admit(scope, receive, answer)
        finally:
            route = scope["path"] if scope["path"] in self._counted else OTHER
            seconds = time.perf_counter() - began
            if answer.status is not None:
                self._service.metrics.request(route, answer.status, seconds)
                # Neither a path that is nobody's nor a query: both may be a text.
                access.info("%s %s %d %.1f ms", scope["method"], route, answer.status, 1000 * seconds)

    async def _admit(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            self._check_key(scope)
            body = await asyncio.wait_for(self._body(scope, receive), self._service.limits.read_timeout)
        except asyncio.TimeoutError:
            seconds = self._service.limits.read_timeout
            await answer.refuse(scope, ProblemError("slow", f"the body has not arrived within {seconds:g} s"))
        except ProblemError as problem:
            await self._discard(scope, receive)
            await answer.refuse(scope, problem)
        except _CallerLeftError:
            return
        else:
            await self._watched(scope, receive, answer, body)

    def _check_key(self, scope: Scope) -> None:
        if not self._keys or (scope["method"], scope["path"]) in self._open:
            return
        if not self._keys.admit(dict(scope["headers"]).get(b"authorization")):
            raise ProblemError("unauthorized", "no or a wrong API key; send the header Authorization: Bearer KEY")

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        most = self._service.limits.max_body
        told = dict(scope["headers"]).get(b"content-length", b"")
        if told.isdigit() and int(told[:20]) > most:
            raise _too_large(most)
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise _CallerLeftError
            body += message.get("body", b"")
            if len(body) > most:
                raise _too_large(most)
            if not message.get("more_body"):
                return bytes(body)

    async def _discard(self, scope: Scope, receive: Receive) -> None:
        """Reads on for a moment: a connection that is closed while its caller still sends is reset, and the answer lost with it."""
        headers = dict(scope["headers"])
        most = DISCARDED * self._service.limits.max_body
        told = headers.get(b"content-length", b"0")
        if b"expect" in headers or not told.isdigit() or int(told[:20]) > most:
            return

        async def read() -> None:
            size, more = 0, True
            while more and size <= most:
                message = await receive()
                size += len(message.get("body", b""))
                more = message.get("more_body", False)

        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(read(), DISCARDING_SECONDS)

    async def _watched(self, scope: Scope, receive: Receive, answer: _Answer, body: bytes) -> None:
        """The application on a body that is there; stopped where the caller leaves."""
        gone = asyncio.ensure_future(receive())
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await asyncio.shield(gone)
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        work = asyncio.ensure_future(self._app(scope, replay, answer.send))
        try:
            await asyncio.wait({gone, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not answer.complete:
                work.cancel()
            with suppress(asyncio.CancelledError):
                await work
        finally:
            gone.cancel()
            work.cancel()


class _CallerLeftError(Exception):
    """Nobody is there to be answered."""


class _Answer:
    """What is sent back, watched: its status, and whether it is complete."""

    def __init__(self, send: Send, service: Service) -> None:
        self._send = send
        self._service = service
        self.status: int | None = None
        self.complete = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
            if self._service.state in ("ending", "failed") and CLOSE not in headers:
                headers.append(CLOSE)  # so that a caller who keeps connections open opens its next one elsewhere
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            self.complete = not message.get("more_body", False)
        await self._send(message)

    async def refuse(self, scope: Scope, problem: ProblemError) -> None:
        """The problem, and with it the end of the connection."""
        status, content = said(problem, scope["path"])
        body = to_json(content).encode()
        heads = [(name.lower().encode(), value.encode()) for name, value in problem.headers.items()]
        heads += [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), CLOSE]
        await self.send({"type": "http.response.start", "status": status, "headers": heads})
        await self.send({"type": "http.response.body", "body": body})


def _too_large(most: int) -> ProblemError:
    return ProblemError("too_large", f"the body is larger than {most:,} bytes; send several requests")
