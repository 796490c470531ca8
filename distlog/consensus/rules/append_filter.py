"""Delete journal entries only on a real conflict, and acknowledge only what a message proves.

pysyncobj deletes everything behind `previous_index` before it appends, although the entries may be the very ones that it is
given: an AppendEntries that was sent again, split differently, cuts entries that are already acknowledged, and with
them acknowledged records.  Raft (section 5.3 of the paper) deletes from the first entry whose term differs, and so does this filter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from distlog.consensus.messages import AppendEntries


class ConsensusViolated(Exception):
    """Raft's own promises do not hold: the node must stop at once and keep its files."""


@dataclass(frozen=True, slots=True)
class Filtered:
    """What pysyncobj may see of an AppendEntries."""

    message: AppendEntries
    # What the reply must say on success; None: what pysyncobj says is right.
    proven_next_index: int | None


class AppendFilter:
    """Rewrites AppendEntries so that pysyncobj's unconditional deletion deletes nothing that matches."""

    def admit(
        self,
        message: AppendEntries,
        *,
        first_index: int,
        last_index: int,
        last_applied: int,
        term_at: Callable[[int], int | None],
    ) -> Filtered:
        """Return the equivalent message whose deletion is the right one.

        Raises ConsensusViolated if the leader disagrees about an entry that is applied here.
        """
        previous = message.previous_index
        if previous < first_index or previous > last_index:
            return Filtered(message, None)
        if term_at(previous) != message.previous_term:
            if previous <= last_applied:
                raise ConsensusViolated(f"the leader disagrees about applied entry {previous}")
            return Filtered(message, None)
        return self._without_matching(message, last_index, last_applied, term_at)

    def _without_matching(
        self,
        message: AppendEntries,
        last_index: int,
        last_applied: int,
        term_at: Callable[[int], int | None],
    ) -> Filtered:
        entries = message.entries
        proven_end = message.previous_index + len(entries)
        # Entries behind the proven end are not verified by this message, so it must not commit them.
        commit_index = min(message.commit_index, proven_end)
        matching = 0
        for _, raft_index, term in entries:
            if raft_index > last_index or term_at(raft_index) != term:
                break
            matching += 1
        if matching == len(entries):
            last_term = term_at(last_index)
            assert last_term is not None, "the journal has a term for its last entry"
            unchanged = msgspec.structs.replace(
                message,
                previous_index=last_index,
                previous_term=last_term,
                entries=[],
                commit_index=commit_index,
            )
            return Filtered(unchanged, proven_end + 1)
        _, conflict, _ = entries[matching]
        if conflict <= min(last_applied, last_index):
            raise ConsensusViolated(f"the leader conflicts with applied entry {conflict}")
        previous_term = term_at(conflict - 1)
        assert previous_term is not None, "the entry before the first that differs matches"
        rest = msgspec.structs.replace(
            message,
            previous_index=conflict - 1,
            previous_term=previous_term,
            entries=entries[matching:],
            commit_index=commit_index,
        )
        return Filtered(rest, None)
