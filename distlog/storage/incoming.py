"""Segments that are being copied from a peer, beside the logs that a node lives on: `groups/0/incoming/`.

    parts/TOPIC_ID/BASE.{log,idx,batch}    being copied: the table whole, of the rest a first part
    topics/TOPIC_ID/BASE.{log,idx,batch}   whole, synced, and checked against their own table
    switch                                 those above are taking their places: for which checkpoint (catch_up/switch.py)

Nothing here belongs to a certain copy: "same prefix, same bytes" holds between all nodes and all times, so what a copy has fetched is
of use to the next one, from whomever.  A crash leaves any part of `parts`; a name in `topics` is given to a file only when all
of it is durable.
"""

from __future__ import annotations

from collections.abc import Collection

from distlog.errors import CorruptBatch, StorageFull
from distlog.storage.disk import Disk, DiskFile, Octets
from distlog.storage.listing import (
    Prefix,
    SegmentListing,
    first_fault,
    has_segment,
    verified_prefix,
)
from distlog.storage.log_mark import LogMark
from distlog.storage.segment_files import (
    INDEX,
    STORE,
    SUFFIXES,
    TABLE,
    Counts,
    list_segments,
    remove_segment,
    segment_path,
)

COPY_SIZE = 1 << 20


class Incoming:
    """The directory, for one thread at a time; everything blocks."""

    def __init__(self, disk: Disk, path: str, topics_path: str, spare_size: int = 0) -> None:
        """Nothing is made before something is staged.  spare_size: bytes of the disk that a copy leaves free."""
        self.disk = disk
        self.path = path
        self._spare_size = spare_size
        self.topics_path = topics_path

    def staged_path(self, topic_id: int) -> str:
        """Return where the segments of a topic are that are whole."""
        return f"{self.path}/topics/{topic_id:020d}"

    def part_path(self, topic_id: int) -> str:
        return f"{self.path}/parts/{topic_id:020d}"

    def own_path(self, topic_id: int) -> str:
        """Return where the log of a topic is that this node lives on."""
        return f"{self.topics_path}/{topic_id:020d}"

    def has(self, topic_id: int, listing: SegmentListing) -> bool:
        """Tell whether a segment is staged, whole."""
        return has_segment(self.disk, self.staged_path(topic_id), listing, exact=True)

    def lists(self, topic_id: int, listing: SegmentListing) -> bool:
        """Tell whether this node's own log has a segment with this table; what else is in it is not looked at."""
        return has_segment(self.disk, self.own_path(topic_id), listing, exact=False)

    def lives_on(self, topic_id: int, listing: SegmentListing) -> bool:
        """Tell whether this node's own log has a segment, every byte of it."""
        path = self.own_path(topic_id)
        return self.lists(topic_id, listing) and not first_fault(self.disk, path, listing)

    def keep_only(self, wanted: dict[int, Collection[int]]) -> None:
        """Remove what is of no use to a copy of these segments, by topic id and base offset."""
        for kind in ("topics", "parts"):
            path = f"{self.path}/{kind}"
            for name in self.disk.list_directory(path) if self.disk.exists(path) else ():
                if not name.isdecimal():
                    continue
                directory, bases = f"{path}/{name}", wanted.get(int(name), ())
                for base_offset in list_segments(self.disk, directory):
                    if base_offset not in bases:
                        remove_segment(self.disk, directory, base_offset)
                if not self.disk.list_directory(directory):
                    self.disk.remove(directory)

    def begin(
        self, topic_id: int, listing: SegmentListing, table: bytes, takes_over: bool = True
    ) -> SegmentPart:
        """Begin to copy a segment, with what there is of it here and in this node's own log if `takes_over`.

        table: its rows, which have the checksum of the listing.  Raises StorageFull before the disk is full.
        """
        size = sum(listing.sizes) + self._spare_size
        if self.disk.free_space(self.topics_path) < size:
            raise StorageFull(path=self.path)
        directory, base_offset = self.part_path(topic_id), listing.base_offset
        self.disk.make_directory(directory)
        part = SegmentPart(self, topic_id, listing)
        part.write_table(table)
        table_path = segment_path(directory, base_offset, TABLE)
        if not takes_over:
            part.take_over(Prefix(0, 0), directory)
            return part
        found: list[tuple[Prefix, str]] = []
        for path in (directory, self.staged_path(topic_id), self.own_path(topic_id)):
            store_path = segment_path(path, base_offset, STORE)
            prefix = verified_prefix(
                self.disk, table_path, base_offset, store_path, listing.batch_count
            )
            found.append((prefix, path))
        # Of two that are as long the first: nothing of it has to be copied.
        prefix, path = max(found, key=lambda each: each[0].store_size)
        part.take_over(prefix, path)
        return part

    def finish(self, part: SegmentPart) -> None:
        """Make a copied segment durable, and check every byte of it.  Raises CorruptBatch: then nothing of it is kept."""
        try:
            part.sync()
        finally:
            part.close()
        fault = first_fault(self.disk, self.part_path(part.topic_id), part.listing)
        if fault is not None:
            remove_segment(self.disk, self.part_path(part.topic_id), part.listing.base_offset)
            raise CorruptBatch(fault.path, fault.position, fault.problem)
        source, target = self.part_path(part.topic_id), self.staged_path(part.topic_id)
        self.disk.make_directory(target)
        # Names of the parts reach the disk or not; the bytes that the new names stand for are there already.
        for suffix in SUFFIXES:
            names = [
                segment_path(path, part.listing.base_offset, suffix) for path in (source, target)
            ]
            self.disk.rename(names[0], names[1])
            # A copy may be larger than the memory, and what comes next takes the same place in it.
            self.disk.drop_cache(names[1])
        self.disk.sync_directory(target)

    def take_place(self, topic_id: int, listing: SegmentListing) -> bool:
        """Put a staged segment in the place of this node's own, which has the same bytes where it is not damaged.

        False if it is not staged any more.  A reader may open old and new files side by side; a crash may leave any of them.
        """
        if not self.has(topic_id, listing):
            return False
        source, target = self.staged_path(topic_id), self.own_path(topic_id)
        for suffix in SUFFIXES:
            names = [segment_path(path, listing.base_offset, suffix) for path in (source, target)]
            self.disk.rename(names[0], names[1])
        self.disk.sync_directory(target)
        return True

    def is_empty(self) -> bool:
        """Tell whether nothing is staged, or was begun to be."""
        paths = [f"{self.path}/{name}" for name in ("parts", "topics")]
        return not any(self.disk.exists(path) and self.disk.list_directory(path) for path in paths)

    def clear(self) -> None:
        """Remove everything."""
        self.keep_only({})
        for name in ("parts", "topics"):
            path = f"{self.path}/{name}"
            if self.disk.exists(path) and not self.disk.list_directory(path):
                self.disk.remove(path)


