"""Whether a node serves its clients, and if not, why: what health checks, probes and the status of a node rest on.

    starting     its files are opened                            -> not ready
    forming      its cluster has not formed, or did not take it  -> not ready
    copying      it copies the state of another node             -> not ready
    recovering   it has not applied yet what was committed when it came back, or began to lead        -> not ready
    leaderless   it hears no leader, or leads and hears no majority               -> not ready
    removed      it is no member any more                        -> not ready
    stopping     it has been told to stop                        -> not ready
    leading, following                                           -> ready, also with a full disk: what is there can be read

A node is ready if it can prove a read and say where a write goes.
"""

from __future__ import annotations

from collections.abc import Sequence

from distlog.consensus.group import Group
from distlog.consensus.views import CopyStatus, Standing
from distlog.errors import DescriptorsExhausted

MIB = 1 << 20


def standing_of(
    group: Group | None,
    *,
    is_stopping: bool,
    opening: str,
    detached_because: str,
    waiting_for: Sequence[str],
    copy: CopyStatus | None,
) -> Standing:
    """Say where a node stands in this step.

    group: None while there is none, because its files are opened (opening), it is between two states (detached_because), or its cluster
    waits for others.
    """
    if is_stopping:
        return _not_ready("stopping", "this node stops")
    if group is None:
        if detached_because:
            return _not_ready("copying", detached_because)
        if opening:
            return _not_ready("starting", opening)
        missing = ", ".join(waiting_for) or "its configuration"
        return _not_ready("forming", f"the cluster is not formed yet: waiting for {missing}")
    raft, replicas = group.raft, group.raft.replicas
    if (replicas.node_id, replicas.directory_id) in group.configuration.removed:
        return _not_ready("removed", "this node is no member of its cluster any more")
    if copy is not None:
        return _not_ready("copying", _copying(copy))
    if raft.is_leader and raft.last_applied < raft.commit_index and not raft.is_ready_leader:
        return _not_ready("recovering", _applied(raft.last_applied, raft.commit_index))
    if not raft.is_led:
        return _not_ready("leaderless", _leaderless(group))
    if not raft.has_caught_up:
        return _not_ready("recovering", _applied(raft.last_applied, raft.catch_up_target))
    return Standing("leading" if raft.is_leader else "following", True, _no_writes(group))


def _not_ready(state: str, problem: str) -> Standing:
    return Standing(state, False, problem)


def _no_writes(group: Group) -> str:
    if not group.space.is_full:
        return ""
    lacks_files = isinstance(group.space.refusal(), DescriptorsExhausted)
    why = "no file can be opened, raise its limit" if lacks_files else "its disk is full"
    return f"it takes no writes: {why}"


def _applied(done: int, target: int) -> str:
    return f"{done} of {target} entries are applied"


def _copying(copy: CopyStatus) -> str:
    share = f"{copy.done_size / MIB:.1f} of {copy.size / MIB:.1f} MiB"
    source = f" from {copy.source}" if copy.source else ""
    return f"{share} are copied{source}" + (
        f", and it waits: {copy.problem}" if copy.problem else ""
    )


def _leaderless(group: Group) -> str:
    """Say what is known of a majority: it is what an election lacks."""
    raft = group.raft
    voters = group.configuration.voters
    own = raft.replicas.node_id
    up = [each for each in voters if each == own or each in raft.replicas.connected]
    away = ", ".join(sorted(set(voters) - set(up)))
    needed = len(voters) // 2 + 1
    if len(up) < needed:
        return (
            f"no majority: {len(up)} of {len(voters)} voters are reached, {needed} are needed; start {away}, or mend the network. If they "
            "are up, the log of this node says whether they refuse it"
        )
    if raft.is_leader:
        return "it leads, and is not ready yet or does not hear a majority"
    return "no leader is heard: an election is under way"
