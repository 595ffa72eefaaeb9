"""Faults: drawn as a plain list from the seed, so that a shorter list can be tried; and how each strikes the world."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from rainband.records import Activate, Deactivate, Kill, Rebalance
from simulation.control import ControlFaults
from simulation.options import Options

if TYPE_CHECKING:
    from simulation.hosts import Host
    from simulation.world import World

BEGIN_S = 1.0


@dataclass(frozen=True)
class Fault:
    """`kind` at `at` seconds for `lasts` seconds; `number` and `other` choose whom, `size` how much (0..1)."""

    at: float
    kind: str
    lasts: float
    number: int
    other: int
    size: float

    def __str__(self) -> str:
        whom = f"number {self.number} other {self.other} size {self.size:.3f}"
        return f"{self.at:.3f} {self.kind} lasts {self.lasts:.3f} {whom}"


def draw_faults(options: Options) -> tuple[Fault, ...]:
    """The faults of a seed, in order of time."""
    rng = Random(f"faults {options.seed}")
    found = []
    at = BEGIN_S
    while options.faults:
        at += rng.expovariate(1.0 / options.per_fault_s)
        if at >= options.safety_s:
            break
        lasts = rng.choice((0.05, 0.3, 1.0, 3.0, 6.0)) * rng.uniform(0.5, 1.5)
        found.append(
            Fault(at, rng.choice(options.faults), lasts, rng.randrange(1000), rng.randrange(1000), rng.random())
        )
    return tuple(found)


class Faults(ControlFaults):
    """Strikes. Who is hit is chosen among those there at that moment, so any subset of a list makes sense."""

    def __init__(self, world: World, faults: tuple[Fault, ...]) -> None:
        self.world = world
        self.faults = faults
        self.broken: dict[str, float] = {}
        self.healed = False
        self.begin_control()

    def plan(self) -> None:
        for fault in self.faults:
            self.world.at(self.world.time + fault.at, self._strike, fault)

    def _strike(self, fault: Fault) -> None:
        if not self.healed:
            self.world.note(f"fault {fault.kind}")
            getattr(self, f"_{fault.kind}")(fault)

    def _later(self, fault: Fault, act: Any, *args: Any) -> None:
        self.world.after(fault.lasts, act, *args)

    def is_broken(self, component: str) -> bool:
        return not self.healed and self.world.time < self.broken.get(component, 0.0)

    def heal(self) -> None:
        """Everything is up and well from now on."""
        self.healed = True
        world = self.world
        world.wires.heal()
        world.disk.full = False
        for machine in range(world.options.nimbuses):
            self._set_failing(machine, False, False)
        for process in world.processes():
            process.pass_s = world.options.pass_s
            if process.stopped:
                process.set_stopped(False)
        for host in world.hosts:
            if not host.powered:
                host.power_on()
            host.start_supervisor()
            assert host.supervisor is not None
            if host.supervisor.stopped:
                host.supervisor.set_stopped(False)
        self.heal_control()
        for name in sorted(world.loads):
            if not world.client.queue.get(name):
                world.client.want(name, Activate(name))

    # Whom

    def _process(self, fault: Fault) -> Any:
        processes = self.world.processes()
        return processes[fault.number % len(processes)] if processes else None

    def _host(self, number: int) -> Host:
        return self.world.hosts[number % len(self.world.hosts)]

    def _place(self, number: int) -> str:
        """The address of a host, of Nimbus, or of the client."""
        places = self.world.places()
        return places[number % len(places)]

    # Worker processes

    def _kill_worker(self, fault: Fault) -> None:
        process = self._process(fault)
        if process is not None:
            process.kill(from_outside=True)

    def _stop_worker(self, fault: Fault) -> None:
        process = self._process(fault)
        if process is not None:
            process.set_stopped(True)
            self._later(fault, process.set_stopped, False)

    def _slow_worker(self, fault: Fault) -> None:
        """Each pass takes long, as when user code computes."""
        process = self._process(fault)
        if process is not None:
            process.pass_s = 0.02 + fault.size
            self._later(fault, self._fast_again, process)

    def _fast_again(self, process: Any) -> None:
        process.pass_s = self.world.options.pass_s

    def _crash_loop(self, fault: Fault) -> None:
        """A component's open or prepare raises for a while; its workers die."""
        load = self.world.loads[sorted(self.world.loads)[fault.number % len(self.world.loads)]]
        names = sorted(load.made)
        self.broken[names[fault.other % len(names)]] = self.world.time + fault.lasts
        self._kill_worker(fault)

    # Machines and daemons

    def _kill_supervisor(self, fault: Fault) -> None:
        host = self._host(fault.number)
        host.kill_supervisor()
        self._later(fault, host.start_supervisor)

    def _stop_supervisor(self, fault: Fault) -> None:
        supervisor = self._host(fault.number).supervisor
        if supervisor is not None:
            supervisor.set_stopped(True)
            self._later(fault, supervisor.set_stopped, False)

    def _stop_host(self, fault: Fault) -> None:
        """A machine that is suspended: nothing on it runs, and its clocks go on."""
        host = self._host(fault.number)
        stopped = [process for process in host.processes.values() if not process.stopped]
        for process in stopped:
            process.set_stopped(True)
            self._later(fault, process.set_stopped, False)
        self._stop_supervisor(fault)

    def _kill_host(self, fault: Fault) -> None:
        host = self._host(fault.number)
        if host.powered:
            host.power_off()
            self._later(fault, host.power_on)

    def _jump_clock(self, fault: Fault) -> None:
        """A clock on the wall jumps forward by up to two hours, and back."""
        place = self._place(fault.number)
        self.world.walls[place] = 0.0 if self.world.options.steady else 7200.0 * fault.size
        self._later(fault, self.world.walls.__setitem__, place, 0.0)

    def _disk_error(self, fault: Fault) -> None:
        """The disk of one Nimbus: an input/output error each time, or bundles are read with a bit flipped."""
        self._struck(fault)
        machine = fault.number % len(self.world.blobs)
        self._set_failing(machine, fault.size < 0.5, fault.size >= 0.5)
        self._later(fault, self._set_failing, machine, False, False)

    def _set_failing(self, machine: int, failing: bool, flipping: bool) -> None:
        blobs = self.world.blobs[machine]
        blobs.failing, blobs.flipping = failing and not self.healed, flipping and not self.healed
        if self.world.ensemble is None:
            self.world.disk.failing = blobs.failing

    def _disk_full(self, fault: Fault) -> None:
        self.world.disk.full = True
        self._later(fault, self._disk_free)

    def _disk_free(self) -> None:
        self.world.disk.full = False

    # The network

    def _cut(self, fault: Fault) -> None:
        until = self.world.time + min(1.0, fault.lasts)
        self.world.wires.cut(self._place(fault.number), self._place(fault.other), until)

    def _block(self, fault: Fault, source: str, target: str) -> None:
        self.world.wires.block(source, target, hold=fault.size < 0.5)
        self._later(fault, self.world.wires.unblock, source, target)

    def _partition(self, fault: Fault) -> None:
        """One way only."""
        self._block(fault, self._place(fault.number), self._place(fault.other))

    def _isolate(self, fault: Fault) -> None:
        alone = self._host(fault.number).address
        for place in self.world.places():
            if place != alone:
                self._block(fault, alone, place)
                self._block(fault, place, alone)

    def _ring(self, fault: Fault) -> None:
        """Each host hears only its neighbour."""
        hosts = [host.address for host in self.world.hosts]
        for number, source in enumerate(hosts):
            for target in hosts:
                if source != target and target != hosts[(number + 1) % len(hosts)]:
                    self._block(fault, source, target)

    def _loss(self, fault: Fault) -> None:
        self.world.wires.loss = fault.size
        self._later(fault, self._calm_again)

    def _repeats(self, fault: Fault) -> None:
        self.world.wires.repeats = fault.size
        self._later(fault, self._calm_again)

    def _delays(self, fault: Fault) -> None:
        self.world.wires.jitter_s = 2.0 * fault.size
        self._later(fault, self._calm_again)

    def _calm_again(self) -> None:
        if not self.healed:
            options = self.world.options
            wires = self.world.wires
            wires.loss, wires.repeats, wires.jitter_s = options.loss, options.repeats, options.jitter_s

    # What people do

    def _name(self, fault: Fault) -> str:
        return sorted(self.world.loads)[fault.number % len(self.world.loads)]

    def _rebalance(self, fault: Fault) -> None:
        name = self._name(fault)
        load = self.world.loads[name]
        names = sorted(load.made)
        component = names[fault.other % len(names)]
        tasks = len(load.tasks[component])
        options = self.world.options
        room = max(1, options.supervisors * options.slots // options.topologies)
        workers = None if fault.size < 0.3 else min(room, 1 + fault.other % 6)
        wait_s = None if fault.size < 0.1 else fault.size * 3.0
        change = {component: 1 + fault.number % tasks}
        self.world.client.want(name, Rebalance(name, wait_s, workers, change))

    def _pause(self, fault: Fault) -> None:
        name = self._name(fault)
        self.world.client.want(name, Deactivate(name), lane=" pause")
        self._later(fault, self._go_on, name)

    def _go_on(self, name: str) -> None:
        self.world.client.want(name, Activate(name), lane=" pause")

    def _kill_topology(self, fault: Fault) -> None:
        name = self._name(fault)
        self.world.client.want(name, Kill(name, fault.size * 3.0), self.world.submission(name))
