"""What a node does that is too far behind: copies a checkpoint and its segments from a peer, in rounds, and goes over to it.

    the leader says that it is needed -> a peer with a checkpoint that is new enough -> a round (copying.py)
        -> another round, of a newer checkpoint, while the last one had much to copy -> `switch`

A round that copied little left the leader little time to write more, so its journal still has what follows.  If it does not, it says
so again.  Any connected peer will do, those that do not lead before the leader; a failure goes on with the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import replace

from distlog.catch_up.background import Background
from distlog.catch_up.copying import Copied, Fetch, Progress, Round, Staging
from distlog.catch_up.messages import Reason
from distlog.catch_up.requests import NotCopied
from distlog.errors import DescriptorsExhausted, DistlogError, StorageFull
from distlog.runtime import Clock
from distlog.storage.listing import SegmentListing
from distlog.storage.log_mark import LogMark

logger = logging.getLogger(__name__)

# A round that fetched more is followed by another one, if there is a newer checkpoint by then.
LITTLE_SIZE = 32 << 20
# Between two attempts that nothing came of.
RETRY_DELAY_S = 0.5
# Between two changes of states that failed, at most.
SWITCH_DELAY_MAX_S = 30.0
# A copy that nobody has asked for any more, for so long, is given up: the node gets on without it.
NEEDED_FOR_S = 30.0


class CatchUp:
    """The copies of one node, one at a time."""

    def __init__(
        self,
        *,
        staging: Staging,
        applied_index: Callable[[], int],
        own_mark: Callable[[int], LogMark | None],
        switch: Callable[[Copied], Awaitable[bool]],
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        """applied_index(), own_mark(topic_id): how far this node is.

        switch(copied): go over to what was copied; False if this node needs it no more, or lacks a part.
        failed(error): called if this node cannot go on.
        """
        self._staging = staging
        self._applied_index = applied_index
        self._own_mark = own_mark
        self._switch = switch
        self._clock = clock
        # The first entry that the leader has, as it said last, and when that was.
        self._first_index = 0
        self._needed_at = 0.0
        self._work = Background(failed, self._ended)
        # A cancellation is lost where a group of tasks fails at the same moment.
        self._is_closed = False
        # What this node has already, checked in the copy under way.
        self._checked: set[tuple[int, SegmentListing]] = set()
        # A peer that has just begun to write a checkpoint that is new enough: it is asked once more before another one is.
        self._waited_for = ""
        # None while there is nothing to copy.
        self._progress: Progress | None = None
        self.counters: Counter[str] = Counter(copies_begun=0, copies_finished=0, rounds_failed=0)

    # --- What happens --------------------------------------------------------------------------------

    def needed(self, first_index: int) -> None:
        """Take that the leader has no entry before `first_index`, and this node needs one; often."""
        self._first_index, self._needed_at = first_index, self._clock.monotonic()
        if self._is_needed and not self._is_closed:
            self._work.begin(self._run)

    def close(self) -> None:
        """Stop; what is staged stays."""
        self._is_closed = True
        self._work.cancel()

    @property
    def progress(self) -> Progress | None:
        """Return how far a copy is; None if none is under way."""
        return replace(self._progress) if self._progress is not None else None

    def _ended(self) -> None:
        self._progress = None
        self._checked.clear()

    # --- The copy ------------------------------------------------------------------------------------

    async def _run(self) -> None:
        async with self._staging.lock:
            await self._copy()

    async def _copy(self) -> None:
        self.counters["copies_begun"] += 1
        progress = self._progress = Progress()
        logger.info(
            "this node is too far behind for the leader's journal and copies a checkpoint applied_index=%d first_index=%d",
            self._applied_index(),
            self._first_index,
        )
        failures = refused_count = 0
        self._waited_for = ""
        while self._is_needed:
            copied = await self._round(progress, failures)
            if self._is_closed:
                return
            if copied is None:
                failures += not self._waited_for
                await asyncio.sleep(RETRY_DELAY_S)
                continue
            if await self._switch(copied):
                self.counters["copies_finished"] += 1
                return
            failures += 1
            refused_count += 1
            self._say(progress, "going over to the copied state failed: the node's log says why")
            # Each time the node stops serving for a moment: what does not go away must not make that a habit.
            await asyncio.sleep(min(RETRY_DELAY_S * 2**refused_count, SWITCH_DELAY_MAX_S))
        logger.info("the copy is not needed any more applied_index=%d", self._applied_index())
        await self._staging.write_worker.submit(self._staging.incoming.clear)

    @property
    def _is_needed(self) -> bool:
        """Tell whether the leader still lacks what this node needs, as far as is known."""
        is_recent = self._clock.monotonic() - self._needed_at < NEEDED_FOR_S
        return is_recent and self._applied_index() < self._first_index

    async def _round(self, progress: Progress, failures: int) -> Copied | None:
        """Copy until nothing much is missing; None if that ended early."""
        peers = self._staging.peers()
        if not peers:
            self._say(progress, "no peer is connected that could be copied from")
            return None
        peer = peers[failures % len(peers)]
        copied: Copied | None = None
        while True:
            fetched_before = progress.fetched_size
            index_min = max(self._first_index, self._applied_index() + 1)
            if copied is not None:
                index_min = max(index_min, copied.image.raft_index)
            fetch = Fetch(peer, self._staging, progress)
            try:
                before, copied = (
                    copied,
                    await Round(fetch, self._own_mark, self._checked).run(index_min),
                )
            except NotCopied as error:
                self.counters["rounds_failed"] += 1
                self._say(progress, str(error))
                is_new = error.reason is Reason.TOO_OLD and self._waited_for != peer
                self._waited_for = peer if is_new else ""
                return None
            except (StorageFull, DescriptorsExhausted) as error:
                self.counters["rounds_failed"] += 1
                self._say_no_space(progress, error)
                self._waited_for = ""
                return None
            progress.problem = ""
            is_same = before is not None and before.image.raft_index == copied.image.raft_index
            if is_same or progress.fetched_size - fetched_before <= LITTLE_SIZE:
                return copied

    def _say(self, progress: Progress, problem: str) -> None:
        if progress.problem != problem:
            logger.info("the copy waits problem=%s", problem)
        progress.problem = problem

    def _say_no_space(self, progress: Progress, error: DistlogError) -> None:
        missing = progress.size - progress.done_size
        problem = f"{error}: about {missing} bytes are still to be copied, and the disk has no room for them"
        if not progress.problem:
            logger.warning(
                "the copy waits for space on the disk: free some, it goes on by itself missing=%d problem=%s",
                missing,
                error,
            )
        progress.problem = problem
