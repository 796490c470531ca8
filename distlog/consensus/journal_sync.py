"""The group fsync: what is queued in the journal goes to the disk as one write, and what arrives meanwhile shares the next one.

    start -> ticket -> [worker] write + fdatasync -> promisable() -> start again -> finished()

With durability OS a ticket is mostly written only, on the loop and at once where it is little.  What is written is synced
behind it: after `FLUSH_INTERVAL_S`, when it has become much, and when somebody asks.

    first unsynced write -> timer -> flush -> [worker] fdatasync -> durable

No two syncs are under way at a time: the system reports a write that failed once, to one of them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial

from distlog import measures
from distlog.consensus.journal import Flush, Journal, SyncTicket
from distlog.errors import DescriptorsExhausted, DistlogError, StorageFull
from distlog.runtime import Worker

logger = logging.getLogger(__name__)

# On a full disk: the pause before the journal's write is tried again.
SPACE_RETRY_DELAY_S = 0.5
# With durability OS: how long a write waits for its sync to begin, if no other one is under way; and how much may wait.
FLUSH_INTERVAL_S = 0.5
FLUSH_SIZE = 16 << 20


class JournalSync:
    """Brings one journal to its disk."""

    def __init__(
        self,
        journal: Journal,
        worker: Worker,
        *,
        guarded: Callable[[Callable[[], object]], None],
        promisable: Callable[[], None],
        finished: Callable[[], None],
        now: Callable[[], float],
    ) -> None:
        """now() is a clock in seconds.  guarded(action) runs what a callback of the loop does, and stops the node if it raises.

        promisable is called whenever more may be promised, and finished after that if it was not from within `start`.
        """
        self._journal = journal
        self._worker = worker
        self._guarded = guarded
        self._promisable = promisable
        self._finished = finished
        self._now = now
        self._loop = asyncio.get_running_loop()
        # How long syncs took, in seconds, and how many bytes were written at a time, whether synced or not.
        self.durations = measures.Histogram(measures.DURATIONS_S)
        self.sizes = measures.Histogram(measures.SIZES)
        self._began_at = 0.0
        # The ticket under way and the worker's future of it; None: none is.
        self._ticket: SyncTicket | None = None
        self._writing: asyncio.Future[None] | None = None
        # The ticket's write found no space, and is tried again.
        self.lacks_space = False
        # The flush under way and the worker's future of it; and the timer of the next one.
        self._flush: Flush | None = None
        self._flushing: asyncio.Future[None] | None = None
        self._flush_timer: asyncio.TimerHandle | None = None
        self._is_closed = False

    def close(self) -> None:
        """Do nothing more, whatever is under way."""
        self._is_closed = True
        if self._flush_timer is not None:
            self._flush_timer.cancel()

    # --- Tickets --------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to write what is queued, unless something is being written."""
        while self._ticket is None:
            if self._flush is not None and self._journal.must_sync:
                # Its end starts this again.
                return
            self._ticket = self._journal.begin_sync()
            if self._ticket is None:
                return
            self._write()

    def _write(self) -> None:
        ticket = self._ticket
        if self._is_closed or ticket is None:
            return
        self._began_at = self._now()
        try:
            if ticket.write is None:
                self._writing = self._worker.submit(ticket.run)
            else:
                file = ticket.write()
                if not ticket.syncs:
                    self._written(ticket)
                    return
                self._writing = self._worker.sync(file)
        except (StorageFull, DescriptorsExhausted) as error:
            self._write_later(error)
            return
        self._writing.add_done_callback(lambda done: self._guarded(lambda: self._finish(done)))

    def _write_later(self, error: DistlogError) -> None:
        # Nothing that waits for this write is promised to anybody.
        if not self.lacks_space:
            logger.warning(
                "the journal cannot be written: free space on its disk, or raise the limit of open files, and it goes on by itself "
                "problem=%s",
                error,
            )
        self.lacks_space = True
        self._loop.call_later(SPACE_RETRY_DELAY_S, self._guarded, self._write_again)
        # What other tickets wrote does not wait with this one.
        self._flush_in_time()

    def _write_again(self) -> None:
        assert self._ticket is not None, "what found no space stays until it does"
        if self._flush is not None and self._ticket.syncs:
            self._loop.call_later(SPACE_RETRY_DELAY_S, self._guarded, self._write_again)
            return
        self._write()
        # It may have been written at once, and more is queued since.
        self.start()

    def _finish(self, done: asyncio.Future[None]) -> None:
        ticket = self._ticket
        if self._is_closed or done.cancelled() or ticket is None:
            return
        self._writing = None
        try:
            # A write or an fsync that failed: the page cache no longer says what the disk holds, so the process must stop.
            done.result()
        except (StorageFull, DescriptorsExhausted) as error:
            self._write_later(error)
            return
        self._written(ticket)
        self.start()
        self._finished()

    def _written(self, ticket: SyncTicket) -> None:
        self._ticket = None
        self.lacks_space = False
        self._journal.finish_sync(ticket)
        self.sizes.add(ticket.size)
        if ticket.syncs:
            self.durations.add(self._now() - self._began_at)
        self._promisable()
        if not ticket.syncs:
            self._flush_in_time()

    # --- What is written and not synced ---------------------------------------------------------

    def _flush_in_time(self) -> None:
        if self._journal.unsynced_size >= FLUSH_SIZE:
            self._begin_flush()
        elif self._flush_timer is None and self._journal.unsynced_size:
            self._flush_timer = self._loop.call_later(FLUSH_INTERVAL_S, self._on_timer)

    def _on_timer(self) -> None:
        self._flush_timer = None
        if not self._is_closed:
            self._guarded(self._begin_flush)

    def _begin_flush(self) -> None:
        """Begin to sync what is written, unless a sync is under way."""
        if self._flush is not None or (
            self._writing is not None and self._ticket is not None and self._ticket.syncs
        ):
            return
        self._flush = self._journal.begin_flush()
        if self._flush is not None:
            self._flushing = self._worker.sync(self._flush.file)
            finish = partial(self._finish_flush, self._flush, self._now())
            self._flushing.add_done_callback(lambda done: self._guarded(lambda: finish(done)))

    def _finish_flush(self, flush: Flush, began_at: float, done: asyncio.Future[None]) -> None:
        if self._is_closed or done.cancelled():
            return
        self._flush = self._flushing = None
        # A failed sync stops the process, also where the promise was made without it.
        done.result()
        self.durations.add(self._now() - began_at)
        self._journal.finish_flush(flush)
        self.start()
        self._flush_in_time()

    # --- Waiting --------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Return when all that may be promised now is durable."""
        sequence = self._journal.promisable_sequence
        while self._journal.durable_sequence < sequence and not self._is_closed:
            self._begin_flush()
            await self._ended()

    async def drain(self) -> None:
        """Return when everything is durable, or there is no space for it."""
        journal = self._journal
        while journal.durable_sequence < journal.sequence and not self._is_closed:
            self.start()
            if self.lacks_space:
                await self.flush()
                return
            self._begin_flush()
            await self._ended()

    async def _ended(self) -> None:
        """Wait for one of what is under way; what follows from its end has happened then."""
        under_way = [each for each in (self._writing, self._flushing) if each is not None]
        # `_finish` and `_finish_flush` were the first to ask for it.
        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
