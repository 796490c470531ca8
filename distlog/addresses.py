"""Addresses as nodes tell them to each other and as logs show them: HOST:PORT, [HOST]:PORT where the host is an IPv6 address."""

from __future__ import annotations

# Longer numbers are no ports, and some are too long to be read at all.
PORT_LENGTH_MAX = 5


def address_text(host: str, port: int) -> str:
    """Return host and port as one text."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def host_and_port(text: str) -> tuple[str, int] | None:
    """Return host and port of what a node says of itself; None if that is no address."""
    host, colon, port = text.rpartition(":")
    is_number = len(port) <= PORT_LENGTH_MAX and port.isdecimal()
    if not colon or not host or not is_number or not 0 < int(port) <= 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)
