"""gRPC between a client and a simulated machine, without gRPC: the product's services and its client, on simulated connections.

    server = SimulatedServer(node.replicated_log, random)          routing = SimulatedRouting(network, "client", addresses, random)
    await server.listen(network.host("n1"), "n1", 8400)            producer = Producer(routing, "", producer_id, epoch, ...)

What the product does about a call is all its own: `Calls`, `LogService` and `ProduceStream` of the server; `Producer`, `Window`,
`Routing`, `UnaryProducer` of the client.  Only what carries messages is not: each call is a connection of its own, with frames of
[kind u8][size u32][payload].  A connection that breaks is UNAVAILABLE, one that is refused too, and a machine without power is silent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from random import Random
from struct import Struct
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2
from distlog.api.status import DETAILS_KEY
from distlog.client.routing import Routing
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.security.authorizer import Authorizer
from distlog.server.calls import Calls
from distlog.server.gate import Gate, NoAudit
from distlog.server.limits import ServerLimits
from distlog.server.log_service import LogService
from distlog.server.open_streams import OpenStreams
from tests.simulation.simulated_network import Address, SimulatedHost, SimulatedNetwork

SERVICE = log_pb2.DESCRIPTOR.services_by_name["Log"]
ANSWERS = {method.name: method.output_type.name for method in SERVICE.methods}
FRAME = Struct("<BI")
CALL, MESSAGE, STATUS = range(3)
CODES = {code.value[0]: code for code in grpc.StatusCode}
# In place of the client's own: a schedule has no time for five seconds of patience.
ANSWER_TIMEOUT_S = 1.0
DRAIN_TIMEOUT_S = 1.0


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Return kind and payload.  Raises EOFError or ConnectionError at the end of the connection."""
    kind, size = FRAME.unpack(await reader.readexactly(FRAME.size))
    return kind, await reader.readexactly(size)


def frame(kind: int, payload: bytes) -> bytes:
    return FRAME.pack(kind, len(payload)) + payload


def status_payload(code: grpc.StatusCode, text: str, details: bytes) -> bytes:
    encoded = text.encode()
    return FRAME.pack(code.value[0], len(encoded)) + encoded + details


def error_of(payload: bytes) -> grpc.aio.AioRpcError:
    number, size = FRAME.unpack_from(payload)
    text = payload[FRAME.size : FRAME.size + size].decode()
    details = payload[FRAME.size + size :]
    trailers = grpc.aio.Metadata((DETAILS_KEY, details)) if details else grpc.aio.Metadata()
    return grpc.aio.AioRpcError(CODES[number], trailing_metadata=trailers, details=text)


def lost(code: grpc.StatusCode, text: str) -> grpc.aio.AioRpcError:
    return error_of(status_payload(code, text, b""))


# --- The server ----------------------------------------------------------------------------------


