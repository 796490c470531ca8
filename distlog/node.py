"""One node: the composition root, where every part is made and given its ports.

    DataDirectory -> Formation, Joining (who belongs together) -> recover -> Group + ReplicatedLog   <- the gRPC server
                        ^ hellos: Neighbours                ^ frames
                                 PeerNetwork

A node is everything but the gRPC server, the signals and the process (serve.py), on ports only: the simulation runs it on
virtual time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from distlog.catch_up.copying import Copied
from distlog.catch_up.files import Files, FilesPorts
from distlog.catch_up.switch import CopyIncomplete, open_state, put_in_place
from distlog.consensus.configuration import Configuration
from distlog.consensus.formation import Formation
from distlog.consensus.group import Group, GroupPorts
from distlog.consensus.journal import FILE_SIZE_MAX
from distlog.consensus.messages import Message
from distlog.consensus.reconcile import Policy
from distlog.consensus.recovery import Recovered
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.rules import Rules, complete_rules
from distlog.errors import (
    DistlogError,
    PeerRefused,
    StorageFull,
)
from distlog.membership.arrival import Arrival, make_agreement
from distlog.membership.departure import Departure
from distlog.membership.finding import Finding
from distlog.membership.neighbours import Neighbours
from distlog.node_settings import NodePorts, NodeSettings, stored_configuration
from distlog.peer.frames import Channel
from distlog.peer.handshake import Hello
from distlog.runtime import Worker
from distlog.storage.data_directory import DataDirectory
from distlog.storage.descriptors import SpareDescriptors, SparingDisk
from distlog.storage.reserve import Reserve, ReservedDisk

logger = logging.getLogger(__name__)

# The one Raft group; its number is in every frame and directory, for more of them later.
GROUP = 0
# The journal is forgotten by whole files: at its limit it has at least so many.
JOURNAL_FILES_MIN = 8
# Descriptors that are kept for what was promised: a roll, a new file of the journal, a checkpoint and a cold read at the same time
# need half of them.
SPARE_COUNT = 32


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
        self.settings = settings
        self._ports = ports
        self._rules = rules
        self._loop = asyncio.get_running_loop()
        self._directory = DataDirectory.open(
            ports.disk, settings.data_dir, settings.node_id, ports.random
        )
        spare_count = min(SPARE_COUNT, ports.disk.open_max() // 8)
        self._spares = SpareDescriptors(ports.disk, self._directory.format_path, spare_count)
        self._disk = SparingDisk(ports.disk, self._spares)
        self.reserve = Reserve(
            self._disk, self._directory.reserve_path, settings.reserve_size, self._spares
        )
        self._workers: list[Worker] = []
        self._formation = Formation(
            settings.node_id,
            self._directory.directory_id,
            set() if settings.joins else settings.peers.keys(),
            stored_configuration(settings, self._directory),
            make_agreement(settings, self._directory),
        )
        self.group: Group | None = None
        self._neighbours = Neighbours(
            settings,
            ports,
            directory_id=self._directory.directory_id,
            formation=self._formation,
            group=lambda: self.group,
            events=self,
        )
        self.peers = self._neighbours.peers
        self.finding = Finding(settings, ports, self._neighbours, lambda: self.group)
        self._arrival = Arrival(settings, ports, self._formation, self._neighbours, self.finding)
        # Set when the node cannot go on; carries why.
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._read_worker = self._worker("read")
        self.replicated_log = ReplicatedLog(
            node_id=settings.node_id,
            clock=ports.clock,
            read_worker=self._read_worker,
            settings=settings.replicated_log,
            addresses_of=self._neighbours.addresses_of,
            waiting_for=self._arrival.waiting_for,
            durability=settings.durability,
        )
        self.replicated_log.invite = self._neighbours.invite
        self.departure = Departure(
            settings, ports, self.replicated_log, self.finding, lambda: self.group
        )
        self.replicated_log.leave = self.departure.leave
        self.files: Files | None = None
        # The change to a copied state that is under way.
        self._switching: asyncio.Task[bool] | None = None

    def _worker(self, name: str) -> Worker:
        worker = self._ports.make_worker(f"{self.settings.node_id}-{name}")
        self._workers.append(worker)
        return worker

    # --- Life ----------------------------------------------------------------------------------

    @property
    def is_formed(self) -> bool:
        return self._formation.configuration is not None

    async def start(self, client_address: str) -> None:
        """Listen for peers, and take part as soon as the cluster is formed.

        client_address: host:port that clients are told to connect to.
        Raises AddressUnavailable, CorruptJournal, CorruptCheckpoint, DiskFailed, StorageFull.
        """
        self._neighbours.client_address = client_address
        settings = self.settings
        configuration = self._formation.known()
        if configuration is not None:
            self._write_down(configuration)
            # Not on the loop: a probe that is not answered while this takes its time would have the node killed, again and again.
            self._tell("its files are opened")
            recovered = await self._checkpoint_worker.submit(self._open_state)
            self._take_part(configuration, recovered)
        has_others = self._neighbours.has_others
        if len(settings.peers) > 1 or settings.bootstrap or settings.joins or has_others:
            await self._neighbours.listen()
        await self.finding.start()
        self._arrival.start()

    async def hand_over(self, timeout_s: float) -> None:
        """Have another node lead, if this one does and there is another: clients go there without an election."""
        log = self.replicated_log
        if not log.is_leader or self.group is None or not self.group.raft.voters:
            return
        try:
            async with asyncio.timeout(timeout_s):
                leader_id = await log.transfer_leadership()
        except (DistlogError, TimeoutError) as error:
            # The others elect one when the connections to this node are closed.
            logger.warning(
                "stopping as the leader: writes wait until the others have elected one problem=%s",
                str(error) or "time is up",
            )
        else:
            logger.info("leadership handed over leader_id=%s", leader_id)

    async def stop(self) -> None:
        """Leave nothing undone: everything durable, a checkpoint, connections and files closed."""
        self._arrival.stop()
        self.replicated_log.close()
        if self.files is not None:
            self.files.close()
        if self._switching is not None:
            # Between two states there is nothing to stop.
            await asyncio.wait([self._switching])
        if self.group is not None:
            await self.group.stop()
        await self.finding.close()
        await self.peers.stop()
        self._close()

    def abandon(self) -> None:
        """Stop as a crash does: nothing more is written or sent."""
        self._arrival.stop()
        if self.files is not None:
            self.files.close()
        if self.group is not None:
            self.group.abandon()
        self.finding.abandon()
        self.peers.abandon()
        self.replicated_log.close()

    def _close(self) -> None:
        for worker in self._workers:
            worker.close()
        if self.group is not None:
            self.group.journal.close()
            self.group.state_machine.close()
        self.reserve.close()
        self._spares.close()
        self._directory.close()

    def _write_down(self, configuration: Configuration) -> None:
        """Make the configuration durable, if it is new, and what a member works with."""
        directory = self._directory
        if directory.cluster_id is None:
            directory.form(configuration.cluster_id, dict(configuration.voters))
            if self.settings.node_id in configuration.voters:
                logger.info(
                    "cluster formed cluster_id=%s voters=%s",
                    configuration.cluster_id,
                    ",".join(sorted(configuration.voters)),
                )
        self._journal_worker = self._worker("journal")
        self._checkpoint_worker = self._worker("checkpoint")
        self.files = self._make_files()
        self.replicated_log.files_status = self.files.status

    def _take_part(self, configuration: Configuration, recovered: Recovered) -> None:
        """Begin with what was opened."""
        assert self.files is not None
        self._begin(configuration, recovered)
        self._tell("")
        self.files.start()
        self.finding.announce()

    def _tell(self, words: str) -> None:
        """Say how far opening is; any thread may."""
        self.replicated_log.opening = words

    def _open_state(self) -> Recovered:
        """Open what the group keeps.  Blocks."""
        assert self.files is not None
        directory, limit = self._directory, self.settings.replicated_log.journal_size_max
        return open_state(
            self.files.incoming,
            journal_path=directory.journal_path,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
            journal_file_size_max=min(FILE_SIZE_MAX, limit // JOURNAL_FILES_MIN),
            disk=ReservedDisk(self._disk, self.reserve),
            durability=self.settings.durability,
            tell=self._tell,
        )

    def _begin(self, configuration: Configuration, recovered: Recovered) -> None:
        """Take part with a state that was opened."""
        assert self.files is not None
        self._spares.close_idle = recovered.state_machine.close_idle_files
        for note in recovered.notes:
            logger.info("recovery note=%s", note)
        settings = self.settings
        self.group = Group(
            node_id=settings.node_id,
            directory_id=self._directory.directory_id,
            configuration=configuration,
            journal=recovered.journal,
            state_machine=recovered.state_machine,
            image=recovered.image,
            checkpoint_path=self._directory.checkpoint_path,
            ports=GroupPorts(
                disk=ReservedDisk(self._disk, self.reserve),
                reserve=self.reserve,
                clock=self._ports.clock,
                random=self._ports.random,
                journal_worker=self._journal_worker,
                checkpoint_worker=self._checkpoint_worker,
                transmit=self._transmit,
                flush=self.peers.flush,
                refuse=self.peers.refuse,
                failed=self._fail,
                tracer=self._ports.tracer,
            ),
            settings=replace(
                settings.group, journal_size_max=settings.replicated_log.journal_size_max
            ),
            rules=self._rules,
        )
        membership = self.group.membership
        membership.heard_at = self._neighbours.heard_at
        membership.view = self.finding.view
        membership.policy = Policy(self.settings.dead_after_s)
        membership.expect = self.settings.expect
        membership.changed = self._neighbours.members_changed
        self._formation.members = lambda: (self._neighbours.configuration, membership.committed)
        self.group.raft.checkpoint_needed = self.files.catch_up.needed
        self.replicated_log.attach(self.group)
        self.group.start()

    # --- Copies --------------------------------------------------------------------------------

    def _make_files(self) -> Files:
        settings = self.settings
        return Files(
            directory=self._directory,
            group=lambda: self.group,
            switch=self._switch,
            ports=FilesPorts(
                disk=self._disk,
                clock=self._ports.clock,
                client_read_worker=self._read_worker,
                read_worker=self._worker("copy-read"),
                write_worker=self._worker("copy-write"),
                check_worker=self._worker("copy-check"),
                send=lambda node_id, payload: self.peers.send(
                    node_id, Channel.FILES, GROUP, payload
                ),
                waiting_size=self.peers.waiting_size,
                connected=lambda: self.peers.connected_ids,
                refuse=self.peers.refuse,
                failed=self._fail,
            ),
            rate_max=settings.copy_rate_max,
            spare_size=settings.reserve_size // 4,
            scrub=settings.scrub,
        )

    async def _switch(self, copied: Copied) -> bool:
        """Go over to a copied state; False, the node living on what it had, if that is of no use or not complete."""
        self._switching = self._loop.create_task(self._switch_states(copied))
        try:
            # Whoever waits for it may be cancelled; it may not.
            return await asyncio.shield(self._switching)
        finally:
            self._switching = None if self._switching.done() else self._switching

    async def _switch_states(self, copied: Copied) -> bool:
        group, image = self.group, copied.image
        assert group is not None
        holds_last = group.journal.term_at(image.raft_index) == image.term
        if holds_last or group.raft.last_applied >= image.raft_index:
            return False
        if image.configuration.cluster_id != group.configuration.cluster_id:
            logger.error(
                "not going over to a checkpoint of another cluster: stop the node that gave it"
            )
            return False
        logger.info("going over to a copied checkpoint raft_index=%d", image.raft_index)
        self.replicated_log.detach("this node goes over to a copied checkpoint")
        await group.stop(with_checkpoint=False)
        # What the group has begun to remove of its journal.
        await self._journal_worker.submit(_nothing)
        is_done, recovered = await self._checkpoint_worker.submit(self._change, group, copied)
        # Behind the reads of the old state that are under way.
        self._read_worker.submit(group.state_machine.close_idle_files)
        # Configurations behind it come into force again with the journal's entries.
        base = self._formation.configuration
        assert base is not None
        self._begin(base, recovered)
        self._tell("")
        # What was on its way to the other state is nothing to this one: everybody begins anew.
        self.peers.restart_connections()
        return is_done

    def _change(self, group: Group, copied: Copied) -> tuple[bool, Recovered]:
        """Close a state and open the next one.  Blocks."""
        assert self.files is not None
        group.state_machine.close()
        group.journal.close()
        is_done = True
        try:
            put_in_place(
                self.files.incoming,
                self._directory.checkpoint_path,
                copied.image,
                copied.listings,
                durable_sequence=group.journal.durable_sequence,
            )
        except (CopyIncomplete, StorageFull) as error:
            logger.warning(
                "not going over to the copied checkpoint: free space, it is copied again problem=%s",
                error,
            )
            is_done = False
        return is_done, self._open_state()

    def disk_free_size(self) -> int:
        """Return the bytes that this node may still write to its disk.  Raises DiskFailed."""
        return self._disk.free_space(self.settings.data_dir)

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)
        self.peers.abandon()
        self.replicated_log.close()

    # --- Peers ---------------------------------------------------------------------------------

    def hello_received(self, hello: Hello) -> None:
        """Learn from a peer's hello where it is and, until the cluster is formed, who the voters are."""
        if not self._neighbours.admit(hello) or self.is_formed:
            return
        agreement = self._formation.agreement
        before = agreement.proposal if agreement is not None else None
        try:
            configuration = self._formation.hear(hello)
            if configuration is None:
                if agreement is not None and agreement.proposal is not before:
                    # The others shall hear what this node proposes now.
                    self.peers.restart_connections()
                return
            self._write_down(configuration)
            self._take_part(configuration, self._open_state())
        except Exception as error:
            if isinstance(error, StorageFull) and self._directory.cluster_id is None:
                # Nothing is written yet, and nobody waits for this node: the next hello brings it here again.
                logger.warning(
                    "the cluster is not written down yet: free space, it goes on by itself problem=%s",
                    error,
                )
                self._formation.forget()
                return
            self._fail(error)
            return
        if self.settings.node_id not in configuration.voters:
            logger.info("joined the cluster cluster_id=%s", configuration.cluster_id)
        self._arrival.arrived()
        # From now on the handshake must prove the cluster.
        self.peers.restart_connections()

    def peer_connected(self, node_id: str) -> None:
        if self.group is not None:
            self.group.peer_connected(node_id, self.peers.directory_of(node_id))
        self.finding.peer_connected(node_id)

    def peer_disconnected(self, node_id: str) -> None:
        if self.files is not None:
            self.files.peer_disconnected(node_id)
        if self.group is not None:
            self.group.peer_disconnected(node_id)

    def frame_received(self, node_id: str, channel: Channel, group: int, payload: bytes) -> None:
        """Take a frame of a peer; one for a group or channel that this version does not have is refused."""
        is_known = self.group is not None and group == GROUP
        if is_known and channel is Channel.RAFT:
            assert self.group is not None
            self.group.frame_received(node_id, payload)
        elif is_known and channel is Channel.FILES:
            assert self.files is not None
            self.files.frame_received(node_id, payload)
        elif is_known and channel is Channel.GOSSIP:
            if problem := self.finding.frame_received(node_id, payload):
                self.peers.refuse(node_id, PeerRefused(peer=node_id, problem=problem))
        else:
            problem = f"it sent a frame of channel {channel}, group {group}, which this node does not have"
            self.peers.refuse(node_id, PeerRefused(peer=node_id, problem=problem))

    def _transmit(self, node_id: str, payload: Sequence[bytes]) -> bool:
        return self.peers.send(node_id, Channel.RAFT, GROUP, *payload)


def _nothing() -> None:
    """Be what a worker does last."""
