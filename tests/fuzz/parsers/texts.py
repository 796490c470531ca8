"""The parsers of what people write: settings, files with settings and keys, addresses, offsets, times, names."""

from __future__ import annotations

import argparse
import base64
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from distlog.addresses import host_and_port
from distlog.cli import arguments, topic, units
from distlog.config.key_files import read_gossip_key, read_secret
from distlog.config.load import load
from distlog.config.table import SETTINGS
from distlog.errors import ConfigurationInvalid
from tests.fuzz.parsers.parser import Parser, any_value, changed_bytes, text_field

# Of each kind of setting, something that it takes.
WRITTEN = {
    "ID": "n1",
    "DIR": "data/n1",
    "FILE": "a.pem",
    "PROGRAM": "serf",
    "HOST:PORT": "127.0.0.1:8400",
    "ID=HOST:PEERPORT,...": "n1=h1:8401,n2=h2:8401,n3=[::1]:8401",
    "HOST:PORT,...": "h1:8400,[::1]:8400",
    "gossip|static|dns://NAME:PORT|serf|serf://HOST:PORT": "dns://nodes:8400",
    "BYTES": "64MiB",
    "NUMBER": "3",
    "SECONDS": "0.5",
    "true|false": "true",
}
TOML = """\
node_id = "n1"
listen = "127.0.0.1:8400"
record_size_max = 1048576
heartbeat_interval_s = 0.1
insecure = true
[peers]
n1 = "127.0.0.1:8401"
n2 = "127.0.0.1:8402"
"""
ANY_ENVIRONMENT = (
    "DISTLOG_NODE_ID=n1\nDISTLOG_LISTEN=127.0.0.1:8400\nDISTLOG_PEERS=n1=127.0.0.1:1,n2=h:2"
)


def read_setting(text: str) -> object:
    """Read a text as the value of the setting that is named before the first space."""
    name, _, value = text.partition(" ")
    row = next((row for row in SETTINGS if row.flag == name), SETTINGS[0])
    return row.read(value)


def value_field(text: str, source: Random) -> str:
    """Change what follows the first space, or a part of it."""
    name, _, value = text.partition(" ")
    return f"{name} {text_field(',:=[]/.')(value, source)}"


def read_typed(text: str) -> object:
    """Read a value of any type, as a TOML file may have it; text names the setting, and the seed of the value."""
    name, _, seed = text.partition(" ")
    row = next((row for row in SETTINGS if row.flag == name), SETTINGS[0])
    return row.read(any_value(Random(seed)))


def read_environment(text: str) -> object:
    pairs = (line.partition("=") for line in text.splitlines())
    return load({}, {name: value for name, _, value in pairs})


def read_argument(parse: Callable[[str], object]) -> Callable[[str], object]:
    """Have argparse call `parse`, as the command line does: what it makes an error message of is no traceback."""
    parser = argparse.ArgumentParser(exit_on_error=False)
    action = parser.add_argument("value", type=parse)

    def read(text: str) -> object:
        return parser._get_value(action, text)

    return read


def setting_parsers(directory: Path) -> list[Parser[Any]]:
    """directory: where files are written to be read."""
    file = directory / "file"
    file.touch(mode=0o600)

    def in_file(read: Callable[[str], object]) -> Callable[[bytes], object]:
        def write_and_read(data: bytes) -> object:
            file.write_bytes(data)
            return read(str(file))

        return write_and_read

    settings = [f"{row.flag} {WRITTEN.get(row.kind.metavar, row.default_text)}" for row in SETTINGS]
    invalid = (ConfigurationInvalid,)
    change_line = text_field('\n= ".:')
    key = base64.b64encode(bytes(range(32)))
    return [
        Parser("settings", settings, read_setting, (ValueError,), value_field),
        Parser(
            "values in a file",
            [f"{row.flag} 1" for row in SETTINGS],
            read_typed,
            (ValueError,),
            lambda text, source: f"{text.partition(' ')[0]} {source.getrandbits(32)}",
        ),
        Parser("environment", [ANY_ENVIRONMENT], read_environment, invalid, change_line),
        Parser(
            "TOML file",
            [TOML.encode()],
            in_file(lambda path: load({"config": path}, {})),
            invalid,
            lambda data, source: change_line(data.decode(), source).encode("utf-8", "replace"),
            5,
        ),
        Parser(
            "gossip key",
            [key],
            in_file(lambda path: read_gossip_key("--key", path)),
            invalid,
            changed_bytes,
            3,
        ),
        Parser(
            "secret",
            [b"word\n"],
            in_file(lambda path: read_secret("--key", path)),
            invalid,
            changed_bytes,
            3,
        ),
    ]


def argument_parsers() -> list[Parser[str]]:
    moment = "2026-01-31T12:00:00.5+01:00"
    change_moment = text_field("-T:.+Z ")
    of_argument = (argparse.ArgumentError,)

    def argument(name: str, examples: list[str], parse: Callable[[str], object]) -> Parser[str]:
        change = text_field("kKMGTiBdhms.")
        return Parser(name, examples, read_argument(parse), of_argument, change)

    def offset_or_moment(text: str) -> object:
        return int(text) if units.is_offset(text) else units.moment_ms(text)

    return [
        Parser("offset or time", ["17", moment], offset_or_moment, (), change_moment),
        Parser(
            "what a trim keeps",
            ["17", moment, "end"],
            topic.first_kept,
            (ConfigurationInvalid,),
            change_moment,
        ),
        argument("size", ["64MiB", "1048576"], units.size),
        argument("kept size", ["all", "1GiB"], units.kept_size),
        argument("kept age", ["forever", "7d", "500ms"], units.kept_age_ms),
        argument("segment size", ["64MiB"], topic.segment_size),
        argument("segment record count", ["1024"], topic.segment_record_count),
        argument("topic name", ["orders.v1-a_b"], topic.topic_name),
        argument("seconds", ["0.5", "60"], arguments.seconds),
        argument("count", ["0", "17"], arguments.count),
        Parser(
            "server addresses",
            ["h1:8400,[::1]:8400"],
            lambda text: arguments.server_addresses(argparse.Namespace(server=text)),
            (ConfigurationInvalid,),
            text_field(",:[]"),
        ),
        Parser(
            "address of a member", ["h1:8401", "[::1]:8401"], host_and_port, (), text_field(":[]")
        ),
    ]
