"""Where the time goes: frames are put down to the part that is at work, and the program runs."""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

import pytest

from benchmarks import where_time_goes
from benchmarks.instrumented import REST, part_of


def frame_of(*calls: tuple[str, str]) -> FrameType:
    """Return the innermost of frames that call each other, each of a file and a function, the outermost first."""
    innermost: list[FrameType] = []
    chain: Any = lambda: innermost.append(sys._getframe(1))  # noqa: E731
    for file, function in reversed(calls):
        scope: dict[str, Any] = {"then": chain}
        exec(compile(f"def {function}():\n    then()\n", file, "exec"), scope)
        chain = scope[function]
    chain()
    return innermost[0]


@pytest.mark.parametrize(
    ("calls", "part"),
    [
        ([("/x/distlog/consensus/journal.py", "append")], "journal"),
        ([("/x/distlog/consensus/raft.py", "tick")], "Raft: rules and driver"),
        ([("/x/distlog/consensus/raft.py", "tick"), ("/x/numpy/core.py", "add")], "Raft: rules and driver"),
        ([("/x/distlog/consensus/raft.py", "tick"), ("/x/pysyncobj/syncobj.py", "go")], "Raft: pysyncobj"),
        ([("/x/distlog/cli/bench.py", "run"), ("/x/asyncio/base_events.py", "run_forever")], REST),
        ([("/x/distlog/cli/serve.py", "run"), ("/x/uvloop/loop.py", "other")], REST),
        ([("<frozen importlib._bootstrap>", "load"), ("/x/distlog/block.py", "module")], None),
    ],
)  # fmt: skip
def test_the_innermost_part_that_is_known_is_at_work(
    calls: list[tuple[str, str]], part: str | None
) -> None:
    assert part_of(frame_of(*calls)) == part


@pytest.mark.timeout(180)
def test_the_program_runs_and_names_every_role(capsys: pytest.CaptureFixture[str]) -> None:
    where_time_goes.main(["--quick", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert set(found["blocks"]["produce"]) == {"leader", "follower", "client"}
    for load, roles in found["blocks"].items():
        assert set(roles) >= {"leader", "client"}, load
    whats = [what for _, _, what in found["way"]]
    for what in ("the call arrives", "journal synced", "applied", "the call is answered"):
        assert what in whats
    moments = [moment for moment, _, _ in found["way"]]
    assert moments == sorted(moments)
    # What the second follower says arrives when it arrives.
    assert [what for _, who, what in found["way"] if who == "client"][-1] == "answered"
