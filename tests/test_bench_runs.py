"""What every bench ends with."""

from __future__ import annotations

import json

import pytest

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
