"""The rules of a policy in entries and in the checkpoint: docs/format-entry.md has the bytes as tables.

    rules     rule_count u32; each: kind u8, then its texts: size u16, UTF-8

Little-endian.  A permission is kind 1 with subject, topic and action, a membership kind 2 with subject and role.  A kind that is
not known was written by a newer version, and stops the node.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from distlog.errors import EntryCorrupt, EntryUnknown
from distlog.security.policy import Membership, Permission, Rule

COUNT = struct.Struct("<I")
KIND = struct.Struct("<B")
TEXT_SIZE = struct.Struct("<H")
PERMISSION, MEMBERSHIP = 1, 2


def encode_rules(rules: Sequence[Rule]) -> bytes:
    """Return rules as they stand in an entry and in the checkpoint."""
    parts = [COUNT.pack(len(rules))]
    for rule in rules:
        parts.append(KIND.pack(PERMISSION if isinstance(rule, Permission) else MEMBERSHIP))
        for text in rule.row[1:]:
            data = text.encode()
            parts += (TEXT_SIZE.pack(len(data)), data)
    return b"".join(parts)


def decode_rules(data: bytes, position: int) -> tuple[tuple[Rule, ...], int]:
    """Return the rules that begin at `position`, and where they end.

    Raises EntryUnknown for a kind of a newer version, and struct.error or ValueError for what no version writes.
    """
    (count,) = COUNT.unpack_from(data, position)
    position += COUNT.size
    if count > len(data):
        raise ValueError(f"{count} rules")
    rules: list[Rule] = []
    for _ in range(count):
        (kind,) = KIND.unpack_from(data, position)
        position += KIND.size
        if kind not in (PERMISSION, MEMBERSHIP):
            raise EntryUnknown(found=f"a rule of kind {kind}")
        texts = []
        for _ in range(3 if kind == PERMISSION else 2):
            (size,) = TEXT_SIZE.unpack_from(data, position)
            position += TEXT_SIZE.size
            if position + size > len(data):
                raise ValueError("it ends within a rule")
            texts.append(data[position : position + size].decode())
            position += size
        rules.append(Permission(*texts) if kind == PERMISSION else Membership(*texts))
    return tuple(rules), position


def encode_change(added: Sequence[Rule], removed: Sequence[Rule]) -> bytes:
    """Return the body of a command that changes the policy."""
    return encode_rules(added) + encode_rules(removed)


def decode_change(body: bytes, position: int) -> tuple[tuple[Rule, ...], tuple[Rule, ...]]:
    """Return the added and the removed rules of such a body, which stands at `position` of its entry.

    Raises EntryUnknown and EntryCorrupt.
    """
    try:
        added, end = decode_rules(body, 0)
        removed, end = decode_rules(body, end)
    except (struct.error, ValueError) as error:
        raise EntryCorrupt(position=position, problem=f"a change of the policy: {error}") from error
    if end != len(body):
        raise EntryCorrupt(position=position + end, problem="bytes after the last rule")
    return added, removed
