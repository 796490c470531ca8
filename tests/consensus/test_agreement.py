"""Empty nodes agree once on whom the cluster begins with, whatever is late, lost, said twice, crashes or is wiped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

import pytest

from distlog.consensus.agreement import NOTHING, Agreement, Proposal
from distlog.errors import StorageFull


def agreement(name: str, expect: int = 3, proposal: Proposal = NOTHING) -> Agreement:
    made = Agreement(name, f"{name}-1", expect, proposal, lambda _proposal: None)
    made.looked_around()
    return made


def tell(speaker: str, listener: Agreement, proposal: Proposal) -> None:
    listener.hear(speaker, f"{speaker}-1", proposal)


def those(names: str, *, agreed: bool = False) -> Proposal:
    return Proposal({name: f"{name}-1" for name in sorted(names)}, agreed)


# --- Step by step -----------------------------------------------------------------------------------


def test_a_node_proposes_the_smallest_names_of_those_that_it_has_heard() -> None:
    node = agreement("c")
    tell("e", node, NOTHING)
    assert node.proposal == NOTHING
    assert "3 nodes, of which it knows c, e" in node.missing()
    tell("d", node, NOTHING)
    assert node.proposal == those("cde")
    tell("a", node, NOTHING)
    assert node.proposal == those("acd")


def test_it_agrees_when_all_propose_the_same_and_forms_when_all_have_agreed() -> None:
    node = agreement("a")
    tell("b", node, those("abc"))
    tell("c", node, NOTHING)
    assert node.proposal == those("abc")
    tell("c", node, those("abc"))
    assert (node.proposal, node.outcome()) == (those("abc", agreed=True), None)
    assert node.missing() == "b with data directory b-1, c with data directory c-1 to agree"
    tell("b", node, those("abc", agreed=True))
    tell("c", node, those("abc", agreed=True))
    assert node.outcome() == those("abc").voters


def test_who_is_not_among_the_smallest_waits_for_them() -> None:
    node = agreement("d")
    for each in "abc":
        tell(each, node, those("abc", agreed=True))
    assert (node.proposal, node.outcome()) == (those("abc"), None)
    assert node.missing() == "a, b, c to form the cluster, which it then joins"


def agreed_on_bcd() -> Agreement:
    node = agreement("d")
    tell("b", node, those("bcd"))
    tell("c", node, those("bcd"))
    assert node.proposal == those("bcd", agreed=True)
    return node


def test_who_has_agreed_stays_with_it_although_it_hears_a_smaller_name() -> None:
    node = agreed_on_bcd()
    tell("a", node, NOTHING)
    assert node.proposal == those("bcd", agreed=True)


def test_it_takes_that_back_only_when_one_of_them_never_will_agree() -> None:
    node = agreed_on_bcd()
    tell("a", node, those("abc"))
    assert node.proposal.is_agreed, "a is none of them"
    tell("b", node, those("abc"))
    assert node.proposal == those("abc")


def test_the_proposal_of_a_wiped_namesake_takes_nothing_back() -> None:
    node = agreed_on_bcd()
    node.hear("b", "b-2", those("abc"))
    assert node.proposal == those("bcd", agreed=True)
    assert node.outcome() is None
    assert "b with data directory b-1" in node.missing()


def test_after_a_restart_a_node_proposes_nothing_greater_and_keeps_what_it_has_agreed_to() -> None:
    restarted = agreement("d", proposal=those("bcd"))
    for each in "efg":
        tell(each, restarted, NOTHING)
    assert restarted.proposal == those("bcd")
    kept = agreement("d", proposal=those("bcd", agreed=True))
    tell("a", kept, those("abd"))
    assert kept.proposal == those("bcd", agreed=True)


def test_nobody_agrees_before_it_has_asked_around() -> None:
    node = Agreement("a", "a-1", 2, NOTHING, lambda _proposal: None)
    tell("b", node, those("ab"))
    assert node.proposal == those("ab")
    assert node.looked_around()
    tell("b", node, those("ab"))
    assert node.proposal == those("ab", agreed=True)
    assert not node.looked_around()


def test_who_has_found_a_cluster_agrees_to_none_beside_it() -> None:
    node = agreement("a")
    node.found("f00")
    for each in "bc":
        tell(each, node, those("abc"))
    assert node.proposal == those("abc")
    assert node.missing() == "cluster f00, which it has found, to take it in"


def test_what_all_have_agreed_to_is_formed_although_one_has_found_a_cluster_since() -> None:
    node = agreed_on_bcd()
    node.found("f00")
    for each in "bc":
        tell(each, node, those("bcd", agreed=True))
    assert node.outcome() == those("bcd").voters


def test_however_many_nodes_greet_it_keeps_what_it_needs() -> None:
    node = agreement("b")
    for number in range(1000):
        tell(f"c{number:03}", node, NOTHING)
    assert len(node._heard) <= 4
    assert len(node._said) <= 4
    tell("a", node, NOTHING)
    assert list(node.proposal.voters) == ["a", "b", "c000"]


def test_nothing_is_said_that_could_not_be_written_down() -> None:
    def full(_proposal: Proposal) -> None:
        raise StorageFull(path="node.json")

    node = Agreement("a", "a-1", 2, NOTHING, full)
    with pytest.raises(StorageFull):
        tell("b", node, NOTHING)
    assert node.proposal == NOTHING


# --- All of them ------------------------------------------------------------------------------------


@dataclass
class Process:
    """One node: what its disk has, and the run that lives."""

    name: str
    directories: int = 1
    stored: Proposal = NOTHING
    # What it belongs to, for good.
    formed: Mapping[str, str] | None = None
    run: Agreement | None = None

    @property
    def directory_id(self) -> str:
        return f"{self.name}-{self.directories}"


@dataclass
class Hello:
    """What a node says, on its way."""

    speaker: str
    directory_id: str
    proposal: Proposal
    formed: Mapping[str, str] | None


@dataclass
class Nodes:
    """Nodes that are started alike, and a network that delays, loses, repeats and reorders."""

    seed: int
    expect: int
    names: str
    is_durable: bool = True
    may_wipe: bool = True
    processes: dict[str, Process] = field(default_factory=dict)
    on_the_way: list[tuple[str, Hello]] = field(default_factory=list)
    # Every set that anybody formed.
    formed: list[Mapping[str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.processes = {name: Process(name) for name in self.names}

    def start(self, name: str) -> None:
        process = self.processes[name]

        def write(proposal: Proposal) -> None:
            if self.is_durable:
                process.stored = proposal

        process.run = Agreement(name, process.directory_id, self.expect, process.stored, write)
        process.run.looked_around()

    def crash(self, name: str, *, wipe: bool) -> None:
        process = self.processes[name]
        process.run = None
        if wipe:
            process.directories += 1
            process.stored, process.formed = NOTHING, None

    def say(self, speaker: str, listener: str) -> None:
        process = self.processes[speaker]
        if process.run is not None:
            said = process.run.proposal
            hello = Hello(speaker, process.directory_id, said, process.formed)
            self.on_the_way.append((listener, hello))

    def deliver(self, place: int, *, again: bool = False) -> None:
        listener, hello = self.on_the_way[place] if again else self.on_the_way.pop(place)
        process = self.processes[listener]
        if process.run is None or process.formed is not None:
            return
        if hello.formed is not None:
            if hello.formed.get(listener) == process.directory_id:
                process.formed = hello.formed
            else:
                process.run.found("another")
            return
        process.run.hear(hello.speaker, hello.directory_id, hello.proposal)
        outcome = process.run.outcome()
        if outcome is not None:
            process.formed = outcome
            self.formed.append(dict(outcome))

    def disturb(self, steps: int) -> None:
        """Let anything happen."""
        random = self.random
        parts = {name: random.randrange(2) for name in self.names}
        is_parted = random.random() < 0.5
        for _ in range(steps):
            name, other = random.sample(self.names, 2)
            chance = random.random()
            if chance < 0.02:
                is_parted, parts = not is_parted, {each: random.randrange(2) for each in parts}
            elif chance < 0.06:
                if self.processes[name].run is None:
                    self.start(name)
                else:
                    self.crash(name, wipe=self.may_wipe and random.random() < 0.2)
            elif chance < 0.5:
                if not is_parted or parts[name] == parts[other]:
                    self.say(name, other)
            elif self.on_the_way:
                place = random.randrange(len(self.on_the_way))
                if chance < 0.55:
                    self.on_the_way.pop(place)
                else:
                    self.deliver(place, again=chance < 0.6)

    def heal(self) -> None:
        """Let everybody run, and say all that there is to say."""
        for name, process in self.processes.items():
            if process.run is None:
                self.start(name)
        for _ in range(10):
            for speaker in self.names:
                for listener in self.names:
                    if speaker != listener:
                        self.say(speaker, listener)
            while self.on_the_way:
                self.deliver(0)

    def clashes(self) -> list[tuple[Mapping[str, str], Mapping[str, str]]]:
        """Return formed sets that differ and have a node in common."""
        return [
            (one, other)
            for one in self.formed
            for other in self.formed
            if one != other and set(one.items()) & set(other.items())
        ]


def nodes(seed: int, *, is_durable: bool = True, may_wipe: bool = True) -> Nodes:
    random = Random(seed)
    # Fewer than twice as many nodes: two halves that hear nothing of each other form two clusters, and nobody can tell.
    expect = random.choice((3, 3, 4, 5))
    names = "abcdefg"[: expect + random.randrange(3)]
    made = Nodes(seed, expect, names, is_durable, may_wipe)
    for name in names:
        if random.random() < 0.7:
            made.start(name)
    made.disturb(random.choice((50, 300, 1000)))
    return made


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_two_sets_that_share_a_node_are_never_both_formed(first: int) -> None:
    for seed in range(first, first + 200):
        made = nodes(seed)
        made.heal()
        assert not made.clashes(), f"seed {seed}"


@pytest.mark.parametrize("first", range(0, 800, 200))
def test_when_everybody_is_heard_the_cluster_is_formed_and_only_once(first: int) -> None:
    for seed in range(first, first + 200):
        made = nodes(seed, may_wipe=False)
        made.heal()
        assert made.formed, f"seed {seed}: {[each.stored for each in made.processes.values()]}"
        assert len({tuple(each) for each in made.formed}) == 1, f"seed {seed}"
        belonging = {name for name, each in made.processes.items() if each.formed is not None}
        assert belonging == set(made.formed[0]), f"seed {seed}"


def forgotten_in_between(*, is_durable: bool) -> Nodes:
    """Let e form what c, d and e agree to; before the others hear of it c is started again, and hears a and b alone."""
    made = Nodes(0, 3, "abcde", is_durable)

    def talk(names: str) -> None:
        for _ in range(4):
            for speaker in names:
                for listener in names:
                    if speaker != listener:
                        made.say(speaker, listener)
            while made.on_the_way:
                made.deliver(0)

    for name in "abcde":
        made.start(name)
    for speaker, listener in ("dc", "ec", "cd", "ed", "ce", "de", "dc", "ec", "ed"):
        made.say(speaker, listener)
        made.deliver(0)
    for speaker in "cd":
        made.say(speaker, "e")
        made.deliver(0)
    assert made.processes["e"].formed is not None
    made.crash("c", wipe=False)
    made.start("c")
    talk("abc")
    return made


def test_who_is_started_again_in_between_has_not_forgotten_what_it_agreed_to() -> None:
    assert not forgotten_in_between(is_durable=True).clashes()
    assert forgotten_in_between(is_durable=False).clashes(), "the story would show nothing"
