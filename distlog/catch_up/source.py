"""The end of a copy that is copied from: reads files of this node for peers that are behind, one request after the other.

Any node does it whose checkpoint is new enough; it keeps nothing between two requests but the bytes of the last checkpoint that was
asked for.  Files are read in a worker, and leave at a pace (pacing.py): a copy gives way to what clients do.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable

from distlog.catch_up import messages
from distlog.catch_up.background import Background
from distlog.catch_up.messages import (
    LISTED_MAX,
    PART_SIZE_MAX,
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
from distlog.errors import DistlogError
from distlog.runtime import Clock, Worker
from distlog.storage.disk import Disk
from distlog.storage.listing import list_log
from distlog.storage.segment_files import SUFFIXES, segment_path

logger = logging.getLogger(__name__)

# Requests of all peers that wait.
WAITING_MAX = 256
# Answers that are made ready while another one leaves.
READ_AHEAD = 4
# Bytes that may wait for a peer before a further answer is made: its Raft messages stand behind them.
QUEUED_SIZE_MAX = 2 << 20
LOOK_INTERVAL_S = 0.002
# The bytes of a checkpoint are forgotten when nobody has asked for so long.
CHECKPOINT_KEPT_S = 30.0


class Source:
    """Answers what peers ask for."""

    def __init__(
        self,
        *,
        disk: Disk,
        checkpoint_path: str,
        topics_path: str,
        worker: Worker,
        clock: Clock,
        rate_max: int,
        send: Callable[[str, bytes], bool],
        waiting_size: Callable[[str], int],
        checkpoint_index: Callable[[], int],
        checkpoint_wanted: Callable[[int], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        """send(node_id, payload): queue a frame; False if it cannot be sent.  waiting_size(node_id): bytes that wait for it.

        checkpoint_index(): of the newest that is durable.  checkpoint_wanted(raft_index): somebody needs one that is not older.
        failed(error): called if this is broken.
        """
        self._disk = disk
        self._checkpoint_path = checkpoint_path
        self._topics_path = topics_path
        self._worker = worker
        self._clock = clock
        self._pace = Pace(clock, rate_max)
        self._send = send
        self._waiting_size = waiting_size
        self._checkpoint_index = checkpoint_index
        self._checkpoint_wanted = checkpoint_wanted
        self._requests: deque[tuple[str, Request]] = deque()
        # What is being read for them, in the order in which it is sent.
        self._answers: deque[tuple[str, Request, asyncio.Future[bytes]]] = deque()
        self._background = Background(failed)
        # Raft index and bytes of the last checkpoint that was asked for, and when that was.
        self._checkpoint: tuple[int, bytes] | None = None
        self._checkpoint_used_at = 0.0
        self.counters: Counter[str] = Counter(requests=0, refusals=0, bytes_sent=0)

    def receive(self, sender: str, request: Request) -> None:
        """Take a request; it is answered in its turn."""
        self.counters["requests"] += 1
        if len(self._requests) >= WAITING_MAX:
            self._refuse(sender, request, Reason.BUSY, "too many requests wait")
            return
        self._requests.append((sender, request))
        self._background.begin(self._work)

    def drop(self, node_id: str) -> None:
        """Forget what a peer has asked for: its connection is gone."""
        self._requests = deque(each for each in self._requests if each[0] != node_id)

    def close(self) -> None:
        self._requests.clear()
        self._background.cancel()

    async def _work(self) -> None:
        while self._requests or self._answers:
            while self._requests and len(self._answers) < READ_AHEAD:
                sender, request = self._requests.popleft()
                self._answers.append((sender, request, self._begin(request)))
            delay_s = self._pace.delay_s()
            if delay_s:
                await asyncio.sleep(delay_s)
            elif self._waiting_size(self._answers[0][0]) > QUEUED_SIZE_MAX:
                # Another peer may have room.
                self._answers.rotate(-1)
                await asyncio.sleep(LOOK_INTERVAL_S)
            else:
                await self._send_answer(*self._answers.popleft())

    async def _send_answer(
        self, sender: str, request: Request, answer: asyncio.Future[bytes]
    ) -> None:
        try:
            payload = await answer
        except DistlogError as error:
            # A file that is gone, or that cannot be read: the peer asks another node, or for a newer checkpoint.
            logger.debug("nothing to copy peer=%s problem=%s", sender, error)
            self._refuse(sender, request, Reason.GONE, str(error)[:1000])
            return
        self._pace.sent(len(payload))
        self.counters["bytes_sent"] += len(payload)
        # A peer that is gone asks again when it is back.
        self._send(sender, payload)

    def _refuse(self, sender: str, request: Request, reason: Reason, problem: str) -> None:
        self.counters["refusals"] += 1
        self._send(sender, messages.encode(Refusal(request.number, reason, problem)))

    def _begin(self, request: Request) -> asyncio.Future[bytes]:
        """Begin to make the payload of an answer."""
        match request:
            case CheckpointRequest():
                return asyncio.get_running_loop().create_task(self._checkpoint_part(request))
            case SegmentsRequest():
                return self._worker.submit(lambda: messages.encode(self._list(request)))
            case PartRequest():
                return self._worker.submit(lambda: messages.encode(self._read(request)))

    # --- The checkpoint ----------------------------------------------------------------------------

    async def _checkpoint_part(self, request: CheckpointRequest) -> bytes:
        number, now = request.number, self._clock.monotonic()
        if now - self._checkpoint_used_at > CHECKPOINT_KEPT_S:
            self._checkpoint = None
        self._checkpoint_used_at = now
        if request.position == 0:
            # The file may be a newer one already; then the peer finds that its parts do not fit, and asks again.
            raft_index = self._checkpoint_index()
            self._checkpoint = await self._worker.submit(self._read_checkpoint, raft_index)
        kept = self._checkpoint
        if kept is None or kept[0] < request.index_min:
            self._checkpoint_wanted(request.index_min)
            self.counters["refusals"] += 1
            problem = (
                f"its checkpoint is at {kept[0] if kept else 0}, and {request.index_min} is needed"
            )
            return messages.encode(Refusal(number, Reason.TOO_OLD, problem))
        raft_index, data = kept
        if request.position and (request.raft_index != raft_index or request.position >= len(data)):
            self.counters["refusals"] += 1
            problem = "there is another checkpoint by now"
            return messages.encode(Refusal(number, Reason.GONE, problem))
        end = request.position + self._pace.part_size(PART_SIZE_MAX)
        part = data[request.position : end]
        return messages.encode(CheckpointPart(number, raft_index, len(data), part))

    def _read_checkpoint(self, raft_index: int) -> tuple[int, bytes] | None:
        if not self._disk.exists(self._checkpoint_path):
            return None
        file = self._disk.open(self._checkpoint_path, writable=False)
        try:
            data = file.read_at(0, file.size())
        finally:
            file.close()
        return raft_index, data

    # --- Segments ----------------------------------------------------------------------------------

    def _list(self, request: SegmentsRequest) -> Segments:
        path = f"{self._topics_path}/{request.topic_id:020d}"
        mark = messages.mark_of(request)
        listings, is_last = list_log(self._disk, path, mark, request.from_base, LISTED_MAX)
        return Segments(request.number, [(*each,) for each in listings], is_last)

    def _read(self, request: PartRequest) -> Answer:
        directory = f"{self._topics_path}/{request.topic_id:020d}"
        path = segment_path(directory, request.base_offset, SUFFIXES[request.file])
        file = self._disk.open(path, writable=False)
        try:
            data = file.read_at(request.position, self._pace.part_size(request.size))
        finally:
            file.close()
        if not data:
            return Refusal(
                request.number, Reason.GONE, f"{path} ends before byte {request.position}"
            )
        return Part(request.number, memoryview(data))
