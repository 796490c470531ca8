"""The driver of one Raft group: inbox -> rules and pysyncobj -> fsync, in steps of the event loop, and checkpoints.

One step drains the inbox, takes what waits to be proposed, ticks Raft (commit, apply, propose, send) and starts a group
fsync in the journal's worker.  A step follows every message, proposal and finished fsync at once; a timer adds one where
nothing happens.  While an fsync runs everything else goes on, and what arrives meanwhile shares the next one.

    message, proposal, fsync done, timer -> kick -> step -> JournalSync: write + fdatasync -> release what was held -> step

Any exception here is fatal to the process: consensus state may be half updated.  `failed` is called once, and
nothing is done or sent afterwards.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from random import Random
from typing import Any

from distlog.consensus import messages
from distlog.consensus.checkpoint import CheckpointImage
from distlog.consensus.checkpoints import CheckpointPorts, Checkpoints
from distlog.consensus.configuration import Configuration
from distlog.consensus.entry_traces import EntryTraces
from distlog.consensus.inbox import Inbox
from distlog.consensus.journal import Journal
from distlog.consensus.journal_sync import JournalSync
from distlog.consensus.journal_view import RestorePoint
from distlog.consensus.library import Done, RaftSettings
from distlog.consensus.membership import Membership
from distlog.consensus.messages import RAFT_MESSAGES, AppendReply, Message
from distlog.consensus.raft import Raft
from distlog.consensus.reads import ReadIndex
from distlog.consensus.rules import Rules, complete_rules
from distlog.consensus.space import Space
from distlog.consensus.space_watch import SpaceWatch
from distlog.consensus.stalls import Stalls
from distlog.consensus.state_machine import StateMachine
from distlog.consensus.transfer import LeadershipTransfer
from distlog.errors import LeadershipNotTransferred, PeerRefused
from distlog.runtime import Clock, Worker
from distlog.storage.disk import Disk
from distlog.storage.reserve import Reserve
from distlog.tracing.spans import NO_TRACER, Tracer

logger = logging.getLogger(__name__)

# Messages handled in one step, and their bytes: a step with more would hold up everything else for too long.
INBOX_PER_STEP = 64
INBOX_SIZE_PER_STEP = 4 << 20
# A commit is told with the next entries, or after this: under load that saves half of all messages, and a client that appends one
# record after the other sends its next one within this.
COMMIT_NEWS_DELAY_S = 0.001


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Times in seconds, sizes in bytes."""

    raft: RaftSettings = field(default_factory=RaftSettings)
    checkpoint_interval_s: float = 60.0
    # A checkpoint is due when so much was written to the journal since the last one.
    checkpoint_journal_size: int = 64 << 20
    # The journal forgets what a voter that is away may still need rather than grow beyond this.
    journal_size_max: int = 256 << 20


@dataclass(frozen=True, slots=True)
class GroupPorts:
    """What the group reaches the outside by."""

    disk: Disk
    # The space on it that this node's promises rest on.
    reserve: Reserve
    clock: Clock
    random: Random
    journal_worker: Worker
    checkpoint_worker: Worker
    # Queue a message, in parts, for a peer; False if it is not connected.
    transmit: Callable[[str, Sequence[bytes]], bool]
    # Send what is queued without waiting for the end of this step of the loop.
    flush: Callable[[], None]
    # The peer does not keep the protocol: close its connection.
    refuse: Callable[[str, PeerRefused], None]
    # The group cannot go on; called once.
    failed: Callable[[BaseException], None]
    tracer: Tracer = NO_TRACER


