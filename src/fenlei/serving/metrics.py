"""What Prometheus reads at /metrics; of several server processes, their sum."""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from fenlei.serving.model import Answered

CONTENT_TYPE = CONTENT_TYPE_LATEST
SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that tells prometheus_client where processes share their figures; set before this module is imported."""

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
TEXTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
OTHER = "other"


class Metrics:
    """The figures of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, which nobody reads
        own = self._registry = CollectorRegistry()
        self._requests = Counter("fenlei_requests", "Requests answered.", ["route", "status"], registry=own)
        self._seconds = Histogram(
            "fenlei_request_seconds", "From a request's arrival to its answer.", ["route"], buckets=SECONDS, registry=own
        )
        self._texts = Counter("fenlei_texts", "Texts classified, by the label answered.", ["label"], registry=own)
        self._cut = Counter("fenlei_tokens_cut", "Tokens that were too many for the model and not read.", registry=own)
        self._abstained = Counter("fenlei_abstained", "Texts whose answer was below the run's threshold.", registry=own)
        self._queue = Gauge("fenlei_queue_texts", "Texts that wait for the model.", multiprocess_mode="livesum", registry=own)
        self._passes = Histogram("fenlei_pass_texts", "Texts that shared a forward pass.", buckets=TEXTS, registry=own)
        self._pass_seconds = Histogram("fenlei_pass_seconds", "A forward pass.", buckets=SECONDS, registry=own)
        self._failed = Counter("fenlei_model_failures", "Texts on which the model failed unexpectedly.", registry=own)
        self._reloads = Counter("fenlei_reloads", "Runs taken over while serving.", registry=own)

    def request(self, route: str, status: int, seconds: float) -> None:
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def answered(self, answers: Sequence[Answered], known: Collection[str]) -> None:
        """Labels that a request brought along count as one: they are without number."""
        for answer in answers:
            prediction = answer.prediction
            for label in (prediction.label,) if prediction.labels is None else prediction.labels:
                self._texts.labels(label if label in known else OTHER).inc()
            if prediction.tokens_cut:
                self._cut.inc(prediction.tokens_cut)
            if prediction.abstained:
                self._abstained.inc()

    def waiting(self, texts: int) -> None:
        self._queue.set(texts)

    def passed(self, texts: int, seconds: float) -> None:
        self._passes.observe(texts)
        self._pass_seconds.observe(seconds)

    def row_failed(self) -> None:
        self._failed.inc()

    def reloaded(self) -> None:
        self._reloads.inc()

    def render(self) -> bytes:
        """The exposition text, of all processes where there are several."""
        folder = os.environ.get(SHARED_FOLDER)
        if folder is None:
            return generate_latest(self._registry)
        _forget_the_dead(Path(folder))
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def _forget_the_dead(folder: Path) -> None:
    """A process that was killed leaves its gauges behind."""
    for pid in {path.stem.rsplit("_", 1)[-1] for path in folder.glob("gauge_live*.db")}:
        if not Path(f"/proc/{pid}").exists() and Path("/proc/self").exists():
            mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
