"""Which node to talk to: the connections to the nodes, and who leads them.

The leader is remembered until a node refuses or does not answer.  It is found again by the hint in a refusal, or by asking
all known nodes at once (`GetServers`) and taking whom most of them name: one node that was cut off may name itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, TypeVar

import grpc
import grpc.aio

from distlog.api.log.v1 import log_pb2, log_pb2_grpc
from distlog.client.answers import leader_of, servers_of
from distlog.client.attempts import (
    AMBIGUOUS,
    READ_ELSEWHERE,
    RETRIED,
    Backoff,
    Deadline,
    OnRetry,
    read_error,
    write_error,
)
from distlog.client.values import Server
from distlog.errors import (
    DistlogError,
    InvalidRequest,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    Unreachable,
)

Answer = TypeVar("Answer")
ADDRESS_COUNT_MAX = 64
# How long one node may take to answer a question that it needs nobody else for, and to accept a connection.
ASK_TIMEOUT_S = 1.0
CONNECT_TIMEOUT_S = 2.0
# How long one attempt of a unary call may take; the commit of a healthy cluster takes milliseconds.
ATTEMPT_TIMEOUT_S = 5.0
MESSAGE_SIZE_MAX = 64 << 20
# Between two looks at who the nodes are: of a client that is in use, and the most of one that is not.
LOOK_INTERVAL_S, LOOK_INTERVAL_MAX_S = 0.8, 30.0
# When nobody has looked for so long, whoever uses the client looks first: another cluster may be at these addresses by now.
LOOK_AGE_MAX_S = 4.0
PRODUCE_BATCH, CONSUME_BATCH = "/log.v1.Log/ProduceBatch", "/log.v1.Log/ConsumeBatch"
CHANNEL_OPTIONS = (
    # A call is repeated by the rules of this package, which know what may have been written, and by nothing else.
    ("grpc.enable_retries", 0),
    ("grpc.enable_http_proxy", 0),
    # No state is shared with another client of the process.
    ("grpc.use_local_subchannel_pool", 1),
    # A node that comes back is found at once and not after gRPC's two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # In spite of its name this is how long a connection may take to come about.
    ("grpc.min_reconnect_backoff_ms", int(1000 * CONNECT_TIMEOUT_S)),
    ("grpc.max_receive_message_length", MESSAGE_SIZE_MAX),
    ("grpc.max_send_message_length", MESSAGE_SIZE_MAX),
    # A machine that vanished closes no connection: without a sign of life its tails would wait for ever.  A node takes a ping
    # more often than every 10 s for an attack.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
)


class Node:
    """The connection to one node.  `log` and `cluster` are the generated stubs, the others calls of `log`."""

    def __init__(
        self,
        address: str,
        credentials: grpc.ChannelCredentials | None = None,
        known_as: str = "",
    ) -> None:
        """credentials: with what the connection is encrypted; None: it is not.

        known_as: the host that the certificate must name; "": that of the address.
        """
        self.address = address
        name = (("grpc.ssl_target_name_override", known_as),) if known_as else ()
        self._channel = (
            grpc.aio.insecure_channel(address, options=CHANNEL_OPTIONS)
            if credentials is None
            else grpc.aio.secure_channel(address, credentials, options=(*CHANNEL_OPTIONS, *name))
        )
        self.log: Any = log_pb2_grpc.LogStub(self._channel)
        self.cluster: Any = log_pb2_grpc.ClusterStub(self._channel)
        # Those of the large messages: requests to produce, and answers to consume, are bytes, which are made and read with fewer
        # copies than the stubs make.
        self.produce_batch: Any = self._channel.stream_stream(
            PRODUCE_BATCH, response_deserializer=log_pb2.ProduceBatchResponse.FromString
        )
        self.consume_batch: Any = self._channel.unary_stream(
            CONSUME_BATCH, request_serializer=log_pb2.ConsumeBatchRequest.SerializeToString
        )

    async def close(self) -> None:
        await self._channel.close()


class Routing:
    """The nodes that are known and who is thought to lead; shared by everything that one client does."""

    def __init__(
        self,
        addresses: Sequence[str],
        *,
        retry_pause_s: float,
        random: Random | None,
        credentials: grpc.ChannelCredentials | None = None,
        on_retry: OnRetry | None = None,
    ) -> None:
        """addresses: host:port of at least one node; the others are learned from it.  credentials: as for `Node`.

        on_retry: as for `Backoff`.
        """
        if not addresses or len(addresses) > ADDRESS_COUNT_MAX:
            raise InvalidRequest("addresses", f"1 to {ADDRESS_COUNT_MAX} of HOST:PORT are needed")
        self._given = tuple(dict.fromkeys(addresses))
        # As the nodes announce themselves; empty until one has answered.
        self._announced: tuple[str, ...] = ()
        self._leader_address = ""
        # The cluster that this client speaks with: that of the first node that said so.
        self._cluster_id = ""
        # Addresses at which a node of it has answered, or which such a node has named.
        self._verified: set[str] = set()
        self._nodes: dict[str, Node] = {}
        self._retry_pause_s = retry_pause_s
        self._random = random
        self._credentials = credentials
        self._on_retry = on_retry
        # Looks at who the nodes are, from the first use on.
        self._looking: asyncio.Task[None] | None = None
        # Set by whoever uses a node.
        self._use = asyncio.Event()
        # Why the node that was asked last is not ready, as it said; "": it is.
        self._node_problem = ""
        # When a node said last that it is of this cluster, on the loop's clock.
        self._verified_at = float("-inf")

    @property
    def addresses(self) -> tuple[str, ...]:
        """Every known address, the given ones first."""
        return tuple(dict.fromkeys((*self._given, *self._announced)))

    def node(self, address: str) -> Node:
        """Return the connection to `address`, which is made when it is first used."""
        self._use.set()
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_for_ever())
        return self._connection(address)

    def _connection(self, address: str) -> Node:
        if address not in self._nodes:
            self._nodes[address] = Node(address, self._credentials)
        return self._nodes[address]

    async def verified_node(self, address: str) -> Node:
        """Return the connection to `address`, where a node of the cluster is, as one of them says.

        Raises InvalidRequest if it is of another one, Unreachable, or what it refuses with.
        """
        age_s = asyncio.get_running_loop().time() - self._verified_at
        if address not in self._verified or age_s > LOOK_AGE_MAX_S:
            await self.servers(address)
        return self.node(address)

    def backoff(self) -> Backoff:
        return Backoff(self._retry_pause_s, self._random, self._on_retry)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        await asyncio.gather(*(node.close() for node in self._nodes.values()))

    # --- Who the nodes are ---

    async def _look_for_ever(self) -> None:
        """Keep the announced addresses as new as the cluster's configuration, so that there is somewhere to go whoever is replaced.

        The looks of a client that nobody uses come more and more seldom: many of them must not be a load.
        """
        is_leader_silent = False
        idle_s = 0.0
        for turn in itertools.count():
            await asyncio.sleep(LOOK_INTERVAL_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(idle_s):
                    await self._use.wait()
            longer_s = min(2 * idle_s + LOOK_INTERVAL_S, LOOK_INTERVAL_MAX_S - LOOK_INTERVAL_S)
            idle_s = 0.0 if self._use.is_set() else longer_s
            self._use.clear()
            addresses = self._announced or self._given
            # The leader has the newest configuration; one that is silent may not be the leader any more.
            address = "" if is_leader_silent else self._leader_address
            try:
                self._announce([await self.servers(address or addresses[turn % len(addresses)])])
                is_leader_silent = False
            except InvalidRequest:
                # Who uses the client next asks all of them, and is told.
                self._leader_address = ""
                self._verified.clear()
            except DistlogError:
                is_leader_silent = bool(address)

    def _announce(self, answers: Sequence[Sequence[Server]]) -> None:
        announced = dict.fromkeys(
            server.address for servers in answers for server in servers if server.address
        )
        self._announced = tuple(announced)[:ADDRESS_COUNT_MAX] or self._announced
        self._verified.update(self._announced)

    # --- The leader ---

    async def leader(self) -> Node:
        """Return the node that is thought to lead.  Raises NoLeader or Unreachable: try again after a pause."""
        if not self._leader_address:
            answers = await self.ask_all()
            self._leader_address = leader_of(answers)
            if not self._leader_address:
                nodes = "1 node" if len(answers) == 1 else f"{len(answers)} nodes"
                problem = f"{nodes} answered and none knows one"
                if self._node_problem:
                    problem += f"; one of them says: {self._node_problem}"
                raise NoLeader(problem=problem, retry_delay_s=self._retry_pause_s)
        return await self.verified_node(self._leader_address)

    def note_failure(self, error: DistlogError) -> None:
        """Forget the leader after a failed write, or go where the refusal points to."""
        self._leader_address = error.leader_address if isinstance(error, NotLeader) else ""
        if self._leader_address:
            self._verified.add(self._leader_address)

    async def ask_all(self) -> list[list[Server]]:
        """Return what each reachable node says of the cluster: as soon as a majority agrees on a leader, or all answered.

        Raises Unreachable if no node answers, InvalidRequest if they belong to more than one cluster.
        """
        answers, problems = await self._ask(self._announced)
        if not answers:
            answers, problems = await self._ask(self._given)
        if not answers:
            raise Unreachable(addresses=", ".join(self.addresses), problem="; ".join(problems))
        self._announce(answers)
        return answers

    async def learn(self) -> None:
        """Ask the given nodes for the others, once, so that there is somewhere to go when those die."""
        if not self._announced:
            with contextlib.suppress(DistlogError):
                await self.ask_all()

    async def _ask(self, addresses: Sequence[str]) -> tuple[list[list[Server]], list[str]]:
        answers: list[list[Server]] = []
        problems: list[str] = []
        votes: Counter[str] = Counter()
        asked = [asyncio.ensure_future(self.servers(address)) for address in addresses]
        try:
            for answered in asyncio.as_completed(asked):
                try:
                    servers = await answered
                except InvalidRequest:
                    raise
                except DistlogError as error:
                    problems.append(str(getattr(error, "problem", error)))
                    continue
                answers.append(servers)
                votes.update(
                    server.address for server in servers if server.is_leader and server.address
                )
                if votes and votes.most_common(1)[0][1] * 2 > len(addresses):
                    break
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        return answers, list(dict.fromkeys(problems))

    async def servers(self, address: str) -> list[Server]:
        """Return the cluster's nodes as the one at `address` sees them.

        Raises InvalidRequest if it is of another cluster, Unreachable, or what it refuses with.
        """
        try:
            answer = await self._connection(address).log.GetServers(
                log_pb2.GetServersRequest(), timeout=ASK_TIMEOUT_S
            )
        except grpc.aio.AioRpcError as error:
            raise read_error(error, address) from None
        self._verify(address, answer.cluster_id)
        self._node_problem = answer.problem
        return servers_of(answer)

    def _verify(self, address: str, cluster_id: str) -> None:
        # A node that belongs to none yet, or is of a version that does not say, is taken as it is.
        self._cluster_id = self._cluster_id or cluster_id
        self._verified_at = asyncio.get_running_loop().time()
        if cluster_id not in ("", self._cluster_id):
            self._verified.discard(address)
            raise InvalidRequest(
                "addresses",
                f"{address} belongs to cluster {cluster_id}, and who answered before to {self._cluster_id}: name nodes of one cluster",
            )
        self._verified.add(address)

    # --- Calls with an overall deadline ---

    async def write(self, call: Callable[[Node], Awaitable[Answer]], deadline: Deadline) -> Answer:
        """Return the answer of the leader to `call`, which must be safe to repeat.

        Raises what is final at once.  At the deadline: OutcomeUnknown if one attempt may have been carried out,
        otherwise the last refusal.
        """
        backoff = self.backoff()
        unknown: DistlogError | None = None
        last: DistlogError | None = None
        while True:
            try:
                node = await self.leader()
            except DistlogError as failure:
                # Nothing was sent.
                error = failure
            else:
                if not deadline.allows():
                    too_late = Unreachable(
                        node.address, "no time was left when it was found to lead"
                    )
                    raise unknown or last or too_late
                try:
                    return await call(node)
                except grpc.aio.AioRpcError as failure:
                    error = write_error(failure, node.address)
                if isinstance(error, AMBIGUOUS):
                    unknown = OutcomeUnknown(cause=str(getattr(error, "cause", error)))
            last = error
            self.note_failure(error)
            pause_s = backoff.next_pause_s(error)
            if not isinstance(error, RETRIED) or not deadline.allows(pause_s):
                raise unknown or error
            await asyncio.sleep(pause_s)

    # --- Reads, from any node ---

    def read_order(self, prefer: str) -> tuple[str, ...]:
        """Return the addresses to read from, best first: the preferred one, then those that were given."""
        return tuple(dict.fromkeys((prefer, *self.addresses))) if prefer else self.addresses

    async def read(
        self, call: Callable[[Node], Awaitable[Answer]], deadline: Deadline, prefer: str
    ) -> Answer:
        """Return the answer of the first node that gives one, beginning with `prefer`.

        Raises what is final at once, and at the deadline the last refusal; Unreachable if there was none.
        """
        backoff = self.backoff()
        refusal: DistlogError | None = None
        for attempt in itertools.count():
            addresses = self.read_order(prefer)
            address = addresses[attempt % len(addresses)]
            try:
                return await call(await self.verified_node(address))
            except grpc.aio.AioRpcError as failure:
                error = read_error(failure, address)
            except DistlogError as failure:
                error = failure
            if not isinstance(error, Unreachable):
                refusal = error
            pause_s = backoff.next_pause_s(error)
            if not isinstance(error, READ_ELSEWHERE):
                raise error
            if not deadline.allows(pause_s):
                # The last one asked had less time than the others, whose answers say more.
                raise refusal or error
            await asyncio.sleep(pause_s)
        raise AssertionError("attempts do not run out")
