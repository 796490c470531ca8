"""Make the data directory of a stopped node that of a new member, which has the segments that are whole.

For a node that may have lost what it promised: its journal or its checkpoint cannot be read, or it was told that it is no member any
more. What cannot be trusted is moved to a backup below the directory, nothing is removed.
"""

from __future__ import annotations

import argparse
import time
from random import SystemRandom
from typing import TYPE_CHECKING

from distlog.cli.confirming import add_yes_argument, is_confirmed
from distlog.cli.progress_bar import ProgressBar
from distlog.cli.units import count_text

if TYPE_CHECKING:
    from distlog.catch_up.offline import Rejoining

WARNING = """\
This makes {path} the directory of a new member {node_id}: the member that it was never comes back.
- What that one has acknowledged counts no more. Do it with one node at a time, while a majority of the voters is up and has what
  was acknowledged: never with two of three.
- A node that is only behind, or was away, needs nothing of this: start it.
What is replaced is kept in a backup below the directory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data-dir", required=True, metavar="DIR", help="the node's data directory"
    )
    parser.add_argument(
        "--node-id",
        metavar="ID",
        default="",
        help="whose directory it is (default: what it says itself)",
    )
    add_yes_argument(parser)


def run(namespace: argparse.Namespace) -> int:
    # Only now: they load what runs a node.
    from distlog.catch_up.offline import identity_at, rejoin
    from distlog.storage.disk import RealDisk

    disk, path = RealDisk(), namespace.data_dir.rstrip("/") or "/"
    identity = identity_at(disk, path)
    node_id = namespace.node_id or (identity.node_id if identity is not None else "")
    # Where nothing says whose it is, the next step does.
    warning = WARNING.format(path=path, node_id=node_id)
    if node_id and not is_confirmed(warning, node_id, yes=namespace.yes):
        return 1
    with ProgressBar("checked") as bar:
        done = rejoin(
            disk,
            path,
            random=SystemRandom(),
            now=moment(),
            node_id=namespace.node_id,
            progress=bar.of(path, ".log"),
        )
    for line in report(path, done):
        print(line)
    return 0


def moment() -> str:
    """Return the time as a part of a file name."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def report(path: str, done: Rejoining) -> list[str]:
    """Return what was done, and what to type next."""
    kept = f"{count_text(done.kept_count, 'segment')} of {done.kept_size} bytes"
    lines = [
        f"{path} is the directory of a new member {done.node_id}: it has {kept} that are whole"
    ]
    lines += [f"damaged, will be copied: {each}" for each in done.damaged]
    return [
        *lines,
        f"what it was before is in {done.backup_path}: remove that when the node has caught up",
        f"on a running node: distlog cluster remove {done.node_id}, then start this one again with --join, as a new member",
    ]
