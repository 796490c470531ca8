"""What a follower takes of an AppendEntries, and what its answer may say.

AppendEntries -> only what conflicts is deleted -> only what there is space for -> the library -> its answer, corrected
"""

from __future__ import annotations

from typing import Any

import msgspec

from distlog.consensus.journal import Journal
from distlog.consensus.messages import AppendEntries, AppendReply
from distlog.consensus.rules.append_filter import AppendFilter
from distlog.consensus.space import Space


class Following:
    """One AppendEntries at a time, from when it arrives to its answer."""

    def __init__(self, journal: Journal, append_filter: AppendFilter, space: Space) -> None:
        self._journal = journal
        self._append_filter = append_filter
        self._space = space
        # The number of the AppendEntries being answered, and what its acknowledgement may say.
        self._answering = 0
        self._proven_next_index: int | None = None
        # Of the AppendEntries being answered only a part was taken, for lack of space.
        self._takes_part = False

    def admit(self, message: AppendEntries, last_applied: int) -> AppendEntries:
        """Return what the library may see of a message.

        Raises ConsensusViolated if the leader disagrees about an entry that is applied here.
        """
        journal = self._journal
        filtered = self._append_filter.admit(
            message,
            first_index=journal.first_index,
            last_index=journal.last_index,
            last_applied=last_applied,
            term_at=journal.term_at,
        )
        self._answering = message.number
        self._proven_next_index = filtered.proven_next_index
        admitted = self._with_space(filtered.message)
        self._takes_part = admitted is not filtered.message
        return admitted

    def _with_space(self, message: AppendEntries) -> AppendEntries:
        """Return as much of an AppendEntries as there is space for on the disk: nothing else is acknowledged."""
        older_count = sum(entry[2] < message.sender_term for entry in message.entries)
        count = self._space.admissible((entry[0] for entry in message.entries), older_count)
        if count == len(message.entries):
            return message
        return msgspec.structs.replace(
            message,
            entries=message.entries[:count],
            commit_index=min(message.commit_index, message.previous_index + count),
        )

    def reply(self, answer: dict[str, Any], *, term: int, lowest: int) -> AppendReply:
        """Return the library's answer with what is proven, and no more.

        lowest: no entry up to it can conflict.
        """
        next_index, success = answer["next_node_idx"], answer["success"]
        if success and self._proven_next_index is not None:
            next_index = self._proven_next_index
        elif not success and answer["reset"] and next_index <= self._journal.last_index:
            next_index = self._start_of_conflict(next_index, lowest)
        return AppendReply(
            sender_term=term,
            number=self._answering,
            next_index=next_index,
            success=success,
            reset=answer["reset"] or self._takes_part,
            is_full=self._space.is_refusing,
            lacks_space=self._space.is_full,
        )

    def _start_of_conflict(self, raft_index: int, lowest: int) -> int:
        """Return the first entry of the conflicting term: the leader skips it whole and not one entry per round trip."""
        term_at = self._journal.term_at
        lowest = max(lowest, self._journal.first_index) + 1
        term = term_at(raft_index)
        while raft_index > lowest and term_at(raft_index - 1) == term:
            raft_index -= 1
        return raft_index

    def done(self) -> None:
        """Call when the library has taken it: what it says from now on answers something else."""
        self._proven_next_index = None
        self._takes_part = False
