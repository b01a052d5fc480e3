"""The script that makes `nano`: resumed equals unbroken, and what is published is a stock folder."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
MODULES = ("pretrain_nano", "teacher", "corpus", "batches", "objectives", "bag_of_words", "distillation", "contrast", "borrow", "tokenizer")
CPU = torch.device("cpu")


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with steps small enough for a test."""
    monkeypatch.syspath_prepend(str(ROOT / "pretraining"))
    import pretrain_nano

    pace = pretrain_nano.Pace(rows=(4, 8, 4), peak_rate=0.02, checkpoint_every=1)
    for name, value in {"VOCAB": 400, "SEQUENCE": 16, "PACES": {"cpu": pace}, "WARM_UP_STEPS": 2}.items():
        monkeypatch.setattr(pretrain_nano, name, value)
    yield pretrain_nano
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def corpus(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"{row['text']}\n{row['text'][::-1]}" for row in toy_rows), encoding="utf-8")
    return path


def start(script: Any, corpus: Path, data: Path, **shares: float) -> tuple[Any, Any, Any, Any]:
    """Tokenizer, network, objectives and batches of a tiny run."""
    tokenizer = script.prepare(corpus, data, script.VOCAB, script.CONTEXT)
    model = script.build(tokenizer, None, script.Shape(32, 1, 2, 1))
    return tokenizer, model, *script.learned_from(data, len(tokenizer), 32, script.SHARES | shares, CPU)


def run(script: Any, corpus: Path, work: Path, steps: int, **shares: float) -> list[dict[str, float]]:
    """Trains up to that step; the log so far."""
    work.mkdir(exist_ok=True)
    _, model, objectives, batches = start(script, corpus, work / "data", **shares)
    script.train(work, work / "data", model, objectives, batches, script.Budget(steps * 64, None, 64))
    return [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]


def test_resumed_equals_unbroken_and_the_loss_falls(script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = run(script, corpus, tmp_path / "whole", 60)
    (tmp_path / "cut").mkdir()

    class Cut(Exception):
        pass

    def held_up(self: Any, steps: int, seconds: float) -> float:
        if steps == 25 and seconds > 0:
            raise Cut
        return steps / 60

    with monkeypatch.context() as patch:
        patch.setattr(script.Budget, "spent", held_up)
        with pytest.raises(Cut):
            run(script, corpus, tmp_path / "cut", 60)
    run(script, corpus, tmp_path / "cut", 60)
    whole, cut = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    guessing = math.log(400)
    assert log[-1]["loss"] < guessing - 0.4
    assert log[-1]["words"] < guessing
    assert log[-1]["alone"] < guessing
    assert log[-1]["held_out_loss"] > 0


def test_a_budget_of_seconds_is_spent_by_the_clock_alone(script: Any) -> None:
    assert script.Budget(0, 10.0, 64).spent(10**6, 5.0) == 0.5
    assert script.Budget(640, None, 64).spent(5, 1e9) == 0.5
    assert script.Budget(0, None, 64).spent(0, 0.0) == 1.0  # nothing is to be done


def test_a_share_of_zero_leaves_an_objective_out(script: Any, corpus: Path, tmp_path: Path) -> None:
    log = run(script, corpus, tmp_path / "work", 2, pairs=0.0, loss=0.0)
    assert set(log[-1]) == {"step", "alone", "words", "seconds", "tokens_per_second", "held_out_loss"}
    assert script.given_shares(["pairs=0"]) == script.SHARES | {"pairs": 0.0}
    with pytest.raises(SystemExit, match="pears"):
        script.given_shares(["pears=1"])


def test_what_is_published_loads_as_a_stock_model(script: Any, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model, *_ = start(script, corpus, tmp_path / "data")
    script.publish(model, tokenizer, tmp_path / "nano")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "nano", dtype=torch.float32)
    published = dict(model.named_parameters())
    assert all(torch.equal(parameter, published[name].float()) for name, parameter in loaded.named_parameters())
    again = AutoTokenizer.from_pretrained(tmp_path / "nano")
    odd = "emoji 🀄 \t kana カナ, cyrillic ы\n<b>&amp;"
    assert again.decode(again(odd)["input_ids"]) == odd
    assert again.pad_token_id != again.eos_token_id
    assert "assistant" in again.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)


