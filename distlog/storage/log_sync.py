"""What one sync of a log covers: decided on the log's thread, done in a worker."""

from __future__ import annotations

from collections.abc import Sequence

from distlog.storage.disk import Disk
from distlog.storage.log_mark import LogMark, MarkFile
from distlog.storage.segment_files import SegmentFiles


class LogSync:
    """Makes everything durable that a log held when `mark` was taken."""

    def __init__(
        self,
        disk: Disk,
        directory: str | None,
        sealed: Sequence[SegmentFiles],
        active: SegmentFiles | None,
        marks: MarkFile,
        mark: LogMark,
    ) -> None:
        """`directory` is given if names in it changed, `active` if it was written to."""
        self._disk = disk
        self._directory = directory
        self.sealed = sealed
        self.active = active
        self._marks = marks
        self.mark = mark
        # Set last, by the worker: the sealed files may be closed.
        self.done = False

    def __call__(self) -> None:
        """Sync files, then names, then the mark that speaks of them.  Blocks.

        Raises DiskFailed: then nobody knows what the disk holds, and the process must stop.
        """
        for files in self.sealed:
            # Exact sizes say, to every later start, that the segment was complete and synced.
            files.give_back()
            files.sync()
        if self.active is not None:
            self.active.sync()
        if self._directory is not None:
            self._disk.sync_directory(self._directory)
        self._marks.write(self.mark)
        self.done = True

    @property
    def names_changed(self) -> bool:
        return self._directory is not None
