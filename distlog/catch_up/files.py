"""The FILES channel of one node: what it answers to others, and what it copies for itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from distlog.catch_up import messages
from distlog.catch_up.catch_up import CatchUp
from distlog.catch_up.copying import Copied, Staging
from distlog.catch_up.leftovers import Leftovers
from distlog.catch_up.messages import REQUESTS
from distlog.catch_up.requests import Requests
from distlog.catch_up.scrub import Scrub, ScrubSettings
from distlog.catch_up.source import Source
from distlog.consensus.group import Group
from distlog.consensus.reads import no_leader
from distlog.consensus.state_machine import StateMachine
from distlog.consensus.views import CopyStatus, ScrubStatus
from distlog.errors import PeerRefused
from distlog.runtime import Clock, Worker
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk
from distlog.storage.incoming import Incoming
from distlog.storage.log_mark import LogMark


@dataclass(frozen=True, slots=True)
class FilesPorts:
    """What the channel reaches the outside by."""

    disk: Disk
    clock: Clock
    # What clients read with.
    client_read_worker: Worker
    # Reads for peers, writes what comes from them, and checks it.
    read_worker: Worker
    write_worker: Worker
    check_worker: Worker
    # Queue a frame for a peer; False if it cannot be sent.  Bytes that wait for it.  Those that are connected.
    send: Callable[[str, bytes], bool]
    waiting_size: Callable[[str], int]
    connected: Callable[[], Sequence[str]]
    # The peer does not keep the protocol: close its connection.
    refuse: Callable[[str, PeerRefused], None]
    # This node cannot go on; called once.
    failed: Callable[[BaseException], None]


class Files:
    """What one node copies, and lets others copy."""

    def __init__(
        self,
        *,
        directory: DataDirectory,
        group: Callable[[], Group | None],
        switch: Callable[[Copied], Awaitable[bool]],
        ports: FilesPorts,
        rate_max: int,
        spare_size: int,
        scrub: ScrubSettings,
    ) -> None:
        """group(): the one that runs; None: none does now.  switch(copied): go over to what was copied; False: not now.

        rate_max: bytes in a second that peers get; 0: any.  spare_size: bytes of the disk that a copy leaves free.
        """
        self._group = group
        self._ports = ports
        self.incoming = Incoming(
            ports.disk, directory.incoming_path, directory.topics_path, spare_size
        )
        self.source = Source(
            disk=ports.disk,
            checkpoint_path=directory.checkpoint_path,
            topics_path=directory.topics_path,
            worker=ports.read_worker,
            clock=ports.clock,
            rate_max=rate_max,
            send=ports.send,
            waiting_size=ports.waiting_size,
            checkpoint_index=self._checkpoint_index,
            checkpoint_wanted=self._checkpoint_wanted,
            failed=ports.failed,
        )
        self._requests = Requests(ports.send)
        staging = Staging(
            incoming=self.incoming,
            lock=asyncio.Lock(),
            requests=self._requests,
            peers=self._sources,
            write_worker=ports.write_worker,
            check_worker=ports.check_worker,
        )
        self.catch_up = CatchUp(
            staging=staging,
            applied_index=self._applied_index,
            own_mark=self._own_mark,
            switch=switch,
            clock=ports.clock,
            failed=ports.failed,
        )
        self.scrub = Scrub(
            settings=scrub,
            disk=ports.disk,
            state_machine=self._state_machine,
            is_copying=lambda: self.catch_up.progress is not None,
            staging=staging,
            read_worker=ports.client_read_worker,
            clock=ports.clock,
            failed=ports.failed,
        )
        self.leftovers = Leftovers(
            staging=staging,
            is_wanted=lambda: self.catch_up.progress is not None or bool(self.scrub.damaged),
            confirm=self._confirm,
            failed=ports.failed,
        )

    def start(self) -> None:
        """Begin to look after what there is.  Copies begin when they are needed."""
        self.scrub.start()
        self.leftovers.start()

    # --- Events --------------------------------------------------------------------------------------

    def frame_received(self, node_id: str, payload: bytes) -> None:
        """Take one message of a peer."""
        try:
            message = messages.decode(payload, node_id)
        except PeerRefused as error:
            self._ports.refuse(node_id, error)
            return
        if isinstance(message, REQUESTS):
            self.source.receive(node_id, message)
        else:
            self._requests.receive(node_id, message)

    def peer_disconnected(self, node_id: str) -> None:
        self.source.drop(node_id)
        self._requests.drop(node_id)

    def close(self) -> None:
        """Answer and copy nothing more; what is staged stays."""
        self.source.close()
        self.catch_up.close()
        self.scrub.close()
        self.leftovers.close()

    def status(self) -> dict[str, CopyStatus | ScrubStatus | None]:
        """Return `copy` and `scrub` of this node's status."""
        return {"copy": self._copy_status(), "scrub": self._scrub_status()}

    def _scrub_status(self) -> ScrubStatus:
        """Return what reading all segments again has found so far."""
        counters, damaged = self.scrub.counters, self.scrub.damaged
        return ScrubStatus(
            pass_count=counters["passes"],
            checked_size=counters["bytes_checked"],
            fault_count=counters["faults_found"],
            repaired_count=counters["segments_repaired"],
            damaged=tuple(sorted(damaged.values())),
        )

    def _copy_status(self) -> CopyStatus | None:
        """Return how far a copy for this node is; None if none is under way."""
        progress = self.catch_up.progress
        if progress is None:
            return None
        return CopyStatus(
            source=progress.source,
            raft_index=progress.raft_index,
            size=progress.size,
            done_size=progress.done_size,
            fetched_size=progress.fetched_size,
            problem=progress.problem,
        )

    # --- What the parts ask --------------------------------------------------------------------------

    def _sources(self) -> list[str]:
        """Return whom to copy from, those first that do not lead: a leader has most to do."""
        group = self._group()
        leader_id = group.raft.leader_id if group is not None else None
        return sorted(self._ports.connected(), key=lambda node_id: node_id == leader_id)

    def _state_machine(self) -> StateMachine | None:
        group = self._group()
        return group.state_machine if group is not None else None

    async def _confirm(self) -> None:
        """Return when this node has all that was acknowledged before the call.  Raises NoLeader, Overloaded."""
        group = self._group()
        if group is None:
            raise no_leader("this node is between two states")
        await group.reads.wait()

    def _applied_index(self) -> int:
        group = self._group()
        return group.raft.last_applied if group is not None else 0

    def _own_mark(self, topic_id: int) -> LogMark | None:
        group = self._group()
        topic = group.state_machine.topic_by_id(topic_id) if group is not None else None
        return topic.log.mark() if topic is not None else None

    def _checkpoint_index(self) -> int:
        group = self._group()
        return group.checkpoints.index if group is not None else 0

    def _checkpoint_wanted(self, raft_index: int) -> None:
        group = self._group()
        if group is not None:
            group.checkpoints.request(raft_index)
            group.kick()
