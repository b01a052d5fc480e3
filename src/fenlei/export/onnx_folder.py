"""A run as a folder for ONNX Runtime: model.onnx, its weights, the tokenizer and a stock config.json with the labels.

Logits are calibrated: their softmax is what the run says. Both are asked the same texts, and what differs is told, labels, speed and, where
the texts have labels, accuracy.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fenlei.artifact import check_new, checked_path, whole_folder, write_text
from fenlei.errors import ArtifactError, ConfigError
from fenlei.evaluation.calibration import Calibration
from fenlei.export.long_texts import left_out_note, read_alike, refuse_long
from fenlei.export.merged import LEAST_AGREEMENT, PARITY_TEXTS
from fenlei.export.onnx_network import INPUTS, OUTPUT, write_graph
from fenlei.export.prompted import check_prompt, teach_prompt
from fenlei.export.sample_texts import sample_texts
from fenlei.inference.classifier import Classifier
from fenlei.inference.loading import LoadedRun, load_run
from fenlei.models.backbone import quiet_transformers
from fenlei.models.devices import BATCH_TOKENS
from fenlei.models.head import HeadMethod
from fenlei.text.batches import by_token_budget, collate
from fenlei.text.encoded import EncodedTexts
from fenlei.text.prompts import TextEncoder

GRAPH, TOLD = "model.onnx", "fenlei_onnx.json"
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


@dataclass(frozen=True)
class OnnxResult:
    """A folder for ONNX Runtime, beside the run that it was made from."""

    out: Path
    rows: int
    """Texts that both were asked."""
    agreement: float
    """Share of them with the same label."""
    largest_difference: float
    """Largest absolute difference of two calibrated logits."""
    rows_per_second: float
    """Of ONNX Runtime, on as many threads as torch."""
    run_rows_per_second: float
    accuracy: float | None
    """On texts with labels."""
    run_accuracy: float | None
    notes: tuple[str, ...] = ()


def export_onnx(
    run: str | Path,
    out: str | Path,
    *,
    int8: bool = False,
    force: bool = False,
    texts: Sequence[str] | None = None,
    gold: Sequence[str] | None = None,
) -> OnnxResult:
    """Writes the folder and asks both `texts` (else texts made up from the vocabulary); `gold` are their labels.

    `int8`: the backbone's linears in 8-bit integers, four times smaller, and slightly less exact. ConfigError for a run that generates,
    gives several labels, or reads a long text in a way of its own (`force`: the folder cuts it at its end); ArtifactError where `out` is
    taken, or the labels of the folder, in float32, agree with the run's on less than 99.5 % of the texts.
    """
    target = checked_path(out).resolve()  # resolved, a URL looks like none
    check_new(target)
    _check_packages()
    if texts is not None and not texts:
        raise ConfigError("no texts to compare on; give at least one, or none at all for made-up ones")
    loaded = load_run(run, device="cpu", fold=True)
    encoder = _checked_encoder(loaded, force)
    calibration = Calibration.from_json(loaded.manifest)
    if calibration.multi_label:
        raise ConfigError("an ONNX folder gives each text one label, and this run any number of them; export it with --format merged")
    stock = loaded.folded()
    asked = (list(texts) if texts is not None else sample_texts(encoder.tokenizer, PARITY_TEXTS))[:PARITY_TEXTS]
    alike = read_alike(encoder, asked)  # before the tokenizer is told of the prompt
    right = None if gold is None else [gold[place] for place in alike]
    with whole_folder(target) as folder, quiet_transformers():
        write_graph(stock, calibration, folder / GRAPH, int8=int8)
        _write_beside(folder, loaded, encoder)
        result = _compare(run, folder, target, [asked[place] for place in alike], right, left_out_note(len(asked), len(alike)))
        if result.agreement < LEAST_AGREEMENT and not int8:
            raise ArtifactError(
                f"{target}: ONNX Runtime gives the run's label on only {result.agreement:.2%} of {result.rows:,} texts (needed: "
                f"{LEAST_AGREEMENT:.1%}; largest logit difference {result.largest_difference:.3g}); nothing was written"
            )
    return result


class OnnxScorer:
    """The graph of a folder, on ONNX Runtime's CPU provider."""

    def __init__(self, folder: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(str(folder / GRAPH), options, providers=["CPUExecutionProvider"])

    def logits(self, encoded: EncodedTexts, pad_id: int) -> np.ndarray:
        """Calibrated, float32 (rows, labels), in the order of the rows."""
        parts: dict[int, np.ndarray] = {}
        for rows in by_token_budget(encoded.lengths.tolist(), range(len(encoded)), BATCH_TOKENS):
            batch = collate(encoded, rows, pad_id)
            fed = dict(zip(INPUTS, (batch.input_ids.numpy(), batch.attention_mask.numpy()), strict=True))
            parts |= zip(rows, self._session.run([OUTPUT], fed)[0], strict=True)
        return np.stack([parts[row] for row in range(len(encoded))])


def _check_packages() -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"an ONNX export needs {', '.join(missing)}; install them with: pip install 'fenlei[onnx]'")


