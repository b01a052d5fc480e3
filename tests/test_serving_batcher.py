"""The queue and its worker: who goes together, who waits, and what one request's misfortune does to the others."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest

from fenlei.errors import ModelError, RequestError
from fenlei.inference.prediction import Prediction
from fenlei.serving.batcher import Batcher
from fenlei.serving.limits import Limits
from fenlei.serving.model import Answered, ModelLostError
from fenlei.serving.problems import ProblemError
from fenlei.serving.scheduling import SHORT, about_tokens, together


@dataclass
class Script:
    """A model that says a text's length, notes every pass, and fails where it is told to."""

    passes: list[list[str]] = field(default_factory=list)
    seconds: float = 0.0
    max_length: int | None = 1000
    batch_tokens: int = 10_000
    poison: str = "毒"
    broken: Exception | None = None
    curable: bool = True
    threads: set[int] = field(default_factory=set)
    hold: threading.Event | None = None

    @property
    def current(self) -> Script:
        return self

    def answer(self, texts: Sequence[str], labels: Sequence[str] | None) -> list[Answered | Exception]:
        self.threads.add(threading.get_ident())
        self.passes.append(list(texts))
        if self.hold:
            self.hold.wait(10)
        time.sleep(self.seconds)
        if self.broken:
            raise self.broken
        if any(self.poison in text for text in texts):
            raise RuntimeError("a kernel failed")
        if any("错" in text for text in texts):
            raise RequestError("cannot be asked")
        name = ",".join(labels or ())
        return [Answered(Prediction(name, 1.0, {str(len(text)): 1.0}, True, 0), "run", "v1", "promises") for text in texts]

    def check(self) -> None:
        if self.broken:
            raise self.broken

    def recover(self) -> None:
        if not self.curable:
            raise ModelLostError
        self.broken = None


@dataclass
class Notes:
    failed: int = 0
    waits: int = 0

    def waiting(self, texts: int) -> None:
        self.waits = texts

    def passed(self, texts: int, seconds: float) -> None: ...

    def row_failed(self) -> None:
        self.failed += 1


class Bench:
    """A batcher on a scripted model."""

    def __init__(self) -> None:
        self.model, self.notes, self.deaths = Script(), Notes(), 0
        self.batcher = Batcher(self.model, Limits(max_queue=200, window=0.05), self.notes, self.die)  # type: ignore[arg-type]

    def die(self) -> None:
        time.sleep(0.1)  # time enough for an answer to be out before it is known that there will be no more
        self.deaths += 1

    async def ask(self, *texts: str, labels: tuple[str, ...] | None = None) -> list[int]:
        answers = await self.batcher.classify(texts, [labels] * len(texts))
        return [int(next(iter(one.prediction.probabilities))) for one in answers]


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    made.batcher.start()
    yield made
    made.batcher.close()


def test_every_request_gets_its_own_answers_in_its_own_order(bench: Bench) -> None:
    async def go() -> list[list[int]]:
        return await asyncio.gather(*(bench.ask(*("字" * (1 + (at * 7 + k) % 40) for k in range(3))) for at in range(50)))

    expected = [[1 + (at * 7 + k) % 40 for k in range(3)] for at in range(50)]
    assert asyncio.run(go()) == expected
    assert len(bench.model.passes) < 20, "requests that came together did not share passes"
    assert bench.model.threads.isdisjoint({threading.get_ident()}), "the model ran on the event loop's thread"


def test_the_loop_goes_on_while_the_model_works(bench: Bench) -> None:
    bench.model.seconds = 0.3

    async def go() -> int:
        beats = 0
        asked = asyncio.ensure_future(bench.ask("一"))
        while not asked.done():
            await asyncio.sleep(0.005)
            beats += 1
        return beats

    assert asyncio.run(go()) > 20


def test_a_lone_caller_never_waits_for_company(bench: Bench) -> None:
    async def go() -> float:
        await bench.ask("一")
        began = time.perf_counter()
        for _ in range(10):
            await bench.ask("一")
        return time.perf_counter() - began

    assert asyncio.run(go()) < 10 * 0.05, "each of ten requests waited for the window"


def test_one_poisoned_text_fails_alone(bench: Bench) -> None:
    async def go() -> list[list[int] | BaseException]:
        bench.model.hold = threading.Event()
        asked = [asyncio.ensure_future(bench.ask("字" * (at + 1) if at != 13 else "毒")) for at in range(30)]
        await asyncio.sleep(0.1)
        bench.model.hold.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(go())
    poisoned = answers.pop(13)
    assert isinstance(poisoned, ProblemError)
    assert poisoned.kind == "failed"
    assert "kernel" not in str(poisoned), "an unexpected error's message may quote a text"
    assert answers == [[at + 1] for at in range(30) if at != 13]
    assert bench.notes.failed == 1
    assert bench.deaths == 0


def test_a_request_that_cannot_be_asked_is_told_why(bench: Bench) -> None:
    with pytest.raises(ProblemError, match="cannot be asked") as told:
        asyncio.run(bench.ask("好", "错"))
    assert told.value.kind == "invalid"


def test_texts_of_a_request_that_failed_wait_no_more(bench: Bench) -> None:
    bench.model.batch_tokens, bench.model.seconds = 32, 0.01

    async def go() -> None:
        with pytest.raises(ProblemError, match="cannot be asked"):
            await bench.ask("错", *["字" * 30] * 50)
        until = time.monotonic() + 5
        while bench.notes.waits:
            assert time.monotonic() < until
            await asyncio.sleep(0.01)

    asyncio.run(go())
    assert len(bench.model.passes) < 50


