"""How a node leaves its cluster for good: the leader removes it, discovery is told, and its process ends.

    it leads? hand over -> ask the leader to remove me -> committed -> discovery: left -> `left` is done, and whoever runs the node stops it

It never removes itself, and until the removal is committed it goes on as a member: whatever fails before that leaves it one.  An entry
that a leader took with it may be committed later: what was in doubt is asked again, of any member if no leader is to be heard, for nobody
speaks with a node that was removed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from distlog.addresses import host_and_port
from distlog.consensus.group import Group
from distlog.consensus.reads import no_leader
from distlog.consensus.replicated_log import ReplicatedLog
from distlog.consensus.views import MemberStatus
from distlog.errors import (
    DistlogError,
    MemberNotFound,
    MembershipChangeRefused,
    MembershipChangeUnderWay,
    NoLeader,
    NotLeader,
    OutcomeUnknown,
    ShuttingDown,
    Unreachable,
)
from distlog.membership.finding import Finding
from distlog.node_settings import MemberIdentity, NodePorts, NodeSettings

logger = logging.getLogger(__name__)

TIMEOUT_S = 20.0
PAUSE_S = 0.2
# What another leader, or the same one a moment later, may do; nothing was begun.
REFUSED = (MembershipChangeUnderWay, NoLeader, NotLeader, ShuttingDown, Unreachable)


class Departure:
    """One node that may leave."""

    def __init__(
        self,
        settings: NodeSettings,
        ports: NodePorts,
        log: ReplicatedLog,
        finding: Finding,
        group: Callable[[], Group | None],
    ) -> None:
        """group(): the one that runs; None: this node belongs to no cluster."""
        self._settings = settings
        self._ports = ports
        self._log = log
        self._finding = finding
        self._group = group
        # Done when this node is no member any more, and is to be stopped.
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        # A leader was asked to remove it, and never said that it had not; and how many requests are under way that may end so.
        self._is_unknown = False
        self._asking_count = 0
        # How often no leader was heard of: the others are asked in turns.
        self._turn = 0

    async def leave(self, timeout_s: float = TIMEOUT_S) -> None:
        """Have this node removed, for good.

        Raises MembershipChangeRefused, LeadershipNotTransferred, and NoLeader or what it was last refused with when the time is up: it is
        a member then as before.  Raises OutcomeUnknown when it may be one no more; it runs on, and may be asked again.
        """
        group = self._group()
        if group is None:
            raise no_leader("this node belongs to no cluster: stop it instead")
        node_id = self._settings.node_id
        last: DistlogError = no_leader("an election is under way")
        if group.configuration.voters.keys() == {node_id}:
            problem = "it is the only voter: stop it instead"
            raise MembershipChangeRefused(node_id=node_id, problem=problem)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    try:
                        await self._ask_the_leader(group)
                        break
                    except MemberNotFound:
                        # Somebody has removed it, perhaps this node the time before.
                        break
                    except (*REFUSED, OutcomeUnknown) as error:
                        last = error
                    except OSError as error:
                        last = no_leader(f"the leader does not answer: {error}")
                    await asyncio.sleep(PAUSE_S)
        except TimeoutError:
            if self._is_unknown or self._asking_count:
                problem = (
                    "this node may be removed already: ask it to leave again, or ask the others"
                )
                raise OutcomeUnknown(cause=problem) from None
            raise last from None
        logger.info(
            "this node is no member any more, and stops; its data directory never comes back"
        )
        try:
            await self._finding.leave()
        finally:
            # Whoever asked may be gone meanwhile: it is no member all the same.
            if not self.left.done():
                self.left.set_result(None)

    async def _ask_the_leader(self, group: Group) -> None:
        log = self._log
        if log.is_leader:
            await log.transfer_leadership()
        status = log.status(with_topics=False)
        place = host_and_port(status.leader_address) or self._another(status.members)
        if place is None or log.is_leader:
            raise no_leader("an election is under way")
        member = MemberIdentity(
            group.configuration.cluster_id, self._settings.node_id, group.raft.replicas.directory_id
        )
        self._asking_count += 1
        try:
            await self._ports.remove_member(place, member)
        except (*REFUSED, MembershipChangeRefused):
            raise
        except BaseException:
            # Also if nobody waits for the answer any more.
            self._is_unknown = True
            raise
        finally:
            self._asking_count -= 1

    def _another(self, members: Sequence[MemberStatus]) -> tuple[str, int] | None:
        """Return where clients reach one of the others, who answers if it leads; another one each time."""
        others = (each for each in members if each.node_id != self._settings.node_id)
        places = [place for each in others if (place := host_and_port(each.client_address))]
        self._turn += 1
        return places[self._turn % len(places)] if places else None
