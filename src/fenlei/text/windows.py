"""Long texts as overlapping windows that begin and end with sentences, in any language.

A window's text is tokenised as any other, prompt and special tokens around it. Sentence ends are those of Unicode's scripts; where a text
has none within the room of a window (Thai, a table, one unbroken run), it is cut at commas and blanks, and where there are none of these,
anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from fenlei.text.encoded import EncodedTexts, Windows

WINDOWED = ("windows", "mean", "max")
"""The ways of reading a long text (`--long`) that read all of it, in windows."""

OVERLAP = 6
"""A window may begin with the last sentences of the one before it, as far as they take at most 1 in OVERLAP of its room."""

CHUNK_CHARACTERS = 1_000_000
"""Characters of texts that are cut at once: lists of Python's own take a hundred bytes each."""

_ALWAYS = (
    "。！？｡．…‼‽⁇⁈⁉"  # Chinese, Japanese
    "։؝؞؟۔܀܁܂߹"  # Armenian, Arabic, Urdu, Syriac, N'Ko
    "।॥။።፧፨។៕᠃᠉᥄᥅།༎꓿꛳꛷꡶꡷"  # Devanagari and its kin, Burmese, Ethiopic, Khmer, Mongolian, Limbu, Tibetan, Lisu, Bamum, Phags-pa
)
_CLOSING = "\"'”’»›」』）)】〕〉》\\]"
# One mark of a run like "....": a pattern that took the whole run and then looked ahead would take quadratic time.
_END = re.compile(rf"(?:[{_ALWAYS}]+|[.!?](?=[\s{_CLOSING}]|$))[{_CLOSING}]*\s*|\n\s*")
_CLAUSE = re.compile(r"[\s,;:，、；：،؛]")

Span = tuple[int, int]
"""From and to, in characters of the text."""
Count = Callable[[Sequence[str]], list[int]]
"""Texts to the number of their tokens."""


def encode_in_windows(
    texts: Sequence[str], rooms: Sequence[int], count: Count, encode: Callable[[list[str], np.ndarray], EncodedTexts]
) -> EncodedTexts:
    """The texts cut into windows of at most `rooms` tokens each; every row is all its windows, end to end.

    `encode` is given the windows' texts and, int64 (windows,), the row of each. An empty text has one window, an empty one.
    """
    windows, spans = _encode_windows(texts, list(cut_into_windows(texts, rooms, count)), encode)
    first = np.concatenate([[0], np.cumsum([len(row) for row in spans], dtype=np.int64)]).astype(np.int64)
    flat = [span for row in spans for span in row]
    return replace(
        windows,
        starts=windows.starts[first],
        tokens_cut=np.add.reduceat(windows.tokens_cut, first[:-1]).astype(np.int32) if len(texts) else windows.tokens_cut,
        asked=None if windows.asked is None else windows.asked[first[:-1]],
        windows=Windows(windows.starts, first, np.array(flat, dtype=np.int64).reshape(-1, 2)),
    )


