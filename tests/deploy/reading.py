"""Command lines held against the installed program: its own parsers and its own configuration read them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence

import pytest

from distlog.cli.arguments import CommandParser, server_addresses
from distlog.cli.main import find
from distlog.config import ServeConfig, check_environment, load
from tests.deploy.containers import Run


def read_settings(run: Run) -> ServeConfig:
    """Return what a node that is started so runs with.  Raises ConfigurationInvalid, as the program does."""
    namespace = _parse(run.arguments, "serve")
    flags = {name: value for name, value in vars(namespace).items() if value is not None}
    return load(flags, program_variables(run.variables))


def check_command(arguments: Sequence[str], variables: Mapping[str, str]) -> None:
    """Read any command line.  Raises ConfigurationInvalid, as the program does."""
    given = program_variables(variables)
    check_environment(given)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in given.items():
            patch.setenv(name, value)
        if tuple(arguments) in (("--help",), ("--version",)):
            return
        namespace = _parse(arguments, arguments[0])
        if hasattr(namespace, "server"):
            server_addresses(namespace)


def program_variables(variables: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in variables.items() if name.startswith("DISTLOG_")}


def _parse(arguments: Sequence[str], command: str) -> object:
    assert arguments[0] == command
    module = importlib.import_module(find(command).module)
    parser = CommandParser(prog=f"distlog {command}")
    module.add_arguments(parser)
    return parser.parse(arguments[1:])
