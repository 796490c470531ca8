"""The way of spans out of a node: bounded, counted, and never in the way of the event loop or of a stop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import Tracer

from distlog.runtime import ThreadWorker
from distlog.tracing.asked import OTLP, Asked
from distlog.tracing.counts import SpanCounts
from distlog.tracing.export_queue import ExportQueue
from tests.processes.process_cluster import until

SOON_S = 0.001
NEVER_S = 3600.0


class Exporter(SpanExporter):
    """Takes spans when it may, and answers what a test says."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.batches: list[int] = []
        self.may_take = threading.Event()
        self.may_take.set()
        self.result: SpanExportResult | Exception = SpanExportResult.SUCCESS
        self.threads: set[int] = set()
        self.is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.threads.add(threading.get_ident())
        self.may_take.wait()
        self.batches.append(len(spans))
        self.names += [span.name for span in spans]
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def shutdown(self) -> None:
        self.is_shut_down = True
        self.may_take.set()


class Story:
    """A queue, what it sends to, and a tracer whose spans go there."""

    def __init__(self, **limits: float) -> None:
        self.exporter = Exporter()
        asked = Asked(OTLP, "", **{"delay_s": SOON_S, **limits})  # type: ignore[arg-type]
        self.counts = SpanCounts(waiting_max=asked.queue_size)
        self.queue = ExportQueue(self.exporter, ThreadWorker("traces"), asked, self.counts)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.queue)
        self.tracer: Tracer = provider.get_tracer("test")

    def spans(self, count: int) -> None:
        for number in range(count):
            self.tracer.start_span(f"{number}").end()

    async def sent(self, count: int) -> None:
        """Return when so many have come to the exporter, or have failed to."""

        async def are_sent() -> bool:
            return self.counts.exported + self.counts.failed >= count

        await until(are_sent, f"{count} spans have left the queue")


def run(story: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(30):
            await story()

    asyncio.run(bounded())


def test_spans_come_in_order_in_batches_by_one_thread_that_is_not_the_loops() -> None:
    async def story() -> None:
        told = Story(batch_size=10, queue_size=100)
        told.spans(35)
        await told.sent(35)
        assert told.exporter.names == [str(number) for number in range(35)]
        assert max(told.exporter.batches) == 10
        assert threading.get_ident() not in told.exporter.threads
        assert len(told.exporter.threads) == 1
        await told.queue.stop(1)
        assert told.counts == SpanCounts(exported=35, waiting_max=100)

    run(story)


def test_what_a_full_queue_drops_is_counted_and_the_rest_still_comes() -> None:
    async def story() -> None:
        told = Story(batch_size=5, queue_size=20)
        told.exporter.may_take.clear()
        told.spans(50)
        assert (told.counts.dropped, told.counts.waiting) == (30, 20)
        told.exporter.may_take.set()
        await told.sent(20)
        assert told.exporter.names == [str(number) for number in range(20)]
        told.spans(1)
        await told.sent(21)
        assert told.counts == SpanCounts(exported=21, dropped=30, waiting_max=20)
        await told.queue.stop(1)

    run(story)


def test_what_the_exporter_cannot_send_is_counted_and_it_is_tried_with_the_next() -> None:
    async def story() -> None:
        told = Story()
        for result in (SpanExportResult.FAILURE, RuntimeError("no collector")):
            told.exporter.result = result
            before = told.counts.failed
            told.spans(3)
            await told.sent(before + 3)
        told.exporter.result = SpanExportResult.SUCCESS
        told.spans(2)
        await told.sent(8)
        assert (told.counts.failed, told.counts.exported) == (6, 2)
        await told.queue.stop(1)

    run(story)


def test_a_stop_sends_what_waits() -> None:
    async def story() -> None:
        told = Story(delay_s=NEVER_S, batch_size=10)
        told.spans(25)
        await told.queue.stop(10)
        assert len(told.exporter.names) == 25
        assert told.exporter.is_shut_down
        told.spans(1)
        assert told.counts == SpanCounts(exported=25, dropped=1, waiting_max=2048)

    run(story)


def test_a_stop_waits_no_longer_than_its_time_for_a_collector_that_hangs() -> None:
    async def story() -> None:
        told = Story(delay_s=NEVER_S, batch_size=10)
        told.exporter.may_take.clear()
        told.spans(25)
        loop = asyncio.get_running_loop()
        began_at = loop.time()
        await told.queue.stop(0.05)
        assert loop.time() - began_at < 5
        assert told.exporter.is_shut_down
        # Ten are with the exporter.
        assert (told.counts.dropped, told.counts.waiting) == (15, 10)

    run(story)


def test_the_loop_goes_on_while_a_collector_hangs() -> None:
    async def story() -> None:
        told = Story(batch_size=1)
        told.exporter.may_take.clear()
        told.spans(10)
        for _ in range(100):
            await asyncio.sleep(0)
        assert told.exporter.names == []
        assert told.counts.waiting == 10
        told.exporter.may_take.set()
        await told.sent(10)
        await told.queue.stop(1)

    run(story)
