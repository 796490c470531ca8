"""One ProduceBatch call: the blocks of a window go out in order, each answer belongs to the oldest one in flight.

It ends once, with an error, and says nothing about what to do next: that is the producer's part.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import read_error, write_error
from distlog.client.linger import Linger
from distlog.client.patience import Patience
from distlog.client.routing import CONNECT_TIMEOUT_S, Node
from distlog.client.window import Window
from distlog.errors import DistlogError, OutcomeUnknown, Unreachable

# How long a block may stay in flight unanswered before another stream is tried.
ANSWER_TIMEOUT_S = 5.0


class ProduceStream:
    """A writer and a reader on one call."""

    def __init__(
        self,
        node: Node,
        window: Window,
        linger: Linger,
        acknowledge: Callable[[log_pb2.ProduceBatchResponse], None],
        answer_timeout_s: float,
    ) -> None:
        """acknowledge: takes each answer, removes the oldest block in flight from the window, or raises what the answer says, or
        AnswerInvalid.
        """
        self._address = node.address
        self._call: Any = node.produce_batch()
        self._window = window
        self._linger = linger
        self._acknowledge = acknowledge
        self._answer_timeout_s = answer_timeout_s
        self._patience = Patience(
            answer_timeout_s,
            progress=lambda: window.first_sequence,
            is_waiting=lambda: window.in_flight_count > 0,
            cut=self._call.cancel,
        )

    async def run(self) -> DistlogError:
        """Use the stream until it ends.  Return why: OutcomeUnknown unless the node said, or it never was open."""
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self._call.wait_for_connection()
        except TimeoutError:
            return Unreachable(self._address, "it does not accept the connection")
        except grpc.aio.AioRpcError as failure:
            # Nothing was sent yet.
            return read_error(failure, self._address)
        else:
            return await self._exchange()
        finally:
            self._call.cancel()

    async def _exchange(self) -> DistlogError:
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(self._write())
            error = await self._read()
            writing.cancel()
        return error

    async def _write(self) -> None:
        try:
            while True:
                if self._linger.is_over and self._window.may_cut:
                    self._window.cut()
                block = self._window.take_next()
                if block is None:
                    await self._linger.wait()
                    continue
                self._patience.watch()
                if block.span is not None:
                    block.span.event("sent", {"server.address": self._address})
                await self._call.write(block.request)
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError):
            # The call is over; the reader is told why.
            return

    async def _read(self) -> DistlogError:
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self._acknowledge(answer)
        except asyncio.CancelledError:
            if not self._patience.ran_out():
                raise
            return OutcomeUnknown(
                cause=f"{self._address}: no answer within {self._answer_timeout_s:g} s"
            )
        except grpc.aio.AioRpcError as failure:
            return write_error(failure, self._address)
        except DistlogError as error:
            return error
        finally:
            self._patience.stop()
        return OutcomeUnknown(cause=f"{self._address}: it ended the stream")
