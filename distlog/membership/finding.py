"""Discovery as one node uses it: which backend it has, what it tells of the node, and what follows from what it shows.

    hello of this node -> announce        a view -> where members are dialled, where clients find them, whom to join by

What a view shows is never a reason to take a node for a member or to stop doing so: it says where to look, and the handshake decides.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from distlog import __version__
from distlog.addresses import address_text, host_and_port
from distlog.consensus.configuration import NOWHERE, Addresses
from distlog.consensus.group import Group
from distlog.discovery.backend import Backend
from distlog.discovery.dns import DnsDiscovery
from distlog.discovery.gossip import GossipDiscovery, Send
from distlog.discovery.gossip_rows import MalformedRows
from distlog.discovery.serf.agent import Agent, AgentSettings, ExternalAgent, ManagedAgent
from distlog.discovery.serf.client import AgentAddress
from distlog.discovery.serf.discovery import SerfDiscovery
from distlog.discovery.serf.tags import gossip_name
from distlog.discovery.static import StaticDiscovery
from distlog.discovery.view import (
    NOTHING_SEEN,
    Description,
    Discovery,
    Member,
    MemberStatus,
    Sight,
)
from distlog.membership.neighbours import Neighbours
from distlog.node_settings import NodePorts, NodeSettings
from distlog.peer.frames import Channel
from distlog.peer.network import PeerNetwork

logger = logging.getLogger(__name__)


def make_discovery(
    settings: NodeSettings,
    ports: NodePorts,
    own: Description,
    *,
    run: int,
    connected: Callable[[], Sequence[str]],
    send: Send,
) -> Discovery:
    """Return the backend that the settings name, not started.

    own, run: of this node.  connected(), send: of the peers that take frames of gossip.
    Raises InvalidRequest if the description is longer than what others read.
    """
    chosen, clock, random = settings.discovery, ports.clock, ports.random
    match chosen.backend:
        case Backend.GOSSIP:
            return GossipDiscovery(
                own, connected=connected, send=send, clock=clock, random=random, run=run
            )
        case Backend.DNS:
            return DnsDiscovery(
                own,
                chosen.host,
                chosen.port,
                resolve=ports.resolve,
                ask=ports.ask_node,
                clock=clock,
                random=random,
                run=run,
            )
        case Backend.STATIC:
            peers = {node_id: address_text(*address) for node_id, address in settings.peers.items()}
            return StaticDiscovery(own, peers, clock=clock, run=run)
        case Backend.SERF:
            agent = _agent(settings, ports, gossip_name(own.node_id, run))
            return SerfDiscovery(
                own, agent, join=chosen.serf.join, network=ports.network, clock=clock, run=run
            )


def _agent(settings: NodeSettings, ports: NodePorts, name: str) -> Agent:
    """Return the Serf agent that the settings name: one that somebody else runs, or one of this node's own, called `name`."""
    chosen, options = settings.discovery, settings.discovery.serf
    if chosen.host:
        address = AgentAddress(chosen.host, chosen.port, options.rpc_auth)
        return ExternalAgent(address, ports.network)
    assert ports.programs is not None, "a node that starts an agent has a way to do it"
    host, port = options.listen
    return ManagedAgent(
        AgentSettings(
            program=options.program,
            name=name,
            host=host,
            port=port,
            join=options.join,
            directory=f"{settings.data_dir}/serf",
            encrypt_key=options.encrypt_key,
        ),
        programs=ports.programs,
        network=ports.network,
        clock=ports.clock,
        random=ports.random,
        random_bytes=ports.random_bytes,
    )


