"""Texts of a decoder whose tokenizer sets no first token are given one, in training, in the run's folder and in the exported one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import transformers

from fenlei import Classifier, train
from fenlei.export.merged import export_merged
from fenlei.models.backbone import load_tokenizer
from fenlei.text.first_token import set_first_token
from fenlei.text.prompts import special_ids


def test_it_is_set_where_nothing_stands_first(tiny_qwen: Path, tiny_llama: Path, tiny_bert: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen)
    bare = tokenizer("国足")["input_ids"]
    token = set_first_token(tokenizer, None)
    assert token is not None
    assert tokenizer("国足")["input_ids"] == [tokenizer.convert_tokens_to_ids(token), *bare]
    assert tokenizer("国足", add_special_tokens=False)["input_ids"] == bare
    assert set_first_token(tokenizer, None) is None, "once is enough"
    for folder in (tiny_llama, tiny_bert):
        assert any(special_ids(load_tokenizer(folder)))
        assert set_first_token(load_tokenizer(folder), None) is None


@pytest.mark.parametrize(("prompt", "is_set"), [("{text}\n类别：", True), ("文本：{text}", False), ("zh", False)])
def test_a_prompt_that_begins_is_beginning_enough(prompt: str, is_set: bool, tiny_qwen: Path) -> None:
    assert (set_first_token(load_tokenizer(tiny_qwen), prompt) is not None) == is_set


def test_it_goes_with_the_run_and_with_what_is_exported(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    run = train(
        toy_file,
        model=str(tiny_qwen),
        out=tmp_path / "run",
        tuning="full",
        max_steps=4,
        device="cpu",
        baseline=False,
        announce=notes.append,
    ).out
    assert any(note.startswith("first token ") for note in notes)
    texts = ["国足热身赛两球取胜", "央行下调利率", ""]
    export_merged(run, tmp_path / "stock", texts=texts)
    ids = [transformers.AutoTokenizer.from_pretrained(folder)("国足")["input_ids"] for folder in (run / "model", tmp_path / "stock")]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 1 + len(load_tokenizer(tiny_qwen)("国足")["input_ids"])
    stock = transformers.pipeline("text-classification", str(tmp_path / "stock"), top_k=None)(texts)
    ours = Classifier.load(run, device="cpu").predict_proba(texts)
    labels = Classifier.load(run, device="cpu").labels
    theirs = np.array([[next(one["score"] for one in row if one["label"] == name) for name in labels] for row in stock])
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
