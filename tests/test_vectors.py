"""The cache of a frozen backbone's states: read where it fits, bounded, and never the reason why a training dies."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TOY_NEWS, write_jsonl
from processes import ended, split
from safetensors.torch import load_file, save_file
from tiny_models import SHAPE
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoTokenizer,
    BertModel,
    ModernBertConfig,
    ModernBertForMaskedLM,
)

from fenlei import train
from fenlei.config import RunConfig
from fenlei.data.examples import Example
from fenlei.errors import ArtifactError
from fenlei.inference.loading import encode_examples
from fenlei.inference.scoring import score
from fenlei.models.head import HeadMethod
from fenlei.models.passages import frozen_states
from fenlei.text.batches import Batch, batch_of, collate
from fenlei.training import frozen, vectors
from fenlei.training.frozen import RUN_AGAIN_NOTE
from fenlei.training.setup import Setup, prepare
from fenlei.training.vectors import cache_folder, cached_vectors, can_be_kept, score_frozen


@pytest.fixture(scope="module")
def prepared(tiny_qwen: Path) -> Setup:
    return prepare(RunConfig.from_options({"data": str(TOY_NEWS), "model": str(tiny_qwen), "tuning": "frozen", "device": "cpu"}))


@pytest.fixture
def setup(prepared: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """Its states are in no cache yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return prepared


def fresh(setup: Setup) -> np.ndarray:
    setup.method.eval()
    with torch.inference_mode():
        states: np.ndarray = setup.method.pool(collate(setup.train, range(len(setup.train)), setup.method.pad_id)).numpy()
    return states


def never_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", lambda self, batch: pytest.fail("the backbone ran again"))


def cached(folder: Path, name: str, size: int, age: float) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"0" * size)
    os.utime(folder / name, (time.time() - age, time.time() - age))
    return folder / name


def test_the_text_part_of_a_composite_model_is_kept_too(composite: Path, toy_file: Path) -> None:
    options = {"data": str(toy_file), "model": str(composite), "tuning": "frozen", "device": "cpu"}
    setup = prepare(RunConfig.from_options(options))
    np.testing.assert_allclose(cached_vectors(setup.method, setup.base, setup.train), fresh(setup), atol=1e-5)


