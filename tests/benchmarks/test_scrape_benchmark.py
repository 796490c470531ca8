"""The program that measures what a look at a node costs runs: with few topics, and nothing said about time."""

from __future__ import annotations

import json

import pytest

from benchmarks import scrape


def test_the_program_measures_each_page_with_each_number_of_topics(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "TOPIC_COUNTS", (1, 2))
    monkeypatch.setattr(scrape, "LOOKS", 2)
    assert scrape.main(["--runs", "1", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)["figures"]
    assert [figure["name"] for figure in figures] == [
        f"{page} with {count} topics"
        for count in (1, 2)
        for page in ("/metrics", "/status", "/readyz")
    ]
    assert all(figure["median"] > 0 for figure in figures)
