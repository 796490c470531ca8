"""The other nodes as one node sees them: who is connected, who of them is a member, and what the library was told of it.

The newest configuration of the journal says who the members are (rules/configuration_log.py).  Whenever it changes, the library's
set of voters is changed with it, in the same step: its own membership commands are not used.  A learner is what the library calls
a read-only node: it is sent everything and counted for nothing.
"""

from __future__ import annotations

from collections.abc import Callable

from distlog.consensus.configuration import Configuration
from distlog.consensus.library import Library
from distlog.consensus.rules import Rules


class Replicas:
    """The other nodes of one group."""

    def __init__(self, node_id: str, directory_id: str, rules: Rules) -> None:
        self.node_id = node_id
        self.directory_id = directory_id
        self._rules = rules
        self._library: Library | None = None
        # Directory id of every node that there is a connection to, in the order in which they connected.
        self.connected: dict[str, str] = {}
        # Those of them that are members under the identity that they have, in the same order.
        self.reachable: dict[str, None] = {}
        # The other voters and learners, as the library knows them.
        self.voters: frozenset[str] = frozenset()
        self.learners: frozenset[str] = frozenset()
        # Both.
        self.others: frozenset[str] = frozenset()
        # Called after each change with those that are members no more, or others under the same name.
        self.changed: Callable[[frozenset[str]], None] = lambda _gone: None
        # What `voters` and `learners` were taken from.
        self._known = self.configuration
        self._take(self._known)

    def steer(self, library: Library) -> None:
        """Keep the voters of `library`, which was made with these, up to date from now on."""
        self._library = library

    @property
    def configuration(self) -> Configuration:
        """Return the one that is in force here, committed or not."""
        return self._rules.configuration_log.newest

    @property
    def is_candidate(self) -> bool:
        """Tell whether this node may ever ask for votes."""
        return self._rules.candidacy.may_campaign(
            self.configuration, self.node_id, self.directory_id
        )

    @property
    def counting(self) -> dict[str, None]:
        """Return the reachable voters, in the order in which they connected."""
        return {each: None for each in self.reachable if each in self.voters}

    def counts(self, node_id: str) -> bool:
        """Tell whether what a connected node says counts for majorities: it is a voter, under the identity that it has."""
        return node_id in self.voters and node_id in self.reachable

    # --- What happens --------------------------------------------------------------------------

    def connect(self, node_id: str, directory_id: str) -> None:
        """There is a connection to a node with this directory."""
        self.connected[node_id] = directory_id
        if self._is_member(node_id):
            self.reachable[node_id] = None
            self._tell_connected(node_id)

    def disconnect(self, node_id: str) -> None:
        """There is none any more."""
        self.connected.pop(node_id, None)
        self._lose(node_id)

    def configuration_changed(self) -> None:
        """Bring the library's voters in line with the newest configuration."""
        assert self._library is not None, "the library is made before anything changes"
        before, self._known = self._known, self.configuration
        kept = {
            each
            for each in self._known.members
            if self._role(before, each) == self._role(self._known, each)
        }
        gone = self.others - kept
        for node_id in sorted(gone):
            self._lose(node_id)
            if node_id in self.voters:
                self._library.remove_voter(node_id)
        self._take(self._known)
        for node_id in sorted(self.others - kept):
            if node_id in self.voters:
                self._library.add_voter(node_id)
        # In the order in which they connected, as it was.
        self.reachable = {each: None for each in self.connected if self._is_member(each)}
        for node_id in self.reachable:
            if node_id not in kept:
                self._tell_connected(node_id)
        moved = {
            each for each in gone if before.directory_of(each) == self._known.directory_of(each)
        }
        self.changed(frozenset(gone - moved))

    def _take(self, configuration: Configuration) -> None:
        own = {self.node_id}
        self.voters = frozenset(configuration.voters.keys() - own)
        self.learners = frozenset(configuration.learners.keys() - own)
        self.others = self.voters | self.learners

    def _is_member(self, node_id: str) -> bool:
        return node_id in self.others and self._rules.identity.is_member(
            directory_id=self.connected[node_id],
            known_directory_id=self._known.directory_of(node_id),
        )

    def _role(self, configuration: Configuration, node_id: str) -> tuple[bool, str | None]:
        return node_id in configuration.voters, configuration.directory_of(node_id)

    def _tell_connected(self, node_id: str) -> None:
        assert self._library is not None
        if node_id in self.voters:
            self._library.connected(node_id)
        else:
            self._library.learner_connected(node_id)

    def _lose(self, node_id: str) -> None:
        """Take a node for disconnected."""
        if self.reachable.pop(node_id, self) is self:
            return
        assert self._library is not None
        if node_id in self.voters:
            self._library.disconnected(node_id)
        else:
            self._library.learner_disconnected(node_id)
