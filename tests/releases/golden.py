"""One small file of each format, written by the product's own code.

    python -m tests.releases.golden

writes them to tests/data/golden.  That is right for a format that is new; a file that is there already changes only with a new
version of its format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random

from distlog.block import ATTRIBUTE_STRUCTURED, Block
from distlog.catch_up.switch import encode_switch
from distlog.consensus.checkpoint import CheckpointImage, TopicImage, write_checkpoint
from distlog.consensus.commands import (
    Append,
    ChangePolicy,
    Command,
    ConfigureTopic,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    ProducerStamp,
    TrimTopic,
    encode_entry,
)
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import Journal, JournalEntry
from distlog.consensus.producers import ProducerTable
from distlog.security.policy import Membership, Permission, Policy, Rule
from distlog.storage.data_directory import DataDirectory
from distlog.storage.log import Log
from distlog.storage.log_mark import LogMark
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import SimulatedDisk

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
TIME_MS = 1_700_000_000_000
LIMITS = SegmentLimits(store_size_max=4096, row_count_max=16)

PLAIN = Block.from_records([b"hello", b"world!!!"])
# A `log.v1.Record`: key "k", header "h" = "v", value "x".
STRUCTURED = Block.from_records(
    [bytes.fromhex("0a016b 12060a0168120176 1a0178")], ATTRIBUTE_STRUCTURED
)

COMMANDS: tuple[Command, ...] = (
    Append(1, PLAIN),
    Append(1, STRUCTURED, ProducerStamp(0x20000, 3, 9)),
    CreateTopic("orders", LIMITS, KEEP_ALL),
    CreateTopic("events", LIMITS, Retention(1 << 30, 604_800_000)),
    ConfigureTopic(7, 1 << 20, None),
    TrimTopic(7, 1000),
    DeleteTopic(7),
    OpenProducer(0),
)
RULES: tuple[Rule, ...] = (
    Permission("admins", "*", "*"),
    Membership("root.example", "admins"),
    Permission("alice", "orders-*", "produce"),
)
POLICY_COMMANDS: tuple[Command, ...] = (
    ChangePolicy(RULES, ()),
    ChangePolicy((), RULES, may_open=True),
)
CONFIGURATION = Configuration.form({"n1": "11" * 16, "n2": "22" * 16})


def entry() -> bytes:
    """An entry with a command of each kind."""
    return encode_entry(COMMANDS, TIME_MS)


def image() -> CheckpointImage:
    """A checkpoint with two topics and two producers, one of which has written."""
    producers = ProducerTable([1, 7])
    producers.advance(TIME_MS)
    for new_id in (0x20000, 0x20001):
        producers.open(0, new_id)
    producers.record(ProducerStamp(0x20000, 0, 0), 7, 40)
    mark = LogMark(16, 42, TIME_MS, 32, 290)
    return CheckpointImage(
        previous=JournalEntry(b"\x01", 8, 2),
        last=JournalEntry(entry(), 9, 3),
        configuration=CONFIGURATION,
        durable_sequence=17,
        now_ms=TIME_MS,
        topics=(
            TopicImage(1, "default", SegmentLimits(), LogMark(0, 0, 0, 0, 0), KEEP_ALL),
            TopicImage(7, "orders", LIMITS, mark, Retention(1 << 30, 604_800_000)),
        ),
        producer_rows=producers.capture(),
    )


def policy_entry() -> bytes:
    """An entry that gives the cluster a policy and takes it away again."""
    return encode_entry(POLICY_COMMANDS, TIME_MS)


def policy_image() -> CheckpointImage:
    """A checkpoint with a policy."""
    return replace(image(), policy=Policy(RULES))


def log_files(disk: SimulatedDisk) -> None:
    """A log of two batches, one of each kind of records."""
    log = Log.create(disk, "/log", LIMITS)
    log.append(PLAIN, timestamp_ms=TIME_MS, raft_index=7, term=3)
    log.append(STRUCTURED, timestamp_ms=TIME_MS + 1, raft_index=9, term=3)
    log.close()


def journal_files(disk: SimulatedDisk) -> None:
    """A journal with an operation of each kind."""
    journal = Journal.open(disk, "/journal")
    journal.set_term_vote(3, "n1")
    journal.append(b"\x01", 1, 0)
    _sync(journal)
    journal.append(entry(), 2, 3)
    journal.truncate_from(2)
    journal.set_term_vote(4, None)
    _sync(journal)
    journal.close()


def _sync(journal: Journal) -> None:
    ticket = journal.begin_sync()
    assert ticket is not None
    ticket.run()
    journal.finish_sync(ticket)


def directory_files(disk: SimulatedDisk) -> None:
    """The directory of a node whose cluster is formed."""
    directory = DataDirectory.open(disk, "/data", "n1", Random(1))
    directory.form(CONFIGURATION.cluster_id, CONFIGURATION.voters)
    directory.close()


def _written(make: Callable[[SimulatedDisk], None], path: str) -> bytes:
    disk = SimulatedDisk()
    make(disk)
    file = disk.open(path, writable=False)
    return file.read_at(0, file.size())


def _checkpoint(disk: SimulatedDisk) -> None:
    write_checkpoint(disk, "checkpoint", image())


def _policy_checkpoint(disk: SimulatedDisk) -> None:
    write_checkpoint(disk, "checkpoint", policy_image())


# What each file holds, by its name.
FORMATS: dict[str, Callable[[], bytes]] = {
    "FORMAT": lambda: _written(directory_files, "/data/FORMAT"),
    "node.json": lambda: _written(directory_files, "/data/node.json"),
    f"{0:020d}.log": lambda: _written(log_files, f"/log/{0:020d}.log"),
    f"{0:020d}.idx": lambda: _written(log_files, f"/log/{0:020d}.idx"),
    f"{0:020d}.batch": lambda: _written(log_files, f"/log/{0:020d}.batch"),
    "synced": lambda: _written(log_files, "/log/synced"),
    f"{1:020d}.journal": lambda: _written(journal_files, f"/journal/{1:020d}.journal"),
    "checkpoint": lambda: _written(_checkpoint, "checkpoint"),
    "checkpoint-policy": lambda: _written(_policy_checkpoint, "checkpoint"),
    "switch": lambda: encode_switch(7, 4, 0x01020304),
    "entry": entry,
    "entry-policy": policy_entry,
    "block": STRUCTURED.encode,
}

if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, write in FORMATS.items():
        (GOLDEN / name).write_bytes(write())
