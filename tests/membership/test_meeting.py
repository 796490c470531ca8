"""How nodes that are started with the same list find each other: everybody is asked, and whoever is wanted is dialled."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import Any

import pytest

from distlog.discovery.view import Description
from distlog.errors import Unreachable
from distlog.membership.meeting import ANSWER_TIMEOUT_S, DELAY_MAX_S, Meeting
from tests.consensus.nodes import on_virtual_time
from tests.simulation.virtual_loop import VirtualLoop


class Peers:
    """What a node tells its connections."""

    def __init__(self) -> None:
        self.connected_ids: tuple[str, ...] = ()
        self.located: dict[str, tuple[str, int]] = {}
        self.greeted: list[str] = []

    def locate(self, node_id: str, address: tuple[str, int]) -> None:
        self.located[node_id] = address

    def greet_again(self, node_id: str) -> None:
        self.greeted.append(node_id)


def node(name: str, cluster_id: str = "", expect: int = 3) -> Description:
    return Description(name, f"{name}-dir", f"{name}:8401", f"{name}:8400", cluster_id, expect)


def judge(found: Description) -> str | None:
    if found.expect != 3:
        return "it expects another number"
    return None if found.node_id != "later" else ""


def met(
    answers: dict[str, Any], *, seconds: float, looked: list[list[str]] | None = None
) -> tuple[Peers, Meeting, list[str]]:
    """Let n1 look for others for so long; an answer is who is there, what is wrong, or None for silence.

    looked: takes who was found, each time when everybody was asked.
    """
    peers, asked = Peers(), []
    looked = [] if looked is None else looked

    async def ask(address: tuple[str, int]) -> tuple[Description, int]:
        asked.append(address[0])
        answer = answers[address[0]]
        if isinstance(answer, Exception):
            raise answer
        if answer is None:
            await asyncio.get_running_loop().create_future()
        return answer, 1

    def made() -> Meeting:
        return Meeting(
            "n1",
            lambda: [(host, 8400) for host in answers],
            ask,
            peers,  # type: ignore[arg-type]
            Random(1),
            judge=judge,
            is_finished=lambda: len(peers.connected_ids) > 5,
            looked_around=lambda found: looked.append([each.node_id for each in found]),
        )

    meetings = [made()]

    async def main() -> None:
        task = asyncio.ensure_future(meetings[0].run())
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await loop.pass_time(seconds)
        task.cancel()

    on_virtual_time(main)
    return peers, meetings[0], asked


def test_everybody_is_asked_and_dialled_where_peers_reach_it_but_this_node_itself() -> None:
    peers, meeting, _ = met({"h1": node("n1"), "h2": node("n2"), "h3": node("n3", "c1")}, seconds=1)
    assert peers.located == {"n2": ("n2", 8401), "n3": ("n3", 8401)}
    assert meeting.members == (("h3", 8400),), "who belongs to a cluster can be asked to join"


def test_one_that_does_not_answer_keeps_nobody_waiting() -> None:
    peers, _, _ = met({"h2": None, "h3": node("n3")}, seconds=ANSWER_TIMEOUT_S / 2)
    assert peers.located == {"n3": ("n3", 8401)}


def test_it_says_when_everybody_was_asked_and_who_of_them_is_looked_for() -> None:
    looked: list[list[str]] = []
    answers = {"a": node("n1"), "b": node("n2", "f00"), "c": None, "d": node("later")}
    met(answers, seconds=ANSWER_TIMEOUT_S - 0.1, looked=looked)
    assert not looked, "one has not answered yet"
    met(answers, seconds=ANSWER_TIMEOUT_S + 0.1, looked=looked)
    assert looked == [["n2"]]


def test_who_knows_no_address_has_asked_nobody() -> None:
    looked: list[list[str]] = []
    met({}, seconds=1.0, looked=looked)
    assert not looked


def test_it_asks_less_and_less_often_and_greets_who_is_not_connected_each_time() -> None:
    peers, _, asked = met({"h2": node("n2")}, seconds=60)
    assert 60 / DELAY_MAX_S < len(asked) < 40
    assert peers.greeted == ["n2"] * len(asked)


def test_what_is_wrong_is_said_once_and_what_is_only_early_never(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    answers = {
        "h2": node("n2", expect=5),
        "h3": node("later"),
        "h4": Unreachable("h4:8400", "refused"),
    }
    peers, _, _ = met(answers, seconds=30)
    assert not peers.located
    told = [each.getMessage() for each in caplog.records]
    assert len(told) == 2
    assert "address=h2:8400 problem=it expects another number" in told[0]
    assert "address=h4:8400 problem=no answer from h4:8400" in told[1]


def test_a_node_that_is_started_a_moment_later_is_no_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    met({"h2": Unreachable("h2:8400", "refused")}, seconds=1.5)
    assert not caplog.records
