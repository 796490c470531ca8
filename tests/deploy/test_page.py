"""The page about deploying: its commands are commands, its values are values, and its links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex

import pytest

from tests.deploy.charts import CHART
from tests.deploy.containers import DEPLOY
from tests.deploy.reading import check_command

PAGE = DEPLOY.parent / "docs" / "deploy.md"
TEXT = PAGE.read_text("utf-8")
BLOCKS = "\n".join(re.findall(r"^```\n(.*?)^```$", TEXT, re.M | re.S))
# In a block by themselves, or in the text with all that they take.
COMMANDS = [
    *re.findall(r"^distlog (.+)$", BLOCKS, re.M),
    *re.findall(r"`distlog (cluster [^`]+)`", TEXT),
]


def test_there_are_commands() -> None:
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_one_that_the_program_takes(command: str) -> None:
    filled = command.replace("NODE_ID", "n1").replace("COPY_DIR", "copy").removesuffix(" ...")
    assert not re.search(r"[A-Z_]{3,}", filled)
    check_command(shlex.split(filled), {})


def test_a_value_that_is_set_is_one_of_the_chart() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    names = re.findall(r"--set '?([\w.]+)=", TEXT)
    assert {"image.repository", "tls.certKey", "replicas"} <= set(names)
    for name in names:
        found = schema
        for part in name.split("."):
            found = found["properties"][part]


def test_files_and_links_are_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert links
    assert [link for link in links if not (PAGE.parent / link).exists()] == []
    named = re.findall(r"`(deploy/[\w./@-]+)`", TEXT)
    assert len(named) >= 4
    assert [each for each in named if not (DEPLOY.parent / each).exists()] == []


def test_whatever_is_in_the_directories_of_a_deployment_is_on_the_page() -> None:
    for name in ("docker", "helm", "systemd"):
        assert f"deploy/{name}/" in TEXT
