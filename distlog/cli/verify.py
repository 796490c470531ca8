"""Check everything in a data directory, while no node runs on it.

PATH is a node's data directory, the directory of one log, or a directory of the seed system. Every
checksum is computed and every file is held against the others; nothing is changed. With --compare
the logs of two directories must have the same bytes, for the offsets that both keep. Fails if
anything is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from distlog.cli.inspect import extent_text, size_text, title
from distlog.cli.stopped_node import Look, TopicSurvey, look_at
from distlog.cli.terminal import CLEAR_LINE, PROGRESS_INTERVAL_S, is_terminal
from distlog.errors import ConfigurationInvalid, DataDirectoryUnusable
from distlog.storage.comparison import compare_logs
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.segment_check import Fault
from distlog.storage.segment_files import INDEX

REBUILD = "the next start rebuilds it from the store"
REPLACE = (
    "stop using this directory as it is: restore the file from a copy, or move the directory away "
    "and let the node come back as a new member"
)
DIFFERENT = "one of the two was changed after it was written: verify each of them alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="?", help="the directory to check")
    parser.add_argument(
        "--compare", metavar=("A", "B"), nargs=2, help="two directories that must be equal"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(namespace: argparse.Namespace) -> int:
    if (namespace.path is None) == (namespace.compare is None):
        problem = "name one directory, or two with --compare; see distlog verify --help"
        raise ConfigurationInvalid("distlog verify", problem)
    disk = RealDisk()
    paths = namespace.compare or [namespace.path]
    with Progress("checked") as progress:
        looks = [look_at(disk, path, deep=True, progress=progress.of(path)) for path in paths]
        differences: list[Fault] = []
        notes: list[str] = []
        if namespace.compare:
            differences, notes = compare(disk, looks[0], looks[1])
    faults = [fault for look in looks for fault in look.all_faults()]
    if namespace.json:
        print(json.dumps(as_json(looks, differences, notes), indent=2))
    else:
        for look in looks:
            print_look(look)
        for note in notes:
            print(f"note: {note}")
        for fault in differences:
            print_fault(fault, DIFFERENT)
        print(conclusion(looks, len(faults), len(differences)))
    return 1 if faults or differences else 0


def compare(disk: Disk, one: Look, other: Look) -> tuple[list[Fault], list[str]]:
    """Return how the logs of two directories differ, and what could not be compared."""
    if (one.directory is None) != (other.directory is None):
        problem = f"{one.path} and {other.path} are not of the same kind: compare like with like"
        raise DataDirectoryUnusable(path=other.path, problem=problem)
    faults: list[Fault] = []
    notes: list[str] = []
    others = {topic.topic_id: topic for topic in other.topics}
    for topic in one.topics:
        twin = others.pop(topic.topic_id, None)
        if twin is None:
            notes.append(f"only {one.path} has {title(topic)}")
            continue
        faults += compare_logs(disk, topic.log, twin.log)
        first = max(topic.log.start_offset, twin.log.start_offset)
        end = min(topic.log.next_offset, twin.log.next_offset)
        if first < end:
            notes.append(f"{title(topic)}: compared offsets {first} to {end - 1}")
        else:
            notes.append(f"{title(topic)}: no offset is in both")
    notes += [f"only {other.path} has {title(topic)}" for topic in others.values()]
    return faults, notes


def remedy_of(fault: Fault) -> str:
    """Return what to do about a fault."""
    return REBUILD if fault.path.endswith(INDEX) else REPLACE


# --- What is said ---------------------------------------------------------------------------------


def as_json(looks: list[Look], differences: list[Fault], notes: list[str]) -> dict[str, Any]:
    """Return what `--json` prints."""
    return {
        "directories": [
            {
                "path": look.path,
                "topics": [_topic_json(topic) for topic in look.topics],
                "faults": [_fault_json(fault, remedy_of(fault)) for fault in look.all_faults()],
                "notes": look.all_notes(),
            }
            for look in looks
        ],
        "differences": [_fault_json(fault, DIFFERENT) for fault in differences],
        "notes": notes,
    }


def _topic_json(topic: TopicSurvey) -> dict[str, Any]:
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "start_offset": topic.log.start_offset,
        "next_offset": topic.log.next_offset,
        "store_size": topic.log.store_size,
    }


def _fault_json(fault: Fault, remedy: str) -> dict[str, Any]:
    return {
        "path": fault.path,
        "position": fault.position,
        "offset": fault.offset,
        "problem": fault.problem,
        "remedy": remedy,
    }


def print_look(look: Look) -> None:
    for topic in look.topics:
        verdict = "damaged" if topic.log.faults else "whole"
        print(f"{look.path}: {title(topic)}: {extent_text(topic)}: {verdict}")
    for note in look.all_notes():
        print(f"note: {note}")
    for fault in look.all_faults():
        print_fault(fault, remedy_of(fault))


def print_fault(fault: Fault, remedy: str) -> None:
    print(f"fault: {fault.path} at byte {fault.position}, offset {fault.offset}: {fault.problem}")
    print(f"  {remedy}")


def conclusion(looks: list[Look], fault_count: int, difference_count: int) -> str:
    """Return the last line."""
    wrong = [
        f"{count} {noun}{'s' if count > 1 else ''}"
        for count, noun in ((fault_count, "fault"), (difference_count, "difference"))
        if count
    ]
    if wrong:
        return " and ".join(wrong)
    records = sum(
        topic.log.next_offset - topic.log.start_offset for look in looks for topic in look.topics
    )
    equal = ", and the two are equal" if len(looks) > 1 else ""
    return f"nothing is wrong with {records} records{equal}"


class Progress:
    """One line on the terminal that says how far it is; nothing where there is no terminal."""

    def __init__(self, done: str) -> None:
        """done: what happened to the bytes."""
        self._done = done
        self._shown = is_terminal(sys.stderr)
        self._next = 0.0

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            sys.stderr.write(CLEAR_LINE)
            sys.stderr.flush()

    def of(self, path: str) -> Callable[[int], None]:
        """Return what is to be called with the bytes checked so far."""
        name = os.path.basename(path.rstrip("/")) or path

        def show(size: int) -> None:
            if self._shown and time.monotonic() >= self._next:
                self._next = time.monotonic() + PROGRESS_INTERVAL_S
                sys.stderr.write(f"{CLEAR_LINE}{name}: {size_text(size)} {self._done}")
                sys.stderr.flush()

        return show
