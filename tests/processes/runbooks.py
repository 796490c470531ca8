"""The commands of docs/operations.md, taken out of the page and run as they stand there.

commands_of("Grow")        the lines of its first block that begin with `distlog`
@follows("Grow")           a story that runs all of them, one after the other: each `serve` and `run` takes the next one
"""

from __future__ import annotations

import asyncio
import os
import pty
import re
import shlex
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from tests.processes.commands import Finished, run, without_waiting
from tests.processes.conftest import MakeCluster
from tests.processes.process_cluster import DISTLOG, TIMEOUT_S, ProcessCluster, environment
from tests.processes.test_membership import all_vote, come_by

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
HEADING = re.compile(r"^#+ (.*)$", re.M)
BLOCK = re.compile(r"^```\n(.*?)^```$", re.M | re.S)
# What is left of a placeholder that nothing was put in the place of.
PLACEHOLDER = re.compile(r"[A-Z_]{3,}|\.\.\.|\[,")
# A section, and which of its blocks that have commands.
Place = tuple[str, int]
# What stories follow.
FOLLOWED: dict[Place, str] = {}


@cache
def books() -> Mapping[Place, Sequence[str]]:
    """Return the commands of distlog of every block of the page that has any."""
    text = PAGE.read_text("utf-8")
    found: dict[Place, Sequence[str]] = {}
    bounds = [*HEADING.finditer(BLOCK.sub(_blank, text))]
    ends = [each.start() for each in bounds[1:]] + [len(text)]
    for heading, end in zip(bounds, ends, strict=True):
        blocks = [_commands(block) for block in BLOCK.findall(text, heading.end(), end)]
        with_commands = [commands for commands in blocks if commands]
        found |= {(heading[1], number): each for number, each in enumerate(with_commands)}
    return found


def _blank(match: re.Match[str]) -> str:
    """Return as many characters as a block has: comments of shells begin as headings do."""
    return " " * len(match[0])


def _commands(block: str) -> list[str]:
    parts = [part.strip() for line in block.splitlines() for part in line.split(" ; ")]
    return [part for part in parts if part.startswith("distlog ")]


def filled(command: str, places: Mapping[str, str], rest: Sequence[str] = ()) -> list[str]:
    """Return the arguments of a command behind `distlog`, places having been put in.  Fails if one is left."""
    arguments: list[str] = []
    for word in shlex.split(command, comments=True)[1:]:
        if word == "...":
            arguments += rest
            continue
        for name, value in places.items():
            word = word.replace(f"{name}[,{name}]", value)
            word = value if word == name else word
        assert not PLACEHOLDER.search(word) or word in places.values(), f"{word} in {command}"
        arguments.append(word)
    return arguments


class Steps:
    """The commands of one block, and the cluster that they are for."""

    def __init__(self, place: Place, make_cluster: MakeCluster) -> None:
        self.left = list(books()[place])
        self._make_cluster = make_cluster
        self._settings: tuple[str, ...] = ()
        self.cluster: ProcessCluster

    def stopped(self, *settings: str, spares: Sequence[str] = ()) -> ProcessCluster:
        """Have three nodes with these settings that have not been started, and places for others."""
        self._settings = settings
        self.cluster = self._make_cluster(("n1", "n2", "n3", *spares), *settings)
        come_by(self.cluster, "n1", "--bootstrap")
        for node_id in ("n2", "n3"):
            come_by(self.cluster, node_id, "--join", self.cluster["n1"].address)
        return self.cluster

    async def grown(self, *settings: str, spares: Sequence[str] = ()) -> ProcessCluster:
        """Have a cluster of three nodes with these settings, of which the first began it, and places for others."""
        self.stopped(*settings, spares=spares).start("n1", "n2", "n3")
        await all_vote(self.cluster, "n1", "n2", "n3")
        return self.cluster

    def serve(self, node_id: str, **places: str) -> None:
        """Start a node by the next command."""
        node = self.cluster[node_id]
        command = self.left.pop(0)
        assert command.startswith("distlog serve "), command
        rest: list[str] = []
        given = {"--data-dir": str(node.data_dir), "--listen": node.address}
        given["--peer-listen"] = node.peer_address
        for flag, value in given.items():
            if f"{flag} " not in command:
                rest += [flag, value]
        places = {"NODE_ID": node_id, "DATA_DIR": str(node.data_dir)} | _named(places)
        node.arguments = filled(command, places, [*rest, *self._settings])[1:]
        node.data_dir = Path(node.arguments[node.arguments.index("--data-dir") + 1])
        node.start()

    async def run(self, typed: str | None = None, status: int = 0, **places: str) -> Finished:
        """Run the next command, on a terminal if something is typed there.  Fails unless it ends with `status`."""
        arguments = filled(self.left.pop(0), _named(places))
        variables = {"DISTLOG_SERVER": self.cluster.addresses}
        if typed is None:
            finished = await run(*arguments, variables=variables)
        else:
            finished = await run_at_terminal(arguments, typed)
        assert (finished.status, finished.errors) == (status, ""), finished
        return finished


def node_lines(shown: bytes) -> dict[str, str]:
    """Return the rows of the first table of `distlog cluster status`, by node id."""
    _, *rows = shown.decode().partition("\n\n")[0].splitlines()
    return {row.split()[0]: row for row in rows}


def _named(places: Mapping[str, str]) -> dict[str, str]:
    """Return places by what the page calls them: HOST_PORT is how a name of Python has HOST:PORT."""
    return {name.replace("HOST_", "HOST:"): value for name, value in places.items()}


async def run_at_terminal(arguments: Sequence[str], typed: str) -> Finished:
    """Run `distlog ARGUMENTS` for somebody who types a line."""
    person, terminal = pty.openpty()
    try:
        process = await asyncio.create_subprocess_exec(
            *DISTLOG,
            *arguments,
            stdin=terminal,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=environment(),
        )
        os.write(person, f"{typed}\n".encode())
        try:
            async with asyncio.timeout(TIMEOUT_S):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
    finally:
        os.close(person)
        os.close(terminal)
    assert process.returncode is not None
    return Finished(process.returncode, output, without_waiting(errors.decode("utf-8", "replace")))


def follows(
    section: str, number: int = 0
) -> Callable[[Callable[[Steps], Awaitable[None]]], Callable[[MakeCluster], None]]:
    """Make a test of a story, which runs every command of a block of a section."""

    def decorate(story: Callable[[Steps], Awaitable[None]]) -> Callable[[MakeCluster], None]:
        assert (section, number) not in FOLLOWED
        FOLLOWED[section, number] = story.__name__

        def test(make_cluster: MakeCluster) -> None:
            async def scenario() -> None:
                steps = Steps((section, number), make_cluster)
                await story(steps)
                assert steps.left == [], "the page has more commands than the story runs"

            asyncio.run(scenario())

        test.__name__ = test.__qualname__ = story.__name__
        test.__doc__ = story.__doc__
        return test

    return decorate
