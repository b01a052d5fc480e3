"""The TF-IDF baseline learns, in any script, and comes back from disk as it was."""

import json
from dataclasses import replace

import numpy as np
import pytest

from fenlei.errors import ArtifactError, DataError
from fenlei.models import baseline as module
from fenlei.models.baseline import Baseline

MARKETS_ZH = ["股市大涨，基金净值创新高", "央行下调存款准备金率", "银行股领跌大盘", "债券市场利率走低", "基金公司发布季报"]
SPORTS_ZH = ["国足客场两球取胜", "球队主帅赛后点评", "联赛冠军今晚揭晓", "前锋梅开二度", "主场球迷庆祝夺冠"]
MARKETS_EN = ["stocks rally as banks gain", "the bank cut its rates", "bond funds lose money", "shares fall on rate fears"]
SPORTS_EN = ["the striker scored two goals", "our team won the final", "coach praises his players", "the match ended in a draw"]
CHINESE, ENGLISH = [*MARKETS_ZH, *SPORTS_ZH], [*MARKETS_EN, *SPORTS_EN]
BINARY = np.array([0] * 5 + [1] * 5)


def test_learns_ten_chinese_rows():
    fitted = Baseline.fit(CHINESE, BINARY, 2)
    assert (fitted.logits(CHINESE).argmax(axis=1) == BINARY).all()
    assert fitted.logits(["基金市场", "球队夺冠"]).argmax(axis=1).tolist() == [0, 1]
    assert "characters" in fitted.description


def test_learns_words_where_there_are_spaces():
    fitted = Baseline.fit(ENGLISH, [0] * 4 + [1] * 4, 2)
    assert fitted.logits(["banks and rates", "the players scored"]).argmax(axis=1).tolist() == [0, 1]
    assert "words" in fitted.description


def test_two_labels_give_two_opposite_columns():
    scores = Baseline.fit(CHINESE, BINARY, 2).logits(CHINESE)
    assert scores.shape == (10, 2)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores[:, 0], -scores[:, 1], atol=1e-6)


def test_a_label_without_rows_is_never_the_answer():
    ids = np.array([0, 3] * 5)
    scores = Baseline.fit(CHINESE, ids, 4).logits(CHINESE)
    assert scores.shape == (10, 4)
    assert set(scores.argmax(axis=1)) <= {0, 3}
    assert np.isfinite(scores).all()


def test_a_single_label_is_always_the_answer():
    assert Baseline.fit(CHINESE, np.full(10, 1), 3).logits(["新", ""]).argmax(axis=1).tolist() == [1, 1]


@pytest.mark.parametrize(("texts", "n_labels"), [(CHINESE, 2), (ENGLISH, 4)])
def test_saved_equals_loaded(tmp_path, texts, n_labels):
    fitted = replace(Baseline.fit(texts, np.arange(len(texts)) % n_labels, n_labels), temperature=0.4)
    fitted.save(tmp_path / "baseline")
    loaded = Baseline.load(tmp_path / "baseline")
    unseen = [*texts, "something else 123", "", "全新的文本"]
    assert (loaded.logits(unseen) == fitted.logits(unseen)).all()
    assert (loaded.temperature, loaded.characters, loaded.n_labels) == (0.4, fitted.characters, n_labels)
    assert {file.suffix for file in (tmp_path / "baseline").iterdir()} == {".json", ".safetensors"}


def test_half_a_surrogate_pair_is_saved_too(tmp_path):
    fitted = Baseline.fit(["好\ud83d", "坏"], [0, 1], 2)
    fitted.save(tmp_path)
    assert (Baseline.load(tmp_path).logits(["好\ud83d"]) == fitted.logits(["好\ud83d"])).all()


def test_the_same_seed_gives_the_same_weights():
    first, second = (Baseline.fit(CHINESE, BINARY, 2, seed=7) for _ in range(2))
    assert (first.weights == second.weights).all()


def test_a_row_does_not_depend_on_the_rows_beside_it(monkeypatch):
    fitted = Baseline.fit(CHINESE, BINARY, 2)
    together = fitted.logits(CHINESE)
    monkeypatch.setattr(module, "WINDOW", 3)
    assert (fitted.logits(CHINESE) == together).all()
    assert (np.concatenate([fitted.logits([text]) for text in CHINESE]) == together).all()


def test_only_the_beginning_of_a_text_is_read(monkeypatch):
    monkeypatch.setattr(module, "ALL_TEXTS", 500)
    fitted = Baseline.fit(CHINESE, BINARY, 2)
    assert fitted.characters == 50
    assert (fitted.logits(["基" * 50 + "球队"]) == fitted.logits(["基" * 50])).all()


def test_the_number_of_features_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_FEATURES", 40)
    assert Baseline.fit(CHINESE, BINARY, 2).weights.shape == (2, 40)


def test_emoji_are_read_where_there_are_no_words():
    texts = ["👍👍", "👎👎"] * 3
    fitted = Baseline.fit(texts, [0, 1] * 3, 2)
    assert fitted.logits(texts).argmax(axis=1).tolist() == [0, 1] * 3


@pytest.mark.parametrize(
    ("texts", "ids", "message"), [([], [], "at least one"), (["a"], [0, 1], "2 ids for 1 texts"), ([" ", ""], [0, 1], "blank")]
)
def test_rows_that_cannot_be_learned_are_refused(texts, ids, message):
    with pytest.raises(DataError, match=message):
        Baseline.fit(texts, ids, 2)


def test_a_damaged_folder_is_an_error(tmp_path):
    with pytest.raises(ArtifactError, match="not a readable baseline"):
        Baseline.load(tmp_path)
    Baseline.fit(CHINESE, BINARY, 2).save(tmp_path)
    settings = tmp_path / "baseline.json"
    settings.write_text(json.dumps({**json.loads(settings.read_text()), "format_version": 99}))
    with pytest.raises(ArtifactError, match="format 99"):
        Baseline.load(tmp_path)
    settings.write_text("{")
    with pytest.raises(ArtifactError, match="not a readable baseline"):
        Baseline.load(tmp_path)
