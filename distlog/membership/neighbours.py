"""The other nodes as one node knows them: what it tells them of itself, whom of them it speaks with, and where each is reached.

    own hello -> peers        hello of a peer -> judge -> admit: where it is, and whether it asks to join
    configuration -> members_changed -> whom to dial, greet again, refuse

Who belongs together is decided by `consensus/formation.py`, and who a member is by the configuration; here is what follows for connections.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from distlog.addresses import address_text, host_and_port
from distlog.consensus.configuration import NOWHERE, Addresses, Configuration
from distlog.consensus.formation import OLD_COPY, PASSING, REMOVED, Formation
from distlog.consensus.group import Group
from distlog.discovery.backend import Backend
from distlog.discovery.view import Description
from distlog.errors import InvalidRequest, PeerRefused
from distlog.node_settings import NodePorts, NodeSettings
from distlog.peer.events import PeerEvents
from distlog.peer.handshake import Hello
from distlog.peer.network import PeerNetwork

logger = logging.getLogger(__name__)


class Neighbours:
    """What one node knows of the others."""

    def __init__(
        self,
        settings: NodeSettings,
        ports: NodePorts,
        *,
        directory_id: str,
        formation: Formation,
        group: Callable[[], Group | None],
        events: PeerEvents,
    ) -> None:
        """group(): the one that runs; None: the cluster is not formed.  events: of the connections, which are `peers`."""
        self._settings = settings
        self._directory_id = directory_id
        self._formation = formation
        self._group = group
        # Directory id of each node that was heard, and where it is reached, as it said in its last hello.
        self._heard: dict[str, tuple[str, Addresses]] = {}
        # Where discovery sees a node, if that is alive and the one that the configuration means; otherwise NOWHERE.
        self.found: Callable[[str], Addresses] = lambda _node_id: NOWHERE
        # Where clients are told to connect to this node.
        self.client_address = ""
        self._is_listening = False
        # The members of the newest committed configuration, as last looked at.
        self._committed_members: Mapping[str, str] = {}
        self.peers = self._peer_network(ports, events)

    def _peer_network(self, ports: NodePorts, events: PeerEvents) -> PeerNetwork:
        settings = self._settings
        host, port = settings.peer_listen
        return PeerNetwork(
            network=ports.network,
            clock=ports.clock,
            random=ports.random,
            identity=self.hello,
            listen_host=host,
            listen_port=port,
            peers={
                node_id: address
                for node_id, address in settings.peers.items()
                if node_id != settings.node_id
            },
            events=events,
            limits=settings.peer_limits,
            is_expected=self.judge,
            passing=PASSING,
        )

    async def listen(self) -> None:
        """Listen for peers, and dial those that are known.  Raises AddressUnavailable."""
        self._is_listening = True
        await self.peers.start()
        self._heard[self._settings.node_id] = (self._directory_id, self._own_addresses())

    # --- What this node says ----------------------------------------------------------------------

    def hello(self) -> Hello:
        """Return what this node says of itself."""
        base, group = self._formation.configuration, self._group()
        agreement = self._formation.agreement if base is None else None
        addresses = self._own_addresses()
        return Hello(
            node_id=self._settings.node_id,
            directory_id=self._directory_id,
            cluster_id=base.cluster_id if base is not None else "",
            voters=dict(base.voters) if base is not None else {},
            members=group.membership.committed.members if group is not None else {},
            configuration_index=group.configuration.raft_index if group is not None else 0,
            joins=self._formation.joins,
            durable_index=group.journal.promisable_index if group is not None else 0,
            client_address=addresses.client,
            peer_address=addresses.peer,
            expect=agreement.expect if agreement is not None else 0,
            proposal=dict(agreement.proposal.voters) if agreement is not None else {},
            agreed=agreement is not None and agreement.proposal.is_agreed,
            gossips=self._settings.discovery.backend is Backend.GOSSIP,
        )

    def _own_addresses(self) -> Addresses:
        settings = self._settings
        if len(settings.peers) > 1:
            host, port = settings.peers[settings.node_id]
        else:
            host, port = settings.peer_advertise or settings.peer_listen
        if not port and self._is_listening:
            port = self.peers.listening_port
        return Addresses(address_text(host, port), self.client_address)

    # --- What is known ----------------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """Return the one in force.  There must be a group."""
        group = self._group()
        assert group is not None, "there are members when the cluster is formed"
        return group.configuration

    def heard_at(self, node_id: str) -> Addresses | None:
        """Return where a member is reached, as it said last under its own identity."""
        directory_id, addresses = self._heard.get(node_id, ("", NOWHERE))
        return addresses if directory_id == self.configuration.directory_of(node_id) else None

    def addresses_of(self, node_id: str) -> Addresses:
        """Return where a node is reached, as far as this one knows."""
        heard, found = self._heard.get(node_id), self.found(node_id)
        # What it said on a connection that stands is the newest that there is.
        if found.client and node_id not in self.peers.connected_ids:
            return found
        if heard is not None:
            return heard[1]
        if node_id == self._settings.node_id:
            # A cluster of one that listens for nobody: there is nothing to connect to.
            return Addresses("", self.client_address)
        return self.configuration.addresses_of(node_id) if self._group() is not None else NOWHERE

    def knows_all(self) -> bool:
        """Tell whether this node belongs to a cluster and knows where its members are: a fixed set was told only by its flags."""
        group = self._group()
        if group is None:
            return False
        return all(self.addresses_of(each).peer for each in group.raft.replicas.others)

    def is_in_touch(self) -> bool:
        """Tell whether this node belongs to a cluster and need not look for its members: it follows or leads, or speaks with all."""
        group = self._group()
        if group is None or not self.knows_all():
            return False
        raft = group.raft
        connected = set(self.peers.connected_ids)
        has_leader = raft.is_ready_leader or raft.leader_id in connected
        return has_leader or connected >= raft.replicas.others

    def judge_found(self, found: Description) -> str | None:
        """Return None if a node is one that this one looks for; otherwise why not, or "" if it may be one yet."""
        base, group = self._formation.configuration, self._group()
        agreement = self._formation.agreement
        if base is not None:
            if found.cluster_id not in ("", base.cluster_id):
                return (
                    f"it belongs to cluster {found.cluster_id}, and this node to {base.cluster_id}"
                )
            known = group.configuration.directory_of(found.node_id) if group is not None else None
            return None if known == found.directory_id else ""
        if found.cluster_id or agreement is None or found.expect == agreement.expect:
            return None
        if found.expect:
            return f"it was started with --expect {found.expect}, and this node with --expect {agreement.expect}: give all the same"
        return f"it waits to join a cluster, and this node for {agreement.expect} nodes to form one"

    @property
    def has_others(self) -> bool:
        """Tell whether the cluster that this node belongs to is more than itself."""
        group = self._group()
        return group is not None and (
            bool(group.raft.replicas.others)
            or self._settings.node_id not in group.configuration.members
        )

    # --- Whom it speaks with ----------------------------------------------------------------------

    def judge(self, hello: Hello) -> PeerRefused | None:
        """Return why a peer may not speak with this node; None: it may."""
        refused, group = self._formation.judge(hello), self._group()
        if refused is not None or group is None:
            return refused
        raft = group.raft
        is_voter = group.membership.committed.voters.get(hello.node_id) == hello.directory_id
        # Every voter has every entry below that one, durably: this one had them.
        end = hello.durable_index
        if is_voter and end is not None and end < raft.retain_from - 1:
            return PeerRefused(peer=hello.node_id, problem=OLD_COPY)
        return None

    def admit(self, hello: Hello) -> bool:
        """Learn from a peer's hello where it is, and that it asks to join; False if it may not speak with this node."""
        if self.judge(hello) is not None:
            return False
        addresses = Addresses(hello.peer_address, hello.client_address)
        group = self._group()
        if group is not None and group.configuration.directory_of(hello.node_id) is None:
            if hello.joins and not hello.cluster_id:
                group.membership.ask(hello.node_id, hello.directory_id, addresses)
        else:
            self._heard[hello.node_id] = (hello.directory_id, addresses)
        return True

    def invite(self, node_id: str, peer_address: str) -> None:
        """Greet a node that is to join.  Raises InvalidRequest if that is no address."""
        place = host_and_port(peer_address)
        if place is None:
            problem = f"must be HOST:PORT, not {peer_address!r}"
            raise InvalidRequest(field="peer_address", problem=problem)
        self.peers.locate(node_id, place)

    def found_again(self) -> None:
        """Dial members where discovery sees them now."""
        group = self._group()
        for node_id in group.configuration.members if group is not None else ():
            place = host_and_port(self.found(node_id).peer)
            if place is not None:
                self.peers.locate(node_id, place)

    def members_changed(self, newest: Configuration, committed: Configuration) -> None:
        """Have connections with those who are members now, and with those no more who were removed for certain."""
        own_id = self._settings.node_id
        for node_id in newest.members:
            place = host_and_port(self.found(node_id).peer or newest.addresses_of(node_id).peer)
            if place is not None and node_id != own_id:
                self.peers.locate(node_id, place)
        for node_id, directory_id in committed.removed:
            if newest.directory_of(node_id) is None:
                self.peers.forget(node_id)
                self._heard.pop(node_id, None)
            if (
                node_id in self.peers.connected_ids
                and self.peers.directory_of(node_id) == directory_id
            ):
                self.peers.refuse(node_id, PeerRefused(peer=node_id, problem=REMOVED))
        if (own_id, self._directory_id) in committed.removed:
            logger.error("this node is no member any more: stop it problem=%s", REMOVED)
        members = committed.members
        for node_id in sorted(members.keys() - self._committed_members.keys() - {own_id}):
            # It waits for a hello that has it among the members.
            self.peers.greet_again(node_id)
        self._committed_members = members
