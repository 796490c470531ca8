"""Spans that are over, on their way to their exporter: on the event loop they only join a queue, which is full at its limit.

    on_end -> queue -> a batch, by one worker at a time -> exporter
                |                                              |
              dropped                                        failed

The SDK has such a processor, too.  It neither counts what it drops, nor does it end within a given time.
"""

from __future__ import annotations

import asyncio
from collections import deque

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from distlog.runtime import Worker
from distlog.tracing.asked import Asked
from distlog.tracing.counts import SpanCounts


class ExportQueue(SpanProcessor):
    """The queue of one node.  Spans end on its event loop; only the worker waits for the exporter."""

    def __init__(
        self, exporter: SpanExporter, worker: Worker, limits: Asked, counts: SpanCounts
    ) -> None:
        self._exporter = exporter
        self._worker = worker
        self._limits = limits
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[ReadableSpan] = deque()
        # The batch that is being sent, if any; and the timer of the next one.
        self._sending: asyncio.Future[SpanExportResult] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopping = False

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Do nothing: a span is sent when it has ended."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span, or drop it."""
        counts = self._counts
        if self._is_stopping or counts.waiting >= self._limits.queue_size:
            counts.dropped += 1
            return
        self._waiting.append(span)
        counts.waiting += 1
        if len(self._waiting) >= self._limits.batch_size:
            self._send()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._limits.delay_s, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        self._send()

    def _send(self) -> None:
        if self._sending is not None or not self._waiting:
            return
        count = min(len(self._waiting), self._limits.batch_size)
        batch = [self._waiting.popleft() for _ in range(count)]
        self._sending = self._worker.submit(self._exporter.export, batch)
        self._sending.add_done_callback(lambda sent: self._sent(sent, count))

    def _sent(self, sent: asyncio.Future[SpanExportResult], count: int) -> None:
        self._sending = None
        self._counts.waiting -= count
        is_sent = (
            not sent.cancelled()
            and sent.exception() is None
            and sent.result() is SpanExportResult.SUCCESS
        )
        if is_sent:
            self._counts.exported += count
        else:
            # The exporter has tried again for as long as it is told to, and has said why it gave up.
            self._counts.failed += count
        if self._is_stopping or len(self._waiting) >= self._limits.batch_size:
            self._send()
        elif self._waiting and self._timer is None:
            self._timer = self._loop.call_later(self._limits.delay_s, self._on_timer)

    async def stop(self, timeout_s: float) -> None:
        """Send what waits, within a time; drop the rest.

        An exporter that is being waited for is told to stop, and left to the end of the process.
        """
        self._is_stopping = True
        if self._timer is not None:
            self._timer.cancel()
        end = self._loop.time() + timeout_s
        self._send()
        while self._sending is not None and self._loop.time() < end:
            await asyncio.wait([self._sending], timeout=end - self._loop.time())
        is_idle = self._sending is None
        self._counts.dropped += len(self._waiting)
        self._counts.waiting -= len(self._waiting)
        self._waiting.clear()
        self._exporter.shutdown()
        if is_idle:
            self._worker.close()

    def shutdown(self) -> None:
        """Do nothing: `stop` does, with a limit."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Return that not everything is sent: the event loop is not held up for it."""
        return not self._counts.waiting
