"""When a checkpoint is written, and what may be forgotten once it is durable.

    due -> capture (loop) -> logs synced, journal too where it is not, file written (worker)
        -> journal compacted, files of an older state unlinked (workers)

Nothing of it runs inside a tick of Raft, and one checkpoint is under way at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, replace

from distlog.consensus.checkpoint import CheckpointImage, write_checkpoint
from distlog.consensus.journal import Journal
from distlog.consensus.raft import Raft
from distlog.consensus.space import Space
from distlog.consensus.state_machine import StateMachine
from distlog.errors import DescriptorsExhausted, StorageFull
from distlog.runtime import Clock, Worker
from distlog.storage.disk import Disk

logger = logging.getLogger(__name__)

# Between two checkpoints that are written to set space or descriptors free.
RELIEF_INTERVAL_S = 5.0
# Logs of which the sync is begun in one step of the loop: about 3 ms.
SYNCS_PER_STEP = 500


@dataclass(frozen=True, slots=True)
class CheckpointPorts:
    """What checkpoints reach the outside by."""

    disk: Disk
    path: str
    clock: Clock
    # Syncs logs, writes checkpoints and unlinks what only an older one needed.
    worker: Worker
    # Removes files of the journal, in their order with the blocks that it writes.
    journal_worker: Worker
    # Returns when all that the journal may promise is durable.
    flush_journal: Callable[[], Awaitable[None]]
    # Runs an action and stops the node if it raises.
    guarded: Callable[[Callable[[], object]], None]


class Checkpoints:
    """The checkpoints of one group."""

    def __init__(
        self,
        *,
        raft: Raft,
        state_machine: StateMachine,
        space: Space,
        index: int,
        interval_s: float,
        journal_size: int,
        journal_size_max: int,
        ports: CheckpointPorts,
    ) -> None:
        """index: the raft index of the checkpoint that this node started from; 1: none.

        A checkpoint is due after interval_s seconds, or when journal_size bytes were written to the journal since the last one,
        and in time for the journal to stay below journal_size_max.
        """
        self._raft = raft
        self._state_machine = state_machine
        self._space = space
        # Of the newest durable checkpoint.
        self.index = index
        self._interval_s = interval_s
        self._journal_size = journal_size
        # What the journal may have for voters that are behind: the newest of it, the rest is forgotten.
        self._journal_kept_size = journal_size_max // 4 * 3
        # A checkpoint must not be so far behind, or it would be what keeps the journal from being forgotten.
        self._journal_behind_max = journal_size_max // 2
        self._ports = ports
        # The newest one, perhaps under way.
        self._task: asyncio.Task[None] | None = None
        self._begun_at = ports.clock.monotonic()
        # The size that the journal had after the last one.
        self._journal_size_then = raft.journal.size
        # The newest durable one, without what is large in it, while readers hold files that it does not need.
        self._held: CheckpointImage | None = None
        # A copy asks for a checkpoint from here on.
        self._requested_index = 0
        self._is_closed = False

    @property
    def _journal(self) -> Journal:
        return self._raft.journal

    def write_if_due(self) -> None:
        """Call after each step: begin a checkpoint if it is time."""
        if self._task is not None and not self._task.done():
            return
        elapsed = self._ports.clock.monotonic() - self._begun_at
        if self._raft.last_applied <= self.index:
            # A full disk takes no writes, so perhaps no other checkpoint comes that would let go of what takes its space.
            if self._held is not None and elapsed >= RELIEF_INTERVAL_S:
                self._begun_at = self._ports.clock.monotonic()
                self._start(self._let_go(self._held))
            return
        due = (
            elapsed >= self._interval_s
            or self._journal.size - self._journal_size_then >= self._journal_size
            or self._holds_up_journal()
            or self.index < self._requested_index <= self._raft.last_applied
            or (elapsed >= RELIEF_INTERVAL_S and self._gives_relief())
        )
        if due and self._is_possible():
            self._begin()

    def _holds_up_journal(self) -> bool:
        """Tell whether so much of the journal is newer than the checkpoint that it soon could not be kept below its limit."""
        journal = self._journal
        if journal.size < self._journal_behind_max:
            return False
        first = min(max(self.index, journal.first_index), journal.last_index)
        return journal.size_from(first) >= self._journal_behind_max

    def _gives_relief(self) -> bool:
        """Tell whether the files that only an older checkpoint needs are missed as space, or as open files."""
        return self._space.is_full or self._state_machine.is_short_of_files

    def _is_possible(self) -> bool:
        # The journal must not end before the checkpoint, or a restart could not tell a lost tail from none.
        applied = self._raft.last_applied
        return applied >= 2 and self._journal.promisable_index >= applied > self.index

    def _begin(self) -> asyncio.Task[None]:
        applied = self._raft.last_applied
        image = self._state_machine.capture(
            previous=self._journal.entry(applied - 1),
            last=self._journal.entry(applied),
            configuration=self._raft.configurations.at(applied),
            durable_sequence=self._journal.durable_sequence,
        )
        return self._start(self._write(image))

    def _start(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        self._task = asyncio.get_running_loop().create_task(work)
        self._task.add_done_callback(lambda done: self._ports.guarded(done.result))
        return self._task

    async def _let_go(self, image: CheckpointImage) -> None:
        """Unlink the files that only older checkpoints than `image`, which is durable, needed and that nobody reads."""
        unlink = self._state_machine.checkpointed(image)
        is_held = self._state_machine.are_files_held
        self._held = replace(image, producer_rows=(), syncs=()) if is_held else None
        await self._ports.worker.submit(unlink)

    async def _write(self, image: CheckpointImage) -> None:
        ports = self._ports
        self._begun_at = ports.clock.monotonic()
        try:
            for first in range(0, len(image.syncs), SYNCS_PER_STEP):
                # Logs may have grown since the capture; what is synced beyond it harms nobody.
                begun = [begin() for begin in image.syncs[first : first + SYNCS_PER_STEP]]
                await ports.worker.submit(_run_all, begun)
            if self._journal.durable_index < image.raft_index:
                # Written only, and what a checkpoint says must be there after any crash.
                await ports.flush_journal()
                image = replace(image, durable_sequence=self._journal.durable_sequence)
            await ports.worker.submit(write_checkpoint, ports.disk, ports.path, image)
        except (StorageFull, DescriptorsExhausted) as error:
            # The older checkpoint is untouched, so nothing is in doubt; the journal grows meanwhile.
            logger.warning(
                "checkpoint not written, trying again later: free space on the disk, or raise the limit of open files problem=%s",
                error,
            )
            self._journal_size_then = self._journal.size
            return
        if self._is_closed:
            return
        self.index = image.raft_index
        self._raft.configurations.forget_before(self.index)
        self.compact()
        self._journal_size_then = self._journal.size
        logger.info(
            "checkpoint written raft_index=%d journal_size=%d", self.index, self._journal.size
        )
        with contextlib.suppress(DescriptorsExhausted):
            # What is left over goes at the next start.
            await self._let_go(image)

    def compact(self) -> None:
        """Forget the entries that neither this node nor another voter needs any more, and of the others what is too much.

        Not only after a checkpoint: a voter that comes back may be what the journal was kept for.
        """
        # One voter alone needs nothing older than its checkpoint; others may need what they do not have yet.
        kept = self._raft.retain_from if self._raft.replicas.others else self.index
        if self._journal.size > self._journal_kept_size:
            # Who lacks more copies a checkpoint: nobody that is away may stop the others.
            kept = max(kept, self._journal.index_within(self._journal_kept_size))
        first_kept = min(self.index - 1, kept)
        if first_kept <= self._journal.first_index:
            return
        remove_files = self._journal.compact(first_kept)
        if remove_files is not None:
            removed = self._ports.journal_worker.submit(remove_files)
            removed.add_done_callback(lambda done: self._ports.guarded(lambda: _removed(done)))

    def request(self, raft_index: int) -> None:
        """Write one soon that is at `raft_index` or after it."""
        self._requested_index = max(self._requested_index, raft_index)

    async def write_last(self, *, another: bool = True) -> None:
        """Wait for the one under way, and write another if something was applied since."""
        if self._task is not None:
            await asyncio.wait([self._task])
        if another and self._is_possible() and not self._is_closed:
            await asyncio.wait([self._begin()])

    def close(self) -> None:
        """Give up what is under way."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()


def _removed(done: asyncio.Future[None]) -> None:
    """Take note of the end of a removal of journal files; without descriptors they stay, and are no harm."""
    with contextlib.suppress(DescriptorsExhausted):
        done.result()


def _run_all(actions: Sequence[Callable[[], None]]) -> None:
    for action in actions:
        action()
