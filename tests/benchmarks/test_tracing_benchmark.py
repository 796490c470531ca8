"""The program that measures what a traced produce costs a node runs; what is not traced costs next to nothing."""

from __future__ import annotations

import json

import pytest

from benchmarks import tracing


def test_the_program_runs_and_what_is_off_costs_less_than_its_target(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tracing.main(["--runs", "3", "--json"])
    figures = json.loads(capsys.readouterr().out)["figures"]
    names = [figure["name"] for figure in figures]
    assert names == [
        "off",
        "not sampled",
        "not sampled by its caller",
        "leader, 7 spans",
        "follower, 2 spans",
        "export of the leader's",
    ]
    assert figures[0]["met"], figures[0]
