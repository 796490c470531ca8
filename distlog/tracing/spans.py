"""What the parts of a node and of a client call to have something traced, and what they have when nothing is.

A part asks `is_on` once for each request, and keeps the span that it gets, or None: then there is nothing to trace of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from enum import Enum
from types import MappingProxyType
from typing import Any, Protocol

# A context as one node tells it another: 16 bytes of trace id, 8 of span id, one of flags, as in a W3C traceparent.
CONTEXT_SIZE = 25

Attributes = Mapping[str, str | int | bool]
NO_ATTRIBUTES: Attributes = MappingProxyType({})
# What a span may be a child of, as its tracer has it.
Parent = Any
Metadata = tuple[tuple[str, str], ...]


class Kind(Enum):
    """Which end of what a span is."""

    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"


class Span(Protocol):
    """Something that takes time and is recorded.  Ended once; what is said of it afterwards is not recorded."""

    @property
    def context(self) -> bytes:
        """Return what a node needs to go on with the trace, in CONTEXT_SIZE bytes."""

    @property
    def traceparent(self) -> str:
        """Return the same as W3C has it."""

    @property
    def metadata(self) -> Metadata:
        """Return the same as metadata of a call."""

    @property
    def ids(self) -> tuple[str, str]:
        """Return trace id and span id, in hexadecimal."""

    def child(
        self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes = NO_ATTRIBUTES
    ) -> Span:
        """Begin a part of it."""

    def then(self, name: str) -> None:
        """Begin its last part, which ends with it."""

    def note(self, attributes: Attributes) -> None:
        """Say more of it."""

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        """Say that something happened now."""

    def link(self, other: Span) -> None:
        """Point to a span of another trace that it shares its work with."""

    def end(self, problem: str = "") -> None:
        """It is over.  problem: a word of a known few, never a text that may quote a record; "": it went well."""


class Tracer(Protocol):
    """Begins spans of one node or client."""

    @property
    def is_on(self) -> bool:
        """Tell whether anything is ever recorded."""

    def begin(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Attributes
    ) -> Span | None:
        """Begin a span; without a parent it begins a trace.  None: it is not sampled."""

    def go_on(self, context: bytes, name: str, kind: Kind, attributes: Attributes) -> Span | None:
        """Begin a span of a trace that another node has told of; None: it is not sampled, or that is no context."""

    def parent_here(self) -> Parent | None:
        """Return the span within which the caller runs, as its program has it; None: there is none."""

    def parent_in(self, metadata: Iterable[tuple[str, Any]]) -> Parent | None:
        """Return what the metadata of a call say that it is part of; None: nothing, or nonsense."""

    def parent_of(self, traceparent: str) -> Parent | None:
        """Return what a request itself says that it is part of; None: nothing, or nonsense."""


class NoTracer:
    """Records nothing."""

    is_on = False

    def begin(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Attributes
    ) -> Span | None:
        return None

    def go_on(self, context: bytes, name: str, kind: Kind, attributes: Attributes) -> Span | None:
        return None

    def parent_here(self) -> Parent | None:
        return None

    def parent_in(self, metadata: Iterable[tuple[str, Any]]) -> Parent | None:
        return None

    def parent_of(self, traceparent: str) -> Parent | None:
        return None


NO_TRACER = NoTracer()

# The span of the call that is served now, for its handler and for the lines that are logged meanwhile.
SERVED: ContextVar[Span | None] = ContextVar("served", default=None)
