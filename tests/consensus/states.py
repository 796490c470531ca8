"""A state machine on a simulated disk, with a journal in memory that can be applied again."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from distlog.consensus.checkpoint import (
    CheckpointImage,
    encode_checkpoint,
    read_checkpoint,
    write_checkpoint,
)
from distlog.consensus.commands import Command, encode_entry
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import JournalEntry
from distlog.consensus.results import Result
from distlog.consensus.state_machine import StateMachine
from distlog.storage.disk import Disk
from distlog.storage.simulated_disk import SimulatedDisk

TOPICS = "groups/0/topics"
CHECKPOINT = "groups/0/checkpoint"
CONFIGURATION = Configuration.form({"n1": "aa", "n2": "bb", "n3": "cc"})
NO_OP = JournalEntry(b"\x01", 1, 0)


class Replica:
    """One node's state, and the entries that a majority has committed."""

    def __init__(
        self, disk: Disk | None = None, journal: Sequence[JournalEntry] = (NO_OP,)
    ) -> None:
        """Open what is on the disk, and apply what the journal has beyond it."""
        self.disk = disk or SimulatedDisk()
        self.journal = list(journal)
        self.image = read_checkpoint(self.disk, CHECKPOINT)
        self.machine = StateMachine.open(
            self.disk, TOPICS, self.image, journal_first_index=self.journal[0].raft_index
        )
        for entry in self.journal[self.machine.last_applied_index :]:
            self.machine.apply_payload(entry.raft_index, entry.term, entry.payload)

    def apply(self, *commands: Command, timestamp_ms: int = 0, term: int = 1) -> list[Result]:
        """Commit an entry and apply it."""
        entry = JournalEntry(encode_entry(commands, timestamp_ms), len(self.journal) + 1, term)
        self.journal.append(entry)
        return self.machine.apply_payload(entry.raft_index, entry.term, entry.payload)

    def capture(self, durable_sequence: int = 0) -> CheckpointImage:
        if len(self.journal) == 1:
            entry = JournalEntry(b"\x01", 2, 1)
            self.journal.append(entry)
            self.machine.apply_payload(entry.raft_index, entry.term, entry.payload)
        return self.machine.capture(
            previous=self.journal[-2],
            last=self.journal[-1],
            configuration=CONFIGURATION,
            durable_sequence=durable_sequence,
        )

    def checkpoint(self) -> CheckpointImage:
        """Do all steps of a checkpoint."""
        image = self.capture()
        image.sync_logs()
        write_checkpoint(self.disk, CHECKPOINT, image)
        self.machine.checkpointed(image)()
        return image

    def state(self) -> bytes:
        """Return the state as a checkpoint would keep it."""
        return b"".join(encode_checkpoint(self.capture()))

    def records(self, name: str = "default") -> list[bytes]:
        """Return every record of a topic that is kept."""
        topic = self.machine.topic_by_name(name)
        assert topic is not None
        found: list[bytes] = []
        offset = topic.log.start_offset
        while offset < topic.log.next_offset:
            for batch in topic.log.read(offset, 1 << 20):
                found += list(batch.records())[max(0, offset - batch.base_offset) :]
                offset = batch.next_offset
        return found

    def after_crash(self, random: Random) -> Replica:
        """Return the node after a power cut and a restart; what was committed is still committed."""
        assert isinstance(self.disk, SimulatedDisk)
        return Replica(self.disk.crash(random), self.journal)

    def after_kill(self) -> Replica:
        """Return the node after kill -9 and a restart."""
        assert isinstance(self.disk, SimulatedDisk)
        return Replica(self.disk.kill(), self.journal)


def topic_id(replica: Replica, name: str) -> int:
    topic = replica.machine.topic_by_name(name)
    assert topic is not None, f"there is no topic {name}"
    return topic.topic_id


def logs_on_disk(replica: Replica) -> list[str]:
    """Return the names in the directory of the logs."""
    return replica.disk.list_directory(TOPICS)


def files(replica: Replica) -> dict[str, bytes]:
    """Return the bytes of every file that holds records."""
    disk = replica.disk
    found = {}
    for topic in disk.list_directory(TOPICS):
        for name in disk.list_directory(f"{TOPICS}/{topic}"):
            file = disk.open(f"{TOPICS}/{topic}/{name}", writable=False)
            found[f"{topic}/{name}"] = file.read_at(0, file.size())
            file.close()
    return found
