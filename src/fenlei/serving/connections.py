"""A connection that is opened and then says nothing, or says its request's head drop by drop, is closed."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientConnection(H11Protocol):
    """uvicorn's HTTP/1.1, with `head_seconds` for a request's head to be whole.

    uvicorn itself waits for ever: its keep-alive bounds only the time between two requests.
    """

    def __init__(self, head_seconds: float, **given: Any) -> None:
        super().__init__(**given)
        self._head_seconds = head_seconds
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        waited = self._head_timer is not None
        super().data_received(data)
        if self.cycle is not before:
            self._head_is_there()
        elif not waited and (before is None or before.response_complete):
            self._expect_head()  # the first drop of the next request, on a connection that was kept

    def _expect_head(self) -> None:
        self._head_timer = self.loop.call_later(self._head_seconds, self.transport.close)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None