def cut_into_windows(texts: Sequence[str], rooms: Sequence[int], count: Count) -> Iterator[list[Span]]:
    """The windows of each text, at most `rooms` tokens each; blanks around them are left out, and windows of nothing else."""
    for at, end in _chunks(texts):
        pieces = _pieces(texts[at:end], rooms[at:end], count)
        for text, room, (spans, counts) in zip(texts[at:end], rooms[at:end], pieces, strict=True):
            packed = [(spans[first][0], spans[last - 1][1]) for first, last in _pack(counts, room, room // OVERLAP)] or [(0, 0)]
            said = [span for span in (_strip(text, one) for one in packed) if span[0] < span[1]]
            yield said if len(packed) > 1 and said else packed[:1]


def sentence_spans(text: str) -> list[Span]:
    """The sentences, each with the marks and blanks that follow it; together they are the text."""
    ends = [found.end() for found in _END.finditer(text)]
    if not ends or ends[-1] < len(text):
        ends.append(len(text))
    return [(begin, end) for begin, end in zip([0, *ends], ends, strict=False) if begin < end]


def _encode_windows(
    texts: Sequence[str], spans: list[list[Span]], encode: Callable[[list[str], np.ndarray], EncodedTexts]
) -> tuple[EncodedTexts, list[list[Span]]]:
    """The windows encoded, and where they lie: those whose text takes more tokens than its sentences do one by one (it happens in runs
    without marks) in halves.
    """
    while True:
        rows = np.repeat(np.arange(len(texts)), [len(row) for row in spans])
        flat = [span for row in spans for span in row]
        windows = encode([texts[row][begin:end] for row, (begin, end) in zip(rows.tolist(), flat, strict=True)], rows)
        cut = {
            (row, span)
            for row, span, tokens in zip(rows.tolist(), flat, windows.tokens_cut, strict=True)
            if tokens and span[1] - span[0] > 1
        }
        if not cut:
            return windows, spans
        spans = [
            [half for span in own for half in (_divide(texts[row], span, 2, OVERLAP) if (row, span) in cut else [span])]
            for row, own in enumerate(spans)
        ]


def _pieces(texts: Sequence[str], rooms: Sequence[int], count: Count) -> list[tuple[list[Span], list[int]]]:
    """The sentences of each text and their tokens; longer ones than its room in parts."""
    pieces = [(row, span) for row, text in enumerate(texts) for span in sentence_spans(text)]
    tokens: dict[tuple[int, Span], int] = {}
    while True:
        new = [piece for piece in pieces if piece not in tokens]
        tokens.update(zip(new, count([texts[row][begin:end] for row, (begin, end) in new]), strict=True))
        too_long = {(row, (begin, end)) for row, (begin, end) in pieces if tokens[row, (begin, end)] > rooms[row] and end - begin > 1}
        if not too_long:
            break
        pieces = [
            (row, part)
            for row, span in pieces
            for part in (_divide(texts[row], span, tokens[row, span], rooms[row]) if (row, span) in too_long else [span])
        ]
    found: list[tuple[list[Span], list[int]]] = [([], []) for _ in texts]
    for row, span in pieces:
        found[row][0].append(span)
        found[row][1].append(tokens[row, span])
    return found


def _divide(text: str, span: Span, tokens: int, room: int) -> list[Span]:
    """At least two parts of about the same length, small enough to overlap, each ending in a comma or a blank where one is near."""
    begin, end = span
    step = -(-(end - begin) // max(2, -(-tokens // max(1, room // OVERLAP))))
    cuts = [begin]
    while end - cuts[-1] > step:
        most = cuts[-1] + step
        near = [found.end() for found in _CLAUSE.finditer(text, cuts[-1] + (step + 1) // 2, most)]
        cuts.append(near[-1] if near else most)
    return list(zip(cuts, [*cuts[1:], end], strict=True))


def _pack(counts: Sequence[int], room: int, overlap: int) -> Iterator[Span]:
    """From and to of the pieces in each window: as many as fit, the first of them those that end the window before, as far as `overlap`."""
    first = 0
    while first < len(counts):
        last, taken = first + 1, counts[first]
        while last < len(counts) and taken + counts[last] <= room:
            taken += counts[last]
            last += 1
        yield first, last
        if last == len(counts):
            return
        again, carried = last, 0
        while again - 1 > first and carried + counts[again - 1] <= min(overlap, room - counts[last]):
            again -= 1
            carried += counts[again]
        first = again


def _strip(text: str, span: Span) -> Span:
    """Without the blanks around it."""
    inside = text[span[0] : span[1]]
    begin = span[0] + len(inside) - len(inside.lstrip())
    return begin, max(begin, span[0] + len(inside.rstrip()))


def _chunks(texts: Sequence[str]) -> Iterator[Span]:
    """Rows, from and to, of about CHUNK_CHARACTERS together; a longer text goes alone."""
    begin, size = 0, 0
    for at, text in enumerate(texts):
        if size and size + len(text) > CHUNK_CHARACTERS:
            yield begin, at
            begin, size = at, 0
        size += len(text) + 1
    if begin < len(texts):
        yield begin, len(texts)
