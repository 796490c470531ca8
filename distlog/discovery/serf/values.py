"""What the agent answers, as values.  Every `*_of` raises AnswerMalformed for what no agent sends."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from distlog.discovery.serf.wire import AnswerMalformed, text_of


class AgentStatus(StrEnum):
    """What a member is to the agent."""

    NONE = "none"
    ALIVE = "alive"
    # It has said good-bye, and the word is still on its way.
    LEAVING = "leaving"
    LEFT = "left"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class AgentMember:
    """A member of the gossip, whatever program it belongs to.  `host` is empty when the agent knows no address."""

    name: str
    host: str
    port: int
    tags: Mapping[str, str]
    status: AgentStatus


@dataclass(frozen=True, slots=True)
class MemberEvent:
    """member-join, -leave, -failed, -update or -reap of some members.  It may come late, twice, or never."""

    kind: str
    members: tuple[AgentMember, ...]


@dataclass(frozen=True, slots=True)
class UserEvent:
    name: str
    payload: bytes
    # Lamport time.
    time: int
    is_coalesced: bool


@dataclass(frozen=True, slots=True)
class QueryReceived:
    """Somebody's query, to be answered with `respond`."""

    number: int
    name: str
    payload: bytes
    time: int


@dataclass(frozen=True, slots=True)
class QueryAcknowledged:
    member: str


@dataclass(frozen=True, slots=True)
class QueryAnswered:
    member: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of the agent's own log."""

    text: str


@dataclass(frozen=True, slots=True)
class Dropped:
    """Stands where `count` records were, which the reader was too slow for."""

    count: int


Record = (
    MemberEvent | UserEvent | QueryReceived | QueryAcknowledged | QueryAnswered | LogLine | Dropped
)


@dataclass(frozen=True, slots=True)
class KeyAnswer:
    """What the members said to a change, or a listing, of encryption keys.  It never shows a key by itself."""

    node_count: int
    answer_count: int
    error_count: int
    # What went wrong, by member.
    problems: Mapping[str, str]
    # By key: how many members have it.  Not part of `repr`, so that no log shows it by mistake.
    counts: Mapping[str, int]

    def __repr__(self) -> str:
        return f"KeyAnswer({self.answer_count} of {self.node_count} answered, {self.error_count} with an error)"


@dataclass(frozen=True, slots=True)
class Coordinate:
    """Where a member is in the network, for estimates of round trips (seconds)."""

    vector: tuple[float, ...]
    height: float
    error: float
    adjustment: float


class Fields:
    """The fields of a map, each read as what it must be."""

    def __init__(self, raw: object) -> None:
        if not isinstance(raw, dict):
            raise AnswerMalformed(f"a {type(raw).__name__} where a map belongs")
        self._raw: dict[bytes, Any] = raw

    def __contains__(self, name: str) -> bool:
        return name.encode() in self._raw

    def value(self, name: str) -> Any:
        try:
            return self._raw[name.encode()]
        except KeyError:
            raise AnswerMalformed(f"a map without {name}") from None

    def text(self, name: str) -> str:
        return text_of(self.value(name))

    def octets(self, name: str) -> bytes:
        """Return bytes; the agent sends nil for none."""
        value = self.value(name)
        if value is None:
            return b""
        if not isinstance(value, bytes):
            raise AnswerMalformed(f"{name} that is no bytes")
        return value

    def count(self, name: str) -> int:
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise AnswerMalformed(f"{name} that is no count")
        return value

    def switch(self, name: str) -> bool:
        value = self.value(name)
        if not isinstance(value, bool):
            raise AnswerMalformed(f"{name} that is neither true nor false")
        return value

    def number(self, name: str) -> float:
        return _number(self.value(name))

    def items(self, name: str) -> list[Any]:
        value = self.value(name)
        if value is None:
            return []
        if not isinstance(value, list):
            raise AnswerMalformed(f"{name} that is no list")
        return value

    def map(self, name: str) -> dict[str, Any]:
        """Return a map by text; the agent sends nil for an empty one."""
        value = self.value(name)
        if value is None:
            return {}
        return {text_of(key): each for key, each in Fields(value)._raw.items()}

    def texts(self, name: str) -> dict[str, str]:
        return {key: text_of(value) for key, value in self.map(name).items()}


def members_of(body: object) -> list[AgentMember]:
    return [_member(raw) for raw in Fields(body).items("Members")]


def _member(raw: object) -> AgentMember:
    fields = Fields(raw)
    try:
        status = AgentStatus(fields.text("Status"))
    except ValueError:
        raise AnswerMalformed("a member with a status that there is not") from None
    return AgentMember(
        name=fields.text("Name"),
        host=_host(fields.octets("Addr")),
        port=fields.count("Port"),
        tags=fields.texts("Tags"),
        status=status,
    )


def _host(raw: bytes) -> str:
    """Return the address of 4 or 16 bytes, an IPv4 one also where it is written as an IPv6 one."""
    if not raw:
        return ""
    try:
        address = ipaddress.ip_address(raw)
    except ValueError:
        raise AnswerMalformed(f"an address of {len(raw)} bytes") from None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def record_of(body: object) -> Record | None:
    """Return a record of a stream, of a monitor or of a query; None: the query is over."""
    fields = Fields(body)
    if "Log" in fields:
        return LogLine(fields.text("Log"))
    if "Type" in fields:
        return _query_record(fields)
    kind = fields.text("Event")
    if kind.startswith("member-"):
        return MemberEvent(kind, tuple(members_of(body)))
    if kind == "user":
        return UserEvent(
            name=fields.text("Name"),
            payload=fields.octets("Payload"),
            time=fields.count("LTime"),
            is_coalesced=fields.switch("Coalesce"),
        )
    if kind == "query":
        return QueryReceived(
            number=fields.count("ID"),
            name=fields.text("Name"),
            payload=fields.octets("Payload"),
            time=fields.count("LTime"),
        )
    raise AnswerMalformed("an event that there is not")


def _query_record(fields: Fields) -> Record | None:
    kind = fields.text("Type")
    if kind == "done":
        return None
    if kind == "ack":
        return QueryAcknowledged(fields.text("From"))
    if kind == "response":
        return QueryAnswered(fields.text("From"), fields.octets("Payload"))
    raise AnswerMalformed("an answer to a query of a kind that there is not")


def key_answer_of(body: object) -> KeyAnswer:
    fields = Fields(body)
    counts = fields.map("Keys")
    for count in counts.values():
        if not isinstance(count, int):
            raise AnswerMalformed("a key with a count that is none")
    return KeyAnswer(
        node_count=fields.count("NumNodes"),
        answer_count=fields.count("NumResp"),
        error_count=fields.count("NumErr"),
        problems=fields.texts("Messages"),
        counts=counts,
    )


def stats_of(body: object) -> dict[str, dict[str, str]]:
    groups = Fields({b"": body}).map("")
    return {name: Fields({b"": group}).texts("") for name, group in groups.items()}


def coordinate_of(body: object) -> Coordinate | None:
    """Return where a member is; None if the agent does not know."""
    fields = Fields(body)
    if not fields.switch("Ok"):
        return None
    coordinate = Fields(fields.value("Coord"))
    return Coordinate(
        vector=tuple(_number(each) for each in coordinate.items("Vec")),
        height=coordinate.number("Height"),
        error=coordinate.number("Error"),
        adjustment=coordinate.number("Adjustment"),
    )


def _number(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise AnswerMalformed("a number that is none")
    return float(value)
