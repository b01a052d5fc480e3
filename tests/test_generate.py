"""The generate method: every label's log-probability equals that of the label scored alone, however rows and labels are put together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from fenlei.errors import ModelError
from fenlei.inference.scoring import score
from fenlei.labels import LabelSet
from fenlei.models import shared_prefix
from fenlei.models.backbone import load_language_model, load_tokenizer
from fenlei.models.generate import GenerateMethod
from fenlei.text.asking import QuestionEncoder
from fenlei.text.batches import collate
from fenlei.text.instructions import compose
from fenlei.text.tokens import control_ids, plain_ids
from fenlei.training.objectives import answer_loss, label_loss

TEXTS = ["国足取胜", "央行下调利率，市场应声而动", "新", "望远镜拍到遥远星系的第一缕光，论文今日发表", "", "股市"]
LABELS = LabelSet(("体育", "体育彩票", "财经", "财", "科技新闻"))


def build(folder: Path, labels: LabelSet = LABELS, max_length: int = 256) -> tuple[GenerateMethod, QuestionEncoder]:
    tokenizer = load_tokenizer(folder)
    network = load_language_model(folder, int(tokenizer.pad_token_id), layers=None, dtype=torch.float32)
    encoder = QuestionEncoder(tokenizer, compose(tokenizer, None, labels), labels, max_length)
    return GenerateMethod(network, int(tokenizer.pad_token_id)).eval(), encoder


@pytest.fixture(scope="session")
def tiny_gemma(tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Soft caps on attention and logits, and layers that look 12 tokens back."""
    folder = tmp_path_factory.mktemp("tiny_gemma")
    tokenizer = load_tokenizer(tiny_qwen)
    config = Gemma2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, max_position_embeddings=256, sliding_window=12, attn_logit_softcapping=2.0, final_logit_softcapping=3.0,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    network = Gemma2ForCausalLM(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(3.0)  # far enough from zero for the caps to bend something
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(params=["tiny_qwen", "tiny_llama", "tiny_gemma"])
def folder(request: pytest.FixtureRequest) -> Path:
    path: Path = request.getfixturevalue(request.param)
    return path


@pytest.fixture(params=["matrix products", "fused", "in chunks"], autouse=True)
def attention(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every property holds for short rows, for long ones, and where scores are computed in chunks."""
    monkeypatch.setattr(shared_prefix, "LONG_ROWS", 1 if request.param == "fused" else 10_000)
    monkeypatch.setattr(shared_prefix, "CHUNK_SCORES", 20_000 if request.param == "in chunks" else 1 << 25)


@torch.inference_mode()
def one_by_one(folder: Path, encoder: QuestionEncoder, texts: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """Each label of each text by a plain forward pass of the stock model over prompt, text and answer."""
    tokenizer = load_tokenizer(folder)
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    before, _, after = encoder.instruction.around(tokenizer, labels)
    answers = dict(zip(labels, plain_ids(tokenizer, list(labels)), strict=True))
    found = np.zeros((len(texts), len(labels)), dtype=np.float32)
    for row, text in enumerate(texts):
        for column, (name, answer) in enumerate(answers.items()):
            goes_on = any(other != name and its[: len(answer)] == answer for other, its in answers.items())
            scored = answer + (control_ids(tokenizer, encoder.instruction.terminator) if goes_on else [])
            prompt = before + (plain_ids(tokenizer, [text])[0] + after or [tokenizer.eos_token_id])
            log_p = network(torch.tensor([prompt + scored])).logits[0].float().log_softmax(-1)
            found[row, column] = sum(float(log_p[len(prompt) - 1 + at, token]) for at, token in enumerate(scored))
    return found


def test_every_label_scores_as_it_does_alone(folder: Path) -> None:
    method, encoder = build(folder)
    together = score(method, encoder.encode(TEXTS), len(LABELS)).logits
    np.testing.assert_allclose(together, one_by_one(folder, encoder, TEXTS, LABELS.names), atol=2e-5)
    assert together.dtype == np.float32


def test_a_model_of_texts_and_images_scores_texts_by_the_part_that_reads_them(composite: Path) -> None:
    """Its other part, which looks both ways, is never asked."""
    method, encoder = build(composite)
    encoded, expected = encoder.encode(TEXTS), one_by_one(composite, encoder, TEXTS, LABELS.names)
    np.testing.assert_allclose(score(method, encoded, len(LABELS)).logits, expected, atol=2e-5)
    method.in_step = True  # no prefix is kept: it stands in the sequence, as in training
    np.testing.assert_allclose(score(method, encoded, len(LABELS)).logits, expected, atol=2e-5)


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text("体育财经a新", min_size=1, max_size=6), min_size=1, max_size=7, unique=True))
def test_random_label_sets_score_as_alone(tiny_qwen: Path, names: list[str]) -> None:
    labels = LabelSet(tuple(names))
    method, encoder = build(tiny_qwen, labels)
    together = score(method, encoder.encode(TEXTS[:3]), len(labels)).logits
    np.testing.assert_allclose(together, one_by_one(tiny_qwen, encoder, TEXTS[:3], names), atol=2e-5)


def test_a_row_does_not_depend_on_the_rows_beside_it(folder: Path) -> None:
    method, encoder = build(folder)
    together = score(method, encoder.encode(TEXTS), len(LABELS)).logits
    alone = np.concatenate([score(method, encoder.encode([text]), len(LABELS)).logits for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    order = [3, 0, 5, 4, 2, 1]
    shuffled = score(method, encoder.encode([TEXTS[at] for at in order]), len(LABELS), batch_tokens=60).logits
    np.testing.assert_allclose(shuffled, together[order], atol=1e-5)


def test_each_row_its_own_candidates(folder: Path) -> None:
    method, encoder = build(folder)
    given_labels = [["财经", "体育"], None, ["体育彩票", "体育"], ["财经", "体育"], ["财"], None]
    mixed = score(method, encoder.encode(TEXTS, given_labels), len(LABELS)).logits
    for row, (text, candidates) in enumerate(zip(TEXTS, given_labels, strict=True)):
        names = candidates or list(LABELS)
        expected = np.full(len(LABELS), -np.inf, dtype=np.float32)
        expected[LABELS.ids(names)] = one_by_one(folder, encoder, [text], names)[0]
        np.testing.assert_allclose(mixed[row], expected, atol=2e-5)


def test_the_prefix_is_read_once_a_label_set_and_again_when_weights_move(tiny_qwen: Path) -> None:
    method, encoder = build(tiny_qwen)
    read: list[int] = []
    method.stock.model.embed_tokens.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].numel()))
    encoded = encoder.encode(TEXTS)
    before = len(encoder.question().before)
    first = score(method, encoded, len(LABELS)).logits
    second = score(method, encoded, len(LABELS), batch_tokens=40).logits
    assert sum(read) == before + 2 * len(encoded.ids), "the prefix once, every text once each time, shared label beginnings once"
    np.testing.assert_allclose(first, second, atol=1e-5)
    with torch.no_grad():
        method.stock.model.layers[0].self_attn.v_proj.weight.mul_(1.5)
    moved = score(method.train().eval(), encoded, len(LABELS)).logits
    assert np.abs(moved - first).max() > 1e-3
    stock = score(build(tiny_qwen)[0], encoded, len(LABELS)).logits
    np.testing.assert_allclose(first, stock, atol=1e-6)


def loss_of(method: GenerateMethod, encoder: QuestionEncoder, gold: torch.Tensor, groups: Sequence[Sequence[int]]) -> torch.Tensor:
    encoded = encoder.encode(TEXTS)
    total = torch.zeros(())
    for rows in groups:
        logits = method(collate(encoded, rows, method.pad_id)).logits
        total = total + torch.nn.functional.cross_entropy(logits, gold[list(rows)], reduction="sum")
    return total


def test_gradients_through_the_shared_prefix_are_those_of_rows_alone(folder: Path) -> None:
    method, encoder = build(folder)
    gold = torch.tensor([0, 2, 3, 4, 1, 2])
    gradients = []
    for groups in ([range(6)], [[row] for row in range(6)]):
        method.zero_grad()
        loss = loss_of(method.train(), encoder, gold, groups)
        loss.backward()
        gradients.append({name: p.grad.clone() for name, p in method.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradient, gradients[1][name], atol=2e-5, err_msg=name)


def test_gradients_are_those_of_the_stock_model(folder: Path) -> None:
    """One row, one label of one answer with its end: the loss of instruction tuning as transformers computes it."""
    method, encoder = build(folder)
    tokenizer = load_tokenizer(folder)
    encoded = encoder.encode_answers(["国足取胜"], ["体育彩票"])
    (-method.train()(collate(encoded, [0], method.pad_id)).logits[0, 1]).backward()
    network = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    before, _, after = encoder.instruction.around(tokenizer, LABELS.names)
    prompt = before + plain_ids(tokenizer, ["国足取胜"])[0] + after
    answer = plain_ids(tokenizer, ["体育彩票"])[0] + control_ids(tokenizer, encoder.instruction.terminator)
    ids = torch.tensor([prompt + answer])
    targets = torch.tensor([[-100] * len(prompt) + answer])
    (network(ids, labels=targets).loss * len(answer)).backward()
    ours = dict(method.stock.named_parameters())
    for name, parameter in network.named_parameters():
        np.testing.assert_allclose(ours[name].grad, parameter.grad, atol=5e-5, err_msg=name)


@pytest.mark.parametrize("attention", ["matrix products"], indirect=True)  # of the others, gradients are compared above
@pytest.mark.parametrize("objective", ["labels", "tokens"])
def test_it_learns_four_rows_by_heart(objective: str, tiny_qwen: Path) -> None:
    method, encoder = build(tiny_qwen)
    texts, gold = TEXTS[:4], torch.tensor([0, 2, 1, 4])
    answers = [LABELS.name(one) for one in gold.tolist()]
    encoded = encoder.encode(texts) if objective == "labels" else encoder.encode_answers(texts, answers)
    loss_function = label_loss if objective == "labels" else answer_loss
    optimizer = torch.optim.AdamW(method.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        loss = loss_function(method.train()(collate(encoded, range(4), method.pad_id)).logits, gold)
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1
    logits = score(method.eval(), encoder.encode(texts), len(LABELS)).logits
    np.testing.assert_array_equal(logits.argmax(axis=1), gold)


@pytest.mark.parametrize("names", [LABELS.names, ("a", "b")], ids=["a tree", "single tokens"])
def test_an_empty_text_at_the_end_of_the_prompt_is_read_as_eos(tiny_qwen: Path, names: tuple[str, ...]) -> None:
    """Own words without a chat template put nothing behind the text: without a token of its own a row had none to answer after."""
    labels, tokenizer = LabelSet(names), load_tokenizer(tiny_qwen)
    tokenizer.chat_template = None
    method, _ = build(tiny_qwen, labels)
    encoder = QuestionEncoder(tokenizer, compose(tokenizer, "标签：{labels}\n{text}", names), labels, 256)
    together = score(method, encoder.encode(["", TEXTS[0]]), len(labels)).logits
    np.testing.assert_allclose(together, one_by_one(tiny_qwen, encoder, ["", TEXTS[0]], names), atol=2e-5)
    with torch.no_grad():
        prior = method._prior(encoder.question()).numpy()
    np.testing.assert_allclose(prior, together[0], atol=1e-5)


@pytest.mark.parametrize("attention", ["matrix products"], indirect=True)
def test_what_cannot_be_scored_is_refused(tiny_bert: Path) -> None:
    with pytest.raises(ModelError, match="bert is no decoder, which the generate method cannot score with; use --method head"):
        build(tiny_bert)
