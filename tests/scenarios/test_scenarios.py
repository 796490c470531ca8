"""The scenario files beside this one: stories about what an operator relies on.  `pytest --rewrite` writes what is seen into them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.scenarios.language import ScenarioInvalid, parse, rendered
from tests.scenarios.story import run_scenario

FILES = sorted(Path(__file__).parent.glob("*.txt"))
FIRST = "# A promise.\nnodes a b c\n----\nleader a\n"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_scenario_goes_as_it_is_told(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    blocks = parse(text)
    for block, lines in zip(blocks, run_scenario(blocks), strict=True):
        block.expected = lines
    seen = rendered(blocks)
    assert "VIOLATED" not in seen, seen
    if request.config.getoption("--rewrite"):
        path.write_text(seen)
    assert path.read_text() == seen, (
        "look at the difference, and run pytest --rewrite if it is right"
    )


def test_there_are_scenarios() -> None:
    assert len(FILES) >= 10


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "begins with: nodes"),
        ("nodes a b c\n----\n", "comment"),
        ("# x\nproduce 1\n----\n", "begins with: nodes"),
        ("# x\nnodes a b c\n", "no line of dashes"),
        ("# x\n----\n", "no commands above"),
        ("# x\nnodes a b c ; explode a\n----\n", "'explode' is no command"),
        ("# x\nnodes a b c ; kill d\n----\n", "no node 'd'"),
        ("# x\nnodes a b c ; read d 1\n----\n", "no node 'd'"),
        ("# x\nnodes a b c ; nodes a\n----\n", "cluster already"),
        ("# x\nnodes a b c ; heal a\n----\n", "too many or too few"),
        ("# x\nnodes a b c ; kill\n----\n", "too many or too few"),
        ("# x\nnodes a b c ;; heal\n----\n", "empty command"),
    ],
)
def test_what_is_not_in_the_language_is_an_error(text: str, problem: str) -> None:
    with pytest.raises(ScenarioInvalid, match=problem):
        parse(text)


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("wait soon", "'soon' is not a number"),
        ("produce many", "'many' is not a number"),
        ("produce 1 of", "expected one of of, within"),
        ("produce 1 at 3", "expected one of of, within"),
        ("start a", "a is up"),
        ("kill a ; kill a", "a is down"),
    ],
)
def test_what_makes_no_sense_is_an_error_too(command: str, problem: str) -> None:
    with pytest.raises(ScenarioInvalid, match=problem):
        run_scenario(parse(f"# x\nnodes a b c ; {command}\n----\n"))


def test_a_scenario_is_rewritten_as_it_was() -> None:
    text = FIRST + "\n# And more.\nkill a ; wait 1\nstart a\n----\nleader another\n"
    assert rendered(parse(text)) == text
