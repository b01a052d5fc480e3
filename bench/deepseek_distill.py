"""The same weights under Qwen's settings and under those of a DeepSeek distill: python -m bench.deepseek_distill [--rows N] [--model M].

DeepSeek-R1-Distill-Qwen is Qwen2.5's architecture with another first token, end token (which pads too) and chat template, and a tokenizer
that says it were Llama's. A classifier that pools by the pad id, or believes those settings, loses much: 0.70 of accuracy is on record
where Qwen has 0.96. Here the weights are the same on both sides, so what the settings cost is all that differs. LoRA with its defaults, one
epoch of the first news titles; a run that is there is not trained again, and the Qwen side is that of bench.headline_6000.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

from bench.headline_6000 import EPOCHS, ROWS, SELECTING
from bench.runs import WORK, conclude, head_of, name_of, real_model, run, shared
from fenlei.models.hub import resolve_model

MOST_LOST = 0.005
BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"
RENAMED = {
    "<|endoftext|>": END, "<|im_start|>": "<｜User｜>", "<|im_end|>": "<｜Assistant｜>", "<|object_ref_start|>": BEGIN,
    "<|object_ref_end|>": "<|EOT|>", "<|box_start|>": "<think>", "<|box_end|>": "</think>",
}  # fmt: skip
"""The control tokens of Qwen2.5, and what the distill calls the same ids."""
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<｜User｜>{{ m['content'] }}"
    "{% else %}<｜Assistant｜>{{ m['content'].split('</think>')[-1] }}<｜end▁of▁sentence｜>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<｜Assistant｜><think>\n{% endif %}"
)


def as_distill(model: str) -> Path:
    """A folder with the weights of `model`, a Qwen2.5, under the settings of DeepSeek-R1-Distill-Qwen."""
    source, target = resolve_model(model), WORK / "models" / f"{Path(model).name}_as_distill"
    target.mkdir(parents=True, exist_ok=True)
    for path in source.iterdir():
        if (path.suffix == ".safetensors" or path.name.endswith(".index.json")) and not (target / path.name).exists():
            os.symlink(path.resolve(), target / path.name)
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        token["content"] = RENAMED.get(token["content"], token["content"])
    vocabulary = tokenizer["model"]["vocab"]  # some files hold the control tokens here too
    tokenizer["model"]["vocab"] = {RENAMED.get(piece, piece): place for piece, place in vocabulary.items()}
    ids = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    missing = [name for name in RENAMED.values() if name not in ids]
    if missing:
        raise SystemExit(f"{source}: has no token to be called {missing[0]}; give a Qwen2.5")
    first = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing", "single": [first, text], "pair": [first, text, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {BEGIN: {"id": BEGIN, "ids": [ids[BEGIN]], "tokens": [BEGIN]}},
    }  # fmt: skip
    settings = {
        "tokenizer_class": "LlamaTokenizerFast", "bos_token": BEGIN, "eos_token": END, "pad_token": END, "unk_token": None,
        "add_bos_token": True, "add_eos_token": False, "legacy": True, "model_max_length": 16384, "chat_template": TEMPLATE,
    }  # fmt: skip
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config |= {"bos_token_id": ids[BEGIN], "eos_token_id": ids[END], "pad_token_id": None}
    for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", settings), ("config.json", config)):
        (target / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return target


def main() -> None:
    """Prints both accuracies; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=ROWS)
    parser.add_argument("--model", default=None)
    given = parser.parse_args()
    model = given.model or real_model()
    data = shared() / "data" / "thucnews10"
    train, dev = head_of(data / "train.jsonl", given.rows), data / "dev.jsonl"
    other = {} if given.model is None else {"model": Path(given.model).name}
    sides = {"Qwen's settings": (name_of(f"titles_{given.rows}_lora", other), model)}
    sides["a distill's settings"] = (f"{sides[next(iter(sides))][0]}_as_distill", str(as_distill(model)))
    accuracy: dict[str, float] = {}
    for side, (name, folder) in sides.items():
        evaluation, seconds = run(
            name, train, dev, selecting=head_of(dev, SELECTING), model=folder, tuning="lora", evals_per_epoch=2, epochs=EPOCHS
        )
        accuracy[side] = evaluation.metrics.accuracy
        print(f"{side}: accuracy {accuracy[side]:.4f}, {seconds:.0f} s", flush=True)
    ours, distill = accuracy.values()
    kept, figures = 1 - (ours - distill), {name: round(value, 4) for name, value in accuracy.items()}
    conclude(f"accuracy kept under a distill's settings, {given.rows} titles", kept, 1 - MOST_LOST, accuracy=figures)


if __name__ == "__main__":
    main()
