"""A node that goes over to a copied state, opened after a crash at every disk operation of the copy, the switch, and the start after it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from distlog.catch_up import switch
from distlog.consensus import recovery
from distlog.consensus.journal import Journal
from distlog.errors import CorruptBatch, CorruptJournal, DiskFailed
from distlog.storage.incoming import Incoming
from distlog.storage.simulated_disk import SimulatedDisk
from tests.consensus.crash.crashes import crash_twice, cut_everywhere, kill_everywhere
from tests.consensus.crash.switch_life import SwitchLife
from tests.crash_tally import CrashTally
from tests.storage.crash.faulty_disks import NoDirectorySync, NoSync, planted


def cut_switch(life: SwitchLife, seed: int, *, full: bool) -> int:
    return cut_everywhere(life, seed, count=1, full=full, singles_every=6)


def test_a_power_cut_at_any_operation_leaves_the_state_before_or_the_state_after(
    tally: CrashTally,
) -> None:
    kind = "power cut at every operation of copy and switch"
    for seed in range(8) if tally.full else range(1):
        tally.count("switch", kind, cut_switch(SwitchLife(), seed, full=tally.full))
    tally.require("switch", kind, 600)


def test_a_process_killed_at_any_operation_leaves_the_one_or_the_other(tally: CrashTally) -> None:
    kind = "killed at every operation of copy and switch"
    for seed in range(8) if tally.full else range(1):
        tally.count("switch", kind, kill_everywhere(SwitchLife(), seed))
    tally.require("switch", kind, 200)


def test_a_second_crash_at_any_operation_of_the_start_after_it(tally: CrashTally) -> None:
    kind = "second crash at every operation of the start after a switch"
    for seed in range(3) if tally.full else range(1):
        step = 1 if tally.full else 61
        tally.count("switch", kind, crash_twice(SwitchLife(), seed, two_cuts, step=step))
    tally.require("switch", kind, 300)


def two_cuts(disk: SimulatedDisk, random: Random) -> tuple[SimulatedDisk, SimulatedDisk]:
    return disk.crash_keeping([]), disk.crash(random)


def cut_some(begin: Callable[[], SwitchLife]) -> None:
    for seed in range(4):
        cut_switch(begin(), seed, full=False)


# --- What would be found --------------------------------------------------------------------------

FAULTS = {
    "staged segments are not synced before the switch": planted(
        NoSync, lambda path: "/incoming/parts/" in path
    ),
    "names of staged segments are not synced before the switch": planted(
        NoDirectorySync, lambda path: "/incoming/topics/" in path
    ),
    "the note of the switch is not synced": planted(NoSync, lambda path: path.endswith("/switch")),
    "the new checkpoint is not synced": planted(
        NoSync, lambda path: path.endswith("/node/checkpoint.new")
    ),
    "the names of the linked segments are not synced": planted(
        NoDirectorySync, lambda path: "/node/topics/" in path
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sync_that_is_left_out_is_found(fault: str) -> None:
    with pytest.raises(AssertionError):
        cut_some(lambda: SwitchLife(FAULTS[fault]))


def test_a_file_system_without_hard_links_is_found_before_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(disk: SimulatedDisk, path: str, new: str) -> None:
        raise DiskFailed(path=path, operation="link", problem="Operation not permitted")

    life = SwitchLife()
    monkeypatch.setattr(SimulatedDisk, "link", refuse)
    with pytest.raises(switch.CopyIncomplete, match="hard links"):
        life.live(0)
    life.check(life.disk)


def test_a_switch_without_its_note_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(switch, "_write_switch", lambda *_: None)
    monkeypatch.setattr(switch, "_require_links", lambda *_: None)
    with pytest.raises(AssertionError):
        kill_everywhere(SwitchLife(), 0)


def test_segments_that_take_their_places_before_the_checkpoint_counts_are_found() -> None:
    def early(incoming: Incoming, checkpoint_path: str, *rest: Any, **options: Any) -> None:
        switch._link_staged(incoming, incoming.disk)
        switch.put_in_place(incoming, checkpoint_path, *rest, **options)

    with pytest.raises(AssertionError):
        cut_some(lambda: SwitchLife(put=early))


def test_a_journal_that_loses_term_and_vote_in_the_switch_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begin_anew = recovery._begin_anew_unless_fit

    def forgetful(journal: Journal, image: Any) -> None:
        begin_anew(journal, image)
        journal.term, journal.vote = image.term, None

    monkeypatch.setattr(recovery, "_begin_anew_unless_fit", forgetful)
    with pytest.raises(AssertionError, match="term or its vote"):
        kill_everywhere(SwitchLife(), 0)


def test_bytes_that_do_not_fit_the_batch_table_are_not_taken_over(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Careless(SwitchLife):
        def _copy_segment(self, incoming: Any, source: Any, topic_id: int, listing: Any) -> None:
            begin = incoming.begin

            def begin_with_rot(*arguments: Any) -> Any:
                part = begin(*arguments)
                write = part.write
                part.write = lambda suffix, position, data: write(suffix, position, rotten(data))
                return part

            monkeypatch.setattr(incoming, "begin", begin_with_rot)
            super()._copy_segment(incoming, source, topic_id, listing)

    with pytest.raises(CorruptBatch):
        Careless().live(0)
    # And without that check it would be found by what reads it.
    monkeypatch.setattr("distlog.storage.incoming.first_fault", lambda *_: None)
    with pytest.raises((AssertionError, CorruptBatch, CorruptJournal)):
        kill_everywhere(Careless(), 0)


def rotten(data: bytes) -> bytes:
    return bytes([data[0] ^ 1]) + data[1:] if data else data
