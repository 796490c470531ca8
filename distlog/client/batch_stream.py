"""One ConsumeBatch call, read ahead: while the caller is busy with one batch the next ones arrive, up to a number of bytes.

It ends once, with an error, after the batches before it; what to do next is the consumer's part.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.client.attempts import read_error
from distlog.client.batches import Batch, batch_of
from distlog.client.patience import Patience
from distlog.client.routing import Node
from distlog.errors import Unreachable


class BatchStream:
    """A reader on one call, and the batches that it has read and nobody has taken."""

    def __init__(
        self,
        node: Node,
        request: log_pb2.ConsumeBatchRequest,
        *,
        end: int | None,
        prefetch_size: int,
        silence_max_s: float,
    ) -> None:
        """end: nothing is read from this offset on; None: for ever.

        prefetch_size: bytes that are held at most, or one batch.
        silence_max_s: how long the node may keep silent while somebody waits for a record before `end`.
        """
        self._address = node.address
        self._call: Any = node.consume_batch(request)
        # What the next batch holds, unless it has come already.
        self._next_offset = request.offset
        self._end = end
        self._prefetch_size = prefetch_size
        self._silence_max_s = silence_max_s
        self._batches: deque[Batch] = deque()
        # Bytes of their frames.
        self._size = 0
        # Why there will be no more; None while there may be.
        self._failure: BaseException | None = None
        # Set when there is a batch or a failure; when there is room for a batch.
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._is_waiting = False
        self._patience = Patience(
            silence_max_s,
            progress=lambda: self._next_offset,
            is_waiting=lambda: self._is_waiting,
            cut=self._call.cancel,
        )
        self._task = asyncio.create_task(self._read_all(), name=f"consume {node.address}")

    async def next(self) -> Batch:
        """Return the next batch; wait for it if it does not exist yet.  Raises how the stream ended."""
        while not self._batches:
            if self._failure is not None:
                raise self._failure
            if self._end is not None:
                self._patience.watch()
            self._ready.clear()
            self._is_waiting = True
            try:
                await self._ready.wait()
            finally:
                self._is_waiting = False
        batch = self._batches.popleft()
        self._size -= len(batch.frames)
        self._room.set()
        return batch

    def close(self) -> None:
        """End the call; what was read ahead is gone."""
        self._patience.stop()
        self._task.cancel()
        self._call.cancel()

    async def _read_all(self) -> None:
        try:
            while self._end is None or self._next_offset < self._end:
                while self._batches and self._size >= self._prefetch_size:
                    self._room.clear()
                    await self._room.wait()
                self._take(await self._call.read())
        except asyncio.CancelledError:
            if not self._patience.ran_out():
                raise
            problem = f"it did not send offset {self._next_offset} within {self._silence_max_s:g} s"
            self._failure = Unreachable(self._address, problem)
        except grpc.aio.AioRpcError as failure:
            self._failure = read_error(failure, self._address)
        except BaseException as failure:
            self._failure = failure
        finally:
            self._ready.set()

    def _take(self, data: Any) -> None:
        if data is grpc.aio.EOF:
            raise Unreachable(self._address, "it ended the stream")
        batch = batch_of(data, self._address, self._next_offset, self._end)
        self._batches.append(batch)
        self._size += len(batch.frames)
        self._next_offset = batch.next_offset
        self._ready.set()
