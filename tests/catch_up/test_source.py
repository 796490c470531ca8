"""Both ends of the FILES channel, one at a time: what a node answers, at which pace, and what who asks makes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from distlog.catch_up import messages
from distlog.catch_up.messages import (
    Answer,
    CheckpointPart,
    CheckpointRequest,
    Part,
    PartRequest,
    Reason,
    Refusal,
    Request,
    Segments,
    SegmentsRequest,
)
from distlog.catch_up.pacing import Pace
from distlog.catch_up.requests import ANSWER_TIMEOUT_S, NotCopied, Requests
from distlog.catch_up.source import WAITING_MAX, Source
from distlog.errors import PeerRefused
from distlog.storage.simulated_disk import SimulatedDisk
from tests.catch_up.test_segments import filled
from tests.simulation.virtual_loop import VirtualClock, VirtualLoop

TOPIC = "topics/00000000000000000001"


class PromptWorker:
    """Does everything at once."""

    def submit(self, function: Callable[..., Any], *arguments: Any) -> asyncio.Future[Any]:
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(function(*arguments))
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None: ...


class Answering:
    """A source, and what it sent to whom."""

    def __init__(self, *, rate_max: int = 0, checkpoint_index: int = 10) -> None:
        self.disk = SimulatedDisk()
        self.mark = filled(self.disk, TOPIC, 40)
        self.disk.open("checkpoint", create=True).write_at(0, [bytes(range(256)) * 4000])
        self.sent: list[tuple[str, Answer]] = []
        self._arrived = asyncio.Event()
        self.wanted: list[int] = []
        self.waiting: dict[str, int] = {}
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.source = Source(
            disk=self.disk,
            checkpoint_path="checkpoint",
            topics_path="topics",
            worker=PromptWorker(),
            clock=VirtualClock(loop),
            rate_max=rate_max,
            send=self._send,
            waiting_size=lambda node_id: self.waiting.get(node_id, 0),
            checkpoint_index=lambda: checkpoint_index,
            checkpoint_wanted=self.wanted.append,
            failed=self._failed,
        )

    def _send(self, node_id: str, payload: bytes) -> bool:
        answer = messages.decode(payload, node_id)
        assert not isinstance(answer, CheckpointRequest | SegmentsRequest | PartRequest)
        self.sent.append((node_id, answer))
        self._arrived.set()
        return True

    def _failed(self, error: BaseException) -> None:
        raise error

    async def answer(self, request: Request) -> Answer:
        self.source.receive("n2", request)
        await self.until(1)
        return self.sent.pop()[1]

    async def until(self, count: int) -> None:
        """Wait until so much was sent and not taken."""
        while len(self.sent) < count:
            self._arrived.clear()
            await self._arrived.wait()


async def pass_time(seconds: float) -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    await loop.pass_time(seconds)


def on_virtual_time(story: Callable[[], Awaitable[None]]) -> None:
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(story())  # type: ignore[arg-type]


def test_a_checkpoint_comes_in_parts_and_an_older_one_than_is_of_use_is_refused() -> None:
    async def story() -> None:
        end = Answering()
        data = b""
        while len(data) < 256 * 4000:
            part = await end.answer(CheckpointRequest(1, 5, 10 if data else 0, len(data)))
            assert isinstance(part, CheckpointPart)
            assert (part.raft_index, part.size) == (10, 256 * 4000)
            data += part.data
        assert data == bytes(range(256)) * 4000
        refusal = await end.answer(CheckpointRequest(2, 11, 0, 0))
        assert isinstance(refusal, Refusal)
        assert refusal.reason == Reason.TOO_OLD
        assert end.wanted == [11], "and one is written"
        gone = await end.answer(CheckpointRequest(3, 5, 9, 100))
        assert isinstance(gone, Refusal)
        assert gone.reason == Reason.GONE

    on_virtual_time(story)


def test_segments_are_listed_and_sent_and_what_is_not_there_is_refused_in_words() -> None:
    async def story() -> None:
        end = Answering()
        listed = await end.answer(SegmentsRequest(1, 1, (*end.mark,), 0))
        assert isinstance(listed, Segments)
        assert listed.is_last
        base = listed.segments[1][0]
        part = await end.answer(PartRequest(2, 1, base, 0, 10, 100))
        assert isinstance(part, Part)
        store = end.disk.open(f"{TOPIC}/{base:020d}.log")
        assert bytes(part.data) == store.read_at(10, 100)
        for request in (
            SegmentsRequest(3, 2, (*end.mark,), 0),
            PartRequest(4, 1, 7777, 0, 0, 1),
            PartRequest(5, 1, base, 0, 1 << 40, 1),
        ):
            refusal = await end.answer(request)
            assert isinstance(refusal, Refusal)
            assert (refusal.number, refusal.reason) == (request.number, Reason.GONE)
            assert refusal.problem

    on_virtual_time(story)


def test_too_many_requests_are_refused_at_once_and_those_of_a_lost_peer_forgotten() -> None:
    async def story() -> None:
        end = Answering()
        for number in range(WAITING_MAX + 5):
            end.source.receive("n2", PartRequest(number, 1, 0, 0, 0, 10))
        refused = [answer for _, answer in end.sent if isinstance(answer, Refusal)]
        assert [each.reason for each in refused] == [Reason.BUSY] * 5
        end.source.drop("n2")
        await pass_time(1)
        assert len(end.sent) == 5

    on_virtual_time(story)


def test_bytes_leave_at_the_pace_and_never_behind_a_full_queue() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        end = Answering(rate_max=20_000)
        begin = loop.time()
        for number in range(20):
            end.source.receive("n2", PartRequest(number, 1, 0, 0, 0, 2000))
        await end.until(20)
        assert 1.7 < loop.time() - begin < 2.3, "40,000 bytes in two seconds, but for a first burst"
        end.waiting["n2"] = 1 << 30
        end.source.receive("n2", PartRequest(50, 1, 0, 0, 0, 10))
        end.source.receive("n3", PartRequest(51, 1, 0, 0, 0, 10))
        await pass_time(1)
        assert [answer.number for _, answer in end.sent[20:]] == [51], "another peer has room"
        end.waiting.clear()
        await pass_time(1)
        assert end.sent[-1][1].number == 50

    on_virtual_time(story)


def test_a_pace_of_nothing_is_none_and_a_slow_one_sends_small_pieces() -> None:
    async def story() -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        free = Pace(VirtualClock(loop), 0)
        free.sent(1 << 40)
        assert (free.delay_s(), free.part_size(1 << 20)) == (0.0, 1 << 20)
        slow = Pace(VirtualClock(loop), 100_000)
        assert slow.part_size(1 << 20) == 10_000
        slow.sent(200_000)
        assert slow.delay_s() == pytest.approx(1.9)

    on_virtual_time(story)


def test_who_asks_learns_of_every_way_in_which_no_answer_comes() -> None:
    async def story() -> None:
        sent: list[str] = []

        def send(peer: str, payload: bytes) -> bool:
            sent.append(peer)
            return peer != "away"

        requests = Requests(send)

        async def ask(peer: str) -> Part:
            return await requests.ask(
                peer, PartRequest(requests.next_number(), 1, 0, 0, 0, 5), Part
            )

        with pytest.raises(NotCopied, match="not connected"):
            await ask("away")
        begin = asyncio.get_running_loop().time()
        with pytest.raises(NotCopied, match="no answer within"):
            await ask("n2")
        assert asyncio.get_running_loop().time() - begin == pytest.approx(ANSWER_TIMEOUT_S)
        for answer in (
            lambda: requests.receive("n2", Refusal(3, Reason.GONE, "it was trimmed")),
            lambda: requests.receive("n2", Segments(4, [], True)),
            lambda: requests.drop("n2"),
        ):
            asked = asyncio.ensure_future(ask("n2"))
            await pass_time(0)
            answer()
            with pytest.raises(NotCopied):
                await asked
        asked = asyncio.ensure_future(ask("n2"))
        await pass_time(0)
        # Of somebody else, and of nobody's question.
        requests.receive("n3", Part(6, memoryview(b"wrong")))
        requests.receive("n2", Part(60, memoryview(b"wrong")))
        requests.receive("n2", Part(6, memoryview(b"right")))
        assert bytes((await asked).data) == b"right"

    on_virtual_time(story)


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", b"garbage", b"\x92\x63\x01", messages.encode(Part(1, memoryview(b"x")))[:-1]],
)
def test_anything_else_is_refused_with_the_sender_named(payload: bytes) -> None:
    with pytest.raises(PeerRefused, match="n2"):
        messages.decode(payload, "n2")
