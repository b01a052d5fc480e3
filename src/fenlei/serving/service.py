"""The service apart from HTTP: loading, ready, failed or ending; texts in, answers out, within the limits."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from fenlei.errors import FenleiError
from fenlei.inference.candidates import each_text
from fenlei.inference.prediction import Labels
from fenlei.serving.batcher import Batcher
from fenlei.serving.limits import Limits
from fenlei.serving.metrics import Metrics
from fenlei.serving.model import Answered, Served, ServedRun
from fenlei.serving.problems import ProblemError
from fenlei.text.pairs import Text, check_texts

logger = logging.getLogger(__name__)

State = Literal["loading", "ready", "ending", "failed"]
TOKENS_A_CHARACTER = 4
"""At most: tokenizers go down to the bytes of UTF-8."""
PING_SECONDS = 20.0
"""A pass on a slow machine takes seconds; a worker that is silent for longer is taken for stuck."""


class Service:
    """One process's model, queue and state. `on_death` is called when it can answer no more."""

    def __init__(self, run: ServedRun, limits: Limits, metrics: Metrics, on_death: Callable[[], None], *, log_texts: bool = False) -> None:
        self.run = run
        self.limits = limits
        self.metrics = metrics
        self.state: State = "loading"
        self._loading: threading.Thread | None = None
        self._log_texts = log_texts
        self._on_death = on_death
        self._batcher = Batcher(run, limits, metrics, self._died)

    def start(self) -> None:
        """Begins to load, unless it has begun, and returns at once; `state` says when it is done."""
        if self._loading is None:
            self._loading = threading.Thread(target=self._load, name="loading", daemon=True)
            self._loading.start()

    def load(self) -> None:
        """Returns when it is loaded, or cannot be."""
        self.start()
        assert self._loading is not None
        self._loading.join()

    async def stop(self) -> None:
        """Returns when what waits is answered."""
        self.end()
        await asyncio.to_thread(self._batcher.close)

    def end(self) -> None:
        """Not ready any more; what comes is answered still."""
        if self.state in ("loading", "ready"):
            self.state = "ending"

    @property
    def served(self) -> Served:
        """The run in service; ProblemError before it is loaded."""
        if not self.run.loaded:
            raise ProblemError("unavailable", "the model is still loading", retry_after=2)
        return self.run.current

    @property
    def longest_input(self) -> int:
        """Tokens of the longest text that is read to its end; in windows those that the longest text taken may come to."""
        return self.served.max_length or TOKENS_A_CHARACTER * self.limits.max_characters

    async def classify(self, texts: Sequence[Text], labels: Labels | None = None) -> list[Answered]:
        """The answer for each text, all by one run. ProblemError where the request is beyond the limits, or the model cannot answer,
        RequestError for what is no text (of a run on pairs: no pair), and for labels that cannot be asked.
        """
        self._check(texts)
        asked = self._asked(labels, len(texts))
        try:
            answers = await asyncio.wait_for(self._by_one_run(texts, asked), self.limits.timeout)
        except asyncio.TimeoutError:
            raise ProblemError("timeout", f"not answered within {self.limits.timeout:g} s; send fewer texts, or later") from None
        self.metrics.answered(answers, self.served.classifier.labels)
        if self._log_texts:
            for text, answer in zip(texts, answers, strict=True):
                logger.info("%r is %r (%.4f)", text, answer.prediction.answer, answer.prediction.confidence)
        return answers

    async def prove_alive(self) -> None:
        """Returns when the worker has answered; ProblemError where it has not within PING_SECONDS, or is dead."""
        if self.state == "failed":
            raise ProblemError("unavailable", "the model has failed")
        if self.state == "loading":
            return
        try:
            await asyncio.wait_for(self._batcher.ping(), PING_SECONDS)
        except asyncio.TimeoutError:
            raise ProblemError("unavailable", f"the model's thread has not answered for {PING_SECONDS:g} s") from None

    async def reload(self) -> Served:
        """Takes over the run that is in the folder now; requests are answered by the one before until then. FenleiError where it cannot."""
        served = await asyncio.to_thread(self.run.load)
        self.metrics.reloaded()
        return served

    async def _by_one_run(self, texts: Sequence[Text], labels: Sequence[tuple[str, ...] | None]) -> list[Answered]:
        """Asked again where another run took over between two passes."""
        while True:
            answers = await self._batcher.classify(texts, labels)
            if len({one.version for one in answers}) <= 1:
                return answers

    def _load(self) -> None:
        try:
            self.run.load()
        except FenleiError as error:
            logger.critical("%s", error)
            self._died()
        except BaseException:
            self._died()
            raise
        else:
            self._batcher.start()
            if self.state == "loading":
                self.state = "ready"

    def _died(self) -> None:
        self.state = "failed"
        self._on_death()

    def _check(self, texts: Sequence[Text]) -> None:
        limits = self.limits
        if self.state == "failed":
            raise ProblemError("unavailable", "the model has failed; the service ends", retry_after=1)
        pairs = self.served.classifier.pairs
        if len(texts) > limits.max_texts:
            raise ProblemError(
                "too_many", f"{len(texts):,} texts in one request, at most {limits.max_texts:,} are taken; send several requests"
            )
        for at, text in enumerate(texts):
            characters = len(text) if isinstance(text, str) else sum(map(len, text))
            if characters > limits.max_characters:
                raise ProblemError("too_large", f"text {at} has {characters:,} characters, at most {limits.max_characters:,} are taken")
        check_texts(texts, pairs=pairs)  # here, for in its pass a text does not know its place in the request

    def _asked(self, labels: Labels | None, texts: int) -> list[tuple[str, ...] | None]:
        """The labels of each text, or None."""
        if labels is None:
            return [None] * texts
        if not self.served.classifier.takes_labels:
            own = set(self.served.classifier.labels)
            if all(isinstance(one, str) for one in labels) and set(labels) == own:
                return [None] * texts
            raise ProblemError(
                "invalid",
                f"this run answers with a head that knows its {len(own)} labels and no other; leave the labels out of the request",
            )
        asked = each_text(labels, texts)
        count = sum(len(one) for one in set(asked) if one is not None)
        if count > self.limits.max_labels:
            raise ProblemError("too_many", f"{count:,} labels in one request, at most {self.limits.max_labels:,} are taken")
        return asked
