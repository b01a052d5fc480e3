"""The prompt of the generate method: rendered once, kept whole at every length, and never written by the text inside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from endless import ENDLESS
from transformers import PreTrainedTokenizerBase

from fenlei.data.label_file import read_label_file
from fenlei.errors import ConfigError, DataError
from fenlei.labels import LabelNote, LabelSet
from fenlei.models.backbone import load_tokenizer
from fenlei.text.answers import answer_tree, check_distinct
from fenlei.text.asking import QuestionEncoder
from fenlei.text.instructions import Instruction, compose, label_list
from fenlei.text.tokens import control_tokens, plain_ids

LABELS = LabelSet(("体育", "体育彩票", "财经"))
TEXT = "央行下调存款准备金率，市场应声而动"

QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}"
    "<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
DEEPSEEK = (
    "<|begin|>{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>{{ m['content'] }}"
    "{% else %}<|im_end|>{{ m['content'].split('</think>')[-1] }}<|endoftext|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_end|><think>\n{% endif %}"
)
LLAMA = (
    "<|begin|>{% for m in messages %}<|im_start|>{{ m['role'] }}\n\n{{ m['content'] | trim }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}"
)
GEMMA = (
    "<|begin|>{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    "<|im_start|>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n{{ m['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}"
)


@pytest.fixture
def tokenizer(tiny_llama: Path) -> PreTrainedTokenizerBase:
    return load_tokenizer(tiny_llama)


def rendered(tokenizer: PreTrainedTokenizerBase, encoder: QuestionEncoder, row: Any, question: Any) -> str:
    return str(tokenizer.decode([*question.before, *row.tolist()[: len(row) - len(question.tree.tokens)]]))


@pytest.mark.parametrize(
    ("template", "ends", "terminator"),
    [
        (QWEN3, "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n", "<|im_end|>"),
        (DEEPSEEK, "<|im_end|><think>\n\n</think>\n\n", "<|endoftext|>"),
        (LLAMA, "<|im_end|><|im_start|>assistant\n\n", "<|im_end|>"),
        (GEMMA, "<|im_end|>\n<|im_start|>model\n", "<|im_end|>"),
        (None, "\n类别：", "\n"),
    ],
    ids=["qwen3", "deepseek", "llama", "gemma", "base"],
)
def test_the_tokenizers_own_template_is_used(tokenizer: PreTrainedTokenizerBase, template: str | None, ends: str, terminator: str) -> None:
    tokenizer.chat_template = template
    instruction = compose(tokenizer, None, LABELS.names)
    encoder = QuestionEncoder(tokenizer, instruction, LABELS, 500)
    question = encoder.question()
    whole = rendered(tokenizer, encoder, encoder.encode([TEXT])[0], question)
    assert whole.endswith(f"文本：{TEXT}{ends}")
    assert whole.index("体育、体育彩票、财经") < whole.index(TEXT)
    assert instruction.terminator == terminator
    assert whole.startswith("<|begin|>") == (template is not QWEN3)
    stored = Instruction.from_json(instruction.template, json.loads(json.dumps(instruction.to_json())))
    tokenizer.chat_template = "another {{ messages }}"
    again = QuestionEncoder(tokenizer, stored, LABELS, 500)
    assert again.question() == question, "what is stored does not depend on the chat template any more"


def test_a_chat_template_that_shows_the_date_gives_the_same_prompt_every_day(tokenizer: PreTrainedTokenizerBase) -> None:
    asks = "{% if strftime_now is defined %}{% set day = strftime_now('%d %b %Y') %}{% endif %}Today Date: {{ day }}\n"
    tokenizer.chat_template = asks + LLAMA
    assert compose(tokenizer, None, LABELS.names).template.startswith("Today Date: 26 Jul 2024\n<|begin|>")


def test_examples_come_as_turns_and_as_lines(tokenizer: PreTrainedTokenizerBase) -> None:
    shots = [("足球", "体育"), ("股票<|im_end|>", "财经")]
    chat = QuestionEncoder(tokenizer, compose(tokenizer, None, LABELS.names, None, shots), LABELS, 500)
    whole = rendered(tokenizer, chat, chat.encode([TEXT])[0], chat.question())
    turns = ["文本：足球<|im_end|>", "体育<|im_end|>", "文本：股票<|im_end|><|im_end|>", "财经<|im_end|>", f"文本：{TEXT}<|im_end|>"]
    assert [whole.find(turn) for turn in turns] == sorted(whole.find(turn) for turn in turns)
    assert whole.find(turns[0]) > 0
    ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert list(chat.question().before).count(ends) == 4, "that of an example's own text is no control token"
    tokenizer.chat_template = None
    plain = QuestionEncoder(tokenizer, compose(tokenizer, "en", LABELS.names, None, shots[:1]), LABELS, 500)
    whole = rendered(tokenizer, plain, plain.encode([TEXT])[0], plain.question())
    assert whole.endswith(f"\n\nText: 足球\nCategory: 体育\n\nText: {TEXT}\nCategory:"), "the last blank belongs to the answer"
    assert tokenizer.decode([plain.question().tree.step_tokens[0]]).startswith(" ")


@pytest.mark.parametrize("spelt", ["<|im_end|>", "<|endoftext|>", "<|im_start|>assistant", "<|im_<|im_end|>end|>", "<think>x</think>"])
def test_text_that_spells_a_control_token_stays_text(tokenizer: PreTrainedTokenizerBase, spelt: str) -> None:
    tokenizer.add_tokens(["<think>", "</think>"], special_tokens=False)  # as Qwen3 has them: added, but not special
    text = f"前{spelt}后{spelt}"
    ids = plain_ids(tokenizer, ["足球", text])[1]
    assert tokenizer.decode(ids) == text
    assert control_tokens(tokenizer).keys().isdisjoint(ids)
    encoder = QuestionEncoder(tokenizer, compose(tokenizer, None, LABELS.names), LABELS, 500)
    clean, dirty = (encoder.encode([one])[0].tolist() for one in (TEXT, text))
    ends = tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert clean.count(ends) == dirty.count(ends)


def test_control_tokens_are_listed_once_a_tokenizer(tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some have thousands: to list them for every list of labels and every few texts took longer than all else."""
    listed: list[Any] = []
    whole = type(tokenizer).get_added_vocab
    monkeypatch.setattr(type(tokenizer), "get_added_vocab", lambda self: (listed.append(self), whole(self))[1])
    encoder = QuestionEncoder(tokenizer, compose(tokenizer, None, LABELS.names), LABELS, 500)
    encoder.encode([TEXT, TEXT], [["财经", "体育"], ["体育", "财经"]])
    encoder.with_labels(LabelSet(("天气", "体育"))).encode([TEXT])
    assert listed == [tokenizer]


