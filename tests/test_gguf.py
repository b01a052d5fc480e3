"""A GGUF file is the model that it was made from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hub_lookalike import Repository, serving
from huggingface_hub import constants as hf_constants
from safetensors import SafetensorError

from fenlei import Classifier, train
from fenlei.artifact import MANIFEST, read_json
from fenlei.errors import ArtifactError, ModelError
from fenlei.export.card import stock_card
from fenlei.models import gguf as our_gguf
from fenlei.models.backbone import load_language_model, load_tokenizer
from fenlei.models.gguf import cache_folder
from fenlei.models.hub import resolve_model

gguf = pytest.importorskip("gguf")

NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}  # fmt: skip
"""Of a layer's weights: in transformers, in GGUF."""


@pytest.fixture
def qwen2(tmp_path: Path, toy_rows: list[dict[str, str]]) -> Path:
    from families import FAMILIES, save_family

    family = next(one for one in FAMILIES if one.name == "Qwen2.5")
    return save_family(family, tmp_path / "stock", [row["text"] for row in toy_rows])


@pytest.fixture
def file(qwen2: Path, tmp_path: Path) -> Path:
    """The same model as a GGUF file, its matrices in 8 bits where their rows have whole blocks."""
    return write_gguf(qwen2, tmp_path / "tiny-q8_0.gguf")


def test_it_has_the_weights_and_tokens_of_the_model_that_it_was_made_from(
    qwen2: Path, file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = resolve_model(str(file))
    assert folder.parent == cache_folder()
    text = "国足热身赛两球取胜 after 3 games"
    ours, theirs = load_tokenizer(folder), load_tokenizer(qwen2)
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
    assert ours.eos_token == theirs.eos_token
    assert ours.chat_template == theirs.chat_template
    ids = torch.tensor([theirs(text)["input_ids"]])
    logits = []
    for one in (folder, qwen2):
        network = load_language_model(one, 0, layers=None, dtype=torch.float32)
        network.set_attn_implementation("eager")
        with torch.inference_mode():
            logits.append(network(ids).logits)
    torch.testing.assert_close(logits[0], logits[1], atol=0.02, rtol=0.02)
    assert not torch.equal(logits[0], logits[1])
    made = (folder / "model.safetensors").stat().st_mtime_ns
    assert resolve_model(str(file)) == folder
    assert (folder / "model.safetensors").stat().st_mtime_ns == made


def test_a_run_trains_on_it_and_loads_though_the_cache_was_emptied(
    file: Path, toy_file: Path, toy_rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    quick: dict[str, Any] = {"max_steps": 2, "batch_size": 8, "device": "cpu", "baseline": False, "tuning": "lora"}
    monkeypatch.chdir(tmp_path.parent)
    train(toy_file, model=str(file.relative_to(tmp_path.parent)), out=tmp_path / "run", **quick)
    texts = [row["text"] for row in toy_rows[:8]]
    before = Classifier.load(tmp_path / "run", device="cpu").predict_proba(texts)
    manifest = read_json(tmp_path / "run" / MANIFEST)
    assert (manifest["base_model"]["local"], manifest["base_model"]["file"]) == (True, str(file))
    assert "base_model:" not in stock_card("library_name: fenlei", manifest), "a file is on no hub"
    (tmp_path / "cache").rename(tmp_path / "emptied")
    monkeypatch.chdir("/")
    np.testing.assert_array_equal(Classifier.load(tmp_path / "run", device="cpu").predict_proba(texts), before)
    moved = file.rename(tmp_path / "moved.gguf")
    (tmp_path / "cache").rename(tmp_path / "emptied again")
    with pytest.raises(ArtifactError, match=r"was in .*tiny-q8_0\.gguf and is there no more.* its new place into base_model\.folder"):
        Classifier.load(tmp_path / "run", device="cpu")
    manifest["base_model"]["folder"] = str(moved)
    (tmp_path / "run" / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    np.testing.assert_array_equal(Classifier.load(tmp_path / "run", device="cpu").predict_proba(texts), before)


def test_files_that_differ_in_the_middle_alone_are_two_models(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(our_gguf, "_convert", lambda file, folder: folder.mkdir())
    folders = set()
    for middle in (b"one", b"two"):
        file = tmp_path / middle.decode() / "model.gguf"
        file.parent.mkdir()
        file.write_bytes(bytes(2 << 20) + middle + bytes(2 << 20))
        folders.add(resolve_model(str(file)))
    assert len(folders) == 2


def test_a_file_that_is_none_says_so_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing more")
    with pytest.raises(ModelError, match="could not be read as a GGUF model"):
        resolve_model(str(tmp_path / "broken.gguf"))
    assert not list(cache_folder().iterdir())


def test_a_full_disk_is_said_with_its_cure_and_leaves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def full(*_: Path) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(our_gguf, "_convert", full)
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(ModelError, match=r"No space left .*XDG_CACHE_HOME names a place with room"):
        resolve_model(str(tmp_path / "model.gguf"))
    assert not list(cache_folder().iterdir())


def test_of_a_hub_the_one_file_of_the_quantisation_asked_for_is_fetched(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with serving() as hub:
        files = {"tiny-Q8_0.gguf": file.read_bytes(), "tiny-Q4_K_M.gguf": b"another", "README.md": b"-"}
        hub.repositories["models/acme/tiny-GGUF"] = Repository(files)
        monkeypatch.setattr(hf_constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_HUB_OFFLINE")
        monkeypatch.setattr(hf_constants, "ENDPOINT", hub.endpoint)
        monkeypatch.setattr(hf_constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}")
        folder = resolve_model("hf:acme/tiny-GGUF:q8_0", cache_dir=tmp_path / "hub")
        assert {name for name, _ in hub.asked} == {"tiny-Q8_0.gguf"}
        assert resolve_model("hf:acme/tiny-GGUF:tiny-Q8_0.gguf", cache_dir=tmp_path / "hub") == folder
        with pytest.raises(ModelError, match=r"Q5_0 of model 'acme/tiny-GGUF' was not found"):
            resolve_model("hf:acme/tiny-GGUF:Q5_0", cache_dir=tmp_path / "hub")
    assert load_tokenizer(folder).eos_token == "<|im_end|>"


def write_gguf(folder: Path, path: Path) -> Path:
    """The Qwen2 of `folder` as llama.cpp's converter writes it."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(str(path), "qwen2")
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    _add_tokenizer(writer, folder)
    for name, weight in load_file(folder / "model.safetensors").items():
        array = weight.float().numpy()
        if array.ndim == 2 and array.shape[1] % 32 == 0:
            packed = gguf.quants.quantize(array, gguf.GGMLQuantizationType.Q8_0)
            writer.add_tensor(_renamed(name), packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        else:
            writer.add_tensor(_renamed(name), array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _renamed(name: str) -> str:
    found = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "lm_head.weight": "output.weight"}
    if name in found:
        return found[name]
    _, _, layer, rest = name.split(".", 3)
    part, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[part]}.{kind}"


def _add_tokenizer(writer: Any, folder: Path) -> None:
    made = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    vocabulary = dict(made["model"]["vocab"])
    control = {token["content"] for token in made["added_tokens"]}
    vocabulary |= {token["content"]: token["id"] for token in made["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if token in control else gguf.TokenType.NORMAL for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in made["model"]["merges"]])
    writer.add_eos_token_id(vocabulary[told["eos_token"]])
    writer.add_pad_token_id(vocabulary[told["pad_token"]])
    writer.add_chat_template(told["chat_template"])
