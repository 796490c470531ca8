"""What storage costs and how fast it is, beside limits that are measured in the same run.

    python -m benchmarks.storage [--size 10GiB | --quick] [--runs 5] [--only speed,history,topics,stalls] [--json]

`--size` is the history that is really written; it needs that much space in `--directory`, and is removed at the end.
Speeds are of the processor's time on one core, so a machine that others use too gives the same figures; what is said
of stalls and of opening is time on the wall.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.cluster import machine
from benchmarks.figures import Figure, table
from benchmarks.storage_history import history_figures
from benchmarks.storage_speed import MIB, append_figures, latency_figures, read_figures
from benchmarks.storage_stalls import load_figures, stall_figures
from benchmarks.storage_topics import topic_figures

UNITS = {"": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Beside the history: index and table of it, and what the other sections write.
SPACE_BESIDE = 3 << 30
OPEN_FILES = 4096


def size_of(text: str) -> int:
    """Return the bytes that a size like 10GiB says."""
    found = re.fullmatch(r"(\d+) ?([KMG]iB|)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 512MiB or 10GiB")
    return int(found[1]) * UNITS[found[2]]


def sections(
    directory: Path, runs: int, size: int, quick: bool
) -> dict[str, Callable[[], list[Figure]]]:
    """Return what can be measured, by name."""
    block_bytes = (4 if quick else 256) * MIB
    read_bytes = (4 if quick else 64) * MIB
    return {
        "speed": lambda: [
            *append_figures(directory, runs, block_bytes),
            *latency_figures(directory, runs, 200 if quick else 5_000),
            *read_figures(directory, runs, read_bytes),
        ],
        "history": lambda: history_figures(directory, runs, size, (1 if quick else 16) * MIB),
        "topics": lambda: topic_figures(directory, 50 if quick else 10_000, OPEN_FILES),
        "stalls": lambda: [
            *stall_figures(directory, runs, (48 if quick else 512) * MIB),
            *load_figures(directory, runs, 0.1 if quick else 3.0),
        ],
    }


def require_space(directory: Path, size: int) -> None:
    """Stop in words if the history does not fit.

    Its index takes 16 bytes for each record of 108.
    """
    needed = size * 5 // 4 + (SPACE_BESIDE if size >= SPACE_BESIDE else size)
    free = shutil.disk_usage(directory).free
    if free < needed:
        raise SystemExit(
            f"{directory} has {free / (1 << 30):.1f} GiB free, and a history of {size / (1 << 30):.1f} GiB needs "
            f"{needed / (1 << 30):.1f} GiB: name another --directory, or a smaller --size"
        )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--size", type=size_of, default="1GiB", help="history, such as 10GiB")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run at all")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", help="sections, with commas: speed, history, topics, stalls")
    parser.add_argument(
        "--directory", type=Path, help="where files are written (default: the system's)"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    size, runs = (192 * MIB, 1) if options.quick else (options.size, options.runs)
    directory = Path(tempfile.mkdtemp(prefix="distlog-bench-", dir=options.directory))
    try:
        require_space(directory, size)
        chosen = sections(directory, runs, size, options.quick)
        names = options.only.split(",") if options.only else list(chosen)
        if unknown := set(names) - set(chosen):
            parser.error(f"no section is called {', '.join(sorted(unknown))}")
        figures = {name: chosen[name]() for name in names}
    finally:
        shutil.rmtree(directory)
    if options.json:
        sections_json = {name: [f.as_dict() for f in found] for name, found in figures.items()}
        print(json.dumps({"machine": machine(), "runs": runs, "size": size, **sections_json}))
        return
    print(f"{machine()}; {runs} runs, history of {size / (1 << 30):.3g} GiB")
    for name, found in figures.items():
        print(f"\n{name}\n\n{table(found)}")


if __name__ == "__main__":
    main()