def test_pieces_are_whole_lines_or_sentences_of_a_line(script: Any, tmp_path: Path) -> None:
    headlines = [f"第{number}条新闻标题说的是别的事" for number in range(5)]
    article = "".join(f"这是长文章里的第{number}句话，它说了一件事。" for number in range(20))
    (tmp_path / "corpus.txt").write_text("\n\n".join(["\n".join(headlines), article] * 3), encoding="utf-8")
    tokenizer = script.prepare(tmp_path / "corpus.txt", tmp_path / "data", script.VOCAB, script.CONTEXT)
    stream, found = np.load(tmp_path / "data" / "train.npy"), np.load(tmp_path / "data" / "pieces.npy")
    texts = [tokenizer.decode(stream[begin : begin + length]) for begin, length, _ in found]
    documents = dict(zip(texts, found[:, 2].tolist(), strict=True))
    assert set(headlines) <= set(texts)
    assert len({documents[line] for line in headlines}) == len(headlines)
    sentences = [text for text in texts if "长文章" in text]
    assert 1 < len(sentences)
    assert all(article.startswith(text) or text in article for text in sentences)
    assert found[:, 1].max() <= 64


def test_partners_are_neighbours_or_halves_of_a_piece(script: Any) -> None:
    from batches import Batches

    stream = np.arange(400)
    pieces = np.array([[0, 10, 0], [10, 12, 0], [22, 9, 1], [40, 64, 2], [104, 30, 2], [134, 20, 2]])
    batches = Batches(stream, pieces, None, (2, 3, 6), 16, CPU)
    of_token = np.full(400, -1)
    for begin, length, number in pieces:
        of_token[begin : begin + length] = number
    for step in range(30):
        batch = batches.at(step)
        rows = [row[:length].tolist() for row, length in zip(batch.pairs.tokens, batch.pairs.lengths, strict=True)]
        for first, second, number in zip(rows[:6], rows[6:], batch.documents.tolist(), strict=True):
            assert first
            assert second
            assert not set(first) & set(second)
            assert {int(of_token[token]) for token in first + second} == {number}


def test_a_batch_of_lines_is_padded_little_further_than_its_longest(script: Any) -> None:
    from batches import Batches

    pieces = np.array([[10 * number, 3 + number % 7, number] for number in range(30)])
    batches = Batches(np.arange(1, 401), pieces, np.arange(3, 30), (2, 3, 3), 16, CPU)
    seen = []
    for step in range(9):
        lines = batches.at(step).lines
        assert 0 <= lines.tokens.shape[1] - lines.lengths.max() < 8
        assert (lines.tokens[~lines.real()] == 0).all()
        states = lines.tokens.unsqueeze(-1).float()
        numbers = batches.at(step).line_numbers + 3  # the taught pieces begin with the third
        assert lines.last(states).flatten().tolist() == [float(pieces[n, 0] + pieces[n, 1]) for n in numbers]
        seen += numbers.tolist()
    assert sorted(seen) == list(range(3, 30))


def test_the_words_of_a_line_are_its_own(script: Any) -> None:
    """A state that points at exactly one token's embedding must give a loss near zero for a line of that token alone."""
    from bag_of_words import BagOfWords
    from batches import Rows

    bag = BagOfWords(torch.ones(6), 4)
    embeddings = torch.eye(6, 4) * 100
    lines = Rows(torch.tensor([[1, 1, 0], [2, 0, 0]]), torch.tensor([2, 1]))
    last = torch.nn.functional.one_hot(torch.tensor([1, 2]), 4).float()
    assert bag(last, lines, embeddings).item() < 1e-3
    assert bag(last.flip(0), lines, embeddings).item() > 10


def test_a_pair_costs_less_the_closer_it_is(script: Any) -> None:
    from contrast import Contrast

    contrast, documents = Contrast(4), torch.arange(3)
    first, noise = torch.eye(3, 4), torch.ones(3, 4)
    losses = [contrast(torch.cat([first, first + amount * noise]), documents).item() for amount in (0.0, 1.0, 10.0)]
    assert losses == sorted(losses)
    assert losses[0] < 1e-3
    swapped = torch.cat([first, first[[1, 0, 2]]])
    assert contrast(swapped, documents).item() > 5
    assert contrast(torch.cat([first, torch.ones(3, 4)]), torch.zeros(3)).item() < 1e-6  # nothing is told apart within one document


