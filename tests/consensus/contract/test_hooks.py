"""Each hook that library.py uses, held against the installed library: that it is there, and does what is relied on."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from random import Random
from typing import Any

import pysyncobj.syncobj as library
import pytest
from pysyncobj import SyncObj, SyncObjConf
from pysyncobj.config import FAIL_REASON
from pysyncobj.journal import MemoryJournal
from pysyncobj.node import Node
from pysyncobj.transport import Transport

from distlog.consensus.journal_view import JournalView
from distlog.consensus.library import ROLES
from tests.consensus.contract.bare_library import Cluster, KeptJournal, Voter, bare_cluster

LIBRARY = Path(__file__).parents[3] / "distlog" / "consensus" / "library.py"
# The type byte of a command that the library passes on as it is, and of its own no-op.
OPAQUE, NO_OP = b"\x64", b"\x01"


def led_by_a(cluster: Cluster) -> None:
    assert cluster.elect("a", *cluster.names[1:])
    cluster.settle("a", *cluster.names[1:])


def private_names(*owners: str, inherited_by: str = "") -> set[str]:
    """Return the private names that library.py uses of what is called one of `owners`.

    inherited_by: a class there, with what it defines, and uses of itself without setting it.
    """
    tree = ast.parse(LIBRARY.read_text("utf-8"))
    found, own = set[str](), set[str]()
    for node in attributes(tree):
        if ast.unparse(node.value) in owners:
            found.add(node.attr)
    for each in tree.body:
        if isinstance(each, ast.ClassDef) and each.name == inherited_by:
            found |= {node.name for node in each.body if isinstance(node, ast.FunctionDef)}
            for node in attributes(each):
                if ast.unparse(node.value) == "self":
                    (own if isinstance(node.ctx, ast.Store) else found).add(node.attr)
    return {name for name in found - own if name.startswith("_") and not name.startswith("__")}


def attributes(tree: ast.AST) -> list[ast.Attribute]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]


def test_every_private_name_is_there() -> None:
    with bare_cluster("ab") as cluster:
        used = private_names("self._syncobj", "SyncObj", inherited_by="_SyncObj")
        assert used >= {"_SyncObj__doApplyCommand", "_SyncObj__applyLogEntries", "_applyCommand"}
        assert [name for name in sorted(used) if not hasattr(cluster["a"], name)] == []
        used = private_names("self._transport")
        learners = {"_onReadonlyNodeConnected", "_onReadonlyNodeDisconnected"}
        assert used == {"_onMessageReceived", "_onNodeConnected", "_onNodeDisconnected"} | learners
        assert [name for name in sorted(used) if not hasattr(cluster["a"].transport, name)] == []


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (
            SyncObj.__init__,
            "self selfNode otherNodes conf consumers nodeClass transport transportClass",
        ),
        (SyncObj._SyncObj__doApplyCommand, "self command"),
        (SyncObj._SyncObj__applyLogEntries, "self"),
        (SyncObj._checkCommandsToApply, "self"),
        (SyncObj._applyCommand, "self command callback commandType"),
        (SyncObj._isLeader, "self"),
        (SyncObj._getLeader, "self"),
        (SyncObj.doTick, "self timeToWait"),
        (Transport._onMessageReceived, "self node message"),
        (Transport._onNodeConnected, "self node"),
        (Transport._onNodeDisconnected, "self node"),
        (Transport._onReadonlyNodeConnected, "self node"),
        (Transport._onReadonlyNodeDisconnected, "self node"),
        (SyncObj._SyncObj__doChangeCluster, "self request reverse"),
        (Transport.send, "self node message"),
        (Transport.__init__, "self syncObj selfNode otherNodes"),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_every_hook_takes_what_it_took(function: Any, parameters: str) -> None:
    assert list(inspect.signature(function).parameters) == parameters.split()


def test_the_results_and_states_mean_what_they_meant() -> None:
    assert (FAIL_REASON.SUCCESS, FAIL_REASON.NOT_LEADER) == (0, 4)
    states = {name: getattr(library._RAFT_STATE, name.upper()) for name in ROLES}
    assert states == {name: place for place, name in enumerate(ROLES)}
    with bare_cluster("ab") as cluster:
        assert cluster["a"].getStatus()["state"] == 0
        cluster.elect("a")
        assert cluster["a"].getStatus()["state"] == 1
        cluster.exchange("a", "b")
        assert cluster["a"].getStatus()["state"] == 2


# --- Time, chance and what a tick calls --------------------------------------------------------------


def test_time_and_chance_are_read_from_the_module_at_every_use() -> None:
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        cluster["b"].doTick(0)
        asked: list[str] = []

        class Chance(Random):
            def random(self) -> float:
                asked.append("chance")
                return 0.5

        library.monotonicTime = lambda: asked.append("time") or cluster.now
        library.random = Chance()
        cluster["b"].doTick(0)
        cluster.tick("a")
        cluster.deliver("a", "b")
        assert {"time", "chance"} == set(asked)


def test_a_loop_inside_ends_by_time_only_if_time_passes() -> None:
    """`_checkCommandsToApply` takes commands for appendEntriesPeriod: with time standing still it takes all."""
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        cluster.put("a", *map(str, range(3000)))
        cluster.tick("a")
        assert len(cluster.values("a")) == 3000


def test_a_tick_asks_the_poller_once_and_waits_in_nothing_else() -> None:
    with bare_cluster("ab") as cluster:
        waits: list[float] = []

        class Poller:
            def poll(self, timeout: float) -> None:
                waits.append(timeout)

        cluster["a"]._poller = Poller()
        cluster["a"].doTick(0)
        assert waits == [0]


def test_a_voter_never_campaigns_within_its_timeout_but_at_once_when_told() -> None:
    with bare_cluster("ab") as cluster:
        for _ in range(1000):
            cluster.tick("a")
        assert cluster["a"].raftCurrentTerm == 0
        # The leader is not known, and "not known" may say so.
        assert cluster["a"]._getLeader() is None
        cluster["a"].transport.receive(None, {"type": "timeout_now", "term": 0})
        cluster.tick("a")
        assert cluster["a"].raftCurrentTerm == 1


def test_an_election_waits_for_a_connection() -> None:
    """Why `Elections` does not begin one without: it would come much later, unasked."""
    with bare_cluster("ab") as cluster:
        cluster["a"].transport.dropNode(Node("b"))
        cluster["a"].transport.receive(None, {"type": "timeout_now", "term": 0})
        cluster.tick("a")
        assert cluster["a"].raftCurrentTerm == 0
        cluster["a"].transport.addNode(Node("b"))
        cluster.tick("a")
        assert cluster["a"].raftCurrentTerm == 1


# --- Messages ------------------------------------------------------------------------------------


def test_the_messages_have_the_shapes_that_are_translated() -> None:
    with bare_cluster("ab") as cluster:
        cluster.elect("a")
        (request,) = cluster.deliver("a", "b")
        assert request == {
            "type": "request_vote",
            "term": 1,
            "last_log_index": 1,
            "last_log_term": 0,
        }
        (vote,) = cluster.deliver("b", "a")
        assert vote == {"type": "response_vote", "term": 1}
        (append,) = cluster.deliver("a", "b")
        assert append == {
            "type": "append_entries",
            "term": 1,
            "commit_index": 1,
            "prevLogIdx": 1,
            "prevLogTerm": 0,
            "entries": [(NO_OP, 2, 1)],
        }
        (reply,) = cluster.deliver("b", "a")
        assert reply == {
            "type": "next_node_idx",
            "next_node_idx": 3,
            "reset": False,
            "success": True,
        }


def test_a_leader_that_lacks_what_a_follower_needs_says_serialized_until_it_is_disconnected() -> (
    None
):
    """Without a snapshot it would say so for ever, within one tick: `HeldBack.strand` ends that."""
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        transport, said = cluster["a"].transport, []

        def send(node: Node, message: dict[str, Any]) -> bool:
            said.append("serialized" if "serialized" in message else message["type"])
            if len(said) == 3:
                transport.dropNode(node)
            return False

        transport.send = send  # type: ignore[method-assign]
        refusal = {"type": "next_node_idx", "next_node_idx": 1, "reset": True, "success": False}
        transport.receive(Node("b"), refusal)
        cluster.tick("a", "a")
        assert said == ["serialized"] * 3


def test_a_hopeless_request_for_a_vote_raises_the_term_and_gets_no_answer() -> None:
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        hopeless = {"type": "request_vote", "term": 9, "last_log_index": -1, "last_log_term": -1}
        cluster["a"].transport.receive(Node("b"), hopeless)
        assert cluster["a"].raftCurrentTerm == 9
        assert not cluster["a"]._isLeader()
        assert not cluster.queues["a", "b"]
        assert cluster.journals["a"].getVotedForNodeId() is None


def test_a_refusal_with_reset_sets_where_the_leader_goes_on() -> None:
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        cluster.put("a", "x", "y", "z")
        cluster.settle("a", "b")
        reset = {"type": "next_node_idx", "next_node_idx": 4, "reset": True, "success": False}
        cluster["a"].transport.receive(Node("b"), reset)
        cluster.tick("a")
        sent = cluster.deliver("a", "b", 1)[0]
        assert [entry[1] for entry in sent["entries"]] == [4, 5]


def test_who_is_not_connected_is_sent_nothing() -> None:
    with bare_cluster("abc") as cluster:
        led_by_a(cluster)
        cluster["a"].transport.dropNode(Node("b"))
        cluster.tick("a")
        assert not cluster.queues["a", "b"]
        assert cluster.queues["a", "c"]
        cluster["a"].transport.addNode(Node("b"))
        cluster.tick("a")
        assert cluster.queues["a", "b"]


# --- Commands ------------------------------------------------------------------------------------


class Opaque(Voter):
    """Commands are bytes, and nobody unpickles them."""

    def _SyncObj__doApplyCommand(self, command: bytes) -> int:
        self.applied.append(repr(command))
        self.applying_index = self.raftLastApplied + 1
        return len(command)


def test_a_command_without_a_type_goes_as_it_is_into_the_log_and_to_the_override() -> None:
    with bare_cluster("ab") as cluster:
        cluster["a"].__class__ = Opaque
        assert cluster.elect("a", "b")
        outcomes: list[Any] = []
        command = OPAQUE + b"whatever"
        cluster["a"]._applyCommand(command, lambda *outcome: outcomes.append(outcome), None)
        cluster.settle("a", "b")
        assert cluster.journals["a"][-1] == (command, 3, 1)
        assert cluster["a"].applied == [repr(NO_OP), repr(command)]
        assert cluster["a"].applying_index == 3
        assert outcomes == [(len(command), FAIL_REASON.SUCCESS)]


def test_the_flag_for_batches_is_read_at_every_use() -> None:
    with bare_cluster("ab") as cluster:
        led_by_a(cluster)
        voter = cluster["a"]
        cluster.queues.clear()
        cluster.put("a", "x", "y", "z")
        library.SyncObj._checkCommandsToApply(voter)
        assert not cluster.queues["a", "b"], "with it nothing leaves before the heartbeat is due"
        cluster.put("a", "last")
        voter.conf.appendEntriesUseBatch = False
        library.SyncObj._checkCommandsToApply(voter)
        voter.conf.appendEntriesUseBatch = True
        (append,) = cluster.deliver("a", "b")
        assert len(append["entries"]) == 4, "without it everything leaves with the next command"


def test_a_tick_commits_applies_and_then_takes_commands() -> None:
    class Ordered(Voter):
        def _SyncObj__applyLogEntries(self) -> Any:
            calls.append("apply")
            return SyncObj._SyncObj__applyLogEntries(self)

        def _checkCommandsToApply(self) -> None:
            calls.append(f"take at commit {self.raftCommitIndex}")
            SyncObj._checkCommandsToApply(self)

    calls: list[str] = []
    with bare_cluster("ab") as cluster:
        assert cluster.elect("a", "b")
        cluster["a"].__class__ = Ordered
        cluster.tick("a")
        assert calls == ["apply", "take at commit 2"]


# --- The journal, and the checkpoint -----------------------------------------------------------------


class WatchedJournal(KeptJournal):
    """Notes what is asked of it; gives at most two entries of a slice with an end."""

    def __init__(self) -> None:
        MemoryJournal.__init__(self)
        self.asked: set[str] = set()

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith(("_MemoryJournal", "__", "asked", "commit_index")):
            object.__getattribute__(self, "asked").add(name)
        return object.__getattribute__(self, name)

    def __getitem__(self, key: int | slice) -> Any:
        kind = "slice" if isinstance(key, slice) else f"[{key}]"
        object.__getattribute__(self, "asked").add(kind)
        found = MemoryJournal.__getitem__(self, key)
        bounded = isinstance(key, slice) and key.stop is not None
        return found[:2] if bounded else found


def test_the_journal_is_asked_only_for_what_the_view_has() -> None:
    with bare_cluster("ab") as cluster:
        watched = cluster.journals["b"] = WatchedJournal()
        cluster.start("b", "ab")
        led_by_a(cluster)
        cluster.put("a", "x", "y")
        cluster.settle("a", "b")
        cluster.tick("b", "b")
        cluster.lose("a")
        assert cluster.elect("b", "a")
        cluster.settle("b", "a")
        names = {name for name in watched.asked if not name.startswith(("[", "slice"))}
        assert {name for name in names if not hasattr(JournalView, name)} == set()
        assert {"add", "setCurrentTerm", "getCurrentTerm", "getVotedForNodeId"} <= names
        # The view gives the first and the last entry by number, and nothing else.
        assert watched.asked - names == {"[0]", "[-1]", "slice"}


def test_a_slice_shorter_than_asked_for_is_gone_on_with_at_the_next_tick() -> None:
    with bare_cluster("ab") as cluster:
        cluster.journals["b"] = WatchedJournal()
        cluster.start("b", "ab")
        assert cluster.elect("a", "b")
        values = list(map(str, range(6)))
        cluster.put("a", *values)
        cluster.settle("a", "b")
        applied = []
        for _ in range(5):
            cluster.tick("b")
            applied.append(len(cluster["b"].applied))
        assert cluster["b"].applied == values
        assert applied == [*sorted(set(applied[:4])), 6], "two entries a tick, the no-op among them"


def test_the_checkpoint_is_asked_for_by_name_and_read_by_the_deserializer_only() -> None:
    last, previous = (OPAQUE + b"last", 7, 3), (OPAQUE + b"previous", 6, 3)
    asked: list[str] = []

    def deserializer(path: str) -> Any:
        asked.append(path)
        return last, previous, [Node("b")]

    with bare_cluster("ab") as cluster:
        journal = cluster.journals["a"] = KeptJournal()
        for entry in (previous, last, (OPAQUE + b"more", 8, 3)):
            journal.add(*entry)
        conf = {
            "fullDumpFile": library.__file__,
            "deserializer": deserializer,
            "serializer": pytest.fail,
        }
        voter = cluster.start("a", "ab", **conf)
        assert asked == []
        cluster.tick("a")
        assert asked == [library.__file__]
        assert voter.raftLastApplied == 7
        assert [entry[1] for entry in journal] == [6, 7, 8], (
            "a list that begins with both is left alone"
        )
        cluster.tick("a", "a")
        assert asked == [library.__file__]


def test_the_journal_of_the_configuration_is_taken_and_asked_for_what_was_kept() -> None:
    taken: list[Any] = []
    with bare_cluster("ab") as cluster:
        journal = cluster.journals["a"]
        journal.setCurrentTerm(5, "b")
        make = library.createJournal
        library.createJournal = lambda given: taken.append(given) or make(given)
        voter = cluster.start("a", "ab")
        assert taken == [journal]
        assert voter.raftCurrentTerm == 5
        assert isinstance(SyncObjConf(journalFile=journal).journalFile, KeptJournal)
