"""The service `grpc.reflection.v1alpha.ServerReflection`, which tells tools like grpcurl what there is.

The answers are those of gRPC's own servicer; asked like every other call here, it ends when the node stops, and writes no traceback
into the log for whoever sends what is no request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor
from grpc_reflection.v1alpha import reflection, reflection_pb2

from distlog.server.calls import parse
from distlog.server.open_streams import OpenStreams


class Reflection:
    """One method for each rpc."""

    def __init__(self, services: Sequence[ServiceDescriptor], streams: OpenStreams) -> None:
        self._servicer: Any = reflection.aio.ReflectionServicer(
            [service.full_name for service in services]
        )
        self._streams = streams

    async def server_reflection_info(self, _access: None, context: Any) -> None:
        """Answer each question; whoever may call is told."""
        async with self._streams.open():
            async for answer in self._servicer.ServerReflectionInfo(requests(context), context):
                await context.write(answer)


async def requests(context: Any) -> AsyncIterator[Any]:
    """Yield what the client asks.  Raises InvalidRequest for what is no question."""
    while (data := await context.read()) is not grpc.aio.EOF:
        yield parse(reflection_pb2.ServerReflectionRequest, data)
