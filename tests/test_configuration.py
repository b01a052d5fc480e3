"""Which models are not taken for what their config.json says, and that they are told before anything is read or loaded."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from fenlei import Classifier, train
from fenlei.errors import ModelError
from fenlei.labels import LabelSet
from fenlei.models.backbone import load_network, load_tokenizer
from fenlei.models.configuration import READ_PADDING, TURNED_BACK, load_config

GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}


def quantised(base: Path, folder: Path, told: dict[str, Any]) -> Path:
    """The model of `base` once more, its config.json saying that its weights are quantised."""
    shutil.copytree(base, folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": told}), encoding="utf-8")
    return folder


@pytest.mark.parametrize("kind", READ_PADDING)
def test_encoders_that_read_the_padding_beside_a_text_are_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}), encoding="utf-8")
    with pytest.raises(ModelError, match=f"{kind} reads the padding beside a text, and would answer by the rows beside it"):
        load_config(tmp_path)


def test_weights_that_are_quantised_already_are_refused(tiny_qwen: Path, toy_file: Path, tmp_path: Path) -> None:
    base = quantised(tiny_qwen, tmp_path / "base", GPTQ)
    with pytest.raises(ModelError, match=r"quantised already \(gptq\), in which fenlei neither trains nor predicts; .* --tuning qlora"):
        train(toy_file, model=str(base), out=tmp_path / "run", device="cpu", baseline=False)
    with pytest.raises(ModelError, match="quantised already"):
        Classifier.zero_shot(str(base), ["财经", "体育"], device="cpu")


@pytest.mark.parametrize("method", TURNED_BACK)
def test_formats_that_can_be_turned_back_are_on_every_device(method: str, tiny_qwen: Path, tmp_path: Path) -> None:
    """By itself transformers keeps them where a GPU computes in them, and nothing learns there."""
    assert load_config(quantised(tiny_qwen, tmp_path / "base", {"quant_method": method})).quantization_config["dequantize"] is True


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="bitsandbytes is here")
def test_a_base_in_4_bits_says_which_package_it_needs(tiny_qwen: Path, tmp_path: Path) -> None:
    base = quantised(tiny_qwen, tmp_path / "base", {"quant_method": "bitsandbytes", "load_in_4bit": True})
    with pytest.raises(ModelError, match=r"could not be loaded as a classifier .*bitsandbytes"):
        load_network(base, LabelSet(("a", "b")), 1, layers=None, dtype=torch.float32)


def test_code_that_a_model_brings_along_is_never_run(tmp_path: Path) -> None:
    told: dict[str, Any] = {"model_type": "baichuan", "auto_map": {"AutoConfig": "configuration_baichuan.BaichuanConfig"}}
    (tmp_path / "config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ModelError, match=r"needs code of its own \(trust_remote_code\), which fenlei never runs"):
        load_config(tmp_path)
    told = {"tokenizer_class": "BaichuanTokenizer", "auto_map": {"AutoTokenizer": ["tokenization_baichuan.BaichuanTokenizer", None]}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told), encoding="utf-8")
    with pytest.raises(ModelError, match="which fenlei never runs") as caught:
        load_tokenizer(tmp_path)
    assert "needs its tokenizer files" not in str(caught.value)
