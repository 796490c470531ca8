"""Bytes of records in JSON, which has only text."""

from __future__ import annotations

import base64


def text_fields(name: str, content: bytes) -> dict[str, str]:
    """Return bytes under `name` if they are UTF-8, otherwise under `name_base64`."""
    try:
        return {name: content.decode("utf-8")}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(content).decode("ascii")}
