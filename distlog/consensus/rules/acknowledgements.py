"""Believe only acknowledgements of this term, and rewind once per gap.

Two failures of pysyncobj end here.  Its replies carry no term, so an acknowledgement delayed since an older term counts in a newer
one, and an entry that two of five have is committed.  And it pipelines: when a follower refuses the first of several
AppendEntries, the refusals of the others, all sent before the rewind, undo the rewind again and again, and a follower whose last entry
conflicts never catches up.
"""

from __future__ import annotations

from collections.abc import Set

import msgspec

from distlog.consensus.messages import AppendReply


class AcknowledgementFilter:
    """Knows, per voter, from which AppendEntries number on a refusal is news."""

    def __init__(self) -> None:
        self._news_from: dict[str, int] = {}

    def admit(
        self, voter: str, reply: AppendReply, *, term: int, voters: Set[str], sent: int
    ) -> AppendReply | None:
        """Return what pysyncobj may see of the reply, None for nothing.

        term: this leader's; sent: the number of the last AppendEntries that this leader sent to anybody.
        """
        if reply.sender_term != term or voter not in voters:
            return None
        if reply.reset:
            if reply.number < self._news_from.get(voter, 0):
                # The answer to an AppendEntries from before the rewind: a refusal only shows that the voter lives.
                return msgspec.structs.replace(reply, reset=False)
            self._news_from[voter] = sent + 1
        return reply

    def drop(self, voter: str) -> None:
        """Forget a voter whose connection is gone."""
        self._news_from.pop(voter, None)

    def clear(self) -> None:
        """Forget everything: the leadership or the term changed."""
        self._news_from.clear()
