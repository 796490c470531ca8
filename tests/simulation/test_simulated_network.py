"""The network of the simulations: as unkind as TCP can be, and not more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from random import Random
from typing import Any, cast

import pytest

from tests.simulation.simulated_network import SimulatedNetwork
from tests.simulation.virtual_loop import VirtualLoop

PORT = 7000


class End(asyncio.Protocol):
    """Remembers what happens at one end of a connection, and when."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.data = b""
        self.arrivals: list[float] = []
        self.log: list[str] = []
        self.error: Exception | None = None
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.log.append("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.arrivals.append(self.loop.time())

    def pause_writing(self) -> None:
        self.log.append("pause")

    def resume_writing(self) -> None:
        self.log.append("resume")

    def connection_lost(self, error: Exception | None) -> None:
        self.log.append("lost")
        self.error = error


class World:
    """A network, and the ends that were made on it."""

    def __init__(self, seed: int, options: dict[str, Any]) -> None:
        self.loop = cast(VirtualLoop, asyncio.get_running_loop())
        self.network = SimulatedNetwork(self.loop, Random(seed), **options)
        self.accepted: list[End] = []

    def accept(self) -> End:
        self.accepted.append(End())
        return self.accepted[-1]

    async def connect(self, source: str = "b", target: str = "a") -> tuple[End, End]:
        """Return the end that dialled and the end that was dialled."""
        if (target, PORT) not in self.network.listeners:
            await self.network.host(target).listen(self.accept, target, PORT)
        end = End()
        await self.network.host(source).connect(lambda: end, target, PORT)
        return end, self.accepted[-1]


def simulate(
    main: Callable[[World], Coroutine[Any, Any, Any]], seed: int = 0, **options: Any
) -> Any:
    async def run() -> Any:
        return await main(World(seed, options))

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(run())


def test_bytes_travel_in_order_within_the_delay_of_their_direction() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.set_delay("b", "a", 0.1, 0.5)
        sent_at = world.loop.time()
        for number in range(100):
            near.transport.write(b"%d " % number)
        await world.loop.until(lambda: len(far.arrivals) == 100)
        assert far.data == b"".join(b"%d " % number for number in range(100))
        assert far.arrivals == sorted(far.arrivals)
        assert sent_at + 0.1 <= far.arrivals[0] <= far.arrivals[-1] <= sent_at + 0.5
        began_at = world.loop.time()
        far.transport.write(b"answer")
        await world.loop.until(lambda: near.data == b"answer")
        assert world.loop.time() - began_at < 0.003

    simulate(main)


def test_a_transport_says_where_it_is_and_takes_what_asyncio_takes() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        assert near.transport.get_extra_info("peername") == ("a", PORT)
        assert far.transport.get_extra_info("sockname") == ("a", PORT)
        assert far.transport.get_extra_info("peername") == near.transport.get_extra_info("sockname")
        assert near.transport.get_extra_info("socket") is None
        near.transport.writelines([b"a", bytearray(b"b"), memoryview(b"c")])
        with pytest.raises(TypeError):
            near.transport.write("text")  # type: ignore[arg-type]
        await world.loop.until(lambda: far.data == b"abc")

    simulate(main)


def test_listening_picks_free_ports_and_refuses_taken_ones() -> None:
    async def main(world: World) -> None:
        host = world.network.host("a")
        server = await host.listen(world.accept, "0.0.0.0", 0)
        port = server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="in use"):
            await host.listen(world.accept, "a", port)
        with pytest.raises(OSError, match="not an address"):
            await host.listen(world.accept, "b", PORT)
        end = End()
        await host.connect(lambda: end, "localhost", port)
        server.close()
        with pytest.raises(ConnectionRefusedError):
            await world.network.host("b").connect(End, "a", port)
        end.transport.write(b"still open")
        await world.loop.until(lambda: world.accepted[0].data == b"still open")

    simulate(main)


