"""Addresses as nodes tell them to each other and as logs show them: HOST:PORT, [HOST]:PORT where the host is an IPv6 address."""

from __future__ import annotations

import ipaddress

PORT_MAX = 65535
# Longer numbers are no ports, and some are too long to be read at all.
PORT_LENGTH_MAX = 5


def address_text(host: str, port: int) -> str:
    """Return host and port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def split_address(text: str) -> tuple[str, int] | None:
    """Return host, with its brackets, and port, 0 to 65535; None if that is no address."""
    host, _, port = text.rpartition(":")
    is_number = len(port) <= PORT_LENGTH_MAX and port.isdecimal()
    if not host or not is_number or int(port) > PORT_MAX:
        return None
    return host, int(port)


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return host and port of what a node says of itself; None if that is no address."""
    host, port = split_address(text) or ("", 0)
    return (host.removeprefix("[").removesuffix("]"), port) if port else None


def is_loopback(host: str) -> bool:
    """Tell whether `host` can be reached from this machine only.  A name, other than localhost, proves nothing."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
