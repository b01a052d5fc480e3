"""Writes docs/families.md: each family built in small, and what fenlei makes of it; tests/test_families.py says when it is out of date."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "families.md"
sys.path.insert(0, str(ROOT / "tests"))

from families import FAMILIES, save_family, table_row, traits  # noqa: E402

HEAD = """\
# Model families

<!-- Made by scripts/generate_families.py from tests/families.py: do not edit. -->

Every family below is built small in the test suite, from its own configuration class and with a tokenizer as its hub ships it, and goes
through training (full and LoRA), saving, loading, predicting and exporting without an option of its own: `--model` is all that changes.

- **LoRA goes into** every linear of the blocks. In a mixture of experts it goes into attention alone: adapters on each of a hundred
  experts would be more weights than many a whole model, and an adapted router sends texts where nothing was learnt. `--lora-targets`
  says otherwise.
- **Pooling** is the state of the last real token, found from the attention mask, whatever pads; encoders keep their own.
- **A text is read** as shown, `…` being the text. **Pads with**: the tokenizer's own token, or else a spare one that ends no text.
- **Asked as**: with `--method generate`, what stands between the text and the answer, and after `…` what ends the answer (`↵` is a line
  break). Models that begin with a thought have it closed, empty.
- **Stock folder**: whether `fenlei export` of a head writes one that `AutoModelForSequenceClassification` opens. Where transformers has no
  classifier for a decoder, fenlei puts one together; such a run is used as it is. A generate run is exported as a language model.

A model whose code transformers does not have (`trust_remote_code`) is not run. Encoders that read the padding beside a text (XLNet,
ConvBERT, FNet, Funnel, Nyströmformer, CANINE) are refused, and so are weights that are quantised already (GPTQ, AWQ and the like); those in
FP8 and MXFP4 are turned back into bfloat16. Where a version of transformers stands beside a family, it came with that one; Python 3.10 has
transformers up to 5.20.

| Family | For example | Type | LoRA goes into | Pooling | A text is read | Pads with | Asked as | Stock folder of a head |
|---|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The whole page as Markdown."""
    lines = (ROOT / "tests" / "data" / "toy_news.jsonl").read_text(encoding="utf-8").split("\n")
    texts = [json.loads(line)["text"] for line in lines if line]
    rows = []
    for family in FAMILIES:
        with tempfile.TemporaryDirectory() as folder:
            rows.append(table_row(family, traits(family, save_family(family, Path(folder), texts))))
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
