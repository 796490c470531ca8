"""What the documents say is there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.monitoring.test_deployed import is_known

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("*.md"))
# A link to a page of ours, to a heading of one, or both.
LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#]*)#?([^)]*)\)")
BLOCK = re.compile(r"^```\w*\n(.*?)^```", re.M | re.S)
FILE = re.compile(r"`((?:benchmarks|deploy|distlog|docs|proto|tests)/[\w./@*-]+)`")
TARGET = re.compile(r"^([a-z0-9 -]+):(?!=)", re.M)
MAKE = re.compile(r"\bmake ([a-z][\w-]*)")


def make_targets() -> set[str]:
    """Return the targets of the Makefile that somebody types."""
    text = (ROOT / "Makefile").read_text("utf-8")
    return {name for names in TARGET.findall(text) for name in names.split()}


def commands_of_code(text: str) -> list[str]:
    """Return the lines of a page's code blocks."""
    return [line for block in BLOCK.findall(text) for line in block.splitlines()]


def headings_of(page: Path) -> set[str]:
    """Return what the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text("utf-8")), re.M)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for path, heading in LINK.findall(page.read_text("utf-8")):
        target = page.parent / path if path else page
        if not target.exists() or (heading and heading not in headings_of(target)):
            broken.append(f"{path}#{heading}")
    assert broken == []


@pytest.mark.parametrize("page", [*PAGES, *DECISIONS], ids=lambda page: page.name)
def test_files_that_a_page_names_are_there(page: Path) -> None:
    named = FILE.findall(page.read_text("utf-8"))
    assert [name for name in named if not any(ROOT.glob(name))] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_metrics_that_a_page_names_are_there(page: Path) -> None:
    named = re.findall(r"`(distlog_[a-z0-9_]+)", page.read_text("utf-8"))
    assert [name for name in named if not is_known(name)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    quoted = " ".join([*commands_of_code(text), *re.findall(r"`([^`\n]*)`", text)])
    assert set(MAKE.findall(quoted)) - make_targets() == set()


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    run = [line for line in script.splitlines() if line.startswith("make ")]
    assert run == ["make check", "make test"]
    assert all(f"`{command}`" in readme for command in run)


def test_the_code_map_names_every_part_of_the_package() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    parts = {
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "distlog").iterdir()
        if not path.name.startswith("__") and (path.is_dir() or path.suffix == ".py")
    }
    assert {part for part in parts if f"| `{part}` |" not in text} == set()


@pytest.mark.parametrize("page", DECISIONS, ids=lambda page: page.name)
def test_a_decision_is_one_short_page(page: Path) -> None:
    text = page.read_text("utf-8")
    assert len(text.splitlines()) <= 40
    assert text.startswith(f"# {page.name[:4]} ")
    positions = [
        text.index(f"**{part}.**") for part in ("Context", "Decision", "Price", "Rejected")
    ]
    assert positions == sorted(positions)


def test_decisions_are_numbered_without_gaps() -> None:
    assert [int(page.name[:4]) for page in DECISIONS] == list(range(1, len(DECISIONS) + 1))


def test_the_changelog_has_the_version() -> None:
    namespace: dict[str, str] = {}
    exec((ROOT / "distlog" / "__init__.py").read_text("utf-8"), namespace)
    assert f"\n## {namespace['__version__']} " in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_raft_library_is_pinned_to_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert [each for each in project["dependencies"] if "pysyncobj" in each] == [
        "pysyncobj==0.3.17"
    ]
