"""Texts to token ids for the generate method: the prompt before them kept apart, the tree of answers after them.

Only the text is ever shortened, or read in windows, to what the prompt, its labels, the longest answer and the answer's end leave of
`max_length`; of a pair the longer text first.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from fenlei.config import Long
from fenlei.errors import ConfigError, RequestError
from fenlei.labels import LabelNote, LabelSet
from fenlei.text.answers import answer_path, answer_tree, check_distinct, yes_no_tree
from fenlei.text.encoded import EncodedTexts, Question
from fenlei.text.instructions import Instruction
from fenlei.text.pair_encoder import LEAST_ROOM, paired_ids
from fenlei.text.pairs import Pair, Text, check_texts, is_unicode
from fenlei.text.prompts import chunks, shortened, shortened_pair, stand_in
from fenlei.text.tokens import control_ids, plain_ids
from fenlei.text.windows import WINDOWED, encode_in_windows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

KEPT_QUESTIONS = 4096
"""Different lists of candidates that are remembered: a service may be asked with a new one every time."""

Candidates = Sequence[Sequence[str] | None]
"""For each text the labels it may be answered with; None: all."""


class QuestionEncoder:
    """Texts to token ids under one instruction, one label set and one length limit."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, instruction: Instruction, labels: LabelSet, max_length: int, long: Long = "truncate"
    ) -> None:
        self._tokenizer = tokenizer
        self.instruction = instruction
        self.labels = labels
        self.max_length = max_length
        self.long = long
        self._end = control_ids(tokenizer, instruction.terminator)
        space = instruction.leading_space
        self._answers = dict(zip(labels, plain_ids(tokenizer, [space + name for name in labels]), strict=True))
        self._asked: dict[tuple[str, ...], Question] = {}

    @property
    def template(self) -> str:
        return self.instruction.template

    def with_labels(self, labels: LabelSet) -> QuestionEncoder:
        """The same instruction with other labels."""
        return QuestionEncoder(self._tokenizer, self.instruction, labels, self.max_length, self.long)

    def with_notes(self, notes: Mapping[str, LabelNote]) -> QuestionEncoder:
        """The same labels, and more or something else said of them."""
        return QuestionEncoder(self._tokenizer, self.instruction.with_notes(notes), self.labels, self.max_length, self.long)

    def question(self, candidates: Sequence[str] | None = None) -> Question:
        """What is asked with these labels, in their order; None: with all. ConfigError where they leave no room for a text."""
        names = tuple(dict.fromkeys(self.labels if candidates is None else candidates))
        if names not in self._asked:
            answers = [self._answers[name] for name in names]
            check_distinct(names, answers)
            before, between, after = self.instruction.around(self._tokenizer, names)
            ends = plain_ids(self._tokenizer, list(self.instruction.yes_no)) if self.instruction.yes_no else [self._end]
            around = len(before) + len(between) + len(after)
            room = self.max_length - around - max(len(answer) for answer in answers) - max(map(len, ends))
            self._check_room(room, len(names))
            if len(self._asked) >= KEPT_QUESTIONS:
                self._asked.clear()
            ids, width = tuple(self.labels.ids(names)), len(self.labels)
            if self.instruction.yes_no:
                tree, columns, width = yes_no_tree(answers, *ends), (*ids, *(one + width for one in ids)), 2 * width
            else:
                tree, columns = answer_tree(answers, self._end), ids
            asks_each = self.instruction.yes_no is not None
            self._asked[names] = Question(
                tuple(before), tree, columns, width, tuple(after), room, asks_each, tuple(between), (stand_in(self._tokenizer),)
            )
        return self._asked[names]

    @property
    def pairs(self) -> bool:
        """Whether it reads pairs of texts."""
        return "{pair}" in self.instruction.template

    def encode(self, texts: Sequence[Text], candidates: Candidates | None = None) -> EncodedTexts:
        """The texts, each to be answered with one of its candidates."""
        questions = [self.question(given) for given in candidates] if candidates is not None else [self.question()] * len(texts)
        return self._encode(texts, questions)

    def encode_answers(self, texts: Sequence[Text], answers: Sequence[str], candidates: Candidates | None = None) -> EncodedTexts:
        """As `encode`, with a tree that holds the one answer given and its end: for learning to write it."""
        asked: dict[tuple[Question, str], Question] = {}
        questions = []
        for at, answer in enumerate(answers):
            whole = self.question(None if candidates is None else candidates[at])
            key = (whole, answer)
            if key not in asked:
                path = answer_path(self._answers[answer], self._end)
                asked[key] = replace(whole, tree=path, columns=(self.labels.id(answer),))
            questions.append(asked[key])
        return self._encode(texts, questions)

    def _encode(self, texts: Sequence[Text], questions: Sequence[Question]) -> EncodedTexts:
        check_texts(texts, pairs=self.pairs)
        if self.long not in WINDOWED or self.pairs:
            return self._inputs(texts, questions)
        rooms = [question.room for question in questions]
        return encode_in_windows(
            cast("Sequence[str]", texts),
            rooms,
            self._count,
            lambda windows, rows: self._inputs(windows, [questions[row] for row in rows.tolist()]),
        )

    def _count(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for chunk in chunks(texts) for ids in plain_ids(self._tokenizer, chunk)]

    def _inputs(self, texts: Sequence[Text], questions: Sequence[Question]) -> EncodedTexts:
        places: dict[int, int] = {}
        different: list[Question] = []
        asked = np.zeros(len(texts), dtype=np.int32)
        for row, question in enumerate(questions):
            if id(question) not in places:
                places[id(question)] = len(different)
                different.append(question)
            asked[row] = places[id(question)]
        pieces: list[np.ndarray] = []
        cut: list[int] = []
        for row, (kept, tokens_cut) in enumerate(self._read(texts, questions)):
            question = different[asked[row]]
            cut.append(tokens_cut)
            read = [*kept, *question.after] or [*question.stand_in]
            pieces.append(np.array([*read, *question.tree.tokens], dtype=np.int32))
        return EncodedTexts.of(pieces, cut, questions=tuple(different), asked=asked)

    def _read(self, texts: Sequence[Text], questions: Sequence[Question]) -> Iterator[tuple[Sequence[int], int]]:
        """What is read of each text, or of both of a pair with what stands between, and how many tokens were cut."""
        if self.pairs:
            both = paired_ids(self._tokenizer, cast("Sequence[Pair]", texts), plain_ids)
            for (first, second), question in zip(both, questions, strict=True):
                one, other = shortened_pair(first, second, question.room, self.long)
                yield [*one, *question.between, *other], len(first) + len(second) - len(one) - len(other)
            return
        encoded = (ids for chunk in chunks(cast("Sequence[str]", texts)) for ids in plain_ids(self._tokenizer, chunk))
        for ids, question in zip(encoded, questions, strict=True):
            kept = shortened(ids, question.room, self.long)
            yield kept, len(ids) - len(kept)

    def _check_room(self, room: int, labels: int) -> None:
        if room < (LEAST_ROOM if self.pairs else 1):
            shown = len(self.instruction.examples)
            examples, fewer = (f", {shown} examples", "fewer shots or labels") if shown else ("", "fewer labels")
            raise ConfigError(
                f"max_length {self.max_length} leaves no room for the text: the instruction with its {labels} labels{examples} and the "
                f"answer take {self.max_length - room} tokens; raise max_length, give {fewer} "
                "(a finished run takes them with --labels), or use --method head"
            )


def check_candidates(candidates: Any, where: str) -> None:
    """RequestError for no candidates, a lone string, what is no list, or a label that no tokenizer reads."""
    if isinstance(candidates, str) or not isinstance(candidates, Collection):
        kind = "one string" if isinstance(candidates, str) else type(candidates).__name__
        raise RequestError(f"{where}: expected a list of labels, found {kind} {candidates!r}; write [label, ...]")
    if len(candidates) == 0:  # an array of several has no truth
        raise RequestError(f"{where}: the list of labels is empty, so nothing could be answered; give at least one, or none at all for all")
    wrong = next((name for name in candidates if not isinstance(name, str) or not is_unicode(name)), None)
    if wrong is not None:
        raise RequestError(f"{where}: {wrong!r} is no label; expected a string of valid Unicode")
