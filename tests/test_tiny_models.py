"""The ground the other tests stand on: no network, and models like those that users have."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
from conftest import NetworkBlockedError
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer

DECODERS = ["tiny_qwen", "tiny_llama"]
EVERY = [*DECODERS, "tiny_bert"]


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("address", [("pypi.org", 443), ("192.0.2.1", 80), ("2001:db8::1", 80)])
def test_the_network_is_blocked(address: tuple[str, int]) -> None:
    with pytest.raises(NetworkBlockedError, match="runs without network"):
        socket.create_connection(address, timeout=1)


def test_this_machine_can_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), timeout=1) as client:
        assert client.getpeername() == server.getsockname()


@pytest.mark.parametrize("folder", EVERY, indirect=True)
def test_a_folder_loads_with_the_auto_classes_and_is_small(folder: Path) -> None:
    model = AutoModel.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert model.config.num_hidden_layers == 2
    assert model.get_input_embeddings().num_embeddings == len(tokenizer)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 500_000


@pytest.mark.parametrize("folder", DECODERS, indirect=True)
def test_a_decoder_s_pad_token_is_not_its_eos_and_not_in_its_config(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id not in (None, tokenizer.eos_token_id, tokenizer.bos_token_id)
    assert AutoConfig.from_pretrained(folder).pad_token_id is None
    assert AutoModelForCausalLM.from_pretrained(folder).get_output_embeddings() is not None


@pytest.mark.parametrize("folder", DECODERS, indirect=True)
def test_a_decoder_s_tokenizer_takes_any_text(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = "球队 wins\t🙂 ñ\u0000 ﷽"
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text


def test_only_llama_puts_a_token_first(tiny_qwen: Path, tiny_llama: Path) -> None:
    qwen, llama = AutoTokenizer.from_pretrained(tiny_qwen), AutoTokenizer.from_pretrained(tiny_llama)
    assert llama.encode("银行") == [llama.bos_token_id, *llama.encode("银行", add_special_tokens=False)]
    assert qwen.bos_token_id is None
    assert qwen.encode("银行") == qwen.encode("银行", add_special_tokens=False)


@pytest.mark.parametrize("_again", range(2))
def test_every_test_starts_from_the_same_seed(_again: int) -> None:
    assert torch.initial_seed() == 0
    torch.manual_seed(1)


def test_the_toy_rows_are_three_even_classes(toy_rows: list[dict[str, str]], toy_file: Path) -> None:
    labels = [row["label"] for row in toy_rows]
    assert labels == ["体育", "财经", "科技"] * 20
    assert len({row["text"] for row in toy_rows}) == 60
    assert len(toy_file.read_text(encoding="utf-8").splitlines()) == 60
