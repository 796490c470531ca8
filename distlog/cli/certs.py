"""Make certificates for trying things out: an authority, and what it signs for nodes, clients and health checks.

    DIR/ca.pem, ca.key   the authority; who has the key can sign anything, so it stays where it is made
    DIR/n1.pem, n1.key   of the node n1, and so on; and of each client; and of probe, for health checks

An authority that is in DIR already signs the new ones, so that clients can be added, and with --force what is there is made anew:
running nodes take it over by themselves. In earnest, take the authority that your organization has; docs/tls.md says what its
certificates must hold.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from distlog.config.kinds import parse_node_id
from distlog.errors import ConfigurationInvalid
from distlog.security.issue import Authority, Issued, general_name, subject_name

NODES, CLIENTS, PROBE, CA = "n1,n2,n3", "admin", "probe", "ca"
HOSTS = "localhost,127.0.0.1,::1"
DAYS, AUTHORITY_DAYS, DAYS_MAX = 365, 3650, 36500
NAME_COUNT_MAX = 100
DIRECTORY_MODE = 0o755
# A name is a file as well.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,62}")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is to be made."""
    parser.add_argument(
        "directory", metavar="DIR", help="where they are put; made if it is not there"
    )
    parser.add_argument(
        "--nodes",
        metavar="ID,...",
        default=NODES,
        help="ids of nodes (default %(default)s; '': none)",
    )
    parser.add_argument(
        "--clients",
        metavar="NAME,...",
        default=CLIENTS,
        help="names of clients, which are their subjects (default %(default)s; '': none)",
    )
    parser.add_argument(
        "--hosts",
        metavar="HOST,...",
        default=HOSTS,
        help="names and addresses at which the nodes are reached, in each of their certificates (default %(default)s)",
    )
    parser.add_argument(
        "--days",
        type=days,
        metavar="N",
        default=DAYS,
        help="how long they are valid; a new authority: ten years at least (default %(default)s)",
    )
    parser.add_argument(
        "--force", action="store_true", help="make those anew that are there; not the authority"
    )


def days(text: str) -> int:
    """Parse a number of days."""
    if text.isdecimal() and 0 < int(text) <= DAYS_MAX:
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number from 1 to {DAYS_MAX}, not {text!r}")


def run(namespace: argparse.Namespace) -> int:
    """Make them; return 0.  Raises ConfigurationInvalid before anything is written."""
    nodes = names("--nodes", namespace.nodes, parse_node_id)
    clients = names("--clients", namespace.clients, client_name)
    hosts = names("--hosts", namespace.hosts, host_name)
    wanted = [*nodes, *clients, PROBE]
    for name in wanted:
        if wanted.count(name) > 1 or name == CA:
            raise ConfigurationInvalid("--nodes and --clients", f"{name} would be made twice")
    directory = Path(namespace.directory)
    has_probe = (directory / f"{PROBE}.pem").exists()
    if has_probe and not namespace.force:
        # It is there for good, and nobody asked for another.
        wanted.remove(PROBE)
    if not namespace.force:
        refuse_to_overwrite(directory, wanted)
    begin = datetime.now(UTC)
    end = begin + timedelta(days=namespace.days)
    # Whoever may write here may put others in the place of keys.
    directory.mkdir(DIRECTORY_MODE, parents=True, exist_ok=True)
    authority = authority_in(directory, begin, namespace.days)
    made: dict[str, Issued] = {node: authority.node(node, hosts, begin, end) for node in nodes}
    made |= {name: authority.client(name, begin, end) for name in wanted if name not in made}
    for name, issued in made.items():
        put(directory, name, issued)
    for line in next_steps(directory, nodes, clients):
        print(line)
    return 0


def names(flag: str, text: str, read: Callable[[str], object]) -> list[str]:
    """Return the names that a flag lists.  Raises ConfigurationInvalid for one that cannot be: read(name) raises ValueError."""
    found = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    if len(found) > NAME_COUNT_MAX:
        raise ConfigurationInvalid(flag, f"names {len(found)}, and {NAME_COUNT_MAX} is the limit")
    for each in found:
        try:
            read(each)
        except ValueError as error:
            raise ConfigurationInvalid(flag, f"{error}, not {each!r}") from None
    return found


def client_name(text: str) -> None:
    """Raise ValueError for what is no name of a client."""
    if not NAME.fullmatch(text):
        raise ValueError("must be 1 to 63 of A-Z a-z 0-9 . _ @ - and begin with a letter or digit")
    try:
        subject_name(text)
    except ValueError:
        raise ValueError("must be names, or addresses of e-mail") from None


def host_name(text: str) -> None:
    """Raise ValueError for what is no host."""
    try:
        general_name(text)
    except ValueError:
        raise ValueError("must be names or addresses of hosts") from None


def refuse_to_overwrite(directory: Path, wanted: list[str]) -> None:
    for name in wanted:
        for path in (directory / f"{name}.pem", directory / f"{name}.key"):
            if path.exists():
                problem = "is there already: --force makes those anew that are there, signed by the same authority"
                raise ConfigurationInvalid(str(path), problem)


def authority_in(directory: Path, begin: datetime, day_count: int) -> Authority:
    """Return the authority of a directory, made if it has none.  Raises ConfigurationInvalid if half of one is there, or an old one."""
    certificate, key = directory / f"{CA}.pem", directory / f"{CA}.key"
    if not certificate.exists() and not key.exists():
        end = begin + timedelta(days=max(AUTHORITY_DAYS, day_count))
        authority = Authority.new("distlog development CA", begin, end)
        put(directory, CA, authority.issued)
        return authority
    try:
        authority = Authority.from_pem(certificate.read_bytes(), key.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        problem = getattr(error, "strerror", None) or "it is no authority that distlog has made"
        raise ConfigurationInvalid(
            str(certificate), f"and its key cannot be used: {problem}; take another directory"
        ) from None
    if authority.end <= begin:
        problem = f"expired at {authority.end.isoformat()}: take another directory"
        raise ConfigurationInvalid(str(certificate), problem)
    return authority


def put(directory: Path, name: str, issued: Issued) -> None:
    """Write a key and its certificate, each whole or not at all; nobody else may read the key."""
    for suffix, content, mode in ((".key", issued.key, 0o600), (".pem", issued.certificate, 0o644)):
        path, new = directory / f"{name}{suffix}", directory / f".{name}{suffix}.new"
        with contextlib.suppress(FileNotFoundError):
            new.unlink()
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        new.replace(path)


def next_steps(directory: Path, nodes: list[str], clients: list[str]) -> list[str]:
    """Say what was made, and what to type next."""

    def flags(name: str) -> str:
        return f"--tls-ca {directory}/{CA}.pem --tls-cert {directory}/{name}.pem --tls-key {directory}/{name}.key"

    lines = [
        f"{directory}: certificates of {', '.join([*nodes, *clients, PROBE])}, and their authority"
    ]
    if nodes:
        lines.append(f"a node:    distlog serve --node-id {nodes[0]} {flags(nodes[0])}")
    lines.append(f"a client:  distlog cluster status {flags(clients[0] if clients else PROBE)}")
    settings: Mapping[str, str] = (
        {"CA": CA, "CERT": clients[0], "KEY": clients[0]} if clients else {}
    )
    if settings:
        text = " ".join(
            f"DISTLOG_TLS_{name}={directory}/{of}.{'key' if name == 'KEY' else 'pem'}"
            for name, of in settings.items()
        )
        lines.append(f"or once:   export {text}")
    return lines
