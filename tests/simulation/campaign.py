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
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor

from tests.simulation.schedule import Run, simulate
from tests.simulation.summary import FLOORS, Summary


def start_pool(count: int | None = None) -> ProcessPoolExecutor:
    """Return so many processes, or one for each core."""
    # Not forked: whoever starts them may have threads.
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(count or os.cpu_count(), mp_context=context)


def submit(pool: ProcessPoolExecutor, seeds: Iterable[int]) -> dict[int, Future[Run]]:
    return {seed: pool.submit(simulate, seed) for seed in seeds}


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
    return 1 if summary.failed_count or below else 0


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
