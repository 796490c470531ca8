"""How settings are written: from what a person typed to a value, and back for the help.

Every `parse_*` takes a flag's or a variable's text, or a value of a TOML file, and raises ValueError, which says what would
be acceptable.
"""

from __future__ import annotations

import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from distlog.addresses import address_text, is_loopback, split_address
from distlog.discovery.backend import Backend

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
VOTER_COUNT_MAX = 15
NAME_COUNT_MAX = 100
SUBJECT = re.compile(r"\S{1,255}")
PEER_NAME = re.compile(r"(URI|DNS|EMAIL|OU|CN):\S+")
LOG_LEVELS_KNOWN = ("debug", "info", "warning", "error")
LOGGER = re.compile(r"distlog(\.[a-z_]+)*")
LOG_LEVELS_WANTED = "must be one of debug, info, warning, error, or with single packages as in info,distlog.peer=debug"
# Digits of a number: Python refuses to read much longer ones, in words that help nobody.
NUMBER_LENGTH_MAX = 30
NODE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Address(NamedTuple):
    """Where something listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return address_text(*self)

    @property
    def is_loopback(self) -> bool:
        """Tell whether only this machine reaches it."""
        return is_loopback(self.host)

    @property
    def is_wildcard(self) -> bool:
        """Tell whether it means every address of the machine, and so nothing that another machine could dial."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False


class DiscoveryChoice(NamedTuple):
    """Which backend finds the other nodes, and where it looks, if it has to be told."""

    backend: Backend
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        return f"{self.backend}://{Address(self.host, self.port)}" if self.host else self.backend


@dataclass(frozen=True, slots=True)
class Kind:
    """How a setting is written.  `read` takes a flag's or variable's text, or a TOML value."""

    metavar: str
    read: Callable[[object], Any]
    show: Callable[[Any], str] = str


def parse_address(text: object) -> Address:
    """Parse HOST:PORT ([HOST]:PORT for IPv6); port 0 lets the system choose."""
    found = split_address(text) if isinstance(text, str) else None
    if found is None:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8400")
    host, port = found
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 host needs brackets: [HOST]:PORT")
    return Address(host, port)


def parse_node_id(text: object) -> str:
    if not isinstance(text, str) or not NODE_ID.fullmatch(text):
        raise ValueError("must be 1 to 63 of A-Z a-z 0-9 . _ - and begin with a letter or digit")
    return text


def parse_peers(value: object) -> dict[str, Address]:
    """Parse ID=HOST:PEERPORT,... or, from a file, a table of ID = "HOST:PEERPORT"."""
    if isinstance(value, str):
        pairs = [pair.strip().partition("=") for pair in value.split(",") if pair.strip()]
    elif isinstance(value, dict):
        pairs = [(node_id, "=", address) for node_id, address in value.items()]
    else:
        pairs = []
    peers: dict[str, Address] = {}
    for node_id, equals, address in pairs:
        if not equals:
            raise ValueError(f"must be ID=HOST:PEERPORT,... and {node_id!r} has no '='")
        if parse_node_id(node_id) in peers:
            raise ValueError(f"names {node_id} twice")
        peers[node_id] = parse_address(address)
    if len(set(peers.values())) != len(peers):
        raise ValueError("gives two nodes the same address")
    if not 1 <= len(peers) <= VOTER_COUNT_MAX:
        raise ValueError(f"must name 1 to {VOTER_COUNT_MAX} nodes as ID=HOST:PEERPORT,...")
    return peers


def parse_addresses(value: object) -> tuple[Address, ...]:
    """Parse HOST:PORT,... or, from a file, a list of "HOST:PORT"."""
    if isinstance(value, str):
        parts: list[object] = [part.strip() for part in value.split(",") if part.strip()]
    else:
        parts = list(value) if isinstance(value, list) else []
    addresses = tuple(dict.fromkeys(parse_address(part) for part in parts))
    if not 1 <= len(addresses) <= VOTER_COUNT_MAX or not all(each.port for each in addresses):
        raise ValueError(f"must be 1 to {VOTER_COUNT_MAX} of HOST:PORT,...")
    return addresses


def parse_discovery(value: object) -> DiscoveryChoice:
    """Parse gossip, static, dns://NAME:PORT, serf or serf://HOST:PORT."""
    backend, colon, rest = value.partition("://") if isinstance(value, str) else ("", "", "")
    if (backend in ("gossip", "static") and not colon) or value == "serf":
        return DiscoveryChoice(Backend(backend))
    if backend in ("dns", "serf") and colon:
        address = parse_address(rest)
        if address.port:
            return DiscoveryChoice(Backend(backend), *address)
    raise ValueError("must be gossip, static, dns://NAME:PORT, serf or serf://HOST:PORT")


