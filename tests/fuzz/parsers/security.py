"""The parsers of who somebody is and what he may do, and of the port for monitoring: certificates, keys, policies, requests by HTTP."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import h11

from distlog.cli.acl import read_rules
from distlog.consensus.commands import ChangePolicy, decode_entry
from distlog.consensus.policy_changes import check_change
from distlog.consensus.policy_codec import decode_change, encode_change
from distlog.errors import ConfigurationInvalid, EntryCorrupt, EntryUnknown
from distlog.monitoring.http import HttpLimits, HttpServer, _Connection, text_page
from distlog.runtime import SystemClock
from distlog.security.certificates import CLIENT, SERVER, TlsPaths, names_in, read_identity
from distlog.security.deciding import MODEL
from distlog.security.files import Content, Stamp
from distlog.security.issue import Authority
from distlog.security.peer_name import peer_name_problem
from distlog.security.policy import Action, Membership, Permission, Policy, Rule
from distlog.security.policy_file import PolicyFile
from distlog.security.subject import is_subject, subject_of
from tests.fuzz.parsers.files import GOLDEN
from tests.fuzz.parsers.parser import Change, Parser, any_text, changed_bytes, text_field

# --- Certificates and keys -----------------------------------------------------------------------

PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----\n(.*?)-----END \1-----\n?", re.S)
NOW = datetime(2026, 1, 31, tzinfo=UTC)
PATHS = TlsPaths("cert", "key", "ca")
CONSTRUCTED = 0x20


class MemoryFiles:
    """Files that are not on a disk."""

    def __init__(self, content: Mapping[str, bytes]) -> None:
        self._content = content

    def stamp(self, path: str) -> Stamp | None:
        return Stamp(1, 1, 1)

    def read(self, path: str) -> Content:
        return Content(self._content[path], is_world_readable=False)


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield tag and content of each element of DER, as far as it can be read."""
    position = 0
    while position + 2 <= len(data):
        tag, size = data[position], data[position + 1]
        position += 2
        if size & 0x80:
            count = size & 0x7F
            size = int.from_bytes(data[position : position + count], "big")
            position += count
        yield tag, data[position : position + size]
        position += size


