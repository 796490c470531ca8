"""`distlog acl`: which rules it sends, what it prints, and what it refuses before anybody is called."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distlog.cli import acl
from distlog.client import Rule
from distlog.consensus.views import MemberStatus
from distlog.errors import ConfigurationInvalid
from tests.cli.commands import parsed
from tests.server.serving import Serving, serve


def rules(tmp_path: Path, *arguments: str) -> list[Rule]:
    return acl.rules_of(parsed(acl, None, *arguments))


def test_rules_are_named_by_words(tmp_path: Path) -> None:
    assert rules(tmp_path, "add", "alice", "produce,consume", "orders-*") == [
        Rule("alice", "orders-*", "produce"),
        Rule("alice", "orders-*", "consume"),
    ]
    assert rules(tmp_path, "remove", "bob", "--role", "writers") == [Rule("bob", role="writers")]


def test_rules_are_read_from_a_file_and_the_list_is_such_a_file(tmp_path: Path) -> None:
    path = tmp_path / "policy.csv"
    path.write_text('# all of them\np, "a,b", *, *\n\ng, bob, writers\n')
    found = rules(tmp_path, "add", "--file", str(path))
    assert found == [Rule("a,b", "*", "*"), Rule("bob", role="writers")]
    path.write_text("\n".join(map(acl.rule_line, found)))
    assert rules(tmp_path, "add", "--file", str(path)) == found


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("add",), "say SUBJECT ACTION TOPIC"),
        (("add", "alice"), "say SUBJECT ACTION TOPIC"),
        (("add", "alice", "produce"), "say SUBJECT ACTION TOPIC"),
        (("add", "alice", "produce", "--role", "x"), "nothing else"),
        (("add", "--role", "x"), "nothing else"),
        (("add", "alice", "produce", "x", "--file", "y"), "a --file of them"),
    ],
)
def test_rules_that_are_said_in_no_way_or_two_are_refused(
    tmp_path: Path, arguments: tuple[str, ...], problem: str
) -> None:
    with pytest.raises(ConfigurationInvalid, match=problem):
        rules(tmp_path, *arguments)


@pytest.mark.parametrize(
    ("text", "problem"), [("p, a, b", "line 1"), ("# none", "no rules"), ("p,a,b,c\nx", "line 2")]
)
def test_a_file_without_rules_or_with_others_is_refused(
    tmp_path: Path, text: str, problem: str
) -> None:
    path = tmp_path / "policy.csv"
    path.write_text(text)
    with pytest.raises(ConfigurationInvalid, match=problem):
        rules(tmp_path, "add", "--file", str(path))


def test_what_is_changed_and_what_there_is_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    async def body(server: Serving) -> None:
        address = f"127.0.0.1:{server.port}"
        server.fake.members = (
            MemberStatus("n1", address, True, connected=True, match_index=None, lag=None),
        )

        async def said(*arguments: str) -> str:
            place = ("--server", address)
            namespace = parsed(acl, None, *arguments, *place)
            if namespace.command != "list":
                namespace.rules = acl.rules_of(namespace)
            await acl.act(namespace)
            return capsys.readouterr().out

        assert await said("list") == "# there is no policy: everybody may do everything\n"
        added = await said("add", "*", "*", "*")
        assert added == "added 1; the policy has 1 rule\n"
        assert json.loads(await said("add", "bob", "--role", "writers", "--json")) == {
            "added": 1,
            "rules": 2,
        }
        assert await said("list") == "p, *, *, *\ng, bob, writers\n"
        assert json.loads(await said("list", "--json")) == {
            "rules": [
                {"subject": "*", "topic": "*", "action": "*"},
                {"subject": "bob", "role": "writers"},
            ]
        }
        assert await said("remove", "bob", "--role", "writers") == (
            "removed 1; the policy has 1 rule\n"
        )
        assert await said("remove", "*", "*", "*", "--open") == (
            "removed 1; there is no policy: everybody may do everything\n"
        )

    serve(body)
