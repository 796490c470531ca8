"""An asyncio client of the agent's RPC: any number of requests and streams at once, on one connection.

The agent does what one connection asks for one after the other, so a slow command (a join to who is not there, tags, keys) keeps what
was asked behind it waiting: whoever needs quick answers meanwhile opens a second connection.

A request that has run out of time stays known until its answer comes, so that a late answer is never taken for another one's.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar, cast

from distlog.addresses import address_text
from distlog.discovery.serf.errors import (
    AgentAnswerInvalid,
    AgentNotAuthenticated,
    AgentRefused,
    AgentSilent,
    AgentUnreachable,
)
from distlog.discovery.serf.stream import SerfStream
from distlog.discovery.serf.values import (
    AgentMember,
    Coordinate,
    Fields,
    KeyAnswer,
    coordinate_of,
    key_answer_of,
    members_of,
    record_of,
    stats_of,
)
from distlog.discovery.serf.wire import (
    OUT_OF_STEP,
    Answer,
    AnswerDecoder,
    AnswerMalformed,
    encode_request,
)
from distlog.errors import DistlogError, InvalidRequest, Overloaded
from distlog.runtime import Network

Value = TypeVar("Value")

VERSION = 1
TIMEOUT_S = 5.0
# Those of which the agent speaks with other members before it answers.
SLOW_TIMEOUT_S = 30.0
# Requests without an answer, those that have run out of time included.
IN_FLIGHT_COUNT_MAX = 64
# Streams that one connection opens in its life.  Records of a stream that was stopped may still come, so none is forgotten.
STREAM_COUNT_MAX = 1024
WITH_BODY = frozenset(
    {
        "members", "members-filtered", "join", "stats", "get-coordinate",
        "install-key", "use-key", "remove-key", "list-keys",
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class AgentAddress:
    """Where an agent's RPC is, and the key that it asks for; the key is never shown."""

    host: str
    port: int
    auth_key: str = ""

    def __str__(self) -> str:
        return address_text(self.host, self.port)

    def __repr__(self) -> str:
        return f"AgentAddress({self})"


@dataclass(slots=True)
class _Request:
    command: str
    answered: asyncio.Future[Any]
    # What it opens.
    stream: SerfStream | None


