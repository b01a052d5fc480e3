"""A run as one stock Hugging Face folder, for transformers.pipeline, AutoModelForSequenceClassification and vLLM.

LoRA is folded in float32; the temperature is folded into `score.weight`, so that the stock softmax gives calibrated answers too. Then
both are asked the same texts, and the export stands only if they agree. A generate run becomes a causal language model, and its prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from fenlei.artifact import check_new, checked_path, whole_folder
from fenlei.data.labelling import Labelling
from fenlei.errors import ArtifactError, ConfigError
from fenlei.evaluation.calibration import Calibration
from fenlei.export.card import write_card
from fenlei.export.language_model import refuse_prior, stock_scores, write_prompt
from fenlei.export.long_texts import CUT_AT_THE_END, left_out_note, read_alike, refuse_long
from fenlei.export.pairs import columns, filled, sample_pairs, teach_pairs
from fenlei.export.prompted import check_prompt, teach_prompt
from fenlei.export.sample_texts import sample_texts
from fenlei.inference.classifier import Classifier
from fenlei.inference.loading import LoadedRun, load_run
from fenlei.models.architectures import has_stock_classifier
from fenlei.models.backbone import head_modules, load_tokenizer, quiet_transformers
from fenlei.models.devices import pick_precision
from fenlei.models.generate import GenerateMethod
from fenlei.text.asking import QuestionEncoder
from fenlei.text.pair_encoder import PairEncoder
from fenlei.text.pairs import PAIR_COLUMN, Text
from fenlei.text.prompts import TextEncoder

logger = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.995
PARITY_TEXTS = 2000
PARITY_TEXTS_WRITTEN = 200
"""For a language model, which reads the prompt and every branch of the answers with each text."""
PARITY_BATCH = 32


@dataclass(frozen=True)
class ExportResult:
    """A stock folder and the proof that it answers as the run does."""

    out: Path
    rows: int
    """Texts that both were asked."""
    agreement: float
    """Share of them with the label that the run gives; multi-label, with the same labels from one half on."""
    largest_difference: float
    """Largest absolute difference of two calibrated logits."""
    notes: tuple[str, ...] = ()
    """What the run does and the stock folder cannot."""


def export_merged(run: str | Path, out: str | Path, *, force: bool = False, texts: Sequence[Text] | None = None) -> ExportResult:
    """Writes the folder and proves parity on `texts`, of a run on pairs pairs (else on some made up from the tokenizer's vocabulary).

    ConfigError where the stock layout cannot express the run (`force` exports nonetheless, where a stock layout exists at all);
    ArtifactError where `out` is taken, or where the folder's labels agree with the run's, calibrated as far as the folder can be, on less
    than 99.5 % of the texts.
    """
    target = checked_path(out).resolve()  # resolved, a URL looks like none
    check_new(target)
    if texts is not None and not texts:
        raise ConfigError("no texts to prove parity on; give at least one, or none at all for made-up ones")
    loaded = load_run(run, device="cpu", fold=True)
    refuse_long(loaded.encoder.long, force)
    writes = isinstance(loaded.encoder, QuestionEncoder)
    if writes:
        refuse_prior(loaded.manifest, force)
    else:
        assert isinstance(loaded.encoder, TextEncoder)
        _refuse_what_stock_cannot_say(loaded.manifest, loaded.encoder, loaded.method.stock.config, force)
    stock = loaded.folded()
    calibration = Calibration.from_json(loaded.manifest)
    folded, notes = (Calibration(), []) if writes else _fold_calibration(stock, calibration)
    if calibration.multi_label and writes:
        raise ConfigError(
            "a multi-label run of the generate method asks yes or no of each label, which no stock folder does; serve the run"
        )
    notes += _what_stays(loaded)
    dtype = pick_precision(torch.device("cpu"), loaded.manifest["parameters"]["all"]).weights
    (stock if writes else stock.base_model).to(dtype)
    stock.config.dtype = dtype
    tokenizer, taught = _taught_tokenizer(Path(run), loaded.encoder)
    notes += taught
    with whole_folder(target) as folder, quiet_transformers():
        stock.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        check_prompt(folder, loaded.encoder)
        most = PARITY_TEXTS_WRITTEN if writes else PARITY_TEXTS
        made_up = sample_pairs if loaded.manifest.get(PAIR_COLUMN) else sample_texts
        asked = list(made_up(tokenizer, most) if texts is None else texts)[:most]
        alike = read_alike(loaded.encoder, asked)
        notes += left_out_note(len(asked), len(alike))
        asked = [asked[place] for place in alike]
        if isinstance(loaded.encoder, QuestionEncoder):
            write_prompt(folder, loaded.encoder, tokenizer)
        proven, agreement, difference = _parity(run, folder, asked, folded)
        if proven < LEAST_AGREEMENT:
            raise ArtifactError(
                f"{target}: the exported model gives the run's label on only {proven:.2%} of {len(asked):,} texts "
                f"(needed: {LEAST_AGREEMENT:.1%}; largest logit difference {difference:.3g}); nothing was written"
            )
        if agreement < proven:
            notes.append(f"the rest of the calibration stays with the run, which gives another label to {1 - agreement:.1%} of the texts")
        write_card(Path(run), folder, loaded.manifest, notes)
    return ExportResult(target, len(asked), agreement, difference, tuple(notes))


def _what_stays(loaded: LoadedRun) -> list[str]:
    """Lines on what the run does and a stock folder does not."""
    notes, labelling = [], Labelling.from_json(loaded.manifest)
    if labelling.multi_label:
        below = ", and so does that a label brings those it lies below" if labelling.hierarchy is not None else ""
        notes.append(f"a stock folder gives each label's probability: the thresholds from which labels are given stay with the run{below}")
    if any(loaded.manifest.get(name) for name in ("abstention", "prediction_sets", "novelty")):
        notes.append("a stock folder gives probabilities alone: threshold, prediction sets and novelty stay with the run")
    if loaded.encoder.long not in CUT_AT_THE_END:
        longest = loaded.encoder.max_length
        notes.append(f"a stock folder cuts texts of more than {longest} tokens at their end: for these it answers otherwise")
    return notes


def _refuse_what_stock_cannot_say(manifest: dict[str, Any], encoder: TextEncoder, config: Any, force: bool) -> None:
    if not has_stock_classifier(config):
        raise ConfigError(
            f"transformers has no classifier for models of type {config.model_type!r}, so it would open no such folder; use the run "
            "itself, or train with --method generate, which exports as a language model"
        )
    if manifest["head"] != "linear":
        raise ConfigError(
            f"a {manifest['head']} head has no place in the stock layout (one linear named score); train with --head linear to export"
        )
    if manifest.get("merged"):
        raise ConfigError("labels that were merged are sums of several outputs, and a stock layout has one for each; train again to export")
    if isinstance(encoder, PairEncoder) and encoder.template != "{text}" and not force:
        raise ConfigError(
            f"the run reads pairs inside a prompt ({encoder.template!r}) which a stock pipeline does not add; with --force the folder is "
            "written, and you write each pair into the prompt yourself"
        )


def _taught_tokenizer(run: Path, encoder: TextEncoder | QuestionEncoder) -> tuple[Any, list[str]]:
    """The run's tokenizer, shortening and laying out as its encoder does, with a note for what it was told to."""
    tokenizer: Any = load_tokenizer(run / "model")
    tokenizer.model_max_length = encoder.max_length
    if isinstance(encoder, PairEncoder):
        return tokenizer, teach_pairs(tokenizer, encoder) if encoder.template == "{text}" else []
    return tokenizer, teach_prompt(tokenizer, encoder) if isinstance(encoder, TextEncoder) else []


def _fold_calibration(stock: PreTrainedModel, calibration: Calibration) -> tuple[Calibration, list[str]]:
    """Puts the calibration into the last linear of the head, so that the model's logits are the calibrated ones.

    What could be put in comes back, and a note where that is not all: the summands of vector scaling need a bias, which heads of decoders
    have not.
    """
    # Not the pooler's: what comes after its tanh is no multiple of what comes before.
    heads = [head for name, head in head_modules(stock).items() if not name.endswith(".pooler")]
    linears = [m for head in heads for m in head.modules() if isinstance(m, torch.nn.Linear)]
    if not linears:
        raise ConfigError("the head ends in no linear layer; its calibration cannot be folded in")
    weight = linears[-1].weight
    bias: torch.Tensor | None = linears[-1].bias
    notes: list[str] = []
    if calibration.scale is not None and bias is None:
        notes.append(
            f"{'the summand of the calibration' if calibration.multi_label else 'vector scaling'} has no place in a head without bias: "
            "the temperature, fitted on the same rows, is folded in instead"
        )
        calibration = replace(calibration, scale=None, bias=None)
    with torch.no_grad():
        scale = torch.tensor(calibration.scale or [1 / calibration.temperature] * len(weight), dtype=weight.dtype)
        weight.mul_(scale[:, None])
        if bias is not None:
            bias.mul_(scale).add_(torch.tensor(calibration.bias or [0.0] * len(weight), dtype=bias.dtype))
    return calibration, notes


def _parity(run: str | Path, folder: Path, texts: list[Text], folded: Calibration) -> tuple[float, float, float]:
    """Shares of equal labels, run against plain transformers: calibrated by what was folded in, and as the run answers; and the largest
    difference of the logits of the former.

    Both sides compute in float32: it is the weights and the layout that are proven. In bfloat16 a real model differs from itself in the
    label of one made-up text in a hundred, by the way its rows were batched alone.
    """
    loaded = load_run(run, device="cpu", fold=True)
    if isinstance(loaded.method, GenerateMethod):
        loaded.method.correct_prior = False
    classifier = Classifier(loaded)
    scores = classifier.logits(texts).logits
    if isinstance(loaded.encoder, QuestionEncoder):
        theirs = stock_scores(folder, loaded.encoder.encode(texts), loaded.method.pad_id)
    else:
        template = classifier.describe()["prompt"]
        theirs = _stock_logits(folder, [filled(template, text) for text in texts])
    assert np.isfinite(theirs).all()
    ours, own = folded.apply(scores), Calibration.from_json(loaded.manifest).apply(scores)
    several = folded.multi_label
    return _alike(ours, theirs, several), _alike(own, theirs, several), float(np.abs(ours - theirs).max())


def _alike(ours: np.ndarray, theirs: np.ndarray, several: bool) -> float:
    same = ((ours > 0) == (theirs > 0)).all(axis=1) if several else ours.argmax(1) == theirs.argmax(1)
    return float(same.mean())


@torch.inference_mode()
def _stock_logits(folder: Path, texts: list[Text]) -> np.ndarray:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False, dtype=torch.float32).eval()
    order = sorted(range(len(texts)), key=lambda at: -sum(map(len, texts[at])))
    logits = np.zeros((len(texts), model.config.num_labels), dtype=np.float32)
    for first in range(0, len(order), PARITY_BATCH):
        rows = order[first : first + PARITY_BATCH]
        batch = tokenizer(*columns([texts[at] for at in rows]), padding=True, truncation=True, return_tensors="pt")
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask", *_types(texts)) if name in batch}
        logits[rows] = model(**inputs).logits.float().numpy()
    return logits


def _types(texts: Sequence[Text]) -> tuple[str, ...]:
    """What tells the texts of pairs apart, which stock code gives to a model as its tokenizer says."""
    return () if all(isinstance(text, str) for text in texts) else ("token_type_ids",)
