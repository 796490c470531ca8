"""One life of a node's data directory, beside it what every entry led to, and what any disk that it leaves must hold."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import NamedTuple

from distlog.consensus.checkpoint import write_checkpoint
from distlog.consensus.commands import (
    Append,
    Command,
    CreateTopic,
    DeleteTopic,
    OpenProducer,
    TrimTopic,
    encode_entry,
)
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import Journal, JournalEntry
from distlog.consensus.recovery import Recovered, recover
from distlog.consensus.state_machine import NO_OP, StateMachine
from distlog.errors import DistlogError
from distlog.storage.data_directory import DataDirectory
from distlog.storage.reserve import Reserve
from distlog.storage.segment_files import SegmentLimits
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.consensus.entries import append
from tests.consensus.journal_history import History
from tests.storage.crash.log_life import Batch, Through, batches_of

PATH = "/node"
VOTERS = {"n1": "", "n2": "22" * 16}
SMALL = SegmentLimits(store_size_max=4 << 10, row_count_max=16)
JOURNAL_FILE_SIZE_MAX = 6_000
RESERVE_SIZE = 8 << 10


class TopicState(NamedTuple):
    """What one topic is after an entry."""

    topic_id: int
    name: str
    start_offset: int
    next_offset: int
    batches: tuple[Batch, ...]


class Opened(NamedTuple):
    """What a node begins with."""

    directory: DataDirectory
    recovered: Recovered

    @property
    def journal(self) -> Journal:
        return self.recovered.journal

    @property
    def machine(self) -> StateMachine:
        return self.recovered.state_machine

    def close(self) -> None:
        self.machine.close()
        self.journal.close()
        self.directory.close()


def open_node(disk: SimulatedDisk, through: Through) -> Opened | DataDirectory:
    """Open all that a node opens; only the directory, if the cluster is not formed yet."""
    ported = through(disk)
    directory = DataDirectory.open(ported, PATH, "n1", Random(5))
    Reserve(ported, f"{PATH}/reserve", RESERVE_SIZE)
    if directory.cluster_id is None:
        return directory
    recovered = recover(
        ported,
        journal_path=directory.journal_path,
        checkpoint_path=directory.checkpoint_path,
        topics_path=directory.topics_path,
        journal_file_size_max=JOURNAL_FILE_SIZE_MAX,
    )
    return Opened(directory, recovered)


def state_of(machine: StateMachine) -> tuple[TopicState, ...]:
    """Read everything that a state machine has."""
    return tuple(
        TopicState(
            topic.topic_id,
            topic.name,
            topic.log.start_offset,
            topic.log.next_offset,
            tuple(batches_of(topic.log)),
        )
        for topic in machine.topics()
    )


class Life:
    """A node on its own disk.  `live` can be cut anywhere by the disk's hook."""

    # What a checkpoint does, in this order; a planted fault changes it.
    checkpoint_steps = ("sync_logs", "write", "remove_files", "compact")

    def __init__(self, through: Through = lambda disk: disk) -> None:
        self.disk = SimulatedDisk()
        self.through = through
        # What any later start must find: the directory's id, and whether the cluster was formed.
        self.directory_id = ""
        self.is_formed = False
        self.history: History | None = None
        # The entries that are committed, by raft index - 1, and the state after each.
        self.committed: list[JournalEntry] = []
        self.states: dict[int, tuple[TopicState, ...]] = {}
        # The checkpoint that is durable, and the newest that was begun.
        self.checkpointed = 0
        self.checkpoint_begun = 0

    # --- Live -----------------------------------------------------------------------------------

    def live(self, seed: int, hook: Hook | None = None) -> None:
        """Begin, append, roll, trim, delete and create again, truncate and compact the journal, checkpoint, stop."""
        random = Random(seed)
        self.disk.hook = hook
        found = open_node(self.disk, self.through)
        assert isinstance(found, DataDirectory)
        self.directory_id = found.directory_id
        found.form("cluster", {**VOTERS, "n1": found.directory_id})
        self.is_formed = True
        found.close()
        opened = open_node(self.disk, self.through)
        assert isinstance(opened, Opened)
        self.history = History(opened.journal)
        self._propose(opened, None)
        for step, command in enumerate(self._commands(opened, random)):
            if step % 6 == 3:
                self._change_leader(opened)
            self._propose(opened, command)
            if random.random() < 0.2:
                self.disk.write_back(random)
            if step % 5 == 4:
                self.checkpoint(opened)
        self.checkpoint(opened)
        opened.close()
        self.disk.hook = None

    def _commands(self, opened: Opened, random: Random) -> Iterator[Command]:
        """Yield what is proposed; ids are known only when it is."""

        def records(topic_id: int) -> Append:
            sizes = [random.choice((0, 30, 700, 3_000)) for _ in range(random.randint(1, 4))]
            return append(*(random.randbytes(size) for size in sizes), topic_id=topic_id)

        def orders() -> int:
            topic = opened.machine.topic_by_name("orders")
            assert topic is not None
            return topic.topic_id

        yield records(1)
        yield CreateTopic("orders", SMALL)
        yield records(orders())
        yield records(orders())
        yield OpenProducer(0)
        yield records(orders())
        yield records(orders())
        log = opened.machine.topics()
        yield TrimTopic(orders(), next(t for t in log if t.name == "orders").log.next_offset - 1)
        yield records(1)
        yield records(orders())
        yield DeleteTopic(orders())
        yield CreateTopic("orders", SMALL)
        yield records(orders())
        yield records(orders())
        yield TrimTopic(1, 1)

    def _propose(self, opened: Opened, command: Command | None) -> None:
        """Journal an entry, sync it, commit and apply it."""
        history = self.history
        assert history is not None
        number = len(self.committed) + 1
        payload = NO_OP if command is None else encode_entry([command], 1_000 + number)
        history.append(payload)
        if number % 3 == 0:
            history.set_term_vote(history.now.term + 1, "n1")
        history.sync()
        entry = history.now.entries[-1]
        self.committed.append(entry)
        if number > 1:
            self.states[number] = ()
            opened.machine.apply_payload(number, entry.term, entry.payload)
        self.states[number] = state_of(opened.machine)

    def _change_leader(self, opened: Opened) -> None:
        """Journal an entry that is never committed: another leader's truncates it."""
        history = self.history
        assert history is not None
        history.append(encode_entry([append(b"never committed")], 5))
        history.sync()
        history.truncate_from(opened.journal.last_index)
        history.set_term_vote(history.now.term + 1, None)

    def checkpoint(self, opened: Opened) -> None:
        image = opened.machine.capture(
            previous=self.committed[-2],
            last=self.committed[-1],
            configuration=Configuration("cluster", {**VOTERS, "n1": self.directory_id}),
            durable_sequence=opened.journal.durable_sequence,
        )
        self.checkpoint_begun = image.raft_index
        disk = self.through(self.disk)
        for step in self.checkpoint_steps:
            if step == "sync_logs":
                image.sync_logs()
            elif step == "write":
                write_checkpoint(disk, opened.directory.checkpoint_path, image)
                self.checkpointed = image.raft_index
            elif step == "remove_files":
                opened.machine.checkpointed(image)()
            else:
                assert self.history is not None
                first_index = max(opened.journal.first_index, image.raft_index - 1)
                self.history.compact(first_index)

    def appended(self, topic_id: int) -> list[Batch]:
        """Return every batch that a topic ever had, trimmed ones included."""
        found = {
            batch.base_offset: batch
            for states in self.states.values()
            for state in states
            if state.topic_id == topic_id
            for batch in state.batches
        }
        return [found[base_offset] for base_offset in sorted(found)]

    # --- What must hold -------------------------------------------------------------------------

    def check(self, disk: SimulatedDisk) -> None:
        """Open what a crash left, apply what is committed; then take away all that was not synced, and open that."""
        self._check_opens(disk)
        self._check_opens(disk.crash_keeping([]))

    def _check_opens(self, disk: SimulatedDisk) -> None:
        try:
            found = open_node(disk, self.through)
        except DistlogError as error:
            raise AssertionError(f"it does not open: {error}") from error
        if isinstance(found, DataDirectory):
            assert not self.is_formed, "it forgot its cluster"
            assert self.directory_id in ("", found.directory_id), "it forgot who it is"
            # What this start has drawn is durable now.
            found.close()
            return
        assert found.directory.directory_id == self.directory_id
        if self.history is None:
            assert len(found.journal) == 0
            return
        self._check_state(found)

    def _check_state(self, found: Opened) -> None:
        history, machine = self.history, found.machine
        assert history is not None
        history.check_recovered(found.journal, durable_sequence=history.journal.durable_sequence)
        index = machine.last_applied_index
        if found.recovered.image is None:
            assert not self.checkpointed, "it forgot its checkpoint"
            first = (TopicState(1, "default", 0, 0, ()),)
            assert state_of(machine) == first
        else:
            assert index in self.states, "a checkpoint of nothing that was applied"
            assert self.checkpointed <= index <= self.checkpoint_begun
            assert state_of(machine) == self.states[index]
        for entry in self.committed[index:]:
            assert found.journal.entry(entry.raft_index) == entry
            machine.apply_payload(entry.raft_index, entry.term, entry.payload)
        # The last one may have been committed and not yet applied when the power went.
        end = self.states.get(len(self.committed), ())
        assert end in ((), state_of(machine))
