"""Look after the topics of a cluster: list, create, describe, configure, trim and delete them."""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from distlog.cli.arguments import add_action
from distlog.cli.connecting import connected
from distlog.cli.table import table
from distlog.cli.terminal import is_terminal, print_error, write_line
from distlog.cli.units import (
    ALL,
    FOREVER,
    MOMENT_WORDS,
    is_offset,
    kept_age_ms,
    kept_size,
    moment_ms,
    retention_text,
    size,
    size_text,
    time_text,
)
from distlog.errors import ConfigurationInvalid

if TYPE_CHECKING:
    from distlog.client import Client, TopicRange

NAME = re.compile(r"[A-Za-z0-9._-]{1,249}")
SEGMENT_SIZE_RANGE = range(4 << 10, (1 << 30) + 1)
SEGMENT_RECORD_COUNT_RANGE = range(16, (16 << 20) + 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    add_action(actions, "list", "show every topic, its offsets, its size and what it keeps")
    create = add_action(actions, "create", "create an empty topic")
    _add_name(create)
    create.add_argument(
        "--segment-size",
        type=segment_size,
        metavar="BYTES",
        default=0,
        help="bytes of records in one file, 4KiB to 1GiB (default 64MiB); retention removes whole files",
    )
    create.add_argument(
        "--segment-records",
        type=segment_record_count,
        metavar="N",
        default=0,
        help="records in one file, 16 to 16777216 (default 1048576)",
    )
    _add_retention(create, 0, (ALL, FOREVER))
    describe = add_action(actions, "describe", "show one topic")
    _add_name(describe, optional=True)
    configure = add_action(actions, "configure", "change how much of a topic is kept")
    _add_name(configure)
    _add_retention(configure, None, ("as it is", "as it is"))
    trim = add_action(actions, "trim", "forget the first records of a topic")
    _add_name(trim)
    trim.add_argument(
        "--before",
        required=True,
        metavar="OFFSET|end|TIME",
        help="the first offset that is kept, or the first time (2026-01-31T12:00:00Z)",
    )
    delete = add_action(actions, "delete", "delete a topic with all its records")
    _add_name(delete)
    delete.add_argument(
        "--yes", action="store_true", help="do not ask; needed where nobody can be asked"
    )


def _add_name(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    if optional:
        parser.add_argument(
            "name",
            type=topic_name,
            nargs="?",
            metavar="NAME",
            help="the topic (default: default)",
        )
    else:
        parser.add_argument("name", type=topic_name, metavar="NAME", help="the topic")


def _add_retention(
    parser: argparse.ArgumentParser, default: int | None, words: tuple[str, str]
) -> None:
    """words: what the default means for the size and for the age."""
    parser.add_argument(
        "--retention-size",
        type=kept_size,
        default=default,
        metavar=f"BYTES|{ALL}",
        help=f"keep at least the newest so many bytes of records (default: {words[0]})",
    )
    parser.add_argument(
        "--retention-age",
        type=kept_age_ms,
        default=default,
        metavar=f"AGE|{FOREVER}",
        help=f"keep at least what is younger: 7d, 12h, 30m, 90s (default: {words[1]})",
    )


def topic_name(text: str) -> str:
    """Parse a topic's name."""
    if not NAME.fullmatch(text) or text in (".", ".."):
        allowed = "1 to 249 of A-Z a-z 0-9 . _ - and neither '.' nor '..'"
        raise argparse.ArgumentTypeError(f"must be {allowed}, not {text!r}")
    return text


def segment_size(text: str) -> int:
    value = size(text)
    if value not in SEGMENT_SIZE_RANGE:
        raise argparse.ArgumentTypeError(f"must be from 4KiB to 1GiB, not {text!r}")
    return value


def segment_record_count(text: str) -> int:
    if not text.isdecimal() or int(text) not in SEGMENT_RECORD_COUNT_RANGE:
        raise argparse.ArgumentTypeError(f"must be a number from 16 to 16777216, not {text!r}")
    return int(text)


def run(namespace: argparse.Namespace) -> int:
    # Before anybody is called: what is wrong with the arguments together.
    if namespace.action == "configure":
        if namespace.retention_size is None and namespace.retention_age is None:
            problem = "nothing is to be changed: say --retention-size, --retention-age or both"
            raise ConfigurationInvalid("distlog topic configure", problem)
    elif namespace.action == "trim":
        first_kept(namespace.before)
    elif namespace.action == "delete" and not namespace.yes and not is_meant(namespace.name):
        print_error(f"that is not the name: {namespace.name!r} was not deleted")
        return 1
    asyncio.run(act(namespace))
    return 0


def is_meant(name: str) -> bool:
    """Have a person type the topic's name; tell whether it was that.  Raises ConfigurationInvalid where there is nobody."""
    if not is_terminal(sys.stdin) or not is_terminal(sys.stderr):
        problem = "a deletion cannot be undone: say --yes, or run it on a terminal to be asked"
        raise ConfigurationInvalid("--yes", problem)
    write_line(sys.stderr, f"This deletes {name!r} with all its records. Type its name to go on:")
    return sys.stdin.readline().rstrip("\n") == name


async def act(namespace: argparse.Namespace) -> None:
    """Do what is asked, and print what came of it."""
    async with connected(namespace, timeout_s=namespace.timeout) as client:
        fields, text = await ACTIONS[namespace.action](client, namespace)
    print(json.dumps(fields, indent=2) if namespace.json else text)


# What an action has for --json, and what it says without.
Said = tuple[dict[str, Any], str]


async def list_topics(client: Client, namespace: argparse.Namespace) -> Said:
    topics = await client.list_topics()
    fields = {"topics": [topic_fields(topic) for topic in topics]}
    return fields, table(LIST_COLUMNS, [list_cells(topic) for topic in topics])


async def create_topic(client: Client, namespace: argparse.Namespace) -> Said:
    await client.create_topic(
        namespace.name,
        segment_size_max=namespace.segment_size,
        segment_record_count_max=namespace.segment_records,
        retention_size=namespace.retention_size,
        retention_age_ms=namespace.retention_age,
    )
    return await _described(client, namespace, f"created {namespace.name}")


async def describe_topic(client: Client, namespace: argparse.Namespace) -> Said:
    topic = await client.describe_topic(namespace.name or "")
    return topic_fields(topic), description(topic)


async def configure_topic(client: Client, namespace: argparse.Namespace) -> Said:
    await client.configure_topic(
        namespace.name,
        retention_size=namespace.retention_size,
        retention_age_ms=namespace.retention_age,
    )
    return await _described(client, namespace, f"configured {namespace.name}")


async def trim_topic(client: Client, namespace: argparse.Namespace) -> Said:
    before = first_kept(namespace.before)
    if isinstance(before, int):
        start_offset = before
    elif before is None:
        start_offset = (await client.describe_topic(namespace.name)).high_watermark
    else:
        (timestamp_ms,) = before
        position = await client.offset_for_time(timestamp_ms, topic=namespace.name)
        start_offset = position.offset
    start_offset = await client.trim_topic(namespace.name, start_offset=start_offset)
    fields = {"name": namespace.name, "start_offset": start_offset}
    return fields, f"{namespace.name} begins at offset {start_offset} now"


async def delete_topic(client: Client, namespace: argparse.Namespace) -> Said:
    await client.delete_topic(namespace.name)
    return {"name": namespace.name, "deleted": True}, f"deleted {namespace.name}"


ACTIONS: dict[str, Callable[[Client, argparse.Namespace], Awaitable[Said]]] = {
    "list": list_topics,
    "create": create_topic,
    "describe": describe_topic,
    "configure": configure_topic,
    "trim": trim_topic,
    "delete": delete_topic,
}


def first_kept(text: str) -> int | tuple[int] | None:
    """Parse what a trim keeps first: an offset, (a time in milliseconds,), or None for the end."""
    if text == "end":
        return None
    if is_offset(text):
        return int(text)
    timestamp_ms = moment_ms(text)
    if timestamp_ms is None:
        problem = f"must be an offset, end or {MOMENT_WORDS}, not {text!r}"
        raise ConfigurationInvalid("--before", problem)
    return (timestamp_ms,)


async def _described(client: Client, namespace: argparse.Namespace, done: str) -> Said:
    topic = await client.describe_topic(namespace.name)
    kept = retention_text(topic.retention_size, topic.retention_age_ms)
    return topic_fields(topic), f"{done}; it keeps {kept}"


# --- What is printed ---

LIST_COLUMNS = ("TOPIC", "START OFFSET", "HIGH WATERMARK", "SIZE", "LAST RECORD", "KEEPS")


def list_cells(topic: TopicRange) -> Sequence[str]:
    return (
        topic.name,
        str(topic.start_offset),
        str(topic.high_watermark),
        size_text(topic.size),
        show_last(topic),
        retention_text(topic.retention_size, topic.retention_age_ms),
    )


def description(topic: TopicRange) -> str:
    """Return a line for each thing that there is to know."""
    rows = [
        ("topic", topic.name),
        ("id", str(topic.topic_id)),
        ("start offset", str(topic.start_offset)),
        ("high watermark", str(topic.high_watermark)),
        ("size", size_text(topic.size)),
        ("last record", show_last(topic)),
        ("keeps", retention_text(topic.retention_size, topic.retention_age_ms)),
        (
            "segments",
            f"{size_text(topic.segment_size_max)} or {topic.segment_record_count_max} records",
        ),
    ]
    return "\n".join(f"{name + ':':<15} {value}" for name, value in rows)


def show_last(topic: TopicRange) -> str:
    return time_text(topic.last_timestamp_ms) if topic.high_watermark else "-"


def topic_fields(topic: TopicRange) -> dict[str, Any]:
    """Return what `--json` prints of a topic; a retention of null keeps everything."""
    return {
        "name": topic.name,
        "topic_id": topic.topic_id,
        "start_offset": topic.start_offset,
        "high_watermark": topic.high_watermark,
        "size": topic.size,
        "last_timestamp_ms": topic.last_timestamp_ms if topic.high_watermark else None,
        "segment_size_max": topic.segment_size_max,
        "segment_record_count_max": topic.segment_record_count_max,
        "retention_size": topic.retention_size or None,
        "retention_age_ms": topic.retention_age_ms or None,
    }