def test_labels_may_spell_control_tokens_too(tokenizer: PreTrainedTokenizerBase) -> None:
    labels = LabelSet(("<|im_end|>", "财经"))
    encoder = QuestionEncoder(tokenizer, compose(tokenizer, None, labels.names), labels, 500)
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") not in encoder.question().tree.step_tokens


@pytest.mark.parametrize("over", [-1, 0, 1])
def test_only_the_text_is_shortened(tokenizer: PreTrainedTokenizerBase, over: int) -> None:
    ids = plain_ids(tokenizer, [TEXT])[0]
    instruction = compose(tokenizer, None, LABELS.names)
    roomy = QuestionEncoder(tokenizer, instruction, LABELS, 500).question()
    longest = max(len(one) for one in plain_ids(tokenizer, LABELS.names))
    needed = len(roomy.before) + len(ids) + len(roomy.after) + longest + 1
    encoder = QuestionEncoder(tokenizer, instruction, LABELS, needed - over)
    encoded = encoder.encode([TEXT])
    question = encoder.question()
    assert encoded.tokens_cut.tolist() == [max(0, over)]
    assert encoded[0].tolist() == [*ids[: len(ids) - max(0, over)], *question.after, *question.tree.tokens]
    assert (question.before, question.after, question.tree) == (roomy.before, roomy.after, roomy.tree)
    answer = encoder.encode_answers([TEXT], ["体育彩票"])
    path = answer.questions[0].tree
    assert answer.tokens_cut.tolist() == [max(0, over)]
    assert path.step_tokens[-1] == tokenizer.convert_tokens_to_ids("<|im_end|>"), "the terminator is learnt, and never cut"
    assert len(question.before) + len(answer[0]) + 1 <= needed - over


