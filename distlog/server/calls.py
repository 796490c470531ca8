"""How every call runs: its handler by name, its errors as statuses, its mistakes as incidents in the log.

There is no interceptor: each would cost every call.  What all calls share is one wrapper around their coroutine; it also asks the
gate whether the call may go on, before its handler sees the request.  Handlers take and return messages; streams read and write
them through the call's context.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from distlog.api.status import CODES, status_of
from distlog.consensus.replicated_log import STOP_RETRY_DELAY_S
from distlog.errors import DistlogError, InternalError, InvalidRequest, ShuttingDown
from distlog.measures import DURATIONS_S, Histogram
from distlog.server.gate import CANCELLED, DONE, Access, Gate
from distlog.server.permissions import NEEDS, On
from distlog.server.records import check_topic
from distlog.server.traced import begin_call, end_call, is_traced
from distlog.tracing.spans import NO_TRACER, Tracer

logger = logging.getLogger(__name__)

INCIDENT_ID_SIZE = 6
CODE_OK, CODE_CANCELLED = grpc.StatusCode.OK.name, grpc.StatusCode.CANCELLED.name
# Of these a first one is to wake somebody, so it has to be one more than was there before: they are counted from 0.
UNEXPECTED = (grpc.StatusCode.INTERNAL.name, grpc.StatusCode.DATA_LOSS.name)
# Streams whose service writes serialized messages: they are large, and it makes them with fewer copies.
ANSWERED_IN_BYTES = ("ConsumeBatch",)

# handler(request, context): in the place of the request a stream of requests, which reads them from the context, has the Access
# that it asks for each of them, and in which it spends its life.
Handler = Callable[[Any, Any], Awaitable[Any]]


class Ended:
    """The calls of one method that are over, or the requests of its streams: how many by their code, and how long they took.

    How long a stream itself was open says nothing of this node.
    """

    def __init__(self, *, is_stream: bool = False) -> None:
        self.is_stream = is_stream
        self.codes: Counter[str] = Counter(dict.fromkeys(UNEXPECTED, 0))
        self.durations = Histogram(DURATIONS_S)

    def add(self, code: str, duration_s: float) -> None:
        """Take one."""
        self.codes[code] += 1
        if not self.is_stream:
            self.durations.add(duration_s)


class Calls:
    """Makes handlers out of services, and knows how a call may end."""

    def __init__(
        self,
        random_bytes: Callable[[int], bytes],
        now: Callable[[], float],
        gate: Gate,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """now(): a clock in seconds that never goes back.  gate: what each call passes before its handler runs."""
        self._random_bytes = random_bytes
        self._now = now
        self._gate = gate
        self._tracer = tracer
        # By the full name of the method: log.v1.Log.Produce.
        self.ended: dict[str, Ended] = {}
        # Once true, calls are refused before their handler runs.
        self.stopping = False
        # Handlers that run now.
        self.running_count = 0
        # Set when the last of them has ended while stopping.
        self._drained = asyncio.Event()
        # How many calls were refused, by the reason of the error.
        self.refused: Counter[str] = Counter()

    async def drain(self, timeout_s: float) -> None:
        """Refuse new calls from now on, and return when the running ones have ended, or after `timeout_s`.

        gRPC's own shutdown comes after it, since calls that arrive during that one are cut without a word.
        """
        self.stopping = True
        if self.running_count:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    await self._drained.wait()

    def handlers(
        self, descriptor: ServiceDescriptor, service: object, *, while_stopping: bool = False
    ) -> grpc.GenericRpcHandler:
        """Return the handlers of a service: rpc `GetServers` is the method `get_servers` of `service`.

        while_stopping: the service answers until the connection closes.
        """
        return grpc.method_handlers_generic_handler(
            descriptor.full_name,
            {
                method.name: self._method_handler(
                    method, getattr(service, snake_case(method.name)), while_stopping
                )
                for method in descriptor.methods
            },
        )

    def _method_handler(
        self, method: MethodDescriptor, handler: Handler, while_stopping: bool
    ) -> grpc.RpcMethodHandler:
        # Requests arrive here as bytes, since gRPC answers UNKNOWN and logs a traceback when a deserializer fails.
        serialize = GetMessageClass(method.output_type).SerializeToString
        if method.client_streaming:
            assert method.server_streaming, "no call takes a stream and answers once"
            return grpc.stream_stream_rpc_method_handler(
                self._guarded(method, handler, None, while_stopping), None, serialize
            )
        request_class = GetMessageClass(method.input_type)
        guarded = self._guarded(method, handler, request_class, while_stopping)
        if method.name in ANSWERED_IN_BYTES:
            return grpc.unary_stream_rpc_method_handler(guarded, None, None)
        if method.server_streaming:
            return grpc.unary_stream_rpc_method_handler(guarded, None, serialize)
        return grpc.unary_unary_rpc_method_handler(guarded, None, serialize)

    def _guarded(
        self,
        method: MethodDescriptor,
        handler: Handler,
        request_class: type[Message] | None,
        while_stopping: bool,
    ) -> Handler:
        need = NEEDS[method.full_name]
        ended = self.ended[method.full_name] = Ended(is_stream=method.server_streaming)
        traced = is_traced(self._tracer, method)

        async def guarded(data: Any, context: Any) -> Any:
            span = begin_call(self._tracer, method, context) if traced else None
            self.running_count += 1
            # The code is for who counts, the outcome for who audits.
            began_at, code = self._now(), CODE_CANCELLED
            access, outcome = None, CANCELLED
            try:
                if self.stopping and not while_stopping:
                    raise ShuttingDown(retry_delay_s=STOP_RETRY_DELAY_S)
                request = None if request_class is None else parse(request_class, data)
                access = self._gate.enter(
                    method.full_name, need, context, is_stream=method.server_streaming
                )
                if access is None:
                    answer = await handler(request, context)
                else:
                    answer = await _passing(access, handler, request, context)
                code, outcome = CODE_OK, DONE
                return answer
            except DistlogError as error:
                # A class without a code was not meant for a caller.
                refusal = error if type(error) in CODES else self._incident(method.full_name)
                code, outcome = CODES[type(refusal)].name, refusal.reason
            except grpc.aio.AbortError:
                # Only health refuses so, what it does not know.
                code = grpc.StatusCode.NOT_FOUND.name
                raise
            except grpc.aio.BaseError:
                # The client is gone, in the middle of a write.  gRPC would log a traceback, for each call of who hangs up on many.
                raise asyncio.CancelledError from None
            except Exception:
                refusal = self._incident(method.full_name)
                code, outcome = CODES[type(refusal)].name, refusal.reason
            finally:
                ended.add(code, self._now() - began_at)
                if span is not None:
                    end_call(span, code)
                self.running_count -= 1
                if self.stopping and not self.running_count:
                    self._drained.set()
                if access is not None:
                    access.ended(outcome)
            return await self._refuse(context, refusal)

        return guarded

    async def _refuse(self, context: Any, error: DistlogError) -> None:
        self.refused[error.reason] += 1
        status = status_of(error)
        await context.abort(status.code, status.text, status.trailers)

    def _incident(self, method: str) -> InternalError:
        incident_id = self._random_bytes(INCIDENT_ID_SIZE).hex()
        logger.exception(
            "internal error: please report it, with the lines below incident_id=%s method=%s",
            incident_id,
            method,
        )
        return InternalError(incident_id=incident_id)


async def _passing(access: Access, handler: Handler, request: Any, context: Any) -> Any:
    """Run a handler if its call may go on, and as long as it may."""
    on = access.need.on
    if on is On.EACH_TOPIC:
        return await handler(access, context)
    if on is On.SOME_TOPIC:
        await access.check_some()
    elif on is On.CLUSTER:
        access.check()
    elif on is On.MEMBER:
        if not access.is_node(request.node_id):
            access.check()
    else:
        check_topic(request.topic)
        access.check(request.topic)
    if not access.is_stream:
        answer = await handler(request, context)
        access.check_answer()
        return answer
    async with access.watched():
        return await handler(request, context)


def parse(message_class: type[Message], data: bytes) -> Any:
    """Return the message that `data` encodes.  Raises InvalidRequest if it encodes none."""
    try:
        return message_class.FromString(data)
    except DecodeError:
        raise not_a_message(message_class) from None


def not_a_message(message_class: type[Message]) -> InvalidRequest:
    """Return the refusal of bytes that encode no message of this class."""
    name = message_class.DESCRIPTOR.full_name
    problem = f"is not a {name}: generate the client from log.proto"
    return InvalidRequest(field="request", problem=problem)


def snake_case(name: str) -> str:
    """Return GetServers as get_servers."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
