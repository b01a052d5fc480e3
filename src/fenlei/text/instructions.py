"""The prompt of the generate method: the instruction and its labels first, the text last, in the tokenizer's own chat template.

It is rendered once, when a run is trained or a zero-shot classifier made, into a template with slots. That template is what is stored, so
that training, evaluation, prediction and service fill the same one, and a chat template that changes changes nothing; one that shows
today's date shows another day's, always the same. What fills a slot is tokenised as plain text; only the template's own words may be
control tokens.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from fenlei.errors import ConfigError
from fenlei.labels import LabelNote
from fenlei.text.pair_encoder import pair_template
from fenlei.text.tokens import control_ids, control_tokens, plain_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

INSTRUCTIONS = {
    "zh": "请判断下面文本的类别，只回答类别名称。\n类别：{labels}\n\n文本：{text}",
    "en": "Decide which category the text belongs to. Answer with the name of the category alone.\nCategories: {labels}\n\nText: {text}",
}
"""By language; a user's own has {text}, and {labels} before it where the model is to be told them."""

QUESTIONS = {
    "zh": "请判断下面文本属于哪些类别，可以是多个，也可以没有。逐个写出类别，后面回答“是”或“否”。\n类别：{labels}\n\n文本：{text}",
    "en": "Decide which of the categories the text belongs to: several, one or none. Write each category with yes or no behind it.\n"
    "Categories: {labels}\n\nText: {text}",
}
"""Multi-label."""

YES_NO = {"zh": ("：是", "：否"), "en": (": yes", ": no")}
"""What stands behind a label that a text has, and behind one that it has not."""

ANSWER_LINES = {"zh": "\n类别：", "en": "\nCategory: "}
"""What asks for the answer where a tokenizer has no chat template."""

_TODAY = re.compile(r"strftime_now\([^()]*\)")
_A_DAY = '"26 Jul 2024"'
"""What chat templates show in place of today's date, which would make another prompt every day: that which Llama's fall back on."""
_SLOT = re.compile(r"\{(labels|text|pair|example_\d+|answer_\d+)\}")
_CHINESE = re.compile("[\u4e00-\u9fff]")
_NO_CHINESE = re.compile("[\u3040-\u30ff\uac00-\ud7af]")
"""Kana and hangul: where they stand among them, Chinese characters are Japanese or Korean."""
_ANSWER = "{answer_0}"


