"""Check everything in a data directory, while no node runs on it.

PATH is a node's data directory, the directory of one log, or a directory of the seed system. Every
checksum is computed and every file is held against the others; nothing is changed. The first fault
is named with its file, byte and offset and with what to do; up to 100 are counted. With --compare
the logs of two directories must have the same bytes, for the offsets that both keep. Fails (exit
code 1) if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, field
from typing import Any

from distlog.cli.inspect_json import fault_json
from distlog.cli.inspect_lines import extent_text, title
from distlog.cli.progress_bar import ProgressBar
from distlog.cli.remedies import DIFFERENT, remedy_of
from distlog.cli.stopped_node import Look, TopicSurvey, look_at
from distlog.cli.units import count_text
from distlog.errors import ConfigurationInvalid, DataDirectoryUnusable
from distlog.storage.comparison import common_offsets, compare_logs
from distlog.storage.disk import Disk, RealDisk
from distlog.storage.invariants import Fault
from distlog.storage.segment_files import STORE
from distlog.storage.survey import FAULT_COUNT_MAX, LogSurvey


@dataclass(slots=True)
class Comparison:
    """What comes of holding the logs of two directories against each other."""

    # Of offsets that both keep.
    record_count: int = 0
    # Whether there is nothing to compare: every log is in both, and ends in both where it begins.
    both_empty: bool = True
    differences: list[Fault] = field(default_factory=list)
    # What was compared, and what only one of them has.
    notes: list[str] = field(default_factory=list)

    @property
    def is_equal(self) -> bool:
        """Two that have no record in common are not: nothing was compared."""
        return not self.differences and (self.record_count > 0 or self.both_empty)


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
    comparison: Comparison | None = None
    paths = namespace.compare or [namespace.path]
    with ProgressBar("checked") as bar:
        looks = [look_at(disk, path, deep=True, progress=bar.of(path, STORE)) for path in paths]
        if namespace.compare:
            comparison = compare(disk, looks[0], looks[1])
    faults = [fault for look in looks for fault in look.all_faults()]
    if namespace.json:
        print(json.dumps(as_json(looks, comparison), indent=2))
    else:
        print("\n".join(as_lines(looks, comparison)))
    return 1 if faults or (comparison is not None and not comparison.is_equal) else 0


def compare(disk: Disk, one: Look, other: Look) -> Comparison:
    """Hold the logs of two directories against each other."""
    if (one.directory is None) != (other.directory is None):
        problem = f"{one.path} and {other.path} are not of the same kind: compare like with like"
        raise DataDirectoryUnusable(path=other.path, problem=problem)
    comparison = Comparison()
    others = {topic.topic_id: topic for topic in other.topics}
    for topic in one.topics:
        twin = others.pop(topic.topic_id, None)
        if twin is None:
            comparison.both_empty = False
            comparison.notes.append(f"only {one.path} has {title(topic)}")
            continue
        comparison.record_count += len(common_offsets(topic.log, twin.log))
        comparison.both_empty &= _are_empty(topic.log, twin.log)
        comparison.differences += compare_logs(disk, topic.log, twin.log)
        comparison.notes += compared_text(one, topic, other, twin)
    for topic in others.values():
        comparison.both_empty = False
        comparison.notes.append(f"only {other.path} has {title(topic)}")
    return comparison


def _are_empty(one: LogSurvey, other: LogSurvey) -> bool:
    """Tell whether two logs of the same kind keep nothing, and go on with the same offset."""
    return (
        one.is_seed == other.is_seed
        and one.start_offset == one.next_offset == other.next_offset == other.start_offset
    )


def compared_text(one: Look, topic: TopicSurvey, other: Look, twin: TopicSurvey) -> list[str]:
    """Return which offsets of two logs were compared, and what only one of them keeps."""
    logs = (topic.log, twin.log)
    common = common_offsets(*logs)
    if not common:
        return [f"{title(topic)}: no offset is in both"]
    first, end = common.start, common.stop
    sentences = [f"{title(topic)}: compared offsets {first} to {end - 1}"]
    for look, log in zip((one, other), logs, strict=True):
        if log.start_offset < first:
            sentences.append(
                f"{title(topic)}: only {look.path} keeps offsets {log.start_offset} to {first - 1}"
            )
        if log.next_offset > end:
            sentences.append(
                f"{title(topic)}: only {look.path} goes on, with offsets {end} to {log.next_offset - 1}"
            )
    return sentences


# --- What is said ---------------------------------------------------------------------------------


def as_json(looks: list[Look], comparison: Comparison | None) -> dict[str, Any]:
    """Return what `--json` prints; what only `--compare` finds out is null without."""
    compared = comparison or Comparison()
    return {
        "directories": [
            {
                "path": look.path,
                "topics": [_topic_json(topic) for topic in look.topics],
                "faults": [
                    _fault_json(fault, remedy_of(fault, look)) for fault in look.all_faults()
                ],
                "notes": look.all_notes(),
            }
            for look in looks
        ],
        "compared_record_count": comparison and comparison.record_count,
        "is_equal": comparison and comparison.is_equal,
        "differences": [_fault_json(fault, DIFFERENT) for fault in compared.differences],
        "notes": compared.notes,
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
    return {**fault_json(fault), "remedy": remedy}


def as_lines(looks: list[Look], comparison: Comparison | None) -> list[str]:
    """Return what a person reads."""
    compared = comparison or Comparison()
    lines: list[str] = []
    for look in looks:
        for topic in look.topics:
            verdict = "damaged" if topic.log.faults else "whole"
            lines.append(f"{look.path}: {title(topic)}: {extent_text(topic)}: {verdict}")
        lines += [f"note: {note}" for note in look.all_notes()]
        remedies: set[str] = set()
        for fault in look.all_faults():
            lines += _fault_lines(fault, remedy_of(fault, look), remedies)
    lines += [f"note: {note}" for note in compared.notes]
    said: set[str] = set()
    for fault in compared.differences:
        lines += _fault_lines(fault, DIFFERENT, said)
    return [*lines, conclusion(looks, comparison)]


def _fault_lines(fault: Fault, remedy: str, said: set[str]) -> list[str]:
    """Return a fault, and its remedy if that was not said yet."""
    offset = "" if fault.offset is None else f", offset {fault.offset}"
    lines = [
        f"fault: {fault.path} at byte {fault.position}{offset}: {fault.problem} ({fault.invariant})"
    ]
    if remedy not in said:
        said.add(remedy)
        lines.append(f"  what to do: {remedy}")
    return lines


def conclusion(looks: list[Look], comparison: Comparison | None) -> str:
    """Return the last line."""
    differences = comparison.differences if comparison is not None else []
    counts = [len(look.all_faults()) for look in looks]
    wrong = [
        ("at least " if most else "") + count_text(count, noun)
        for count, noun, most in (
            (sum(counts), "fault", max(counts) >= FAULT_COUNT_MAX),
            (len(differences), "difference", False),
        )
        if count
    ]
    records = sum(
        topic.log.next_offset - topic.log.start_offset for look in looks for topic in look.topics
    )
    said = " and ".join(wrong) or f"nothing is wrong with {records} records"
    return said if comparison is None else said + _compared_words(comparison)


def _compared_words(comparison: Comparison) -> str:
    """Return how the last line goes on after `--compare`."""
    if comparison.record_count:
        count = count_text(comparison.record_count, "record")
        if comparison.differences:
            return f" among the {count} that both keep"
        return f", and the two are equal in the {count} that both keep"
    if comparison.both_empty:
        return ", and the two are equal: both are empty"
    return ", but they have no offset in common: nothing was compared"
