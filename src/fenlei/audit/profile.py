"""What the rows are like: how long, in which script, how many of each class, and what stands out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rapidfuzz.distance import Levenshtein

from fenlei.audit.rows import AuditedRows
from fenlei.audit.same_text import bare, plain
from fenlei.config.model import DEFAULT_MAX_LENGTH

SCRIPTS = ("no letters", "Chinese", "Japanese", "Korean", "Latin", "Cyrillic", "Arabic", "another script")
_RANGES = (
    ("Chinese", 0x3400, 0x4DBF), ("Chinese", 0x4E00, 0x9FFF), ("Chinese", 0xF900, 0xFAFF), ("Chinese", 0x20000, 0x3FFFF),
    ("Japanese", 0x3040, 0x30FF), ("Korean", 0x1100, 0x11FF), ("Korean", 0xAC00, 0xD7AF), ("Latin", 0x41, 0x24F),
    ("Latin", 0xFF21, 0xFF5A), ("Cyrillic", 0x400, 0x52F), ("Arabic", 0x600, 0x6FF), ("Arabic", 0x750, 0x77F),
)  # fmt: skip
LETTERS_PER_CHARACTER = 3
"""A Chinese character counts as so many letters, or one long Latin name would make a Chinese title Latin."""
KANA_SHARE = 0.1
"""Share of kana among the letters from which a text is Japanese: most of its letters may be Chinese characters."""
TOKENS_PER_CHARACTER = {"Chinese": 0.75, "Japanese": 0.75, "Korean": 0.75}
TOKENS_PER_LETTER = 0.3
"""Rules of thumb: Qwen2.5 takes 0.75 tokens a character of Chinese news titles, and 0.22 to 0.3 a letter of English."""
IMBALANCE = 10.0
"""Rows of the largest class over those of the smallest, from which the small one tends to be overlooked."""
RARE_SCRIPT = 0.01


@dataclass(frozen=True)
class Oddity:
    """A row that stands out, and why."""

    row: int
    problem: str


@dataclass(frozen=True)
class Lengths:
    """Characters of the texts."""

    median: int
    p95: int
    longest: int
    rows: tuple[Oddity, ...]
    """Empty texts, and texts that are longer than `train` reads, by a rule of thumb."""


@dataclass(frozen=True)
class Languages:
    """Texts of each script, the commonest first."""

    counts: dict[str, int]
    rows: tuple[Oddity, ...]
    """Texts in a script that less than one in a hundred rows have."""


@dataclass(frozen=True)
class Classes:
    """Rows of each class in train, the largest first."""

    counts: dict[str, int]
    look_alikes: tuple[tuple[str, str], ...]
    """Names so alike that one may be a slip for the other, the rarer first."""
    rows: tuple[Oddity, ...]
    """Rows without a label, rows alone in their class, rows of the rarer of two look-alikes, labels that train does not have."""

    @property
    def imbalance(self) -> float:
        """Rows of the largest class over those of the smallest; 1.0 where there are not two."""
        return max(self.counts.values()) / min(self.counts.values()) if self.counts else 1.0


def profile_texts(rows: AuditedRows) -> tuple[Lengths, Languages]:
    """Lengths and scripts of the texts of every part."""
    texts = [example.whole for example in rows.examples]
    lengths = np.array([len(text) for text in texts])
    characters = _characters_by_script(texts)
    weights = np.array([TOKENS_PER_CHARACTER.get(script, TOKENS_PER_LETTER) for script in SCRIPTS])
    tokens = characters @ weights
    odd = [
        Oddity(int(row), f"about {tokens[row]:,.0f} tokens" if rows.plain_texts[row] else "empty")
        for row in np.flatnonzero((tokens > DEFAULT_MAX_LENGTH) | np.array([not text for text in rows.plain_texts]))
    ]
    median, p95, longest = (int(value) for value in (np.median(lengths), np.percentile(lengths, 95), lengths.max()))
    return Lengths(median, p95, longest, tuple(odd)), _languages(characters)


def profile_classes(rows: AuditedRows) -> Classes:
    """The classes of train, and the labels of all parts that do not look right."""
    counts = Counter(label for example, part in zip(rows.examples, rows.part_of, strict=True) if part == 0 for label in example.all_labels)
    pairs = find_look_alikes(counts)
    slip = {rarer: f"its class {rarer!r} looks like {other!r}" for rarer, other in pairs}
    labelled_parts = {part for example, part in zip(rows.examples, rows.part_of, strict=True) if example.label is not None}
    odd = []
    for row, (example, part) in enumerate(zip(rows.examples, rows.part_of, strict=True)):
        if example.label is None and part in labelled_parts:
            odd.append(Oddity(row, "no label"))
        for label in example.all_labels:
            if label not in counts:
                odd.append(Oddity(row, f"no training row is of its class {label!r}"))
            elif part == 0 and counts[label] == 1:
                odd.append(Oddity(row, f"alone in its class {label!r}"))
            elif label in slip:
                odd.append(Oddity(row, slip[label]))
    return Classes(dict(counts.most_common()), pairs, tuple(odd))


def find_look_alikes(counts: Counter[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of names that differ in case, width, blanks or marks alone, or by one letter in a long name: (rarer, commoner)."""
    names = sorted(counts, key=lambda name: -counts[name])
    plain_names = [plain(name) for name in names]
    bare_names = bare(plain_names) if names else []
    found = []
    for rarer in range(len(names)):
        for commoner in range(rarer):
            if _look_alike(bare_names[rarer], bare_names[commoner]):
                found.append((names[rarer], names[commoner]))
    return tuple(found)