def element(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    count = (size.bit_length() + 7) // 8
    return bytes((tag, 0x80 | count)) + size.to_bytes(count, "big") + content


def der_field(data: bytes, source: Random) -> bytes:
    """Change one element of DER, somewhere below, and have all sizes around it right."""
    parts = list(elements(data))
    if not parts:
        return changed_bytes(data, source)
    place = source.randrange(len(parts))
    tag, content = parts[place]
    kind = source.random()
    if tag & CONSTRUCTED and kind < 0.9:
        parts[place] = (tag, der_field(content, source))
    elif kind < 0.05:
        del parts[place]
    elif kind < 0.1:
        parts.insert(place, parts[place])
    elif kind < 0.2:
        parts[place] = (source.randrange(256), content)
    elif kind < 0.5:
        parts[place] = (tag, any_text(source).encode("utf-8", "replace"))
    else:
        parts[place] = (tag, changed_bytes(content, source))
    return b"".join(element(*part) for part in parts)


def pem_field(data: bytes, source: Random) -> bytes:
    """Change one element of one of the things that a PEM file holds."""
    found = list(PEM.finditer(data))
    chosen = source.choice(found)
    changed = base64.encodebytes(der_field(base64.b64decode(chosen[2]), source))
    text = b"-----BEGIN %b-----\n%b-----END %b-----\n" % (chosen[1], changed, chosen[1])
    return data[: chosen.start()] + text + data[chosen.end() :]


def certificate_parsers() -> list[Parser[bytes]]:
    end = NOW + timedelta(days=30)
    authority = Authority.new("ca", NOW, end)
    node = authority.node("n1", ["localhost", "127.0.0.1", "*.example"], NOW, end)
    ca = authority.issued.certificate
    good = {"cert": node.certificate, "key": node.key, "ca": ca}

    def read_as(name: str) -> Callable[[bytes], object]:
        def read(data: bytes) -> object:
            files = MemoryFiles({**good, name: data})
            return read_identity(PATHS, files, NOW.timestamp() + 60, (SERVER, CLIENT))

        return read

    match = PEM.search(node.certificate)
    assert match is not None
    der = base64.b64decode(match[2])
    return [
        *(
            Parser(f"{what} in PEM", examples, read_as(name), (ConfigurationInvalid,), pem_field, 5)
            for what, name, examples in (
                ("certificate", "cert", [node.certificate, node.certificate + ca]),
                ("key", "key", [node.key]),
                ("authorities", "ca", [ca, ca + ca]),
            )
        ),
        Parser("names in a certificate", [der], checked_names, (), der_field),
    ]


def checked_names(data: bytes) -> object:
    """Read the names of a certificate, and what they make of who shows it."""
    names = names_in(data)
    for template in ("URI:distlog://node/{node}", "DNS:{node}.example", "CN:{node}", "OU:nodes"):
        for node_id in (None, "n1"):
            problem = peer_name_problem(template, names, node_id)
            assert problem is None or problem.isprintable(), problem
    return names


def read_subject(data: bytes) -> str:
    """Take the names that gRPC has found in a certificate, one a line."""
    names = data.split(b"\n")
    context = {"x509_subject_alternative_name": names[:-1], "x509_common_name": names[-1:]}
    subject = subject_of(context)
    assert not subject or is_subject(subject), subject
    return subject


# --- Policies ------------------------------------------------------------------------------------

RULES: tuple[Rule, ...] = (
    Permission("alice", "orders-*", "produce"),
    Permission("admin", "*", "*"),
    Membership("bob", "writers"),
    Permission("writers", "bills", "consume"),
)
POLICY = "p, alice, orders-*, produce\n# a role\ng, bob, writers\np, admin, *, *\n"


def take_change(data: bytes) -> object:
    """Decode a change of the policy and do what a node does when it applies it: it must come to a result."""
    added, removed = decode_change(data, 0)
    refusal = check_change(Policy(RULES), ChangePolicy(added, removed))
    if refusal is None:
        Policy(RULES).changed(added, removed).concerning("alice")
    return refusal


def change_field(data: bytes, source: Random) -> bytes:
    """Change one text of one rule, or move a rule, and have the sizes right."""
    rules = [list(rule.row) for rule in RULES]
    row = source.choice(rules)
    row[source.randrange(1, len(row))] = any_text(source)
    if source.random() < 0.3:
        rules.append(source.choice(rules))
    try:
        changed = [
            Permission(*each[1:]) if each[0] == "p" else Membership(*each[1:]) for each in rules
        ]
        cut = source.randrange(len(changed) + 1)
        return encode_change(changed[:cut], changed[cut:])
    except UnicodeEncodeError:
        return changed_bytes(data, source)


def policy_parsers(directory: Path) -> list[Parser[Any]]:
    file = directory / "policy.csv"
    decisions = [("alice", "orders-1"), ("", "*"), ("bob", "bills")]

    def read_file(text: str) -> object:
        decider = PolicyFile(MemoryFiles({"p": encoded(text)}), "p").load()
        return [decider.decide(name, Action.PRODUCE, topic) for name, topic in decisions]

    def read_model(text: str) -> object:
        files = MemoryFiles({"p": POLICY.encode(), "m": encoded(text)})
        return PolicyFile(files, "p", "m").load()

    def read_for_command(text: str) -> object:
        file.write_bytes(encoded(text))
        return read_rules(str(file))

    change_line = text_field('\n,#"*')
    invalid = (ConfigurationInvalid,)
    broken = (EntryCorrupt, EntryUnknown)
    return [
        Parser("policy file", [POLICY], read_file, invalid, change_line, 3),
        Parser("rules of acl --file", [POLICY], read_for_command, invalid, change_line, 3),
        Parser("model of a policy", [MODEL], read_model, invalid, text_field("\n=,&|() "), 15),
        Parser(
            "entry with a policy",
            [(GOLDEN / "entry-policy").read_bytes()],
            decode_entry,
            broken,
            changed_bytes,
        ),
        Parser(
            "change of a policy",
            [encode_change(RULES, RULES[:1])],
            take_change,
            broken,
            change_field,
        ),
        Parser(
            "subject of a certificate",
            [b"alice\nCN=alice", b"distlog://node/n1\n"],
            read_subject,
            (),
            changed_names,
        ),
    ]


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def changed_names(data: bytes, source: Random) -> bytes:
    names = data.split(b"\n")
    names[source.randrange(len(names))] = any_text(source).encode("utf-8", "replace")
    return b"\n".join(names)


# --- HTTP ----------------------------------------------------------------------------------------

REQUEST = (
    b"GET /page?x=1 HTTP/1.1\r\nHost: n1\r\nAccept: text/plain\r\nConnection: keep-alive\r\n\r\n"
)


HEADERS = (
    b"Content-Length: -1",
    b"Content-Length: 0, 0",
    b"Transfer-Encoding: chunked",
    b"Expect: 100-continue",
    b"Upgrade: h2c",
    b"Connection: close",
    b"X: " + b"y" * 9000,
)


class FarEnd(asyncio.Transport):
    """Whoever asks: keeps what was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed, "nothing is written to a connection that was closed"
        self.written += data

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def get_write_buffer_size(self) -> int:
        # It has read what was answered.
        return 0

    def close(self) -> None:
        self.is_closed = True

    abort = close


def request_reader() -> Callable[[bytes], object]:
    """Return what gives a server a request, in two pieces, and looks at what it answers."""
    loop = asyncio.new_event_loop()
    server = HttpServer({"/page": lambda: text_page("a page")}, SystemClock(), HttpLimits())

    async def ask(data: bytes) -> list[int]:
        far_end, connection = FarEnd(), _Connection(server)
        connection.connection_made(far_end)
        middle = len(data) // 2
        for part in (data[:middle], data[middle:]):
            if part and not far_end.is_closed:
                connection.data_received(part)
        connection.connection_lost(None)
        if b"HEAD" in data:
            # An answer without its body can only be read by who knows which request it is for.
            assert not far_end.written or far_end.written.startswith(b"HTTP/1.1 ")
            return []
        return answers_in(far_end.written)

    return lambda data: loop.run_until_complete(ask(data))


def answers_in(data: bytes) -> list[int]:
    """Return the status of each answer.  Raises RemoteProtocolError if that is none."""
    found = []
    while data:
        reader = h11.Connection(h11.CLIENT)
        reader.send(h11.Request(method="GET", target="/", headers=[("host", "n1")]))
        reader.send(h11.EndOfMessage())
        reader.receive_data(data)
        while (event := reader.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Response):
                found.append(event.status_code)
            if isinstance(event, h11.EndOfMessage):
                break
        data = reader.trailing_data[0]
    return found


def header_field(data: bytes, source: Random) -> bytes:
    """Change a word of a request's head, or add one that matters."""
    if source.random() < 0.3:
        more = source.choice(HEADERS)
        return data[:-2] + more + b"\r\n\r\n"
    change: Change[str] = text_field(" \r\n:/?")
    return change(data.decode("latin-1"), source).encode("latin-1", "replace")


def http_parsers() -> list[Parser[bytes]]:
    head = REQUEST.replace(b"GET", b"HEAD")
    return [
        Parser("request by HTTP", [REQUEST, head, REQUEST * 2], request_reader(), (), header_field)
    ]


def security_parsers(directory: Path) -> list[Parser[Any]]:
    return [*certificate_parsers(), *policy_parsers(directory), *http_parsers()]
