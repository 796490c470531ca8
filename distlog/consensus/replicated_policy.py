"""The policy that the cluster has agreed on: read here, changed through the majority, told of whenever it changes.

It is in the state machine like the topics, so a node that has applied the same entries has the same policy.  A node that has just
started, or was cut off, knows an old one: `learn` returns when everything that was acknowledged before is applied.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from distlog.consensus.commands import ChangePolicy, Command
from distlog.consensus.results import PolicyChanged
from distlog.consensus.state_machine import StateMachine
from distlog.security.policy import NO_POLICY, Policy, Rule


class ReplicatedPolicy:
    """The policy of one group, on one node."""

    def __init__(
        self,
        settled: Callable[[Callable[[], Command]], Awaitable[Any]],
        learn: Callable[[], Awaitable[None]],
    ) -> None:
        """settled(command): proposes what `command()` returns, and returns its result.

        learn(): returns when everything that was acknowledged before is applied here; NoLeader.
        """
        self._settled = settled
        self.learn = learn
        self._state: StateMachine | None = None
        # Called, on the loop, whenever another policy may be in force here.
        self.changed: list[Callable[[], None]] = []

    @property
    def current(self) -> Policy:
        """The policy as this node has applied it."""
        return NO_POLICY if self._state is None else self._state.policy

    def attach(self, state: StateMachine) -> None:
        """The cluster is formed, or this node has another state."""
        if self._state is not None:
            self._state.policy_changed = _nobody
        self._state = state
        state.policy_changed = self._tell
        self._tell()

    async def change(
        self, added: Sequence[Rule], removed: Sequence[Rule], *, may_open: bool = False
    ) -> PolicyChanged:
        """Add rules, then remove others, all together.

        Raises InvalidRequest, NotLeader, NoLeader, ShuttingDown, and OutcomeUnknown when it may be changed; it can be repeated.
        """
        command = ChangePolicy(tuple(added), tuple(removed), may_open)
        changed: PolicyChanged = await self._settled(lambda: command)
        return changed

    def _tell(self) -> None:
        for callback in self.changed:
            callback()


def _nobody() -> None:
    """The state is no longer that of this node."""
