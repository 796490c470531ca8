"""Let the configuration follow the log: in force when it is appended, out of it when its entry is cut away, there again after a restart.

pysyncobj takes the set of voters from its constructor or its last dump, and learns of later changes only when it applies them
again: after a restart a voter counts majorities of a set that is no more, and two majorities without a common voter commit different
entries.  Here the journal decides: what the checkpoint was written with, and every configuration behind it, committed or not.
"""

from __future__ import annotations

from distlog.consensus.configuration import Configuration


class ConfigurationLog:
    """The configurations of the journal, by the raft index of their entries."""

    def __init__(self) -> None:
        # Ascending; the last one is in force.  Never empty once it has begun.
        self._configurations: list[Configuration] = []

    def begin(self, configuration: Configuration) -> None:
        """Begin with the one of the checkpoint, or with what the cluster was formed with."""
        self._configurations = [configuration]

    @property
    def newest(self) -> Configuration:
        """Return the one that is in force here: committed or not, the newest of the journal."""
        return self._configurations[-1]

    def at(self, raft_index: int) -> Configuration:
        """Return the one that was in force with this entry, which is the checkpoint's or behind it."""
        fitting = [each for each in self._configurations if each.raft_index <= raft_index]
        return fitting[-1] if fitting else self._configurations[0]

    def restored(self, configuration: Configuration) -> None:
        """Take one of an entry that was in the journal at the start, behind the checkpoint."""
        self.appended(configuration)

    def appended(self, configuration: Configuration) -> None:
        """Take the one of an entry that was added to the journal."""
        assert configuration.raft_index > self.newest.raft_index
        self._configurations.append(configuration)

    def truncated(self, raft_index: int) -> bool:
        """Forget those of entries from `raft_index` on, which are cut away; tell whether there were any."""
        count = len(self._configurations)
        while len(self._configurations) > 1 and self.newest.raft_index >= raft_index:
            self._configurations.pop()
        return len(self._configurations) < count

    def forget_before(self, raft_index: int) -> None:
        """Forget those that were replaced before this entry, up to which a checkpoint is durable."""
        while len(self._configurations) > 1 and self._configurations[1].raft_index <= raft_index:
            del self._configurations[0]