def test_a_frozen_backbone_runs_once_a_row(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cached equals uncached, the second run computes nothing, and other rows are another cache entry."""
    first = cached_vectors(setup.method, setup.base, setup.train)
    np.testing.assert_allclose(first, fresh(setup), atol=1e-5)
    never_again(monkeypatch)
    np.testing.assert_array_equal(cached_vectors(setup.method, setup.base, setup.train), first)
    with pytest.raises(pytest.fail.Exception):
        cached_vectors(setup.method, setup.base, setup.selecting)


@pytest.mark.parametrize("what", ["an embedding", "transformers", "pooling"])
def test_states_of_other_weights_or_other_code_are_not_read(
    what: str, tiny_qwen: Path, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached_vectors(setup.method, setup.base, setup.train)
    base = shutil.copytree(tiny_qwen, tmp_path / "base")
    if what == "an embedding":
        weights = load_file(base / "model.safetensors")
        weights["model.embed_tokens.weight"][-1] += 1  # as of a token that was added
        save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    elif what == "transformers":
        monkeypatch.setattr("transformers.__version__", "6.0")
    else:
        monkeypatch.setattr(vectors, "POOLED_BY", 0)
    never_again(monkeypatch)
    with pytest.raises(pytest.fail.Exception):
        cached_vectors(setup.method, base, setup.train)


def test_a_copy_of_the_model_has_the_same_states(tiny_qwen: Path, setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached_vectors(setup.method, setup.base, setup.train)
    never_again(monkeypatch)
    cached_vectors(setup.method, shutil.copytree(tiny_qwen, tmp_path / "base"), setup.train)


def test_the_cache_is_bounded_and_the_longest_unused_goes_first(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * len(setup.train) * 32
    old, used = cached(cache_folder(), "old.npy", needed, age=3000), cached(cache_folder(), "used.npy", needed, age=1000)
    half_written = cached(cache_folder(), ".x.npy.1.tmp", 9, age=vectors.ABANDONED_AFTER + 60)
    being_written = cached(cache_folder(), ".y.npy.2.tmp", 9, age=60)
    monkeypatch.setattr(vectors, "MOST_BYTES", 2 * needed)
    ours = cached_vectors(setup.method, setup.base, setup.train)
    assert not old.exists()
    assert used.exists()
    assert (half_written.exists(), being_written.exists()) == (False, True)
    (file,) = set(cache_folder().glob("*.npy")) - {used}
    os.utime(file, (0, 0))
    cached_vectors(setup.method, setup.base, setup.train)
    assert time.time() - file.stat().st_mtime < 1000, "what is read is used"
    # Removed while it is mapped, the states of a run are still there for it.
    before = np.array(ours)
    monkeypatch.setattr(vectors, "MOST_BYTES", 0)
    cached_vectors(setup.method, setup.base, setup.selecting)
    assert not file.exists()
    np.testing.assert_array_equal(ours, before)


def test_without_a_cache_that_can_be_written_a_temporary_folder_serves(
    setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    states = cached_vectors(setup.method, setup.base, setup.train)
    np.testing.assert_allclose(states, fresh(setup), atol=1e-5)
    assert isinstance(states, np.memmap), "a million rows need no memory here either"
    assert "no cache can be written" in caplog.text
    assert list((tmp_path / "temporary").iterdir()) == []


def test_a_user_without_a_home_has_no_cache(setup: Setup, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")  # what pathlib says in a container without a user

    monkeypatch.setattr(Path, "home", no_home)
    assert len(cached_vectors(setup.method, setup.base, setup.train)) == len(setup.train)
    assert "Could not determine home directory" in caplog.text


def test_every_byte_has_its_place_before_the_first_is_written(tmp_path: Path) -> None:
    """A file with holes, mapped, ends the process with SIGBUS when the disk is full."""
    with (tmp_path / "holes").open("wb") as file:
        file.truncate(4 << 20)
    if (tmp_path / "holes").stat().st_blocks * 512 >= 4 << 20:
        pytest.skip("this file system has no holes")
    states = vectors._reserved(tmp_path / "states.npy", (1024, 1024))
    assert states.shape == (1024, 1024)
    assert (tmp_path / "states.npy").stat().st_blocks * 512 >= 4 << 20


def test_a_full_disk_is_said_before_the_backbone_has_run_for_hours(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Any] = []
    pool = type(setup.method).pool
    monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", lambda self, batch: (batches.append(batch), pool(self, batch))[1])
    monkeypatch.setattr(vectors, "tokens_at_once", lambda device: 64)

    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with pytest.raises(ArtifactError, match=r"no room for the states of 51 rows, 0\.0 MB \(.*No space left.*XDG_CACHE_HOME"):
        cached_vectors(setup.method, setup.base, setup.train)
    assert batches == [], "the room is taken before the first batch"
    assert list(cache_folder().iterdir()) == []


def test_a_disk_that_is_really_too_small(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    """A limit of the system on file size, in a process of its own."""

    def work() -> None:
        import resource  # not on Windows

        os.environ["XDG_CACHE_HOME"] = str(tmp_path / "cache")
        resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000))
        with pytest.raises(ArtifactError, match="no room for the states of 51 rows"):
            train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="frozen", device="cpu", baseline=False)

    assert ended(split(work)) == 0


def test_other_rows_take_what_they_share(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another split, or a few rows more: the backbone reads what is new and nothing else, and each row keeps its own states."""
    first = cached_vectors(setup.method, setup.base, setup.train)
    texts = [example.text for example in setup.dataset.train]
    others = encode_examples(setup.encoder, [Example(text, None, "x", 1) for text in [*texts[::-2], "一句没有人说过的话", *texts[:3]]])
    read = counting(monkeypatch)
    monkeypatch.setattr(vectors, "SCORED_ROWS", 7)  # what is shared is copied in turn
    found = cached_vectors(setup.method, setup.base, others)
    assert read == [1]
    np.testing.assert_array_equal(found[: len(texts[::-2])], first[::-2])
    np.testing.assert_array_equal(found[-3:], first[:3])
    monkeypatch.undo()


def counting(monkeypatch: pytest.MonkeyPatch, most: int | None = None) -> list[int]:
    """The rows of each pass through the backbone from now on; it is ended before it has read more than `most`."""
    read: list[int] = []
    pool = HeadMethod.pool

    def counted(self: HeadMethod, batch: Batch) -> torch.Tensor:
        if most is not None and sum(read) + len(batch.input_ids) > most:
            raise KeyboardInterrupt
        read.append(len(batch.input_ids))
        return pool(self, batch)

    monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", counted)
    return read


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one pass each, of four rows or five."""
    monkeypatch.setattr(vectors, "PIECE_SECONDS", 0.0)
    monkeypatch.setattr(vectors, "tokens_at_once", lambda device: 64)


@pytest.mark.usefixtures("small_pieces")
def test_what_a_run_has_done_when_it_is_ended_is_not_done_again(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ended in one piece after the other, each run computes what is missing alone, and the last has what an unbroken one would."""
    rows, done = len(setup.train), 0
    for most in (20, 15):
        with monkeypatch.context() as patch:
            read = counting(patch, most)
            with pytest.raises(KeyboardInterrupt):
                cached_vectors(setup.method, setup.base, setup.train)
        done += sum(read[:-1])  # the answer of the last pass was still to be read
        assert 0 < done < rows
    read = counting(monkeypatch)
    states = cached_vectors(setup.method, setup.base, setup.train)
    assert sum(read) == rows - done
    np.testing.assert_allclose(states, fresh(setup), atol=1e-5)
    assert isinstance(states, np.memmap)
    assert sorted(path.suffix for path in cache_folder().iterdir()) == [".npy", ".rows"], "and nothing else is left"


@pytest.mark.usefixtures("small_pieces")
def test_other_rows_take_from_what_was_never_finished(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        read = counting(patch, 30)
        with pytest.raises(KeyboardInterrupt):
            cached_vectors(setup.method, setup.base, setup.train)
    done = sum(read[:-1])
    texts = [Example(example.text, None, "x", 1) for example in setup.dataset.train[:-1]]
    read = counting(monkeypatch)
    cached_vectors(setup.method, setup.base, encode_examples(setup.encoder, texts))
    assert len(texts) - done <= sum(read) <= len(texts) - done + 1


@pytest.mark.usefixtures("small_pieces")
def test_a_run_that_is_ended_in_its_first_piece_leaves_nothing(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    counting(monkeypatch, 0)
    with pytest.raises(KeyboardInterrupt):
        cached_vectors(setup.method, setup.base, setup.train)
    assert list(cache_folder().iterdir()) == []


@pytest.mark.usefixtures("small_pieces")
def test_of_two_runs_that_compute_the_same_the_second_finds_it_done(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = HeadMethod.pool
    passes = 0

    def slower(self: HeadMethod, batch: Batch) -> torch.Tensor:
        nonlocal passes
        passes += 1
        if passes == 5:  # the other begins after us and is done before us
            monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", pool)
            cached_vectors(setup.method, setup.base, setup.train)
            monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", slower)
        return pool(self, batch)

    monkeypatch.setattr("fenlei.models.head.HeadMethod.pool", slower)
    states = cached_vectors(setup.method, setup.base, setup.train)
    assert passes > 5
    monkeypatch.undo()
    np.testing.assert_allclose(states, fresh(setup), atol=1e-5)


def test_what_is_being_computed_counts_and_stays_until_nobody_comes_for_it(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = 4 * len(setup.train) * 32
    partial = cached(cache_folder(), f".x-1{vectors.PARTIAL}", needed, age=1000)
    old = cached(cache_folder(), "old.npy", needed, age=500)
    monkeypatch.setattr(vectors, "MOST_BYTES", 2 * needed)
    cached_vectors(setup.method, setup.base, setup.train)
    assert (partial.exists(), old.exists()) == (True, False)
    os.utime(partial, (0, 0))
    cached_vectors(setup.method, setup.base, setup.selecting)
    assert not partial.exists()


def test_half_of_a_pair_of_files_is_passed_over(setup: Setup) -> None:
    """The names are written last: a process that ended between the two leaves states that nobody can share."""
    first = np.array(cached_vectors(setup.method, setup.base, setup.train))
    (names,) = cache_folder().glob("*.rows")
    names.write_bytes(names.read_bytes()[:-16])
    assert len(cached_vectors(setup.method, setup.base, setup.selecting)) == len(setup.selecting)
    np.testing.assert_array_equal(cached_vectors(setup.method, setup.base, setup.train), first)


def test_scores_of_cached_states_are_the_scores(setup: Setup) -> None:
    setup.method.eval()
    cached, direct = (
        score_frozen(setup.method, setup.base, setup.selecting, 3, keep_states=True),
        score(setup.method, setup.selecting, 3, keep_states=True),
    )
    np.testing.assert_allclose(cached.logits, direct.logits, atol=1e-5)
    assert cached.pooled is not None
    assert direct.pooled is not None
    np.testing.assert_allclose(cached.pooled, direct.pooled, atol=1e-5)
    np.testing.assert_array_equal(cached.tokens_cut, direct.tokens_cut)


@pytest.fixture(params=["one text", "windows", "pairs"])
def encoder_setup(request: pytest.FixtureRequest, tiny_bert: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> Setup:
    """A frozen BERT, over texts, texts in windows or pairs, with weights that say something."""
    data = write_jsonl(tmp_path / "rows.jsonl", ({**row, "b": row["text"][::-1]} for row in toy_rows))
    more = {"one text": {}, "windows": {"long": "windows", "max_length": 10}, "pairs": {"text_column": "text", "pair_column": "b"}}
    options = {"data": str(data), "model": str(tiny_bert), "tuning": "frozen", "device": "cpu", **more[request.param]}
    setup = prepare(RunConfig.from_options(options))
    assert isinstance(setup.method, HeadMethod)
    if setup.method.pooling is not None:
        torch.nn.init.normal_(setup.method.pooling.get_parameter("score.weight"))
    return setup


def test_an_encoder_is_kept_by_the_state_that_its_head_reads(encoder_setup: Setup) -> None:
    """Answers and the gradients of what learns are those of the whole network, for texts, windows and pairs."""
    setup, rows = encoder_setup, [0, 1, 2]
    assert can_be_kept(setup.method, setup.train)
    cached, direct = (
        score_frozen(setup.method, setup.base, setup.selecting, 3, keep_states=True),
        score(setup.method, setup.selecting, 3, keep_states=True),
    )
    np.testing.assert_allclose(cached.logits, direct.logits, atol=1e-5)
    assert cached.pooled is direct.pooled is None
    assert (cached.weights is None) == (direct.weights is None)
    if cached.weights is not None:
        np.testing.assert_allclose(cached.weights, direct.weights, atol=1e-5)
    states = frozen_states(cached_vectors(setup.method, setup.base, setup.train), setup.train, rows)
    found = []
    for batch in (states, batch_of(setup.train, rows, setup.method.pad_id, 4096)):
        setup.method.zero_grad()
        setup.method(batch).logits.sin().sum().backward()
        found.append({name: weight.grad.clone() for name, weight in setup.method.named_parameters() if weight.grad is not None})
    assert found[0].keys() == found[1].keys()
    assert any("pooler" in name for name in found[0])
    bert = setup.method.train().stock.base_model
    assert (bert.get_submodule("pooler").training, bert.get_submodule("encoder").training) == (True, False), "what learns trains"
    for name, gradient in found[0].items():
        torch.testing.assert_close(gradient, found[1][name], atol=1e-5, rtol=1e-4, msg=name)


def test_a_frozen_encoder_runs_once_a_row_whatever_the_number_of_epochs(
    tiny_bert: Path, toy_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []
    forward = BertModel.forward

    def counted(self: BertModel, input_ids: torch.Tensor, **more: Any) -> Any:
        read.append(len(input_ids))
        return forward(self, input_ids, **more)

    monkeypatch.setattr(BertModel, "forward", counted)
    monkeypatch.setattr(frozen, "can_be_kept", lambda method, encoded: True)  # which reads a few rows to see
    for epochs in (1, 5):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / f"cache{epochs}"))
        read.clear()
        options = {"tuning": "frozen", "epochs": epochs, "device": "cpu", "baseline": False, "learning_rate": 0.01}
        result = train(toy_file, model=str(tiny_bert), out=tmp_path / f"run{epochs}", **options)
        assert sum(read) == 60, "all rows, each once"
        assert RUN_AGAIN_NOTE not in result.notes


@pytest.mark.parametrize("encoder_setup", ["pairs"], indirect=True)
def test_token_types_are_part_of_what_a_row_is_called(encoder_setup: Setup) -> None:
    encoded = encoder_setup.train
    assert encoded.token_types is not None
    others = replace(encoded, token_types=1 - encoded.token_types)
    assert not (vectors._row_names(others) == vectors._row_names(encoded)).any()


@pytest.fixture
def reads_the_mean(tiny_bert: Path, tmp_path: Path) -> Path:
    """A folder with a ModernBERT whose head reads the mean of all states, and that drops out much while it learns."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
    named = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "cls", "sep")}
    config = ModernBertConfig(
        **SHAPE,
        **named,
        vocab_size=len(tokenizer),
        classifier_pooling="mean",
        mlp_dropout=0.5,
        attention_dropout=0.5,
        classifier_dropout=0.5,
    )
    ModernBertForMaskedLM(config).save_pretrained(tmp_path / "modern")
    tokenizer.save_pretrained(tmp_path / "modern")
    return tmp_path / "modern"


def test_an_encoder_whose_head_reads_more_is_run_in_every_epoch_as_it_is_asked_later(
    reads_the_mean: Path, toy_file: Path, tmp_path: Path
) -> None:
    options = {"tuning": "frozen", "device": "cpu", "max_steps": 2, "baseline": False}
    result = train(toy_file, model=str(reads_the_mean), out=tmp_path / "run", **options)
    assert RUN_AGAIN_NOTE in result.notes
    setup = prepare(RunConfig.from_options({**options, "data": str(toy_file), "model": str(reads_the_mean)}))
    assert not can_be_kept(setup.method, setup.train)
    setup.method.train()
    batch = collate(setup.train, [0, 1], setup.method.pad_id)
    learning, later = (setup.method.train(mode).stock.base_model(batch.input_ids, batch.attention_mask)[0] for mode in (True, False))
    torch.testing.assert_close(learning, later)
    assert setup.method.train().stock.get_submodule("drop").training, "what the head drops out, it drops out"


def test_what_learns_drops_out_as_ever(reads_the_mean: Path, toy_file: Path) -> None:
    for tuning in ("full", "lora"):
        options = {"data": str(toy_file), "model": str(reads_the_mean), "tuning": tuning, "device": "cpu"}
        setup = prepare(RunConfig.from_options(options))
        assert all(module.training for module in setup.method.train().stock.base_model.modules())


def test_an_architecture_that_reads_in_other_ways_is_left_alone() -> None:
    shape = {**SHAPE, "embedding_size": 16, "vocab_size": 100}
    method = HeadMethod(AlbertForSequenceClassification(AlbertConfig(**shape)), pad_id=0)  # its pooler is a linear alone
    assert not method.reads_pooled(Batch(torch.randint(5, 90, (2, 7)), torch.ones(2, 7, dtype=torch.int64)))
    assert "forward" not in vars(method.stock.base_model), "its backbone is what it was"
