"""Every family of models, from its folder to its answers: trained, saved, loaded back, asked and exported, without an option of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from conftest import TOY_NEWS
from families import FAMILIES, Family, save_family, table_row, traits
from packaging.version import Version
from safetensors.torch import load_file

from fenlei import Classifier, train
from fenlei.errors import ConfigError, ModelError
from fenlei.export.merged import export_merged
from fenlei.models import backbone
from fenlei.models.backbone import load_tokenizer
from fenlei.text.prompts import special_ids

QUICK: dict[str, Any] = {
    "max_steps": 2, "batch_size": 8, "learning_rate": 0.01, "device": "cpu", "baseline": False, "max_length": 200, "lora_rank": 4,
}  # fmt: skip


TABLE = Path(__file__).parents[1] / "docs" / "families.md"


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    """A family, and the folder of its model."""
    family: Family = request.param
    if Version(transformers.__version__) < Version(family.since or "0"):
        pytest.skip(f"{family.name} came with transformers {family.since}; this is {transformers.__version__}")
    return family, save_family(family, tmp_path_factory.mktemp("family"), _texts())


@pytest.fixture(scope="module")
def few_rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    path.write_text("".join(_lines()[:36]), encoding="utf-8")
    return path


@pytest.mark.parametrize(("method", "tuning"), [("head", "full"), ("head", "lora"), ("generate", "lora")])
def test_it_is_trained_saved_loaded_asked_and_exported(
    built: tuple[Family, Path], method: str, tuning: str, few_rows: Path, tmp_path: Path
) -> None:
    family, base = built
    if method == "generate" and not family.generates:
        with pytest.raises(ModelError, match=r"use --method head|not be loaded as a causal language model"):
            train(few_rows, model=str(base), out=tmp_path / "run", method=method, tuning=tuning, **QUICK)
        return
    train(few_rows, model=str(base), out=tmp_path / "run", method=method, tuning=tuning, **QUICK)
    classifier, texts = Classifier.load(tmp_path / "run", device="cpu"), _texts()[36:48]
    together = classifier.predict_proba(texts)
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.concatenate([classifier.predict_proba([text]) for text in texts[:3]]), together[:3], atol=1e-4)
    _same_tokens(base, tmp_path / "run" / "model", texts)
    if tuning == "lora":
        adapters = load_file(tmp_path / "run" / "model" / "adapter_model.safetensors")
        assert all(weight.abs().max() > 0 for name, weight in adapters.items() if "lora_B" in name), "an adapter has learnt nothing"
    if tuning == "full":
        return  # it is exported in the same way as a network that LoRA has been folded into
    if method == "head" and not family.exports:
        with pytest.raises(ConfigError, match="transformers has no classifier"):
            export_merged(tmp_path / "run", tmp_path / "stock", texts=texts)
        return
    result = export_merged(tmp_path / "run", tmp_path / "stock", texts=texts)
    assert result.agreement == 1.0
    assert result.largest_difference < 1e-3


def test_the_table_in_the_docs_says_what_comes_out(built: tuple[Family, Path]) -> None:
    family, base = built
    assert table_row(family, traits(family, base)) in TABLE.read_text(encoding="utf-8").splitlines()


def test_a_classifier_that_is_put_together_here_has_a_head_to_solve(few_rows: Path, tmp_path: Path) -> None:
    (family,) = (one for one in FAMILIES if one.name == "InternLM3")
    base = save_family(family, tmp_path / "base", _texts())
    result = train(few_rows, model=str(base), out=tmp_path / "run", tuning="frozen", **{**QUICK, "learning_rate": None})
    assert any("does not begin at random" in note for note in result.notes)


def test_bytes_are_read_as_bytes_by_a_transformers_that_believes_the_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (family,) = (one for one in FAMILIES if one.name == "DeepSeek-R1 distill, Llama")
    base, texts = save_family(family, tmp_path / "base", _texts()), _texts()
    monkeypatch.setattr(backbone, "AutoTokenizer", transformers.LlamaTokenizer)
    tokenizer = load_tokenizer(base)
    assert tokenizer.batch_decode(tokenizer(texts)["input_ids"], skip_special_tokens=True) == texts


def test_tokenizer_json_is_read_where_mistral_common_would_read_tekken_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class MistralCommonBackend:
        @classmethod
        def from_pretrained(cls, folder: Path, **options: Any) -> MistralCommonBackend:
            return cls()

    (family,) = (one for one in FAMILIES if one.name == "Mistral")
    base = save_family(family, tmp_path / "base", _texts())
    monkeypatch.setattr(backbone, "AutoTokenizer", MistralCommonBackend)
    tokenizer = load_tokenizer(base)
    assert isinstance(tokenizer, transformers.PreTrainedTokenizerFast)
    assert tokenizer("国足")["input_ids"][0] == tokenizer.bos_token_id


def test_the_table_has_a_row_for_each_family_and_no_other() -> None:
    rows = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line.startswith("| **")]
    assert len(rows) == len(FAMILIES)


def _same_tokens(base: Path, saved: Path, texts: list[str]) -> None:
    before, after = load_tokenizer(base), load_tokenizer(saved)
    first = [] if any(special_ids(before)) else special_ids(after)[0]  # a head's texts are given one (tests/test_first_token.py)
    assert [[*first, *ids] for ids in before(texts)["input_ids"]] == after(texts)["input_ids"]
    assert (before.pad_token_id, before.eos_token_id, before.chat_template) == (after.pad_token_id, after.eos_token_id, after.chat_template)


def _lines() -> list[str]:
    return TOY_NEWS.read_text(encoding="utf-8").splitlines(keepends=True)


def _texts() -> list[str]:
    return [json.loads(line)["text"] for line in _lines()]