def test_no_room_for_the_text_is_said(tokenizer: PreTrainedTokenizerBase) -> None:
    instruction = compose(tokenizer, None, LABELS.names)
    question = QuestionEncoder(tokenizer, instruction, LABELS, 500).question()
    taken = 500 - question.room
    assert QuestionEncoder(tokenizer, instruction, LABELS, taken + 1).question().room == 1
    with pytest.raises(ConfigError, match=f"max_length {taken} leaves no room for the text: the instruction with its 3 labels"):
        QuestionEncoder(tokenizer, instruction, LABELS, taken).question()
    shown = compose(tokenizer, None, LABELS.names, None, [("足球" * 50, "体育"), ("股票", "财经")])
    with pytest.raises(ConfigError, match=r"with its 3 labels, 2 examples and the answer take .* give fewer shots or labels"):
        QuestionEncoder(tokenizer, shown, LABELS, taken + 1).question()


def test_the_end_is_scored_where_a_label_goes_on_and_nowhere_else() -> None:
    tree = answer_tree([[1, 2], [1, 2, 3], [4]], end=[9])
    assert tree.tokens == (1, 2), "4 is followed by nothing, 1 and 2 are read once"
    assert [[tree.step_tokens[step] for step in path] for path in tree.paths] == [[1, 2, 9], [1, 2, 3], [4]]
    assert tree.depths == (0, 1)
    assert tree.ancestry.tolist() == [[True, False], [True, True]]


def test_labels_that_cannot_be_told_apart_are_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    with pytest.raises(ConfigError, match="label ' ' has no tokens"):
        check_distinct(["a", " "], [[1], []])
    with pytest.raises(ConfigError, match="labels 'A' and 'a' are the same 2 tokens"):
        check_distinct(["A", "a"], [[1, 2], [1, 2]])


def test_a_chat_template_that_loses_what_is_said_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    tokenizer.chat_template = "{{ messages[0]['role'] }}"
    with pytest.raises(ConfigError, match="does not keep what is said to it"):
        compose(tokenizer, None, LABELS.names)


def test_label_notes_are_part_of_the_list(tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text("labels:\n  体育: {description: 比赛和球队, aliases: [运动, 赛事]}\n  财经: 股市与银行\n  其他:\n", encoding="utf-8")
    notes = read_label_file(path)
    assert notes == {"体育": LabelNote("比赛和球队", ("运动", "赛事")), "财经": LabelNote("股市与银行"), "其他": LabelNote()}
    shown = label_list(list(notes), notes, chinese=True)
    assert shown == "\n- 体育：比赛和球队 (又称运动、赛事)\n- 财经：股市与银行\n- 其他"
    assert label_list(["体育", "财经"], {}, chinese=False) == "体育, 财经"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 体育\n", "at least two of them"),
        ("- 体育\n- {name: 财经, note: x}\n", "entry 2: .* found 'note'"),
        ("- 体育\n- 体育\n", "entry 2: class '体育' comes twice"),
        ("- 体育\n- {description: x}\n", "entry 2: the name is missing"),
        ("- yes\n- 体育\n", "entry 1: expected name to be a text, found True; put it in quotes"),
        ("- [体育\n", "not readable as YAML"),
        ("- {name: a, aliases: {b: c}}\n- b\n", "entry 1: expected aliases as a list"),
        (f"- {'[' * 2000}\n- b\n", "not readable as YAML"),
        ("- 2024-02-30\n- b\n", "not readable as YAML"),
        ("- !!timestamp x\n- b\n", "not readable as YAML"),
        (f"- [{ENDLESS}]\n- b\n", "entry 1: expected name to be a text"),
    ],
)
def test_a_label_file_that_does_not_fit_is_named(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=f"labels.yaml.*{message}"):
        read_label_file(path)
