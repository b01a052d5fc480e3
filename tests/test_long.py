"""Long documents: read in windows, trained end to end within the token budget, and the same in memory, saved and loaded."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import write_jsonl
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig

from fenlei import Classifier, train
from fenlei.cli.main import main
from fenlei.config import ModelConfig, RunConfig
from fenlei.errors import ArtifactError, ConfigError
from fenlei.export.merged import export_merged
from fenlei.inference.bulk import predict_file
from fenlei.inference.scoring import score
from fenlei.models.configuration import longest_input
from fenlei.models.devices import same_dice
from fenlei.models.head import HeadMethod
from fenlei.models.passages import AttentionPooling, MaxPooling, MeanPooling, Pooling
from fenlei.report.evaluation import evaluate_run
from fenlei.text.asking import QuestionEncoder
from fenlei.text.batches import DocumentBatch, batch_of
from fenlei.text.encoded import in_groups
from fenlei.text.prompts import TextEncoder
from fenlei.text.tokens import plain_ids
from fenlei.training import vectors
from fenlei.training.defaults import choose_long, choose_max_length
from fenlei.training.setup import Setup, prepare
from fenlei.training.vectors import score_frozen

FILLER = ["这是一句没有内容的话。", "后来又说了一些别的。", "大家都知道这件事情。", "天气还是和昨天一样。"]
TOLD = {"体育": "球队昨晚赢了比赛，球迷欢呼。", "财经": "股市大涨，央行宣布降准。"}


def long_rows(count: int, sentences: int = 14) -> list[dict[str, str]]:
    """Documents in which one sentence, at any place, tells the label."""
    generator = np.random.default_rng(0)
    rows = []
    for at in range(count):
        label = list(TOLD)[at % 2]
        told = [FILLER[one] for one in generator.integers(0, len(FILLER), sentences)]
        told[int(generator.integers(0, sentences))] = TOLD[label]
        rows.append({"text": "".join(told), "label": label})
    return rows


@pytest.fixture(scope="module")
def long_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("long") / "long.jsonl", long_rows(60))


def options(long_file: Path, model: Path, **more: Any) -> dict[str, Any]:
    return {"data": str(long_file), "model": str(model), "device": "cpu", "long": "windows", "max_length": 48, "baseline": False, **more}


def prepared(long_file: Path, model: Path, **more: Any) -> Setup:
    return prepare(RunConfig.from_options(options(long_file, model, **more)))


def gradients(setup: Setup, rows: list[int], budget: int) -> dict[str, torch.Tensor]:
    setup.method.zero_grad()
    batch = batch_of(setup.train, rows, setup.method.pad_id, budget)
    gold = torch.from_numpy(setup.label_ids[rows])
    torch.nn.functional.cross_entropy(setup.method(batch).logits, gold).backward()
    return {name: weight.grad.clone() for name, weight in setup.method.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize(("tuning", "method"), [("lora", "head"), ("full", "head"), ("lora", "generate")])
def test_the_gradient_is_exact_however_small_the_budget(long_file: Path, tiny_qwen: Path, tuning: str, method: str) -> None:
    """Many windows at once, or a few and computed again: the same gradient, of the backbone and of what joins the windows."""
    more = {"max_length": 120} if method == "generate" else {}
    setup = prepared(long_file, tiny_qwen, tuning=tuning, method=method, **more)
    setup.method.train()
    if isinstance(setup.method, HeadMethod):
        assert isinstance(setup.method.pooling, AttentionPooling)
        torch.nn.init.normal_(setup.method.pooling.score.weight)
    small = batch_of(setup.train, [0, 1, 2], 0, 64)
    assert isinstance(small, DocumentBatch)
    assert small.recompute
    assert len(small.parts) > 2
    whole, divided = gradients(setup, [0, 1, 2], 100_000), gradients(setup, [0, 1, 2], 64)
    assert whole.keys() == divided.keys()
    assert {name for name, weight in setup.method.named_parameters() if weight.requires_grad} == whole.keys()
    for name, gradient in whole.items():
        torch.testing.assert_close(divided[name], gradient, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("method", ["head", "generate"])
def test_windows_computed_again_drop_out_the_same_on_any_device(
    method: str, long_file: Path, tiny_qwen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch sets back the random numbers of the devices of the tensors that it is given, and looks into no batch for them."""
    setup = prepared(long_file, tiny_qwen, tuning="lora", method=method, max_length=120 if method == "generate" else 48)
    given: list[tuple[list[torch.device], Any, Any]] = []

    def watched(read: Any, *arguments: Any, **named: Any) -> Any:
        same = named["context_fn"]
        given.append(([one.device for one in arguments if isinstance(one, torch.Tensor)], same.func, same.args))
        return checkpoint(read, *arguments, **named)

    monkeypatch.setattr("fenlei.models.passages.checkpoint", watched)
    gradients(setup, [0, 1, 2], 64)
    assert len(given) > 2
    device = setup.method.device
    assert all(one == ([device], same_dice, (device,)) for one in given)


