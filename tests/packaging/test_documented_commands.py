"""Commands and flags of distlog that the documents have are those of the program.  Two pages are held to more: see `test_runbooks.py`."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from distlog.cli.arguments import CommandParser
from distlog.cli.main import COMMANDS
from distlog.errors import ConfigurationInvalid
from tests.deploy.reading import check_command
from tests.packaging.test_documents import PAGES, ROOT, commands_of_code

# What a reader fills in, in longer names first.
PLACES = {
    "HOST:PEERPORT": "127.0.0.1:8401",
    "HOST:PORT": "127.0.0.1:8400",
    "HOST": "127.0.0.1",
    "NODE_ID": "n1",
    "COPY_DIR": "copy",
    "DATA_DIR": "data",
    "EMPTY_DIR": "data",
    "OFFSET": "5",
    "SIZE": "1GiB",
    "FILE": "file",
    "NAME": "name",
    "DIR": "data",
}
PLACE = re.compile(r"\b[A-Z_]{3,}\b(?!\.)|\.\.\.|…")
# Of the commands by which we test and measure, and of Helm.
OTHERS_FLAGS = {"--only", "--quick", "--rewrite", "--set"}


@cache
def parser_of(command: str) -> CommandParser:
    (found,) = (each for each in COMMANDS if each.name == command)
    parser = CommandParser(prog=f"distlog {command}")
    importlib.import_module(found.module).add_arguments(parser)
    return parser


def actions_of(command: str) -> set[str]:
    """Return the names of the actions of a command; none, if it has none."""
    return {
        name
        for action in parser_of(command)._actions
        if isinstance(action, argparse._SubParsersAction)
        for name in action.choices
    }


def in_blocks(page: Path) -> list[str]:
    """Return the command lines of a page's blocks, without what they are piped to."""
    lines = "\n".join(commands_of_code(page.read_text("utf-8"))).replace("\\\n", " ")
    found = []
    for line in lines.splitlines():
        command = re.sub(r"^(?:[A-Z_]+=\S+ +)+", "", line.strip())
        if command.startswith("distlog "):
            words = shlex.split(re.split(r" [|&<>]", command)[0], comments=True)
            found.append(shlex.join(words[1:]))
    return found


def mentioned(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command in the text of a page; `acl add | list` is two."""
    for text in re.findall(r"`distlog ([a-z][^`]*)`", page.read_text("utf-8")):
        first, *others = " ".join(text.split()).split(" | ")
        words = first.split()
        yield words
        for other in others:
            yield [*words[:-1], *other.split()]


def filled(command: str) -> list[str]:
    words = []
    for word in shlex.split(command):
        word = word.replace("[,HOST:PORT]", "").strip("[]")
        for place, value in PLACES.items():
            word = word.replace(place, value)
        if word not in ("...", "…"):
            assert not PLACE.search(word), word
            words.append(word)
    return words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_blocks_are_taken(page: Path) -> None:
    refused = {}
    for command in in_blocks(page):
        try:
            # Whoever asks for help gets it, and the process ends.
            with pytest.raises(SystemExit) if "--help" in command else contextlib.nullcontext():
                check_command(filled(command), {})
        except (ConfigurationInvalid, AssertionError) as error:
            refused[command] = str(error)
    assert refused == {}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_text_are_there_with_their_flags(page: Path) -> None:
    names = {command.name for command in COMMANDS}
    missing = []
    for words in mentioned(page):
        command, *rest = words
        if command not in names:
            missing.append(words)
            continue
        known = {*parser_of(command).flags(), *actions_of(command)}
        asked = {word.partition("=")[0] for word in rest if word.startswith("--")}
        if actions_of(command) and rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]):
            asked.add(rest[0])
        missing += [[command, each] for each in asked - known]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_flags_of_the_text_are_flags_of_some_command(page: Path) -> None:
    known = {flag for command in COMMANDS for flag in parser_of(command.name).flags()}
    named = set(re.findall(r"`(--[a-z][a-z-]*)", page.read_text("utf-8")))
    assert named - known - OTHERS_FLAGS == set()


def test_a_command_that_is_none_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "`distlog acl add | drop`\n```\ndistlog topic list --jsn  # all\n```\n", "utf-8"
    )
    assert [*mentioned(page)] == [["acl", "add"], ["acl", "drop"]]
    assert "drop" not in actions_of("acl")
    assert in_blocks(page) == ["topic list --jsn"]
    with pytest.raises(ConfigurationInvalid, match="--jsn"):
        check_command(filled(in_blocks(page)[0]), {})


def test_the_certificates_that_the_page_makes_are_those_that_its_next_command_starts_nodes_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (command,) = (each for each in in_blocks(ROOT / "docs" / "tls.md") if each[:6] == "certs ")
    monkeypatch.chdir(tmp_path)
    arguments = parser_of("certs").parse(shlex.split(command)[1:])
    importlib.import_module("distlog.cli.certs").run(arguments)
    procfile = (ROOT / "deploy" / "Procfile.tls").read_text("utf-8")
    named = set(re.findall(r"data/pki/\S+\.(?:pem|key)", procfile))
    assert len(named) > 6
    assert [each for each in named if not (tmp_path / each).exists()] == []
