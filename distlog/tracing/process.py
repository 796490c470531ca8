"""The tracing of a process that is a node: on if the standard variables ask for it, and if it can be.

Nothing about traces keeps a node from its work: what cannot be is one warning at the start, and the node runs without them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from distlog.runtime import Worker
from distlog.tracing.asked import NONE, asked
from distlog.tracing.counts import SpanCounts
from distlog.tracing.spans import NO_TRACER, Tracer

logger = logging.getLogger(__name__)

EXTRA = "distlog[otel]"


class ProcessTracing:
    """What a node is given of it."""

    def __init__(
        self, environ: Mapping[str, str], node_id: str, make_worker: Callable[[str], Worker]
    ) -> None:
        """Begin, if the variables say so.  Must be called with the loop running."""
        self.tracer: Tracer = NO_TRACER
        # None: nothing is traced.
        self.counts: SpanCounts | None = None
        try:
            limits = asked(environ)
        except ValueError as error:
            logger.warning("nothing is traced: correct or unset the variable problem=%s", error)
            return
        if limits.exporter == NONE:
            return
        try:
            # Only now: who asks for no traces need not have it, and does not load it.
            from distlog.tracing.exporting import Exporting

            self._exporting = Exporting(limits, node_id, make_worker(f"{node_id}-traces"))
        except ImportError as error:
            logger.warning(
                "nothing is traced: pip install '%s', or unset the variable problem=%s asks for it, and this installation has no %s",
                EXTRA,
                limits.variable,
                error.name,
            )
            return
        except Exception as error:
            # Of a library: what it does not like of the variables that it reads itself.
            logger.warning("nothing is traced: correct or unset the variable problem=%s", error)
            return
        self.tracer, self.counts = self._exporting.tracer, self._exporting.counts
        logger.info(
            "traces are exported exporter=%s queue_size=%s", limits.exporter, limits.queue_size
        )

    async def stop(self, timeout_s: float) -> None:
        """Send what waits, within a time."""
        if self.counts is not None:
            await self._exporting.stop(timeout_s)
