"""The program that measures what it costs to ask whether a call may go on runs, and its target is met."""

from __future__ import annotations

import json

import pytest

from benchmarks import authorization


def test_the_program_runs_and_a_remembered_answer_costs_less_than_its_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    authorization.main(["--runs", "3", "--json"])
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert len(figures) == 1 + 4 * 3
    targets = [figure for figure in figures if figure["met"] is not None]
    assert len(targets) == 6
    assert all(figure["met"] for figure in targets), targets
