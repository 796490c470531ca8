"""The complete rules with one part taken out: what a test runs to see that the part is needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from distlog.consensus.messages import AppendEntries, AppendReply
from distlog.consensus.rules import Rules, complete_rules
from distlog.consensus.rules.append_filter import Filtered
from distlog.consensus.rules.configuration_log import ConfigurationLog


class NoPersistenceGate:
    held_count = 0

    def __init__(self, transmit: Any) -> None:
        self._transmit = transmit

    def send(self, receiver: str, message: Any, **_: int) -> None:
        self._transmit(receiver, message)

    def release(self, _durable: int) -> None: ...

    def drop(self, _receiver: str) -> None: ...


class NoCommitGate:
    def __init__(self, _transmit: Any) -> None: ...

    def admit(self, _voter: str, reply: AppendReply, _durable: int) -> AppendReply:
        return reply

    def release(self, _durable: int) -> list[Any]:
        return []

    def drop(self, _voter: str) -> None: ...

    def clear(self) -> None: ...


class NoAppendFilter:
    def __init__(self, _transmit: Any) -> None: ...

    def admit(self, message: AppendEntries, **_: Any) -> Filtered:
        return Filtered(message, None)


class NoVoteFilter:
    def __init__(self, _transmit: Any) -> None: ...

    def admits(self, *_: Any, **__: Any) -> bool:
        return True


class NoAcknowledgementFilter:
    def __init__(self, _transmit: Any) -> None: ...

    def admit(self, _voter: str, reply: AppendReply, **_: Any) -> AppendReply:
        return reply

    def drop(self, _voter: str) -> None: ...

    def clear(self) -> None: ...


class NoSendWindow:
    """Everything is sent at once, and again from the acknowledged entry on."""

    def __init__(self, _transmit: Any) -> None: ...

    def admit(self, *_: Any, **__: Any) -> bool:
        return True

    def acknowledged(self, *_: Any) -> None: ...

    def rewound(self, *_: Any) -> None: ...

    def resume(self, _voter: str) -> None: ...

    def next_to_send(self, *_: Any) -> None: ...

    def drop(self, _voter: str) -> None: ...

    def clear(self) -> None: ...


class NoPreVote:
    """Every voter campaigns without asking when its election time-out is over."""

    is_asking = False

    def __init__(self, _transmit: Any) -> None:
        self._term: int | None = None

    def begin(self, term: int) -> int:
        self._term = term
        return 0

    def abandon(self) -> None:
        self._term = None

    def take(self, *_: Any) -> None: ...

    def is_won(self, term: int, _voters: Any) -> bool:
        return self._term == term

    def grants(self, *_: Any, **__: Any) -> bool:
        return True


class NoConfigurationLog(ConfigurationLog):
    """What is in force is what was applied last: nothing is known after a restart before it is applied again."""

    def __init__(self, _transmit: Any) -> None:
        ConfigurationLog.__init__(self)

    def restored(self, _configuration: Any) -> None: ...

    def truncated(self, _raft_index: int) -> bool:
        return False

    def appended(self, configuration: Any) -> None:
        self._configurations.append(configuration)


class NoOneChange:
    def __init__(self, _transmit: Any) -> None: ...

    def admits(self, **_: Any) -> bool:
        return True


class NoCaughtUp:
    def __init__(self, _transmit: Any) -> None: ...

    def watch(self, _learner: str, **_: Any) -> bool:
        return True

    def drop(self, _learner: str) -> None: ...

    def clear(self) -> None: ...


class NoIdentity:
    def __init__(self, _transmit: Any) -> None: ...

    def is_member(self, **_: Any) -> bool:
        return True


class NoCandidacy:
    def __init__(self, _transmit: Any) -> None: ...

    def may_campaign(self, *_: Any) -> bool:
        return True


MISSING: dict[str, Callable[[Any], Any]] = {
    "persistence_gate": NoPersistenceGate,
    "commit_gate": NoCommitGate,
    "append_filter": NoAppendFilter,
    "vote_filter": NoVoteFilter,
    "pre_vote": NoPreVote,
    "acknowledgements": NoAcknowledgementFilter,
    "send_window": NoSendWindow,
    "configuration_log": NoConfigurationLog,
    "one_change": NoOneChange,
    "caught_up": NoCaughtUp,
    "identity": NoIdentity,
    "candidacy": NoCandidacy,
}


def without(name: str) -> Callable[[Any, int], Rules]:
    """Return a maker of rules whose part `name` does nothing."""

    def make(transmit: Any, size_max: int) -> Rules:
        part: Any = MISSING[name](transmit)
        return dataclasses.replace(complete_rules(transmit, size_max), **{name: part})

    return make
