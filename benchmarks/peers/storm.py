"""Apache Storm 2.8.3 as a peer: Java topologies, and Python bolts over multilang pipes, on a real cluster.

    python -m benchmarks.peers.storm --bench word-count --workers 1 --tuned --acking --seconds 20 --json

`StormCluster` keeps the daemons between rounds; each `measure` submits a topology, warms it up, watches it,
lets it drain, checks its totals and kills it. `run` does that once on a cluster of its own.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self

from benchmarks.peers import meters
from benchmarks.peers.command import main, pair, parser
from benchmarks.peers.corpus import corpus, lines_file
from benchmarks.peers.rows import Window, WrongCount, row
from benchmarks.peers.storm_daemons import VERSION, NimbusRefused, StormDaemons
from benchmarks.peers.venvs import python_with

BENCHES = ("word-count", "chain", "word-count-shell", "word-count-streamparse")
PYSTORM = "3.1.4"
PENDING = (500, 1000, 2000, 4000, 8000, 16000)
WARM_UP_S = 20.0

TUNED: Mapping[str, object] = {
    # the settings of Storm's own examples/storm-perf; the buffer is rounded up to 65,536
    "topology.producer.batch.size": 500,
    "topology.executor.receive.buffer.size": 50_000,
    "topology.disable.loadaware.messaging": True,
    "topology.stats.sample.rate": 0.0005,
    "topology.spout.recvq.skips": 8,
    "topology.bolt.wait.strategy": "org.apache.storm.policy.WaitStrategyPark",
    "topology.bolt.wait.park.microsec": 0,
}
# storm-perf's settings but for its spinning wait, with the parallel collector: of nine combinations tried
# for one short round each on two cores (word count, 1 worker, acked) this had the highest rate. Not so with
# 2 workers.
BEST: Mapping[str, object] = {
    **{key: value for key, value in TUNED.items() if not key.startswith("topology.bolt.wait")},
    "topology.worker.gc.childopts": "-XX:+UseParallelGC",
}
PROFILES: Mapping[str, Mapping[str, object]] = {"defaults": {}, "tuned": TUNED, "best": BEST}


def settings_of(
    bench: str, *, workers: int, acking: bool, profile: str, pending: int | None
) -> dict[str, object]:
    """Storm's configuration for one round; what is not named stays at Storm's default."""
    settings: dict[str, object] = {"topology.workers": workers, **PROFILES[profile]}
    if bench != "chain" and "topology.producer.batch.size" in settings:
        settings["topology.producer.batch.size"] = 1000  # storm-perf's for its word counts
    if not acking:
        settings["topology.acker.executors"] = 0
    elif pending is not None:
        settings["topology.max.spout.pending"] = pending
    return settings


def held_max(settings: Mapping[str, object]) -> int:
    """How many words Storm may keep back once its spout falls silent.

    Seen with batches of 1000, without acking and across workers: a few thousand words stay unprocessed for as
    long as the spout is silent, move on when it goes on, and their number does not grow from stop to stop.
    They are thus held, not lost; why Storm's flush does not take them along was not established. Six pairs of
    executors can hold a batch each, two of them of lines. With a batch of one, none was held.
    """
    batch = settings.get("topology.producer.batch.size", 1)
    assert isinstance(batch, int)
    return 0 if batch == 1 else 20 * batch


class StormCluster:
    """A running cluster that measures one topology at a time."""

    version = VERSION

    def __init__(self, *, java: str = "java") -> None:
        self.lines = lines_file().parent
        self.daemons = StormDaemons(java=java)
        self._rounds = itertools.count(1)

    def __enter__(self) -> Self:
        self.daemons.__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self.daemons.close(keep_logs=raised[0] is not None)

    def measure(
        self,
        bench: str,
        *,
        workers: int = 1,
        acking: bool = True,
        profile: str = "defaults",
        seconds: float = 20.0,
        warm_up_s: float = WARM_UP_S,
        pending: int | None = None,
        conf: Mapping[str, object] | None = None,
    ) -> dict[str, object]:
        """One round. `conf` wins over the chosen settings; raises WrongCount if the totals do not add up."""
        settings = settings_of(bench, workers=workers, acking=acking, profile=profile, pending=pending)
        settings.update(conf or {})
        name = f"{bench}-{next(self._rounds)}"
        meter_dir = self.daemons.root / "meters" / name
        meter_dir.mkdir(parents=True)
        python = str(python_with("pystorm", PYSTORM)) if bench == "word-count-streamparse" else sys.executable
        paths = {"rainband.meter.dir": str(meter_dir), "rainband.lines.dir": str(self.lines)}
        self.daemons.ask("submit", name=name, bench=bench, acking=acking, python=python, conf={**settings, **paths})
        try:
            window = self._observe(
                name,
                meter_dir,
                acking=acking,
                seconds=seconds,
                warm_up_s=warm_up_s,
                held_max=held_max(settings),
            )
        finally:
            self._kill(name)
        shown = {"profile": profile, **settings}
        return row(bench, "storm", VERSION, workers, window, shown)

    def search(
        self,
        bench: str,
        *,
        workers: int = 1,
        profile: str = "best",
        seconds: float = 5.0,
        warm_up_s: float = 15.0,
        candidates: Sequence[int] = PENDING,
        conf: Mapping[str, object] | None = None,
    ) -> int:
        """The max.spout.pending with the best acked rate; one that fails a tuple is out."""
        rates: dict[int, float] = {}
        for pending in candidates:
            try:
                result = self.measure(
                    bench,
                    workers=workers,
                    acking=True,
                    profile=profile,
                    seconds=seconds,
                    warm_up_s=warm_up_s,
                    pending=pending,
                    conf=conf,
                )
            except (WrongCount, TimeoutError) as problem:
                print(f"storm: pending {pending}: {problem}", file=sys.stderr)
                continue
            rate = result["acked_per_s"]
            assert isinstance(rate, int)
            rates[pending] = rate
            print(f"storm: pending {pending}: {rate:,} acked/s, {result['latency_ms']}", file=sys.stderr)
        if not rates:
            raise WrongCount("every max.spout.pending failed tuples")
        return max(rates, key=rates.__getitem__)

    def _observe(
        self, name: str, meter_dir: Path, *, acking: bool, seconds: float, warm_up_s: float, held_max: int
    ) -> Window:
        alive = self.daemons.alive
        meters.wait_started(meter_dir, alive, timeout_s=90)
        meters.measure(meter_dir, warm_up_s, acking=acking, cpu_of=list)
        window = meters.measure(
            meter_dir, seconds, acking=acking, cpu_of=lambda: sorted(meters.read(meter_dir))
        )
        (meter_dir / "stop").touch()
        totals = meters.wait_quiet(meter_dir, timeout_s=60)
        text = corpus()
        distinct = text.distinct if name.startswith("word-count") else None
        held = meters.check_drained(
            totals, acking=acking, distinct=distinct, lines=len(text.lines), held=held_max
        )
        return replace(window, extra={"held_at_end": held})

    def _kill(self, name: str) -> None:
        """Kill the topology and wait until its slots are free and its JVMs gone."""
        try:
            self.daemons.ask("kill", name=name)
        except NimbusRefused as refused:
            print(f"storm: {refused}", file=sys.stderr)
        pids = set(meters.read(self.daemons.root / "meters" / name))
        meters.wait_until(
            lambda: (
                name not in self.daemons.ask("cluster")["topologies"]
                and not any(Path(f"/proc/{pid}").exists() for pid in pids)
            ),
            self.daemons.alive,
            60,
            f"{name} did not end",
        )


def run(
    bench: str,
    *,
    workers: int = 1,
    acking: bool = True,
    seconds: float = 20.0,
    profile: str = "defaults",
    warm_up_s: float = WARM_UP_S,
    pending: int | None = None,
    search: bool = False,
    conf: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """One round on a cluster of its own; with `search`, max.spout.pending is looked for first."""
    with StormCluster() as cluster:
        if search and acking:
            pending = cluster.search(bench, workers=workers, profile=profile, conf=conf)
        return cluster.measure(
            bench,
            workers=workers,
            acking=acking,
            profile=profile,
            seconds=seconds,
            warm_up_s=warm_up_s,
            pending=pending,
            conf=conf,
        )


def _run_typed(bench: str, **typed: object) -> dict[str, object]:
    typed["conf"] = dict(typed.pop("set"))  # type: ignore[call-overload]
    return run(bench, **typed)  # type: ignore[arg-type]


if __name__ == "__main__":
    flags = parser("storm", BENCHES)
    flags.add_argument(
        "--profile",
        choices=PROFILES,
        default="defaults",
        help="Storm's defaults, tuned as in storm-perf, or tuned for few cores",
    )
    flags.add_argument("--tuned", dest="profile", action="store_const", const="tuned", help="--profile tuned")
    flags.add_argument(
        "--warm-up", dest="warm_up_s", type=float, default=WARM_UP_S, help="seconds before the window"
    )
    flags.add_argument("--pending", type=int, help="topology.max.spout.pending; Storm's default is no limit")
    flags.add_argument("--search", action="store_true", help="look for the best --pending first")
    flags.add_argument(
        "--set", type=pair, action="append", default=[], metavar="KEY=VALUE", help="any Storm setting"
    )
    raise SystemExit(main(flags, _run_typed))
