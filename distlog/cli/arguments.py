"""The parser of a command, and what the commands that talk to a cluster have in common."""

from __future__ import annotations

import argparse
import contextlib
import math
import os
from collections.abc import Sequence
from typing import Any, NoReturn

from distlog.config import nearest, parse_address
from distlog.errors import ConfigurationInvalid

# The three nodes of the Procfile.
DEFAULT_SERVERS = "127.0.0.1:8400,127.0.0.1:8410,127.0.0.1:8420"
SERVER_VARIABLE = "DISTLOG_SERVER"
TLS_FILES = {
    "ca": "for nodes with certificates: those of the authorities that sign them, in PEM",
    "cert": "the certificate to show to the nodes, in PEM",
    "key": "its key, in PEM",
}
HELP_WIDTH = 100
# Of what one action asks the cluster for, every try included.
ACTION_TIMEOUT_S = 30.0


class HelpFormatter(argparse.HelpFormatter):
    """The same text whatever the width of the terminal: it can be compared, and quoted."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=34, width=HELP_WIDTH)


class CommandParser(argparse.ArgumentParser):
    """Raises ConfigurationInvalid instead of leaving the process; flags are not abbreviated."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=HelpFormatter, allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        # argparse says "argument --count: invalid int value: 'x'".
        argument, colon, problem = message.removeprefix("argument ").partition(": ")
        if message.startswith("argument ") and colon:
            raise ConfigurationInvalid(argument, f"{problem}; see {self.prog} --help")
        raise ConfigurationInvalid(self.prog, f"{message}; see {self.prog} --help")

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Return the arguments.  Raises ConfigurationInvalid, which names the nearest flag to one that is not known."""
        namespace, unknown = self.parse_known_args(arguments)
        for argument in unknown:
            flag = argument.partition("=")[0]
            if flag.startswith("-") and flag != "-":
                hint = nearest(flag, self.flags()) or f"; see {self.prog} --help"
                raise ConfigurationInvalid(flag, f"there is no such flag{hint}")
        if unknown:
            problem = f"one argument too many: {unknown[0]!r}; see {self.prog} --help"
            raise ConfigurationInvalid(self.prog, problem)
        return namespace

    def flags(self) -> list[str]:
        """Return every flag of the command, those of its actions included."""
        flags: list[str] = []
        for action in self._actions:
            flags.extend(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                for parser in action.choices.values():
                    flags.extend(parser.flags())
        return flags


def add_server_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--server`, which DISTLOG_SERVER stands in for, and the files of TLS."""
    parser.add_argument(
        "--server",
        metavar="HOST:PORT,...",
        default=os.environ.get(SERVER_VARIABLE) or DEFAULT_SERVERS,
        help=f"client addresses of one node or more; the others are found (default {DEFAULT_SERVERS}; {SERVER_VARIABLE})",
    )

    add_tls_arguments(parser)


def add_tls_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the files of TLS, which DISTLOG_TLS_* stand in for."""
    for name, what in TLS_FILES.items():
        parser.add_argument(
            f"--tls-{name}",
            metavar="FILE",
            default=os.environ.get(tls_variable(name)),
            help=f"{what} ({tls_variable(name)})",
        )


def tls_variable(name: str) -> str:
    return f"DISTLOG_TLS_{name.upper()}"


def add_timeout_argument(
    parser: argparse.ArgumentParser, default_s: float, meaning: str = "give up after this long"
) -> None:
    """Add `--timeout`, in seconds."""
    parser.add_argument(
        "--timeout",
        type=seconds,
        default=default_s,
        metavar="SECONDS",
        help=f"{meaning} (default %(default)g)",
    )


def add_action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    """Add an action that asks the cluster for something, and return its parser."""
    parser: argparse.ArgumentParser = actions.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
    )
    add_server_argument(parser)
    add_timeout_argument(parser, ACTION_TIMEOUT_S)
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


def server_addresses(namespace: argparse.Namespace) -> list[str]:
    """Return the addresses that `--server` names.  Raises ConfigurationInvalid for one that cannot be."""
    texts = [text.strip() for text in namespace.server.split(",") if text.strip()]
    try:
        return [str(parse_address(text)) for text in texts or [""]]
    except ValueError as error:
        raise ConfigurationInvalid("--server", f"{error}, not {namespace.server!r}") from error


def seconds(text: str) -> float:
    """Parse a positive number of seconds."""
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < math.inf:
            return value
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")


def count(text: str) -> int:
    """Parse how many of something."""
    if text.isdecimal():
        return int(text)
    raise argparse.ArgumentTypeError(f"must be a number, at least 0, not {text!r}")
