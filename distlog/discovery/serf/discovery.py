"""The backend: the view that a node's Serf agent has, and this node's part in it.

    agent --members, each second--> sightings --> view --> changed()
    own description, seeds that are not alive, names to be forgotten --> errands --> agent

The agent's members are read as a level and compared; its events only hasten the next look, for they come late, twice or not at all.
What this node wants of the agent is a level too: each look finds what is not so yet, and the errands make it so.  So nothing is lost when
the agent ends in between: its successor is made to be what it should be.  Errands have a connection of their own, since the agent does
one thing after the other for each, and a join of who is not there takes ten seconds.

While there is no agent the view stays what it was, and grows old.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace

from distlog.addresses import host_and_port
from distlog.discovery.serf.agent import Agent, log_mistake
from distlog.discovery.serf.client import SerfClient
from distlog.discovery.serf.errors import AgentRefused, AgentSilent
from distlog.discovery.serf.sightings import Sightings, sightings_of
from distlog.discovery.serf.stream import SerfStream
from distlog.discovery.serf.tags import ALL_TAGS, NodeState, TaggedNode, check_room, tags_of
from distlog.discovery.serf.values import AgentMember, AgentStatus
from distlog.discovery.view import REPEAT_S, Description, MemberStatus, Sighting, Viewing
from distlog.errors import DistlogError
from distlog.runtime import Clock, Network

logger = logging.getLogger("distlog.discovery.serf")

# Names that one round of errands cleans up.
CLEAN_UP_COUNT_MAX = 16
EVENTS = "member-join,member-leave,member-failed,member-update,member-reap"


@dataclass(frozen=True, slots=True)
class SerfSettings:
    """Times in seconds."""

    # Between two looks at the members.
    interval_s: float = 1.0
    # The least of it, whatever wakes this node.
    pause_s: float = 0.05
    # Between two attempts to reach an agent that is away.
    retry_s: float = 0.5
    # Between two joins of seeds that are not alive.  An agent by itself looks only for members that it has seen alive.
    rejoin_interval_s: float = 30.0
    # What a stop waits for the agent at most, and a leave.
    stop_timeout_s: float = 1.0
    leave_timeout_s: float = 8.0


DEFAULT_SETTINGS = SerfSettings()


class SerfDiscovery(Viewing):
    """One node and its agent."""

    def __init__(
        self,
        own: Description,
        agent: Agent,
        *,
        join: Sequence[str] = (),
        network: Network,
        clock: Clock,
        run: int,
        settings: SerfSettings = DEFAULT_SETTINGS,
    ) -> None:
        """join: HOST:PORT of other agents.  run: greater than that of an earlier process, as far as a clock can tell.

        Raises InvalidRequest if the description is longer than what an agent takes.
        """
        super().__init__(clock)
        self._own = TaggedNode(own, run)
        check_room(self._own)
        self._agent = agent
        self._join = tuple(join)
        self._network = network
        self._settings = settings
        # The members at the last look, and what they are to this node.
        self._members: Sequence[AgentMember] = ()
        self._found = Sightings()
        # The name that the agent of now has in the gossip.
        self._agent_name = ""
        # Node ids to be counted as left as soon as an agent can be told.
        self._to_forget: set[str] = set()
        # Monotonic time of the last joins of seeds; None: not by the agent of now.
        self._joined_at: float | None = None
        # Set when a look, or an errand, may be worth it before its time.
        self._look_soon, self._errands_soon = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._is_closing = False
        # The last complaint: the same one is not logged again.
        self._problem = ""

    # --- Life ------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin with the agent.  Raises DistlogError if it cannot be started, or is not what the settings say."""
        self._show()
        await self._agent.start(tags_of(self._own))
        self._agent.changed = self._look_soon.set
        self._task = asyncio.create_task(self._run_for_ever())
        self._task.add_done_callback(log_mistake)

    async def leave(self) -> None:
        """Have the agent, if it is this node's own, say good-bye and end; another one says for this node that it has left."""
        await self._end(NodeState.LEFT, self._settings.leave_timeout_s)

    async def close(self) -> None:
        """End an agent of one's own without a good-bye; another one says for this node that it has stopped."""
        await self._end(NodeState.STOPPED, self._settings.stop_timeout_s)

    async def _end(self, state: NodeState, timeout_s: float) -> None:
        if self._task is None:
            return
        self._is_closing = True
        self._task.cancel()
        await asyncio.wait([self._task])
        self._task = None
        self._own = replace(self._own, state=state)
        try:
            async with asyncio.timeout(timeout_s):
                await self._say_last_words(state)
        except (DistlogError, TimeoutError) as error:
            logger.warning(
                "the Serf agent was not told, and the others see this node fail: nothing is to be done state=%s problem=%s",
                state.value,
                error,
            )
        await self._agent.close()

    async def _say_last_words(self, state: NodeState) -> None:
        address = self._agent.address
        # One's own agent ends, which says the same as that the node has stopped.
        if address is None or (self._agent.is_own and state is NodeState.STOPPED):
            return
        client = await SerfClient.open(self._network, address)
        try:
            if self._agent.is_own:
                await client.leave()
            else:
                await client.set_tags(tags_of(self._own))
        finally:
            client.close()

    # --- The view --------------------------------------------------------------------------------

    @property
    def stranger_count(self) -> int:
        """Members of the gossip that are no nodes."""
        return self._found.stranger_count

    @property
    def other_cluster_count(self) -> int:
        """Members of the gossip that are nodes of another cluster."""
        return self._found.other_cluster_count

    def announce(self, description: Description) -> None:
        """Tell the others as soon as there is an agent.  Raises InvalidRequest if it would not take so much."""
        own = replace(self._own, description=description)
        tags = tags_of(own)
        self._own = own
        self._agent.keep_tags(tags)
        self._take(self._members)
        self._errands_soon.set()

    def forget(self, node_id: str) -> None:
        member = self._view.members.get(node_id)
        if member is not None and member.status is MemberStatus.FAILED:
            self._to_forget.add(node_id)
            self._errands_soon.set()

    def _show(self) -> None:
        own = self._own
        alive = Sighting(own.description, MemberStatus.ALIVE, own.run)
        self._view.show({own.description.node_id: alive, **self._found.nodes})
        self._view.show_conflicts(self._found.conflicts)

    def _take(self, members: Sequence[AgentMember]) -> None:
        before, self._members = self._found, members
        self._found = sightings_of(members, self._own)
        self._agent.keep_peers(self._found.addresses)
        for what, count, count_before in (
            ("no node", self._found.stranger_count, before.stranger_count),
            ("of another cluster", self._found.other_cluster_count, before.other_cluster_count),
        ):
            if count != count_before:
                logger.info("members of the gossip are left out count=%d since=%s", count, what)
        self._show()

    # --- The agent -------------------------------------------------------------------------------

    async def _run_for_ever(self) -> None:
        # A cancellation can be lost: a group of tasks of which one fails at that moment raises that alone.
        while not self._is_closing:
            address = self._agent.address
            if address is not None:
                try:
                    async with contextlib.AsyncExitStack() as stack:
                        clients = []
                        for _ in range(2):
                            client = await SerfClient.open(self._network, address)
                            stack.callback(client.close)
                            clients.append(client)
                        await self._follow(*clients)
                except* DistlogError as group:
                    self._complain(group.exceptions[0])
            if not self._is_closing:
                self._look_soon.clear()
                await _set_within(self._look_soon, self._settings.retry_s)

    async def _follow(self, looking: SerfClient, running: SerfClient) -> None:
        """Look at the members and run errands until a connection fails."""
        self._agent_name = (await looking.stats()).get("agent", {}).get("name", "")
        self._joined_at = None
        events = await looking.stream(EVENTS)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen(events))
            group.create_task(self._look(looking))
            group.create_task(self._run_errands(running))

    async def _listen(self, events: SerfStream) -> None:
        async for _ in events:
            self._look_soon.set()

    async def _look(self, client: SerfClient) -> None:
        while True:
            # Before the look: what happens while it is under way calls for another one.
            self._look_soon.clear()
            members = await client.members()
            self._view.confirm()
            self._take(members)
            self._errands_soon.set()
            if self._problem:
                logger.info("the Serf agent answers again")
                self._problem = ""
            await asyncio.sleep(self._settings.pause_s)
            await _set_within(self._look_soon, self._settings.interval_s)

    def _complain(self, problem: BaseException) -> None:
        """Log what is wrong, once."""
        if str(problem) != self._problem:
            logger.warning(
                "the view of the nodes stays as it is: look after the Serf agent problem=%s",
                problem,
            )
        self._problem = str(problem)

    # --- Errands ---------------------------------------------------------------------------------

    async def _run_errands(self, client: SerfClient) -> None:
        complained_at = -REPEAT_S
        while True:
            await self._errands_soon.wait()
            self._errands_soon.clear()
            try:
                await self._keep_tags(client)
                await self._clean_up(client)
                await self._rejoin(client)
            except (AgentRefused, AgentSilent) as problem:
                # The connection is as good as before, and the next look finds again what is to be done.
                if self._clock.monotonic() - complained_at >= REPEAT_S:
                    complained_at = self._clock.monotonic()
                    logger.warning(
                        "the Serf agent cannot do what it was asked for: look at its log problem=%s",
                        problem,
                    )

    async def _keep_tags(self, client: SerfClient) -> None:
        wanted = tags_of(self._own)
        member = self._own_member()
        if member is None:
            return
        present = {name: value for name, value in member.tags.items() if name in ALL_TAGS}
        if present != wanted:
            await client.set_tags(wanted, sorted(present.keys() - wanted.keys()))
            self._look_soon.set()

    def _own_member(self) -> AgentMember | None:
        return next((each for each in self._members if each.name == self._agent_name), None)

    async def _clean_up(self, client: SerfClient) -> None:
        """Have those counted as left that shall be forgotten, and the names of nodes that have another one by now.

        Never with `prune`: an agent that takes the member for alive waits with that for six seconds, and answers nobody meanwhile.
        """
        for node_id in sorted(self._to_forget):
            for name in self._found.failed_names.get(node_id, []):
                await client.force_leave(name)
                self._look_soon.set()
            self._to_forget.discard(node_id)
        for name in self._found.superseded_names[:CLEAN_UP_COUNT_MAX]:
            await client.force_leave(name)
            self._look_soon.set()

    async def _rejoin(self, client: SerfClient) -> None:
        """Join the seeds that are not alive, one after the other, now and then; more often while nobody else is."""
        alive = {
            (member.host, member.port)
            for member in self._members
            if member.status is AgentStatus.ALIVE
        }
        missing = [each for each in self._join if host_and_port(each) not in alive]
        settings, now = self._settings, self._clock.monotonic()
        interval_s = settings.rejoin_interval_s if len(alive) > 1 else settings.interval_s
        is_due = self._joined_at is None or now - self._joined_at >= interval_s
        if not missing or not is_due:
            return
        problem: DistlogError | None = None
        for each in missing:
            try:
                await client.join([each])
                self._look_soon.set()
            except (AgentRefused, AgentSilent) as refused:
                problem = refused
        self._joined_at = self._clock.monotonic()
        # While others are there, those that are not are no news.
        if problem is not None and len(alive) <= 1:
            raise problem


async def _set_within(event: asyncio.Event, timeout_s: float) -> None:
    """Return when `event` is set, or the time is over."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout_s):
            await event.wait()
