"""Finds bytes that a disk has changed, and has them replaced: every segment is read again now and then, at a slow pace.

    interval over, or a read has found damage -> segments one by one, a window at a time -> a fault
        sealed: the segment is fetched from a peer that has it whole, checked, and takes the place of the damaged one; no restart
        active: said, since it is still written: the checkpoint that the next copy brings replaces it
    a start has set segments aside, missing or cut short -> what the peer has in their place is fetched, and the log reads on

A damaged batch is refused with DATA_LOSS until then, and nothing else is: what is around it can be read.  Of a segment that is set aside
everything is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distlog.catch_up.background import Background
from distlog.catch_up.copying import Fetch, Progress, Staging
from distlog.catch_up.requests import NotCopied
from distlog.consensus.state_machine import StateMachine
from distlog.errors import DescriptorsExhausted, DiskFailed, StorageFull
from distlog.runtime import Clock, Worker
from distlog.storage.disk import Disk
from distlog.storage.invariants import Fault
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import STORE, segment_path
from distlog.storage.segment_scan import SegmentScan

logger = logging.getLogger(__name__)

# Read in one go.
STEP_SIZE = 2 << 20
# How often it is looked whether a read has found something.
LOOK_INTERVAL_S = 1.0
# Before the first pass after a start, at most; and between two attempts to repair what is known to be damaged, at most.
FIRST_DELAY_MAX_S = 600.0
REPAIR_INTERVAL_S = 10.0
# Segments that are known to be damaged; of more the next pass finds the rest.
DAMAGED_MAX = 1000


@dataclass(frozen=True, slots=True)
class ScrubSettings:
    """Times in seconds, rates in bytes a second."""

    # From the end of a pass to the beginning of the next one; 0: there are none.
    interval_s: float = 86400.0
    rate_max: int = 8 << 20


@dataclass(frozen=True, slots=True)
class _Target:
    """A segment as it was when it was chosen."""

    topic_id: int
    base_offset: int
    next_offset: int
    store_size: int
    batch_count: int
    path: str
    is_active: bool
    # Why all of it is refused since the start; empty if it is not.
    set_aside: str


class Scrub:
    """Looks after the segments of one node."""

    def __init__(
        self,
        *,
        settings: ScrubSettings,
        disk: Disk,
        state_machine: Callable[[], StateMachine | None],
        is_copying: Callable[[], bool],
        staging: Staging,
        read_worker: Worker,
        clock: Clock,
        failed: Callable[[BaseException], None],
    ) -> None:
        """state_machine(): of the group that runs; None: none does now.  is_copying(): `incoming` is used for something else.

        read_worker: what clients read with; behind what it does, no file that was replaced is open.
        """
        self._settings = settings
        self._disk = disk
        self._state_machine = state_machine
        self._is_copying = is_copying
        self._staging = staging
        self._check_worker = staging.check_worker
        self._read_worker = read_worker
        self._clock = clock
        # What is known to be damaged: its store's path, and what is wrong.
        self.damaged: dict[str, str] = {}
        self.counters: Counter[str] = Counter(
            passes=0, bytes_checked=0, faults_found=0, segments_repaired=0, repairs_failed=0
        )
        self._work = Background(failed)
        # A cancellation is lost where a group of tasks fails at the same moment.
        self._is_closed = False
        self._next_pass_at = clock.monotonic() + min(settings.interval_s, FIRST_DELAY_MAX_S)
        self._next_repair_at = 0.0
        # Who looks more often repairs as often.
        self._repair_interval_s = min(REPAIR_INTERVAL_S, settings.interval_s or REPAIR_INTERVAL_S)
        # Those that were there at the last look.
        self._known_peers: frozenset[str] = frozenset()
        # The state of which the segments that are set aside are known.
        self._looked_at: StateMachine | None = None

    def start(self) -> None:
        self._work.begin(self._run)

    def close(self) -> None:
        """Stop; what is damaged is found again."""
        self._is_closed = True
        self._work.cancel()

    async def _run(self) -> None:
        while not self._is_closed:
            await asyncio.sleep(LOOK_INTERVAL_S)
            self._look_at_set_aside()
            await self._look_at_damaged()
            now = self._clock.monotonic()
            if self._settings.interval_s and now >= self._next_pass_at:
                await self._pass()
                self._next_pass_at = self._clock.monotonic() + self._settings.interval_s
            if self.damaged and self._is_repair_due():
                self._next_repair_at = self._clock.monotonic() + self._repair_interval_s
                await self._repair_all()

    def _is_repair_due(self) -> bool:
        """Tell whether it is time for another attempt: after a while, or at once where somebody is there who was not."""
        before, self._known_peers = self._known_peers, frozenset(self._staging.peers())
        return self._clock.monotonic() >= self._next_repair_at or not self._known_peers <= before

    # --- Look ----------------------------------------------------------------------------------------

    def _targets(self, paths: set[str] | None = None) -> Iterator[_Target]:
        """Yield the segments that there are, or those of them with these stores."""
        machine = self._state_machine()
        for topic in list(machine.topics()) if machine is not None else ():
            described = topic.log.describe()
            for segment in described:
                is_wanted = paths is None or segment.path in paths
                if is_wanted and (segment.batch_count or segment.problem):
                    yield _Target(
                        topic.topic_id,
                        segment.base_offset,
                        segment.next_offset,
                        segment.store_size,
                        segment.batch_count,
                        segment.path,
                        segment is described[-1],
                        segment.problem,
                    )

    def _look_at_set_aside(self) -> None:
        """Take note of what a start has found missing, once for each state that this node has."""
        machine = self._state_machine()
        if machine is None or machine is self._looked_at:
            return
        self._looked_at = machine
        if not any(topic.log.has_set_aside for topic in machine.topics()):
            return
        for target in self._targets():
            if target.set_aside:
                self._note(target, target.set_aside)

    async def _look_at_damaged(self) -> None:
        """Check what a read has complained about."""
        machine = self._state_machine()
        paths = machine.take_damaged() if machine is not None else set()
        for target in list(self._targets(paths)) if paths else ():
            await self._check(target)

    async def _pass(self) -> None:
        """Check every segment once, at the pace of the settings."""
        checked_before = self.counters["bytes_checked"]
        for target in self._targets():
            await self._check(target)
        self.counters["passes"] += 1
        logger.info(
            "all segments were read again size=%d damaged=%d",
            self.counters["bytes_checked"] - checked_before,
            len(self.damaged),
        )

    async def _check(self, target: _Target) -> None:
        if target.set_aside:
            # It is known, and there may be nothing to read.
            return
        directory = target.path.rpartition("/")[0]
        try:
            scan = await self._check_worker.submit(
                lambda: SegmentScan(
                    self._disk, directory, target.base_offset, row_count=target.batch_count
                )
            )
        except (DiskFailed, DescriptorsExhausted):
            # Trimmed since; or the next pass has a descriptor for it.
            return
        steps = scan.steps()
        try:
            while True:
                before = scan.scanned.store_size
                is_done, fault = await self._check_worker.submit(_step, scan, steps)
                checked = max(0, scan.scanned.store_size - before)
                self.counters["bytes_checked"] += checked
                if fault is None and is_done and scan.scanned.batch_count < target.batch_count:
                    problem = f"the batches end at offset {scan.scanned.next_offset}, not at {target.next_offset}"
                    fault = Fault(target.path, scan.scanned.store_size, None, problem)
                if fault is not None:
                    self._found(target, fault)
                    return
                if is_done:
                    self.damaged.pop(target.path, None)
                    return
                await asyncio.sleep(checked / self._settings.rate_max)
        finally:
            self._check_worker.submit(scan.close)

    def _found(self, target: _Target, fault: Fault) -> None:
        if not any(each.path == target.path for each in self._targets({target.path})):
            # Trimmed meanwhile.
            return
        self._note(target, f"{fault.path}: byte {fault.position}: {fault.problem}")

    def _note(self, target: _Target, problem: str) -> None:
        if self.damaged.get(target.path) != problem:
            self.counters["faults_found"] += 1
            remedy = (
                "it is still written to, so it is not replaced: stop this node, run `distlog cluster rejoin`, and let it copy"
                if target.is_active
                else "it is fetched from a peer"
            )
            logger.error("a segment is damaged, %s problem=%s", remedy, problem)
        if len(self.damaged) < DAMAGED_MAX:
            self.damaged[target.path] = problem

    # --- Repair --------------------------------------------------------------------------------------

    async def _repair_all(self) -> None:
        if self._is_copying():
            # What is copied replaces it.
            return
        known = {target.path: target for target in self._targets(set(self.damaged))}
        for path in list(self.damaged):
            target = known.get(path)
            if target is None:
                # Trimmed since.
                del self.damaged[path]
            elif not target.is_active:
                await self._repair(target)

    async def _repair(self, target: _Target) -> None:
        """Replace a sealed segment by that of the first peer that has it whole."""
        problem = "no peer is connected"
        for peer in self._staging.peers():
            if self._is_closed:
                return
            fetch = Fetch(peer, self._staging, Progress())
            try:
                async with self._staging.lock:
                    await self._replace(fetch, target)
                return
            except NotCopied as error:
                problem = str(error)
            except (StorageFull, DescriptorsExhausted) as error:
                problem = str(error)
                break
        self.counters["repairs_failed"] += 1
        logger.warning(
            "a damaged segment is not replaced yet: start the other nodes, or mend what the problem names path=%s problem=%s",
            target.path,
            problem,
        )

    async def _replace(self, fetch: Fetch, target: _Target) -> None:
        machine = self._state_machine()
        topic = machine.topic_by_id(target.topic_id) if machine is not None else None
        if machine is None or topic is None:
            return
        log, end = topic.log, target.next_offset
        has, take_place = fetch.incoming.has, fetch.incoming.take_place
        # As if the log ended with this segment.
        mark = LogMark(target.base_offset, end, 0, end, 0)
        # What a trim or a deletion takes away meanwhile goes after it.
        with log.hold(target.base_offset, end):
            if target not in self._targets({target.path}):
                # It was gone before.
                return
            listings = await fetch.listing_of(target.topic_id, mark)
            expected = (target.base_offset, end, target.store_size, target.batch_count)
            is_same = [listing[:4] for listing in listings] == [expected]
            if not (log.can_replace(listings) if target.set_aside else is_same):
                raise fetch.nonsense("a list with other segments than this node has there")
            for listing in listings:
                if not await self._check_worker.submit(has, target.topic_id, listing):
                    await fetch.segment(target.topic_id, listing)
            if self._state_machine() is not machine or self._is_copying():
                return
            for listing in listings:
                if not await fetch.write_worker.submit(take_place, target.topic_id, listing):
                    return
            if target.set_aside:
                log.replace(listings)
        # What is open of the damaged files, and what reads under way will leave open.
        for listing in listings:
            path = segment_path(log.path, listing.base_offset, STORE)
            await self._read_worker.submit(machine.drop_idle_files, path)
        self.damaged.pop(target.path, None)
        self.counters["segments_repaired"] += len(listings)
        logger.info("a damaged segment was replaced path=%s peer=%s", target.path, fetch.peer)


def _step(scan: SegmentScan, steps: Iterator[Fault | None]) -> tuple[bool, Fault | None]:
    """Check the next windows; return whether the segment's end is reached, and what is wrong first."""
    end = scan.scanned.store_size + STEP_SIZE
    for fault in steps:
        if fault is not None or scan.scanned.store_size >= end:
            return False, fault
    return True, None