def _look_alike(one: str, other: str) -> bool:
    if one == other:
        return True
    if min(len(one), len(other)) < (6 if one.isascii() else 4) or Levenshtein.distance(one, other, score_cutoff=1) > 1:
        return False
    (edit,) = Levenshtein.editops(one, other)
    changed = one[edit.src_pos : edit.src_pos + 1] + other[edit.dest_pos : edit.dest_pos + 1]
    return not any(character.isnumeric() for character in changed)  # level 1 and level 2 are meant


def _languages(characters: np.ndarray) -> Languages:
    """The script of each text, from its characters of each: int (rows, scripts)."""
    weights = [LETTERS_PER_CHARACTER if script in TOKENS_PER_CHARACTER else 1 for script in SCRIPTS]
    letters = (characters * weights)[:, 1:]
    script = letters.argmax(axis=1) + 1
    japanese = SCRIPTS.index("Japanese")
    script[letters[:, japanese - 1] > KANA_SHARE * letters.sum(axis=1)] = japanese
    script[letters.sum(axis=1) == 0] = 0
    counts = np.bincount(script, minlength=len(SCRIPTS))
    rare = (counts > 0) & (counts < RARE_SCRIPT * len(script))
    odd = tuple(Oddity(int(row), SCRIPTS[script[row]]) for row in np.flatnonzero(rare[script]))
    named = {SCRIPTS[place]: int(counts[place]) for place in np.argsort(-counts, kind="stable") if counts[place]}
    return Languages(named, odd)


def _characters_by_script(texts: Sequence[str]) -> np.ndarray:
    """int64 (rows, scripts): characters of each script; column 0 holds what is no letter."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    distinct, kind = np.unique(codes, return_inverse=True)
    script_of = np.array([_script(int(code)) for code in distinct], dtype=np.int64)
    rows = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
    places = rows * len(SCRIPTS) + (script_of[kind] if len(codes) else 0)
    return np.bincount(places, minlength=len(texts) * len(SCRIPTS)).reshape(len(texts), len(SCRIPTS))


def _script(code: int) -> int:
    if not chr(code).isalpha():
        return 0
    name = next((script for script, first, last in _RANGES if first <= code <= last), "another script")
    return SCRIPTS.index(name)
