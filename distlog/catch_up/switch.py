"""How a node goes over from its own state to a copied one: at one moment, whatever crashes.

    put_in_place   the copy is whole -> `incoming/switch` -> `checkpoint` replaced: from here on the new state counts
    open_state     segments linked into their logs -> logs cut to the checkpoint -> journal begun anew -> `incoming` removed

Until the new `checkpoint` is durable nothing of the old state is touched; afterwards everything is done again at the next start until
`incoming/switch` is gone.  A segment has both names until the one in its log is durable: a rename could lose both.

The journal's entries are superseded by a checkpoint that this node does not hold the last entry of: those up to it are in the
checkpoint, and those behind it follow an entry that is not the committed one, so they never were committed.  Term and vote stay:
they are what this node has promised.  docs/decisions/0019 has the argument.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from distlog.block import crc32c
from distlog.consensus.checkpoint import (
    CheckpointImage,
    encode_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from distlog.consensus.durability import Durability
from distlog.consensus.recovery import Recovered, recover
from distlog.errors import DiskFailed
from distlog.storage.disk import Disk
from distlog.storage.incoming import Incoming
from distlog.storage.listing import SegmentListing, has_segment
from distlog.storage.segment_files import SUFFIXES, list_segments, segment_path

SWITCH_NAME, PROBE_NAME = "switch", "probe"
# magic, raft index and term of the checkpoint, CRC32C of its file; then the CRC32C of these.
SWITCH = struct.Struct("<8sQQI")
SWITCH_CRC = struct.Struct("<I")
MAGIC = b"distlogS"
# Segments by topic id.
Listings = Mapping[int, Sequence[SegmentListing]]


class CopyIncomplete(Exception):
    """Something that the new state needs is not there (any more): copy what is missing, and try again."""


def put_in_place(
    incoming: Incoming,
    checkpoint_path: str,
    image: CheckpointImage,
    listings: Listings,
    *,
    durable_sequence: int,
) -> None:
    """Have a copied checkpoint count from now on.  Blocks.  The logs and the journal are closed; `open_state` does the rest.

    listings: the segments of each topic that has changed, staged or in this node's own log.  durable_sequence: of its own journal.
    Raises CopyIncomplete, nothing being changed, StorageFull and DiskFailed.
    """
    disk = incoming.disk
    for topic_id, segments in listings.items():
        _require_all(incoming, topic_id, segments)
    for topic in image.topics:
        # A topic without records has nothing that is copied; a log of this node may have a name that no checkpoint has synced yet.
        disk.make_directory(incoming.own_path(topic.topic_id), durable=False)
    disk.sync_directory(incoming.topics_path)
    image = replace(image, durable_sequence=durable_sequence, syncs=())
    disk.make_directory(incoming.path)
    _write_switch(disk, incoming, image)
    _require_links(disk, incoming)
    # The moment.
    write_checkpoint(disk, checkpoint_path, image)


def _require_links(disk: Disk, incoming: Incoming) -> None:
    """Raise CopyIncomplete where a file cannot have two names: after the moment it would be too late."""
    probe = f"{incoming.path}/{PROBE_NAME}"
    if disk.exists(probe):
        disk.remove(probe)
    try:
        disk.link(f"{incoming.path}/{SWITCH_NAME}", probe)
    except DiskFailed as error:
        raise CopyIncomplete(f"its file system must have hard links: {error}") from error
    disk.remove(probe)


def _require_all(incoming: Incoming, topic_id: int, listings: Sequence[SegmentListing]) -> None:
    """Raise CopyIncomplete unless a log will have these segments, and no others between them."""
    disk, own = incoming.disk, incoming.own_path(topic_id)
    for listing in listings:
        if not incoming.has(topic_id, listing) and not has_segment(disk, own, listing, exact=True):
            raise CopyIncomplete(
                f"topic {topic_id} lacks the segment of offset {listing.base_offset}"
            )
    if listings and disk.exists(own):
        first, end = listings[0].base_offset, listings[-1].next_offset
        bases = {listing.base_offset for listing in listings}
        for base_offset in list_segments(disk, own):
            if first <= base_offset < end and base_offset not in bases:
                problem = (
                    f"{own} has a segment at offset {base_offset}, where no other node has one"
                )
                raise CopyIncomplete(problem)


def _write_switch(disk: Disk, incoming: Incoming, image: CheckpointImage) -> None:
    path = f"{incoming.path}/{SWITCH_NAME}"
    if disk.exists(path):
        disk.remove(path)
    checksum = crc32c(b"".join(encode_checkpoint(image)))
    file = disk.open(path, create=True)
    try:
        file.write_at(0, [encode_switch(image.raft_index, image.term, checksum)])
        file.sync()
    finally:
        file.close()
    disk.sync_directory(incoming.path)


def encode_switch(raft_index: int, term: int, checksum: int) -> bytes:
    """Return the note of a switch to the checkpoint of this entry, whose file has this CRC-32C."""
    data = SWITCH.pack(MAGIC, raft_index, term, checksum)
    return data + SWITCH_CRC.pack(crc32c(data))


def _checksum(disk: Disk, path: str) -> int:
    file = disk.open(path, writable=False)
    try:
        return crc32c(file.read_at(0, file.size()))
    finally:
        file.close()


def open_state(
    incoming: Incoming,
    *,
    journal_path: str,
    checkpoint_path: str,
    topics_path: str,
    journal_file_size_max: int,
    disk: Disk,
    durability: Durability = Durability.FSYNC,
    tell: Callable[[str], None] = lambda _words: None,
) -> Recovered:
    """Open what one group keeps, once a switch that was begun is done.  Blocks.  Raises as `recover`.

    disk: what the group writes to.  tell(words): called, where this runs, with how far it is.
    """
    is_switching = _settle(incoming, checkpoint_path, disk)
    recovered = recover(
        disk,
        journal_path=journal_path,
        checkpoint_path=checkpoint_path,
        topics_path=topics_path,
        journal_file_size_max=journal_file_size_max,
        durability=durability,
        is_checkpoint_copied=is_switching,
        tell=tell,
    )
    if is_switching:
        _end(incoming)
    return recovered


def _settle(incoming: Incoming, checkpoint_path: str, disk: Disk) -> bool:
    """Link staged segments into their logs, if their checkpoint counts; tell whether it does."""
    path = f"{incoming.path}/{SWITCH_NAME}"
    if not disk.exists(path):
        return False
    # A killed process may have left the new checkpoint without its name being durable.
    disk.sync_directory(checkpoint_path.rpartition("/")[0] or ".")
    found = _read_switch(disk, path)
    if (
        found is None
        or not disk.exists(checkpoint_path)
        or found[2] != _checksum(disk, checkpoint_path)
    ):
        current = read_checkpoint(disk, checkpoint_path)
        if found is not None and current is not None and current.raft_index >= found[0]:
            # Older than what counts: its segments may have two names, so nothing may be made of them.
            _end(incoming)
        else:
            _forget_switch(incoming)
        return False
    _link_staged(incoming, disk)
    return True


def _read_switch(disk: Disk, path: str) -> tuple[int, int, int] | None:
    file = disk.open(path, writable=False)
    try:
        return decode_switch(file.read_at(0, SWITCH.size + SWITCH_CRC.size))
    finally:
        file.close()


def decode_switch(data: bytes) -> tuple[int, int, int] | None:
    """Return raft index, term and checksum of a checkpoint; None if they were being written when the node stopped."""
    if len(data) < SWITCH.size + SWITCH_CRC.size:
        return None
    if SWITCH_CRC.unpack_from(data, SWITCH.size)[0] != crc32c(data[: SWITCH.size]):
        return None
    magic, raft_index, term, checksum = SWITCH.unpack_from(data)
    return (raft_index, term, checksum) if magic == MAGIC else None


def _link_staged(incoming: Incoming, disk: Disk) -> None:
    """Give every staged segment its name in its log, durably."""
    path = f"{incoming.path}/topics"
    for name in disk.list_directory(path) if disk.exists(path) else ():
        source, target = f"{path}/{name}", incoming.own_path(int(name))
        disk.make_directory(target)
        for base_offset in list_segments(disk, source):
            for suffix in SUFFIXES:
                staged = segment_path(source, base_offset, suffix)
                named = segment_path(target, base_offset, suffix)
                if not disk.exists(staged):
                    continue
                # What is there is a part of the same, or the same: a crash in between leaves the staged name.
                if disk.exists(named):
                    disk.remove(named)
                disk.link(staged, named)
        disk.sync_directory(target)


def _end(incoming: Incoming) -> None:
    """Remove what was staged, and last the note that it was taking its place."""
    incoming.clear()
    # A staged name that came back without the note would be taken for a file of its own.
    incoming.disk.sync_directory(incoming.path)
    _forget_switch(incoming)


def _forget_switch(incoming: Incoming) -> None:
    for name in (PROBE_NAME, SWITCH_NAME):
        if incoming.disk.exists(f"{incoming.path}/{name}"):
            incoming.disk.remove(f"{incoming.path}/{name}")
    incoming.disk.sync_directory(incoming.path)
