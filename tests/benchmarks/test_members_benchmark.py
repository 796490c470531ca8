"""The program that measures how members come and go runs, and names every figure."""

from __future__ import annotations

import json

import pytest

from benchmarks import members


@pytest.mark.timeout(180)
def test_the_program_runs_and_names_every_figure(capsys: pytest.CaptureFixture[str]) -> None:
    members.main(["--quick", "--json"])
    found = json.loads(capsys.readouterr().out)
    medians = {figure["name"]: figure["median"] for figure in found["figures"]}
    assert len(medians) == 8
    assert all(0 < median < 120 for median in medians.values()), medians
    joins = [name for name in medians if "joins" in name or "the same" in name]
    replaced = [name for name in medians if "replaced" in name]
    pauses = [name for name in medians if "rolling restart" in name]
    alike = [
        name for name in medians if "form a cluster" in name or ("from" in name and "kill" in name)
    ]
    assert (len(joins), len(replaced), len(pauses), len(alike)) == (3, 1, 1, 3)