class _Context:
    """What a handler of the product sees of its call."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serialize: Any
    ) -> None:
        self._reader, self._writer, self._serialize = reader, writer, serialize

    def auth_context(self) -> dict[str, list[bytes]]:
        return {}

    async def read(self) -> Any:
        with contextlib.suppress(EOFError, ConnectionError):
            kind, payload = await read_frame(self._reader)
            return payload if kind == MESSAGE else grpc.aio.EOF
        return await self._cancelled()

    async def write(self, message: Any) -> None:
        self._writer.write(frame(MESSAGE, self._serialize(message)))
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()
            return
        await self._cancelled()

    async def _cancelled(self) -> Any:
        """Wait for the end of the handler: the client is gone, and gRPC says so by cancelling."""
        await asyncio.get_running_loop().create_future()

    def peer(self) -> str:
        """Tell the connections of clients apart, as gRPC does by their addresses: here each call has one of its own."""
        return f"simulated:{id(self)}"

    async def send_initial_metadata(self, _metadata: Any) -> None:
        return

    async def abort(self, code: grpc.StatusCode, text: str, trailers: Any) -> None:
        details = dict(trailers)[DETAILS_KEY]
        self._writer.write(frame(STATUS, status_payload(code, text, details)))
        raise grpc.aio.AbortError


class SimulatedServer:
    """The service `log.v1.Log` of one node, in the process that makes it."""

    def __init__(self, log: ReplicatedLog, random: Random) -> None:
        limits = ServerLimits()
        gate = Gate(Authorizer.open_to_all(), NoAudit(), random.randbytes)
        self._calls = Calls(random.randbytes, asyncio.get_running_loop().time, gate)
        self._streams = OpenStreams(limits.tail_count_max)
        self._handlers = self._calls.handlers(SERVICE, LogService(log, limits, self._streams))
        self._listening: asyncio.AbstractServer | None = None

    async def listen(self, host: SimulatedHost, name: str, port: int) -> None:
        loop = asyncio.get_running_loop()

        def accept() -> asyncio.StreamReaderProtocol:
            reader = asyncio.StreamReader(loop=loop)
            return asyncio.StreamReaderProtocol(reader, self._serve, loop=loop)

        self._listening = await host.listen(accept, name, port)

    async def stop(self) -> None:
        """Stop in the order of the product: no new call, an end to the streams, and a little patience for what runs."""
        self._calls.stopping = True
        self._streams.end_all()
        await self._calls.drain(DRAIN_TIMEOUT_S)
        assert self._listening is not None
        self._listening.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _, path = await read_frame(reader)
            method: Any = self._handlers.service(SimpleNamespace(method=path.decode()))
            context = _Context(reader, writer, method.response_serializer)
            if method.stream_stream is not None:
                await self._until_gone(method.stream_stream(None, context), writer)
            else:
                _, data = await read_frame(reader)
                answer = await self._until_gone(method.unary_unary(data, context), writer)
                writer.write(frame(MESSAGE, method.response_serializer(answer)))
            writer.write(frame(STATUS, status_payload(grpc.StatusCode.OK, "", b"")))
        except (grpc.aio.AbortError, EOFError, ConnectionError):
            # Refused and said so, or the client is gone.
            pass
        finally:
            writer.close()

    async def _until_gone(
        self, handler: Coroutine[Any, Any, Any], writer: asyncio.StreamWriter
    ) -> Any:
        """Run a handler; as gRPC does, cancel it when the connection of its client is gone."""
        task = asyncio.ensure_future(handler)
        gone = asyncio.ensure_future(writer.wait_closed())
        try:
            await asyncio.wait([task, gone], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise ConnectionResetError("the client is gone")
        finally:
            for each in (task, gone):
                each.cancel()
                # Whatever it ends with has been taken note of, or nobody cares.
                each.add_done_callback(lambda done: done.cancelled() or done.exception())


# --- The client ----------------------------------------------------------------------------------


class _Connection:
    """One call, from the client's side."""

    def __init__(self, node: SimulatedNode, method: str) -> None:
        self._node, self._method = node, method
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Raises AioRpcError, UNAVAILABLE, if nobody listens."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        host, port = self._node.target
        try:
            await self._node.host.connect(lambda: protocol, host, port)
        except OSError as error:
            raise lost(grpc.StatusCode.UNAVAILABLE, str(error)) from None
        transport: Any = protocol._transport  # type: ignore[attr-defined]
        self._reader, self._writer = (
            reader,
            asyncio.StreamWriter(transport, protocol, reader, loop),
        )
        self._writer.write(frame(CALL, f"/{SERVICE.full_name}/{self._method}".encode()))

    async def write(self, message: Any) -> None:
        assert self._writer is not None
        try:
            # Large requests come as they travel.
            is_raw = isinstance(message, bytes | bytearray | memoryview)
            payload = bytes(message) if is_raw else message.SerializeToString()
            self._writer.write(frame(MESSAGE, payload))
            await self._writer.drain()
        except ConnectionError as error:
            raise lost(grpc.StatusCode.UNAVAILABLE, str(error)) from None

    async def read(self) -> Any:
        """Return the next answer, or EOF.  Raises AioRpcError."""
        assert self._reader is not None
        try:
            kind, payload = await read_frame(self._reader)
        except (EOFError, ConnectionError) as error:
            raise lost(grpc.StatusCode.UNAVAILABLE, f"connection lost: {error}") from None
        if kind == MESSAGE:
            return getattr(log_pb2, ANSWERS[self._method]).FromString(payload)
        if FRAME.unpack_from(payload)[0] == grpc.StatusCode.OK.value[0]:
            return grpc.aio.EOF
        raise error_of(payload)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.transport.abort()


class StreamCall:
    """What the generated stub returns for a stream of requests and answers."""

    def __init__(self, node: SimulatedNode, method: str) -> None:
        self._connection = _Connection(node, method)
        self._reading: asyncio.Task[Any] | None = None

    async def wait_for_connection(self) -> None:
        await self._connection.open()

    async def write(self, message: Any) -> None:
        await self._connection.write(message)

    async def read(self) -> Any:
        self._reading = asyncio.ensure_future(self._connection.read())
        return await self._reading

    def cancel(self) -> None:
        self._connection.close()
        if self._reading is not None:
            self._reading.cancel()


class _LogStub:
    """In the place of the generated one, as far as it is called."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node

    def ProduceStream(self) -> StreamCall:
        return StreamCall(self._node, "ProduceStream")

    def __getattr__(self, method: str) -> Any:
        async def call(request: Any, timeout: float) -> Any:
            connection = _Connection(self._node, method)
            try:
                async with asyncio.timeout(min(timeout, ANSWER_TIMEOUT_S)):
                    await connection.open()
                    await connection.write(request)
                    return await connection.read()
            except TimeoutError:
                raise lost(grpc.StatusCode.DEADLINE_EXCEEDED, "no answer in time") from None
            finally:
                connection.close()

        return call


class SimulatedNode:
    """In the place of `routing.Node`: one machine, as a client reaches it."""

    def __init__(self, host: SimulatedHost, address: str) -> None:
        name, _, port = address.rpartition(":")
        self.host = host
        self.address = address
        self.target: Address = (name, int(port))
        self.log: Any = _LogStub(self)

    def produce_batch(self) -> StreamCall:
        return StreamCall(self, "ProduceBatch")

    async def close(self) -> None:
        return


class SimulatedRouting(Routing):
    """The client's own routing, over the simulated network."""

    def __init__(
        self, network: SimulatedNetwork, client: str, addresses: Sequence[str], random: Random
    ) -> None:
        super().__init__(addresses, retry_pause_s=0.02, random=random)
        self._host = network.host(client)

    def _connection(self, address: str) -> Any:
        known: dict[str, Any] = self._nodes
        if address not in known:
            known[address] = SimulatedNode(self._host, address)
        return known[address]