class SegmentPart:
    """One segment that is being copied."""

    def __init__(self, incoming: Incoming, topic_id: int, listing: SegmentListing) -> None:
        self._incoming = incoming
        self.topic_id = topic_id
        self.listing = listing
        # Bytes that are there already, in the order of SUFFIXES.
        self.sizes = [0, 0, 0]
        self._files: dict[str, DiskFile] = {}

    def write_table(self, table: bytes) -> None:
        file = self._file(TABLE)
        file.truncate(0)
        file.write_at(0, [table])
        self.sizes[2] = len(table)

    def take_over(self, prefix: Prefix, path: str) -> None:
        """Begin with a first part that `path` has, and that its table speaks for; the index is checked with the whole."""
        own = self._incoming.part_path(self.topic_id)
        wanted = Counts(prefix.store_size, prefix.record_count, 0).sizes
        for place, suffix in enumerate((STORE, INDEX)):
            file = self._file(suffix)
            if path != own:
                file.truncate(0)
                self._copy(
                    segment_path(path, self.listing.base_offset, suffix), file, wanted[place]
                )
            self.sizes[place] = min(file.size(), wanted[place])
            file.truncate(self.sizes[place])

    def _copy(self, path: str, file: DiskFile, size: int) -> None:
        disk = self._incoming.disk
        if not size or not disk.exists(path):
            return
        source = disk.open(path, writable=False)
        try:
            for position in range(0, size, COPY_SIZE):
                data = source.read_at(position, min(COPY_SIZE, size - position))
                if not data:
                    break
                file.write_at(position, [data])
        finally:
            source.close()

    def write(self, suffix: str, position: int, data: Octets) -> None:
        """Write bytes that a peer has sent.  Raises StorageFull: what was written before is kept."""
        self._file(suffix).write_at(position, [data])

    def sync(self) -> None:
        for suffix in SUFFIXES:
            self._file(suffix).sync()

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()

    def _file(self, suffix: str) -> DiskFile:
        file = self._files.get(suffix)
        if file is None:
            disk, listing = self._incoming.disk, self.listing
            path = segment_path(
                self._incoming.part_path(self.topic_id), listing.base_offset, suffix
            )
            file = disk.open(path, create=not disk.exists(path))
            self._files[suffix] = file
        return file


def check_listing(listing: list[SegmentListing], mark: LogMark) -> str:
    """Return why a list of segments is not that of a log with this mark; empty if it can be."""
    if not listing:
        is_empty = mark.start_offset >= mark.next_offset
        return "" if is_empty else "it has no segments, and the log has records"
    end = listing[0].base_offset
    if end > mark.start_offset:
        return f"it begins at offset {end}, and the log at {mark.start_offset}"
    for segment in listing:
        if segment.base_offset != end or segment.next_offset <= end:
            return f"segment {segment.base_offset} does not follow offset {end}"
        end = segment.next_offset
    last = listing[-1]
    if end != mark.next_offset:
        return f"it ends at offset {end}, and the log at {mark.next_offset}"
    if last.base_offset == mark.segment_base_offset and last.store_size != mark.store_position:
        return f"it ends at byte {last.store_size}, and the log at {mark.store_position}"
    if min(map(min, listing)) < 0 or any(not each.batch_count for each in listing):
        return "a segment of it has no batches"
    return ""
