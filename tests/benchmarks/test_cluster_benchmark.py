"""The benchmark of a cluster: its page says what was measured, and it runs, with tiny sizes and nothing said about time."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from benchmarks import cluster_bench
from benchmarks.cluster_bench import MARKS, QUICK
from benchmarks.cluster_loads import Loads
from benchmarks.cluster_targets import (
    COSTS,
    LIMITS,
    TARGETS,
    WHY,
    number,
    page,
    target_cells,
    verdict_of,
)
from benchmarks.limits import bare_server, measure_limits
from benchmarks.observed import WAYS, Way, observed_cluster, unwatched
from benchmarks.pages import PAGE, write_page

BY_NAME = {target.name: target for target in TARGETS}


def row(name: str, measured: dict[str, list[float]]) -> tuple[str, ...]:
    return target_cells(BY_NAME[name], measured)


def test_there_is_a_row_for_each_target() -> None:
    numbered = [f"T{number}" for number in range(1, 13)]
    assert [target.name for target in TARGETS] == [*numbered, "T13a", "T13b"]
    assert set(WHY) <= set(BY_NAME)


def test_a_ratio_is_judged_by_the_limit_of_the_same_run() -> None:
    empty = {"empty_p50_ms": [1.0, 1.2, 0.8]}
    met = {**empty, "call_p50_ms": [1.9, 1.0, 2.0], "call_p99_ms": [5.0]}
    assert verdict_of(BY_NAME["T1"], met) == "met"
    assert row("T1", met)[3] == (
        "p50 1.90 ms (1.00\N{EN DASH}2.00), 1.90 \N{MULTIPLICATION SIGN} the empty call; "
        "p99 5.00 ms, 2.63 \N{MULTIPLICATION SIGN} its p50"
    )
    for missed in ({"call_p50_ms": [2.1]}, {"call_p99_ms": [8.0]}):
        assert verdict_of(BY_NAME["T1"], {**met, **missed}) == "missed"


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert row("T2", {"stream_p50_ms": [0.5]})[3:5] == ("p50 0.50 ms; p99 -", "not measured")
    assert row("T11", {})[3:] == ("-", "not measured", WHY["T11"])


def test_a_figure_that_is_only_told_decides_nothing() -> None:
    measured = {"produce_many_per_s": [600_000.0], "produce_per_s": [1.0]}
    assert verdict_of(BY_NAME["T4"], measured) == "met"
    assert verdict_of(BY_NAME["T4"], {**measured, "produce_many_per_s": [499_999.0]}) == "missed"


def test_the_worst_of_the_trials_decides_where_p99_does() -> None:
    assert verdict_of(BY_NAME["T8"], {"failover_s": [0.1] * 9 + [1.4]}) == "met"
    assert verdict_of(BY_NAME["T8"], {"failover_s": [0.1] * 9 + [1.6]}) == "missed"


def test_the_reason_stands_beside_what_is_missed_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WHY, "T11", "because")
    assert row("T11", {"idle_percent": [2.0]})[-2:] == ("missed", "because")
    assert row("T11", {"idle_percent": [0.5]})[-2:] == ("met", "")


def test_numbers_have_about_three_figures() -> None:
    assert [number(value) for value in (0.0123, 1.234, 12.34, 123.4, 1234567.8)] == [
        "0.01", "1.23", "12.3", "123", "1,234,568",
    ]  # fmt: skip


# Of nodes that are looked at, and of the cluster beside them.
FIGURES = ("many_per_s", "own_per_s", "calls_per_s", "call_p50_ms", "call_p99_ms")


def test_every_figure_of_the_page_can_be_measured() -> None:
    """A key that nothing measures would stay "not measured" for ever."""
    sources = [Path(cluster_bench.__file__).with_name(f"{name}.py").read_text("utf-8") for name in
               ("cluster_loads", "limits", "cluster_bench")]  # fmt: skip
    named = set(re.findall(r'"(\w+)"', "\n".join(sources)))
    compared = [what for what in ("history", "topics") if what in named]
    named |= {f"{with_it}{what}_node_us" for what in compared for with_it in ("", "no_")}
    named |= {f"memory_{half}_mb" for half in ("half", "all") if half in named}
    if "observed" in named:
        named |= {
            f"{name}_{each}"
            for way in WAYS
            for name in (way.name, unwatched(way.name))
            for each in FIGURES
        }
    criteria = [each for target in TARGETS for each in target.criteria] + [*COSTS, *LIMITS]
    keys = {key for each in criteria for key in (each.key, each.limit_key) if key}
    assert keys - named == set()


def test_the_table_goes_between_the_marks_and_nothing_else_changes(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text(f"before\n\n{MARKS[0]}\nold\n{MARKS[1]}\n\nbehind\n", "utf-8")
    for text in ("| new |", "| newer |"):
        write_page(path, MARKS, text)
        assert (
            path.read_text("utf-8") == f"before\n\n{MARKS[0]}\n\n{text}\n\n{MARKS[1]}\n\nbehind\n"
        )


def test_a_page_without_marks_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "page.md"
    path.write_text("nothing", "utf-8")
    with pytest.raises(SystemExit, match="put them where its part shall be"):
        write_page(path, MARKS, "text")
    assert path.read_text("utf-8") == "nothing"


def test_the_page_of_the_project_has_the_marks_and_every_target() -> None:
    table = PAGE.read_text("utf-8").partition(MARKS[0])[2].partition(MARKS[1])[0]
    assert re.findall(r"^\| (T\d+[ab]?) \|", table, re.M) == [target.name for target in TARGETS]


def test_what_was_kept_is_shown_again_without_measuring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = {
        "machine": "a machine",
        "at": "2026-01-31",
        "busy_percent": [3.0, 4.0],
        "runs": 5,
        "trials": 10,
        "sizes": {"seconds": 2.0, "history": 1 << 30, "topics": 100},
        "measured": {"idle_percent": [0.5, 0.6, 0.4]},
    }
    path = tmp_path / "kept"
    path.write_text(json.dumps(result), "utf-8")
    cluster_bench.main(["--from", str(path)])
    text = capsys.readouterr().out
    assert text.startswith("a machine; others took 3 % of the processors before and 4 % after")
    assert text.strip().endswith(page(result["measured"], "").strip())  # type: ignore[arg-type]
    assert "| T11 | idle cluster, the busiest node |" in text


def test_an_unknown_section_is_refused() -> None:
    with pytest.raises(SystemExit, match="no section is called speed: there are latency,"):
        cluster_bench.main(["--quick", "--only", "speed"])


def test_the_limits_are_above_nothing(tmp_path: Path) -> None:
    with bare_server() as ports:
        limits = measure_limits(ports, tmp_path, 0.02)
    assert set(limits) == {limit.key for limit in LIMITS}
    assert all(value > 0 for value in limits.values())
    assert list(tmp_path.iterdir()) == []


def test_a_cluster_is_started_measured_and_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--quick", "--json", "--only", "latency,idle", "--directory", str(tmp_path)]
    cluster_bench.main(arguments)
    result = json.loads(capsys.readouterr().out)
    assert result["measured"]["call_p50_ms"][0] > 0
    assert set(result["measured"]) >= {"tail_p99_ms", "idle_percent", "empty_p50_ms"}
    assert "produce_per_s" not in result["measured"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("way", [WAYS[0], WAYS[-1]], ids=lambda way: way.name)
def test_nodes_that_are_looked_at_are_measured_and_really_are_looked_at(
    way: Way, tmp_path: Path
) -> None:
    # Each ends with an error if nobody was shown anything.
    with observed_cluster(tmp_path, way) as cluster:
        loads = list(Loads(cluster, tmp_path, QUICK).observed("topic", way.name))
    measured = {key: value for load in loads for key, value in load.items()}
    assert set(measured) == {f"{way.name}_{figure}" for figure in FIGURES}
    assert all(value > 0 for value in measured.values())
