"""Bulk prediction on a cluster: windows of rows answered by workers, into one file in order or into a folder of parts.

Windows are those of bulk.py and are answered by its function, so a file is the same, byte for byte, as that of one process, and either
goes on with what the other has begun.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fenlei.artifact import read_manifest
from fenlei.config import Device, TrustConfig
from fenlei.data.encodings import STDIN
from fenlei.data.jsonvalues import json_value
from fenlei.data.readers import NoRowsError
from fenlei.errors import ConfigError, DataError
from fenlei.inference.bulk import WINDOW_ROWS, BulkResult, Writer, checked_target, digest_of, going_on, opened_sink, result_of, told_options
from fenlei.inference.candidates import was_fitted_among
from fenlei.inference.journal import State
from fenlei.inference.parts import PART_WINDOWS, Part, PartDone, PartFormat, PartsFolder
from fenlei.inference.ray_engine import Cluster, results
from fenlei.inference.storage import absolute, is_folder, is_url, known_as, local_file, row_files
from fenlei.inference.windows import Answered, BulkOptions, Intake, Window, answer_window
from fenlei.labels import LabelNote
from fenlei.text.instructions import Instruction

if TYPE_CHECKING:
    from fenlei.inference.classifier import Classifier


@dataclass(frozen=True)
class RunToLoad:
    """A run, and how every worker loads it: its folder lies where all of them see it."""

    run: str
    device: Device = "auto"
    trust: TrustConfig = field(default_factory=TrustConfig)
    int8: bool = False
    verify: bool = False
    notes: Mapping[str, LabelNote] = field(default_factory=dict)
    """What the prompt says of labels, besides what the run knows; see Classifier.with_notes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "run", absolute(self.run))

    def load(self) -> Classifier:
        """The classifier; see Classifier.load."""
        from fenlei.inference.classifier import Classifier
        from fenlei.models.allocator import keep_freed_memory

        keep_freed_memory()
        loaded = Classifier.load(self.run, device=self.device, trust=self.trust, int8=self.int8, verify=self.verify)
        return loaded.with_notes(self.notes)

    @property
    def on_gpu(self) -> bool:
        """Whether it computes on a GPU where there is one; 8-bit integers are computed on a CPU."""
        return self.device != "cpu" and not self.int8

    @property
    def takes_labels(self) -> bool:
        return bool(read_manifest(self.run)["method"] == "generate")

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(read_manifest(self.run)["labels"])

    def fitted_among(self, labels: Sequence[str]) -> bool:
        """As Classifier.fitted_among, of a run that can be asked among labels."""
        manifest = read_manifest(self.run)
        known = Instruction.from_json(manifest["prompt"], manifest["instruction"])
        retold = known.retold(known.with_notes(self.notes))
        return retold.isdisjoint(labels) and was_fitted_among(manifest, self.labels, tuple(labels))

    def describe(self) -> dict[str, Any]:
        """What `load().describe()` says, without loading the network."""
        from fenlei.inference.trust import load_trust

        manifest = read_manifest(self.run)
        if self.notes and self.takes_labels:
            manifest["instruction"] = Instruction.from_json(manifest["prompt"], manifest["instruction"]).with_notes(self.notes).to_json()
        trust = load_trust(Path(self.run), manifest, self.trust)
        return {**manifest, **({"int8": True} if self.int8 else {}), **trust.to_json()}


@dataclass(frozen=True)
class Reading:
    """How a file becomes windows; a worker is sent it."""

    options: BulkOptions
    takes_labels: bool
    to_skip: int = 0
    home: str = field(default_factory=os.getcwd)
    """The folder that names of files are from: that of the command, for a worker is in another."""

    def windows(self, file: str) -> Iterator[Window]:
        """The windows of a file, in order; DataError where it cannot be read on. Errors name the file as the user did."""
        ready: list[Window] = []
        intake = Intake(self.options, WINDOW_ROWS, ready.append, takes_labels=self.takes_labels, to_skip=self.to_skip)
        with local_file(file if is_url(file) else os.path.join(self.home, file)) as path:

            def named(error: DataError) -> DataError:
                return type(error)(str(error).replace(str(path), file))

            def reject(line: int, error: DataError) -> None:
                intake.reject(line, named(error))

            try:
                for example in self.options.rows(path, reject):
                    intake.take(example if str(path) == file else replace(example, source=file))
                    while ready:
                        yield ready.pop(0)
            except DataError as error:
                raise named(error) from error
        intake.flush()
        yield from ready

    def each_window(self, _number: int, file: str) -> Iterator[Window]:
        """The windows of the only file."""
        return self.windows(file)

    def each_part(self, number: int, file: str) -> Iterator[Part]:
        """The windows of one of several files, in parts; none of a file without rows, as Spark may write some."""
        held: list[Window] = []
        parts = 0
        try:
            for window in self.windows(file):
                held.append(window)
                if len(held) == PART_WINDOWS:
                    yield Part(number, parts, held)
                    held, parts = [], parts + 1
        except NoRowsError:
            return
        if held:
            yield Part(number, parts, held)


