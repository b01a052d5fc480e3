"""What the generate benches share: their options, and rows under one prompt for all of their sides."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from bench.runs import WORK, real_model, shared
from fenlei.models.backbone import load_tokenizer
from fenlei.text.instructions import compose

CHINESE = {
    "finance": "财经", "realty": "房产", "stocks": "股票", "education": "教育", "science": "科技",
    "society": "社会", "politics": "时政", "sports": "体育", "game": "游戏", "entertainment": "娱乐",
}  # fmt: skip


def given_arguments(description: str, rows: int) -> argparse.Namespace:
    """The options of both benches."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--rows", type=int, default=rows, help="of our side")
    parser.add_argument("--peer-rows", type=int, default=rows, help="of the others, whose rate depends on it no more than ours")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--names", choices=["zh", "en"], default="zh", help="language of the label names")
    parser.add_argument("--model", default=None, help="default: FENLEI_REAL_MODEL")
    given = parser.parse_args()
    given.model = given.model or real_model()
    return given


def write_rows(part: str, rows: int, names: str, model: str) -> Path:
    """The first titles of `part` of thucnews10, each with the whole prompt, rendered, for sides that know nothing of fenlei."""
    translate = CHINESE if names == "zh" else {name: name for name in CHINESE}
    labels = tuple(translate.values())
    tokenizer = load_tokenizer(Path(model))
    instruction = compose(tokenizer, None, labels)
    before, _, after = (tokenizer.decode(ids) for ids in instruction.around(tokenizer, labels))
    target = WORK / "data" / f"generate_{part}_{names}_{rows}_{Path(model).name}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    with (shared() / "data" / "thucnews10" / f"{part}.jsonl").open(encoding="utf-8") as file, target.open("w", encoding="utf-8") as out:
        for _, line in zip(range(rows), file, strict=False):
            row = json.loads(line)
            label = translate[row["label"]]
            told = {
                "text": row["text"],
                "label": label,
                "prompt": f"{before}{row['text']}{after}",
                "answer": label + instruction.terminator,
            }
            out.write(json.dumps(told, ensure_ascii=False) + "\n")
    return target
