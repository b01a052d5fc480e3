"""What every bench ends with, and on what some of them measure."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import audit_thucnews, extend_titles, headline_long, trust_thucnews
from bench.runs import conclude, conclude_all, name_of


def test_the_last_line_has_name_ratio_goal_and_whether_it_is_met(capsys: pytest.CaptureFixture[str]) -> None:
    conclude("faster", 1.5, 2.0, rows=3)
    conclude("smaller", 0.3, 0.4, at_most=True)
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first == {"name": "faster", "ratio": 1.5, "goal": 2.0, "met": False, "rows": 3}
    assert second["met"] is True


def test_of_several_figures_the_one_furthest_below_its_goal_speaks(capsys: pytest.CaptureFixture[str]) -> None:
    conclude_all("all", {"a": (3.0, 2.0), "b": (0.9, 1.0), "c": (50.0, 40.0)})
    line = json.loads(capsys.readouterr().out)
    assert (line["ratio"], line["goal"], line["met"]) == (0.9, 1.0, False)
    assert {name: one["met"] for name, one in line["figures"].items()} == {"a": True, "b": False, "c": True}


def test_runs_of_other_options_have_other_names() -> None:
    assert name_of("titles", {}) == "titles"
    assert name_of("titles", {"epochs": 2, "model": "a/b"}) == "titles_epochs-2_model-a-b"


def test_long_documents_have_two_goals_where_truncation_is_a_run_of_the_set(capsys: pytest.CaptureFixture[str]) -> None:
    above = {"TF-IDF": {"macro_f1": {"points": 0.116}}, "frozen_512": {"macro_f1": {"points": -0.038}}}
    scores = {"windows": {"macro_f1": 0.62}, "frozen_512": {"macro_f1": 0.658}, "TF-IDF": {"macro_f1": 0.504}}
    conclude_all("long", headline_long.goals(above, scores))
    assert json.loads(capsys.readouterr().out)["met"] is False
    del scores["frozen_512"]
    conclude_all("long", headline_long.goals(above, scores))
    assert json.loads(capsys.readouterr().out)["met"] is True


def test_the_audit_ends_with_the_figure_furthest_below_its_goal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"near_found": 1.0, "near_clean_flagged": 0.0, "leaks_found": 1.0, "leaks_clean_flagged": 0.0, "flips_found": 0.5}
    monkeypatch.setattr(audit_thucnews, "find_planted", lambda seed: found)
    monkeypatch.setattr(audit_thucnews, "cost", lambda: {"rows": 9, "seconds": 20.0, "cpu_seconds": 20.0, "peak_bytes": 8e8})
    monkeypatch.setattr("sys.argv", ["audit_thucnews"])
    audit_thucnews.main()
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert (line["ratio"], line["goal"], line["met"]) == (0.5, 0.8, False)


def test_what_confidence_is_worth_ends_in_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    told = {
        "unfitted_scores": SimpleNamespace(label_ids=range(6000)), "calibration_error": 0.02, "splits": [], "coverages": 0.001,
        "targets": trust_thucnews.Targets(1.0, 1.0, 0.5, 0),
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setattr(trust_thucnews, name, lambda *given, value=value: value)
    monkeypatch.setattr("sys.argv", ["trust_thucnews", "run", "--dev", "dev.jsonl"])
    trust_thucnews.main()
    line = json.loads(capsys.readouterr().out)
    assert (line["ratio"], line["met"], len(line["figures"])) == (0.75, False, 3)


@pytest.mark.parametrize(("selecting", "expected"), [(300, 1000), (2000, 2000)])
def test_rows_that_selected_do_not_measure(selecting: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def accuracy(run: Path, known: list[str], rows: int, begin: int) -> tuple[float, float]:
        begun.append(begin)
        return 0.9, 0.9

    told = {"_class_names": list("abcdefghij"), "trained": 9.0, "was_cut_off": False, "_extended": 1.0, "_share_in_rows": 0.1}
    for name, value in {**told, "_train": Path("train.jsonl"), "_dev": Path("dev.jsonl")}.items():
        monkeypatch.setattr(extend_titles, name, lambda *given, value=value, **options: value)
    monkeypatch.setattr(extend_titles, "_accuracy", accuracy)
    monkeypatch.setattr("sys.argv", ["extend_titles", "two", "--model", "nano", "--selecting", str(selecting)])
    extend_titles.main()
    assert begun == [expected, expected]
