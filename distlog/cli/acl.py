"""Look after the policy of a cluster: who may do what to which topic.

distlog acl add admin administer '*'              the first rule: from then on what no rule allows is denied
distlog acl add alice produce,consume 'orders-*'
distlog acl add bob --role writers                bob has what writers has
distlog acl list > policy.csv                     and back, all together: distlog acl add --file policy.csv
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from distlog.cli.arguments import add_action
from distlog.cli.connecting import connected
from distlog.errors import ConfigurationInvalid
from distlog.security.policy_rows import parse_rows

if TYPE_CHECKING:
    from distlog.client import Client, Rule

FILE_SIZE_MAX = 1 << 20
NO_POLICY = "there is no policy: everybody may do everything"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="command", required=True, metavar="ACTION")
    add = add_action(actions, "add", "add rules; those that are there already change nothing")
    _add_rules(add)
    remove = add_action(actions, "remove", "take rules away")
    _add_rules(remove)
    remove.add_argument(
        "--open",
        action="store_true",
        help="also the last ones, after which everybody may do everything",
    )
    add_action(actions, "list", "show the rules, as lines of a policy file")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "subject",
        nargs="?",
        metavar="SUBJECT",
        help="a name as certificates have it, a role, or * for everybody",
    )
    parser.add_argument(
        "action",
        nargs="?",
        metavar="ACTION,...",
        help="produce, consume, describe, administer, or * for all of them",
    )
    parser.add_argument(
        "topic",
        nargs="?",
        metavar="TOPIC",
        help="a name, a beginning with * behind it, or * for every topic and the cluster itself",
    )
    parser.add_argument("--role", metavar="ROLE", help="make SUBJECT a member of this role instead")
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="the rules of this file instead, - for the standard input: lines of `p, SUBJECT, TOPIC, ACTION` and `g, SUBJECT, ROLE`",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="also if you yourself may change nothing more afterwards",
    )


def run(namespace: argparse.Namespace) -> int:
    # Before anybody is called: what is wrong with the arguments.
    namespace.rules = [] if namespace.command == "list" else rules_of(namespace)
    asyncio.run(act(namespace))
    return 0


async def act(namespace: argparse.Namespace) -> None:
    """Do what is asked, and print what came of it."""
    async with connected(namespace, timeout_s=namespace.timeout) as client:
        fields, text = await ACTIONS[namespace.command](client, namespace)
    print(json.dumps(fields, indent=2) if namespace.json else text)


# What an action has for --json, and what it says without.
Said = tuple[dict[str, Any], str]


async def add_rules(client: Client, namespace: argparse.Namespace) -> Said:
    change = await client.change_policy(add=namespace.rules, force=namespace.force)
    fields = {"added": change.added_count, "rules": change.rule_count}
    return fields, f"added {change.added_count}; {state(change.rule_count)}"


async def remove_rules(client: Client, namespace: argparse.Namespace) -> Said:
    change = await client.change_policy(
        remove=namespace.rules, may_open=namespace.open, force=namespace.force
    )
    fields = {"removed": change.removed_count, "rules": change.rule_count}
    return fields, f"removed {change.removed_count}; {state(change.rule_count)}"


def state(rule_count: int) -> str:
    if not rule_count:
        return NO_POLICY
    return f"the policy has {rule_count} rule{'s' * (rule_count > 1)}"


async def list_rules(client: Client, namespace: argparse.Namespace) -> Said:
    rules = await client.policy()
    return {"rules": [rule_fields(rule) for rule in rules]}, "\n".join(
        [rule_line(rule) for rule in rules] or [f"# {NO_POLICY}"]
    )


ACTIONS: dict[str, Callable[[Client, argparse.Namespace], Awaitable[Said]]] = {
    "add": add_rules,
    "remove": remove_rules,
    "list": list_rules,
}


def rules_of(namespace: argparse.Namespace) -> list[Rule]:
    """Return the rules that the arguments name.  Raises ConfigurationInvalid unless they are said in one way."""
    from distlog.client import Rule

    command = f"distlog acl {namespace.command}"
    subject, action, topic = namespace.subject, namespace.action, namespace.topic
    if namespace.file is not None:
        if subject or namespace.role:
            raise ConfigurationInvalid(command, "name one rule, or a --file of them")
        return read_rules(namespace.file)
    if namespace.role is not None:
        if not subject or action:
            raise ConfigurationInvalid(command, "say SUBJECT --role ROLE, and nothing else")
        return [Rule(subject, role=namespace.role)]
    if not (subject and action and topic):
        raise ConfigurationInvalid(
            command, "say SUBJECT ACTION TOPIC, SUBJECT --role ROLE, or --file FILE"
        )
    return [Rule(subject, topic, each) for each in action.split(",")]


def read_rules(path: str) -> list[Rule]:
    """Return the rules of a policy file.  Raises ConfigurationInvalid, OSError."""
    from distlog.client import Rule

    if path == "-":
        data = sys.stdin.buffer.read(FILE_SIZE_MAX + 1)
    else:
        with open(path, "rb") as file:
            data = file.read(FILE_SIZE_MAX + 1)
    if len(data) > FILE_SIZE_MAX:
        raise ConfigurationInvalid("--file", f"{path} is larger than {FILE_SIZE_MAX} bytes")
    rules = []
    for number, values in parse_rows(data, "--file", path):
        match values:
            case ["p", subject, topic, action]:
                rules.append(Rule(subject, topic, action))
            case ["g", subject, role]:
                rules.append(Rule(subject, role=role))
            case _:
                problem = f"{path}, line {number}: a rule is `p, SUBJECT, TOPIC, ACTION` or `g, SUBJECT, ROLE`"
                raise ConfigurationInvalid("--file", problem)
    if not rules:
        raise ConfigurationInvalid("--file", f"{path} has no rules")
    return rules


def rule_line(rule: Rule) -> str:
    """Return a rule as a line of a policy file."""
    if rule.role:
        values = ["g", rule.subject, rule.role]
    else:
        values = ["p", rule.subject, rule.topic, rule.action]
    quoted = [
        '"' + value.replace('"', '""') + '"' if any(each in value for each in ',"#') else value
        for value in values
    ]
    return ", ".join(quoted)


def rule_fields(rule: Rule) -> dict[str, str]:
    """Return what `--json` prints of a rule."""
    if rule.role:
        return {"subject": rule.subject, "role": rule.role}
    return {"subject": rule.subject, "topic": rule.topic, "action": rule.action}
