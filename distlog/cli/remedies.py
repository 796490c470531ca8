"""What to do about a fault: one sentence, with what to type where there is something to type."""

from __future__ import annotations

import os
import shlex

from distlog.cli.stopped_node import Look
from distlog.storage.invariants import Fault, Invariant
from distlog.storage.log_mark import MARK_NAME
from distlog.storage.segment_files import INDEX

# Of a data directory as a whole.
WHOLE = {
    Invariant.IDENTITY_FITS,
    Invariant.CHECKPOINT_READABLE,
    Invariant.JOURNAL_CHAIN,
    Invariant.JOURNAL_FITS,
    Invariant.ENTRY_READABLE,
    Invariant.PROVENANCE,
}
DIFFERENT = "one of the two was changed after it was written: verify each of them alone"


def remedy_of(fault: Fault, look: Look) -> str:
    """Return what to do about a fault of a directory."""
    if fault.invariant == Invariant.IDENTITY_READABLE:
        return (
            "do as the fault says, then verify again: nothing else of the directory was looked at"
        )
    if fault.invariant == Invariant.MARK_READABLE or (
        fault.invariant == Invariant.MARK_FITS and fault.path.endswith(f"/{MARK_NAME}")
    ):
        return "start the node: it goes by what else it knows, and writes the mark anew"
    if fault.path.endswith(INDEX) and not _is_seed(look):
        return _index(fault)
    if fault.invariant == Invariant.READABLE:
        return (
            "the disk cannot read this, see what the kernel says of it (dmesg): copy the directory to "
            f"another disk, then: {_restore(fault, look)}"
        )
    return _restore(fault, look)


def _index(fault: Fault) -> str:
    if fault.invariant == Invariant.FILE_PRESENT:
        return "start the node: it writes the index anew from the store"
    return (
        f"rm {shlex.quote(fault.path)} and start the node: it writes the index anew from the store"
    )


def _restore(fault: Fault, look: Look) -> str:
    directory = look.directory
    if directory is None:
        what = "directory" if _is_seed(look) else "segment's three files"
        return f"restore the {what} from a copy; until then what is whole can be read"
    members = {directory.node_id, *(directory.voters or {})}
    if look.checkpoint is not None and look.checkpoint.configuration.raft_index > 1:
        members = {directory.node_id, *look.checkpoint.configuration.members}
    alone = len(members) < 2
    is_topic = fault.path.startswith(directory.topics_path + "/")
    if alone:
        return "restore the data directory from a backup: no other node has a copy"
    if fault.invariant in WHOLE or not is_topic or not os.path.splitext(fault.path)[1]:
        return (
            "do not start this node as it is, it may have promised what it lost: let the node come back as a new member, "
            f"distlog cluster rejoin --data-dir {shlex.quote(look.path)}"
        )
    if _is_sealed(fault, look):
        return (
            "start the node: it goes on without this segment, fetches it from another member, and `distlog cluster status` says how "
            "far that is"
        )
    stem = os.path.splitext(os.path.relpath(fault.path, look.path))[0]
    folder = shlex.quote(os.path.dirname(fault.path))
    return (
        "another member has the same bytes: stop one, verify its directory, and with this node stopped as well: "
        f"cp OTHER_DATA_DIR/{stem}.* {folder}/"
    )


def _is_sealed(fault: Fault, look: Look) -> bool:
    """Tell whether a fault is in a segment that nothing is written to when the node starts."""
    folder, _, name = fault.path.rpartition("/")
    topics = look.checkpoint.topics if look.checkpoint is not None else ()
    marks = {f"{topic.topic_id:020d}": topic.mark for topic in topics}
    mark, digits = marks.get(folder.rpartition("/")[2]), os.path.splitext(name)[0]
    return mark is not None and digits.isdecimal() and int(digits) < mark.segment_base_offset


def _is_seed(look: Look) -> bool:
    return any(topic.log.is_seed for topic in look.topics)
