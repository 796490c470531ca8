"""What a full node does about it: says so, tries to get its reserve back, and hands leadership to a voter that has space."""

from __future__ import annotations

import logging
from collections.abc import Callable

from distlog.consensus.space import Space
from distlog.errors import DescriptorsExhausted
from distlog.runtime import Clock, Worker
from distlog.storage.reserve import Reserve

logger = logging.getLogger(__name__)

# Pauses between two attempts.
RESTORE_INTERVAL_S = 0.5
DESCRIPTORS_INTERVAL_S = 0.25
HAND_OVER_INTERVAL_S = 3.0


class SpaceWatch:
    """Looks at the space of one group, called on its timer."""

    def __init__(
        self,
        *,
        space: Space,
        reserve: Reserve,
        worker: Worker,
        clock: Clock,
        is_leader: Callable[[], bool],
        hand_over: Callable[[], None],
        changed: Callable[[], None],
        guarded: Callable[[Callable[[], object]], None],
    ) -> None:
        """hand_over() gives leadership to another voter if one has space; changed() is called when the node becomes full and
        when it has space again; guarded(action) stops the node if `action` raises.
        """
        self._space = space
        self._reserve = reserve
        self._worker = worker
        self._clock = clock
        self._is_leader = is_leader
        self._hand_over = hand_over
        self._changed = changed
        self._guarded = guarded
        # As last said.
        self._was_full = False
        self._is_restoring = False
        self._restore_at = self._hand_over_at = self._descriptors_at = 0.0
        self._was_short = False

    def look(self) -> None:
        """Do what is due."""
        self._look_at_descriptors()
        is_full = self._space.is_full
        if is_full != self._was_full:
            self._was_full = is_full
            self._say(is_full)
            self._changed()
        if not is_full:
            return
        now = self._clock.monotonic()
        if now >= self._restore_at and not self._is_restoring:
            self._is_restoring = True
            self._restore_at = now + RESTORE_INTERVAL_S
            restored = self._worker.submit(self._reserve.restore)
            restored.add_done_callback(lambda done: self._restored(done.cancelled(), done.result))
        if self._is_leader() and now >= self._hand_over_at:
            self._hand_over_at = now + HAND_OVER_INTERVAL_S
            self._hand_over()

    def _look_at_descriptors(self) -> None:
        spares = self._reserve.spares
        if spares is None or self._clock.monotonic() < self._descriptors_at:
            return
        self._descriptors_at = self._clock.monotonic() + DESCRIPTORS_INTERVAL_S
        is_short = not spares.refresh()
        if is_short and not self._was_short:
            logger.warning(
                "this process may open no more files, and spare ones are in use: raise its limit (prlimit --nofile while it runs, "
                "ulimit -n or LimitNOFILE for good), or close connections to it spares=%d of=%d",
                spares.held,
                spares.count,
            )
        elif self._was_short and not is_short:
            logger.info("this process may open files again spares=%d", spares.held)
        self._was_short = is_short

    def _restored(self, cancelled: bool, result: Callable[[], object]) -> None:
        self._is_restoring = False
        if not cancelled:
            self._guarded(result)

    def _say(self, is_full: bool) -> None:
        if isinstance(self._reserve.refusal(), DescriptorsExhausted) and is_full:
            # So that their return is said too, however soon.
            self._was_short = True
            logger.warning(
                "no file can be opened: this node takes no writes until one can be again, raise its limit (prlimit --nofile)"
            )
        elif is_full:
            logger.warning(
                "the disk is full: this node takes no writes until there is space again, free some, or trim or delete topics "
                "reserve=%s size=%d held=%d",
                self._reserve.path,
                self._reserve.size,
                self._reserve.held,
            )
        else:
            logger.info(
                "there is space again: this node takes writes reserve=%s", self._reserve.path
            )
