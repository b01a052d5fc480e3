"""Long texts in an exported folder, which cuts them at their end however the run reads them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fenlei.errors import ConfigError
from fenlei.text.asking import QuestionEncoder
from fenlei.text.pairs import Text
from fenlei.text.prompts import TextEncoder

CUT_AT_THE_END = ("truncate", "full")


def refuse_long(long: str, force: bool) -> None:
    """ConfigError for a run that reads a long text in other ways than up to its limit, which no exported folder does."""
    if long not in CUT_AT_THE_END and not force:
        raise ConfigError(
            f"the run reads long texts in a way of its own (--long {long}), and a stock folder cuts them at their end; with --force the "
            "folder is written, and is right for texts that fit max_length"
        )


def read_alike(encoder: TextEncoder | QuestionEncoder, texts: Sequence[Text]) -> list[int]:
    """The places of those of `texts` that run and folder read alike: all, or those that fit. ConfigError where there are none."""
    if encoder.long in CUT_AT_THE_END:
        return list(range(len(texts)))
    encoded = encoder.encode(texts)
    longer = encoded.tokens_cut > 0 if encoded.windows is None else encoded.windows.counts > 1
    places: list[int] = np.flatnonzero(~np.asarray(longer)).tolist()
    if not places:
        raise ConfigError(
            f"all {len(texts):,} texts are longer than max_length {encoder.max_length}, and there a folder cannot answer as the run does; "
            "give shorter ones to compare on, or none at all for made-up ones"
        )
    return places


def left_out_note(texts: int, compared: int) -> list[str]:
    """A line where texts were too long to be compared on."""
    return [f"{texts - compared:,} of {texts:,} texts are longer than max_length, and were not compared on"] if compared < texts else []
