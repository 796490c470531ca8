"""Adopt a directory of the system that distlog descends from.

Its log becomes the topic `default` of a new data directory, whose node is a cluster of its own.
Every record is checked and copied; the directory itself stays as it is.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from random import Random, SystemRandom

from distlog.cli.progress_bar import ProgressBar
from distlog.cli.units import count_text
from distlog.config import SETTINGS, ServeConfig, load
from distlog.consensus.checkpoint import CheckpointImage, TopicImage, write_checkpoint
from distlog.consensus.commands import NO_OP
from distlog.consensus.configuration import Configuration
from distlog.consensus.journal import Journal, JournalEntry
from distlog.consensus.state_machine import (
    DEFAULT_LIMITS,
    DEFAULT_TOPIC,
    FIRST_INDEX,
    RECORD_SIZE_MAX,
)
from distlog.errors import DataDirectoryUnusable
from distlog.storage.data_directory import DataDirectory
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.log_mark import LogMark
from distlog.storage.seed_import import import_seed, open_seed
from distlog.storage.seed_segment import SeedSegment
from distlog.storage.segment_files import STORE

# The settings of a node that an import needs.
NEEDED = ("node_id", "data_dir")
# What the journal begins with: the no-op of every journal, and that of the first leader.
FIRST_TERM = 1
ENTRIES = (JournalEntry(NO_OP, FIRST_INDEX, 0), JournalEntry(NO_OP, FIRST_INDEX + 1, FIRST_TERM))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("seed_dir", metavar="SEED_DIR", help="the directory to adopt")
    for row in SETTINGS:
        if row.name in NEEDED:
            parser.add_argument(
                row.flag,
                dest=row.name,
                metavar=row.kind.metavar,
                help=f"{row.help} (default {row.default_text})",
            )


def run(namespace: argparse.Namespace) -> int:
    config = _configuration(namespace)
    with ProgressBar("copied") as bar:
        mark = adopt(
            RealDisk(),
            namespace.seed_dir,
            str(config.data_dir),
            config.node_id,
            random=SystemRandom(),
            now_ms=time.time_ns() // 1_000_000,
            progress=bar.of(namespace.seed_dir, STORE),
        )
    records = count_text(mark.next_offset - mark.start_offset, "record")
    print(f"imported {records} into topic {DEFAULT_TOPIC} of {config.data_dir}")
    print(f"start it with: distlog serve --node-id {config.node_id} --data-dir {config.data_dir}")
    return 0


def _configuration(namespace: argparse.Namespace) -> ServeConfig:
    """Read the two settings as `distlog serve` does."""
    flags = {name: value for name in NEEDED if (value := getattr(namespace, name)) is not None}
    variables = {row.variable for row in SETTINGS if row.name in NEEDED}
    return load(flags, {name: os.environ[name] for name in variables if name in os.environ})


def adopt(
    disk: Disk,
    seed_path: str,
    data_path: str,
    node_id: str,
    *,
    random: Random,
    now_ms: int,
    progress: Callable[[int], None] = lambda size: None,
) -> LogMark:
    """Make the data directory of a formed cluster of one, whose default topic is the seed's log.

    If this is interrupted no node starts on the directory.  Raises DataDirectoryUnusable if one of
    the directories is not what it should be, CorruptBatch and RecordTooLarge if the seed cannot be
    adopted; nothing was made then.
    """
    inside = os.path.realpath(data_path) + "/"
    if inside.startswith(os.path.realpath(seed_path) + "/"):
        problem = "it lies in the directory to adopt, which must stay as it is"
        raise DataDirectoryUnusable(path=data_path, problem=problem)
    segments = open_seed(disk, seed_path, RECORD_SIZE_MAX)
    try:
        directory = DataDirectory.begin(disk, data_path, node_id, random)
        try:
            mark = _fill(disk, directory, segments, now_ms, progress)
            directory.finish()
        finally:
            directory.close()
    finally:
        for segment in segments:
            segment.close()
    return mark


def _fill(
    disk: Disk,
    directory: DataDirectory,
    segments: list[SeedSegment],
    now_ms: int,
    progress: Callable[[int], None],
) -> LogMark:
    configuration = Configuration.form({directory.node_id: directory.directory_id})
    directory.form(configuration.cluster_id, configuration.voters)
    mark = import_seed(
        disk,
        segments,
        directory.topic_path(FIRST_INDEX),
        timestamp_ms=now_ms,
        raft_index=FIRST_INDEX,
        limits=DEFAULT_LIMITS,
        progress=progress,
    )
    previous, last = ENTRIES
    image = CheckpointImage(
        previous=previous,
        last=last,
        configuration=configuration,
        durable_sequence=_write_journal(disk, directory),
        now_ms=now_ms,
        topics=(TopicImage(FIRST_INDEX, DEFAULT_TOPIC, DEFAULT_LIMITS, mark),),
        producer_rows=(),
    )
    write_checkpoint(disk, directory.checkpoint_path, image)
    return mark


def _write_journal(disk: Disk, directory: DataDirectory) -> int:
    """Write the journal that fits the checkpoint; return its durable sequence."""
    journal = Journal.open(disk, directory.journal_path)
    journal.set_term_vote(FIRST_TERM, directory.node_id)
    for entry in ENTRIES:
        journal.append(*entry)
    ticket = journal.begin_sync()
    assert ticket is not None, "there is something to sync"
    ticket.run()
    journal.finish_sync(ticket)
    journal.close()
    return journal.durable_sequence
