"""Requests that wait, and the one thread that answers them together.

The event loop hands texts over and gets a future; the model never runs on it. A text fails alone: where a pass over several fails, it
is halved until the text at fault stands by itself. A request that was given up leaves the queue, and its neighbours do not notice.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from fenlei.serving.limits import Limits
from fenlei.serving.model import Answered, ModelLostError, Served
from fenlei.serving.problems import ProblemError, is_callers, problem_of
from fenlei.serving.scheduling import about_tokens, together
from fenlei.text.pairs import Text

logger = logging.getLogger(__name__)

CLOSING_SECONDS = 10.0
PACE_WEIGHT = 0.2
"""Share of the latest pass in the running average of texts a second."""


class Model(Protocol):
    """What answers: it may be exchanged between two passes, never within one."""

    @property
    def current(self) -> Served: ...

    def check(self) -> None:
        """Answers a text of its own; an exception where it cannot."""

    def recover(self) -> None:
        """A fresh model in the place of a broken one; ModelLostError where there is none to be had."""


class Observer(Protocol):
    """Is told what the worker does."""

    def waiting(self, texts: int) -> None: ...

    def passed(self, texts: int, seconds: float) -> None: ...

    def row_failed(self) -> None: ...


@dataclass(eq=False)
class _Request:
    """Texts that are answered together; touched by the event loop and the worker, each field by one of them at a time."""

    future: asyncio.Future[list[Answered]]
    answers: list[Answered | None]
    missing: int
    error: Exception | None = None
    given_up: bool = False


@dataclass(eq=False)
class _Row:
    text: Text
    labels: tuple[str, ...] | None
    tokens: int
    request: _Request
    place: int


@dataclass
class _Shared:
    """What both sides touch, under one lock."""

    rows: deque[_Row] = field(default_factory=deque)
    pings: deque[Future[None]] = field(default_factory=deque)
    closing: bool = False
    dead: bool = False


class Batcher:
    """A queue and its worker. `on_death` is called, from the worker's thread, when nothing will be answered any more."""

    def __init__(self, model: Model, limits: Limits, observer: Observer, on_death: Callable[[], None]) -> None:
        self._model = model
        self._limits = limits
        self._observer = observer
        self._on_death = on_death
        self._shared = _Shared()
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)
        self._in_hand: list[_Row] = []
        self._last_rows = 1
        self._texts_a_second = 0.0

    def start(self) -> None:
        """To be called when the model is there."""
        self._thread.start()

    def close(self) -> None:
        """Returns when everything that waits is answered, or the worker seems stuck."""
        with self._changed:
            self._shared.closing = True
            self._changed.notify()
        if self._thread.ident is not None:
            self._thread.join(CLOSING_SECONDS)

    async def classify(self, texts: Sequence[Text], labels: Sequence[tuple[str, ...] | None]) -> list[Answered]:
        """The answer for each text among its labels (None: the run's). ProblemError where there is none."""
        loop = asyncio.get_running_loop()
        request = _Request(loop.create_future(), [None] * len(texts), len(texts))
        longest = self._model.current.max_length
        rows = [
            _Row(text, asked, about_tokens(text, longest), request, place)
            for place, (text, asked) in enumerate(zip(texts, labels, strict=True))
        ]
        with self._changed:
            self._refuse(len(rows))
            self._shared.rows.extend(rows)
            self._observer.waiting(len(self._shared.rows))
            self._changed.notify()
        try:
            return await request.future
        except asyncio.CancelledError:
            with self._changed:  # who has gone takes no place from others, however long the model is busy
                self._shared.rows = deque(row for row in self._shared.rows if row.request is not request)
                self._observer.waiting(len(self._shared.rows))
            raise
        finally:
            request.given_up = True

    async def ping(self) -> None:
        """Returns when the worker has answered, between two passes; ProblemError where it is dead."""
        answered: Future[None] = Future()
        with self._changed:
            if self._shared.dead or not self._thread.is_alive():
                raise ProblemError("unavailable", "the model's thread has ended")
            self._shared.pings.append(answered)
            self._changed.notify()
        await asyncio.wrap_future(answered)

    def _refuse(self, rows: int) -> None:
        shared = self._shared
        if shared.dead or shared.closing:
            raise ProblemError("unavailable", "the service is ending", retry_after=1)
        if len(shared.rows) + rows > self._limits.max_queue:
            seconds = math.ceil(len(shared.rows) / self._texts_a_second) if self._texts_a_second else 1
            raise ProblemError(
                "overloaded",
                f"{len(shared.rows):,} texts are waiting already, and {self._limits.max_queue:,} may; try again in {max(1, seconds)} s",
                retry_after=max(1, seconds),
            )

    # The worker's side

    def _run(self) -> None:
        clean = False
        try:
            while rows := self._next():
                began = time.monotonic()
                self._in_hand = rows
                self._answer(rows)
                self._settle(rows)
                self._in_hand = []
                self._note_pace(len(rows), time.monotonic() - began)
            clean = True
        except ModelLostError:
            logger.critical("the model could not be loaded again")
        finally:
            self._end(clean)

    def _next(self) -> list[_Row]:
        """The rows of the next pass; none at the end."""
        shared = self._shared
        with self._changed:
            while True:
                self._answer_pings()
                self._await_company()
                shared.rows = deque(row for row in shared.rows if not row.request.given_up)
                if shared.rows:
                    return self._take()
                self._observer.waiting(0)  # those of a request that failed left without being taken
                if shared.closing:
                    return []
                self._changed.wait()

    def _take(self) -> list[_Row]:
        waiting = self._shared.rows
        chosen = together(waiting, self._limits.batch_tokens or self._model.current.batch_tokens)
        taken = set(chosen)
        self._shared.rows = deque(row for place, row in enumerate(waiting) if place not in taken)
        self._observer.waiting(len(self._shared.rows))
        return [waiting[place] for place in chosen]

    def _await_company(self) -> None:
        """Up to `window`, while fewer wait than went together last time: so a lone caller, request after request, never waits."""
        until = time.monotonic() + self._limits.window
        while 0 < len(self._shared.rows) < self._last_rows and not self._shared.closing:
            left = until - time.monotonic()
            if left <= 0 or not self._changed.wait(left):
                break
            self._answer_pings()

    def _answer_pings(self) -> None:
        while self._shared.pings:
            ping = self._shared.pings.popleft()
            if ping.set_running_or_notify_cancel():
                ping.set_result(None)

    def _answer(self, rows: list[_Row]) -> None:
        served = self._model.current
        try:
            answers = served.answer([row.text for row in rows], rows[0].labels)
        except Exception as error:  # noqa: BLE001 - whatever a pass raises must not end the thread that answers everybody
            self._failed(rows, error)
            return
        for row, answer in zip(rows, answers, strict=True):
            if isinstance(answer, Answered):
                row.request.answers[row.place] = answer
            else:
                self._fail_row(row, answer)

    def _failed(self, rows: list[_Row], error: Exception) -> None:
        if len(rows) > 1:
            half = len(rows) // 2
            self._answer(rows[:half])
            self._answer(rows[half:])
            return
        self._fail_row(rows[0], error)

    def _fail_row(self, row: _Row, error: Exception) -> None:
        row.request.error = row.request.error or error
        if is_callers(error):
            return
        frames = error.__traceback__
        while frames and frames.tb_next:
            frames = frames.tb_next
        where = f"{frames.tb_frame.f_code.co_filename}:{frames.tb_lineno}" if frames else "the answer"
        # Not the message: it may quote the text.
        logger.error("a text of about %d tokens failed with %s in %s", row.tokens, type(error).__name__, where)
        self._observer.row_failed()
        self._prove_model()

    def _prove_model(self) -> None:
        """After a failure that was not the caller's: whether the model still answers, and a fresh one where it does not."""
        try:
            self._model.check()
        except Exception as error:  # noqa: BLE001 - any failure at all means that the model is broken
            logger.error("the model fails on a text of its own (%s): loading it again", type(error).__name__)
            self._model.recover()

    def _settle(self, rows: list[_Row]) -> None:
        """Hands complete requests back to their event loop; those with an error at once."""
        done = []
        for row in rows:
            row.request.missing -= 1
            if row.request.missing == 0 or (row.request.error and row.request not in done):
                done.append(row.request)
        if done:
            done[0].future.get_loop().call_soon_threadsafe(_resolve, done)

    def _note_pace(self, texts: int, seconds: float) -> None:
        self._last_rows = texts
        pace = texts / max(seconds, 1e-6)
        self._texts_a_second = pace if not self._texts_a_second else (1 - PACE_WEIGHT) * self._texts_a_second + PACE_WEIGHT * pace
        self._observer.passed(texts, seconds)

    def _end(self, clean: bool) -> None:
        with self._changed:
            self._shared.dead = True
            left, self._shared.rows = [*self._in_hand, *self._shared.rows], deque()
            self._answer_pings()
        if not clean:
            logger.critical("nothing answers any more: the service ends")
            self._on_death()  # first: who is told below asks whether it is ready, and must not hear that it is
        requests = list(dict.fromkeys(row.request for row in left))
        for request in requests:
            request.error = ProblemError("unavailable", "the model ended before this request was answered", retry_after=1)
        if requests:
            requests[0].future.get_loop().call_soon_threadsafe(_resolve, requests)


def _resolve(requests: Sequence[_Request]) -> None:
    """On the event loop: each request's future gets its answers, or what went wrong."""
    for request in requests:
        if request.future.done():
            continue
        if request.error is not None:
            request.given_up = True
            request.future.set_exception(problem_of(request.error))
        else:
            request.future.set_result([answer for answer in request.answers if answer is not None])
