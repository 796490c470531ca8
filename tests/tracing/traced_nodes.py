"""Three real nodes in one process, each with the SDK's tracer of its own, and what they all have recorded together."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from opentelemetry.trace import format_trace_id

from distlog.client import Client
from distlog.node import Node
from distlog.node_settings import NodeSettings
from distlog.serve import real_ports
from distlog.server.listen import Listener
from distlog.tracing.recording import tracer_of
from tests.processes.process_cluster import NODE_IDS, free_ports, random_host, until

CLIENT = "client"
SAMPLES_ALL = ParentBased(ALWAYS_ON)


class Traced:
    """A cluster, a client of it, and the spans of both."""

    def __init__(self, directory: Path, sampler: Sampler = SAMPLES_ALL) -> None:
        self._sampler = sampler
        self.directory = directory
        self.exporter = InMemorySpanExporter()
        self.nodes: dict[str, Node] = {}
        self.listeners: dict[str, Listener] = {}
        self.addresses: dict[str, str] = {}

    def provider(self, name: str) -> TracerProvider:
        """Return a provider whose spans say that they are of `name`."""
        resource = Resource({"service.name": "distlog", "service.instance.id": name})
        made = TracerProvider(sampler=self._sampler, resource=resource, shutdown_on_exit=False)
        made.add_span_processor(SimpleSpanProcessor(self.exporter))
        return made

    async def start(self, names: Sequence[str] = NODE_IDS) -> None:
        host = random_host()
        ports = dict(zip(names, free_ports(host, len(names)), strict=True))
        for name in names:
            settings = NodeSettings(
                node_id=name,
                data_dir=str(self.directory / name),
                peer_listen=(host, ports[name]),
                peers={other: (host, port) for other, port in ports.items()},
                reserve_size=16 << 20,
            )
            tracer = tracer_of(self.provider(name))
            node = self.nodes[name] = Node(settings, replace(real_ports(), tracer=tracer))
            listener = self.listeners[name] = Listener(
                node.replicated_log,
                host="127.0.0.1",
                port=0,
                insecure=False,
                random_bytes=bytes,
                now=asyncio.get_running_loop().time,
                tracer=tracer,
            )
            self.addresses[name] = f"127.0.0.1:{await listener.start()}"
        for name, node in self.nodes.items():
            await node.start(self.addresses[name])

        async def led() -> bool:
            logs = [node.replicated_log for node in self.nodes.values()]
            return any(log.is_leader for log in logs) and all(log.has_leader for log in logs)

        await until(led, "one leads, and the others know")

    @property
    def leader(self) -> str:
        (name,) = [name for name, node in self.nodes.items() if node.replicated_log.is_leader]
        return name

    @property
    def followers(self) -> list[str]:
        return [name for name in self.nodes if name != self.leader]

    def client(self, *, is_traced: bool = True) -> Client:
        provider = self.provider(CLIENT) if is_traced else None
        return Client(list(self.addresses.values()), tracer_provider=provider)

    def spans(self) -> list[Spanned]:
        """Return what has ended so far, in the order of their beginnings."""
        found = [Spanned(span) for span in self.exporter.get_finished_spans()]
        return sorted(found, key=lambda span: span.began_at)

    async def until_there(self, condition: Callable[[list[Spanned]], bool]) -> list[Spanned]:
        """Return the spans when they are what a test waits for."""

        async def found() -> list[Spanned] | None:
            spans = self.spans()
            return spans if condition(spans) else None

        async def describe() -> str:
            return "\n" + "\n".join(map(str, self.spans()))

        return await until(found, "the spans are there", describe=describe)

    async def stop(self) -> None:
        for listener in self.listeners.values():
            await listener.stop(0)
        for node in self.nodes.values():
            await node.stop()


class Spanned:
    """A span, as a test speaks of it."""

    def __init__(self, span: ReadableSpan) -> None:
        assert span.context is not None
        assert span.start_time is not None
        self.name = span.name
        self.node = str(span.resource.attributes["service.instance.id"])
        self.trace_id = format_trace_id(span.context.trace_id)
        self.id = span.context.span_id
        self.parent_id = None if span.parent is None else span.parent.span_id
        self.began_at = span.start_time
        self.ended_at = span.end_time
        self.kind = span.kind.name
        self.attributes = dict(span.attributes or {})
        self.events = [event.name for event in span.events]
        self.links = [link.context.span_id for link in span.links]
        self.is_ok = span.status.is_ok

    @property
    def place(self) -> tuple[str, str]:
        return (self.node, self.name)

    def __str__(self) -> str:
        return f"{self.trace_id} {self.node}: {self.name} {self.attributes}"


def traces_of(spans: Iterable[Spanned]) -> dict[str, list[Spanned]]:
    """Return spans by their trace."""
    found: dict[str, list[Spanned]] = defaultdict(list)
    for span in spans:
        found[span.trace_id].append(span)
    return found


def tree_of(spans: Sequence[Spanned]) -> list[str]:
    """Return a trace as lines, each indented below what it is a part of.  Fails unless the trace is one tree."""
    known = {span.id for span in spans}
    assert len(known) == len(spans), "each span is recorded once"
    (root,) = [span for span in spans if span.parent_id is None]
    orphans = [str(span) for span in spans if span is not root and span.parent_id not in known]
    assert orphans == [], "every parent is in the trace"
    lines: list[str] = []

    def draw(span: Spanned, depth: int) -> None:
        lines.append(f"{'  ' * depth}{span.node} {span.name}")
        children = [each for each in spans if each.parent_id == span.id]
        for child in sorted(
            children, key=lambda each: (each.name, each.attributes.get("distlog.peer.id", ""))
        ):
            draw(child, depth + 1)

    draw(root, 0)
    assert len(lines) == len(spans), "and nothing goes round in a circle"
    return lines


@asynccontextmanager
async def traced_nodes(directory: Path, sampler: Sampler = SAMPLES_ALL) -> AsyncIterator[Traced]:
    """Run three nodes for as long as the body lasts."""
    made = Traced(directory, sampler)
    try:
        await made.start()
        yield made
    finally:
        await made.stop()
