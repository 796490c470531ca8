"""distlog, watched from inside: `python -m benchmarks.instrumented sampled|traced OUTPUT ARGUMENT...` runs `distlog ARGUMENT...`.

sampled    OUTPUT has, for each part of the program, how often it was at work when a timer of the processor's time fired
traced     OUTPUT has when, by the machine's monotonic clock, the stations on the way of one append were passed

Both cost some time themselves, so what they tell is shares and order; how long something takes without them is measured elsewhere.
"""

from __future__ import annotations

import atexit
import functools
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

INTERVAL_S = 0.002
# Of the file of the innermost frame that is known, the first that fits: which part was at work.
PARTS = (
    ("/distlog/consensus/journal", "journal"),
    ("/distlog/consensus/state_machine", "apply: topic logs"),
    ("/distlog/consensus/producers", "apply: topic logs"),
    ("/distlog/consensus/commands", "entries: encode, decode"),
    ("/distlog/consensus/proposals", "entries: encode, decode"),
    ("/distlog/block", "blocks: check, cut, join"),
    ("/distlog/client/records", "blocks: check, cut, join"),
    ("/distlog/storage/", "apply: topic logs"),
    ("/distlog/peer/", "connections to peers"),
    ("/distlog/consensus/messages", "connections to peers"),
    ("/distlog/consensus/", "Raft: rules and driver"),
    ("/pysyncobj/", "Raft: pysyncobj"),
    ("/distlog/server/", "calls"),
    ("/distlog/api/", "calls"),
    ("/distlog/client/", "client"),
    ("/distlog/cli/bench", "the load itself"),
)
REST = "event loop, gRPC, interpreter"
# What runs a loop: behind it is only who started it.
LOOPS = ("run_forever", "run_until_complete", "_run_once")
LOADING = "<frozen importlib"


def part_of(frame: FrameType | None) -> str | None:
    """Return which part is at work; None while a module is being loaded."""
    part = None
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(LOADING):
            return None
        if part is None:
            if code.co_name in LOOPS:
                part = REST
            else:
                part = next((found for name, found in PARTS if name in code.co_filename), None)
        frame = frame.f_back
    return part or REST


def sample(output: Path) -> None:
    """Count, from now on, what is at work each time the process has used INTERVAL_S of the processor."""
    counts: Counter[str] = Counter()

    def fired(_number: int, frame: FrameType | None) -> None:
        part = part_of(frame)
        if part is not None:
            counts[part] += 1

    signal.signal(signal.SIGPROF, fired)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL_S, INTERVAL_S)

    def stop() -> None:
        # Behind this the handler is gone, and the signal would end the process.
        signal.setitimer(signal.ITIMER_PROF, 0)
        output.write_text(json.dumps(counts), "utf-8")

    atexit.register(stop)


def trace(output: Path) -> None:
    """Note when the stations of an append are passed."""
    from distlog.consensus.group import Group
    from distlog.consensus.journal import Journal
    from distlog.consensus.library import Library
    from distlog.consensus.proposals import Proposals
    from distlog.consensus.state_machine import StateMachine
    from distlog.peer.stream import Stream
    from distlog.server.log_service import LogService

    passed: list[tuple[float, str]] = []

    def note(kind: type, method: str, before: str, after: str) -> None:
        inner: Callable[..., Any] = getattr(kind, method)

        @functools.wraps(inner)
        def noted(*arguments: Any, **named: Any) -> Any:
            if before:
                passed.append((time.monotonic(), before))
            try:
                return inner(*arguments, **named)
            finally:
                if after:
                    passed.append((time.monotonic(), after))

        setattr(kind, method, noted)

    note(Proposals, "submit", "the call is proposed", "")
    note(Library, "tick", "Raft's tick", "")
    note(Stream, "flush", "sent to a peer", "")
    note(Journal, "_write_small", "journal written, sync asked for", "")
    note(Group, "frame_received", "received from a peer", "")
    note(Group, "_finish_sync", "journal synced", "")
    note(StateMachine, "apply_payload", "", "applied")
    answer = LogService.produce

    async def produce(*arguments: Any) -> Any:
        passed.append((time.monotonic(), "the call arrives"))
        try:
            return await answer(*arguments)
        finally:
            passed.append((time.monotonic(), "the call is answered"))

    LogService.produce = produce  # type: ignore[method-assign]
    atexit.register(lambda: output.write_text(json.dumps(passed), "utf-8"))


def main() -> int:
    mode, output, *arguments = sys.argv[1:]
    from distlog.cli.main import main as distlog

    {"sampled": sample, "traced": trace}[mode](Path(output))
    return distlog(arguments)


if __name__ == "__main__":
    sys.exit(main())
