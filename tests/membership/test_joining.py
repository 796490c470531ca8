"""How a node that joins finds the members: it asks, greets, and begins again, later each time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest

from distlog.errors import Unreachable
from distlog.membership.joining import DELAY_MAX_S, GREETING_DELAY_S, Joining
from tests.consensus.nodes import on_virtual_time
from tests.simulation.virtual_loop import VirtualLoop


class Peers:
    """What it tells its connections."""

    def __init__(self) -> None:
        self.located: dict[str, tuple[str, int]] = {}
        self.greeted = 0

    def locate(self, node_id: str, address: tuple[str, int]) -> None:
        self.located[node_id] = address

    def restart_strangers(self) -> None:
        self.greeted += 1


def joined(answers: dict[str, Any], *addresses: str, seconds: float) -> tuple[Peers, list[str]]:
    """Let a node try for so long; return what it told its connections, and whom it asked."""
    peers, asked = Peers(), []

    async def ask(address: tuple[str, int]) -> Mapping[str, str]:
        asked.append(address[0])
        answer = answers[address[0]]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.get_running_loop().create_future()
        found: Mapping[str, str] = answer
        return found

    async def main() -> None:
        places = [(host, 8400) for host in addresses]
        joining = Joining(lambda: places, ask, peers, Random(1))  # type: ignore[arg-type]
        task = asyncio.ensure_future(joining.run())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await loop.pass_time(seconds)
        task.cancel()

    on_virtual_time(main)
    return peers, asked


def test_it_dials_every_member_that_the_first_answer_names_and_greets_them_again_and_again() -> (
    None
):
    members = {"n1": "h1:8401", "n2": "[::1]:8411", "n3": ""}
    peers, asked = joined({"h1": members}, "h1", "h2", seconds=4.5 * GREETING_DELAY_S)
    assert peers.located == {"n1": ("h1", 8401), "n2": ("::1", 8411)}
    assert set(asked) == {"h1"}
    assert peers.greeted == 5


def test_it_tries_the_addresses_in_turn_and_waits_longer_each_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    answers = {"h1": Unreachable("h1:8400", "refused"), "h2": OSError("no route")}
    _, asked = joined(answers, "h1", "h2", seconds=60.0)
    assert asked[:4] == ["h1", "h2", "h1", "h2"]
    # Two of each delay: from a quarter of a second to five.
    assert 60 / DELAY_MAX_S < len(asked) < 30
    told = [each.getMessage() for each in caplog.records]
    assert "address=h1:8400" in told[0]
    assert "no answer from h1:8400" in told[0]
    assert "problem=no route" in told[1]
    levels = [each.levelno for each in caplog.records]
    # Nodes that are started together need some moments.
    assert levels == sorted(levels)
    assert (levels[0], levels[-1]) == (logging.INFO, logging.WARNING)


def test_a_member_that_never_answers_does_not_hold_it_up() -> None:
    peers, asked = joined({"h1": None, "h2": {"n2": "h2:1"}}, "h1", "h2", seconds=5.0)
    assert asked[:2] == ["h1", "h2"]
    assert peers.located == {"n2": ("h2", 1)}


def test_a_node_that_is_a_cluster_by_itself_is_said_to_need_bootstrap(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    peers, _ = joined({"h1": {"n1": ""}}, "h1", seconds=1.0)
    assert peers.located == {}
    assert "start the first one with --bootstrap" in caplog.text
