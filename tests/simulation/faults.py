"""What goes wrong in a schedule: drawn from one generator, so that the seed decides it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from distlog.errors import DistlogError
from tests.simulation.clients import ATTEMPT_S
from tests.simulation.member_faults import MemberFaults
from tests.simulation.simulated_cluster import Machine, SimulatedCluster
from tests.simulation.simulated_machine import PowerCut

# Faults begin at random moments, this many in a second of virtual time.
FAULTS_PER_SECOND = 2.5
PAUSE_MAX_S = 2.5
CLOCK_JUMP_MAX_MS = 3_600_000


class Faults:
    """Brings faults upon a cluster, and takes all of them back at the end."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._random = cluster.random
        self._hand_overs: list[asyncio.Future[None]] = []
        self._members = MemberFaults(cluster)
        # (how often, what): a crash in the middle of something finds most.
        self._kinds: tuple[tuple[int, Callable[[Machine], None]], ...] = (
            (2, lambda machine: machine.crash()),
            (2, lambda machine: machine.kill()),
            (4, lambda machine: machine.crash_within(self._random.randint(1, 40))),
            (4, lambda machine: machine.crash_at_callback(self._random.randint(1, 300))),
            (2, self._cut_the_power),
            (3, self._break_a_connection),
            (6, self._partition),
            (4, self._pause),
            (2, self._turn_the_clock),
            (2, self._slow_the_disk),
            (3, self._fill_the_disk),
            (3, self._hand_over),
            (16 if cluster.spares else 0, self._members.change),
        )

    async def run(self, until: float) -> None:
        """Inject faults until that time."""
        random = self._random
        weights = [weight for weight, _ in self._kinds]
        actions = [action for _, action in self._kinds]
        while self._cluster.loop.time() < until:
            await asyncio.sleep(random.expovariate(FAULTS_PER_SECOND))
            machine = self._victim()
            if random.random() < 0.06:
                await self._stop(machine)
            else:
                random.choices(actions, weights)[0](machine)
            for each in self._cluster.machines.values():
                if (
                    each.node is None
                    and each.name not in self._cluster.unused
                    and random.random() < 0.5
                ):
                    each.disk.hook = None
                    await each.start()

    def _victim(self) -> Machine:
        # What happens to a leader matters more.
        leader = self._cluster.leader()
        if leader is not None and self._random.random() < 0.4:
            return leader
        return self._random.choice(self._cluster.used())

    async def heal(self) -> None:
        """Take everything back, and start what is down."""
        cluster = self._cluster
        cluster.network.heal()
        for machine in cluster.machines.values():
            machine.resume()
            if machine.process is not None:
                machine.process.let_be()
            machine.slow_disk = False
            machine.free_disk()
            machine.clock.set_rate(1.0)
            machine.disk.hook = None
        await cluster.restart_all()
        await asyncio.gather(*self._hand_overs)
        await self._members.finished()

    def _names(self) -> tuple[str, ...]:
        return tuple(machine.name for machine in self._cluster.used())

    def _count(self, kind: str) -> None:
        self._cluster.counts[kind] += 1

    def _later(self, seconds_max: float, action: Callable[[], None]) -> None:
        self._cluster.loop.call_later(0.1 + seconds_max * self._random.random() ** 2, action)

    # --- Each of them ---------------------------------------------------------------------------

    async def _stop(self, machine: Machine) -> None:
        # Who is stopped while it stands still would be killed after a while.
        if machine.process is not None and machine.process.is_paused:
            machine.kill()
        else:
            self._count("stops")
            await machine.stop()

    def _cut_the_power(self, _machine: Machine) -> None:
        self._count("power cuts of all")
        for each in self._cluster.machines.values():
            each.crash()

    def _break_a_connection(self, machine: Machine) -> None:
        self._count("connections broken")
        self._cluster.network.break_connections(machine.name, self._random.choice(self._names()))

    def _partition(self, machine: Machine) -> None:
        """Cut a machine, or two of five, off for a while, in both directions or in one."""
        cluster, random = self._cluster, self._random
        names = [machine.name]
        if len(self._names()) > 3 and random.random() < 0.5:
            names = random.sample(self._names(), 2)
        others = [name for name in cluster.machines if name not in names]
        ways = random.choice(("both", "both", "in", "out"))
        self._count("partitions")
        for name in names:
            for other in others:
                if ways != "in":
                    cluster.network.block(name, other)
                if ways != "out":
                    cluster.network.block(other, name)
        cluster.loop.call_later(0.5 + 3.0 * random.random(), cluster.network.heal)

    def _pause(self, machine: Machine) -> None:
        if machine.node is not None:
            self._count("pauses")
            machine.pause()
            self._later(PAUSE_MAX_S, machine.resume)

    def _turn_the_clock(self, machine: Machine) -> None:
        self._count("clock jumps")
        machine.clock.wall_start_ms += self._random.randint(-CLOCK_JUMP_MAX_MS, CLOCK_JUMP_MAX_MS)
        machine.clock.set_rate(self._random.choice((0.7, 0.95, 1.0, 1.05, 1.4)))

    def _slow_the_disk(self, machine: Machine) -> None:
        self._count("slow disks")
        machine.slow_disk = not machine.slow_disk

    def _fill_the_disk(self, machine: Machine) -> None:
        """Leave a few KB of a disk, or of all of them, for a while."""
        machines = [machine]
        if self._random.random() < 0.15:
            machines = list(self._cluster.machines.values())
        for each in machines:
            self._count("full disks")
            each.fill_disk(self._random.randrange(8 << 10))
            self._later(3.0, each.free_disk)

    def _hand_over(self, _machine: Machine) -> None:
        self._hand_overs.append(asyncio.ensure_future(self._transfer()))

    async def _transfer(self) -> None:
        """Have another node lead; whatever happens meanwhile, the wait ends."""
        leader = self._cluster.leader()
        if leader is None:
            return
        target = self._random.choice((None, *self._names()))
        try:
            async with asyncio.timeout(ATTEMPT_S + PAUSE_MAX_S):
                await leader.ask(lambda log: log.transfer_leadership(target))
            self._count("transfers")
        except (DistlogError, ConnectionError, PowerCut):
            self._count("transfers that failed")
        except TimeoutError:
            self._cluster.watch.fail("liveness: a transfer of leadership never ended")
