"""What a seed means: the size of the cluster, the shape of the load, the temper of the network.

EDITION numbers the rules by which a seed is drawn. Rules that are added count from the next edition on, so that the
seeds of the corpus stay what they were.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

FAULTS = (
    "kill_worker", "stop_worker", "slow_worker", "crash_loop", "kill_supervisor", "stop_supervisor", "kill_host",
    "kill_nimbus", "end_nimbus", "stop_nimbus", "control_down", "damage_row",
    "cut", "partition", "isolate", "ring", "loss", "repeats", "delays",
    "rebalance", "pause", "kill_topology",
)  # fmt: skip
ALONE = ("crash_nimbus_in_write", "second_nimbus", "disk_full")
TOGETHER = (
    "cut_store", "cut_nimbus", "expire_session", "store_down", "store_flaky", "store_slow", "lose_bundles",
)  # fmt: skip


EDITION = 2
NAMING_BOLTS = 2  # what Load adds to some topologies
LATER = ("stop_host", "jump_clock", "disk_error")


@dataclass(frozen=True)
class Options:
    """Durations in virtual seconds, chances from 0 to 1. `faults` are the kinds this seed draws from.

    `id_bits`: so few that ids of edges collide. `steady`: clocks on the wall do not jump although faults say so.
    """

    seed: int
    edition: int = 1
    roots: int = 120
    rate: float = 60.0
    topologies: int = 1
    supervisors: int = 2
    slots: int = 4
    workers: int = 3
    bolts: int = 3
    spouts: int = 1
    timeout_s: float = 5.0
    credit: int = 4096
    pending: int = 1000
    ackers: int = -1
    wait_ms: float = 10.0
    pass_s: float = 0.004
    delay_s: float = 0.002
    jitter_s: float = 0.0
    loss: float = 0.0
    repeats: float = 0.0
    fifo: bool = True
    stale_frames: bool = False
    lease_s: float = 6.0
    spawn_s: float = 0.5
    safety_s: float = 10.0
    per_fault_s: float = 1.0
    skew: bool = True
    nimbuses: int = 1
    session_s: float = 6.0
    exclusive: bool = False
    id_bits: int = 62
    steady: bool = False
    faults: tuple[str, ...] = ()

    @property
    def calm(self) -> bool:
        """Nothing is ever lost, late or killed in this run."""
        return not self.faults and not self.loss and not self.repeats and self.fifo

    @property
    def prompt(self) -> bool:
        """Worker processes die and nothing else happens: their trees must fail long before the timeout."""
        killing = {"kill_worker", "kill_nimbus", "end_nimbus", "disk_full"}
        slow = self.loss or self.repeats or self.jitter_s or self.stale_frames or not self.fifo
        return not slow and "kill_worker" in self.faults and set(self.faults) <= killing

    def record(self) -> str:
        """What differs from the plainest run."""
        plain = Options(self.seed, EDITION)
        return " ".join(
            f"{field.name}={value}"
            for field in fields(self)
            if (value := getattr(self, field.name)) != getattr(plain, field.name) or field.name == "seed"
        )

    def as_dict(self) -> dict[str, object]:
        return asdict(self)


def draw(seed: int, roots: int | None = None, edition: int = EDITION) -> Options:
    """The options of `seed`; `roots` overrides how many rows the spouts have in all.

    A long chain with little credit gets a fast network and processor: else its trees take longer than their timeout.
    """
    rng = Random(f"options {seed}")
    calm = rng.random() < 0.08
    supervisors = rng.choice((1, 2, 2, 3, 3, 3, 4, 5, 6))
    slots = rng.choice((1, 2, 2, 3, 4, 8))
    nimbuses = rng.choice((1, 1, 2, 3, 3))
    known = FAULTS + (ALONE if nimbuses == 1 else TOGETHER)
    kinds = () if calm else tuple(sorted(rng.sample(known, rng.randint(1, 8))))
    lossy = not calm and rng.random() < 0.5
    room = max(1, supervisors * slots)
    topologies = 2 if room >= 2 and rng.random() < 0.25 else 1
    safety_s = rng.uniform(4.0, 12.0)
    pending = rng.choice((1, 4, 16, 100, 1000))
    credit = rng.choice((1, 2, 3, 8, 64, 4096))
    bolts = rng.choice((1, 2, 2, 3, 3, 4, 5, 6))
    longest = bolts if edition < 2 else bolts + NAMING_BOLTS
    tight = credit <= 8 and longest > (2 if credit <= 2 else 3)
    delays_s = (0.0005, 0.002) if tight else (0.0005, 0.002, 0.01, 0.04)
    passes_s = (0.002, 0.005) if tight else (0.002, 0.005, 0.01)
    wanted = roots if roots is not None else rng.choice((60, 120, 200, 300) if pending > 1 else (30, 60))
    return Options(
        seed,
        edition,
        roots=wanted,
        rate=wanted / safety_s * rng.choice((0.8, 1.5, 4.0)),
        topologies=topologies,
        supervisors=supervisors,
        slots=slots,
        workers=rng.randint(1, min(6, max(1, room // topologies))),
        bolts=bolts,
        spouts=rng.choice((1, 1, 2)),
        timeout_s=rng.choice((3.0, 4.0, 5.0, 6.0)),
        credit=credit,
        pending=pending,
        ackers=rng.choice((-1, -1, -1, 1, 2, 3)),
        wait_ms=rng.choice((5.0, 20.0, 50.0)),
        pass_s=rng.choice(passes_s),
        delay_s=rng.choice(delays_s),
        jitter_s=rng.choice((0.0, 0.0, 0.005, 0.1)),
        loss=rng.choice((0.001, 0.02, 0.1, 0.3)) if lossy and rng.random() < 0.7 else 0.0,
        repeats=rng.choice((0.01, 0.1, 0.3)) if lossy and rng.random() < 0.5 else 0.0,
        fifo=calm or rng.random() < 0.5,
        stale_frames=not calm and rng.random() < 0.4,
        lease_s=rng.choice((5.0, 7.0)),
        spawn_s=rng.choice((0.1, 0.5, 1.5)),
        safety_s=safety_s,
        per_fault_s=rng.choice((0.4, 0.8, 1.5, 3.0)),
        skew=rng.random() < 0.7,
        nimbuses=nimbuses,
        session_s=rng.choice((4.0, 6.0, 9.0)),
        **({"faults": kinds} if edition < 2 else draw_more(Random(f"options 2 {seed}"), kinds)),
    )


def draw_more(rng: Random, kinds: tuple[str, ...]) -> dict[str, Any]:
    """What editions from the second on draw besides."""
    return {
        "exclusive": rng.random() < 0.2,
        "faults": faults_of(rng, kinds),
        "id_bits": 8 if rng.random() < 0.01 else 62,
    }


def faults_of(rng: Random, kinds: tuple[str, ...]) -> tuple[str, ...]:
    """`kinds` and some of those that are known from the second edition on."""
    return tuple(sorted({*kinds, *(kind for kind in LATER if kinds and rng.random() < 0.15)}))