class Group:
    """One voter of one group, driven."""

    def __init__(
        self,
        *,
        node_id: str,
        directory_id: str,
        configuration: Configuration,
        journal: Journal,
        state_machine: StateMachine,
        image: CheckpointImage | None,
        checkpoint_path: str,
        ports: GroupPorts,
        settings: GroupSettings,
        rules: Callable[[Callable[[str, Message], None], int], Rules] = complete_rules,
    ) -> None:
        """`state_machine` is restored from `image` already, and `journal` fits it (consensus/recovery.py).

        configuration: what the cluster was formed with; `image` and `journal` may hold newer ones.

        rules: the composition around pysyncobj; only tests give another than the complete one.
        """
        self.journal = journal
        self.state_machine = state_machine
        self._ports = ports
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        # A step is for all: it does not run as a part of the call that kicked it, which has variables of its own.
        self._context = copy_context()
        # Called before each tick: (payload, done) of the entries to propose.
        self.take_proposals: Callable[[], Sequence[tuple[bytes, Done]]] = lambda: ()
        # Called after each step that applied something, and whenever role, term or leader changed.
        self.applied: Callable[[], None] = lambda: None
        self.leadership_changed: Callable[[], None] = lambda: None
        # Called a few times in a second, whatever happens or does not.
        self.ticked: Callable[[], None] = lambda: None
        self.traces = EntryTraces(ports.tracer)
        self.space = Space(ports.reserve, lambda: len(state_machine.topics()))
        self._rules = rules(self._transmit, settings.raft.in_flight_size_max)
        if image is not None:
            configuration = image.configuration
        self.raft = self._make_raft(node_id, directory_id, configuration, _restore_point(image))
        self.reads = ReadIndex(self.raft, self._transmit)
        transfer_timeout_s = settings.raft.election_timeout_max_s
        self._transfer = LeadershipTransfer(self.raft, transfer_timeout_s, self.kick)
        self.membership = self._make_membership()
        # A window of entries, and what is sent again after a rewind.
        window_size = settings.raft.in_flight_size_max + settings.raft.entry_size_max
        self.inbox = Inbox(4 * window_size)
        # Since when a step is due; None: none is.
        self._step_due_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due_at = 0.0
        self.stalls = Stalls()
        # Set while voters are to be told of a commit.
        self._news_timer: asyncio.TimerHandle | None = None
        # The time may ask for something: a heartbeat, an election.
        self._tick_due = True
        self.journal_sync = self._sync_journal()
        self._space_watch = self._watch_space()
        self.checkpoints = self._make_checkpoints(image, checkpoint_path)
        self._stopped = False
        # Set at the beginning of a stop: peers are not listened to any more.
        self._draining = False
        # How often another node than before, or the same again in a newer term, was found to lead.
        self.leader_change_count = 0
        # (leader id, term, role) as last announced.
        self._announced: tuple[str | None, int, bool] = (None, 0, False)

    def _sync_journal(self) -> JournalSync:
        return JournalSync(
            self.journal,
            self._ports.journal_worker,
            guarded=self._guarded,
            promisable=self._promisable,
            finished=self._after_sync,
            now=self._ports.clock.monotonic,
        )

    def _make_raft(
        self,
        node_id: str,
        directory_id: str,
        configuration: Configuration,
        restore_point: RestorePoint | None,
    ) -> Raft:
        ports, settings = self._ports, self._settings.raft
        return Raft(
            node_id=node_id,
            directory_id=directory_id,
            configuration=configuration,
            journal=self.journal,
            restore_point=restore_point,
            clock=ports.clock,
            random=ports.random,
            settings=settings,
            rules=self._rules,
            space=self.space,
            apply=self._apply,
            traces=self.traces,
        )

    def _watch_space(self) -> SpaceWatch:
        return SpaceWatch(
            space=self.space,
            reserve=self._ports.reserve,
            worker=self._ports.checkpoint_worker,
            clock=self._ports.clock,
            # Before that the others have not said whether they have space.
            is_leader=lambda: self.raft.is_in_touch,
            hand_over=self._hand_over_for_space,
            changed=self.kick,
            guarded=self._guarded,
        )

    def _make_membership(self) -> Membership:
        settings = self._settings.raft
        membership = Membership(
            self.raft, self._rules, self.space, self._ports.clock, settings.election_timeout_max_s
        )
        membership.is_held_up = lambda: self._transfer.is_under_way
        membership.hand_over = self._hand_over
        return membership

    def _make_checkpoints(self, image: CheckpointImage | None, path: str) -> Checkpoints:
        ports, settings = self._ports, self._settings
        return Checkpoints(
            raft=self.raft,
            state_machine=self.state_machine,
            space=self.space,
            index=image.raft_index if image is not None else 1,
            interval_s=settings.checkpoint_interval_s,
            journal_size=settings.checkpoint_journal_size,
            journal_size_max=settings.journal_size_max,
            ports=CheckpointPorts(
                disk=ports.disk,
                path=path,
                clock=ports.clock,
                worker=ports.checkpoint_worker,
                journal_worker=ports.journal_worker,
                flush_journal=self.journal_sync.flush,
                guarded=self._guarded,
            ),
        )

    # --- Life ----------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to take part."""
        self._timer_due_at = self._ports.clock.monotonic()
        self._on_timer()

    async def stop(self, *, with_checkpoint: bool = True) -> None:
        """Make everything durable, write a last checkpoint, and take part no more.

        with_checkpoint: if False the newest stays as it is, and none is under way when this returns.
        """
        if self._stopped:
            return
        # What peers still send would make this go on for ever.
        self._draining = True
        self.inbox.clear()
        await self.journal_sync.drain()
        if not self._stopped:
            await self.checkpoints.write_last(another=with_checkpoint)
        self.abandon()

    def silence(self) -> None:
        """Tell nobody of anything any more, and take nothing to propose."""
        self.take_proposals = lambda: ()
        self.applied = self.leadership_changed = self.ticked = lambda: None

    def abandon(self) -> None:
        """Stop at once, as a crash would, without another write."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        if self._news_timer is not None:
            self._news_timer.cancel()
        self.journal_sync.close()
        self.checkpoints.close()
        self.reads.close()
        self._transfer.close()
        self.membership.give_up()

    def transfer_leadership(
        self, target: str | None = None, *, avoid: Collection[str] = ()
    ) -> asyncio.Future[str]:
        """Hand leadership over to `target`; None: to the connected voter that has most, none of `avoid`.

        Proposals wait meanwhile, and are refused with nothing written when another node leads.  The future carries the
        id of the new leader.  It, and the call, raise LeadershipNotTransferred; after a time-out this node leads on.
        """
        transferred = self._transfer.begin(target, avoid)
        self.kick()
        return transferred

    def remove_member(self, node_id: str, *, force: bool) -> asyncio.Future[None]:
        """Remove another member; the future is fulfilled when that is committed, and raises OutcomeUnknown.

        Raises what Membership.remove does.
        """
        removed = self.membership.removed(node_id, force=force)
        self.kick()
        return removed

    def set_target(self, target: int) -> asyncio.Future[None]:
        """Have the cluster meant for so many voters, as `Membership.targeted` does."""
        targeted = self.membership.targeted(target)
        self.kick()
        return targeted

    def _hand_over(self, avoid: Collection[str] = ()) -> None:
        transferred = self.transfer_leadership(avoid=avoid)
        # Whether it succeeds is seen by who leads then.
        transferred.add_done_callback(lambda done: done.cancelled() or done.exception())

    def _hand_over_for_space(self) -> None:
        if not self.raft.voters:
            return
        try:
            self._hand_over(self.raft.voters - self.raft.followers.with_space)
        except LeadershipNotTransferred as error:
            logger.warning(
                "no other node can lead while this one's disk is full: free space here, or start a node that has some problem=%s",
                error,
            )

    # --- Events --------------------------------------------------------------------------------

    def peer_connected(self, node_id: str, directory_id: str) -> None:
        if not self._stopped:
            self._guarded(lambda: self.raft.peer_connected(node_id, directory_id))
            self.kick()

    def peer_disconnected(self, node_id: str) -> None:
        if not self._stopped:
            self.inbox.drop(node_id)
            self._guarded(lambda: self.raft.peer_disconnected(node_id))
            self.kick()

    def frame_received(self, node_id: str, payload: bytes) -> None:
        """Take one consensus message of a peer."""
        if self._stopped or self._draining:
            return
        try:
            message = messages.decode(payload, node_id)
            messages.check_term(message, self.raft.term, node_id)
            self.inbox.put(node_id, message, len(payload))
        except PeerRefused as error:
            self._ports.refuse(node_id, error)
            return
        self.kick()

    def kick(self) -> None:
        """Have a step soon; any number of kicks before it are one."""
        if self._step_due_at is None and not self._stopped:
            self._step_due_at = self._ports.clock.monotonic()
            self._loop.call_soon(self._step, context=self._context)

    # --- The step ------------------------------------------------------------------------------

    def _step(self) -> None:
        due_at, self._step_due_at = self._step_due_at, None
        if not self._stopped:
            assert due_at is not None, "every step is scheduled by a kick"
            self.stalls.was_due(due_at, self._ports.clock.monotonic())
            self._guarded(self._step_unguarded)

    def _step_unguarded(self) -> None:
        size_left = self.inbox.size - INBOX_SIZE_PER_STEP
        for _ in range(min(len(self.inbox), INBOX_PER_STEP)):
            if self.raft.must_apply_first or self.raft.must_answer_first:
                break
            if self.inbox.size <= size_left:
                break
            sender, message = self.inbox.take()
            if isinstance(message, RAFT_MESSAGES):
                self.raft.receive(sender, message)
            else:
                self.reads.receive(sender, message)
        # What a leader sent is synced while what it has committed meanwhile is applied.
        self.journal_sync.start()
        if self.raft.is_leader and not self._transfer.is_under_way:
            for payload, done in self.take_proposals():
                self.raft.propose(payload, done)
        applied_before = self.raft.last_applied
        if self._tick_due or self.raft.has_work:
            self._tick_due = False
            self.raft.tick()
        if self._news_timer is None and self.raft.outgoing.has_news:
            self._news_timer = self._loop.call_later(COMMIT_NEWS_DELAY_S, self._tell_news)
        # What the peers have to sync leaves before this node begins to.
        self._ports.flush()
        self.journal_sync.start()
        self._transfer.progressed()
        self._announce()
        self.membership.announce()
        if self.raft.last_applied != applied_before:
            self.applied()
        self.reads.progressed()
        self.checkpoints.write_if_due()
        if (self.inbox and not self.raft.must_answer_first) or self.raft.has_work:
            self.kick()

    def _guarded(self, action: Callable[[], object]) -> None:
        began_at = self._ports.clock.monotonic()
        try:
            action()
        except BaseException as error:
            self._fail(error)
        self.stalls.stepped(began_at, self._ports.clock.monotonic())

    def _fail(self, error: BaseException) -> None:
        if not self._stopped:
            self.abandon()
            self._ports.failed(error)

    def _on_timer(self) -> None:
        if not self._stopped:
            now = self._ports.clock.monotonic()
            interval_s = self._settings.raft.heartbeat_interval_s
            self.stalls.was_due(self._timer_due_at, now)
            self._timer_due_at = now + interval_s
            self._timer = self._loop.call_later(interval_s, self._on_timer)
            self._tick_due = True
            self._guarded(self.checkpoints.compact)
            self._guarded(self.ticked)
            self._guarded(self.membership.step)
            self._guarded(self._space_watch.look)
            self.reads.ask_again()
            self.kick()

    def _tell_news(self) -> None:
        self._news_timer = None
        if not self._stopped:
            self._guarded(self.raft.outgoing.announce_commit)

    def _announce(self) -> None:
        state = (self.raft.leader_id, self.raft.term, self.raft.is_ready_leader)
        if self._transfer.is_under_way and self.raft.leader_id is None:
            # What waits is refused when it is known where to go instead.
            return
        if state != self._announced:
            self.leader_change_count += state[0] is not None and state[:2] != self._announced[:2]
            self._announced = state
            self.leadership_changed()

    def _transmit(self, node_id: str, message: Message) -> None:
        if not self._stopped:
            self._ports.transmit(node_id, messages.encode_in_parts(message))
            if self.traces.is_following and isinstance(message, AppendReply):
                self.traces.replied(node_id, message)

    def _apply(self, raft_index: int, term: int, payload: bytes) -> Any:
        return self.state_machine.apply_payload(raft_index, term, payload)

    # --- What the journal has -------------------------------------------------------------------

    @property
    def configuration(self) -> Configuration:
        """Return who the members are, by the newest configuration of the journal, committed or not."""
        return self.raft.configuration

    def _promisable(self) -> None:
        """Let go what waited for the journal."""
        self.raft.synced()
        self._ports.flush()

    def _after_sync(self) -> None:
        if self.raft.has_work:
            # At once and not by a kick: this is where an acknowledgement waits.
            self._step_unguarded()
        elif self.inbox:
            self.kick()


def _restore_point(image: CheckpointImage | None) -> RestorePoint | None:
    if image is None or image.raft_index < 2:
        return None
    return RestorePoint(image.previous, image.last)
