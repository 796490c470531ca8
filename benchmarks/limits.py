"""What the machine and its parts give, whatever distlog does: measured in the same minutes as what distlog makes of it.

An empty unary call, a round trip on a bare socket, streams of 1 MiB messages up and down (all to a process of its own that does nothing
else), an fdatasync of 4 KiB where the nodes keep their data, a copy into a fresh and into a warm map, and CRC-32C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import mmap
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import grpc
import grpc.aio
import uvloop

CALL, UP, DOWN = "/bare.Bare/Call", "/bare.Bare/Up", "/bare.Bare/Down"
MIB = 1 << 20
BLOCK = b"x" * MIB
SMALL = b"x" * 100
CALLERS = 16
WARM_UP_CALLS = 200
CHANNEL_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]

Runs = dict[str, float]


# --- The other end ----------------------------------------------------------------------------------


class _BareHandler(grpc.GenericRpcHandler):
    def service(self, details: Any) -> Any:
        async def call(_request: bytes, _context: Any) -> bytes:
            return b""

        async def up(requests: AsyncIterator[bytes], _context: Any) -> bytes:
            async for _ in requests:
                pass
            return b""

        async def down(request: bytes, _context: Any) -> AsyncIterator[bytes]:
            for _ in range(int(request)):
                yield BLOCK

        if details.method == CALL:
            return grpc.unary_unary_rpc_method_handler(call)
        if details.method == UP:
            return grpc.stream_unary_rpc_method_handler(up)
        return grpc.unary_stream_rpc_method_handler(down) if details.method == DOWN else None


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def serve() -> None:
    """Serve on free ports, which are printed, until the standard input ends."""
    loop = asyncio.get_running_loop()
    server = grpc.aio.server(options=CHANNEL_OPTIONS)
    server.add_generic_rpc_handlers((_BareHandler(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    echo = await loop.create_server(_Echo, "127.0.0.1", 0)
    print(port, echo.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    echo.close()
    await server.stop(None)


@contextlib.contextmanager
def bare_server() -> Iterator[tuple[int, int]]:
    """Run the other end as a process; yield the ports of its gRPC server and of its echo."""
    command = [sys.executable, "-m", "benchmarks.limits", "--serve"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        port, echo_port = map(int, process.stdout.readline().split())
        yield port, echo_port
    finally:
        process.stdin.close()
        process.wait(timeout=10)


# --- Measuring --------------------------------------------------------------------------------------


def measure_limits(ports: tuple[int, int], directory: Path, seconds: float) -> Runs:
    """Return each limit once.  seconds: of each; directory: where the nodes keep their data."""
    return {
        **asyncio.run(_grpc_limits(ports[0], seconds)),
        **uvloop.run(_socket_limits(ports[1], seconds / 2)),
        **_fdatasync_limits(directory, seconds / 2),
        **_memory_limits(seconds / 4),
    }


async def _grpc_limits(port: int, seconds: float) -> Runs:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS) as channel:
        call = channel.unary_unary(CALL)
        for _ in range(WARM_UP_CALLS):
            await call(b"")
        laps = await _laps(lambda: call(b""), seconds)
        begin = time.perf_counter()
        counts = await asyncio.gather(*(_laps(lambda: call(b""), seconds) for _ in range(CALLERS)))
        elapsed = time.perf_counter() - begin
        return {
            "empty_p50_ms": percentile_ms(laps, 0.5),
            "empty_p99_ms": percentile_ms(laps, 0.99),
            "empty_16_per_s": sum(map(len, counts)) / elapsed,
            **await _stream_limits(channel, seconds),
        }


async def _stream_limits(channel: Any, seconds: float) -> Runs:
    # As many as take about as long at 400 MB/s.
    count = max(2, int(seconds * 400))

    async def blocks() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield BLOCK

    begin = time.perf_counter()
    await channel.stream_unary(UP)(blocks())
    middle = time.perf_counter()
    async for _ in channel.unary_stream(DOWN)(str(count).encode()):
        pass
    end = time.perf_counter()
    return {
        "upload_mb_s": count * MIB / 1e6 / (middle - begin),
        "download_mb_s": count * MIB / 1e6 / (end - middle),
    }


class _Caller(asyncio.Protocol):
    """Sends a piece of bytes and waits until as many are back."""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._missing -= len(data)
        if not self._missing:
            self._answered.set_result(None)

    async def call(self, data: bytes) -> None:
        self._missing = len(data)
        self._answered = asyncio.get_running_loop().create_future()
        self._transport.write(data)
        await self._answered


async def _socket_limits(port: int, seconds: float) -> Runs:
    loop = asyncio.get_running_loop()
    transport, caller = await loop.create_connection(_Caller, "127.0.0.1", port)
    laps = await _laps(lambda: caller.call(SMALL), seconds)
    transport.close()
    return {"socket_p50_ms": percentile_ms(laps, 0.5), "socket_p99_ms": percentile_ms(laps, 0.99)}


async def _laps(action: Callable[[], Any], seconds: float) -> list[float]:
    laps = []
    now = time.perf_counter()
    end = now + seconds
    while now < end:
        await action()
        now, begin = time.perf_counter(), now
        laps.append(now - begin)
    return laps


def _fdatasync_limits(directory: Path, seconds: float) -> Runs:
    path = directory / "fdatasync"
    page, count = bytes(4096), 1024
    file = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        # As the journal does: the file has its size before it is written.
        os.pwrite(file, page * count, 0)
        os.fsync(file)
        laps = []
        end = time.perf_counter() + seconds
        while (begin := time.perf_counter()) < end:
            os.pwrite(file, page, 4096 * (len(laps) % count))
            os.fdatasync(file)
            laps.append(time.perf_counter() - begin)
    finally:
        os.close(file)
        path.unlink()
    return {
        "fdatasync_p50_ms": percentile_ms(laps, 0.5),
        "fdatasync_p99_ms": percentile_ms(laps, 0.99),
    }


def _memory_limits(seconds: float) -> Runs:
    size = 16 * MIB

    def copy_into(memory: mmap.mmap) -> None:
        for position in range(0, size, MIB):
            memory[position : position + MIB] = BLOCK

    def fresh() -> None:
        with mmap.mmap(-1, size) as memory:
            copy_into(memory)

    with mmap.mmap(-1, size) as warm:
        copy_into(warm)
        return {
            "copy_fresh_gb_s": _gb_s(fresh, size, seconds),
            "copy_warm_gb_s": _gb_s(lambda: copy_into(warm), size, seconds),
            "crc32c_gb_s": _gb_s(lambda: google_crc32c.value(BLOCK), MIB, seconds),
        }


def _gb_s(action: Callable[[], object], size: int, seconds: float) -> float:
    count = 0
    begin = time.perf_counter()
    while time.perf_counter() < begin + seconds:
        action()
        count += 1
    return count * size / 1e9 / (time.perf_counter() - begin)


def percentile_ms(laps: list[float], share: float) -> float:
    """Return the value below which `share` of the laps lie, in milliseconds."""
    ordered = sorted(laps)
    return 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * share))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--serve", action="store_true", required=True)
    parser.parse_args()
    # As the nodes do.
    uvloop.run(serve())
