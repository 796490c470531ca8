"""The topics that exist, their logs, and which files a checkpoint still needs.

A topic's log is in the directory named by its id, 20 digits, which is never used again; so a topic that is created anew under
an old name is another one.  Deletion and trim take only names and offsets away.  The files go when a checkpoint without
them is durable: before that, a crash brings the older state back, which has them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from distlog.consensus.checkpoint import TopicImage
from distlog.storage.disk import Disk
from distlog.storage.log import Log, remove_log
from distlog.storage.log_mark import MarkFile
from distlog.storage.open_files import SegmentCache
from distlog.storage.retention import KEEP_ALL, Retention
from distlog.storage.segment_files import SegmentLimits

LOG_NAME = re.compile(r"[0-9]{20}")


@dataclass(slots=True, eq=False)
class Topic:
    """A topic that exists."""

    topic_id: int
    name: str
    limits: SegmentLimits
    log: Log
    retention: Retention = KEEP_ALL
    # As a checkpoint keeps it; None since it changed.
    image: TopicImage | None = None


class Topics:
    """All topics of one group, on one node."""

    def __init__(self, disk: Disk, path: str) -> None:
        """Begin without any, in a directory that exists."""
        self._disk = disk
        self._path = path
        # Of all logs together, so that many topics do not use up the descriptors.
        self._cache = SegmentCache.within(disk.open_max())
        # Both hold the same topics, in the order of their creation.
        self.by_id: dict[int, Topic] = {}
        self.by_name: dict[str, Topic] = {}
        # Topic id -> raft index of its last change.  Invariant: every log not here is durable up to its mark.
        self._dirty: dict[int, int] = {}
        # (raft index of the deletion, topic) of those whose files a crash may still need, or a reader holds.
        self._deleted: list[tuple[int, Topic]] = []
        # A reader kept files that no checkpoint needs, when it was asked last.
        self.are_files_held = False
        # Raft index of the last creation whose name in the directory is not durable; 0: there is none.
        self._created_at = 0

    def restore(
        self, images: Sequence[TopicImage], tell: Callable[[str], None] = lambda _words: None
    ) -> None:
        """Open the topics of a checkpoint, their logs cut back to it.  Files of all others are removed.

        tell(words): called with how far that is.

        Raises CorruptBatch if the segment in which a log ends is not what the checkpoint says; others are set aside in it.
        """
        kept = {image.topic_id for image in images}
        for name in self._disk.list_directory(self._path):
            if LOG_NAME.fullmatch(name) and int(name) not in kept:
                remove_log(self._disk, f"{self._path}/{name}")
        for number, image in enumerate(images):
            tell(f"{number} of {len(images)} topics are opened")
            path = self._log_path(image.topic_id)
            log = Log.open_at(self._disk, path, image.limits, image.mark, self._cache)
            topic = Topic(image.topic_id, image.name, image.limits, log, image.retention, image)
            self._add(topic)

    # --- Changes ---------------------------------------------------------------------------------

    def create(
        self,
        topic_id: int,
        name: str,
        limits: SegmentLimits,
        raft_index: int,
        retention: Retention = KEEP_ALL,
    ) -> None:
        """Add an empty topic with a new id and a name that is free.

        Nothing waits for the disk: until a checkpoint has the topic, the journal does, and a restart removes what there is of it.
        """
        path = self._log_path(topic_id)
        log = Log.create(self._disk, path, limits, self._cache, durable=False)
        self._created_at = raft_index
        self._add(Topic(topic_id, name, limits, log, retention))
        self._dirty[topic_id] = raft_index

    def changed(self, topic: Topic, raft_index: int) -> None:
        """Note that the entry at `raft_index` wrote to the topic's log, trimmed it, or configured the topic."""
        topic.image = None
        self._dirty[topic.topic_id] = raft_index

    def delete(self, topic_id: int, raft_index: int) -> None:
        """Take a topic away; its files stay until `checkpointed`."""
        topic = self.by_id.pop(topic_id)
        del self.by_name[topic.name]
        self._dirty.pop(topic_id, None)
        self._deleted.append((raft_index, topic))

    def _add(self, topic: Topic) -> None:
        self.by_id[topic.topic_id] = topic
        self.by_name[topic.name] = topic

    def _log_path(self, topic_id: int) -> str:
        return f"{self._path}/{topic_id:020d}"

    def close_idle_files(self) -> None:
        """Close the files that nobody uses at the moment, for want of descriptors.  From any thread."""
        self._cache.close_idle()

    def drop_idle_files(self, path: str) -> None:
        """Close what nobody uses of the segment with this store: its files were replaced.  From any thread."""
        self._cache.drop(path)

    def take_damaged(self) -> set[str]:
        """Return the stores in which a read found damage since the last call."""
        damaged, self._cache.damaged = self._cache.damaged, set()
        return damaged

    @property
    def is_short_of_files(self) -> bool:
        """Tell whether more logs are written to than may have files open before they are synced: a checkpoint is due."""
        return self._cache.is_short

    # --- Checkpoint ------------------------------------------------------------------------------

    def capture(
        self,
    ) -> tuple[tuple[TopicImage, ...], list[Callable[[], Callable[[], None]]]]:
        """Return all topics as they are, and what begins to make their logs durable (see `CheckpointImage.syncs`).

        There may be thousands of topics, and this is one step of the event loop.
        """
        self._cache.begin_checkpoint()
        by_id = self.by_id
        syncs: list[Callable[[], Callable[[], None]]] = [
            by_id[topic_id].log.begin_sync for topic_id in self._dirty
        ]
        if self._created_at:
            syncs.append(lambda: partial(self._disk.sync_directory, self._path))
        images: list[TopicImage] = []
        for topic in by_id.values():
            image = topic.image
            if image is None:
                image = topic.image = TopicImage(
                    topic.topic_id, topic.name, topic.limits, topic.log.mark(), topic.retention
                )
            images.append(image)
        return tuple(images), syncs

    def checkpointed(self, raft_index: int, images: Sequence[TopicImage]) -> Callable[[], None]:
        """Let go of the files that no checkpoint needs: the one with `images`, at `raft_index`, is durable.

        What a reader holds stays until the next time, which may come with the same images; `are_files_held` tells.  Returns a
        function that unlinks them: run it in a worker, once.
        """
        unlinks: list[Callable[[], None]] = []
        self.are_files_held = False
        for image in images:
            start_offset = image.mark.start_offset
            if start_offset > 0:
                topic = self.by_id.get(image.topic_id)
                if topic is not None and topic.log.has_trimmed(start_offset):
                    unlinks.append(topic.log.begin_remove_trimmed(start_offset))
                    self.are_files_held |= topic.log.has_trimmed(start_offset)
        self._dirty = {
            topic_id: changed_at
            for topic_id, changed_at in self._dirty.items()
            if changed_at > raft_index
        }
        if self._created_at <= raft_index:
            self._created_at = 0
        kept: list[tuple[int, Topic]] = []
        for deleted_at, topic in self._deleted:
            if deleted_at > raft_index:
                kept.append((deleted_at, topic))
            elif topic.log.discard():
                unlinks.append(partial(remove_log, self._disk, topic.log.path))
            else:
                kept.append((deleted_at, topic))
                self.are_files_held = True
        self._deleted = kept

        def unlink() -> None:
            for each in unlinks:
                each()

        return unlink

    def close(self) -> None:
        """Close every log.  What is not in a checkpoint is applied again at the next start."""
        for topic in self.by_id.values():
            topic.log.close()
        for _, topic in self._deleted:
            topic.log.discard()


def synced_log(disk: Disk, path: str) -> str | None:
    """Return the path of a log, below the directory of the topics, that was synced with records in it; None if there is none.

    Only a checkpoint syncs a log, and only after the journal: such a log without either has outlived both.
    """
    for name in disk.list_directory(path):
        if not LOG_NAME.fullmatch(name):
            continue
        marks = MarkFile.open(disk, f"{path}/{name}")
        if marks is not None and marks.mark is not None and marks.mark.next_offset > 0:
            return f"{path}/{name}"
    return None
