"""The operations of a journal one by one, and what the entries among them hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

from distlog.block import Block
from distlog.cli.journal_survey import entry_of
from distlog.cli.member_listing import configuration_json, member_lines
from distlog.cli.units import count_text, size_text, time_text
from distlog.consensus.commands import NO_OP, Append, ChangePolicy, Command
from distlog.consensus.configuration import decode_configuration_entry, is_configuration
from distlog.consensus.journal_format import Operation, OperationKind, decode_vote, file_path
from distlog.consensus.journal_recovery import OperationReader
from distlog.errors import CorruptJournal, DiskFailed, EntryCorrupt, EntryUnknown
from distlog.storage.disk import Disk

KINDS = {
    OperationKind.ENTRY: "entry",
    OperationKind.TRUNCATE_FROM: "truncate_from",
    OperationKind.TERM_VOTE: "term_vote",
}


def operations_of(disk: Disk, path: str) -> Iterator[Operation]:
    """Yield what can be read of a journal; where it ends, and why, a look at it says."""
    try:
        yield from OperationReader(disk, path)
    except (CorruptJournal, DiskFailed):
        return


def operation_json(path: str, operation: Operation) -> dict[str, Any]:
    """Return an operation as JSON can hold it; values of records are left out."""
    fields: dict[str, Any] = {
        "sequence": operation.sequence,
        "kind": KINDS[OperationKind(operation.kind)],
        "path": file_path(path, operation.file_sequence),
        "byte": operation.position,
        "durable_sequence": operation.durable_sequence,
    }
    if operation.kind == OperationKind.TERM_VOTE:
        return {**fields, "term": operation.term, "vote": decode_vote(operation.payload)}
    fields["raft_index"] = operation.raft_index
    if operation.kind == OperationKind.TRUNCATE_FROM:
        return fields
    fields |= {"term": operation.term, "size": len(operation.payload)}
    try:
        entry = entry_of(operation.payload)
    except (EntryCorrupt, EntryUnknown) as error:
        return {**fields, "problem": str(error)}
    if entry.commands or is_configuration(operation.payload):
        fields["timestamp_ms"] = entry.timestamp_ms
    if is_configuration(operation.payload):
        found, _ = decode_configuration_entry(operation.payload, operation.raft_index)
        fields["configuration"] = configuration_json(found)
    return {**fields, "commands": [command_json(command) for command in entry.commands]}


def command_json(command: Command) -> dict[str, Any]:
    """Return what a command says, its records only by number and size."""
    fields: dict[str, Any] = {"command": words_of(command)}
    for each in dataclasses.fields(command):
        value = getattr(command, each.name)
        if isinstance(value, Block):
            fields |= {"record_count": value.record_count, "size": value.size}
        elif dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields[each.name] = dataclasses.asdict(value)
        else:
            fields[each.name] = value
    return fields


def words_of(command: Command) -> str:
    """Return a command's name in words: `create topic`."""
    name = type(command).__name__
    return "".join(f" {each.lower()}" if each.isupper() else each for each in name).strip()


def operation_line(operation: Operation) -> str:
    """Return an operation as a person reads it."""
    return f"{operation.sequence:>8}  file {operation.file_sequence} byte {operation.position}: {_effect(operation)}"


def _effect(operation: Operation) -> str:
    if operation.kind == OperationKind.TERM_VOTE:
        return f"term {operation.term}, vote {decode_vote(operation.payload) or '-'}"
    if operation.kind == OperationKind.TRUNCATE_FROM:
        return (
            f"entries from {operation.raft_index} on go"
            if operation.raft_index
            else "all entries go"
        )
    head = f"entry {operation.raft_index} of term {operation.term}"
    if operation.payload == NO_OP:
        return f"{head}: nothing, a leader began"
    try:
        entry = entry_of(operation.payload)
    except (EntryCorrupt, EntryUnknown) as error:
        return f"{head}: {error}"
    if is_configuration(operation.payload):
        found, _ = decode_configuration_entry(operation.payload, operation.raft_index)
        return f"{head}, {time_text(entry.timestamp_ms)}: {'; '.join(member_lines(found))}"
    commands = "; ".join(_command_text(command) for command in entry.commands)
    return f"{head}, {time_text(entry.timestamp_ms)}: {commands}"


def _command_text(command: Command) -> str:
    if isinstance(command, Append):
        stamp = command.producer
        by = (
            ""
            if stamp is None
            else f", producer {stamp.producer_id} epoch {stamp.epoch} sequence {stamp.sequence}"
        )
        records = count_text(command.block.record_count, "record")
        return f"append {records} to topic {command.topic_id}, {size_text(command.block.size)}{by}"
    if isinstance(command, ChangePolicy):
        changes = (("added", command.added), ("removed", command.removed))
        rules = [f"{what} {', '.join(rule.row)}" for what, each in changes for rule in each]
        return f"change policy ({'; '.join(rules)})"
    parts = [
        f"{each.name} {getattr(command, each.name)}"
        for each in dataclasses.fields(command)
        if not dataclasses.is_dataclass(getattr(command, each.name))
    ]
    return f"{words_of(command)} ({', '.join(parts)})"
