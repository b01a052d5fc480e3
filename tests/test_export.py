"""The exported folder answers as the run does, in plain transformers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from fenlei import Classifier, train
from fenlei.errors import ArtifactError, ConfigError
from fenlei.export import merged
from fenlei.export.merged import export_merged
from fenlei.export.sample_texts import sample_texts
from fenlei.models import devices
from fenlei.models.backbone import load_tokenizer
from fenlei.text.prompts import TextEncoder

DOCS = Path(__file__).parents[1] / "docs"
QUICK: dict[str, Any] = {"max_steps": 12, "batch_size": 16, "device": "cpu", "baseline": False, "max_length": 48, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("model", "tuning"),
    [("tiny_qwen", "full"), ("tiny_qwen", "lora"), ("tiny_qwen", "frozen"), ("tiny_llama", "lora"), ("tiny_bert", "lora")],
)
def test_the_stock_pipeline_gives_the_runs_calibrated_answers(
    model: str, tuning: str, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    train(toy_file, model=str(request.getfixturevalue(model)), out=tmp_path / "run", dev=str(_other(toy_file)), tuning=tuning, **QUICK)
    texts = [row["text"] for row in toy_rows]
    made_up = (model, tuning) == ("tiny_qwen", "lora")  # once: they are many
    result = export_merged(tmp_path / "run", tmp_path / "stock", texts=None if made_up else texts)
    assert result.agreement >= 0.995
    assert result.largest_difference < 1e-3
    assert result.rows == (2000 if made_up else len(texts))
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    assert classifier.temperature != 1.0
    ours = classifier.predict_proba(texts)
    pipeline = transformers.pipeline("text-classification", model=str(tmp_path / "stock"), top_k=None, batch_size=8, device="cpu")
    for probabilities, answers in zip(ours, pipeline(texts), strict=True):
        by_name = {answer["label"]: answer["score"] for answer in answers}
        np.testing.assert_allclose([by_name[label] for label in classifier.labels], probabilities, atol=1e-3)
    config = json.loads((tmp_path / "stock" / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"
    assert config["pad_token_id"] is not None
    assert list(config["id2label"].values()) == list(classifier.labels)


def test_what_stock_cannot_express_is_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "mlp", head="mlp", tuning="full", **QUICK)
    with pytest.raises(ConfigError, match="mlp head has no place in the stock layout"):
        export_merged(tmp_path / "mlp", tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


@pytest.mark.parametrize("model", ["tiny_qwen", "tiny_llama"])
def test_the_tokenizer_of_a_stock_folder_puts_texts_inside_the_prompt(
    model: str, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    train(toy_file, model=str(request.getfixturevalue(model)), out=tmp_path / "run", prompt="zh", long="truncate", tuning="full", **QUICK)
    texts = [toy_rows[0]["text"], toy_rows[1]["text"] * 9, "", "a"]
    result = export_merged(tmp_path / "run", tmp_path / "stock", texts=texts)
    assert result.agreement == 1
    assert result.largest_difference < 1e-3
    assert any("inside the run's prompt" in note for note in result.notes)
    ours = TextEncoder(load_tokenizer(tmp_path / "run" / "model"), "zh", 48).encode(texts)
    theirs = load_tokenizer(tmp_path / "stock")(texts, truncation=True)["input_ids"]
    assert [row.tolist() for row in ours] == theirs
    assert len(theirs[1]) == 48  # the prompt's end is behind what is left of a text that was cut
    with pytest.raises(ArtifactError, match="is not empty"):
        export_merged(tmp_path / "run", tmp_path / "stock")


def test_a_tokenizer_that_forgets_the_prompt_is_noticed(tiny_bert: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_bert), out=tmp_path / "run", prompt="zh", tuning="frozen", **QUICK)
    with pytest.raises(ConfigError, match="BertTokenizer forgets the run's prompt"):
        export_merged(tmp_path / "run", tmp_path / "stock")
    assert not (tmp_path / "stock").exists()


def test_an_export_that_disagrees_is_not_written(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="full", **QUICK)

    def negate(network: Any, calibration: Any) -> Any:
        network.score.weight.data.neg_()
        return calibration, []

    monkeypatch.setattr(merged, "_fold_calibration", negate)
    with pytest.raises(ArtifactError, match="gives the run's label on only"):
        export_merged(tmp_path / "run", tmp_path / "stock", texts=[row["text"] for row in toy_rows])
    assert not (tmp_path / "stock").exists()


def test_made_up_texts_are_the_same_each_time_and_hold_no_broken_characters(tiny_qwen: Path) -> None:
    tokenizer = load_tokenizer(tiny_qwen)
    texts = sample_texts(tokenizer, 50)
    assert texts == sample_texts(tokenizer, 50)
    assert all(text and "\ufffd" not in text for text in texts)


def _other(data: Path) -> Path:
    """The rows once more, as a dev file: tiny models are there to be exported, not to be good."""
    copy = data.with_name("dev.jsonl")
    copy.write_bytes(data.read_bytes())
    return copy


@pytest.mark.parametrize(("model", "tuning"), [("tiny_qwen", "full"), ("tiny_llama", "lora")])
def test_a_generate_run_becomes_a_stock_language_model(
    model: str, tuning: str, toy_file: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    options = {**QUICK, "max_length": 200, "method": "generate", "tuning": tuning}
    train(toy_file, model=str(request.getfixturevalue(model)), out=tmp_path / "run", **options)
    result = export_merged(tmp_path / "run", tmp_path / "stock")
    assert result.agreement >= 0.995
    assert result.largest_difference < 0.05
    assert result.rows == 200
    card = (tmp_path / "stock" / "README.md").read_text(encoding="utf-8")
    assert "Classifier.load" not in card
    assert "`prompt.json` has the prompt" in card
    told = json.loads((tmp_path / "stock" / "prompt.json").read_text(encoding="utf-8"))
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    assert told["labels"] == list(classifier.labels)
    text = "国足热身赛两球取胜"
    tokenizer = load_tokenizer(tmp_path / "stock")
    stock = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "stock").eval()
    prompt = tokenizer(told["prompt"].replace("{text}", text), add_special_tokens=False)["input_ids"]
    scores = []
    for label in told["labels"]:
        answer = tokenizer(label, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logits = stock(torch.tensor([prompt + answer])).logits[0].float().log_softmax(-1)
        scores.append(sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(answer)))
    np.testing.assert_allclose(scores, classifier.logits([text]).logits[0], atol=0.05)
    if tuning == "lora":
        (served,) = re.findall(r"--lora-modules \w+=runs/generate/(\S+)", (DOCS / "export.md").read_text(encoding="utf-8"))
        adapter = json.loads((tmp_path / "run" / served / "adapter_config.json").read_text(encoding="utf-8"))
        # What vLLM's loader asks of an adapter beside a language model; 16 is the rank that it takes unasked.
        assert (adapter["peft_type"], adapter["task_type"], adapter["modules_to_save"]) == ("LORA", "CAUSAL_LM", None)
        assert adapter["r"] <= 16
        assert (tmp_path / "run" / served / "adapter_model.safetensors").is_file()


def test_a_large_language_model_is_proven_in_float32(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine computes bfloat16, weights are written in it; by rounding alone the two sides would differ by hundredths."""
    monkeypatch.setattr(devices, "SMALL_MODEL_PARAMETERS", 0)
    monkeypatch.setattr(devices, "_cpu_computes_bfloat16", lambda: True)
    options = {**QUICK, "max_length": 200, "method": "generate", "tuning": "full"}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **options)
    result = export_merged(tmp_path / "run", tmp_path / "stock", texts=[row["text"] for row in toy_rows])
    assert json.loads((tmp_path / "stock" / "config.json").read_text())["dtype"] == "bfloat16"
    assert result.largest_difference < 1e-3


def test_a_corrected_prior_is_no_weight(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    options = {**QUICK, "max_length": 200, "method": "generate", "tuning": "none"}
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", **options)
    with pytest.raises(ConfigError, match="what each label scores on an empty text"):
        export_merged(tmp_path / "run", tmp_path / "stock")
    assert export_merged(tmp_path / "run", tmp_path / "stock", force=True).agreement >= 0.995
