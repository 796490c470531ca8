"""The storage benchmark runs: with tiny sizes, and nothing said about time."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from benchmarks import storage
from benchmarks.figures import Figure, table

SECTIONS = ("speed", "history", "topics", "stalls")


@pytest.mark.parametrize("section", SECTIONS)
def test_each_section_measures_something_and_leaves_nothing(
    section: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    storage.main(["--quick", "--json", "--only", section, "--directory", str(tmp_path)])
    found = json.loads(capsys.readouterr().out)
    assert [each for each in SECTIONS if each in found] == [section]
    assert all(figure["min"] <= figure["median"] <= figure["max"] for figure in found[section])
    assert list(tmp_path.iterdir()) == []


def test_a_history_that_does_not_fit_is_refused_in_words_and_nothing_is_written(
    tmp_path: Path,
) -> None:
    with pytest.raises(SystemExit, match=r"free, and a history of 1048576.0 GiB needs .* GiB"):
        storage.main(["--size", "1048576GiB", "--directory", str(tmp_path)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "size"), [("10GiB", 10 << 30), ("512 MiB", 512 << 20), ("4KiB", 4 << 10), ("77", 77)]
)
def test_a_size_is_read_as_it_is_written(text: str, size: int) -> None:
    assert storage.size_of(text) == size


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="10 apples"):
        storage.size_of("10 apples")


def test_a_figure_is_judged_by_its_ratio_to_the_limit_where_there_is_one() -> None:
    assert Figure("a", "us", [4.0, 6.0, 5.0], at_most=5.0).is_met
    assert not Figure("a", "us", [5.1], at_most=5.0).is_met
    assert Figure("a", "MB/s", [50.0], [100.0], "copy", at_least=0.5).is_met
    assert not Figure("a", "MB/s", [49.0], [100.0], "copy", at_least=0.5).is_met
    assert Figure("a", "MB/s", [1.0]).is_met is None
    lines = table([Figure("a", "MB/s", [49.0], [100.0], "copy", at_least=0.5)]).splitlines()
    assert lines[2] == "| a | 49 MB/s | 49 | 49 | 100 (copy) | 0.49 | >= 0.50 | MISSED |"
