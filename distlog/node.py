"""One node: the composition root, where every part is made and given its ports.

    DataDirectory -> Formation (who are the voters) -> recover -> Group + ReplicatedLog   <- the gRPC server
                        ^ hellos                          ^ frames
                                 PeerNetwork

A node is everything but the gRPC server, the signals and the process (serve.py), on ports only: the simulation runs it on
virtual time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random

from distlog.consensus.configuration import Configuration
from distlog.consensus.formation import Formation
from distlog.consensus.group import Group, GroupPorts, GroupSettings
from distlog.consensus.journal import FILE_SIZE_MAX
from distlog.consensus.messages import Message
from distlog.consensus.recovery import recover
from distlog.consensus.replicated_log import ReplicatedLog, ReplicatedLogSettings
from distlog.consensus.rules import Rules, complete_rules
from distlog.errors import ConfigurationInvalid, DistlogError, PeerRefused
from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.peer.limits import PeerLimits
from distlog.peer.network import PeerNetwork
from distlog.runtime import Clock, Network, Worker
from distlog.storage.data_directory import DataDirectory
from distlog.storage.descriptors import SpareDescriptors, SparingDisk
from distlog.storage.disk import Disk
from distlog.storage.reserve import Reserve, ReservedDisk

logger = logging.getLogger(__name__)

# The one Raft group; its number is in every frame and directory, for more of them later.
GROUP = 0
# The journal is forgotten by whole files: at its limit it has at least so many.
JOURNAL_FILES_MIN = 8
RESERVE_SIZE = 64 << 20
# Descriptors that are kept for what was promised: a roll, a new file of the journal, a checkpoint and a cold read at the same time
# need half of them.
SPARE_COUNT = 32


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """What an operator decides.  `peers` is the fixed set of voters, this node included; their peer addresses."""

    node_id: str
    data_dir: str
    peer_listen: tuple[str, int]
    peers: Mapping[str, tuple[str, int]]
    # Bytes of disk that are kept for what was promised: more than the largest entry costs (consensus/space.py).
    reserve_size: int = RESERVE_SIZE
    group: GroupSettings = field(default_factory=GroupSettings)
    replicated_log: ReplicatedLogSettings = field(default_factory=ReplicatedLogSettings)
    peer_limits: PeerLimits = field(default_factory=PeerLimits)


@dataclass(frozen=True, slots=True)
class NodePorts:
    """What a node reaches the outside by."""

    disk: Disk
    clock: Clock
    random: Random
    network: Network
    make_worker: Callable[[str], Worker]


class Node:
    """A member of a cluster, on the event loop that made it."""

    def __init__(
        self,
        settings: NodeSettings,
        ports: NodePorts,
        *,
        rules: Callable[[Callable[[str, Message], None], int], Rules] = complete_rules,
    ) -> None:
        """Open the data directory.  Raises DataDirectoryInUse, DataDirectoryUnusable, FormatUnsupported,
        ConfigurationInvalid; nothing was changed then.

        rules: the composition around pysyncobj; only tests give another than the complete one.
        """
        self._settings = settings
        self._ports = ports
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._directory = DataDirectory.open(
            ports.disk, settings.data_dir, settings.node_id, ports.random
        )
        spare_count = min(SPARE_COUNT, ports.disk.open_max() // 8)
        self._spares = SpareDescriptors(ports.disk, self._directory.format_path, spare_count)
        self._disk = SparingDisk(ports.disk, self._spares)
        self._reserve = Reserve(
            self._disk, self._directory.reserve_path, settings.reserve_size, self._spares
        )
        self._workers: list[Worker] = []
        # Where clients reach each node, as it said in its last hello.
        self._addresses: dict[str, str] = {}
        self._formation = Formation(
            settings.node_id,
            self._directory.directory_id,
            settings.peers.keys(),
            self._stored_configuration(),
        )
        self._group: Group | None = None
        # Set when the node cannot go on; carries why.
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.replicated_log = ReplicatedLog(
            node_id=settings.node_id,
            clock=ports.clock,
            read_worker=self._worker("read"),
            settings=settings.replicated_log,
            address_of=lambda node_id: self._addresses.get(node_id, ""),
            waiting_for=self._formation.missing,
        )
        self._peers = self._peer_network()

    def _stored_configuration(self) -> Configuration | None:
        voters, cluster_id = self._directory.voters, self._directory.cluster_id
        if voters is None or cluster_id is None:
            return None
        if voters.keys() != self._settings.peers.keys():
            raise ConfigurationInvalid(
                key="peers",
                problem=f"names {', '.join(sorted(self._settings.peers))}, but {self._settings.data_dir} belongs to the cluster of "
                f"{', '.join(sorted(voters))}: name those, or use another --data-dir",
            )
        return Configuration(cluster_id, voters)

    def _peer_network(self) -> PeerNetwork:
        settings = self._settings
        host, port = settings.peer_listen
        return PeerNetwork(
            network=self._ports.network,
            clock=self._ports.clock,
            random=self._ports.random,
            identity=self._hello,
            listen_host=host,
            listen_port=port,
            peers={
                node_id: address
                for node_id, address in settings.peers.items()
                if node_id != settings.node_id
            },
            events=self,
            limits=settings.peer_limits,
            is_expected=self._formation.judge,
        )

    def _worker(self, name: str) -> Worker:
        worker = self._ports.make_worker(f"{self._settings.node_id}-{name}")
        self._workers.append(worker)
        return worker

    # --- Life ----------------------------------------------------------------------------------

    @property
    def is_formed(self) -> bool:
        return self._formation.configuration is not None

    async def start(self, client_address: str) -> None:
        """Listen for peers, and take part as soon as the cluster is formed.

        client_address: host:port that clients are told to connect to.
        Raises AddressUnavailable, CorruptJournal, CorruptCheckpoint, CorruptBatch, DiskFailed, StorageFull.
        """
        self._addresses[self._settings.node_id] = client_address
        configuration = self._formation.known()
        if configuration is not None:
            self._take_part(configuration)
        if len(self._settings.peers) > 1:
            await self._peers.start()
        if not self.is_formed:
            missing = ",".join(self._formation.missing())
            logger.info("waiting for all nodes, once, to form the cluster missing=%s", missing)

    async def hand_over(self, timeout_s: float) -> None:
        """Have another node lead, if this one does and there is another: clients go there without an election."""
        log = self.replicated_log
        if not log.is_leader or len(self._settings.peers) == 1:
            return
        try:
            async with asyncio.timeout(timeout_s):
                leader_id = await log.transfer_leadership()
        except (DistlogError, TimeoutError) as error:
            # The others elect one when the connections to this node are closed.
            logger.warning("stopping as the leader problem=%s", str(error) or "time is up")
        else:
            logger.info("leadership handed over leader_id=%s", leader_id)

    async def stop(self) -> None:
        """Leave nothing undone: everything durable, a checkpoint, connections and files closed."""
        self.replicated_log.close()
        if self._group is not None:
            await self._group.stop()
        await self._peers.stop()
        self._close()

    def abandon(self) -> None:
        """Stop as a crash does: nothing more is written or sent."""
        if self._group is not None:
            self._group.abandon()
        self._peers.abandon()
        self.replicated_log.close()

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()
        if self._group is not None:
            self._group.journal.close()
            self._group.state_machine.close()
        self._reserve.close()
        self._spares.close()
        self._directory.close()

    def _take_part(self, configuration: Configuration) -> None:
        """Make the configuration durable, if it is new, then open the state and begin."""
        directory, ports = self._directory, self._ports
        disk = ReservedDisk(self._disk, self._reserve)
        if directory.cluster_id is None:
            directory.form(configuration.cluster_id, dict(configuration.voters))
            logger.info(
                "cluster formed cluster_id=%s voters=%s",
                configuration.cluster_id,
                ",".join(sorted(configuration.voters)),
            )
        recovered = recover(
            disk,
            journal_path=directory.journal_path,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
            journal_file_size_max=min(
                FILE_SIZE_MAX, self._settings.replicated_log.journal_size_max // JOURNAL_FILES_MIN
            ),
        )
        self._spares.close_idle = recovered.state_machine.close_idle_files
        for note in recovered.notes:
            logger.info("recovery note=%s", note)
        self._group = Group(
            node_id=self._settings.node_id,
            directory_id=directory.directory_id,
            configuration=configuration,
            journal=recovered.journal,
            state_machine=recovered.state_machine,
            image=recovered.image,
            checkpoint_path=directory.checkpoint_path,
            ports=GroupPorts(
                disk=disk,
                reserve=self._reserve,
                clock=ports.clock,
                random=ports.random,
                journal_worker=self._worker("journal"),
                checkpoint_worker=self._worker("checkpoint"),
                transmit=self._transmit,
                flush=self._peers.flush,
                refuse=self._peers.refuse,
                failed=self._fail,
            ),
            settings=self._settings.group,
            rules=self._rules,
        )
        self.replicated_log.attach(self._group)
        self._group.start()

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
        self._peers.abandon()
        self.replicated_log.close()

    # --- Peers ---------------------------------------------------------------------------------

    def _hello(self) -> Hello:
        configuration = self._formation.configuration
        host, port = self._settings.peers[self._settings.node_id]
        return Hello(
            node_id=self._settings.node_id,
            directory_id=self._directory.directory_id,
            cluster_id=configuration.cluster_id if configuration is not None else "",
            voters=dict(configuration.voters) if configuration is not None else {},
            client_address=self._addresses[self._settings.node_id],
            peer_address=f"{host}:{port}",
        )

    def hello_received(self, hello: Hello) -> None:
        """Learn from a peer's hello where it is and, until the cluster is formed, who the voters are."""
        if self._formation.judge(hello) is not None:
            return
        self._addresses[hello.node_id] = hello.client_address
        if self.is_formed:
            return
        configuration = self._formation.hear(hello)
        if configuration is None:
            return
        try:
            self._take_part(configuration)
        except Exception as error:
            self._fail(error)
            return
        # From now on the handshake must prove the cluster.
        self._peers.restart_connections()

    def peer_connected(self, node_id: str) -> None:
        if self._group is not None:
            self._group.peer_connected(node_id, self._peers.directory_of(node_id))

    def peer_disconnected(self, node_id: str) -> None:
        if self._group is not None:
            self._group.peer_disconnected(node_id)

    def frame_received(self, node_id: str, channel: Channel, group: int, payload: bytes) -> None:
        """Take a frame of a peer; one for a group or channel that this version does not have is refused."""
        if self._group is None or channel is not Channel.RAFT or group != GROUP:
            problem = f"it sent a frame of channel {channel}, group {group}, which this node does not have"
            self._peers.refuse(node_id, PeerRefused(peer=node_id, problem=problem))
            return
        self._group.frame_received(node_id, payload)

    def _transmit(self, node_id: str, payload: Sequence[bytes]) -> bool:
        return self._peers.send(node_id, Channel.RAFT, GROUP, *payload)
