"""The usual way to classify with a language model: transformers' generate, greedy, and the label looked for in what it wrote.

--batch 1 is once a text; above, batches padded on the left. Nothing of fenlei is imported. Loading is not counted.
"""

import argparse
import json
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def main():
    """Answers every row's prompt and prints the measured line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--new-tokens", type=int, default=16)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    with open(given.data, encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    tokenizer = AutoTokenizer.from_pretrained(given.model, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(given.model, dtype=torch.bfloat16).eval().to(given.device)

    def answer(part):
        prompts = [row["prompt"] for row in part]
        inputs = tokenizer(prompts, padding=True, add_special_tokens=False, return_tensors="pt").to(given.device)
        with torch.inference_mode():
            out = model.generate(**inputs, max_new_tokens=given.new_tokens, do_sample=False)
        return tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    answer(rows[: given.batch][:2])
    began = time.perf_counter()
    written = [text for first in range(0, len(rows), given.batch) for text in answer(rows[first : first + given.batch])]
    seconds = time.perf_counter() - began
    right = sum(text.strip() == row["label"] for text, row in zip(written, rows, strict=True))
    if given.device == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        with open("/proc/self/status", encoding="utf-8") as status:
            peak = 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(json.dumps({"rows": len(rows), "seconds": seconds, "peak_bytes": peak, "accuracy": right / len(rows)}))


if __name__ == "__main__":
    main()
