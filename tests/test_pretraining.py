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
    for name in ("pretrain_nano", "bag_of_words", "borrow", "tokenizer"):
        sys.modules.pop(name, None)


@pytest.fixture
def corpus(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n\n".join(f"{row['text']}\n{row['text'][::-1]}" for row in toy_rows), encoding="utf-8")
    return path


def start(script: Any, corpus: Path, work: Path) -> tuple[Any, Any, Any]:
    import numpy as np

    tokenizer = script.prepare(corpus, work)
    model = script.build(tokenizer, None)
    bag = script.BagOfWords.for_stream(np.load(work / "train.npy"), len(tokenizer), 32, tokenizer.eos_token_id)
    return tokenizer, model, bag


def test_resumed_equals_unbroken_and_the_loss_falls(script: Any, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = 60 * 16 * 4
    _, model, bag = start(script, corpus, tmp_path / "whole")
    script.train(tmp_path / "whole", model, bag, tokens)
    real = script.batches
    monkeypatch.setattr(script, "batches", lambda stream, first: islice(real(stream, first), 25))
    _, model, bag = start(script, corpus, tmp_path / "cut")
    script.train(tmp_path / "cut", model, bag, tokens)
    monkeypatch.setattr(script, "batches", real)
    _, model, bag = start(script, corpus, tmp_path / "cut")
    script.train(tmp_path / "cut", model, bag, tokens)
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
    bag = script.BagOfWords(weights, 4, eos_id=0)
    embeddings = torch.eye(6, 4) * 100
    tokens = torch.tensor([[1, 1, 0, 2, 0, 3, 3]])
    states = torch.nn.functional.one_hot(torch.tensor([[0, 1, 0, 2, 0, 0, 0]]), 4).float()
    assert bag(states, tokens, embeddings).item() < 1e-3
    assert bag(states.flip(1), tokens, embeddings).item() > 10
