"""Pages of documentation that benchmarks write a part of."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"


def write_page(path: Path, marks: tuple[str, str], text: str) -> None:
    """Put `text` between two marks of a page.  Ends the process in words if it has none."""
    page_text = path.read_text("utf-8")
    before, begin, rest = page_text.partition(marks[0])
    _, end, after = rest.partition(marks[1])
    if not begin or not end:
        problem = "put them where its part shall be"
        raise SystemExit(f"{path} has no lines {marks[0]} and {marks[1]}: {problem}")
    path.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", "utf-8")
