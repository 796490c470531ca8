"""Each rule around pysyncobj left out, until something is violated: proof that the schedules bite, and that the rule is needed.

    make simulate ABLATE=all            or the name of a rule

Random schedules come first.  Where they find nothing within `SEEDS_MAX`, the fault needs a network that is worse than a schedule's (a
message twice, an acknowledgement that is late by a term) or harms the flow and no promise; then a directed schedule shows it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from tests.consensus.missing_rules import MISSING, without
from tests.consensus.test_membership import (
    a_learner_that_has_nothing_is_made_a_voter,
    a_learner_that_hears_no_leader,
    a_restart_that_forgets_who_votes,
    a_wiped_voter_votes,
    two_majorities_without_a_common_voter,
)
from tests.consensus.test_raft_rules import (
    a_candidate_that_gets_a_vote_twice,
    a_leader_that_gets_an_old_acknowledgement,
)
from tests.consensus.voters import Voters, directory_of
from tests.simulation.campaign import start_pool
from tests.simulation.schedule import Run, simulate
from tests.simulation.simulated_cluster import SimulatedCluster
from tests.simulation.virtual_loop import VirtualLoop

# Random schedules tried for each rule.
SEEDS_MAX = 60
RECORD_SIZE = 500_000
WINDOW_SIZE = 2 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """What became of a node without one rule."""

    rule: str
    # A seed, after how many of them; or the name of a directed schedule.
    by: str
    violated: str


def simulate_without(rule: str, seed: int) -> Run:
    return simulate(seed, without(rule))


def search(rule: str, pool: ProcessPoolExecutor, seeds: range = range(SEEDS_MAX)) -> Found | None:
    """Return what random schedules find, or the directed one; None if nothing does."""
    futures = [pool.submit(simulate_without, rule, seed) for seed in seeds]
    try:
        for count, future in enumerate(futures, 1):
            run = future.result()
            if run.failures:
                return Found(rule, f"seed {run.seed}, {count} tried", run.failures[0])
    finally:
        for future in futures:
            future.cancel()
    return directed(rule)


def directed(rule: str) -> Found | None:
    """Return what the directed schedule of a rule finds."""
    schedule = DIRECTED.get(rule)
    violated = schedule(without(rule)) if schedule is not None else None
    if schedule is None or violated is None:
        return None
    return Found(rule, f"directed: {schedule.__name__}", violated)


def print_ablation(names: str) -> int:
    """Print a table for one rule or all of them; return the exit code."""
    rules = list(MISSING) if names == "all" else names.split(",")
    unknown = set(rules) - MISSING.keys()
    if unknown:
        print(f"no rule is called {', '.join(sorted(unknown))}: there are {', '.join(MISSING)}")
        return 2
    missed = 0
    print("| without | found by | violated |")
    print("|---|---|---|")
    with start_pool() as pool:
        for rule in rules:
            found = search(rule, pool)
            missed += found is None
            by, violated = (
                (found.by, found.violated) if found else ("nothing", "not shown to be needed")
            )
            print(f"| {rule} | {by} | {violated[:140]} |", flush=True)
    return 1 if missed else 0


# --- Directed schedules: what is violated, or None ------------------------------------------------


def a_vote_arrives_twice(rules: Any) -> str | None:
    cluster = a_candidate_that_gets_a_vote_twice(rules)
    if cluster["a"].raft.is_leader:
        return "one leader per term: two votes elect a leader of five"
    return None


def an_acknowledgement_of_an_older_term_arrives(rules: Any) -> str | None:
    cluster = a_leader_that_gets_an_old_acknowledgement(rules)
    if cluster.acknowledged():
        return "committed means durable: an entry is acknowledged that one voter of three has"
    return None


def a_voter_comes_back_that_lacks_fifteen_megabytes(rules: Any) -> str | None:
    cluster = Voters(in_flight_size_max=WINDOW_SIZE, rules=rules)
    cluster.elect("a", "b", "c")
    cluster.settle("a", "b", "c")
    cluster["a"].raft.peer_disconnected("c")
    for number in range(30):
        cluster.propose("a", bytes([65 + number]) * RECORD_SIZE)
        cluster.settle("a", "b", rounds=2)
    cluster["a"].raft.peer_connected("c", directory_of("c"))
    cluster.lose("c")
    size = 0
    for _ in range(20):
        cluster.tick("a")
        size = max(size, sum(map(len, cluster.queues["a", "c"])))
    if size > 2 * WINDOW_SIZE:
        return f"bounded flow: {size >> 20} MiB are on their way to one voter, and {WINDOW_SIZE >> 20} are allowed"
    return None


def a_voter_comes_back_that_was_cut_off(rules: Any) -> str | None:
    """In virtual time: a follower without a connection for some seconds, and a leader that has done nothing wrong."""

    async def run() -> str | None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        cluster = SimulatedCluster(loop, 1, rules=rules)
        await cluster.start()
        await cluster.wait_until(lambda: cluster.leader() is not None, "a leader")
        leader = cluster.leader()
        assert leader is not None
        assert leader.log is not None
        term = leader.log.status().term
        follower = next(name for name in cluster.names if name != leader.name)
        cluster.network.partition([follower], [n for n in cluster.names if n != follower])
        await asyncio.sleep(4.0)
        cluster.network.heal()
        await asyncio.sleep(2.0)
        after = leader.log.status().term
        return (
            f"undisturbed leader: term {term} became {after} for one voter that was cut off"
            if after > term
            else None
        )

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


# schedule(rules) returns what is violated, if anything is.
DIRECTED: dict[str, Callable[[Any], str | None]] = {
    "vote_filter": a_vote_arrives_twice,
    "acknowledgements": an_acknowledgement_of_an_older_term_arrives,
    "send_window": a_voter_comes_back_that_lacks_fifteen_megabytes,
    "pre_vote": a_voter_comes_back_that_was_cut_off,
    "configuration_log": a_restart_that_forgets_who_votes,
    "one_change": two_majorities_without_a_common_voter,
    "caught_up": a_learner_that_has_nothing_is_made_a_voter,
    "identity": a_wiped_voter_votes,
    "candidacy": a_learner_that_hears_no_leader,
}
