"""Run a node until SIGTERM or Ctrl-C.

Every flag is also an environment variable and a key of the TOML file that --config names: --data-dir, DISTLOG_DATA_DIR,
data_dir. A flag wins over a variable, that over the file.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from distlog.config import SETTINGS, load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add one flag for each row of the table of settings."""
    parser.add_argument(
        "--config", metavar="FILE", help="a TOML file with settings (DISTLOG_CONFIG)"
    )
    for row in SETTINGS:
        limits = f"; {row.limits_text()}" if row.limits_text() else ""
        options: dict[str, Any] = {"nargs": "?", "const": "true"} if row.default is False else {}
        parser.add_argument(
            row.flag,
            dest=row.name,
            metavar=row.kind.metavar,
            help=f"{row.help} (default {row.default_text}{limits})",
            **options,
        )


def run(namespace: argparse.Namespace) -> int:
    """Run the node; return its exit code.  Raises ConfigurationInvalid before anything is touched."""
    flags = {name: value for name, value in vars(namespace).items() if value is not None}
    config = load(flags, os.environ)
    # Only now: a mistake in the flags is answered without loading a node.
    from distlog.serve import run_node

    return run_node(config, announce)


def announce(line: str) -> None:
    """Print the line that says what to type next."""
    print(line, flush=True)