def kept_for_backward(setup: Setup, rows: list[int], budget: int) -> int:
    """Bytes of the largest set of activations that autograd holds at the end of a forward pass."""
    own = {weight.untyped_storage().data_ptr() for weight in setup.method.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = batch_of(setup.train, rows, setup.method.pad_id, budget)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = setup.method(batch)
    assert output.logits.requires_grad
    return sum(kept.values())


def test_memory_is_bounded_by_the_budget(tmp_path: Path, tiny_qwen: Path) -> None:
    """A document of four times the windows holds hardly more for the backward pass."""
    path = tmp_path / "long.jsonl"
    rows = [*long_rows(20, sentences=40), *long_rows(2, sentences=160)]
    write_jsonl(path, rows)
    setup = prepared(path, tiny_qwen, tuning="lora", dev_ratio=0.1)
    setup.method.train()
    lengths = setup.train.lengths
    long, longer = int(np.argsort(lengths)[len(lengths) // 2]), int(lengths.argmax())
    assert lengths[longer] > 3 * lengths[long]
    assert kept_for_backward(setup, [longer], 10**6) > 3 * kept_for_backward(setup, [long], 10**6)
    assert kept_for_backward(setup, [longer], 256) < 0.3 * kept_for_backward(setup, [long], 10**6)


@pytest.mark.parametrize("pooling", [MeanPooling(), MaxPooling(), AttentionPooling(8)])
def test_documents_beside_each_other_do_not_mix(pooling: Pooling) -> None:
    if isinstance(pooling, AttentionPooling):
        torch.nn.init.normal_(pooling.score.weight)
    states, counts = torch.randn(9, 8), torch.tensor([3, 1, 5])
    joined, weights = pooling(states, states, counts)
    alone = [pooling(part, part, torch.tensor([len(part)])) for part in states.split([3, 1, 5])]
    torch.testing.assert_close(joined, torch.cat([one for one, _ in alone]))
    torch.testing.assert_close(joined[1], states[3], msg="one window is its document")
    if weights is not None:
        torch.testing.assert_close(weights, torch.cat([one for _, one in alone if one is not None]))
        torch.testing.assert_close(torch.stack([one.sum() for one in weights.split([3, 1, 5])]), torch.ones(3))


def test_attention_knows_the_place_of_a_window() -> None:
    pooling = AttentionPooling(4)
    torch.nn.init.normal_(pooling.score.weight)
    same = torch.ones(4, 4)
    _, weights = pooling(same, same, torch.tensor([4]))
    assert weights is not None
    assert len(set(weights.tolist())) == 4


def test_attention_finds_the_passage_that_tells(long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    """Trained end to end, saved and loaded; the weightiest passage is mostly the one with the telling sentence."""
    run = tmp_path / "run"
    train(out=run, **options(long_file, tiny_qwen, tuning="full", learning_rate=3e-3, epochs=8, batch_size=8))
    classifier = Classifier.load(run, device="cpu")
    rows = long_rows(40)
    texts = [row["text"] for row in rows]
    predictions = classifier.predict(texts)
    right = [one.label == row["label"] for one, row in zip(predictions, rows, strict=True)]
    assert np.mean(right) > 0.9
    found = []
    for row, one in zip(rows, predictions, strict=True):
        assert one.passages is not None
        assert sum(passage.weight for passage in one.passages) == pytest.approx(1, abs=1e-4)
        told = row["text"].index(TOLD[row["label"]])
        best = max(one.passages, key=lambda passage: passage.weight)
        found.append(best.begin <= told < best.end)
    assert np.mean(found) > 0.7
    alone = np.concatenate([classifier.predict_proba([text]) for text in texts[:8]])
    np.testing.assert_allclose(alone, classifier.predict_proba(texts[:8]), atol=1e-5)
    manifest = json.loads((run / "fenlei.json").read_text(encoding="utf-8"))
    assert (manifest["long"], manifest["max_length"]) == ("windows", 48)
    assert (run / "model" / "windows.safetensors").exists()


@pytest.mark.parametrize(
    ("tuning", "long", "model"),
    [("frozen", "windows", "tiny_qwen"), ("lora", "windows", "tiny_bert"), ("frozen", "max", "tiny_llama"), ("lora", "mean", "tiny_qwen")],
)
def test_saved_is_what_was_trained(
    long_file: Path, tmp_path: Path, tuning: str, long: str, model: str, learned: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """The network in memory and the run loaded back give the same; with frozen, from cached vectors of windows."""
    run, base = tmp_path / "run", request.getfixturevalue(model)
    more = options(long_file, base, tuning=tuning, long=long, learning_rate=1e-2, max_steps=4)
    result = train(out=run, **more)
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    last = [entry for entry in metrics["history"] if "eval_accuracy" in entry]
    assert any(entry["eval_accuracy"] == pytest.approx(result.metrics.accuracy) for entry in last)
    loaded = Classifier.load(run, device="cpu").logits(learned["texts"])
    np.testing.assert_allclose(loaded.logits, learned["logits"], atol=1e-5)
    assert loaded.windows is not None
    assert (loaded.weights is None) == (long == "mean")


def test_no_more_windows_are_joined_at_once_than_memory_is_meant_for(
    long_file: Path, tiny_qwen: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a document has; and what is said of it does not depend on how many are joined together."""
    joined: list[int] = []
    forward = AttentionPooling.forward

    def counted(self: AttentionPooling, states: torch.Tensor, values: torch.Tensor, counts: torch.Tensor) -> Any:
        joined.append(len(states))
        return forward(self, states, values, counts)

    setup = prepared(long_file, tiny_qwen, tuning="frozen")
    assert isinstance(setup.method, HeadMethod)
    assert isinstance(setup.method.pooling, AttentionPooling)
    torch.nn.init.normal_(setup.method.pooling.score.weight)
    together = score_frozen(setup.method.eval(), setup.base, setup.selecting, 2, keep_states=True)
    monkeypatch.setattr(AttentionPooling, "forward", counted)
    monkeypatch.setattr(vectors, "SCORED_ROWS", 7)
    in_turn = score_frozen(setup.method, setup.base, setup.selecting, 2, keep_states=True)
    assert max(joined) <= 7 < sum(joined)
    for name in ("logits", "pooled", "weights"):
        np.testing.assert_allclose(getattr(in_turn, name), getattr(together, name), atol=1e-6)
    joined.clear()
    train(out=tmp_path / "run", **options(long_file, tiny_qwen, tuning="frozen", max_steps=2, batch_size=1))
    assert max(joined) <= 7, "nor where the selecting rows are measured"


def test_rows_go_in_groups_by_their_windows(long_file: Path, tiny_qwen: Path) -> None:
    encoded = prepared(long_file, tiny_qwen, tuning="frozen").selecting
    assert encoded.windows is not None
    counts = encoded.windows.counts
    for most in (1, 5, 7, 1000):
        groups = list(in_groups(encoded, most))
        assert [row for group in groups for row in group] == list(range(len(encoded)))
        assert all(counts[group].sum() <= most or len(group) == 1 for group in groups)
        assert all(counts[[*one, two[0]]].sum() > most for one, two in itertools.pairwise(groups)), "none has room for the next row"


def test_the_saved_attention_is_read_back(long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(out=run, **options(long_file, tiny_qwen, tuning="frozen", learning_rate=1e-2, max_steps=6))
    texts = [long_rows(2)[0]["text"]]
    before = Classifier.load(run, device="cpu").logits(texts)
    assert before.weights is not None
    assert np.ptp(before.weights) > 1e-4, "attention has learned something"
    (run / "model" / "windows.safetensors").unlink()
    with pytest.raises(ArtifactError, match=r"windows\.safetensors"):
        Classifier.load(run, device="cpu")


def test_generate_averages_the_scores_of_windows(long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(out=run, **options(long_file, tiny_qwen, tuning="none", method="generate", max_length=120))
    classifier = Classifier.load(run, device="cpu")
    text = "".join(FILLER) * 6
    scores = classifier.logits([text])
    assert scores.windows is not None
    assert len(scores.windows.spans) > 1
    each = classifier.logits([text[begin:end] for begin, end in scores.windows.spans.tolist()])
    np.testing.assert_allclose(scores.logits[0], each.logits.mean(axis=0), atol=1e-4)
    assert classifier.predict([text])[0].passages is None, "all count the same"
    with_labels = classifier.logits([text, "短"], labels=["体育", "财经", "科技"])
    assert with_labels.logits.shape == (2, 3)
    zero_shot = Classifier.zero_shot(str(tiny_qwen), ["体育", "财经"], long="windows", max_length=120, device="cpu")
    np.testing.assert_allclose(zero_shot.logits([text]).logits[0], scores.logits[0], atol=1e-4)


@pytest.mark.parametrize("long", ["head-tail", "full"])
def test_a_generate_run_reads_a_long_text_as_it_was_told(long: str, long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    length = None if long == "full" else 120
    more = {"tuning": "lora", "method": "generate", "max_steps": 1, "long": long, "max_length": length}
    train(out=tmp_path / "run", **options(long_file, tiny_qwen, **more))
    classifier, text = Classifier.load(tmp_path / "run", device="cpu"), "".join(FILLER) * 12
    assert classifier.describe()["max_length"] == (length or 256), "full: all that the model takes"
    encoder = classifier._run.encoder
    assert isinstance(encoder, QuestionEncoder)
    question, (ids,) = encoder.question(), plain_ids(encoder._tokenizer, [text])
    assert len(ids) > question.room
    tail = question.room // 2 if long == "head-tail" else 0
    read = [*ids[: question.room - tail], *ids[len(ids) - tail :]]
    encoded = encoder.encode([text])
    np.testing.assert_array_equal(encoded[0], [*read, *question.after, *question.tree.tokens])
    (prediction,) = classifier.predict([text])
    assert prediction.tokens_cut == len(ids) - question.room
    assert prediction.passages is None
    untrained = Classifier.zero_shot(str(tiny_qwen), classifier.labels, long=long, max_length=length, device="cpu")
    assert untrained.predict([text])[0].tokens_cut == prediction.tokens_cut


def test_generate_asks_each_window_of_every_label(tiny_qwen: Path, tmp_path: Path) -> None:
    """Multi-label: a label's log-odds are the mean of what each window says of it, whatever the others are given."""
    path, run = tmp_path / "many.jsonl", tmp_path / "run"
    rows = [{"text": row["text"], "label": [row["label"], *(["长"] if at % 3 else [])]} for at, row in enumerate(long_rows(60))]
    write_jsonl(path, rows)
    train(out=run, **options(path, tiny_qwen, tuning="lora", method="generate", max_steps=2, max_length=190))
    classifier, text = Classifier.load(run, device="cpu"), "".join(FILLER) * 6
    scores = classifier.logits([text, "短。"])
    assert scores.windows is not None
    spans = scores.windows.spans[: scores.windows.first[1]].tolist()
    assert len(spans) > 1
    each = classifier.logits([text[begin:end] for begin, end in spans])
    np.testing.assert_allclose(scores.logits[0], each.logits.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(scores.logits[1], classifier.logits(["短。"]).logits[0], atol=1e-4)
    long, short = classifier.answer(scores)
    assert (long.tokens_cut, short.tokens_cut) == (0, 0)
    assert set(long.labels or ()) <= {"体育", "财经", "长"}
    decision = classifier.trust.decision
    assert decision is not None
    shares = np.array([list(long.probabilities.values())])
    assert set(long.answer) == {name for name, given in zip(classifier.labels, decision.chosen(shares)[0], strict=True) if given}


def test_full_reads_all_that_the_model_takes_and_head_tail_both_ends(long_file: Path, tiny_qwen: Path) -> None:
    full = prepared(long_file, tiny_qwen, tuning="lora", long="full", max_length=None)
    assert full.encoder.max_length == 256
    tail = prepared(long_file, tiny_qwen, tuning="lora", long="head-tail")
    whole = TextEncoder(tail.tokenizer, None, 100_000).encode([example.text for example in tail.dataset.train])
    assert whole.longest_input > 256
    np.testing.assert_array_equal(full.train[0], whole[0][:256])
    np.testing.assert_array_equal(tail.train[0], [*whole[0][:25], *whole[0][-23:]])  # the first token, then 24 and 23 of the text
    assert tail.train.tokens_cut[0] == len(whole[0]) - 48


def test_longrope_is_read_no_further_than_its_factors_stay() -> None:
    """Beyond, it takes others for all rows of a batch, and a short text's answer depends on the long one beside it."""
    told = {"rope_type": "longrope", "rope_theta": 10_000.0, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    shape = {"hidden_size": 32, "num_attention_heads": 2, "max_position_embeddings": 64, "original_max_position_embeddings": 16}
    takes = longest_input(AutoConfig.for_model("phi3", rope_parameters=told, **shape))
    assert takes == 16
    length, choice = choose_max_length(ModelConfig(max_length=40), takes)
    assert (length, "40 were asked for" in str(choice)) == (16, True)


def test_a_document_of_200_000_characters_and_odd_ones(long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    run, data = tmp_path / "run", tmp_path / "rows.jsonl"
    rows = [{"text": "央行宣布降准。" * 28_572, "label": next(iter(TOLD))}, *long_rows(8)]
    write_jsonl(data, rows)
    given = options(data, tiny_qwen, dev=str(long_file), tuning="frozen", max_steps=2, batch_size=9, layers=1, max_length=250)
    assert "of 9 training texts are read in more than one window" in " ".join(train(out=run, **given).notes)
    texts = ["央行宣布降准" * 33_334, "", " \n" * 500, "。", "短。"]
    predictions = Classifier.load(run, device="cpu").predict(texts)
    assert [one.tokens_cut for one in predictions] == [0] * 5
    assert predictions[0].passages is not None
    assert predictions[0].passages[-1].end == len(texts[0])
    assert all(np.isfinite(one.confidence) for one in predictions)


def test_generate_averages_the_windows_of_odd_documents(tiny_qwen: Path) -> None:
    classifier = Classifier.zero_shot(str(tiny_qwen), ["体育", "财经"], long="windows", max_length=250, device="cpu")
    predictions = classifier.predict(["央行宣布降准" * 33_334, "", " \n" * 500, "。"])
    assert [one.tokens_cut for one in predictions] == [0] * 4
    assert all(0.5 <= one.confidence <= 1 for one in predictions)


@pytest.mark.parametrize("long", ["truncate", "head-tail", "full", "mean", "max"])
def test_every_way_takes_200_000_characters(long: str, long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    train(out=tmp_path / "run", **options(long_file, tiny_qwen, tuning="frozen", max_steps=1, layers=1, max_length=None, long=long))
    (one,) = Classifier.load(tmp_path / "run", device="cpu").predict(["央行宣布降准" * 33_334])
    assert 0 < one.confidence <= 1
    assert (one.tokens_cut == 0) == (long in ("mean", "max"))
    if long == "max":
        assert one.passages is not None
        assert sum(passage.weight for passage in one.passages) == pytest.approx(1, abs=1e-3)


def test_windows_share_the_token_budget(long_file: Path, tiny_qwen: Path) -> None:
    setup = prepared(long_file, tiny_qwen, tuning="lora")
    widest = 0
    for budget in (96, 1000):
        scores = score(setup.method.eval(), setup.selecting, 2, batch_tokens=budget)
        batch = batch_of(setup.selecting, range(len(setup.selecting)), 0, budget)
        assert isinstance(batch, DocumentBatch)
        assert all(part.input_ids.numel() <= budget for part in batch.parts)
        widest = max(widest, *(len(part.input_ids) for part in batch.parts))
        reference = scores.logits if budget == 96 else reference  # noqa: F821
        np.testing.assert_allclose(scores.logits, reference, atol=1e-4)
    assert widest > 8, "windows of several documents go through together"


@pytest.mark.parametrize(
    ("lengths", "given", "method", "expected"),
    [
        ([20, 30], None, "head", "truncate"),
        ([500] * 99 + [1100], None, "head", "truncate"),
        ([4000] * 10, None, "head", "windows"),
        ([4000] * 10, None, "generate", "head-tail"),
        ([4000] * 10, "truncate", "head", "truncate"),
    ],
)
def test_the_choice_follows_the_lengths(lengths: list[int], given: Any, method: Any, expected: str) -> None:
    long, choice = choose_long(ModelConfig(long=given, method=method), lengths, 32_768)
    assert long == expected
    assert (choice is None) == (given is not None or max(lengths) <= 1024)
    if expected == "windows":
        assert "100% of the training texts are longer than 1,024 tokens" in str(choice)


def test_training_says_how_long_texts_are_read(long_file: Path, tiny_qwen: Path) -> None:
    setup = prepared(long_file, tiny_qwen, tuning="frozen", long=None)
    assert setup.config.model.long == "windows"
    assert any(note.startswith("long windows: 100% of the training texts are longer than 48 tokens") for note in setup.notes)
    assert any("read in more than one window" in note for note in setup.notes)


@pytest.mark.parametrize("method", ["head", "generate"])
def test_what_a_prompt_leaves_room_for_is_what_counts(method: str, tiny_qwen: Path, tmp_path: Path) -> None:
    """Texts that would fit alone do not where the prompt, or the labels it names, take most of the length."""
    names = [f"关于{name}的新闻报道与评论" for name in ("体育比赛", "财经市场")]
    rows = [{"text": "国足热身赛两球取胜" * 10 + str(at), "label": names[at % 2]} for at in range(12)]
    data = write_jsonl(tmp_path / "rows.jsonl", rows)
    prompt = {"prompt": "请判断下面文本的类别。" * 6 + "{text}"} if method == "head" else {}
    setup = prepared(data, tiny_qwen, method=method, tuning="lora", long=None, max_length=200, **prompt)
    alone = prepared(data, tiny_qwen, tuning="lora", long=None, max_length=200)
    assert alone.config.model.long == "truncate"
    assert not alone.train.tokens_cut.any()
    assert setup.config.model.long == ("windows" if method == "head" else "head-tail")
    assert any(note.startswith(f"long {setup.config.model.long}: 100% of") and "(the prompt takes " in note for note in setup.notes)
    if method == "generate":
        assert any("texts are with the prompt longer than 200 tokens" in note for note in setup.notes)


@pytest.mark.parametrize("long", ["mean", "max"])
def test_states_are_not_joined_where_there_are_none(long: str) -> None:
    with pytest.raises(ConfigError, match="belongs to method head"):
        RunConfig.from_options({"method": "generate", "long": long})


@pytest.fixture(scope="module")
def windows_run(long_file: Path, tiny_qwen: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("windows") / "run"
    train(out=run, **options(long_file, tiny_qwen, tuning="frozen", max_steps=2))
    return run


@pytest.mark.parametrize("kind", ["pandas", "iterator"])
def test_windows_are_cut_from_the_text_of_their_own_place(kind: str, windows_run: Path) -> None:
    """Whatever hands the texts out: a Series is looked up by its index, and an iterator is used up."""
    classifier = Classifier.load(windows_run, device="cpu")
    texts = [row["text"] * times for times, row in enumerate(long_rows(4), start=1)]

    def given() -> Any:
        return iter(texts) if kind == "iterator" else pytest.importorskip("pandas").Series(texts, index=range(len(texts))[::-1])

    assert classifier.predict(given()) == classifier.predict(texts)
    np.testing.assert_array_equal(classifier.predict_proba(given()), classifier.predict_proba(texts))


def test_predictions_tell_the_passages_on_request(windows_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "new.jsonl", tmp_path / "out.jsonl"
    text = long_rows(1)[0]["text"]
    source.write_text(json.dumps({"text": text}, ensure_ascii=False) + "\n" + json.dumps({"text": "短。"}) + "\n", encoding="utf-8")
    assert main(["predict", str(windows_run), str(source), "--out", str(out), "--passages", "--device", "cpu"]) == 0
    long, short = (json.loads(line) for line in out.read_text(encoding="utf-8").splitlines())
    assert len(long["passages"]) == 3
    weights = [passage["weight"] for passage in long["passages"]]
    assert weights == sorted(weights, reverse=True)
    assert all(passage["text"] == text[passage["begin"] : passage["end"]] for passage in long["passages"])
    assert short["passages"] == [{"begin": 0, "end": 2, "weight": 1.0, "text": "短。"}]
    assert main(["predict", str(windows_run), "--text", text, "--passages", "--device", "cpu"]) == 0
    assert capsys.readouterr().out.count("passage\t0.") == 3
    predict_file(Classifier.load(windows_run, device="cpu"), source, tmp_path / "plain.jsonl")
    assert "passages" not in (tmp_path / "plain.jsonl").read_text(encoding="utf-8")


def test_a_service_says_that_windows_read_all_of_a_text(windows_run: Path) -> None:
    pytest.importorskip("fastapi")
    from serving import running

    text = long_rows(1)[0]["text"]
    (expected,) = Classifier.load(windows_run, device="cpu").predict([text])
    with running(windows_run) as service:
        reply = service.post("/predict", {"inputs": text, "truncate": False})
        assert {one["label"]: one["score"] for one in reply.json} == pytest.approx(expected.probabilities, abs=1e-5)
        assert service.server.service.served.max_length is None
        info = service.get("/info").json
        (card,) = service.get("/v1/models").json["data"]
    # No text that is taken has more tokens: who shortens texts to this cuts none.
    assert info["max_input_length"] == card["max_model_len"] == 4 * 100_000


def test_the_report_shows_the_passage_that_decided(windows_run: Path, long_file: Path, tmp_path: Path) -> None:
    lines = long_file.read_text(encoding="utf-8").splitlines()
    names = {json.loads(line)["label"] for line in lines}
    told = json.loads(lines[0])
    other = json.dumps({**told, "label": (names - {told["label"]}).pop()}, ensure_ascii=False)
    (tmp_path / "asked.jsonl").write_text("\n".join([*lines, other]) + "\n", encoding="utf-8")  # one text, two labels: one is missed
    evaluation = evaluate_run(windows_run, tmp_path / "asked.jsonl", out=tmp_path / "report", device="cpu")
    assert evaluation.mistakes
    wrong = evaluation.mistakes[0]
    assert wrong.passage
    assert wrong.passage in wrong.example.text
    assert wrong.passage[:20] in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert any("in three windows or more" in note for note in evaluation.notes)
    row = json.loads((tmp_path / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert row["passages"][0]["text"] in row["text"]


def test_a_run_that_weighs_nothing_says_so(long_file: Path, tiny_qwen: Path, tmp_path: Path) -> None:
    train(out=tmp_path / "run", **options(long_file, tiny_qwen, tuning="frozen", max_steps=1, long="mean"))
    with pytest.raises(ConfigError, match="does not weigh passages"):
        predict_file(Classifier.load(tmp_path / "run", device="cpu"), long_file, tmp_path / "out.jsonl", passages=True)


def test_a_stock_folder_has_no_windows(windows_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--long windows"):
        export_merged(windows_run, tmp_path / "out")
    longer = [row["text"] for row in long_rows(8)]
    with pytest.raises(ConfigError, match="all 8 texts are longer than max_length 48"):
        export_merged(windows_run, tmp_path / "out", force=True, texts=longer)
    exported = export_merged(windows_run, tmp_path / "out", force=True, texts=["短。", *longer, "股市。"])
    assert (exported.agreement, exported.rows) == (1, 2)
    assert any("8 of 10 texts are longer" in note for note in exported.notes)
    assert any("more than 48 tokens" in note for note in exported.notes)


def test_windows_answer_with_any_number_of_labels(tiny_qwen: Path, tmp_path: Path) -> None:
    """The windows are joined before the head, whatever is learned with it."""
    path, run = tmp_path / "many.jsonl", tmp_path / "run"
    rows = [{"text": row["text"], "label": [row["label"], *(["长"] if at % 3 else [])]} for at, row in enumerate(long_rows(60))]
    write_jsonl(path, rows)
    train(out=run, **options(path, tiny_qwen, tuning="frozen", max_steps=3))
    (prediction,) = Classifier.load(run, device="cpu").predict([rows[0]["text"]])
    assert prediction.labels is not None
    assert prediction.passages is not None
    assert len(prediction.passages) > 2
