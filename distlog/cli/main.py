"""`distlog`: find the command, run it, and turn whatever it raises into one line and an exit code."""

from __future__ import annotations

import importlib
import logging
import os
import secrets
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass

from distlog import __version__
from distlog.cli.arguments import CommandParser
from distlog.cli.terminal import abandon_stdout, print_error
from distlog.config import check_environment, nearest
from distlog.errors import ConfigurationInvalid, DistlogError
from distlog.security.ciphers import CIPHERS_VARIABLE, NO_CIPHER

EXIT_FINE, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
# As a shell reports a process that SIGINT ended.
EXIT_INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Command:
    """A command and the module that is it."""

    name: str
    module: str
    summary: str


COMMANDS = (
    Command("serve", "distlog.cli.serve", "run a node"),
    Command("produce", "distlog.cli.produce", "append each line of a file or a pipe as a record"),
    Command("consume", "distlog.cli.consume", "print records"),
    Command(
        "cluster", "distlog.cli.cluster", "show the nodes and the members, and change who is one"
    ),
    Command("leave", "distlog.cli.leave", "have a node leave its cluster for good, and stop"),
    Command("topic", "distlog.cli.topic", "list, create, describe, configure, trim, delete topics"),
    Command("acl", "distlog.cli.acl", "add, remove and list the rules of who may do what"),
    Command(
        "certs", "distlog.cli.certs", "make certificates of nodes and clients for trying things out"
    ),
    Command("bench", "distlog.cli.bench", "measure a cluster: throughput and latency"),
    Command(
        "inspect",
        "distlog.cli.inspect",
        "show what a data directory holds, while no node runs on it",
    ),
    Command(
        "verify",
        "distlog.cli.verify",
        "check everything in a data directory, while no node runs on it",
    ),
    Command(
        "recover",
        "distlog.cli.recover",
        "go on with one node when most voters are lost for ever",
    ),
    Command(
        "import",
        "distlog.cli.import_seed",
        "adopt a directory of the system that distlog descends from",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: the process's) and return its exit code.  Nothing is raised."""
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except DistlogError as error:
        print_error(str(error))
        return EXIT_USAGE if isinstance(error, ConfigurationInvalid) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has had enough.
        abandon_stdout()
        return EXIT_FINE
    except SystemExit as end:
        # argparse has printed the help.
        return end.code if isinstance(end.code, int) else EXIT_FINE
    except OSError as error:
        abandon_stdout()
        what = f"{error.filename}: " if error.filename else ""
        print_error(f"{what}{error.strerror or error}")
        return EXIT_FAILED
    except Exception as error:
        report_mistake(error)
        return EXIT_FAILED


def run(arguments: Sequence[str]) -> int:
    """As `main`, but raise what went wrong."""
    if not __debug__:
        problem = "takes out checks that distlog relies on: start it without -O and PYTHONOPTIMIZE"
        raise ConfigurationInvalid("python -O", problem)
    check_environment(os.environ)
    name, rest = (arguments[0], arguments[1:]) if arguments else ("--help", ())
    if name in ("-h", "--help", "help"):
        print(overview())
        return EXIT_FINE if arguments else EXIT_USAGE
    if name == "--version":
        print(f"distlog {__version__}")
        return EXIT_FINE
    command = find(name)
    prepare_libraries()
    module = importlib.import_module(command.module)
    parser = CommandParser(prog=f"distlog {command.name}", description=module.__doc__)
    module.add_arguments(parser)
    code: int = module.run(parser.parse(rest))
    sys.stdout.flush()
    return code


def prepare_libraries() -> None:
    """Keep libraries from writing between our lines: what they have to say about a connection is in our errors.

    And have them take no TLS but 1.3.

    `serve` sets up a log of its own.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    # Like the one above, before gRPC is loaded.
    os.environ[CIPHERS_VARIABLE] = NO_CIPHER
    if not os.environ.get("DISTLOG_DEBUG"):
        logging.basicConfig(handlers=[logging.NullHandler()])


def find(name: str) -> Command:
    """Return the command of that name.  Raises ConfigurationInvalid, which names the nearest one."""
    for command in COMMANDS:
        if command.name == name:
            return command
    hint = nearest(name, [command.name for command in COMMANDS]) or "; see distlog --help"
    raise ConfigurationInvalid(name, f"there is no such command{hint}")


def overview() -> str:
    """Return the help of `distlog` itself."""
    rows = [f"  {command.name:<9} {command.summary}" for command in COMMANDS]
    return "\n".join(
        [
            "usage: distlog COMMAND ...",
            "",
            "A distributed commit log: segmented, memory-mapped logs behind gRPC, replicated with Raft.",
            "",
            *rows,
            "",
            "distlog COMMAND --help explains the flags of a command; distlog --version says which version this is.",
        ]
    )


def report_mistake(error: Exception) -> None:
    """Print one line for an exception that nobody expected; the traceback only where it is asked for."""
    if os.environ.get("DISTLOG_DEBUG"):
        traceback.print_exception(error)
    incident_id = secrets.token_hex(4)
    print_error(
        f"internal error, incident {incident_id}: {type(error).__name__}: {error}. Run it again with DISTLOG_DEBUG=1 for "
        "the details, and please report it with them"
    )