def test_close_sends_what_was_written_and_tells_both_ends_once() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        near.transport.write(b"x" * 1_000_000)
        near.transport.close()
        near.transport.write(b"too late")
        assert near.transport.is_closing()
        await world.loop.until(lambda: far.log[-1] == "lost")
        assert far.data == b"x" * 1_000_000
        assert [near.log.count("lost"), far.log.count("lost")] == [1, 1]
        assert near.error is far.error is None
        await world.loop.until(lambda: world.network.connection_count == 0)

    simulate(main)


def test_abort_loses_what_was_not_sent_and_resets_the_far_end() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        near.transport.write(b"x" * 1_000_000)
        near.transport.abort()
        await world.loop.until(lambda: far.log[-1] == "lost")
        assert len(far.data) == 256 << 10
        assert near.error is None
        assert isinstance(far.error, ConnectionResetError)

    simulate(main)


def test_writing_to_an_end_that_is_closed_is_answered_by_a_reset() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.block("a", "b")
        far.transport.close()
        await world.loop.pass_time(1)
        near.transport.write(b"hello?")
        await world.loop.pass_time(1)
        assert near.log == ["made"]
        world.network.unblock("a", "b")
        await world.loop.until(lambda: near.log[-1] == "lost")
        assert far.data == b""

    simulate(main)


def test_a_reader_that_pauses_fills_the_write_buffer_and_nothing_else() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        near.transport.set_write_buffer_limits(high=100_000)
        far.transport.pause_reading()
        near.transport.write(b"x" * (256 << 10))
        await world.loop.pass_time(1)
        assert near.transport.get_write_buffer_size() == 0
        assert far.data == b""
        near.transport.write(b"y" * 200_000)
        await world.loop.pass_time(1)
        assert near.transport.get_write_buffer_size() == 200_000
        assert near.log == ["made", "pause"]
        far.transport.resume_reading()
        await world.loop.until(lambda: len(far.data) == (256 << 10) + 200_000)
        assert near.log == ["made", "pause", "resume"]
        assert near.transport.get_write_buffer_size() == 0

    simulate(main)


def test_a_blocked_direction_holds_bytes_and_dials_and_the_other_goes_on() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.block("b", "a")
        near.transport.write(b"held")
        far.transport.write(b"passes")
        dial = asyncio.ensure_future(world.connect())
        await world.loop.pass_time(10)
        assert far.data == b""
        assert near.data == b"passes"
        assert not dial.done()
        world.network.unblock("b", "a")
        await dial
        await world.loop.until(lambda: far.data == b"held")

    simulate(main)


def test_a_partition_cuts_every_pair_between_its_groups_and_heals() -> None:
    async def main(world: World) -> None:
        ab, bc = await world.connect("b", "a"), await world.connect("b", "c")
        world.network.partition(["a"], ["b", "c"])
        for near, far in (ab, bc):
            near.transport.write(b"x")
            far.transport.write(b"y")
        await world.loop.pass_time(1)
        assert [end.data for end in (*ab, *bc)] == [b"", b"", b"y", b"x"]
        world.network.heal()
        await world.loop.pass_time(1)
        assert [end.data for end in (*ab, *bc)] == [b"y", b"x", b"y", b"x"]

    simulate(main)


def test_a_paused_host_is_cut_off_from_everybody() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.pause("a")
        near.transport.write(b"x")
        far.transport.write(b"y")
        await world.loop.pass_time(1)
        assert near.data == far.data == b""
        world.network.resume("a")
        await world.loop.pass_time(1)
        assert (near.data, far.data) == (b"y", b"x")

    simulate(main)


def test_refusing_a_direction_leaves_its_connections_alone() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.refuse("b", "a")
        with pytest.raises(ConnectionRefusedError):
            await world.connect()
        await world.connect("c", "a")
        near.transport.write(b"x")
        await world.loop.until(lambda: far.data == b"x")
        world.network.allow("b", "a")
        await world.connect()

    simulate(main)


