"""Go on with one node when most voters are lost for ever: it becomes a cluster of its own, with all that it has."""

from __future__ import annotations

import argparse
from random import SystemRandom

from distlog.cli.confirming import add_yes_argument, is_confirmed
from distlog.cli.rejoin import moment

WARNING = """\
This makes the node at {path} the only member of a new cluster.
- Records that were acknowledged and that this node never got are lost. Choose the node with the highest next offsets: compare
  `distlog inspect` of each that is left.
- The other nodes of the old cluster can never join it with their directories: empty them, or `distlog cluster rejoin`.
- Never do it while a majority of the voters could come back: two clusters would go on from the same records.
What is replaced is kept in a backup below the directory."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--force-new-cluster",
        action="store_true",
        required=True,
        help="say that this is what is wanted: there is no other way to recover yet",
    )
    parser.add_argument(
        "--data-dir", required=True, metavar="DIR", help="the data directory of the stopped node"
    )
    add_yes_argument(parser)


def run(namespace: argparse.Namespace) -> int:
    # Only now: they load what runs a node.
    from distlog.catch_up.offline import force_new_cluster, identity_at
    from distlog.storage.disk import RealDisk

    disk, path = RealDisk(), namespace.data_dir.rstrip("/") or "/"
    identity = identity_at(disk, path)
    # Without one there is nothing to recover, as the next step says.
    if identity is not None and not is_confirmed(
        WARNING.format(path=path), identity.node_id, yes=namespace.yes
    ):
        return 1
    done = force_new_cluster(disk, path, random=SystemRandom(), now=moment())
    print(
        f"{done.node_id} is cluster {done.cluster_id} now, with everything up to entry {done.last_index}"
    )
    for each in done.damaged:
        print(f"cannot be read, nor be had from another node: {each}")
    print(f"what it was, a member of {done.old_cluster_id}, is in {done.backup_path}")
    print(f"start it with: distlog serve --node-id {done.node_id} --data-dir {path} --bootstrap")
    return 0
