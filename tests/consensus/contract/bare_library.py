"""The unmodified library, in a test's hand: every message, tick, broken connection and crash is decided by the test.

Nothing of distlog's rules is here.  A connection is FIFO and loses nothing but its end; journals are durable at once and survive a
restart, so what goes wrong is the library's own doing.
"""

from __future__ import annotations

import pickle
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import pysyncobj.syncobj as library
from pysyncobj import SyncObj, SyncObjConf, replicated
from pysyncobj.journal import Journal, MemoryJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

TICK_S = 0.2
FAR_S = 1e6


class KeptJournal(MemoryJournal):  # type: ignore[misc]
    """A journal that is durable at once; the library's own keeps no commit index in memory."""

    commit_index = 1

    def getRaftCommitIndex(self) -> int:
        return self.commit_index

    def setRaftCommitIndex(self, raftCommitIndex: int) -> None:
        self.commit_index = raftCommitIndex


class QueuedTransport(Transport):  # type: ignore[misc]
    """Puts what a voter sends into the test's queues."""

    def __init__(self, cluster: Cluster, own: str) -> None:
        Transport.__init__(self, None, None, [])
        self._cluster = cluster
        self._own = own

    def addNode(self, node: Node) -> None:
        self._onNodeConnected(node)

    def dropNode(self, node: Node) -> None:
        self._onNodeDisconnected(node)

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        self._cluster.queues[self._own, node.id].append(pickle.dumps(message))
        return True

    def receive(self, sender: Node | None, message: dict[str, Any]) -> None:
        """Hand a message to the library, as one from `sender`."""
        self._onMessageReceived(sender, message)


class Voter(SyncObj):  # type: ignore[misc]
    """One replica of a list."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.transport: QueuedTransport = options["transport"]
        SyncObj.__init__(self, *args, **options)
        self.applied: list[str] = []

    @replicated  # type: ignore[untyped-decorator]
    def put(self, value: str) -> None:
        self.applied.append(value)


class Cluster:
    """Voters by their one-letter names."""

    def __init__(self, names: str, **conf: Any) -> None:
        self.names = names
        self._conf = conf
        self.queues: dict[tuple[str, str], deque[bytes]] = defaultdict(deque)
        self.journals: dict[str, KeptJournal] = {}
        self.voters: dict[str, Voter] = {}
        # (value, failure reason; 0 is success) of every callback, in order.
        self.outcomes: list[tuple[str, int]] = []
        self.now = 1000.0
        for name in names:
            self.start(name, names)

    def __getitem__(self, name: str) -> Voter:
        return self.voters[name]

    def start(self, name: str, names: str, **conf: Any) -> Voter:
        """Start a voter of the set `names`, or start it again on the journal that it left."""
        settings = {
            "autoTick": False,
            "raftMinTimeout": FAR_S,
            "raftMaxTimeout": 2 * FAR_S,
            "connectionTimeout": 3 * FAR_S,
            "leaderFallbackTimeout": FAR_S,
            "appendEntriesUseBatch": True,
            "commandsWaitLeader": False,
            "logCompactionMinTime": 1e9,
            "journalFile": self.journals.setdefault(name, KeptJournal()),
        }
        others = [Node(other) for other in names if other != name]
        transport = QueuedTransport(self, name)
        settings |= self._conf | conf
        voter = Voter(
            Node(name), others, SyncObjConf(**settings), nodeClass=Node, transport=transport
        )
        for other in others:
            transport.addNode(other)
        self.voters[name] = voter
        return voter

    def tick(self, *names: str) -> None:
        """Let each of `names` act, a moment later."""
        for name in names:
            self.now += TICK_S
            self[name].doTick(0)

    def deliver(self, sender: str, receiver: str, count: int | None = None) -> list[dict[str, Any]]:
        """Hand over the oldest `count` messages, all by default; return them."""
        queue = self.queues[sender, receiver]
        delivered = []
        while queue and (count is None or len(delivered) < count):
            message = pickle.loads(queue.popleft())
            delivered.append(message)
            self[receiver].transport.receive(Node(sender), message)
        return delivered

    def exchange(self, one: str, *others: str) -> None:
        """Hand over everything between `one` and each of the others, and what they answer."""
        for other in others:
            for _ in range(6):
                self.deliver(one, other)
                self.deliver(other, one)

    def lose(self, *names: str) -> None:
        """Break the connections of `names`: what is on its way is lost."""
        for (sender, receiver), queue in self.queues.items():
            if sender in names or receiver in names:
                queue.clear()

    def lose_all_but(self, *kept: tuple[str, str]) -> None:
        for pair, queue in self.queues.items():
            if pair not in kept:
                queue.clear()

    def elect(self, name: str, *helpers: str) -> bool:
        """Let the election timer of a voter fire and `helpers` answer; tell whether it leads."""
        voter = self[name]
        timeout = {"type": "timeout_now", "term": voter.raftCurrentTerm}
        voter.transport.receive(voter._getLeader(), timeout)
        self.tick(name)
        self.exchange(name, *helpers)
        return bool(voter._isLeader())

    def settle(self, leader: str, *others: str, rounds: int = 3) -> None:
        """Let the leader replicate to `others`."""
        for _ in range(rounds):
            self.tick(leader)
            self.exchange(leader, *others)

    def put(self, name: str, *values: str) -> None:
        """Propose each value."""
        for value in values:
            self[name].put(
                value,
                callback=lambda _, reason, value=value: self.outcomes.append((value, reason)),
            )

    def acknowledged(self, prefix: str = "") -> list[str]:
        """Return the values whose callback said SUCCESS."""
        return [
            value for value, reason in self.outcomes if reason == 0 and value.startswith(prefix)
        ]

    def log(self, name: str) -> list[tuple[int, int]]:
        """Return index and term of every entry that a voter has."""
        return [(entry[1], entry[2]) for entry in self.journals[name]]

    def values(self, name: str) -> list[str]:
        """Return the values in the log of a voter."""
        commands = [entry[0] for entry in self.journals[name]]
        return [pickle.loads(each[1:])[1][0] for each in commands if each[0] == 0]


@contextmanager
def bare_cluster(names: str, **conf: Any) -> Iterator[Cluster]:
    """Make a cluster whose time stands still between ticks.  What is replaced in the library is put back at the end."""
    cluster: list[Cluster] = []
    replaced: dict[str, Any] = {
        "monotonicTime": lambda: cluster[0].now if cluster else 1000.0,
        "random": Random(1),
        "PIPE_NOTIFIER_ENABLED": False,
        "createJournal": lambda journal: (
            journal if isinstance(journal, Journal) else MemoryJournal()
        ),
    }
    before = {name: getattr(library, name) for name in replaced}
    for name, value in replaced.items():
        setattr(library, name, value)
    try:
        cluster.append(Cluster(names, **conf))
        yield cluster[0]
    finally:
        for name, value in before.items():
            setattr(library, name, value)
