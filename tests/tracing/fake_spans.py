"""A tracer that writes down what it is asked to do, for parts that need no SDK."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from distlog.tracing.spans import NO_ATTRIBUTES, Attributes, Kind, Metadata, Parent, Span


class FakeSpan:
    """One span: what it is called, and how it ended; None: it has not."""

    def __init__(self, tracer: FakeTracer, name: str, parent: FakeSpan | None = None) -> None:
        self.name = name
        self.parent = parent
        self.problem: str | None = None
        self.links: list[Span] = []
        self._tracer = tracer
        self.number = len(tracer.spans)
        tracer.spans.append(self)

    def __repr__(self) -> str:
        return f"{self.name}: {'open' if self.problem is None else self.problem or 'fine'}"

    @property
    def context(self) -> bytes:
        return self.number.to_bytes(24) + b"\x01"

    @property
    def traceparent(self) -> str:
        return str(self.number)

    @property
    def metadata(self) -> Metadata:
        return ()

    @property
    def ids(self) -> tuple[str, str]:
        return "a trace", str(self.number)

    def child(
        self, name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes = NO_ATTRIBUTES
    ) -> FakeSpan:
        return FakeSpan(self._tracer, name, self)

    def then(self, name: str) -> None:
        self.child(name)

    def note(self, attributes: Attributes) -> None:
        return

    def event(self, name: str, attributes: Attributes = NO_ATTRIBUTES) -> None:
        return

    def link(self, other: Span) -> None:
        self.links.append(other)

    def end(self, problem: str = "") -> None:
        assert self.problem is None, f"{self.name} has ended already"
        self.problem = problem


class FakeTracer:
    """Samples everything."""

    is_on = True

    def __init__(self) -> None:
        self.spans: list[FakeSpan] = []

    def begin(
        self, name: str, kind: Kind, parent: Parent | None, attributes: Attributes
    ) -> FakeSpan:
        return FakeSpan(self, name)

    def go_on(self, context: bytes, name: str, kind: Kind, attributes: Attributes) -> FakeSpan:
        return FakeSpan(self, name)

    def parent_here(self) -> Parent | None:
        return None

    def parent_in(self, metadata: Iterable[tuple[str, Any]]) -> Parent | None:
        return None

    def parent_of(self, traceparent: str) -> Parent | None:
        return None

    def named(self, name: str) -> list[str | None]:
        """Return how the spans of a name have ended."""
        return [span.problem for span in self.spans if span.name == name]

    @property
    def open(self) -> list[FakeSpan]:
        return [span for span in self.spans if span.problem is None]