def test_who_leaves_is_not_computed_and_hurts_nobody(bench: Bench) -> None:
    async def go() -> list[int]:
        bench.model.hold = threading.Event()
        first = asyncio.ensure_future(bench.ask("一"))
        await asyncio.sleep(0.05)
        gone = asyncio.ensure_future(bench.ask("走走"))
        staying = asyncio.ensure_future(bench.ask("留留留"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        bench.model.hold.set()
        return [*(await first), *(await staying)]

    assert asyncio.run(go()) == [1, 3]
    assert "走走" not in [text for one in bench.model.passes for text in one]


@pytest.mark.parametrize(("longest", "passes"), [(512, 1), (None, 3)])
def test_a_document_counts_what_is_read_of_it(longest: int | None, passes: int, bench: Bench) -> None:
    """In windows all of it: beside it nothing else fits a pass."""
    bench.model.max_length, bench.model.batch_tokens = longest, 2048
    texts = ["央" * 30_000, "行" * 30_000, "降" * 300]
    assert asyncio.run(bench.ask(*texts)) == [30_000, 30_000, 300]
    assert len(bench.model.passes) == passes
    assert [text for one in bench.model.passes for text in one] == texts


def test_a_full_queue_is_said_with_when_to_come_again(bench: Bench) -> None:
    async def go() -> None:
        bench.model.hold = threading.Event()
        first = asyncio.ensure_future(bench.ask("一"))
        await asyncio.sleep(0.05)
        waiting = [asyncio.ensure_future(bench.ask(*["二"] * 50)) for _ in range(4)]
        await asyncio.sleep(0.05)
        with pytest.raises(ProblemError, match="200 texts are waiting") as told:
            await bench.ask("多")
        assert told.value.kind == "overloaded"
        assert int(told.value.headers["Retry-After"]) >= 1
        bench.model.hold.set()
        await asyncio.gather(first, *waiting)
        assert await bench.ask("多") == [1]

    asyncio.run(go())


def test_labels_are_never_mixed(bench: Bench) -> None:
    async def go() -> None:
        bench.model.hold = threading.Event()
        sets = [("甲", "乙"), None, ("丙",)]
        asked = [asyncio.ensure_future(bench.batcher.classify(["字"], [sets[at % 3]])) for at in range(12)]
        await asyncio.sleep(0.1)
        bench.model.hold.set()
        for at, answers in enumerate(await asyncio.gather(*asked)):
            assert answers[0].prediction.label == ",".join(sets[at % 3] or ())

    asyncio.run(go())


@pytest.mark.parametrize("error", [RuntimeError("a kernel failed"), ModelError("expected finite scores, found NaN")], ids=type)
def test_a_broken_model_is_loaded_again(bench: Bench, error: Exception) -> None:
    bench.model.broken = error
    with pytest.raises(ProblemError) as told:
        asyncio.run(bench.ask("一"))
    assert told.value.kind == "failed", "the caller's text is not at fault"
    assert asyncio.run(bench.ask("二二")) == [2]
    assert bench.deaths == 0


def test_a_model_that_is_lost_ends_the_service_and_leaves_nobody_waiting(bench: Bench) -> None:
    bench.model.broken, bench.model.curable = RuntimeError("a kernel failed"), False

    async def go() -> list[object]:
        bench.model.hold = threading.Event()
        asked = [asyncio.ensure_future(bench.ask("字" * at)) for at in (1, 2, 500)]
        await asyncio.sleep(0.1)
        bench.model.hold.set()
        return await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 5)

    answers = asyncio.run(go())
    assert {one.kind for one in answers if isinstance(one, ProblemError)} <= {"unavailable", "failed"}
    assert len(answers) == 3
    assert bench.deaths == 1
    with pytest.raises(ProblemError, match="ended"):
        asyncio.run(bench.batcher.ping())
    with pytest.raises(ProblemError):
        asyncio.run(bench.ask("一"))


def test_what_waits_is_answered_before_the_end() -> None:
    made = Bench()
    made.model.seconds = 0.02

    async def go() -> list[list[int]]:
        made.batcher.start()
        asked = [asyncio.ensure_future(made.ask("字" * at)) for at in range(1, 30)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(made.batcher.close)
        return await asyncio.gather(*asked)

    assert asyncio.run(go()) == [[at] for at in range(1, 30)]
    assert made.deaths == 0


@dataclass
class Waiting:
    tokens: int
    labels: tuple[str, ...] | None = None


def test_the_oldest_goes_first_and_like_lengths_with_it() -> None:
    waiting = [Waiting(10), Waiting(500), Waiting(20), Waiting(SHORT), Waiting(12, ("a",)), Waiting(600)]
    assert together(waiting, 1000) == [0, 2, 3]
    assert together(waiting[1:], 1200) == [0, 4]
    assert together(waiting[1:], 1100) == [0]


def test_a_pass_stays_within_its_tokens_and_a_long_text_goes_alone() -> None:
    assert together([Waiting(10)] * 50, 100) == list(range(10))
    assert together([Waiting(5000), Waiting(5000)], 100) == [0]
    assert together([], 100) == []


def test_an_estimate_is_near_for_chinese_and_english() -> None:
    assert about_tokens("央行宣布下调存款准备金率") == 12
    assert about_tokens("The central bank cut its rates") == 10
    assert about_tokens("") == 1
    assert about_tokens("\ud800") == 1
