"""Faults of the control plane: Nimbuses that die, stand still or are cut off, and the store they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from rainband.nimbus.rows import TopologyRow, read_entries
from rainband.records import Status
from simulation.ensemble import ADDRESS

if TYPE_CHECKING:
    from simulation.chief import NimbusProcess
    from simulation.faults import Fault
    from simulation.world import World

DAMAGED = "bad-999-1"
POOR = "poor-998-1"


class ControlFaults:
    """The part of Faults that strikes there. `struck_at` is when it last did, `silent_since` when all went away."""

    world: World
    healed: bool

    def begin_control(self) -> None:
        self.struck_at = 0.0
        self.silent_since = float("inf")

    def heal_control(self) -> None:
        world = self.world
        self._control_up()
        ensemble = world.ensemble
        if ensemble is not None:
            ensemble.flaky = ensemble.slow_s = 0.0
            if ensemble.down:
                ensemble.set_down(False)
        for nimbus in world.living_nimbuses():
            nimbus.dies = ""
            nimbus.get_on()
            if ensemble is None and nimbus is not world.nimbuses[-1]:
                nimbus.kill()
            elif nimbus.stopped:
                nimbus.set_stopped(False)
        for machine in range(world.options.nimbuses):
            self._start_nimbus(machine)

    def _later(self, fault: Fault, act: Any, *args: Any) -> None:
        raise NotImplementedError

    def _struck(self, fault: Fault) -> None:
        self.struck_at = max(self.struck_at, self.world.time + fault.lasts)

    def _nimbus(self, fault: Fault) -> NimbusProcess | None:
        """The leader as often as not, or any."""
        self._struck(fault)
        living = self.world.living_nimbuses()
        leader = self.world.leader()
        if leader is not None and fault.other % 2:
            return leader
        return living[fault.number % len(living)] if living else None

    def _start_nimbus(self, machine: int = 0) -> None:
        if not any(process.machine == machine for process in self.world.living_nimbuses()):
            self.world.start_nimbus(machine)

    def _kill_nimbus(self, fault: Fault) -> None:
        nimbus = self._nimbus(fault)
        if nimbus is not None:
            nimbus.kill()
            self._later(fault, self._start_nimbus, nimbus.machine)

    def _end_nimbus(self, fault: Fault) -> None:
        """It is told to end, and begins anew, as in a rolling restart."""
        nimbus = self._nimbus(fault)
        if nimbus is not None and not nimbus.stopped:
            nimbus.close()
            self._later(fault, self._start_nimbus, nimbus.machine)

    def _stop_nimbus(self, fault: Fault) -> None:
        nimbus = self._nimbus(fault)
        if nimbus is not None:
            nimbus.set_stopped(True)
            self._later(fault, nimbus.set_stopped, False)

    def _crash_nimbus_in_write(self, fault: Fault) -> None:
        """The next write is its last act: done, or not."""
        for nimbus in self.world.living_nimbuses():
            nimbus.dies = "before" if fault.size < 0.5 else "after"
        self._later(fault, self._kill_doomed)

    def _kill_doomed(self) -> None:
        for nimbus in self.world.living_nimbuses():
            if nimbus.dies:
                nimbus.kill()
        self._start_nimbus()

    def _second_nimbus(self, fault: Fault) -> None:
        """The leader stands still, another takes over the same disk, then the old one goes on."""
        if self.world.ensemble is not None:
            return
        for nimbus in self.world.living_nimbuses():
            nimbus.set_stopped(True)
            self._later(fault, nimbus.set_stopped, False)
            self.world.after(fault.lasts + 5.0, nimbus.kill)
        self.world.start_nimbus()

    def _control_down(self, fault: Fault) -> None:
        """No Nimbus anywhere, for a long while."""
        self._struck(fault)
        for nimbus in self.world.living_nimbuses():
            nimbus.kill()
        self.silent_since = min(self.silent_since, self.world.time)
        self.world.after(4 * fault.lasts, self._control_up)

    def _control_up(self) -> None:
        self.silent_since = float("inf")
        for machine in range(self.world.options.nimbuses):
            self._start_nimbus(machine)

    # The store that several share

    def _cut_store(self, fault: Fault) -> None:
        """One Nimbus does not reach the store, or does not hear it, or both."""
        nimbus = self._nimbus(fault)
        if nimbus is not None:
            self._block_store(fault, nimbus.address, ADDRESS, fault.number % 3 != 0)
            self._block_store(fault, ADDRESS, nimbus.address, fault.number % 3 != 1)

    def _block_store(self, fault: Fault, source: str, target: str, really: bool) -> None:
        if really:
            self.world.wires.block(source, target, hold=False)
            self._later(fault, self.world.wires.unblock, source, target)

    def _cut_nimbus(self, fault: Fault) -> None:
        """One Nimbus reaches the store and nobody else."""
        nimbus = self._nimbus(fault)
        if nimbus is not None:
            for place in [*self.world.places(), "client"]:
                if place != nimbus.address:
                    self._block_store(fault, nimbus.address, place, True)
                    self._block_store(fault, place, nimbus.address, True)

    def _expire_session(self, fault: Fault) -> None:
        nimbus = self._nimbus(fault)
        ensemble = self.world.ensemble
        if ensemble is not None and nimbus is not None and nimbus.line is not None:
            ensemble.expire(nimbus.line.session)

    def _store_down(self, fault: Fault) -> None:
        self._struck(fault)
        ensemble = self.world.ensemble
        if ensemble is not None and not ensemble.down:
            ensemble.set_down(True)
            self._later(fault, self._store_up)

    def _store_up(self) -> None:
        ensemble = self.world.ensemble
        if ensemble is not None and ensemble.down:
            ensemble.set_down(False)

    def _store_flaky(self, fault: Fault) -> None:
        """Calls are not sent, not answered, or done when nobody waits for them any more."""
        self._struck(fault)
        if self.world.ensemble is not None:
            self.world.ensemble.flaky = 0.05 + fault.size / 2
            self._later(fault, self._store_calm)

    def _store_slow(self, fault: Fault) -> None:
        self._struck(fault)
        if self.world.ensemble is not None:
            self.world.ensemble.slow_s = 3.0 * fault.size
            self._later(fault, self._store_calm)

    def _store_calm(self) -> None:
        if self.world.ensemble is not None:
            self.world.ensemble.flaky = self.world.ensemble.slow_s = 0.0

    def _lose_bundles(self, fault: Fault) -> None:
        """The disk of one Nimbus is replaced, if the others have what was on it."""
        world = self.world
        machine = fault.number % len(world.blobs)
        stored = read_entries(world.disk.values)[0]
        needed = {entry.plan.bundle for topology_id, entry in stored.items() if topology_id != POOR}
        others = [blobs for number, blobs in enumerate(world.blobs) if number != machine]
        self._struck(fault)
        if all(any(blobs.holds(digest) for blobs in others) for digest in needed):
            world.note(f"nimbus on n{machine} loses its bundles")
            world.blobs[machine].wipe(world.time)

    def _damage_row(self, fault: Fault) -> None:
        """A stored topology that nobody can read, or one whose bundle is nowhere."""
        world = self.world
        rows = {f"topology/{DAMAGED}": b"\x93nonsense"}
        if fault.size < 0.5:
            plan = msgspec.structs.replace(world.loads["t0"].plan, name="poor", bundle="0" * 64)
            row = TopologyRow("poor", POOR, 998, Status.KILLED, Status.ACTIVE, 0.0, 1000.0)
            rows = {f"topology/{POOR}": msgspec.msgpack.encode(row), f"plan/{POOR}": plan.encode()}
        for key, value in rows.items():
            if key in world.disk.values:
                continue
            if world.ensemble is not None:
                world.ensemble.put(key, value)
            else:
                world.disk.values[key] = world.disk.durable[key] = value
