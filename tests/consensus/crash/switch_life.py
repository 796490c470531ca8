"""One life of a node that copies the state of another and goes over to it, and what any disk that it leaves must hold.

The disk has two directories: `source`, a node that has all entries, and `node`, one that has a first part of them and some that were
never committed.  A check opens what a crash left: it must be the state before or the state after, whole, with the term and the
vote that the node had.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from distlog.block import Block
from distlog.catch_up.switch import open_state, put_in_place
from distlog.consensus.checkpoint import CheckpointImage, read_checkpoint, write_checkpoint
from distlog.consensus.commands import Append, Command, CreateTopic, TrimTopic, encode_entry
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import JournalEntry
from distlog.consensus.recovery import Recovered
from distlog.consensus.state_machine import NO_OP
from distlog.errors import DistlogError
from distlog.storage.disk import Disk
from distlog.storage.incoming import Incoming, SegmentPart
from distlog.storage.listing import SegmentListing, list_log
from distlog.storage.segment_files import SUFFIXES, TABLE, SegmentLimits, segment_path
from distlog.storage.simulated_disk import Hook, SimulatedDisk
from tests.consensus.crash.node_life import TopicState, state_of
from tests.consensus.journal_history import sync
from tests.storage.crash.log_life import Through

SMALL = SegmentLimits(store_size_max=4 << 10, row_count_max=16)
SOURCE, NODE = "/source", "/node"
TERM, VOTE = 9, "n1"
ORDERS = 2
Change = Callable[["SwitchLife"], None]


class Place:
    """Where a node keeps its group."""

    def __init__(self, root: str) -> None:
        self.journal = f"{root}/journal"
        self.checkpoint = f"{root}/checkpoint"
        self.topics = f"{root}/topics"
        self.incoming = f"{root}/incoming"

    def open(self, disk: Disk) -> Recovered:
        return open_state(
            Incoming(disk, self.incoming, self.topics),
            journal_path=self.journal,
            checkpoint_path=self.checkpoint,
            topics_path=self.topics,
            journal_file_size_max=6_000,
            disk=disk,
        )


def entries(random: Random, count: int) -> list[JournalEntry]:
    """Return entries that roll segments of two topics, the second of which is trimmed in between."""
    commands: list[Command | None] = [None, CreateTopic("orders", SMALL)]
    offset = 0
    while len(commands) < count:
        topic_id = random.choice((1, ORDERS, ORDERS))
        records = [random.randbytes(random.choice((30, 700, 1500))) for _ in range(2)]
        commands.append(Append(topic_id, Block.from_records(records), None))
        offset += 2 if topic_id == ORDERS else 0
        if len(commands) % 9 == 0 and offset > 4:
            commands.append(TrimTopic(ORDERS, offset - 4))
    return [
        JournalEntry(
            NO_OP if each is None else encode_entry([each], 1000 + index), index, 1 + index // 6
        )
        for index, each in enumerate(commands, 1)
    ]


class SwitchLife:
    """What happens on the disk.  `live` can be cut anywhere by the disk's hook."""

    def __init__(
        self, through: Through = lambda disk: disk, put: Callable[..., None] = put_in_place
    ) -> None:
        self.disk = SimulatedDisk()
        self.through = through
        self.put = put
        self.before: tuple[TopicState, ...] = ()
        self.after: tuple[TopicState, ...] = ()
        self.image: CheckpointImage | None = None
        # The copy has begun, and the switch to it; the switch is durable.
        self.has_begun = self.may_switch = self.has_switched = False
        self.own_index = 0

    def live(self, seed: int, hook: Hook | None = None) -> None:
        random = Random(seed)
        found = entries(random, 34)
        source, node = Place(SOURCE), Place(NODE)
        self._apply(source, found, [], checkpoint=True)
        own = found[: random.choice((9, 15))]
        stray = [JournalEntry(b"\x01", own[-1].raft_index + n, TERM) for n in (1, 2)]
        self._apply(node, own, stray, checkpoint=random.random() < 0.7)
        self.own_index = own[-1].raft_index
        self.image = read_checkpoint(self.disk, source.checkpoint)
        assert self.image is not None
        reference = self.disk.kill()
        self.before = self._all_applied(node.open(reference.kill()), own)
        self.after = state_of(source.open(reference).state_machine)
        self.disk.hook = hook
        self.has_begun = True
        self._copy(source, node)
        self.disk.hook = None

    def _apply(
        self,
        place: Place,
        found: list[JournalEntry],
        stray: list[JournalEntry],
        *,
        checkpoint: bool,
    ) -> None:
        """Have a node apply entries, and journal others behind them."""
        self.disk.make_directory(place.topics)
        recovered = place.open(self.disk)
        journal, machine = recovered.journal, recovered.state_machine
        for entry in [*found, *stray]:
            journal.append(*entry)
        journal.set_term_vote(TERM, VOTE)
        sync(journal)
        for entry in found[1:]:
            machine.apply_payload(entry.raft_index, entry.term, entry.payload)
        if checkpoint:
            image = machine.capture(
                previous=found[-2],
                last=found[-1],
                configuration=Configuration("cluster", {"n1": "11" * 16}),
                durable_sequence=journal.durable_sequence,
            )
            image.sync_logs()
            write_checkpoint(self.disk, place.checkpoint, image)
        machine.close()
        journal.close()

    @staticmethod
    def _all_applied(recovered: Recovered, own: list[JournalEntry]) -> tuple[TopicState, ...]:
        machine = recovered.state_machine
        for entry in own[machine.last_applied_index :]:
            machine.apply_payload(entry.raft_index, entry.term, entry.payload)
        return state_of(machine)

    def _copy(self, source: Place, node: Place) -> None:
        """Do what a round and a switch do, without a network."""
        disk, image = self.through(self.disk), self.image
        assert image is not None
        incoming = Incoming(disk, node.incoming, node.topics)
        listings: dict[int, list[SegmentListing]] = {}
        for topic in image.topics:
            path = f"{source.topics}/{topic.topic_id:020d}"
            listings[topic.topic_id], _ = list_log(disk, path, topic.mark, 0, 1000)
        incoming.keep_only({})
        for topic_id, segments in listings.items():
            for listing in segments:
                if not incoming.has(topic_id, listing) and not incoming.lives_on(topic_id, listing):
                    self._copy_segment(incoming, source, topic_id, listing)
        recovered = node.open(disk)
        self._all_applied(recovered, [])
        recovered.state_machine.close()
        recovered.journal.close()
        self.may_switch = True
        durable_sequence = recovered.journal.durable_sequence
        self.put(incoming, node.checkpoint, image, listings, durable_sequence=durable_sequence)
        self.has_switched = True
        recovered = node.open(disk)
        recovered.state_machine.close()
        recovered.journal.close()

    def _copy_segment(
        self, incoming: Incoming, source: Place, topic_id: int, listing: SegmentListing
    ) -> None:
        def read(suffix: str, position: int, size: int) -> bytes:
            path = f"{source.topics}/{topic_id:020d}"
            file = self.disk.open(segment_path(path, listing.base_offset, suffix), writable=False)
            return file.read_at(position, size - position)

        sizes = dict(zip(SUFFIXES, listing.sizes, strict=True))
        part: SegmentPart = incoming.begin(topic_id, listing, read(TABLE, 0, sizes[TABLE]))
        for place, suffix in enumerate(SUFFIXES[:2]):
            start = part.sizes[place]
            part.write(suffix, start, read(suffix, start, sizes[suffix]))
        incoming.finish(part)

    # --- What must hold -------------------------------------------------------------------------

    def check(self, disk: SimulatedDisk) -> None:
        """Open what a crash left; then take away all that was not synced, and open that."""
        if self.has_begun:
            self._check_opens(disk)
            self._check_opens(disk.crash_keeping([]))

    def _check_opens(self, disk: SimulatedDisk) -> None:
        node = Place(NODE)
        try:
            recovered = node.open(self.through(disk))
        except DistlogError as error:
            raise AssertionError(f"it does not open: {error}") from error
        journal, machine = recovered.journal, recovered.state_machine
        assert (journal.term, journal.vote) == (TERM, VOTE), "it forgot its term or its vote"
        assert self.image is not None
        if machine.last_applied_index == self.image.raft_index:
            assert self.may_switch, "nobody has gone over yet"
            assert state_of(machine) == self.after
            assert journal.entry(self.image.raft_index) == self.image.last
            assert journal.last_index == self.image.raft_index
            left = disk.list_directory(node.incoming) if disk.exists(node.incoming) else []
            assert "switch" not in left
        else:
            assert not self.has_switched, "it went back"
            own = [journal.entry(index) for index in range(1, self.own_index + 1)]
            assert journal.last_index == self.own_index + 2
            assert self._all_applied(recovered, own) == self.before
        machine.close()
        journal.close()
