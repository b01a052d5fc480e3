"""Adapters that PEFT wrote, without fenlei: opened with labels, and answering as transformers and PEFT do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from peft import AutoPeftModelForSequenceClassification, LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from fenlei import Classifier
from fenlei.cli.main import main
from fenlei.config import TrustConfig
from fenlei.errors import ArtifactError, ConfigError, ModelError, RequestError
from fenlei.inference.bulk import digest_of
from fenlei.models.head import HeadMethod

LABELS = ["财经", "体育", "科技"]
TEXTS = ["央行宣布下调存款准备金率", "国足客场两球取胜", "短"]


def save_adapter(base: Path, folder: Path, task: TaskType = TaskType.SEQ_CLS) -> Path:
    torch.manual_seed(0)
    network = AutoModelForSequenceClassification.from_pretrained(base, num_labels=3, pad_token_id=1)
    adapted: Any = get_peft_model(network, LoraConfig(task_type=task, r=4, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tiny_qwen, tmp_path_factory.mktemp("adapter"))


@torch.inference_mode()
def test_it_answers_as_peft_does(adapter: Path, tiny_qwen: Path) -> None:
    classifier = Classifier.load(adapter, labels=np.array(LABELS), device="cpu")
    tokenizer = AutoTokenizer.from_pretrained(tiny_qwen)
    network = AutoPeftModelForSequenceClassification.from_pretrained(adapter, num_labels=3, pad_token_id=tokenizer.pad_token_id).eval()
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    theirs = network(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.numpy()
    np.testing.assert_allclose(classifier.logits(TEXTS).logits, theirs, atol=1e-4)
    assert classifier.labels == tuple(LABELS)
    assert not any(answer.calibrated for answer in classifier.predict(TEXTS))


def test_it_is_read_where_it_is_asked_for(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peft.peft_model.infer_device", lambda: pytest.fail("PEFT would take a GPU wherever there is one"))
    assert len(Classifier.load(adapter, labels=LABELS, device="cpu").predict(TEXTS)) == len(TEXTS)


def test_one_that_does_not_fit_names_the_ways_out(adapter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(HeadMethod, "to", full)
    with pytest.raises(ModelError, match=r"does not fit the memory of device cpu .*--device cpu"):
        Classifier.load(adapter, labels=LABELS, device="cpu")


def test_the_command_takes_labels_and_a_folder_of_an_adapter(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(adapter), "--text", TEXTS[0], "--labels", ",".join(LABELS), "--json", "--device", "cpu"]) == 0
    assert json.loads(capsys.readouterr().out)["prediction"] in LABELS
    assert main(["predict", str(adapter), "--text", TEXTS[0]]) == 1
    assert "names no classes; give them, in the order of their ids" in capsys.readouterr().err


def test_the_command_says_how_an_adapter_and_a_model_read_texts(adapter: Path, tiny_qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEXTS[1] * 20
    words = ["--labels", ",".join(LABELS), "--text", text, "--probabilities", "--json", "--device", "cpu"]

    def told(*more: str) -> list[float]:
        assert main(["predict", *more, *words]) == 0
        return [*json.loads(capsys.readouterr().out)["probabilities"].values()]

    prompted = Classifier.load(adapter, labels=LABELS, prompt="新闻：{text}。", max_length=24, base=str(tiny_qwen), device="cpu")
    given = ("--prompt", "新闻：{text}。", "--max-length", "24", "--base", str(tiny_qwen))
    assert told(str(adapter), *given) == pytest.approx(prompted.predict_proba([text])[0], abs=2e-6)
    asked = Classifier.zero_shot(str(tiny_qwen), LABELS, prompt="{labels}？{text}", max_length=120, long="windows", device="cpu")
    given = ("--prompt", "{labels}？{text}", "--max-length", "120", "--long", "windows")
    assert told(str(tiny_qwen), *given) == pytest.approx(asked.predict_proba([text])[0], abs=2e-6)


@torch.inference_mode()
def test_its_classes_may_have_been_learned_each_for_itself(adapter: Path, capsys: pytest.CaptureFixture[str]) -> None:
    logits = Classifier.load(adapter, labels=LABELS, device="cpu").logits(TEXTS[:1]).logits[0]
    words = ["--labels", ",".join(LABELS), "--text", TEXTS[0], "--probabilities", "--json", "--device", "cpu"]
    assert main(["predict", str(adapter), "--multi-label", *words]) == 0
    told = json.loads(capsys.readouterr().out)
    right = dict(zip(LABELS, (1 / (1 + np.exp(-logits))).tolist(), strict=True))
    assert told["probabilities"] == pytest.approx(right, abs=2e-6)
    assert set(told["prediction"]) == {name for name, share in right.items() if share >= 0.5}


def test_an_adapter_without_a_prompt_is_said_and_other_ways_to_read_are_refused(
    adapter: Path, tiny_qwen: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--labels", ",".join(LABELS), "--text", TEXTS[0], "--device", "cpu"]
    assert main(["predict", str(adapter), *words]) == 0
    assert "reads the bare text; an adapter does not say" in capsys.readouterr().err
    (tmp_path / "fenlei.json").write_text("{}", encoding="utf-8")
    for refused, message in (
        ([str(tmp_path), "--prompt", "{text}"], "--prompt: for a model or an adapter of others"),
        ([str(adapter), "--long", "head-tail"], "--long: .* is an adapter of others"),
        ([str(tiny_qwen), "--base", str(tiny_qwen)], "--base: .* is a model, and no adapter"),
        ([str(adapter), "--prompt", "text"], "prompt must be 'zh', 'en' or a template that contains {text} once"),
        ([str(adapter), "--prompt", "{labels}: {text}"], "prompt has a place for the labels"),
    ):
        assert main(["predict", *refused, *words]) == 1
        assert re.search(message, capsys.readouterr().err), refused


def test_what_does_not_fit_is_said(adapter: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="tells 3 classes apart, but 2 labels are given"):
        Classifier.load(adapter, labels=LABELS[:2])
    with pytest.raises(ConfigError, match=r"names no classes; give them.*other commands, as serve, take runs"):
        Classifier.load(adapter)
    with pytest.raises(RequestError, match="expected a list of labels, found one string '财经,体育,科技'"):
        Classifier.load(adapter, labels="财经,体育,科技")
    with pytest.raises(TypeError, match="devise"):
        Classifier.load(adapter, labels=LABELS, devise="cpu")  # type: ignore[call-arg]
    with pytest.raises(ModelError, match="no such folder"):
        Classifier.load(adapter, labels=LABELS, base="/no/such/model")
    other = save_adapter(tiny_qwen, tmp_path / "tokens", TaskType.FEATURE_EXTRACTION)
    with pytest.raises(ArtifactError, match="is an adapter for FEATURE_EXTRACTION, expected SEQ_CLS; a classifier is needed"):
        Classifier.load(other, labels=LABELS)
    config = json.loads((other / "adapter_config.json").read_text(encoding="utf-8"))
    (other / "adapter_config.json").write_text(json.dumps(config | {"task_type": "CAUSAL_LM"}), encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"answers in words: merge it into its model .*, and give that folder with --labels"):
        Classifier.load(other, labels=LABELS)
    pickled = save_adapter(tiny_qwen, tmp_path / "pickled")
    (pickled / "adapter_model.safetensors").rename(pickled / "adapter_model.bin")
    with pytest.raises(ArtifactError, match=r"pickled adapters \(\.bin\) are not read"):
        Classifier.load(pickled, labels=LABELS)


def test_its_place_and_its_prompt_can_be_given(adapter: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    moved.mkdir()
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "/gone"}), encoding="utf-8")
    (moved / "adapter_model.safetensors").write_bytes((adapter / "adapter_model.safetensors").read_bytes())
    with pytest.raises(ModelError, match=r"its base model is '/gone'; --base \(base=\) says where that is now"):
        Classifier.load(moved, labels=LABELS, device="cpu")
    here = Classifier.load(moved, labels=LABELS, base=str(tiny_qwen), device="cpu")
    prompted = Classifier.load(moved, labels=LABELS, base=str(tiny_qwen), prompt="新闻：{text}", device="cpu")
    bare = Classifier.load(adapter, labels=LABELS, device="cpu")
    np.testing.assert_allclose(here.logits(TEXTS).logits, bare.logits(TEXTS).logits, atol=1e-5)
    np.testing.assert_allclose(prompted.logits(TEXTS).logits, bare.logits([f"新闻：{text}" for text in TEXTS]).logits, atol=1e-4)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"int8": True}, "int8: is for runs that fenlei trained"),
        ({"verify": True}, "verify: compares files with the checksums"),
        ({"trust": TrustConfig(min_confidence=0.9)}, "a threshold or prediction sets: take the calibrating rows"),
    ],
)
def test_what_only_a_run_has_is_not_passed_over(adapter: Path, asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Classifier.load(adapter, labels=LABELS, device="cpu", **asked)


def test_the_command_passes_nothing_over(adapter: Path, tiny_qwen: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--text", TEXTS[0], "--labels", ",".join(LABELS), "--device", "cpu"]
    assert main(["predict", str(adapter), *words, "--min-confidence", "0.9"]) == 1
    assert "is an adapter of others" in capsys.readouterr().err
    assert main(["predict", str(tiny_qwen), *words, "--verify"]) == 1
    assert "a model without training has none" in capsys.readouterr().err


def test_a_configuration_of_others_beside_a_model_is_not_read(tiny_qwen: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model", tmp_path / "out.jsonl"
    shutil.copytree(tiny_qwen, model)
    (model / "config.yaml").write_text("run_name: qwen\n", encoding="utf-8")
    source = write_jsonl(tmp_path / "in.jsonl", [{"text": TEXTS[0]}])
    assert main(["predict", str(model), str(source), "--labels", ",".join(LABELS), "--out", str(out), "--device", "cpu"]) == 0
    assert json.loads(out.read_text(encoding="utf-8"))["prediction"] in LABELS


def test_other_weights_in_its_place_are_another_model(tiny_qwen: Path, tmp_path: Path) -> None:
    """A prediction that was cut off is gone on with only by the weights that began it."""
    folder = save_adapter(tiny_qwen, tmp_path / "adapter")
    before = digest_of(Classifier.load(folder, labels=LABELS, device="cpu"))
    assert digest_of(Classifier.load(folder, labels=LABELS, device="cpu")) == before
    weights = load_file(folder / "adapter_model.safetensors")
    save_file({name: weight + 0.1 for name, weight in weights.items()}, folder / "adapter_model.safetensors")
    assert digest_of(Classifier.load(folder, labels=LABELS, device="cpu")) != before


def test_zero_shot_over_other_weights_is_another_model(tiny_qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny_qwen, tmp_path / "model")
    before = digest_of(Classifier.zero_shot(str(tmp_path / "model"), LABELS, device="cpu"))
    weights = load_file(tmp_path / "model" / "model.safetensors")
    save_file({name: weight + 0.1 for name, weight in weights.items()}, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    assert digest_of(Classifier.zero_shot(str(tmp_path / "model"), LABELS, device="cpu")) != before
