"""Commands run as a container's runtime would run them, as far as that goes without one: names, mounts and rights.

    its own mounts: /etc/hosts with the names of the others, the data where the image has it, everything else read-only
    no capability, no way to a new one; the variables of the image and of the service

Only root may do that.  What is not there: an address of one's own, so 0.0.0.0 becomes one of 127.0.0.0/8; the image's user and its
files; a limit on memory.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.deploy.containers import Run
from tests.processes.process_cluster import DISTLOG, TIMEOUT_S, environment, random_host

# What is mounted on /var/lib is gone with the command.  A start that could write to the machine's directories is none.
CONFINE = """
set -e
mount --bind "$1" /etc/hosts
mount -t tmpfs none /var/lib
mkdir /var/lib/distlog
mount --bind "$2" /var/lib/distlog
mount -o remount,bind,ro /var/lib
mount -o remount,bind,ro /
held=$(findmnt --noheadings --output TARGET --target "$3")
if [ "$held" != / ]; then mount -o remount,bind,ro "$held"; fi
for place in /etc "$3" /var/lib; do
    if touch "$place/unconfined" 2>&-; then echo "$place can be written" >&2; exit 9; fi
done
shift 3
exec setpriv --no-new-privs --inh-caps=-all --bounding-set=-all "$@"
"""
EVERYWHERE = "0.0.0.0"


@dataclass(slots=True)
class Network:
    """Addresses of this machine for names, which only the commands that are run here know."""

    directory: Path
    addresses: dict[str, list[str]] = field(default_factory=dict)
    prefix: str = field(default_factory=lambda: random_host().rpartition(".")[0])
    count: int = 0

    def add(self, *names: str) -> str:
        """Return a new address for one more holder of these names."""
        self.count += 1
        address = f"{self.prefix}.{self.count}"
        for name in names:
            self.addresses.setdefault(name, []).append(address)
        return address

    def remove(self, address: str) -> None:
        """Have no name lead to an address any more."""
        for found in self.addresses.values():
            if address in found:
                found.remove(address)
        self.hosts_file()

    def hosts_file(self) -> Path:
        """Write what is known now; whoever runs sees it at once."""
        path = self.directory / "hosts"
        lines = [f"{each} {name}" for name, found in self.addresses.items() for each in found]
        path.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]), "utf-8")
        return path


def confined(network: Network, data: Path, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return what stands before a command to have it run so.  Call it when all names are known."""
    data.mkdir(exist_ok=True)
    given = [f"{name}={value}" for name, value in variables.items() if name != "PATH"]
    # The other resolver of gRPC takes all names of a hosts file that share an address for one.
    given.append("GRPC_DNS_RESOLVER=native")
    return (
        *("unshare", "--mount", "sh", "-c", CONFINE, "confine"),
        *(str(network.hosts_file()), str(data), tempfile.gettempdir()),
        *("env", *given),
    )


def at(run: Run, address: str) -> Run:
    """Return the command with the one address that it has here in the place of all that a container has."""
    return Run(
        run.name,
        tuple(each.replace(EVERYWHERE, address) for each in run.command),
        {name: each.replace(EVERYWHERE, address) for name, each in run.variables.items()},
    )


async def command(
    network: Network,
    data: Path,
    variables: Mapping[str, str],
    arguments: Sequence[str],
    given: bytes = b"",
    program: Sequence[str] = DISTLOG,
) -> tuple[int, bytes, str]:
    """Run `distlog ARGUMENTS` to its end, or another program; return its exit status, its output and what it complained of."""
    process = await asyncio.create_subprocess_exec(
        *confined(network, data, variables),
        *program,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environment(),
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            output, errors = await process.communicate(given)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return process.returncode, output, errors.decode("utf-8", "replace")