class Finding:
    """What one node finds out about where the others are."""

    def __init__(
        self,
        settings: NodeSettings,
        ports: NodePorts,
        neighbours: Neighbours,
        group: Callable[[], Group | None],
    ) -> None:
        """group(): the one that runs; None: the cluster is not formed."""
        self._settings = settings
        self._ports = ports
        self._neighbours = neighbours
        self._group = group
        # Called when the view has changed.
        self.changed: Callable[[], None] = lambda: None
        # None until `start`, for the addresses of this node are not known before.
        self._discovery: Discovery | None = None
        self._announced: Description | None = None
        # What was wrong when members were looked for last: the log has it once.
        self._problem = ""
        self._closing: asyncio.Task[None] | None = None
        neighbours.found = self._found

    @property
    def _peers(self) -> PeerNetwork:
        return self._neighbours.peers

    # --- Life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin, when this node listens.  Raises InvalidRequest, or what keeps the backend from starting."""
        self._announced = self._description()
        self._discovery = make_discovery(
            self._settings,
            self._ports,
            self._announced,
            run=self._ports.clock.wall_ms(),
            connected=self._gossiping,
            send=self._send,
        )
        self._discovery.changed = self._changed
        await self._discovery.start()

    async def leave(self) -> None:
        """Say good-bye for good."""
        if self._discovery is not None:
            await self._discovery.leave()

    async def close(self) -> None:
        if self._discovery is not None:
            await self._discovery.close()

    def abandon(self) -> None:
        """Close, and wait for nothing."""
        if self._discovery is not None:
            self._closing = asyncio.get_running_loop().create_task(self._discovery.close())

    def announce(self) -> None:
        """Tell the others what is new of this node, if anything is: it may belong to a cluster now."""
        description = self._description()
        if self._discovery is not None and description != self._announced:
            self._announced = description
            self._discovery.announce(description)

    def _description(self) -> Description:
        hello = self._neighbours.hello()
        return Description(
            node_id=hello.node_id,
            directory_id=hello.directory_id,
            peer_address=hello.peer_address,
            client_address=hello.client_address,
            cluster_id=hello.cluster_id,
            expect=hello.expect,
            version=__version__,
        )

    # --- Peers ---------------------------------------------------------------------------------

    def peer_connected(self, node_id: str) -> None:
        if isinstance(self._discovery, GossipDiscovery) and node_id in self._gossiping():
            self._discovery.peer_connected(node_id)

    def frame_received(self, node_id: str, payload: bytes) -> str:
        """Take a frame of gossip; return what is wrong with it.  A node that has another backend does not look at it."""
        if isinstance(self._discovery, GossipDiscovery):
            try:
                self._discovery.frame_received(node_id, payload)
            except MalformedRows as error:
                return str(error)
        return ""

    def _gossiping(self) -> list[str]:
        """Return the connected peers that take frames of gossip."""
        hellos = {node_id: self._peers.hello_of(node_id) for node_id in self._peers.connected_ids}
        return [node_id for node_id, hello in hellos.items() if hello is not None and hello.gossips]

    def _send(self, node_id: str, payload: bytes, is_urgent: bool) -> bool:
        send = self._peers.send if is_urgent else self._peers.send_later
        return send(node_id, Channel.GOSSIP, 0, payload)

    # --- What it shows -------------------------------------------------------------------------

    @property
    def discovery(self) -> Discovery | None:
        """Return the backend; None until the node has started."""
        return self._discovery

    def members(self) -> Mapping[str, Member]:
        """Return the view; empty until the node has started."""
        return self._discovery.members() if self._discovery is not None else {}

    def view(self) -> Sight:
        """Return the nodes as discovery sees them now."""
        if self._discovery is None:
            return NOTHING_SEEN
        now = self._ports.clock.monotonic()
        return Sight(self._discovery.members(), self._discovery.age_s(), now)

    def places(self) -> Sequence[tuple[str, int]]:
        """Return where clients reach nodes that may be of this one's cluster, or form one with it."""
        seen = (each for each in self.members().values() if each.status is MemberStatus.ALIVE)
        found = (host_and_port(each.description.client_address) for each in seen)
        return list(dict.fromkeys((*self._settings.join, *(each for each in found if each))))

    def itself(self) -> Member | None:
        """Return how this node sees itself; None until it has started."""
        return self.members().get(self._settings.node_id)

    def client_addresses(self) -> Sequence[tuple[str, int]]:
        """Return where clients reach nodes of the cluster that this one may join: those of --join, then those that were found."""
        own_id = self._settings.node_id
        members = [
            each.description
            for node_id, each in self.members().items()
            if each.status is MemberStatus.ALIVE
            and each.description.cluster_id
            and node_id != own_id
        ]
        clusters = sorted({each.cluster_id for each in members})
        problem = "" if members else "none was found yet"
        if len(clusters) > 1:
            # Which of them is meant nobody can tell.
            problem, members = f"they belong to different clusters: {', '.join(clusters)}", []
        if problem != self._problem and not self._settings.join:
            self._problem = problem
            if problem:
                logger.warning(
                    "looking for members to join: start one, or mend --discovery problem=%s",
                    problem,
                )
        places = [host_and_port(each.client_address) for each in members]
        found = (place for place in places if place is not None)
        return list(dict.fromkeys((*self._settings.join, *found)))

    def _found(self, node_id: str) -> Addresses:
        """Return where a member is, if the view shows it alive, in this cluster and with the directory that the configuration has."""
        member, group = self.members().get(node_id), self._group()
        if member is None or group is None or node_id == self._settings.node_id:
            return NOWHERE
        description, configuration = member.description, group.configuration
        is_meant = (
            member.status is MemberStatus.ALIVE
            and description.cluster_id == configuration.cluster_id
            and description.directory_id == configuration.directory_of(node_id)
        )
        if not is_meant:
            return NOWHERE
        return Addresses(description.peer_address, description.client_address)

    def _forget_removed(self) -> None:
        """Have those counted as left that were removed from the cluster and are silent: nobody waits for them any more."""
        group = self._group()
        removed = group.membership.committed.removed if group is not None else ()
        for node_id, member in self.members().items():
            identity = (node_id, member.description.directory_id)
            if member.status is MemberStatus.FAILED and identity in removed:
                assert self._discovery is not None
                self._discovery.forget(node_id)

    def _changed(self) -> None:
        self._forget_removed()
        self._neighbours.found_again()
        self.changed()
