"""Three (or more) `Raft` objects whose every message, tick and fsync a test decides.

Nothing happens by itself: `tick` lets a voter act, `deliver` hands over what is queued from one to another, `sync`
finishes a group fsync.  Time is a number that `tick` moves.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from distlog.consensus import messages
from distlog.consensus.commands import ENTRY_TYPE_OPAQUE
from distlog.consensus.configuration import Addresses, Configuration, is_configuration
from distlog.consensus.durability import Durability
from distlog.consensus.journal import FILE_SIZE_MAX, Journal
from distlog.consensus.journal_view import RestorePoint
from distlog.consensus.library import RaftSettings
from distlog.consensus.membership import Membership
from distlog.consensus.messages import Message
from distlog.consensus.raft import Raft
from distlog.consensus.rules import Rules, complete_rules
from distlog.consensus.space import Space
from distlog.storage.reserve import Reserve, ReservedDisk
from distlog.storage.simulated_disk import SimulatedDisk

HEARTBEAT_S = RaftSettings().heartbeat_interval_s
# Enough that space is no concern of a test that is not about it.
RESERVE_SIZE = 32 << 20
ELECTION_S = 1.2
RulesMaker = Callable[[Callable[[str, Message], None], int], Rules]


def directory_of(name: str) -> str:
    return f"directory-of-{name}"


class ManualClock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall_ms(self) -> int:
        return int(self.now * 1000)


class Voter:
    """One Raft with its journal on a simulated disk."""

    def __init__(
        self,
        cluster: Voters,
        name: str,
        disk: SimulatedDisk,
        restore_point: RestorePoint | None = None,
        configuration: Configuration | None = None,
        directory_id: str = "",
    ) -> None:
        self.name = name
        self.directory_id = directory_id or directory_of(name)
        self.cluster = cluster
        self.disk = disk
        self.applied: list[tuple[int, bytes]] = []
        self.reserve = Reserve(disk, "reserve", cluster.reserve_size)
        self.journal = Journal.open(
            ReservedDisk(disk, self.reserve),
            "journal",
            file_size_max=cluster.journal_file_size_max,
            durability=cluster.durability,
        )
        rules = cluster.rules(self._transmit, cluster.in_flight_size_max)
        space = Space(self.reserve, lambda: 1)
        self.raft = Raft(
            node_id=name,
            directory_id=self.directory_id,
            configuration=configuration or cluster.configuration,
            journal=self.journal,
            restore_point=restore_point,
            clock=cluster.clock,
            random=Random(name),
            settings=RaftSettings(
                in_flight_size_max=cluster.in_flight_size_max,
                entry_size_max=1 << 20,
                step_time_max_s=cluster.step_time_max_s,
            ),
            rules=rules,
            space=space,
            apply=self._apply,
        )
        self.membership = Membership(self.raft, rules, space, cluster.clock, ELECTION_S)

    def _transmit(self, receiver: str, message: Message) -> None:
        self.cluster.queues[self.name, receiver].append(messages.encode(message))

    def _apply(self, raft_index: int, _term: int, payload: bytes) -> bytes:
        if payload[0] == ENTRY_TYPE_OPAQUE and not is_configuration(payload):
            self.applied.append((raft_index, payload[1:]))
        return payload

    def sync(self) -> None:
        """Finish a group fsync of everything written so far; with durability OS, mostly the write alone."""
        ticket = self.journal.begin_sync()
        if ticket is not None:
            ticket.run()
            self.journal.finish_sync(ticket)
            self.raft.synced()


class Voters:
    """A cluster in a test's hand."""

    def __init__(
        self,
        names: str = "abc",
        *,
        rules: RulesMaker = complete_rules,
        in_flight_size_max: int = 1 << 20,
        sync_at_once: bool = True,
        step_time_max_s: float = 60.0,
        journal_file_size_max: int = FILE_SIZE_MAX,
        reserve_size: int = RESERVE_SIZE,
        durability: Durability = Durability.FSYNC,
    ) -> None:
        self.names = list(names)
        self.configuration = Configuration("cluster", {name: directory_of(name) for name in names})
        self.rules = rules
        self.in_flight_size_max = in_flight_size_max
        self.sync_at_once = sync_at_once
        self.step_time_max_s = step_time_max_s
        self.journal_file_size_max = journal_file_size_max
        self.reserve_size = reserve_size
        self.durability = durability
        self.clock = ManualClock()
        self.queues: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        # (command, result code) of every callback, in order.
        self.outcomes: list[tuple[bytes, int]] = []
        self.voters = {name: Voter(self, name, SimulatedDisk()) for name in names}
        for name in names:
            self._connect(name)

    def __getitem__(self, name: str) -> Voter:
        return self.voters[name]

    def tick(self, *names: str) -> None:
        """Let time pass by more than a heartbeat and each of `names` act."""
        for name in names:
            self.clock.now += 1.1 * HEARTBEAT_S
            self[name].raft.tick()
            self._maybe_sync(name)

    def deliver(self, sender: str, receiver: str, count: int | None = None) -> int:
        """Hand over the oldest `count` messages (all by default) and return how many there were."""
        queue = self.queues[sender, receiver]
        done = 0
        while queue and (count is None or done < count):
            message = messages.decode(queue.popleft(), sender)
            self[receiver].raft.receive(sender, message)
            self._maybe_sync(receiver)
            done += 1
        return done

    def decoded(self, queue: Iterable[bytes]) -> list[Message]:
        """Return the messages of a queue, which stay in it."""
        return [messages.decode(payload, "anybody") for payload in queue]

    def exchange(self, one: str, other: str) -> None:
        """Hand over everything between two voters until nothing is left."""
        for _ in range(100):
            if not self.deliver(one, other) + self.deliver(other, one):
                return
        raise AssertionError(f"{one} and {other} never stop talking")

    def lose(self, *names: str) -> None:
        """Lose everything on its way to and from `names`."""
        for (sender, receiver), queue in self.queues.items():
            if sender in names or receiver in names:
                queue.clear()

    def elect(self, candidate: str, *helpers: str) -> None:
        """Let `candidate` win an election with the votes of `helpers`."""
        for helper in helpers:
            self.depose(helper)
        for _ in range(20):
            self.clock.now += 2 * ELECTION_S
            # First it asks whether it would win, then for the votes.
            for _ in range(2):
                self[candidate].raft.tick()
                self._maybe_sync(candidate)
                for helper in helpers:
                    self.exchange(candidate, helper)
            if self[candidate].raft.is_leader:
                return
        raise AssertionError(f"{candidate} does not win")

    def depose(self, name: str) -> None:
        """Let a leader, if it is one, step down for lack of answers."""
        if self[name].raft.is_leader:
            self.lose(name)
            self.clock.now += 3 * ELECTION_S
            self[name].raft.tick()
            assert not self[name].raft.is_leader

    def propose(self, name: str, *commands: bytes) -> None:
        for command in commands:
            self[name].raft.propose(
                bytes([ENTRY_TYPE_OPAQUE]) + command,
                lambda _result, code, command=command: self.outcomes.append((command, code)),
            )

    def settle(self, leader: str, *others: str, rounds: int = 4) -> None:
        """Let the leader replicate to `others` and everybody apply."""
        for _ in range(rounds):
            self.tick(leader)
            for other in others:
                self.exchange(leader, other)
                self.tick(other)
                self.exchange(leader, other)

    def acknowledged(self) -> list[bytes]:
        return [command for command, code in self.outcomes if code == 0]

    def restore_point(self, name: str, raft_index: int) -> RestorePoint:
        """Return what a checkpoint at an entry would keep of the journal."""
        journal = self[name].journal
        return RestorePoint(journal.entry(raft_index - 1), journal.entry(raft_index))

    def _connect(self, name: str) -> None:
        """Let a voter and all others have new connections."""
        for other in self.voters:
            if other != name:
                for one, far in ((name, other), (other, name)):
                    self[one].raft.peer_disconnected(far)
                    self[one].raft.peer_connected(far, self[far].directory_id)

    def restart(
        self,
        name: str,
        disk: SimulatedDisk,
        restore_point: Any = None,
        configuration: Configuration | None = None,
    ) -> None:
        """Begin again from a disk, with new connections; configuration: that of the restore point."""
        self.lose(name)
        self.voters[name] = Voter(self, name, disk, restore_point, configuration)
        self._connect(name)

    def start_empty(self, name: str, directory_id: str = "") -> None:
        """Start a node that is to join, or another one in the place of one that was known under this name."""
        self.lose(name)
        self.voters[name] = Voter(self, name, SimulatedDisk(), directory_id=directory_id)
        self._connect(name)

    def add_learner(self, leader: str, name: str) -> None:
        """Let a node that is started ask the leader, which proposes it at once."""
        addresses = Addresses(f"{name}:8401", f"{name}:8400")
        self[leader].membership.ask(name, self[name].directory_id, addresses)
        self[leader].membership.step()

    def promote(self, leader: str, *helpers: str) -> None:
        """Let the leader look after its learners for as long as one needs to show that it keeps up."""
        for _ in range(8):
            self.settle(leader, *helpers, rounds=1)
            self[leader].membership.step()
        self.settle(leader, *helpers)

    def _maybe_sync(self, name: str) -> None:
        if self.sync_at_once:
            self[name].sync()