def predict_distributed(
    run: RunToLoad,
    source: str | Path,
    target: str | Path,
    *,
    cluster: Cluster | None = None,
    text_column: str | None = None,
    pair_column: str | None = None,
    probabilities: bool = False,
    prefix: str = "",
    labels: Sequence[str] | None = None,
    passages: bool = False,
    part_format: PartFormat | None = None,
    progress: Callable[[int], None] | None = None,
    announce: Callable[[str], None] | None = None,
) -> BulkResult:
    """As bulk.predict_file, on a Ray cluster; without an address on a Ray of this machine.

    `target` is a file, of one source file: rows in order, to the same bytes; or a folder (it exists, ends in a slash, is a URL, or
    `part_format` is given): each part is written by the worker that answered it, JSON lines or Parquet. `source` may then be a folder or
    a pattern of files. Source and folder are paths that all machines see, or URLs of fsspec. Called again as before, it goes on.
    ConfigError where Ray is not installed or not reached, or source and target do not go together.
    """
    began = time.monotonic()
    options = BulkOptions.of(run, text_column, pair_column, probabilities, prefix, labels, passages)
    if str(source) == STDIN or str(target) == "-":
        raise ConfigError("a cluster reads and writes files, not standard input and output")
    files = row_files(str(source))
    place = cluster or Cluster(use_gpus=run.on_gpu)
    if part_format is not None or is_url(target) or is_folder(str(target)):
        folder = PartsFolder(absolute(str(target)), part_format or "jsonl")
        return _to_folder(run, files, folder, options, place, progress, announce, began)
    if len(files) != 1:
        raise ConfigError(f"{source}: {len(files)} files go to a folder of parts; end --out in a slash")
    return _to_file(run, files[0], Path(checked_target(target, files[0])), options, place, progress, announce, began)


def _to_file(
    run: RunToLoad,
    source: str,
    target: Path,
    options: BulkOptions,
    cluster: Cluster,
    progress: Callable[[int], None] | None,
    announce: Callable[[str], None] | None,
    began: float,
) -> BulkResult:
    with opened_sink(run, source, target, options) as sink:
        before = sink.state
        if announce and before != State():
            announce(going_on(before))
        if not before.complete:
            writer = Writer(sink, source, target, progress, run)
            reading = Reading(options, run.takes_labels, before.rows + before.rejected)
            load = partial(_window_answerer, run, options)
            for answered in results([source], reading.each_window, load, cluster, ordered=True):
                writer.write(answered)
    return result_of(sink.state, before, target, began)


def _to_folder(
    run: RunToLoad,
    files: Sequence[str],
    folder: PartsFolder,
    options: BulkOptions,
    cluster: Cluster,
    progress: Callable[[int], None] | None,
    announce: Callable[[str], None] | None,
    began: float,
) -> BulkResult:
    state = folder.begin(
        {
            "source": [known_as(file) for file in files],
            "model": digest_of(run),
            "set of options": json_value({**told_options(options), "window": WINDOW_ROWS, "part": PART_WINDOWS}),
        }
    )
    before = 0 if state is None else state.rows
    if state is None:
        state, rejected = State(), {}
        reading = Reading(options, run.takes_labels)
        for done in results(files, reading.each_part, partial(_part_answerer, run, options, folder), cluster, ordered=False):
            before += done.rows if done.before else 0
            state = state.plus(done.rows, len(done.rejected), done.rows_cut, done.tokens_cut, done.abstained)
            if done.rejected:
                rejected[done.name] = done.rejected
            if progress:
                progress(state.rows + state.rejected)
        if rejected and not state.rows:  # as of one file: it is not the rows' fault then
            first = json.loads(rejected[min(rejected)][0])["reason"]
            raise DataError(f"{folder.folder}: none of {state.rejected:,} rows could be predicted; the first: {first}")
        folder.finish(rejected, state)
    if before and announce:
        announce(f"{before:,} rows were predicted already")
    seconds = time.monotonic() - began
    told = folder.rejected_file if state.rejected else None
    return BulkResult(state.rows, seconds, state.tokens_cut, state.rows_cut, state.rejected, told, before, state.abstained)


def _window_answerer(run: RunToLoad, options: BulkOptions) -> Callable[[Window], Answered]:
    """What a worker does with a window."""
    classifier = run.load()
    return lambda window: answer_window(classifier, window, options)


def _part_answerer(run: RunToLoad, options: BulkOptions, folder: PartsFolder) -> Callable[[Part], PartDone]:
    """What a worker does with a part: answers and writes it, unless that is done."""
    classifier = run.load()

    def answer(part: Part) -> PartDone:
        return folder.done(part.name) or folder.write(part.name, [_answered(window) for window in part.windows])

    def _answered(window: Window) -> Answered:
        answered = answer_window(classifier, window, options)
        if answered.refusal is not None and len(window.examples) == WINDOW_ROWS:
            raise answered.refusal  # of so many rows not one: it is not the rows' fault
        return answered

    return answer
