"""Who does not belong here: refused in words, counted, logged, and without any effect on those who do."""

from __future__ import annotations

import logging
from random import Random
from typing import Any

import msgspec
import pytest

from distlog.peer.frames import CONTROL, HEADER, encode_frame
from distlog.peer.handshake import (
    PROTOCOL_VERSION,
    Accepted,
    Greeting,
    Refused,
    encode_message,
)
from tests.peer.exchanges import greeting
from tests.peer.nodes import World, limits, simulate
from tests.peer.strangers import stranger
from tests.peer.test_connection import mutated


def told(caplog: pytest.LogCaptureFixture, level: int) -> str:
    """Return what was logged at that level."""
    return "\n".join(record.getMessage() for record in caplog.records if record.levelno == level)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"cluster_id": "other"}, "n2 belongs to cluster other and n1 to cluster c"),
        ({"directory_id": "wiped"}, "the directory of n2 is not the one known"),
        ({"node_id": "n9"}, "n9 is not named in --peers"),
        ({"node_id": "n1", "peers": "n2", "at": {"n2": "n1"}}, "two nodes call themselves n1"),
    ],
    ids=["wrong cluster", "wiped directory", "unknown node", "own node id"],
)
def test_who_does_not_belong_is_refused_in_words_and_tries_at_most_once_a_second(
    options: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    async def main(world: World) -> None:
        # n1 does not dial, so that each refusal answers a dial of the other.
        first = world.node("n1", "n1")
        first.expected = {"n2": "directory-of-n2"}
        await first.peers.start()
        second = await world.started("n2", **{"peers": "n1", **options})
        await world.loop.pass_time(20.5)
        assert not first.owner.changes
        assert not first.owner.hellos
        assert not second.owner.changes
        assert 15 <= first.peers.counters["peers_refused"] <= 21
        assert second.peers.counters["refused_by_peer"] == first.peers.counters["peers_refused"]
        assert world.network.connection_count == 0

    simulate(main)
    assert words in told(caplog, logging.WARNING), "the node that refused"
    assert words in told(caplog, logging.ERROR), "the node that was refused"
    assert told(caplog, logging.ERROR).count("this node was refused by a peer") == 1


def test_a_dialler_refuses_who_answers_at_the_wrong_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n2")
        # What calls itself n3 answers at n2's address.
        second = await world.started("n2", "", node_id="n3")
        second.expected = {"n1": ""}
        await world.loop.pass_time(5)
        assert not first.owner.changes
        assert 3 <= first.peers.counters["peers_refused"] <= 6
        assert second.peers.counters["refused_by_peer"] == first.peers.counters["peers_refused"]

    simulate(main)
    assert "n3 answered where n1 had dialled n2" in caplog.text


def test_a_node_that_dials_itself_is_told_so(caplog: pytest.LogCaptureFixture) -> None:
    async def main(world: World) -> None:
        node = await world.started("n1", "n1 n2", at={"n2": "n1"})
        await world.loop.pass_time(3)
        assert not node.owner.hellos
        assert node.peers.counters["peers_refused"] >= 2

    simulate(main)
    assert "two nodes call themselves n1, at n1:8401 and n1:8401" in told(caplog, logging.ERROR)


def test_a_wiped_node_is_kept_out_while_the_others_go_on() -> None:
    async def main(world: World) -> None:
        for name in ("n1", "n2", "n3"):
            node = world.node(name)
            node.expected = {each: f"directory-of-{each}" for each in ("n1", "n2", "n3")}
            await node.peers.start()
        await world.connected("n1", "n2", "n3")
        await world.nodes["n3"].peers.stop()
        wiped = await world.started("n3", directory_id="new")
        await world.loop.pass_time(10)
        assert not wiped.owner.changes
        assert world.nodes["n1"].owner.connected == {"n2"}
        assert world.nodes["n1"].send("n2", b"still here")
        await world.loop.until(lambda: bool(world.nodes["n2"].owner.payloads("n1")))

    simulate(main)


def test_an_impostor_does_not_disturb_the_connection_of_the_real_one() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        first.expected["n2"] = "directory-of-n2"
        await world.connected("n1", "n2")
        hello = msgspec.structs.replace(second.hello, directory_id="stolen-name")
        for _ in range(10):
            knock = await stranger(world, "n1")
            knock.transport.write(encode_message(Greeting(99, 99, hello)))
            await knock.closed.wait()
            assert isinstance(knock.messages()[0], Refused)
        assert first.owner.changes == [("connected", "n2")]
        assert second.owner.changes == [("connected", "n1")]

    simulate(main)


def test_another_version_of_the_protocol_is_told_so() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1 n2")
        knock = await stranger(world, "n1")
        newer = {"protocol_version": PROTOCOL_VERSION + 1, "node": {"name": "n2"}}
        payload = {"kind": "greeting", "hello": newer}
        knock.transport.write(encode_frame(CONTROL, 0, msgspec.msgpack.encode(payload)))
        await world.loop.until(lambda: knock.closed_at is not None)
        (refused,) = knock.messages()
        assert isinstance(refused, Refused)
        assert f"n1 speaks version {PROTOCOL_VERSION}" in refused.problem
        assert "run the same version of distlog on both" in refused.problem
        assert first.peers.counters["peers_refused"] == 1

    simulate(main)


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: n1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x55" * 500,
        b"\x00" * 100,
        b"\xff" * 100,
        HEADER.pack(1 << 20, 0, CONTROL, 0),
        encode_frame(CONTROL, 0, b"\x91" * 60_000),
        encode_frame(1, 0, b"raft without a handshake"),
        encode_message(Accepted()),
    ],
    ids=["http", "tls", "zeros", "ones", "oversize", "nested", "raft", "accepted"],
)
def test_garbage_on_the_port_is_hung_up_on_without_an_answer(
    garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        await world.connected("n1", "n2")
        knock = await stranger(world, "n1")
        began_at = world.loop.time()
        knock.transport.write(garbage)
        await world.loop.until(lambda: knock.closed_at is not None)
        assert world.loop.time() - began_at < 0.1
        assert knock.received == b""
        assert first.peers.counters["protocol_violations"] == 1
        assert first.owner.changes == [("connected", "n2")]
        first.send("n2", b"unimpressed")
        await world.loop.until(lambda: second.owner.payloads("n1") == [b"unimpressed"])

    simulate(main)
    assert "see who is at that address peer=? problem=stranger:" in told(caplog, logging.WARNING)


def test_who_does_not_finish_the_handshake_in_time_is_hung_up_on() -> None:
    """One byte at a time, one byte less than a greeting, nothing at all, and a greeting without Accepted."""
    hello = encode_message(greeting("n2"))

    async def main(world: World) -> None:
        first = await world.started("n1", "n1", limits=limits())
        first.expected["n2"] = ""
        slow, short, silent, rude = [await stranger(world, "n1") for _ in range(4)]
        began_at = world.loop.time()
        short.transport.write(hello[:-1])
        rude.transport.write(hello)
        for byte in hello:
            slow.transport.write(bytes([byte]))
            await world.loop.pass_time(0.05)
        for knock in (slow, short, silent, rude):
            assert knock.closed_at is not None
            assert 1.9 < knock.closed_at - began_at < 2.1
        assert first.peers.counters["handshakes_expired"] == 4
        assert not first.owner.changes
        assert world.network.connection_count == 0

    simulate(main)


def test_a_greeting_out_of_turn_on_an_open_connection_closes_it() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1")
        first.expected["n2"] = ""
        knock = await stranger(world, "n1")
        hello = encode_message(greeting("n2"))
        knock.transport.write(hello + encode_message(Accepted()))
        await world.loop.until(lambda: first.owner.connected == {"n2"})
        knock.transport.write(hello)
        await world.loop.until(lambda: knock.closed_at is not None)
        assert first.owner.changes == [("connected", "n2"), ("disconnected", "n2")]

    simulate(main)


def test_strangers_that_hold_connections_open_do_not_keep_out_a_peer() -> None:
    async def main(world: World) -> None:
        first = await world.started("n1", "n1")
        first.expected["n2"] = ""
        knocks = [await stranger(world, "n1", f"s{number}") for number in range(200)]
        await world.loop.pass_time(0.01)
        assert sum(knock.closed_at is None for knock in knocks) == 64
        assert first.peers.counters["strangers_evicted"] == 136
        await world.started("n2", "n1")
        await world.loop.until(lambda: first.owner.connected == {"n2"}, limit_s=0.1)

    simulate(main)


def test_mutated_streams_at_the_port_leave_the_node_as_it_was() -> None:
    async def main(world: World) -> None:
        first, second = await world.started("n1"), await world.started("n2")
        first.expected["n4"] = ""
        await world.connected("n1", "n2")
        source = Random(5)
        good = (
            encode_message(greeting("n4"))
            + encode_message(Accepted())
            + encode_frame(1, 0, b"raft")
        )
        for _ in range(500):
            knock = await stranger(world, "n1")
            knock.transport.write(mutated(good, source))
        await world.loop.pass_time(3)
        await world.loop.until(lambda: world.network.connection_count <= 2)
        assert [change for change in first.owner.changes if change[1] != "n4"] == [
            ("connected", "n2")
        ]
        assert first.owner.connected <= {"n2", "n4"}
        first.send("n2", b"still here")
        await world.loop.until(lambda: second.owner.payloads("n1") == [b"still here"])

    simulate(main)
