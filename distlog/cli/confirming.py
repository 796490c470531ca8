"""Commands that cannot be taken back ask before they change anything: a person types the node's id, a script gives --yes."""

from __future__ import annotations

import argparse
import sys

from distlog.errors import ConfigurationInvalid


def add_yes_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--yes", action="store_true", help="do not ask")


def is_confirmed(warning: str, node_id: str, *, yes: bool) -> bool:
    """Print a warning; return whether to go on.  Raises ConfigurationInvalid where nobody can be asked and `yes` was not given."""
    print(warning)
    if yes:
        return True
    if not sys.stdin.isatty():
        raise ConfigurationInvalid("--yes", "is required where nobody can be asked")
    print(f"type {node_id} to go on: ", end="", flush=True)
    if sys.stdin.readline().strip() == node_id:
        return True
    print("nothing was changed")
    return False
