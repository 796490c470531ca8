"""Gossip by itself: what bytes may come, in what order, and how long each thing takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlog.discovery.gossip import GossipDiscovery
from distlog.discovery.gossip_rows import (
    ADDRESS_SIZE_MAX,
    ALIVE,
    ID_SIZE_MAX,
    LEFT,
    NUMBER_MAX,
    ROW_COUNT_MAX,
    MalformedRows,
    Row,
    decode_rows,
    encode_rows,
    own_row,
)
from distlog.discovery.gossip_table import GossipTable
from distlog.discovery.view import Description, MemberStatus, Sighting
from distlog.errors import InvalidRequest
from distlog.peer.limits import PeerLimits
from tests.discovery.worlds import GossipWorld, description_of, on_virtual_time

DAY_S = 86_400.0


def table(node_id: str = "me", run: int = 1, now: float = 0.0) -> GossipTable:
    return GossipTable(description_of(node_id), run=run, now=now)


def row(node_id: str = "n2", run: int = 1, heartbeat: int = 0, age_ms: int = 0) -> Row:
    made = own_row(description_of(node_id), run, heartbeat, ALIVE)
    return msgspec.structs.replace(made, age_ms=age_ms)


def rows(*these: Row, wants_answer: bool = False) -> bytes:
    return encode_rows(these, wants_answer=wants_answer)


def seen(of: GossipTable, node_id: str, now: float) -> MemberStatus | None:
    sighting = of.sightings(now).get(node_id)
    return sighting.status if sighting is not None else None


# --- Bytes -----------------------------------------------------------------------------------------


def test_the_largest_message_fits_a_frame() -> None:
    largest = [
        Row(
            node_id=f"{number:0{ID_SIZE_MAX}}",
            run=NUMBER_MAX,
            heartbeat=NUMBER_MAX,
            status=LEFT,
            age_ms=NUMBER_MAX,
            directory_id="d" * ID_SIZE_MAX,
            peer_address="p" * ADDRESS_SIZE_MAX,
            client_address="c" * ADDRESS_SIZE_MAX,
            cluster_id="i" * ID_SIZE_MAX,
            expect=NUMBER_MAX,
            version="v" * ID_SIZE_MAX,
        )
        for number in range(ROW_COUNT_MAX)
    ]
    payload = rows(*largest)
    assert decode_rows(payload).rows == largest
    assert len(payload) <= PeerLimits().gossip.frame_size_max


def changed(field: int, value: object) -> bytes:
    fields = list(msgspec.structs.astuple(row()))
    fields[field] = value
    return msgspec.msgpack.encode([False, [fields]])


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xc1",
        b"\x92" * 100_000,
        msgspec.msgpack.encode({"rows": []}),
        msgspec.msgpack.encode([True]),
        msgspec.msgpack.encode([False, [["n2"]]]),
        rows(row("a"), row("a", run=2)),
        rows(*(row(f"n{number}") for number in range(ROW_COUNT_MAX + 1))),
        rows(row()) + b"more",
        changed(0, ""),
        changed(0, "two words"),
        changed(0, "n" * (ID_SIZE_MAX + 1)),
        changed(1, -1),
        changed(1, NUMBER_MAX + 1),
        changed(1, 1.5),
        changed(3, 2),
        changed(6, "line\nbreak"),
        changed(6, "h" * (ADDRESS_SIZE_MAX + 1)),
        changed(6, "ü"),
        changed(6, b"\xff\xfe"),
    ],
)
def test_a_message_that_is_none_is_refused_and_changes_nothing(payload: bytes) -> None:
    mine = table()
    before = mine.sightings(0.0)
    with pytest.raises(MalformedRows):
        mine.receive(payload, 0.0)
    assert mine.sightings(0.0) == before


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_do_anything_but_be_taken_or_refused(noise: bytes, at: int, value: int) -> None:
    mutated = bytearray(rows(row("n2"), row("n3"), wants_answer=True))
    mutated[at % len(mutated)] = value
    for payload in (noise, bytes(mutated)):
        mine = table()
        try:
            mine.receive(payload, 0.0)
        except MalformedRows:
            continue
        mine.message(0.0, wants_answer=True)


def test_a_message_of_a_later_version_may_have_more_at_the_end_of_a_row() -> None:
    longer = [*msgspec.structs.astuple(row()), "more", 1]
    mine = table()
    mine.receive(msgspec.msgpack.encode([False, [longer]]), 0.0)
    assert seen(mine, "n2", 0.0) is MemberStatus.ALIVE


@pytest.mark.parametrize(
    "unreadable",
    [
        replace(description_of("n1"), peer_address="h" * 256),
        replace(description_of("n1"), version="1 or so"),
        replace(description_of("n1"), directory_id="d" * 65),
    ],
)
def test_a_node_says_nothing_of_itself_that_the_others_would_refuse(
    unreadable: Description,
) -> None:
    with pytest.raises(
        InvalidRequest, match=r"description of n1.* cannot be told to the other nodes"
    ):
        GossipTable(unreadable, run=1, now=0.0)
    mine = GossipTable(description_of("n1"), run=1, now=0.0)
    with pytest.raises(InvalidRequest):
        mine.announce(unreadable)
    assert mine.sightings(0.0)["n1"].description == description_of("n1")


# --- Merging ---------------------------------------------------------------------------------------

SOME_ROWS = st.builds(
    lambda node_id, run, heartbeat, status, place: msgspec.structs.replace(
        own_row(description_of(node_id, place), run, heartbeat, status)
    ),
    st.sampled_from(["n2", "n3"]),
    st.integers(0, 3),
    st.integers(0, 3),
    st.sampled_from([ALIVE, LEFT]),
    st.sampled_from(["here", "there"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(SOME_ROWS, max_size=12), st.randoms(use_true_random=False))
def test_rows_that_are_lost_repeated_and_mixed_up_come_to_the_same(
    told: list[Row], random: Random
) -> None:
    """Whoever has heard each row at least once knows the same."""
    in_order, mixed = table(), table()
    for each in told:
        in_order.receive(rows(each), 0.0)
    others = [*told, *(random.choice(told) for _ in range(len(told)))] if told else []
    random.shuffle(others)
    for each in others:
        mixed.receive(rows(each), 0.0)
    assert mixed.sightings(0.0) == in_order.sightings(0.0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(SOME_ROWS, max_size=6), min_size=2, max_size=4), st.integers(0, 1 << 32))
def test_tables_that_exchange_what_they_have_agree_whatever_is_lost(
    told: list[list[Row]], seed: int
) -> None:
    """Pushes and answers of which many are lost or come twice; then one round of which nothing is."""
    random = Random(seed)
    tables = [table(f"t{number}") for number in range(len(told))]
    for mine, these in zip(tables, told, strict=True):
        for each in these:
            mine.receive(rows(each), 0.0)

    def exchange(one: GossipTable, other: GossipTable, delivered: Sequence[int]) -> None:
        answers = [
            other.receive(one.message(0.0, wants_answer=True), 0.0) for _ in range(delivered[0])
        ]
        for answer in answers:
            for _ in range(delivered[1] if answer is not None else 0):
                one.receive(answer or b"", 0.0)

    for _ in range(10):
        one, other = random.sample(tables, 2)
        exchange(one, other, [random.choice([0, 1, 2]), random.choice([0, 1, 2])])
    for mine in tables[1:]:
        exchange(tables[0], mine, [1, 1])
    for mine in tables[1:]:
        exchange(tables[0], mine, [1, 1])
    assert all(mine.sightings(0.0) == tables[0].sightings(0.0) for mine in tables)


def test_an_answer_has_only_what_the_other_does_not_know() -> None:
    one, other = table("t1"), table("t2")
    answer = other.receive(one.message(0.0, wants_answer=True), 0.0)
    assert answer is not None
    assert [each.node_id for each in decode_rows(answer).rows] == ["t2"]
    assert one.receive(answer, 0.0) is None
    assert other.receive(one.message(0.0, wants_answer=True), 0.0) is None


# --- Time ------------------------------------------------------------------------------------------


def test_a_node_is_failed_when_its_heartbeat_stands_still_for_five_seconds() -> None:
    mine = table()
    mine.receive(rows(row(heartbeat=1)), 0.0)
    for now in range(1, 6):
        mine.beat(float(now))
        # The same heartbeat again, from somebody who has it no newer.
        mine.receive(rows(row(heartbeat=1)), float(now))
    assert seen(mine, "n2", 5.0) is MemberStatus.ALIVE
    assert seen(mine, "n2", 5.1) is MemberStatus.FAILED
    mine.receive(rows(row(heartbeat=2)), 5.2)
    assert seen(mine, "n2", 5.2) is MemberStatus.ALIVE


def test_a_row_that_comes_by_others_is_as_old_as_it_was_there() -> None:
    mine = table()
    mine.receive(rows(row(age_ms=6_000)), 0.0)
    assert seen(mine, "n2", 0.0) is MemberStatus.FAILED


def test_a_node_that_was_held_up_does_not_blame_the_others() -> None:
    mine = table()
    mine.receive(rows(row(heartbeat=1)), 0.0)
    mine.beat(1.0)
    mine.beat(61.0)
    assert seen(mine, "n2", 61.0) is MemberStatus.ALIVE
    for now in range(62, 68):
        mine.beat(float(now))
    assert seen(mine, "n2", 67.0) is MemberStatus.FAILED


def test_a_node_that_is_gone_for_a_day_is_forgotten_and_not_brought_back_by_others() -> None:
    mine, other = table("t1"), table("t2")
    for each in (mine, other):
        each.receive(rows(row()), 0.0)
    now = 0.0
    while now < DAY_S - 10:
        now += 1.5
        mine.beat(now)
    other.receive(rows(row("t1")), 0.0)
    assert seen(mine, "n2", now) is MemberStatus.FAILED
    passed_on = mine.message(now, wants_answer=True)
    for _ in range(20):
        now += 1.5
        mine.beat(now)
    assert seen(mine, "n2", now) is None
    assert decode_rows(passed_on).rows[1].age_ms > 1000 * (DAY_S - 20)
    mine.receive(rows(row(age_ms=int(1000 * (DAY_S + 1)))), now)
    assert seen(mine, "n2", now) is None


def test_more_nodes_than_there_is_room_for_are_left_out_and_counted() -> None:
    mine = table()
    for number in range(ROW_COUNT_MAX + 10):
        mine.receive(rows(row(f"n{number}")), 0.0)
    assert len(mine.sightings(0.0)) == ROW_COUNT_MAX
    assert mine.left_out_count == 11
    decode_rows(mine.message(0.0, wants_answer=True))


def test_a_node_that_is_alive_gets_the_room_of_the_one_that_is_gone_for_longest() -> None:
    mine = table()
    for number in range(ROW_COUNT_MAX - 1):
        mine.receive(rows(row(f"old{number}", age_ms=60_000 - number)), 0.0)
    mine.receive(rows(row("gone", age_ms=60_000)), 0.0)
    assert mine.left_out_count == 1
    mine.receive(rows(row("new")), 0.0)
    assert seen(mine, "new", 0.0) is MemberStatus.ALIVE
    assert seen(mine, "old0", 0.0) is None
    assert seen(mine, "me", 0.0) is MemberStatus.ALIVE
    assert len(mine.sightings(0.0)) == ROW_COUNT_MAX


# --- Runs ------------------------------------------------------------------------------------------


def test_a_restart_with_a_clock_that_went_back_outdoes_the_run_that_the_others_remember() -> None:
    mine, other = table("n2", run=100), table("t1")
    other.receive(rows(row("n2", run=5_000, heartbeat=77)), 0.0)
    answer = other.receive(mine.message(0.0, wants_answer=True), 0.0)
    assert answer is not None
    mine.receive(answer, 0.0)
    assert mine.run == 5_001
    other.receive(mine.message(0.0, wants_answer=True), 0.0)
    assert other.sightings(0.0)["n2"].run == 5_001
    assert not mine.conflicts


def test_a_node_that_was_declared_gone_by_mistake_says_that_it_is_there() -> None:
    mine, other = table("n2", run=3), table("t1")
    other.receive(mine.message(0.0, wants_answer=True), 0.0)
    other.beat(1.0)
    for now in range(2, 9):
        other.beat(float(now))
    assert other.forget("n2", 8.0)
    assert seen(other, "n2", 8.0) is MemberStatus.LEFT
    mine.receive(other.message(8.0, wants_answer=True), 8.0)
    other.receive(mine.message(8.0, wants_answer=True), 8.0)
    assert seen(other, "n2", 8.0) is MemberStatus.ALIVE


def test_a_node_that_moves_once_is_not_taken_for_two() -> None:
    mine = table("t1")
    for run, place in ((1, "here"), (2, "there"), (3, "here")):
        made = own_row(description_of("n2", place), run, 0, ALIVE)
        mine.receive(rows(made), float(run))
    assert not mine.conflicts


# --- Nodes -----------------------------------------------------------------------------------------


async def full_view(world: GossipWorld, count: int) -> list[GossipDiscovery]:
    names = [f"n{number}" for number in range(1, count + 1)]
    nodes = [await world.start(name) for name in names]
    await world.until(lambda: all(len(each.members()) == count for each in nodes), "all see all")
    return [each for each in nodes if isinstance(each, GossipDiscovery)]


@pytest.mark.parametrize("seed", range(5))
def test_nobody_fails_while_a_third_of_the_messages_is_lost(seed: int) -> None:
    async def story(world: GossipWorld) -> None:
        nodes = await full_view(world, 5)
        told: list[tuple[str, MemberStatus]] = []

        def note(of: GossipDiscovery) -> None:
            told.extend(
                (node_id, each.status)
                for node_id, each in of.members().items()
                if each.status is not MemberStatus.ALIVE
            )

        for each in nodes:
            each.changed = lambda of=each: note(of)
        world.loss, world.repetition, world.delay_max_s = 0.3, 0.2, 0.3
        await world.elapse(600)
        assert told == []
        await world.kill("n5")
        since = world.loop.time()
        await world.until(
            lambda: all(each.members()["n5"].status is MemberStatus.FAILED for each in nodes[:4]),
            "all miss n5",
        )
        assert 4.0 < world.loop.time() - since < 9.0

    on_virtual_time(lambda: GossipWorld(seed), story)


def test_what_is_new_is_everywhere_at_once_and_a_killed_node_is_missed_in_five_seconds() -> None:
    async def story(world: GossipWorld) -> None:
        nodes = await full_view(world, 5)
        started = world.loop.time()
        nodes[0].announce(replace(description_of("n1"), version="2"))
        await world.until(
            lambda: all(each.members()["n1"].description.version == "2" for each in nodes),
            "all have heard it",
        )
        assert world.loop.time() - started < 0.05
        await world.kill("n5")
        started = world.loop.time()
        await world.until(
            lambda: all(each.members()["n5"].status is MemberStatus.FAILED for each in nodes[:4]),
            "all miss n5",
        )
        assert 3.5 < world.loop.time() - started < 7.5

    on_virtual_time(GossipWorld, story)


@pytest.mark.parametrize(("count", "limit"), [(3, 2_500), (5, 6_000), (9, 12_000)])
def test_an_idle_cluster_costs_a_few_kilobytes_a_second(count: int, limit: int) -> None:
    async def story(world: GossipWorld) -> None:
        await full_view(world, count)
        before = world.size_sent
        await world.elapse(60)
        rate = (world.size_sent - before) / 60 / count
        assert 100 < rate < limit

    on_virtual_time(GossipWorld, story)


def test_a_node_that_flaps_is_seen_flapping_and_nothing_else_changes() -> None:
    async def story(world: GossipWorld) -> None:
        n1, _, _ = await full_view(world, 3)
        before = n1.members()["n2"]
        runs = set()
        for _ in range(20):
            await world.kill("n3")
            await world.elapse(world.random.uniform(0.1, 12))
            n3 = await world.start("n3")
            run = n3.members()["n3"].run

            def is_back(run: int = run) -> bool:
                member = n1.members()["n3"]
                return member.run == run and member.status is MemberStatus.ALIVE

            await world.until(is_back, "n1 sees the run")
            runs.add(run)
        assert len(runs) == 20
        assert n1.members()["n2"] == before
        assert not n1.conflicts()

    on_virtual_time(GossipWorld, story)


def test_a_sighting_is_what_the_row_says() -> None:
    mine = table("me", run=7)
    assert mine.sightings(0.0) == {"me": Sighting(description_of("me"), MemberStatus.ALIVE, 7)}


def test_a_table_can_be_read_while_nobody_was_ever_heard() -> None:
    mine = table()
    mine.beat(100.0)
    assert mine.age_s(100.0) == 0.0
    assert list(mine.sightings(100.0)) == ["me"]
