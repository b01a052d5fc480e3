"""Work in pieces on a Ray cluster, through Ray Data: read by tasks, done by actors that load once. Alone knows Ray.

A piece is a block of its own, so that pieces are spread evenly; a worker that dies is replaced, and its pieces are done again by others.
Errors of ours travel as values: Ray would wrap them, and try again what cannot go better.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from fenlei.errors import ConfigError, FenleiError, ModelError, first_line

Read = Callable[[int, str], Iterator[Any]]
"""A file, with its number, to its pieces."""
Work = Callable[[Any], Any]
"""A piece to its result."""

RETRIES = 4
"""How often a piece is tried again whose worker died: more often, and it is the piece that kills them."""
LOCAL_STORE = 512 << 20
"""Bytes of shared memory of a Ray that is started here, for pieces on their way."""
CORES_A_WORKER = 4
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "ERROR", "RAY_BACKEND_LOG_LEVEL": "fatal"}
"""Nothing is reported to Ray's makers, and the terminal is for our own notes; what the caller's environment says wins."""
LOOPBACK = "127.0.0.1"
ALONE = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
"""A Ray that is started here listens on 127.0.0.1, as on macOS and Windows; else on all addresses, also where ray.init is told one."""


@dataclass(frozen=True)
class Cluster:
    """Where work is done."""

    address: str | None = None
    """Of a running cluster, or `auto`; None starts a Ray on this machine, which nothing outside it can reach."""
    workers: int | None = None
    """None: one a GPU, else one for every four cores."""
    use_gpus: bool = True


@dataclass(frozen=True)
class _Failure:
    error: FenleiError


def results(files: Sequence[str], read: Read, load: Callable[[], Work], cluster: Cluster, *, ordered: bool) -> Iterator[Any]:
    """The result of every piece of every file, each once; `ordered` as they lie in the files, else as they are done.

    `load` is called once a worker. The first FenleiError of either function is raised here; ModelError where Ray gives up.
    """
    ray = _imported(cluster)
    with _connected(ray, cluster):
        try:
            with _settings(ordered):
                done = _dataset(ray, files, read, load, cluster)
            for batch in done.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
                for packed in batch.column("result"):
                    result = ray.cloudpickle.loads(packed.as_py())
                    if isinstance(result, _Failure):
                        raise result.error
                    yield result
        except ray.exceptions.RayError as error:
            raise ModelError(f"Ray gave up after {RETRIES} more tries: {first_line(error)}; what is done is kept") from error


def _dataset(ray: Any, files: Sequence[str], read: Read, load: Callable[[], Work], cluster: Cluster) -> Any:
    """The plan of the work; nothing is begun yet."""
    items = [{"number": number, "file": file} for number, file in enumerate(files)]
    largest = max(int(node["Resources"].get("CPU", 1)) for node in ray.nodes() if node["Alive"])
    workers, each = resources(ray.cluster_resources(), largest, cluster)
    # Other resources than the workers', or Ray would make one step of both, and a worker of each file.
    pieces = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _read_pieces, fn_args=(read,), batch_size=1, batch_format="pyarrow", num_cpus=0
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`ray_remote_args` is deprecated")  # there is no other way to bound the retries yet
        return pieces.map_batches(
            _Worker,
            fn_constructor_args=(load,),
            batch_size=1,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=workers),
            max_restarts=-1,
            max_task_retries=RETRIES,
            **each,
        )


def resources(there: Mapping[str, float], largest: int, cluster: Cluster) -> tuple[int, dict[str, float]]:
    """How many workers on a cluster that has `there`, and what each gets: a GPU, or its share of the cores.

    `largest`: cores of the largest machine; Ray would wait for ever, without a word, for one that has more.
    """
    gpus, cores = int(there.get("GPU", 0)), int(there.get("CPU", 1))
    if cluster.use_gpus and gpus:
        return cluster.workers or gpus, {"num_gpus": 1}
    workers = cluster.workers or max(1, cores // min(CORES_A_WORKER, largest))
    return workers, {"num_cpus": min(largest, cores // workers or cores / workers)}


def _read_pieces(batch: Any, read: Read) -> Iterator[Any]:
    """The pieces of one file, a block each."""
    for number, file in zip(batch.column("number").to_pylist(), batch.column("file").to_pylist(), strict=True):
        try:
            for piece in read(number, file):
                yield _packed("piece", piece)
        except FenleiError as error:
            yield _packed("piece", _Failure(error))


class _Worker:
    """One of the processes that do the work."""

    def __init__(self, load: Callable[[], Work]) -> None:
        self._failure: _Failure | None = None
        try:
            self._work = load()
        except FenleiError as error:
            self._failure = _Failure(error)

    def __call__(self, batch: Any) -> Any:
        from ray import cloudpickle

        (packed,) = batch.column("piece")
        return _packed("result", self._done(cloudpickle.loads(packed.as_py())))

    def _done(self, piece: Any) -> Any:
        if isinstance(piece, _Failure) or self._failure is not None:
            return self._failure or piece
        try:
            return self._work(piece)
        except FenleiError as error:
            return _Failure(error)


def _packed(name: str, value: Any) -> Any:
    """A table of one row; Ray's own way to send what is between its processes."""
    import pyarrow as pa
    from ray import cloudpickle

    return pa.table({name: pa.array([cloudpickle.dumps(value)], pa.large_binary())})


def _imported(cluster: Cluster) -> Any:
    """Ray; ConfigError where it is not installed. What it is to know by its environment, it reads when it is imported."""
    for name, value in {**QUIET, **(ALONE if cluster.address is None else {})}.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ConfigError(f"--engine ray needs Ray Data ({first_line(error)}): pip install 'fenlei[ray]'") from error
    return ray


@contextmanager
def _connected(ray: Any, cluster: Cluster) -> Iterator[None]:
    """A connection: the caller's own, one to the address, or a Ray of this machine that ends with the block."""
    if ray.is_initialized():
        yield
        return
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if cluster.address is None:
        quiet |= {"address": "local", "include_dashboard": False, "object_store_memory": LOCAL_STORE, "_node_ip_address": LOOPBACK}
    else:
        quiet["address"] = cluster.address
    try:
        ray.init(**quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Ray at {cluster.address or 'this machine'} cannot be reached: {first_line(error)}") from error
    try:
        if cluster.address is None and ray.util.get_node_ip_address() != LOOPBACK:
            raise ConfigError(
                "this machine's Ray would listen to others: it was imported before fenlei could tell it not to; set "
                "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0 before `import ray`, or call ray.init yourself"
            )
        yield
    finally:
        ray.shutdown()


@contextmanager
def _settings(ordered: bool) -> Iterator[None]:
    """Ray Data's settings for the data sets that are made in the block."""
    from ray.data import DataContext

    context = DataContext.get_current()
    names = ("target_max_block_size", "enable_progress_bars")
    before = {name: getattr(context, name) for name in names}
    was_ordered = context.execution_options.preserve_order
    context.target_max_block_size, context.enable_progress_bars = 1, False  # a byte: every piece a block of its own
    context.execution_options.preserve_order = ordered
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(context, name, value)
        context.execution_options.preserve_order = was_ordered