def parse_bytes(value: object) -> int:
    """Parse a number of bytes: 1048576, 1MiB, "64 MiB"."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    match = re.fullmatch(r"(\d{1,30}) ?(|B|KiB|MiB|GiB)", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number of bytes, or one with KiB, MiB or GiB")
    unit = {"": 1, "B": 1, "KiB": KIB, "MiB": MIB, "GiB": GIB}[match[2]]
    return int(match[1]) * unit


def show_bytes(size: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if size >= unit and size % unit == 0:
            return f"{size // unit}{name}"
    return str(size)


def parse_number(value: object) -> int:
    """Parse a whole number, not negative."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    is_number = isinstance(value, str) and len(value) <= NUMBER_LENGTH_MAX and value.isdecimal()
    if not isinstance(value, str) or not is_number:
        raise ValueError("must be a whole number")
    return int(value)


def parse_seconds(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("must be a number of seconds")
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        seconds = math.nan
    if not math.isfinite(seconds):
        raise ValueError("must be a number of seconds")
    return seconds


def parse_switch(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if value in ("true", "false"):
        return value == "true"
    raise ValueError("must be true or false")


def parse_text(value: object) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("must be a text that is not empty, without zero bytes")
    return value


class LogLevels(NamedTuple):
    """The least severity that is logged: of everything, and of single packages."""

    level: str = "info"
    packages: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        return ",".join([self.level, *(f"{name}={level}" for name, level in self.packages)])


def parse_log_levels(value: object) -> LogLevels:
    """Parse LEVEL, PACKAGE=LEVEL or several of these with commas between them."""
    if not isinstance(value, str):
        raise ValueError(LOG_LEVELS_WANTED)
    everything, packages = LogLevels().level, {}
    for part in value.split(","):
        name, _, level = part.strip().rpartition("=")
        if level not in LOG_LEVELS_KNOWN or (name and not LOGGER.fullmatch(name)):
            raise ValueError(LOG_LEVELS_WANTED)
        if name:
            packages[name] = level
        else:
            everything = level
    return LogLevels(everything, tuple(packages.items()))


def parse_address_or_none(value: object) -> Address | None:
    return None if value == "none" else parse_address(value)


def parse_peer_name(value: object) -> str:
    """Parse KIND:TEXT, with {node} for the node's id, or any."""
    if isinstance(value, str) and (value == "any" or PEER_NAME.fullmatch(value)):
        return value
    raise ValueError("must be URI:, DNS:, EMAIL:, OU: or CN: and a name, or any")


def parse_names(value: object) -> tuple[str, ...]:
    """Parse NAME,... or, from a file, a list of names."""
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
        raise ValueError("must be NAME,...")
    names = tuple(dict.fromkeys(part.strip() for part in parts))
    if not 1 <= len(names) <= NAME_COUNT_MAX or not all(SUBJECT.fullmatch(name) for name in names):
        raise ValueError(f"must be 1 to {NAME_COUNT_MAX} names without blanks: NAME,...")
    return names


def one_of(*choices: str) -> Kind:
    def read(value: object) -> str:
        if value not in choices:
            raise ValueError(f"must be one of {', '.join(choices)}")
        return str(value)

    return Kind("|".join(choices), read)


NODE = Kind("ID", parse_node_id)
PATH = Kind("DIR", parse_text)
NAMES = Kind("NAME,...", parse_names, ",".join)
FILE = Kind("FILE", parse_text)
PROGRAM = Kind("PROGRAM", parse_text)
PEER_NAME_KIND = Kind("KIND:NAME|any", parse_peer_name)
ADDRESS = Kind("HOST:PORT", parse_address)
ADDRESS_OR_NONE = Kind(
    "HOST:PORT|none", parse_address_or_none, lambda address: str(address or "none")
)
LOG_LEVELS = Kind("LEVEL[,PACKAGE=LEVEL...]", parse_log_levels)
PEERS = Kind("ID=HOST:PEERPORT,...", parse_peers)
ADDRESSES = Kind("HOST:PORT,...", parse_addresses)
DISCOVERY = Kind("gossip|static|dns://NAME:PORT|serf|serf://HOST:PORT", parse_discovery)
BYTES = Kind("BYTES", parse_bytes, show_bytes)
NUMBER = Kind("NUMBER", parse_number)
SECONDS = Kind("SECONDS", parse_seconds, lambda seconds: f"{seconds:g}")
SWITCH = Kind("true|false", parse_switch, lambda switch: str(switch).lower())