def test_a_teacher_that_comes_later_is_learned_from(script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import teacher

    work, donor = tmp_path / "work", tmp_path / "donor"
    assert "teacher" not in run(script, corpus, work, 10)[-1]
    tokenizer, model, *_ = start(script, corpus, work / "data")
    script.publish(model, tokenizer, donor)
    monkeypatch.setattr(teacher, "CHUNK", 100)
    monkeypatch.setattr(sys, "argv", ["teacher", "--data", str(work / "data"), "--donor", str(donor)])
    teacher.main()
    log = run(script, corpus, work, 110)
    assert log[-1]["teacher"] < log[1]["teacher"]
    assert "teacher" not in run(script, corpus, work, 120, teacher=0.0)[-1]


@pytest.mark.parametrize("view", ["DEEP", "SHALLOW"])
def test_a_teacher_reads_many_texts_as_it_reads_each(
    view: str, script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import teacher

    tokenizer, model, *_ = start(script, corpus, tmp_path / "data")
    script.publish(model, tokenizer, tmp_path / "donor")
    reader = teacher.Reader(str(tmp_path / "donor"), getattr(teacher, view), CPU)
    reader.model.float()  # bfloat16 would hide a mistake in its noise
    texts = ["国足赢了", "央行下调利率，股市上涨", "好", "一部新电影在上海首映，观众很多"]
    together = reader.features(texts)
    assert together.shape == (4, 32 * (len(reader.view.depths) + (view == "DEEP")))
    monkeypatch.setitem(teacher.TOKENS_AT_ONCE, "cpu", 1)
    assert torch.allclose(together, reader.features(texts), atol=2e-3)
    assert sorted(np.concatenate(list(teacher.grouped([5, 9, 1, 9], 18))).tolist()) == [0, 1, 2, 3]
    assert [len(group) for group in teacher.grouped([5, 9, 1, 9], 18)] == [2, 2]


def test_texts_are_read_behind_the_token_between_documents(script: Any, corpus: Path, tmp_path: Path) -> None:
    from batches import Rows
    from objectives import states_of, states_of_texts

    tokenizer, model, *_ = start(script, corpus, tmp_path / "data")
    ids = tokenizer("央行下调利率")["input_ids"]
    texts = Rows(torch.tensor([ids]), torch.tensor([len(ids)]))
    alone = states_of(model, torch.tensor([[tokenizer.eos_token_id, *ids]]))
    assert torch.equal(texts.last(states_of_texts(model, texts)), alone[:, -1])


def test_published_weights_are_gone_on_from(script: Any, corpus: Path, tmp_path: Path) -> None:
    tokenizer, model, *_ = start(script, corpus, tmp_path / "data")
    script.publish(model, tokenizer, tmp_path / "published")
    again = script.build(tokenizer, None, start=str(tmp_path / "published"))
    assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}
    for before, after in zip(model.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(before.float(), after)


def test_what_is_gone_on_from_may_have_another_width_than_the_usual(
    script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, *_ = start(script, corpus, tmp_path / "data")
    script.publish(script.build(tokenizer, None, script.Shape(48, 1, 2, 1)), tokenizer, tmp_path / "larger")
    words = ["--work", tmp_path / "work", "--data", tmp_path / "data", "--start", tmp_path / "larger", "--tokens", 64]
    monkeypatch.setattr(sys, "argv", ["pretrain_nano", *map(str, words)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    script.main()
    assert (tmp_path / "work" / "log.jsonl").exists()


def test_a_variant_that_does_not_exist_ends_the_script_before_anything_is_trained(tmp_path: Path) -> None:
    for name in ("data", "bin"):
        (tmp_path / name).mkdir()
    python = tmp_path / "bin" / "python3"
    python.write_text(f"#!/bin/sh\ntouch '{tmp_path}/called'\n")
    python.chmod(0o755)
    words = [tmp_path / "data", tmp_path / "none", tmp_path / "out", 0, 1, "all", "havy"]
    environment = {**os.environ, "NANO_WORK": str(tmp_path / "work"), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    command = ["bash", str(ROOT / "pretraining" / "gpu.sh"), *map(str, words)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no such variant: havy" in done.stderr
    assert not (tmp_path / "called").exists()


def test_vectors_of_a_teacher_have_mean_square_one_and_even_components(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import teacher

    monkeypatch.setattr(teacher, "DIMENSIONS", 3)
    features = torch.randn(500, 5, generator=torch.Generator().manual_seed(0)) @ torch.rand(5, 5) + 7
    fitted = teacher.projection(features)
    vectors = (features.numpy() - fitted["mean"]) @ fitted["matrix"]
    assert np.isclose((vectors**2).mean(), 1.0, atol=1e-2)
    assert np.abs(np.corrcoef(vectors.T) - np.eye(3)).max() < 1e-2
    assert (np.diff((vectors**2).mean(axis=0)) < 0).all()


def test_a_line_is_pulled_towards_its_own_vector(script: Any, tmp_path: Path) -> None:
    from distillation import Distillation, taught_pieces

    (tmp_path / "teacher").mkdir()
    np.savez(tmp_path / "teacher" / "projection.npz", mean=[0.0])  # is no chunk
    np.savez(tmp_path / "teacher" / "00000.npz", pieces=[3, 1], vectors=np.eye(2, dtype=np.float16))
    np.savez(tmp_path / "teacher" / "00001.npz", pieces=[2], vectors=np.zeros((1, 2), dtype=np.float16))
    numbers, vectors = taught_pieces(tmp_path) or (None, None)
    assert numbers is not None
    assert numbers.tolist() == [3, 1, 2]
    distillation = Distillation(vectors, 2)
    with torch.no_grad():
        distillation.map.weight.copy_(torch.eye(2))
    last = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
    assert distillation(last, torch.tensor([2, 0])).item() < 1e-10
    assert distillation(last, torch.tensor([0, 2])).item() > 0.1
