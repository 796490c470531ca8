"""Many schedules on all cores, and what they came to: `make simulate SEEDS=500 FIRST_SEED=0`, `SEED=17`, `ABLATE=all`.

    python -m tests.simulation.campaign --seeds 500 --first-seed 0
    python -m tests.simulation.campaign --seed 17             what one schedule did
    python -m tests.simulation.campaign --ablate all          each rule left out, until something is violated

A campaign that saw too little is no proof, so it has floors, and is a failure below them.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor

from tests.simulation.schedule import Run, simulate

# What is counted, and how much of it a hundred schedules have at least.
FLOORS = {
    "crashes": 300,
    "elections": 280,
    "truncations": 12,
    "partitions": 80,
    "pauses": 60,
    "lost pages": 20_000,
    "full disks": 70,
    "transfers": 20,
    "joins begun": 10,
    "removals": 2,
    "replacements": 2,
    "acknowledged": 38_000,
    "virtual seconds": 550,
}
# Counted, without a floor.
OTHERS = (
    "runs",
    "starts",
    "stops",
    "power cuts of all",
    "connections broken",
    "clock jumps",
    "slow disks",
    "duplicates answered",
    "unknown",
    "refused",
    "reads",
    "reads refused",
    "topic calls",
    "changes refused",
)
# Fewer schedules than this prove nothing about the mixture.
FLOORS_FROM = 50


def start_pool() -> ProcessPoolExecutor:
    """Return a process for each core."""
    # Not forked: whoever starts them may have threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(os.cpu_count(), mp_context=context)


def submit(pool: ProcessPoolExecutor, seeds: Iterable[int]) -> dict[int, Future[Run]]:
    return {seed: pool.submit(simulate, seed) for seed in seeds}


class Summary:
    """The sum of many runs."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.failed: list[Run] = []

    def add(self, run: Run) -> None:
        self.counts.update(run.counts)
        if run.failures:
            self.failed.append(run)

    def table(self) -> Iterator[str]:
        """Yield lines for a terminal and for docs/simulation.md."""
        runs = max(1, self.counts["runs"])
        yield "| | in all | in a schedule |"
        yield "|---|---|---|"
        for name in ("runs", *FLOORS, *OTHERS[1:]):
            count = self.counts[name]
            yield f"| {name} | {count:,} | {count / runs:.1f} |"
        yield f"| schedules with a violation | {len(self.failed)} | |"

    def below_floors(self) -> list[str]:
        """Return what there was too little of."""
        runs = self.counts["runs"]
        if runs < FLOORS_FROM:
            return []
        return [
            f"only {self.counts[name]} {name} in {runs} schedules, expected {floor * runs // 100}"
            for name, floor in FLOORS.items()
            if self.counts[name] < floor * runs // 100
        ]


def describe(run: Run) -> str:
    """Return one line for a run, and one for each failure."""
    counts = ", ".join(f"{name} {run.counts[name]}" for name in FLOORS)
    lines = [f"seed {run.seed}: {counts}, trace {run.trace:08x}"]
    return "\n    ".join(lines + [failure[:300] for failure in run.failures])


def run_campaign(seeds: range) -> int:
    """Run all seeds, print what failed and a summary; return the exit code."""
    summary = Summary()
    with start_pool() as pool:
        for future in submit(pool, seeds).values():
            run = future.result()
            summary.add(run)
            if run.failures:
                print(describe(run), flush=True)
                print(f"    again: make simulate SEED={run.seed}", flush=True)
    print("\n".join(summary.table()))
    below = summary.below_floors()
    print("\n".join(below))
    return 1 if summary.failed or below else 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--ablate")
    arguments = parser.parse_args()
    if arguments.ablate:
        from tests.simulation.ablation import print_ablation

        return print_ablation(arguments.ablate)
    if arguments.seed is not None:
        run = simulate(arguments.seed)
        print(describe(run))
        return 1 if run.failures else 0
    return run_campaign(range(arguments.first_seed, arguments.first_seed + arguments.seeds))


if __name__ == "__main__":
    sys.exit(main())
