"""The rows that one node has: the state of gossip, without a clock, a connection or randomness of its own.

    beat(now)                     the own row with its next heartbeat
    message(now) -> bytes         everything, for a peer        receive(bytes, now) -> an answer, or None
    sightings(now)                who is alive, failed, left

A node is failed when its heartbeat has stood still for `fail_after_s`, as seen from here.  A node that was itself held up for a while
does not blame the others for that: the time in which it did not run does not count.

A node's own row is only changed by itself.  If others have one that counts more, that is of an earlier process with a clock that ran
ahead, or somebody has declared it gone by mistake: it takes a run that is greater still.  If that does not end, two nodes have one id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import msgspec

from distlog.discovery.gossip_rows import (
    ALIVE,
    LEFT,
    NUMBER_MAX,
    ROW_COUNT_MAX,
    STATUSES,
    Row,
    decode_rows,
    encode_rows,
    own_row,
)
from distlog.discovery.view import Description, MemberStatus, Sighting, two_nodes

# A node that is at two places by turns, so often within that time, is two nodes.
TURN_COUNT = 3
TURNS_WITHIN_S = 10.0
# Two nodes with one id are said to be there until their rows have been quiet for so long.
CONFLICT_LASTS_S = 60.0


@dataclass(frozen=True, slots=True)
class GossipSettings:
    """Times in seconds."""

    # Between two heartbeats; each is up to a tenth shorter or longer.
    interval_s: float = 1.0
    # Peers that are told each time.
    peer_count_max: int = 3
    # A node is failed when its heartbeat has stood still for so long, and forgotten when it has for so long.
    fail_after_s: float = 5.0
    forget_after_s: float = 86_400.0
    # A step of this node that comes so much too late was held up.
    stall_s: float = 2.0


DEFAULT_SETTINGS = GossipSettings()


class GossipTable:
    """The newest row of each node, and when its heartbeat was made, by this node's clock."""

    def __init__(
        self,
        own: Description,
        *,
        run: int,
        now: float,
        settings: GossipSettings = DEFAULT_SETTINGS,
    ) -> None:
        """run: greater than that of every earlier process of this node, as far as a clock can tell.

        Raises InvalidRequest if the others could not read the description.
        """
        self._settings = settings
        self._own_id = own.node_id
        self._rows = {own.node_id: own_row(own, run, 0, ALIVE)}
        # When, at the latest, each heartbeat was made.  That of this node stays where it is, and means nothing.
        self._made_at = {own.node_id: now}
        # When this node last did anything here.
        self._awake_at = now
        # When rows were last heard.
        self._heard_at = now
        # Nodes that were left out since there are too many.
        self.left_out_count = 0
        # Node id -> when its place changed, for as long as that was lately; the two places of a node that is at two by turns.
        self._turns: dict[str, deque[float]] = {}
        self._conflicts: dict[str, str] = {}

    # --- What this node does -----------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Take a step: call it each `interval_s`."""
        self._wake(now)
        own = self._rows[self._own_id]
        if own.status == ALIVE:
            self._renew(own)
        for node_id, made_at in list(self._made_at.items()):
            if node_id != self._own_id and now - made_at > self._settings.forget_after_s:
                del self._rows[node_id], self._made_at[node_id]
        for node_id, turns in list(self._turns.items()):
            if now - turns[-1] > CONFLICT_LASTS_S:
                del self._turns[node_id]
                self._conflicts.pop(node_id, None)

    def announce(self, description: Description) -> None:
        """Say something else of this node.  Raises InvalidRequest."""
        assert description.node_id == self._own_id, "a node speaks for itself"
        own = self._rows[self._own_id]
        self._rows[self._own_id] = own_row(description, own.run, _after(own.heartbeat), own.status)

    def leave(self) -> None:
        """Say that this node has left."""
        own = self._rows[self._own_id]
        self._rows[self._own_id] = msgspec.structs.replace(
            own, status=LEFT, heartbeat=_after(own.heartbeat)
        )

    def forget(self, node_id: str, now: float) -> bool:
        """Declare a node left that is failed; False if it is not.  If it is alive after all, it outdoes that."""
        row = self._rows.get(node_id)
        if row is None or self._status_of(row, now) is not MemberStatus.FAILED:
            return False
        self._rows[node_id] = msgspec.structs.replace(
            row, status=LEFT, heartbeat=_after(row.heartbeat)
        )
        return True

    # --- What is said and heard --------------------------------------------------------------------

    def message(self, now: float, *, wants_answer: bool) -> bytes:
        """Return everything that this node knows.  wants_answer: the peer shall answer with what it knows better."""
        return encode_rows(self._told(now, lambda _row: True), wants_answer=wants_answer)

    def receive(self, payload: bytes, now: float) -> bytes | None:
        """Take what a peer knows; return what to answer.  Raises MalformedRows, and nothing has changed then."""
        message = decode_rows(payload)
        self._wake(now)
        self._heard_at = now
        theirs = {row.node_id: row for row in message.rows}
        for row in message.rows:
            self._merge(row, now)
        if not message.wants_answer:
            return None

        def is_news(row: Row) -> bool:
            known = theirs.get(row.node_id)
            return known is None or row.supersedes(known)

        news = self._told(now, is_news)
        return encode_rows(news, wants_answer=False) if news else None

    def _told(self, now: float, is_told: Callable[[Row], bool]) -> list[Row]:
        """Return the rows that a peer shall hear, each with its age; none that would be forgotten on the way."""
        return [
            msgspec.structs.replace(row, age_ms=self._age_ms(row, now))
            for row in self._rows.values()
            if is_told(row)
        ]

    def _age_ms(self, row: Row, now: float) -> int:
        if row.node_id == self._own_id:
            return 0
        return max(0, min(NUMBER_MAX, int(1000 * (now - self._made_at[row.node_id]))))

    def _merge(self, row: Row, now: float) -> None:
        node_id, made_at = row.node_id, now - row.age_ms / 1000
        known = self._rows.get(node_id)
        if known is None:
            if now - made_at > self._settings.forget_after_s:
                return
            if len(self._rows) >= ROW_COUNT_MAX and not self._make_room(row, made_at, now):
                self.left_out_count += 1
                return
            self._rows[node_id], self._made_at[node_id] = row, made_at
            return
        if not row.supersedes(known):
            return
        self._note_place(row, known, now)
        if node_id == self._own_id:
            self._outdo(row, known)
            return
        self._rows[node_id] = row
        self._made_at[node_id] = max(made_at, self._made_at[node_id])

    def _make_room(self, row: Row, made_at: float, now: float) -> bool:
        """Forget the node that is not alive for longest, for one that is; False if there is no such pair."""
        if row.status != ALIVE or now - made_at > self._settings.fail_after_s:
            return False
        gone = [
            each.node_id
            for each in self._rows.values()
            if self._status_of(each, now) is not MemberStatus.ALIVE
        ]
        if not gone:
            return False
        oldest = min(gone, key=self._made_at.__getitem__)
        del self._rows[oldest], self._made_at[oldest]
        return True

    def _outdo(self, row: Row, own: Row) -> None:
        """Let this node's own row count more than one that the others have."""
        if own.status == LEFT and row.status == LEFT:
            return
        self._rows[self._own_id] = msgspec.structs.replace(own, run=_after(row.run), heartbeat=0)

    def _note_place(self, row: Row, known: Row, now: float) -> None:
        """Watch for a node that seems to be at two places by turns."""
        if row.status == LEFT or _place(row) == _place(known):
            return
        turns = self._turns.setdefault(row.node_id, deque(maxlen=TURN_COUNT))
        turns.append(now)
        if len(turns) == TURN_COUNT and now - turns[0] <= TURNS_WITHIN_S:
            # Whoever reads it, the two are always named in the same order.
            one, other = sorted((row, known), key=_place)
            self._conflicts[row.node_id] = two_nodes(
                row.node_id, one.description(), other.description()
            )

    def _renew(self, own: Row) -> None:
        self._rows[self._own_id] = msgspec.structs.replace(own, heartbeat=_after(own.heartbeat))

    def _wake(self, now: float) -> None:
        held_up_s = now - self._awake_at - self._settings.interval_s
        self._awake_at = now
        if held_up_s > self._settings.stall_s:
            # Whatever was said meanwhile could not be heard.
            self._heard_at += held_up_s
            for node_id in self._made_at:
                self._made_at[node_id] += held_up_s

    # --- What there is -----------------------------------------------------------------------------

    @property
    def run(self) -> int:
        """Return which run of its node this is now."""
        return self._rows[self._own_id].run

    @property
    def conflicts(self) -> Mapping[str, str]:
        return self._conflicts

    def sightings(self, now: float) -> dict[str, Sighting]:
        """Return every node, this one included."""
        return {
            node_id: Sighting(row.description(), self._status_of(row, now), row.run)
            for node_id, row in sorted(self._rows.items())
        }

    def age_s(self, now: float) -> float:
        """Return the seconds since anybody was heard, 0 where there is nobody to hear."""
        others = (row for row in self._rows.values() if row.node_id != self._own_id)
        return now - self._heard_at if any(row.status == ALIVE for row in others) else 0.0

    def _status_of(self, row: Row, now: float) -> MemberStatus:
        is_old = now - self._made_at[row.node_id] > self._settings.fail_after_s
        if row.status == ALIVE and is_old and row.node_id != self._own_id:
            return MemberStatus.FAILED
        return STATUSES[row.status]


def _after(number: int) -> int:
    return min(number + 1, NUMBER_MAX)


def _place(row: Row) -> tuple[str, str]:
    return row.directory_id, row.peer_address
