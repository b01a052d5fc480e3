"""What is exported for ONNX Runtime answers as the run does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl

from fenlei import Classifier, train
from fenlei.artifact import read_manifest
from fenlei.cli.export import _texts_and_labels
from fenlei.errors import ConfigError
from fenlei.export.onnx_folder import TOLD, export_onnx
from fenlei.export.onnx_network import Int8Linear, _quiet
from fenlei.models import devices
from fenlei.models.backbone import load_tokenizer
from fenlei.text.prompts import TextEncoder

onnxruntime = pytest.importorskip("onnxruntime")
transformers = pytest.importorskip("transformers")

pytestmark = pytest.mark.timeout(400)  # torch's exporter builds its table of operators first, which is slow on a busy machine

QUICK: dict[str, Any] = {"max_steps": 12, "batch_size": 16, "device": "cpu", "baseline": False, "max_length": 48, "learning_rate": 0.01}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("tiny_qwen", {"tuning": "lora", "layers": 1}),  # the exporter takes its time by layers; tiny_bert has two
        ("tiny_llama", {"tuning": "frozen", "prompt": "zh", "layers": 1}),
        ("tiny_bert", {"tuning": "full"}),
    ],
)
def test_plain_onnx_runtime_gives_the_runs_calibrated_answers(
    model: str,
    options: dict[str, Any],
    toy_file: Path,
    toy_rows: list[dict[str, str]],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    dev = tmp_path / "dev.jsonl"
    dev.write_bytes(toy_file.read_bytes())
    base = str(request.getfixturevalue(model))
    train(toy_file, model=base, out=tmp_path / "run", dev=str(dev), long="truncate", **QUICK, **options)
    texts, gold = [row["text"] for row in toy_rows], [row["label"] for row in toy_rows]
    result = export_onnx(tmp_path / "run", tmp_path / "onnx", texts=texts, gold=gold)
    assert (result.agreement, result.accuracy) == (1.0, result.run_accuracy)
    assert result.largest_difference < 1e-3
    classifier = Classifier.load(tmp_path / "run", device="cpu")
    assert classifier.temperature != 1.0
    # As a service without fenlei and torch would ask it.
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "onnx" / "model.onnx"), providers=["CPUExecutionProvider"])
    for some in (texts[:1], texts[:7], texts):
        inputs = tokenizer(some, padding=True, truncation=True, padding_side="right", return_tensors="np")
        fed = {name: inputs[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
        logits = session.run(["logits"], fed)[0].astype(np.float64)
        shares = np.exp(logits - logits.max(1, keepdims=True))
        np.testing.assert_allclose(shares / shares.sum(1, keepdims=True), classifier.predict_proba(some), atol=1e-4)
    # The tokenizer beside the graph puts texts inside the prompt, and cuts long ones as the run does.
    encoder = TextEncoder(load_tokenizer(tmp_path / "run" / "model"), options.get("prompt"), QUICK["max_length"])
    ours = encoder.encode([*texts, "央行下调利率" * 20])
    theirs = load_tokenizer(tmp_path / "onnx")([*texts, "央行下调利率" * 20], truncation=True)["input_ids"]
    assert [row.tolist() for row in ours] == theirs
    names = json.loads((tmp_path / "onnx" / "config.json").read_text(encoding="utf-8"))["id2label"]
    assert tuple(names.values()) == classifier.labels


def int8_by_runtime(linear: torch.nn.Linear, states: torch.Tensor, file: Path) -> np.ndarray:
    sizes = {"x": dict.fromkeys((0, 1), torch.export.Dim.DYNAMIC)}
    with _quiet():
        made = torch.onnx.export(
            Int8Linear(linear).eval(), (states,), input_names=["states"], dynamo=True, dynamic_shapes=sizes, verbose=False
        )
    assert made is not None
    made.save(str(file))
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"states": states.numpy()})[0])


def test_in_int8_each_token_has_a_scale_of_its_own(tmp_path: Path) -> None:
    """The first token of real decoders is a thousand times larger than those behind it."""
    torch.manual_seed(0)
    linear, states = torch.nn.Linear(64, 32), torch.randn(2, 5, 64)
    states[:, 0] *= 1000
    found, exact = int8_by_runtime(linear, states, tmp_path / "linear.onnx"), linear(states).detach().numpy()
    assert np.abs(found - exact)[:, 1:].max() < 0.02 * np.abs(exact[:, 1:]).max()


def test_in_int8_the_largest_sums_do_not_overflow(tmp_path: Path) -> None:
    """They would on x86 without VNNI, with weights of 8 bits."""
    linear = torch.nn.Linear(96, 64, bias=False)
    torch.nn.init.ones_(linear.weight)
    np.testing.assert_allclose(int8_by_runtime(linear, torch.ones(2, 5, 96), tmp_path / "linear.onnx"), 96.0, rtol=1e-5)


def test_in_int8_the_answers_stay_and_what_they_cost_is_told(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path
) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="full", layers=1, **{**QUICK, "max_steps": 40})
    texts, gold = [row["text"] for row in toy_rows], [row["label"] for row in toy_rows]
    int8 = export_onnx(tmp_path / "run", tmp_path / "int8", int8=True, texts=texts, gold=gold)
    assert 0 < int8.largest_difference < 0.5
    assert int8.agreement >= 0.95
    assert int8.accuracy is not None
    assert int8.run_accuracy is not None
    assert abs(int8.accuracy - int8.run_accuracy) <= 0.05


def test_a_large_run_is_compared_in_float32(
    tiny_qwen: Path, toy_file: Path, toy_rows: list[dict[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the machine computes bfloat16, the run answers in it; by rounding alone it would differ from its graph."""
    monkeypatch.setattr(devices, "SMALL_MODEL_PARAMETERS", 0)
    monkeypatch.setattr(devices, "_cpu_computes_bfloat16", lambda: True)
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", tuning="lora", long="truncate", **QUICK)
    result = export_onnx(tmp_path / "run", tmp_path / "onnx", texts=[row["text"] for row in toy_rows])
    assert result.largest_difference < 1e-3
    assert not read_manifest(tmp_path / "run")["calibrated"], "a few dev rows fit no temperature"
    assert not json.loads((tmp_path / "onnx" / TOLD).read_text(encoding="utf-8"))["calibrated"]


def test_what_a_graph_cannot_express_is_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    train(toy_file, model=str(tiny_qwen), out=tmp_path / "run", method="generate", tuning="none", **{**QUICK, "max_length": 200})
    with pytest.raises(ConfigError, match="this run generates"):
        export_onnx(tmp_path / "run", tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()


def test_the_command_asks_what_the_run_was_trained_on(tiny_qwen: Path, toy_rows: list[dict[str, str]], tmp_path: Path) -> None:
    """Its columns, and the names that its ids stand for."""
    names = sorted({row["label"] for row in toy_rows})
    (tmp_path / "class.txt").write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
    rows = [{"title": row["text"], "body": "正文", "kind": names.index(row["label"])} for row in toy_rows]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    options = {"tuning": "frozen", "max_steps": 1, "text_column": "title,body", "label_column": "kind", "device": "cpu", "baseline": False}
    train(data, model=str(tiny_qwen), out=tmp_path / "run", class_file=str(tmp_path / "class.txt"), **options)
    texts, gold = _texts_and_labels(tmp_path / "run", str(data), None, 5)
    assert [text.splitlines() for text in texts] == [[row["text"], "正文"] for row in toy_rows[:5]]
    assert gold == [row["label"] for row in toy_rows[:5]]