class SerfClient(asyncio.Protocol):
    """One connection.  When it is lost, everything that waits raises AgentUnreachable, and so does every later call: open another."""

    def __init__(self, address: AgentAddress) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._decoder = AnswerDecoder(self._expects_body)
        self._last_seq = 0
        # By Seq, those without an answer.
        self._requests: dict[int, _Request] = {}
        # By Seq; those that are over stay, as None.
        self._streams: dict[int, SerfStream | None] = {}
        # Why it cannot be used any more.
        self._failure: DistlogError | None = None

    @classmethod
    async def open(
        cls, network: Network, address: AgentAddress, timeout_s: float = TIMEOUT_S
    ) -> Self:
        """Connect, shake hands and authenticate.

        Raises AgentUnreachable, AgentSilent, AgentAnswerInvalid, or AgentNotAuthenticated if the key is not the agent's.
        """
        client = cls(address)
        try:
            async with asyncio.timeout(timeout_s):
                await network.connect(lambda: client, address.host, address.port)
        except TimeoutError:
            client.close()
            raise AgentUnreachable(str(address), f"no connection within {timeout_s} s") from None
        except OSError as error:
            raise AgentUnreachable(str(address), error.strerror or str(error)) from error
        try:
            await client._call("handshake", {"Version": VERSION}, timeout_s)
            if address.auth_key:
                await client._call("auth", {"AuthKey": address.auth_key}, timeout_s)
        except BaseException:
            client.close()
            raise
        return client

    @property
    def is_open(self) -> bool:
        return self._failure is None

    def close(self) -> None:
        self._fail(AgentUnreachable(str(self._address), "this side has closed the connection"))

    # --- Members ---------------------------------------------------------------------------------

    async def members(self) -> list[AgentMember]:
        return self._read(members_of, await self._call("members"))

    async def members_filtered(
        self, *, name: str = "", status: str = "", tags: Mapping[str, str] | None = None
    ) -> list[AgentMember]:
        """Return the members that the regular expressions match in full.  The agent hangs up on one that is none."""
        body = {"Tags": dict(tags or {}), "Status": status, "Name": name}
        return self._read(members_of, await self._call("members-filtered", body))

    async def join(self, addresses: Iterable[str], *, replay: bool = False) -> int:
        """Have the agent join the members at these HOST:PORT; return how many it reached.  AgentRefused if none."""
        body = {"Existing": list(addresses), "Replay": replay}
        answer = await self._call("join", body, SLOW_TIMEOUT_S)
        return self._read(lambda body: Fields(body).count("Num"), answer)

    async def leave(self) -> None:
        """Have the agent say good-bye and end.  It may do so before it has answered."""
        if self._failure is not None:
            raise self._failure
        with contextlib.suppress(AgentUnreachable):
            await self._call("leave", None, SLOW_TIMEOUT_S)

    async def force_leave(self, name: str, *, prune: bool = False) -> None:
        """Have a member counted as left, or with `prune` as never seen.  One that is alive refutes it; an unknown one is no error.

        Prune only who has left everywhere: an agent that takes the member for alive answers nobody for six seconds then.
        """
        await self._call("force-leave", {"Node": name, "Prune": prune}, SLOW_TIMEOUT_S)

    async def set_tags(self, tags: Mapping[str, str], delete: Iterable[str] = ()) -> None:
        """Set and delete tags of the agent's own member.  It forgets that when it ends."""
        await self._call("tags", {"Tags": dict(tags), "DeleteTags": list(delete)}, SLOW_TIMEOUT_S)

    async def coordinate(self, name: str) -> Coordinate | None:
        return self._read(coordinate_of, await self._call("get-coordinate", {"Node": name}))

    async def stats(self) -> dict[str, dict[str, str]]:
        return self._read(stats_of, await self._call("stats"))

    # --- Events and queries ----------------------------------------------------------------------

    async def send_event(self, name: str, payload: bytes = b"", *, coalesce: bool = True) -> None:
        await self._call("event", {"Name": name, "Payload": payload, "Coalesce": coalesce})

    async def stream(self, kinds: str = "*") -> SerfStream:
        """Open a stream of events: "*", or some of member-join, member-failed, user:NAME, query, with commas between them."""
        return await self._open("stream", {"Type": kinds})

    async def monitor(self, level: str = "INFO") -> SerfStream:
        """Open a stream of the agent's own log."""
        return await self._open("monitor", {"LogLevel": level})

    async def query(
        self,
        name: str,
        payload: bytes = b"",
        *,
        members: Iterable[str] = (),
        tags: Mapping[str, str] | None = None,
        acknowledge: bool = False,
        timeout_s: float = 0.0,
    ) -> SerfStream:
        """Ask the members, all or some; the stream ends when the time is over (0: as the agent has it by default)."""
        body = {
            "FilterNodes": list(members),
            "FilterTags": dict(tags or {}),
            "RequestAck": acknowledge,
            "RelayFactor": 0,
            "Timeout": int(timeout_s * 1e9),
            "Name": name,
            "Payload": payload,
        }
        return await self._open("query", body)

    async def respond(self, number: int, payload: bytes) -> None:
        """Answer a QueryReceived."""
        await self._call("respond", {"ID": number, "Payload": payload})

    async def stop(self, seq: int) -> None:
        """Close the stream of that number, as its `close` does.  With the connection all of them are closed."""
        if self.is_open:
            self._streams[seq] = None
            await self._call("stop", {"Stop": seq})

    # --- Keys of the gossip ----------------------------------------------------------------------

    async def install_key(self, key: str) -> KeyAnswer:
        return await self._change_keys("install-key", key)

    async def use_key(self, key: str) -> KeyAnswer:
        return await self._change_keys("use-key", key)

    async def remove_key(self, key: str) -> KeyAnswer:
        return await self._change_keys("remove-key", key)

    async def list_keys(self) -> KeyAnswer:
        return self._read(key_answer_of, await self._call("list-keys", None, SLOW_TIMEOUT_S))

    async def _change_keys(self, command: str, key: str) -> KeyAnswer:
        try:
            answer = await self._call(command, {"Key": key}, SLOW_TIMEOUT_S)
        except AgentRefused as refused:
            # An error goes into logs, and a key never does.
            problem = refused.problem.replace(key, "[key]") if key else refused.problem
            raise AgentRefused(refused.address, command, problem) from None
        return self._read(key_answer_of, answer)

    # --- Requests and answers --------------------------------------------------------------------

    async def _open(self, command: str, body: Mapping[str, object]) -> SerfStream:
        if len(self._streams) >= STREAM_COUNT_MAX:
            raise Overloaded("streams of a connection to the Serf agent", STREAM_COUNT_MAX)
        stream = SerfStream(self._last_seq + 1, self.stop)
        await self._call(command, body, TIMEOUT_S, stream)
        return stream

    async def _call(
        self,
        command: str,
        body: Mapping[str, object] | None = None,
        timeout_s: float = TIMEOUT_S,
        stream: SerfStream | None = None,
    ) -> Any:
        """Send a request; return the body of its answer, or None."""
        if self._failure is not None:
            raise self._failure
        assert self._transport is not None
        if len(self._requests) >= IN_FLIGHT_COUNT_MAX:
            raise Overloaded("requests to the Serf agent", IN_FLIGHT_COUNT_MAX)
        seq = self._last_seq + 1
        try:
            data = encode_request(command, seq, body)
        except ValueError as error:
            raise InvalidRequest(command, str(error)) from None
        answered = asyncio.get_running_loop().create_future()
        self._last_seq, self._requests[seq] = seq, _Request(command, answered, stream)
        self._transport.write(data)
        try:
            async with asyncio.timeout(timeout_s):
                return await answered
        except TimeoutError:
            raise AgentSilent(str(self._address), command, timeout_s) from None

    def _expects_body(self, seq: int, error: str) -> bool:
        request = self._requests.get(seq)
        if request is not None:
            return request.command in WITH_BODY and error not in OUT_OF_STEP
        if seq in self._streams:
            return True
        raise AnswerMalformed("to a question that nobody asked")

    def _answered(self, answer: Answer) -> None:
        request = self._requests.pop(answer.seq, None)
        if request is None:
            self._stream_answered(answer)
            return
        if answer.error:
            failure = self._refusal(request.command, answer.error)
            if not request.answered.done():
                request.answered.set_exception(failure)
            if answer.error in OUT_OF_STEP:
                self._fail(failure)
            return
        if request.stream is not None:
            # Nobody waits for a stream any more that has run out of time: its records are dropped.
            self._streams[answer.seq] = None if request.answered.done() else request.stream
        if not request.answered.done():
            request.answered.set_result(answer.body)

    def _stream_answered(self, answer: Answer) -> None:
        stream = self._streams[answer.seq]
        if stream is None:
            return
        record = record_of(answer.body)
        if record is not None:
            stream.put(record)
            return
        self._streams[answer.seq] = None
        stream.end()

    def _refusal(self, command: str, problem: str) -> DistlogError:
        if command == "auth" or problem == "Authentication required":
            return AgentNotAuthenticated(str(self._address))
        # Of several lines, and a log's line is one.
        return AgentRefused(str(self._address), command, " ".join(problem.split()))

    def _read(self, read: Callable[[object], Value], body: object) -> Value:
        try:
            return read(body)
        except AnswerMalformed as error:
            failure = AgentAnswerInvalid(str(self._address), str(error))
            self._fail(failure)
            raise failure from None

    def _fail(self, failure: DistlogError) -> None:
        """Use the connection no more.  The first reason stays."""
        if self._failure is not None:
            return
        self._failure = failure
        if self._transport is not None:
            self._transport.abort()
        for request in self._requests.values():
            if not request.answered.done():
                request.answered.set_exception(failure)
        self._requests.clear()
        for stream in self._streams.values():
            if stream is not None:
                stream.end(failure)
        self._streams.clear()

    # --- asyncio.Protocol ------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._failure is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        if self._failure is not None:
            return
        try:
            for answer in self._decoder.receive(data):
                self._answered(answer)
                if self._failure is not None:
                    return
        except AnswerMalformed as error:
            self._fail(AgentAnswerInvalid(str(self._address), str(error)))

    def connection_lost(self, error: Exception | None) -> None:
        problem = f"the connection was lost: {error}" if error else "it has closed the connection"
        self._fail(AgentUnreachable(str(self._address), problem))
