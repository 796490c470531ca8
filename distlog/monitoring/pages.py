"""The pages of the port for monitoring: /metrics, /livez, /readyz and /status."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any, Protocol

from distlog.consensus.views import NodeStatus, Standing
from distlog.monitoring.http import JSON, Page, text_page

UNAVAILABLE = 503
# Not for strangers: they name topics, nodes and addresses.  Probes have no certificate, and need no more than the other two.
GUARDED = frozenset({"/metrics", "/status"})


class Shown(Protocol):
    """The node that the pages are of."""

    def standing(self) -> Standing:
        """Say whether it serves its clients."""

    def status(self) -> NodeStatus:
        """Describe it."""

    @property
    def failure(self) -> str:
        """Why it cannot go on, in words; "": it can."""

    def extras(self) -> dict[str, Any]:
        """Return what else /status has of it, as JSON has it."""


def pages_of(
    node: Shown, exposition: Callable[[], tuple[bytes, str]]
) -> dict[str, Callable[[], Page]]:
    """Return what makes the pages of a node.

    exposition(): the metrics, and the media type that they are written in.
    """
    return {
        "/livez": lambda: livez(node),
        "/readyz": lambda: readyz(node),
        "/metrics": lambda: _metrics(exposition),
        "/status": lambda: status(node),
    }


def livez(node: Shown) -> Page:
    """Say whether the process should go on: that it answers at all says that its event loop runs."""
    if node.failure:
        return text_page(f"not alive: this node stops, since {node.failure}", UNAVAILABLE)
    return text_page("alive")


def readyz(node: Shown) -> Page:
    """Say whether the node serves its clients, and if not, why."""
    if node.failure:
        return text_page(f"not ready: this node stops, since {node.failure}", UNAVAILABLE)
    standing = node.standing()
    return text_page(standing.text, 200 if standing.is_ready else UNAVAILABLE)


def status(node: Shown) -> Page:
    """Return all that the node knows of itself and of the others, without asking anybody."""
    standing = node.standing()
    shown = {
        "ready": standing.is_ready and not node.failure,
        "state": standing.state,
        "problem": node.failure or standing.problem,
        **dataclasses.asdict(node.status()),
        **node.extras(),
    }
    return Page(json.dumps(shown, indent=2).encode() + b"\n", content_type=JSON)


def _metrics(exposition: Callable[[], tuple[bytes, str]]) -> Page:
    body, content_type = exposition()
    return Page(body, content_type=content_type)
