"""What must never be seen inside a cluster, looked at whenever it could happen.

- A term has one leader.
- Two journals that have an entry of the same index and term have the same entries up to it (log matching): for each index and term,
  payload and the term before are the same, wherever it is added.
- What is applied at an index is the same everywhere, and when the first node applies it, it is on the disks of a majority: synced, or
  written where the node promises what is written.
- Nothing that any node has applied is cut from a journal.
"""

from __future__ import annotations

import zlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from distlog.consensus.commands import NO_OP
from distlog.consensus.durability import Durability
from distlog.consensus.journal import Journal

if TYPE_CHECKING:
    from distlog.consensus.configuration import Configuration
    from distlog.consensus.group import Group
    from tests.simulation.simulated_machine import Machine

# A run that went wrong says so often enough.
FAILURE_COUNT_MAX = 40


class Watch:
    """Knows every journal of the cluster, and every entry that ever was in one."""

    def __init__(self, counts: Counter[str], failures: list[str]) -> None:
        self._counts = counts
        self._failures = failures
        # term -> who was seen leading it.
        self.leaders: dict[int, str] = {}
        # (raft index, term) -> (checksum of the payload, term of the entry before).
        self._entries: dict[tuple[int, int], tuple[int, int | None]] = {}
        # raft index -> (term, checksum), of what any node has applied.
        self._applied: dict[int, tuple[int, int]] = {}
        # The newest journal of each machine; of one that is down, the one it had.
        self._journals: dict[str, Journal | None] = {}
        # The group of each machine that it belongs to.
        self._groups: dict[str, Group] = {}
        # (node id, directory id) -> the journal of a member whose disk is gone.
        self._lost: dict[tuple[str, str], Journal | None] = {}

    def add(self, name: str) -> None:
        """A machine has an empty disk.  What the one before had acknowledged counts: the message may be on its way yet."""
        group = self._groups.pop(name, None)
        if group is not None:
            self._lost[_identity(group)] = self._journals[name]
        self._journals[name] = None

    def begin(self, machine: Machine, group: Group) -> None:
        """Watch a node that takes part from now on."""
        journal: Any = group.journal
        state_machine: Any = group.state_machine
        self._journals[machine.name] = journal
        self._groups[machine.name] = group
        append, truncate_from = journal.append, journal.truncate_from
        apply_payload = state_machine.apply_payload

        def watched_append(payload: bytes, raft_index: int, term: int) -> None:
            self._added(machine.name, payload, raft_index, term, journal.term_at(raft_index - 1))
            append(payload, raft_index, term)

        def watched_truncate_from(raft_index: int) -> None:
            self._counts["truncations"] += 1
            for index in range(raft_index, journal.last_index + 1):
                self._removed(machine.name, index, journal.term_at(index))
            truncate_from(raft_index)

        def watched_apply_payload(raft_index: int, term: int, payload: bytes) -> Any:
            self._applies(machine.name, raft_index, term, payload)
            return apply_payload(raft_index, term, payload)

        journal.append = watched_append
        journal.truncate_from = watched_truncate_from
        state_machine.apply_payload = watched_apply_payload

    def is_unsynced(self, name: str) -> bool:
        """Tell whether a node has promised what a power cut now may take from it."""
        journal = self._journals[name]
        return journal is not None and journal.durable_sequence < journal.promisable_sequence

    def fail(self, problem: str) -> None:
        if len(self._failures) < FAILURE_COUNT_MAX:
            self._failures.append(problem)

    def leads(self, name: str, term: int) -> None:
        known = self.leaders.setdefault(term, name)
        if known != name:
            self.fail(f"one leader per term: term {term} has {known} and {name}")
        self._counts["elections"] = len(self.leaders)

    def _added(
        self, name: str, payload: bytes, raft_index: int, term: int, previous: int | None
    ) -> None:
        entry = (zlib.crc32(payload), previous)
        known = self._entries.setdefault((raft_index, term), entry)
        # A journal that begins here does not know the term before.
        if known[0] != entry[0] or (known[1] != previous and None not in (known[1], previous)):
            self.fail(
                f"log matching: entry {raft_index} of term {term} differs from others at {name}"
            )

    def _removed(self, name: str, raft_index: int, term: int | None) -> None:
        applied = self._applied.get(raft_index)
        if applied is not None and applied[0] == term:
            self.fail(
                f"leader completeness: {name} cuts entry {raft_index}, which is applied, from its journal"
            )

    def _applies(self, name: str, raft_index: int, term: int, payload: bytes) -> None:
        entry = (term, zlib.crc32(payload))
        known = self._applied.get(raft_index)
        if known is None:
            self._applied[raft_index] = entry
            counts = [self._durable(raft_index, term, each) for each in self._in_force(name)]
            durable, count = max(counts, key=lambda each: each[0] / each[1])
            # A voter that is alone applies the empty entry of its own term at once; nothing rests on it.
            is_promise = count > 1 or payload != NO_OP
            if 2 * durable <= count and is_promise:
                self.fail(
                    f"committed means durable: {name} applies entry {raft_index}, which {durable} of {count} disks have"
                )
        elif known != entry:
            self.fail(
                f"state machine safety: {name} applies another entry {raft_index} than the others"
            )

    def _in_force(self, name: str) -> list[Configuration]:
        """Return the configurations by which an entry that a machine applies first may have been committed.

        Its own newest one; or that of whoever leads, if the news travelled faster than the entry was applied there.
        """
        leading = [group for group in self._groups.values() if group.raft.is_leader]
        return [self._groups[name].configuration, *(group.configuration for group in leading)]

    def _durable(self, raft_index: int, term: int, configuration: Configuration) -> tuple[int, int]:
        """Return how many of the voters have an entry durably, and how many voters there are."""
        present = {_identity(group): self._journals[name] for name, group in self._groups.items()}
        voters = {**self._lost, **present}
        durable = sum(
            _is_durable(voters.get(identity), raft_index, term)
            for identity in configuration.voters.items()
        )
        return durable, len(configuration.voters)


def _identity(group: Group) -> tuple[str, str]:
    return group.raft.replicas.node_id, group.raft.replicas.directory_id


def _is_durable(journal: Journal | None, raft_index: int, term: int) -> bool:
    if journal is None:
        return False
    is_synced = journal.durability is Durability.FSYNC
    if (journal.durable_index if is_synced else journal.promisable_index) < raft_index:
        return False
    # Entries are forgotten only when everybody has them.
    return raft_index < journal.first_index or journal.term_at(raft_index) == term