@dataclass(frozen=True)
class Instruction:
    """A prompt, rendered: what a run stores of it."""

    template: str
    """With the slots {labels} and {text}, for pairs {pair} behind it, and {example_1}, {answer_1}, ... for examples."""
    terminator: str
    """What ends an answer."""
    examples: tuple[tuple[str, str], ...] = ()
    """Texts with their labels, shown to the model before the text."""
    notes: Mapping[str, LabelNote] = field(default_factory=dict)
    """What is known of labels besides their names."""
    yes_no: tuple[str, str] | None = None
    """Multi-label: what stands behind a label that a text has, and behind one that it has not; None where one label is the answer."""

    def to_json(self) -> dict[str, Any]:
        """All but the template, which a run stores as its prompt."""
        notes = {name: {"description": note.description, "aliases": list(note.aliases)} for name, note in self.notes.items()}
        return {"terminator": self.terminator, "examples": [list(one) for one in self.examples], "notes": notes, "yes_no": self.yes_no}

    @classmethod
    def from_json(cls, template: str, stored: Mapping[str, Any]) -> Instruction:
        notes = {name: LabelNote(note["description"], tuple(note["aliases"])) for name, note in stored["notes"].items()}
        yes_no = stored.get("yes_no")
        examples = tuple((text, label) for text, label in stored["examples"])
        return cls(template, stored["terminator"], examples, notes, None if yes_no is None else (yes_no[0], yes_no[1]))

    def with_notes(self, notes: Mapping[str, LabelNote]) -> Instruction:
        """It, saying of labels what `notes` do; a name alone changes nothing."""
        told = {name: note for name, note in notes.items() if note.description or note.aliases}
        return replace(self, notes={**self.notes, **told})

    def retold(self, other: Instruction) -> frozenset[str]:
        """The labels that `other` says something else of."""
        return frozenset(name for name, note in other.notes.items() if note != self.notes.get(name))

    @property
    def leading_space(self) -> str:
        """A blank at the template's end belongs to the answer: `Category: ` and `finance` are read as `Category:` and ` finance`."""
        return " " if self.template.endswith(" ") else ""

    def around(self, tokenizer: PreTrainedTokenizerBase, labels: Sequence[str]) -> tuple[list[int], list[int], list[int]]:
        """Token ids before the text, between it and the second of a pair (none for a single text), and after, for a list of labels."""
        parts: list[list[int]] = [[]]
        for slot, content in self._parts(labels):
            ids = parts[-1]
            if slot in ("text", "pair"):
                parts.append([])
            elif slot:
                ids += plain_ids(tokenizer, [content])[0]
            else:
                ids += control_ids(tokenizer, content)
        return parts[0], parts[1] if len(parts) > 2 else [], parts[-1]

    def _parts(self, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
        """(slot, what fills it), and ("", markup) between them."""
        template = self.template.removesuffix(" ")
        at = 0
        for found in _SLOT.finditer(template):
            kind, _, number = found[1].partition("_")
            markup = template[at : found.start()]
            yield "", markup.removesuffix(self.leading_space) if kind == "answer" else markup
            if kind == "labels":
                yield kind, label_list(labels, self.notes, chinese=_language(template) == "zh")
            elif kind in ("text", "pair"):
                yield kind, ""
            elif kind == "example":
                yield kind, self.examples[int(number) - 1][0]
            else:
                yield kind, self.leading_space + self.examples[int(number) - 1][1]
            at = found.end()
        yield "", template[at:]


def compose(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str | None,
    labels: Sequence[str],
    notes: Mapping[str, LabelNote] | None = None,
    examples: Sequence[tuple[str, str]] = (),
    *,
    multi_label: bool = False,
    pairs: bool = False,
) -> Instruction:
    """`prompt` (`zh`, `en`, a template, or None for the labels' own language) in the chat template of `tokenizer`, if it has one.

    With `pairs` the second text stands where the template has {pair}, else on the line below the first.
    """
    if multi_label and examples:
        raise ConfigError("examples in the prompt (shots) have one label each; leave them out for multi-label")
    language = prompt if prompt in INSTRUCTIONS else _language(prompt or "".join(labels))
    content = (QUESTIONS if multi_label else INSTRUCTIONS).get(prompt or language, prompt or "")
    _check_slots(content)
    content = pair_template(content) if pairs else content
    if tokenizer.chat_template:
        template, terminator = _as_chat(tokenizer, content, len(examples))
    else:
        own = prompt is not None and prompt not in INSTRUCTIONS
        answer_line = "\n" if multi_label else ANSWER_LINES[language]
        template, terminator = _as_plain(tokenizer, content, "" if own else answer_line, len(examples))
    return Instruction(template, terminator, tuple(examples), dict(notes or {}), YES_NO[language] if multi_label else None)


def label_list(labels: Sequence[str], notes: Mapping[str, LabelNote], *, chinese: bool) -> str:
    """The names in a row; one a line where any of them has a description or aliases."""
    if not any(name in notes and (notes[name].description or notes[name].aliases) for name in labels):
        return ("、" if chinese else ", ").join(labels)
    colon, comma, also = ("：", "、", "又称") if chinese else (": ", ", ", "also ")
    lines = []
    for name in labels:
        note = notes.get(name, LabelNote())
        aliases = f"({also}{comma.join(note.aliases)})" if note.aliases else ""
        said = " ".join(part for part in (note.description, aliases) if part)
        lines.append(f"- {name}{colon}{said}" if said else f"- {name}")
    return "\n" + "\n".join(lines)


def _language(text: str) -> str:
    """`zh`, or `en` for every language that there is no instruction in."""
    return "zh" if _CHINESE.search(text) and not _NO_CHINESE.search(text) else "en"


def _check_slots(content: str) -> None:
    if content.count("{text}") != 1 or content.count("{labels}") > 1 or content.find("{labels}") > content.find("{text}"):
        raise ConfigError(
            f"prompt must contain {{text}} once, and {{labels}} at most once and before it, so that all rows share what is before the "
            f"text; was {content!r}"
        )
    own = next((found[0] for found in _SLOT.finditer(content) if found[1].startswith(("example", "answer"))), None)
    if own is not None:
        raise ConfigError(f"prompt has a place {own}, which fenlei fills by itself (shots); it may have {{text}}, {{labels}} and {{pair}}")


def _turns(content: str, examples: int) -> list[dict[str, str]]:
    """The instruction with the first example, its answer, and so on; the last turn holds the text. Later turns repeat the text's line."""
    line = content[content.rfind("\n", 0, content.index("{text}")) + 1 :]
    turns = []
    for number in range(1, examples + 1):
        shown = (content if number == 1 else line).replace("{text}", f"{{example_{number}}}")
        turns += [{"role": "user", "content": shown}, {"role": "assistant", "content": f"{{answer_{number}}}"}]
    return [*turns, {"role": "user", "content": line if examples else content}]


def _as_chat(tokenizer: PreTrainedTokenizerBase, content: str, examples: int) -> tuple[str, str]:
    turns = _turns(content, examples)
    asked: dict[str, Any] = {"tokenize": False, "enable_thinking": False}
    asked["chat_template"] = _TODAY.sub(_A_DAY, tokenizer.get_chat_template())
    template = str(tokenizer.apply_chat_template(turns, add_generation_prompt=True, **asked))
    if template.rstrip().endswith("<think>"):  # DeepSeek's distills begin to think whatever is asked: the thought is closed, empty
        template = template.rstrip() + "\n\n</think>\n\n"
    answered = str(tokenizer.apply_chat_template([*turns, {"role": "assistant", "content": _ANSWER}], **asked))
    if answered.startswith(f"{template} {_ANSWER}"):  # Mistral, DeepSeek-V2: the blank that they write before an answer is part of it
        template += " "
    missing = [slot for turn in turns for slot in _SLOT.findall(turn["content"]) if template.count(f"{{{slot}}}") != 1]
    if missing or _ANSWER not in answered:
        raise ConfigError(
            f"the model's chat template does not keep what is said to it: {{{(missing or ['answer'])[0]}}} is lost or doubled; "
            "remove chat_template from the tokenizer's files to have the labels asked for in plain text"
        )
    return template, _terminator(tokenizer, answered.rpartition(_ANSWER)[2])


def _as_plain(tokenizer: PreTrainedTokenizerBase, content: str, answer_line: str, examples: int) -> tuple[str, str]:
    """Base models: the same words without turns, after the tokenizer's own first token (bos) if it sets one."""
    turns = [turn["content"] for turn in _turns(content, examples)]
    asked = [f"{turn}{answer_line}" if place % 2 == 0 else f"{turn}\n\n" for place, turn in enumerate(turns)]
    probe: list[int] = tokenizer("a")["input_ids"]
    begins = tokenizer.bos_token if tokenizer.bos_token_id is not None and probe[:1] == [tokenizer.bos_token_id] else ""
    return f"{begins}{''.join(asked)}", "\n"


def _terminator(tokenizer: PreTrainedTokenizerBase, rest: str) -> str:
    """The control token that the chat template writes after an answer; else eos."""
    places = {rest.find(spelt): spelt for spelt in control_tokens(tokenizer).values() if spelt in rest}
    if places:
        return places[min(places)]
    if tokenizer.eos_token is None:
        raise ConfigError("the tokenizer has no token that ends an answer; add an eos_token to its tokenizer_config.json")
    return str(tokenizer.eos_token)
