"""What one sync of a log covers: decided on the log's thread, done in a worker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from distlog.storage.disk import Disk
from distlog.storage.log_mark import LogMark, MarkFile

if TYPE_CHECKING:
    from distlog.storage.open_files import WrittenFiles


class LogSync:
    """Makes everything durable that a log held when `mark` was taken."""

    __slots__ = ("_directory", "_disk", "_marks", "done", "files", "mark", "names_changed")

    def __init__(
        self,
        disk: Disk,
        directory: str,
        files: Sequence[WrittenFiles],
        marks: MarkFile,
        mark: LogMark,
        *,
        names_changed: bool,
    ) -> None:
        """`files` are those that were written, in the order of their offsets; names in `directory` may have changed too."""
        self._disk = disk
        self._directory = directory
        self.files = files
        self.names_changed = names_changed
        self._marks = marks
        self.mark = mark
        # Set last, by the worker.
        self.done = False

    def __call__(self) -> None:
        """Sync files, then names, then the mark that speaks of them.  Blocks.

        Raises DiskFailed: then nobody knows what the disk holds, and the process must stop.  StorageFull and
        DescriptorsExhausted are refusals: the next sync does the part of this one too.
        """
        for files in self.files:
            files.sync()
        if self.names_changed:
            self._marks.make()
            self._disk.sync_directory(self._directory)
        self._marks.write(self.mark)
        self.done = True
