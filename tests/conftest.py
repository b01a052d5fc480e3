"""No network, no user's caches, no waiting for the disk, one thread, fixed seeds; and tiny models that are built on the spot."""

from __future__ import annotations

import atexit
import gc
import ipaddress
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# Read when torch, transformers and matplotlib are imported, and inherited by child processes: so they are set before anything else.
_NO_CACHE = str(Path(tempfile.gettempdir()) / "fenlei-tests-no-hub-cache")
_CACHES = tempfile.mkdtemp(prefix="fenlei-tests-")
atexit.register(shutil.rmtree, _CACHES, ignore_errors=True)  # never by a child that a test splits off: that ends by os._exit
os.environ.update(
    HF_HOME=_NO_CACHE,
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    MODELSCOPE_CACHE=_NO_CACHE,
    MPLBACKEND="Agg",
    MPLCONFIGDIR=str(Path(tempfile.gettempdir()) / "fenlei-tests-matplotlib"),  # kept: its list of all fonts takes seconds
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
    XDG_CACHE_HOME=_CACHES,
)

from tiny_models import save_tiny_bert, save_tiny_composite, save_tiny_llama, save_tiny_qwen  # noqa: E402

# The same examples in every run, however busy the machine is.
hypothesis.settings.register_profile("fenlei", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("fenlei")

TOY_NEWS = Path(__file__).parent / "data" / "toy_news.jsonl"
SLOW = ("test_tune", "test_onnx", "test_service_life", "test_spread", "test_ranks", "test_pretraining", "test_memory", "test_distill")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files whose tests take longest come first: at the end, one process would work at them alone."""
    items.sort(key=lambda item: item.path.stem not in SLOW)


def write_jsonl(path: Path, rows: Iterable[Any]) -> Path:
    """The file, with a line of JSON for each row."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


class NetworkBlockedError(RuntimeError):
    """A test reached for the network."""


def _is_this_machine(host: object) -> bool:
    if host in (None, "", "localhost", b"localhost"):
        return True
    try:
        return ipaddress.ip_address(host.decode() if isinstance(host, bytes) else str(host)).is_loopback
    except ValueError:
        return False


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    connect, connect_ex, getaddrinfo = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

    def check(address: Any) -> None:
        if isinstance(address, tuple) and not _is_this_machine(address[0]):
            raise NetworkBlockedError(f"a test tried to reach {address[0]}; the suite runs without network")

    def guarded_connect(self: socket.socket, address: Any) -> None:
        check(address)
        connect(self, address)

    def guarded_connect_ex(self: socket.socket, address: Any) -> int:
        check(address)
        return connect_ex(self, address)

    def guarded_getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        check((host,))
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", guarded_connect)
        patch.setattr(socket.socket, "connect_ex", guarded_connect_ex)
        patch.setattr(socket, "getaddrinfo", guarded_getaddrinfo)
        yield


@pytest.fixture(scope="session", autouse=True)
def _no_power_is_lost() -> Iterator[None]:
    """What is written need not have reached the disk, which takes milliseconds a file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="module", autouse=True)
def _what_is_there_stays() -> None:
    """Every training collects garbage (accelerate), which walks over all that torch and transformers have made: what a file of tests begins
    with is not walked over any more. The objects are only set aside; what comes later is collected as ever.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module")
def asked_once() -> Iterator[None]:
    """Teacher and student are clocked over one pass of the rows, not for a second each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fenlei.training.teacher.LEAST_SECONDS", 0.0)
        yield


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the network of a training says in memory, when it is about to be saved: `logits` of the `texts` of its selecting rows."""
    from fenlei.inference.scoring import score
    from fenlei.training import finish

    said: dict[str, Any] = {}
    save = finish._save_model

    def asked_before(setup: Any, folder: Path) -> None:
        said["texts"] = [row.input for row in setup.dataset.selecting]
        said["logits"] = score(setup.method.eval(), setup.selecting, len(setup.dataset.labels)).logits
        save(setup, folder)

    monkeypatch.setattr(finish, "_save_model", asked_before)
    return said


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings in float32, so that they can be compared whatever their batches are cut into."""
    import torch

    from fenlei.models.devices import Precision

    precision = Precision(torch.float32, None, "float32: bfloat16 rounds by the shape of the batch")
    monkeypatch.setattr("fenlei.training.setup.pick_precision", lambda device, parameters: precision)


@pytest.fixture(autouse=True)
def _seeds() -> None:
    random.seed(0)
    # Only where a test file has imported them already: a test of the labels should not wait for torch.
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture
def toy_rows() -> list[dict[str, str]]:
    """60 headlines with `text` and `label`, the three classes in turn."""
    return [json.loads(line) for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def toy_file(tmp_path: Path) -> Path:
    """The same rows as a JSONL file of the test's own."""
    path = tmp_path / "toy_news.jsonl"
    path.write_bytes(TOY_NEWS.read_bytes())
    return path


@pytest.fixture(scope="session")
def tiny_qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Qwen3 causal LM: no bos token, a pad token apart from eos, no pad id in the config."""
    return save_tiny_qwen(tmp_path_factory.mktemp("tiny_qwen"), _toy_texts())


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random Llama causal LM whose tokenizer puts a bos token first."""
    return save_tiny_llama(tmp_path_factory.mktemp("tiny_llama"), _toy_texts())


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a random BERT (with its pooler) and a WordPiece tokenizer."""
    return save_tiny_bert(tmp_path_factory.mktemp("tiny_bert"), _toy_texts())


@pytest.fixture(scope="session")
def composite(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of texts and images, whose depth is told by the configuration of its text part alone."""
    return save_tiny_composite(tmp_path_factory.mktemp("composite"), tiny_qwen)


def _toy_texts() -> list[str]:
    return [json.loads(line)["text"] for line in TOY_NEWS.read_text(encoding="utf-8").splitlines()]
