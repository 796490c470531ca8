"""What a command says while it waits for the cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from distlog.cli import connecting, produce
from distlog.cli.connecting import SERIES_GAP_S, SILENCE_MAX_S, Waiting
from distlog.errors import NoLeader, Unreachable
from tests.cli.commands import parsed
from tests.client.fake_cluster import FakeCluster
from tests.client.running import run

NO_LEADER = NoLeader(problem="an election is under way", retry_delay_s=1.0)


class SetClock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_what_is_waited_for_is_said_once_and_only_when_it_takes_long(
    capsys: pytest.CaptureFixture[str],
) -> None:
    clock = SetClock()
    waiting = Waiting(clock)

    def said(pause_s: float) -> str:
        clock.now += pause_s
        waiting.failed(NO_LEADER)
        return capsys.readouterr().err

    assert said(0.0) == said(SILENCE_MAX_S - 0.1) == ""
    # It went well in between.
    assert said(SERIES_GAP_S + 0.1) == said(1.0) == ""
    assert said(SILENCE_MAX_S) == "distlog: waiting for a leader: an election is under way\n"
    assert said(1.0) == said(SERIES_GAP_S + 1) == said(SILENCE_MAX_S) == ""


def test_any_other_reason_is_said_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "SILENCE_MAX_S", 0.0)
    Waiting(SetClock()).failed(Unreachable(addresses="h:1", problem="refused"))
    assert capsys.readouterr().err.startswith("distlog: waiting since no answer from h:1 (refused)")


def test_a_command_says_why_it_waits_for_a_cluster_that_has_not_formed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "SILENCE_MAX_S", 0.1)
    reason = "the cluster is not formed yet: waiting for n2, n3"
    path = tmp_path / "lines"
    path.write_bytes(b"one\n")

    async def scenario() -> None:
        async with FakeCluster(node_count=1) as cluster:
            cluster.leader, cluster.election_rounds = None, 1_000_000
            cluster.problem = reason
            with pytest.raises(NoLeader, match=reason):
                await produce.produce(parsed(produce, cluster, str(path), "--timeout", "1"))

    run(scenario())
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("distlog: waiting for a leader: 1 node answered")
    assert line.endswith(reason)
