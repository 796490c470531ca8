"""The SDK of OpenTelemetry as a node uses it: it is the extra `distlog[otel]`, and loaded only where traces are asked for."""

from __future__ import annotations

import sys

from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SpanExporter

from distlog import __version__
from distlog.runtime import Worker
from distlog.tracing.asked import CONSOLE, Asked
from distlog.tracing.counts import SpanCounts
from distlog.tracing.export_queue import ExportQueue
from distlog.tracing.recording import tracer_of
from distlog.tracing.spans import Tracer


class Exporting:
    """The tracer of a node, and the way of its spans out of it."""

    def __init__(self, limits: Asked, node_id: str, worker: Worker) -> None:
        """Must be called with the loop running.  Raises ValueError for an endpoint or a file that is none."""
        self.counts = SpanCounts(waiting_max=limits.queue_size)
        self._queue = ExportQueue(exporter_of(limits), worker, limits, self.counts)
        # The sampler, and the limits of a span, it takes from the standard variables.
        provider = TracerProvider(resource=resource_of(node_id), shutdown_on_exit=False)
        provider.add_span_processor(self._queue)
        self.tracer: Tracer = tracer_of(provider)

    async def stop(self, timeout_s: float) -> None:
        """Send what waits, within a time."""
        await self._queue.stop(timeout_s)


def exporter_of(limits: Asked) -> SpanExporter:
    """Return the exporter that is asked for."""
    if limits.exporter == CONSOLE:
        # A line a span, between the lines of the log.
        return ConsoleSpanExporter(
            out=sys.stdout, formatter=lambda span: span.to_json(indent=None) + "\n"
        )
    # Only now: it brings an HTTP client.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()


def resource_of(node_id: str) -> Resource:
    """Return who records: this node, unless the standard variables say it in other words."""
    own = Resource.create(
        {
            "service.name": "distlog",
            "service.instance.id": node_id,
            "service.version": __version__,
        }
    )
    return own.merge(OTELResourceDetector().detect())