def _checked_encoder(loaded: LoadedRun, force: bool) -> TextEncoder:
    if not isinstance(loaded.method, HeadMethod) or not isinstance(loaded.encoder, TextEncoder):
        raise ConfigError("an ONNX folder answers with a head, and this run generates; export it with --format merged")
    if loaded.manifest.get("pair_column"):
        raise ConfigError("an ONNX folder reads single texts, and this run pairs of them; export it with --format merged")
    if loaded.manifest.get("merged"):
        raise ConfigError("labels that were merged are sums of several outputs, which the graph does not add up; train again to export")
    refuse_long(loaded.encoder.long, force)
    return loaded.encoder


def _write_beside(folder: Path, loaded: LoadedRun, encoder: TextEncoder) -> None:
    """Configuration and tokenizer, as other programs look for them."""
    config: Any = loaded.method.stock.config
    config.dtype = torch.float32
    config.save_pretrained(folder)
    tokenizer = encoder.tokenizer
    teach_prompt(tokenizer, encoder)
    tokenizer.model_max_length = encoder.max_length
    tokenizer.save_pretrained(folder)
    check_prompt(folder, encoder)
    told = {"labels": list(loaded.labels), "max_length": encoder.max_length, "calibrated": bool(loaded.manifest.get("calibrated"))}
    write_text(folder / TOLD, json.dumps(told, ensure_ascii=False, indent=2) + "\n")


def _compare(run: str | Path, folder: Path, target: Path, texts: list[str], gold: Sequence[str] | None, told: list[str]) -> OnnxResult:
    """Labels and logits of both in float32, for in bfloat16 a real model differs from itself by the way its rows were batched; the speed of
    the run in the format that it has elsewhere.
    """
    ours = _calibrated(load_run(run, device="cpu", fold=True), texts)
    loaded = load_run(run, device="cpu")
    assert isinstance(loaded.encoder, TextEncoder)
    classifier, scorer = Classifier(loaded), OnnxScorer(folder)
    encoder = TextEncoder(loaded.encoder.tokenizer, loaded.manifest["prompt"], loaded.encoder.max_length)  # long texts cut at their end
    warm = texts[:8]
    classifier.logits(warm)
    scorer.logits(encoder.encode(warm), loaded.method.pad_id)
    began = time.perf_counter()
    classifier.logits(texts)
    between = time.perf_counter()
    theirs = scorer.logits(encoder.encode(texts), loaded.method.pad_id)
    ended = time.perf_counter()
    accuracy, run_accuracy = (None if gold is None else _accuracy(one, gold, classifier.labels) for one in (theirs, ours))
    if any(loaded.manifest.get(name) for name in ("abstention", "prediction_sets", "novelty")):
        told = [*told, "threshold, prediction sets and novelty stay with the run: the graph gives calibrated logits alone"]
    return OnnxResult(
        target, len(texts), float((ours.argmax(1) == theirs.argmax(1)).mean()), float(np.abs(ours - theirs).max()),
        len(texts) / (ended - between), len(texts) / (between - began), accuracy, run_accuracy,
        tuple(told),
    )  # fmt: skip


def _calibrated(loaded: LoadedRun, texts: list[str]) -> np.ndarray:
    classifier = Classifier(loaded)
    return classifier.trust.calibration.apply(classifier.logits(texts).logits)


def _accuracy(logits: np.ndarray, gold: Sequence[str], labels: Sequence[str]) -> float:
    return float(np.mean([labels[best] == label for best, label in zip(logits.argmax(1), gold, strict=True)]))
