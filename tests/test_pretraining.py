"""The script that makes `nano`: resumed equals unbroken, and what is published is a stock folder."""

from __future__ import annotations

import json
import math
import sys
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a network small enough for a test."""
    monkeypatch.syspath_prepend(str(ROOT / "pretraining"))
    import pretrain_nano

    small = {
        "VOCAB": 400,
        "WIDTH": 32,
        "LAYERS": 1,
        "HEADS": 2,
        "KEY_VALUE_HEADS": 1,
        "SEQUENCE": 16,
        "BATCH": 4,
        "CHECKPOINT_EVERY": 1,
    } | {
        "PEAK_RATE": 0.02,
        "WARM_UP_STEPS": 2,
    }
    for name, value in small.items():
        monkeypatch.setattr(pretrain_nano, name, value)
    yield pretrain_nano
    for name in ("pretrain_nano", "teacher", "objectives", "bag_of_words", "distillation", "borrow", "tokenizer"):
        sys.modules.pop(name, None)


@pytest.fixture
def corpus(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"{row['text']}\n{row['text'][::-1]}" for row in toy_rows), encoding="utf-8")
    return path


def start(script: Any, corpus: Path, work: Path) -> tuple[Any, Any, Any]:
    tokenizer = script.prepare(corpus, work)
    model = script.build(tokenizer, None)
    return tokenizer, model, script.Objectives.for_stream(work, len(tokenizer), 32, tokenizer.eos_token_id)


def test_resumed_equals_unbroken_and_the_loss_falls(script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = 60 * 16 * 4
    _, model, objectives = start(script, corpus, tmp_path / "whole")
    script.train(tmp_path / "whole", model, objectives, tokens)
    real = script.batches
    monkeypatch.setattr(script, "batches", lambda *given: islice(real(*given), 25))
    _, model, objectives = start(script, corpus, tmp_path / "cut")
    script.train(tmp_path / "cut", model, objectives, tokens)
    monkeypatch.setattr(script, "batches", real)
    _, model, objectives = start(script, corpus, tmp_path / "cut")
    script.train(tmp_path / "cut", model, objectives, tokens)
    whole, cut = (load_file(tmp_path / name / "checkpoint.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)
    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    guessing = math.log(400)
    assert log[-1]["loss"] < guessing - 0.4
    assert log[-1]["words"] < guessing
    assert log[-1]["held_out_loss"] > 0


def test_what_is_published_loads_as_a_stock_model(script: Any, corpus: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model, _ = start(script, corpus, tmp_path / "work")
    script.publish(tmp_path / "work", model, tokenizer, tmp_path / "nano")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "nano", dtype=torch.float32)
    published = dict(model.named_parameters())
    assert all(torch.equal(parameter, published[name].float()) for name, parameter in loaded.named_parameters())
    again = AutoTokenizer.from_pretrained(tmp_path / "nano")
    odd = "emoji 🀄 \t kana カナ, cyrillic ы\n<b>&amp;"
    assert again.decode(again(odd)["input_ids"]) == odd
    assert again.pad_token_id != again.eos_token_id
    assert "assistant" in again.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False, add_generation_prompt=True)


def test_the_words_of_a_line_are_those_up_to_its_end(script: Any) -> None:
    """A state that points at exactly one token's embedding must give a loss near zero for a line of that token alone."""
    weights = torch.ones(6)
    weights[0] = 0
    from bag_of_words import BagOfWords

    bag = BagOfWords(weights, 4, eos_id=0)
    embeddings = torch.eye(6, 4) * 100
    tokens = torch.tensor([[1, 1, 0, 2, 0, 3, 3]])
    states = torch.nn.functional.one_hot(torch.tensor([[0, 1, 0, 2, 0, 0, 0]]), 4).float()
    assert bag(states, tokens, embeddings).item() < 1e-3
    assert bag(states.flip(1), tokens, embeddings).item() > 10


def test_a_teacher_that_comes_later_is_learned_from(script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import teacher

    work, donor = tmp_path / "work", tmp_path / "donor"
    monkeypatch.setattr(script, "SEQUENCE", 64)  # whole lines fit
    monkeypatch.setattr(script, "HELD_OUT", 0.1)
    tokenizer, model, objectives = start(script, corpus, work)
    script.train(work, model, objectives, 10 * 64 * 4)
    script.publish(work, model, tokenizer, donor)
    monkeypatch.setattr(teacher, "SHORTEST", 1)
    monkeypatch.setattr(sys, "argv", ["teacher", "--work", str(work), "--donor", str(donor)])
    teacher.main()
    _, model, objectives = start(script, corpus, work)
    script.train(work, model, objectives, 110 * 64 * 4)
    log = [json.loads(line) for line in (work / "log.jsonl").read_text().splitlines()]
    assert "teacher" not in log[0]
    assert log[-1]["teacher"] < log[1]["teacher"]


def test_a_line_is_pulled_towards_its_own_vector(script: Any, tmp_path: Path) -> None:
    """The map can be perfect only if each line's last state meets the vector of that very line."""
    import numpy as np
    from distillation import Distillation, Teacher

    stream = np.array([4, 4, 0, 1, 0, 2, 2, 0, 3, 0])
    (tmp_path / "teacher").mkdir()
    np.savez(tmp_path / "teacher" / "00000.npz", lines=[3, 1, 2], vectors=[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    distillation = Distillation(Teacher(tmp_path, stream, eos_id=0), 4, eos_id=0)
    wanted = {3: 0, 1: 1, 2: 2}
    with torch.no_grad():
        for token, row in wanted.items():
            distillation.map.weight[:, token] = distillation.teacher.vectors[row]
    taught = distillation.teacher.stream
    assert taught.tolist() == [3, 0, 1, 0, 2, 2, 0]
    tokens = torch.from_numpy(np.stack([taught[:5], taught[2:]]))  # the second row's only whole line is the one of 2s
    states = torch.nn.functional.one_hot(tokens, 4).float()
    assert distillation(states, tokens, torch.tensor([0, 2])).item() < 1e-10
    assert distillation(states, tokens, torch.tensor([2, 0])).item() > 0.1