def test_a_broken_connection_keeps_a_prefix_and_each_end_finds_out_by_itself() -> None:
    lengths = set()

    async def main(world: World) -> None:
        near, far = await world.connect()
        for number in range(20):
            near.transport.write(b"%02d" % number)
        world.network.break_connections("a", "b", notice_s=0.5)
        near.transport.write(b"never arrives")
        await world.loop.pass_time(1)
        assert near.log == far.log == ["made", "lost"]
        assert b"".join(b"%02d" % number for number in range(20)).startswith(far.data)
        lengths.add(len(far.data))

    for seed in range(20):
        simulate(main, seed)
    assert len(lengths) > 5


def test_a_break_that_one_end_never_notices_leaves_it_writing_into_the_void() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        world.network.break_connections("a", "b", noticed_by=["b"], notice_s=0.0)
        await world.loop.pass_time(0.1)
        far.transport.write(b"x" * 1_000_000)
        await world.loop.pass_time(60)
        assert near.log == ["made", "lost"]
        assert far.log[0] == "made"
        assert "lost" not in far.log
        assert far.transport.get_write_buffer_size() > 0

    simulate(main)


def test_the_kernel_of_a_killed_process_closes_its_connections() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        far.transport.write(b"last words")
        world.network.kill("a")
        far.transport.write(b"of a dead process")
        await world.loop.until(lambda: near.log[-1] == "lost")
        assert near.data == b"last words"
        assert far.log == ["made"], "the dead hear nothing"
        with pytest.raises(ConnectionRefusedError):
            await world.network.host("b").connect(End, "a", PORT)
        assert world.network.connection_count == 0

    simulate(main)


def test_a_host_without_power_is_silent_until_it_is_back_and_then_denies_everything() -> None:
    async def main(world: World) -> None:
        near, far = await world.connect()
        far.transport.write(b"last words")
        world.network.host_down("a")
        near.transport.write(b"x")
        dial = asyncio.ensure_future(world.network.host("b").connect(End, "a", PORT))
        await world.loop.pass_time(10)
        assert near.log == ["made"]
        assert near.data == b"last words"
        assert not dial.done()
        world.network.host_up("a")
        await world.loop.until(lambda: near.log[-1] == "lost" and dial.done())
        assert isinstance(near.error, ConnectionResetError)
        assert isinstance(dial.exception(), ConnectionRefusedError)
        assert far.log == ["made"]

    simulate(main)


def test_a_dial_that_was_given_up_leaves_nothing_behind() -> None:
    async def main(world: World) -> None:
        await world.network.host("a").listen(world.accept, "a", PORT)
        world.network.block("a", "b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await world.network.host("b").connect(End, "a", PORT)
        assert world.accepted[0].log == ["made"]
        world.network.heal()
        await world.loop.until(lambda: world.accepted[0].log == ["made", "lost"])
        assert world.network.connection_count == 0

    simulate(main)


def test_what_a_protocol_raises_goes_to_the_loop_and_ends_the_connection() -> None:
    class Faulty(End):
        def data_received(self, data: bytes) -> None:
            raise ValueError("no")

    async def main(world: World) -> None:
        raised: list[Any] = []
        world.loop.set_exception_handler(lambda _, context: raised.append(context["exception"]))
        await world.network.host("a").listen(Faulty, "a", PORT)
        near = End()
        await world.network.host("b").connect(lambda: near, "a", PORT)
        near.transport.write(b"x")
        await world.loop.until(lambda: near.log[-1] == "lost")
        assert [type(error) for error in raised] == [ValueError]

    simulate(main)


def trace(seed: int, noise: bool) -> list[float]:
    """Return when bytes arrived at a, with or without traffic on another link."""

    async def main(world: World) -> list[float]:
        near, far = await world.connect()
        other, _ = await world.connect("d", "c")
        for _ in range(20):
            near.transport.write(b"x" * 100)
            if noise:
                other.transport.write(b"y")
            await world.loop.pass_time(0.01)
        return far.arrivals

    return cast(list[float], simulate(main, seed, piece_size_max=30))


def test_a_seed_decides_everything_and_links_do_not_disturb_each_other() -> None:
    assert trace(1, noise=False) == trace(1, noise=False)
    assert trace(1, noise=False) == trace(1, noise=True)
    assert trace(1, noise=False) != trace(2, noise=False)
    assert len(trace(1, noise=False)) > 20
