"""The data directory of a node, written entry by entry by the node's own parts, without a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from distlog.consensus.checkpoint import CheckpointImage, write_checkpoint
from distlog.consensus.commands import NO_OP, Command, encode_entry
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import Journal
from distlog.consensus.results import Result
from distlog.consensus.state_machine import StateMachine
from distlog.errors import DistlogError
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk

NODE_ID = "n1"


class NodeFiles:
    """A leader that agrees with itself: what is proposed is committed, unless it is taken back."""

    def __init__(
        self, disk: Disk, path: str, *, random: Random, file_size_max: int = 64 << 20
    ) -> None:
        """Make the directory of a formed cluster of one, whose leader has term 1."""
        self.disk = disk
        self.directory = DataDirectory.open(disk, path, NODE_ID, random)
        self.configuration = Configuration.form({NODE_ID: self.directory.directory_id})
        self.directory.form(self.configuration.cluster_id, self.configuration.voters)
        self.journal = Journal.open(disk, self.directory.journal_path, file_size_max=file_size_max)
        self.machine = StateMachine.open(
            disk, self.directory.topics_path, None, journal_first_index=0
        )
        self.term = 1
        self.journal.set_term_vote(1, NODE_ID)
        self.journal.append(NO_OP, 1, 0)

    def elect(self, term: int) -> None:
        """Begin a term, with the entry that a new leader writes."""
        self.term = term
        self.journal.set_term_vote(term, NODE_ID)
        self.journal.append(NO_OP, self.journal.last_index + 1, term)
        self._apply()

    def commit(self, *commands: Command, timestamp_ms: int) -> list[Result]:
        """Write an entry and apply it.  Nothing in it is refused."""
        self.propose(*commands, timestamp_ms=timestamp_ms)
        results = self._apply()
        assert not any(isinstance(result, DistlogError) for result in results), results
        return results

    def propose(self, *commands: Command, timestamp_ms: int) -> None:
        """Write an entry and leave it at that."""
        payload = encode_entry(commands, timestamp_ms)
        self.journal.append(payload, self.journal.last_index + 1, self.term)

    def take_back(self) -> None:
        """Remove what was proposed and not committed."""
        self.journal.truncate_from(self.machine.last_applied_index + 1)

    def sync(self) -> None:
        ticket = self.journal.begin_sync()
        if ticket is not None:
            ticket.run()
            self.journal.finish_sync(ticket)

    def checkpoint(self) -> CheckpointImage:
        """Do all steps of a checkpoint, and let the journal forget what lies before."""
        self.sync()
        last = self.machine.last_applied_index
        image = self.machine.capture(
            previous=self.journal.entry(last - 1),
            last=self.journal.entry(last),
            configuration=self.configuration,
            durable_sequence=self.journal.durable_sequence,
        )
        image.sync_logs()
        write_checkpoint(self.disk, self.directory.checkpoint_path, image)
        self.machine.checkpointed(image)()
        return image

    def close(self) -> None:
        self.sync()
        self.machine.close()
        self.journal.close()
        self.directory.close()

    def _apply(self) -> Sequence[Result]:
        entry = self.journal.entry(self.machine.last_applied_index + 1)
        return self.machine.apply_payload(entry.raft_index, entry.term, entry.payload)
