"""One round of a copy: a checkpoint, and every segment that it needs and that is not here yet.

    checkpoint -> what the peer lists of each topic that has changed -> segments, several at once -> Copied

Whatever ends a round early, what is staged stays (storage/incoming.py): the next round, of another checkpoint and from another
peer perhaps, copies only what is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import google_crc32c

from distlog.catch_up.messages import (
    PART_SIZE_MAX,
    CheckpointPart,
    CheckpointRequest,
    Part,
    PartRequest,
    Reason,
    Segments,
    SegmentsRequest,
    listings_of,
)
from distlog.catch_up.requests import NotCopied, Requests
from distlog.consensus.checkpoint import CheckpointImage, decode_checkpoint
from distlog.errors import CorruptBatch, CorruptCheckpoint, FormatUnsupported
from distlog.runtime import Worker
from distlog.storage.incoming import Incoming, SegmentPart, check_listing
from distlog.storage.listing import SegmentListing
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import SUFFIXES, TABLE

# Segments that are copied at once, and requests on their way: enough that network, disk and checksums overlap.
SEGMENTS_AT_ONCE = 4
REQUESTS_AT_ONCE = 16
CHECKPOINT_SIZE_MAX = 256 << 20
TABLE_SIZE_MAX = 2 << 30


@dataclass(slots=True)
class Progress:
    """How far a copy is, for whoever looks."""

    source: str = ""
    raft_index: int = 0
    # Bytes that the checkpoint's changed segments have, of which are here: staged, in this node's log, or copied in part.
    size: int = 0
    done_size: int = 0
    # Bytes that came from peers since the copy began.
    fetched_size: int = 0
    # What the copy waits for, in words; empty while it goes on.
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Copied:
    """What a round has brought: all that a switch needs."""

    image: CheckpointImage
    # Of the topics that are not as this node has them.
    listings: dict[int, list[SegmentListing]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Staging:
    """What segments of peers are staged with, by one copy or repair at a time."""

    incoming: Incoming
    # Held by whoever fills it.
    lock: asyncio.Lock
    requests: Requests
    # Whom to ask, the best first.
    peers: Callable[[], Sequence[str]]
    # Does what a copy writes.
    write_worker: Worker
    # Makes segments durable, and checks them.
    check_worker: Worker


class Fetch:
    """What one peer gives: lists of segments, and segments."""

    def __init__(self, peer: str, staging: Staging, progress: Progress) -> None:
        self.peer = peer
        self.requests = staging.requests
        self.incoming = staging.incoming
        self.write_worker = staging.write_worker
        self.check_worker = staging.check_worker
        self.progress = progress
        self._request_slots = asyncio.Semaphore(REQUESTS_AT_ONCE)

    async def listing_of(self, topic_id: int, mark: LogMark) -> list[SegmentListing]:
        """Return what a topic consists of up to a mark.  Raises NotCopied."""
        listing: list[SegmentListing] = []
        while True:
            from_base = listing[-1].next_offset if listing else 0
            request = SegmentsRequest(self.requests.next_number(), topic_id, (*mark,), from_base)
            answer = await self.requests.ask(self.peer, request, Segments)
            more = listings_of(answer)
            listing += more
            if answer.is_last:
                break
            if not more or more[0].base_offset < from_base:
                raise self.nonsense(f"a list of the segments of topic {topic_id} that has no end")
        problem = check_listing(listing, mark)
        if problem:
            raise self.nonsense(f"of the segments of topic {topic_id}: {problem}")
        return listing

    def nonsense(self, problem: str) -> NotCopied:
        """Return the error of an answer that cannot be right."""
        return NotCopied(self.peer, Reason.DAMAGED, f"it sent {problem}")

    async def segment(self, topic_id: int, listing: SegmentListing) -> None:
        """Stage a segment, whole and checked.  Raises NotCopied, StorageFull, DescriptorsExhausted, DiskFailed."""
        table = await self._table(topic_id, listing)
        problem = ""
        # What was here already is checked with the rest; if that fails, it may have been what is damaged.
        for takes_over in (True, False):
            part = await self.write_worker.submit(
                self.incoming.begin, topic_id, listing, table, takes_over
            )
            self.progress.done_size += sum(part.sizes)
            try:
                await self._fill(part, 0)
                await self._fill(part, 1)
            except BaseException:
                # Behind what is being written.
                self.write_worker.submit(part.close)
                raise
            try:
                await self.check_worker.submit(self.incoming.finish, part)
                return
            except CorruptBatch as error:
                self.progress.done_size -= sum(listing.sizes)
                problem = error.problem
        raise NotCopied(self.peer, Reason.DAMAGED, f"what it sent is not whole: {problem}")

    async def _table(self, topic_id: int, listing: SegmentListing) -> bytes:
        size = listing.sizes[2]
        if size > TABLE_SIZE_MAX:
            raise self.nonsense("a list with a batch table of impossible size")
        parts: list[memoryview] = []
        position = 0
        while position < size:
            data = await self._part(topic_id, listing, SUFFIXES.index(TABLE), position, size)
            parts.append(data)
            position += len(data)
        table = b"".join(parts)
        if google_crc32c.value(table) != listing.table_crc32c:
            raise self.nonsense("a batch table with another checksum than it has listed")
        return table

    async def _fill(self, part: SegmentPart, place: int) -> None:
        """Copy what is missing of one file, several pieces of it at once; each is written as it comes."""
        size = part.listing.sizes[place]
        try:
            async with asyncio.TaskGroup() as tasks:
                for position in range(part.sizes[place], size, PART_SIZE_MAX):
                    await self._request_slots.acquire()
                    end = min(size, position + PART_SIZE_MAX)
                    task = tasks.create_task(self._piece(part, place, position, end))
                    task.add_done_callback(lambda _: self._request_slots.release())
        except BaseExceptionGroup as group:
            raise _cause(group) from None

    async def _piece(self, part: SegmentPart, place: int, position: int, end: int) -> None:
        while position < end:
            data = await self._part(part.topic_id, part.listing, place, position, end)
            await self.write_worker.submit(part.write, SUFFIXES[place], position, data)
            position += len(data)
            self.progress.done_size += len(data)

    async def _part(
        self, topic_id: int, listing: SegmentListing, place: int, position: int, end: int
    ) -> memoryview:
        """Return bytes from `position` on, at least one, at most up to `end`."""
        request = PartRequest(
            self.requests.next_number(),
            topic_id,
            listing.base_offset,
            place,
            position,
            min(end - position, PART_SIZE_MAX),
        )
        data = (await self.requests.ask(self.peer, request, Part)).data
        if not 0 < len(data) <= request.size:
            raise self.nonsense("another number of bytes than was asked for")
        self.progress.fetched_size += len(data)
        return data


class Round:
    """One round, from one peer."""

    def __init__(
        self,
        fetch: Fetch,
        own_mark: Callable[[int], LogMark | None],
        checked: set[tuple[int, SegmentListing]],
    ) -> None:
        """own_mark(topic_id): where this node's own log of a topic ends now; None if there is none.

        checked: segments of its own logs of which every byte was checked in this copy, with their topics; a round adds to them.
        """
        self._fetch = fetch
        self._own_mark = own_mark
        self._checked = checked
        self._segment_slots = asyncio.Semaphore(SEGMENTS_AT_ONCE)

    async def run(self, index_min: int) -> Copied:
        """Copy all that a checkpoint at `index_min` or later needs.

        Raises NotCopied if the peer does not give it, StorageFull, DescriptorsExhausted; DiskFailed must stop the process.
        """
        image = await self._checkpoint(index_min)
        self._fetch.progress.source, self._fetch.progress.raft_index = (
            self._fetch.peer,
            image.raft_index,
        )
        copied = Copied(image)
        for topic in image.topics:
            if self._own_mark(topic.topic_id) != topic.mark:
                listing = await self._fetch.listing_of(topic.topic_id, topic.mark)
                copied.listings[topic.topic_id] = listing
        wanted = {
            topic_id: {listing.base_offset for listing in listings}
            for topic_id, listings in copied.listings.items()
        }
        await self._fetch.write_worker.submit(self._fetch.incoming.keep_only, wanted)
        await self._copy_all(copied.listings)
        return copied

    # --- The checkpoint, and what it needs ---------------------------------------------------------

    async def _checkpoint(self, index_min: int) -> CheckpointImage:
        parts: list[bytes] = []
        position = raft_index = 0
        while True:
            request = CheckpointRequest(
                self._fetch.requests.next_number(), index_min, raft_index, position
            )
            part = await self._fetch.requests.ask(self._fetch.peer, request, CheckpointPart)
            parts.append(part.data)
            position, raft_index = position + len(part.data), part.raft_index
            if not part.data or position > min(part.size, CHECKPOINT_SIZE_MAX):
                raise self._fetch.nonsense("a checkpoint of impossible size")
            if position == part.size:
                break
        data = b"".join(parts)
        try:
            image = await self._fetch.check_worker.submit(decode_checkpoint, data, "its checkpoint")
        except (CorruptCheckpoint, FormatUnsupported) as error:
            raise self._fetch.nonsense(str(error)) from error
        if image.raft_index < max(2, index_min):
            raise NotCopied(
                self._fetch.peer, Reason.TOO_OLD, f"its checkpoint is at {image.raft_index}"
            )
        return image

    # --- Segments ----------------------------------------------------------------------------------

    async def _copy_all(self, listings: dict[int, list[SegmentListing]]) -> None:
        progress = self._fetch.progress
        progress.size = sum(sum(each.sizes) for segments in listings.values() for each in segments)
        progress.done_size = 0
        try:
            async with asyncio.TaskGroup() as tasks:
                for topic_id, segments in listings.items():
                    for listing in segments:
                        await self._segment_slots.acquire()
                        task = tasks.create_task(self._segment(topic_id, listing))
                        task.add_done_callback(lambda _: self._segment_slots.release())
        except BaseExceptionGroup as group:
            raise _cause(group) from None

    async def _segment(self, topic_id: int, listing: SegmentListing) -> None:
        if await self._fetch.check_worker.submit(self._is_here, topic_id, listing):
            self._fetch.progress.done_size += sum(listing.sizes)
        else:
            await self._fetch.segment(topic_id, listing)

    def _is_here(self, topic_id: int, listing: SegmentListing) -> bool:
        incoming, key = self._fetch.incoming, (topic_id, listing)
        if incoming.has(topic_id, listing):
            return True
        if key in self._checked:
            return incoming.lists(topic_id, listing)
        if incoming.lives_on(topic_id, listing):
            self._checked.add(key)
            return True
        return False


def _cause(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return what has ended a group of tasks: what one ended with has ended the others too.

    Whoever runs the group and was cancelled at the same time learns only of this, so it must remember that it is to end.
    """
    # Of several what must stop the process.
    return next(
        (each for each in group.exceptions if not isinstance(each, NotCopied)), group.exceptions[0]
    )
