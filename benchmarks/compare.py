"""rainband and its peers on the same work, round after round, interleaved: `make bench-peers`.

Each round runs every contender once; every other round goes backwards. A contender's figure is the median over its
rounds. A round in which it raised, miscounted or failed tuples has no figure, and the page says so.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.catalogue import BENCHMARKS
from benchmarks.harness import Cluster, Wish
from benchmarks.peers import bytewax_peer, floor, motorway_peer, pyflink_peer
from benchmarks.peers.storm import StormCluster
from benchmarks.results import Result
from benchmarks.uncompiled import measure_uncompiled

RAINBAND = "rainband"
STORM = "Apache Storm"
FEW_CORES = "best"
FLOOR = "bare Python loop"
PYTHON_BOLTS = "Storm with Python bolts"
STREAMPARSE = "streamparse's pystorm"
PIPES = {"word-count-streamparse": STREAMPARSE, "word-count-shell": "bare pipes"}
PIPES_PENDING = 500
PROFILES = ("defaults", "tuned", FEW_CORES)
SEARCH_S = 5.0
WORD_COUNT, WORD_COUNT_FREE = "word count, acked", "word count, no acking"
CHAIN = "chain, acked"


@dataclass(slots=True)
class Session:
    """How long to measure, Storm's daemons while they run, and the pending limits found best for them."""

    seconds: float
    storm: StormCluster | None = None
    pending: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contender:
    """Only those of one `contest` are compared: the same work, acked or not. `slow` ones run in every fifth round."""

    contest: str
    engine: str
    title: str
    measure: Callable[[Session], Result]
    slow: bool = False

    @property
    def key(self) -> str:
        return f"{self.contest}; {self.engine}, {self.title}"


@dataclass(frozen=True, slots=True)
class Score:
    """What one contender reached over all rounds."""

    contest: str
    engine: str
    title: str
    rates: list[int]
    cpu_s_per_million: list[float]
    p50_ms: list[float]
    p99_ms: list[float]
    cores: list[float]
    cores_of_others: list[float]
    problems: list[str]
    settings: dict[str, Any]

    @property
    def rate(self) -> float:
        """Tuples per second, acked ones in an acked contest; 0 when there is no figure."""
        return statistics.median(self.rates) if self.rates else 0.0

    @property
    def cpu(self) -> float:
        """CPU seconds per million of them."""
        return statistics.median(self.cpu_s_per_million) if self.cpu_s_per_million else float("inf")


def rainband(bench: str, workers: int, acking: bool, session: Session) -> Result:
    wish = Wish(workers=workers, acking=acking, seconds=session.seconds, warm_up_s=5.0)
    with Cluster(slots=workers) as cluster:
        return BENCHMARKS[bench].run(cluster, wish)


def uncompiled(session: Session) -> Result:
    return measure_uncompiled(["word-count", "--seconds", str(session.seconds)])


def storm(bench: str, workers: int, acking: bool, profile: str, session: Session) -> Result:
    assert session.storm is not None
    pending = session.pending[f"{bench} {workers} {profile}"] if acking else None
    return session.storm.measure(
        bench, workers=workers, acking=acking, profile=profile, pending=pending, seconds=session.seconds
    )


def alone(run: Callable[..., dict[str, object]], bench: str, session: Session, **settings: Any) -> Result:
    return run(bench, seconds=session.seconds, **settings)


def contenders() -> list[Contender]:
    """Everybody, Storm last: its daemons run only for its own part of a round."""
    ours = [
        Contender(WORD_COUNT, RAINBAND, "1 worker", partial(rainband, "word-count", 1, True)),
        Contender(WORD_COUNT, RAINBAND, "2 workers", partial(rainband, "word-count", 2, True)),
        Contender(WORD_COUNT, RAINBAND, "execute_batch, 1 worker", partial(rainband, "word-count-batch", 1, True)),
        Contender(
            WORD_COUNT, RAINBAND, "execute_batch, 2 workers", partial(rainband, "word-count-batch", 2, True), slow=True
        ),
        Contender(WORD_COUNT, RAINBAND, "uncompiled, 1 worker", uncompiled, slow=True),
        Contender(WORD_COUNT_FREE, RAINBAND, "1 worker", partial(rainband, "word-count", 1, False), slow=True),
        Contender(WORD_COUNT_FREE, RAINBAND, "2 workers", partial(rainband, "word-count", 2, False), slow=True),
        Contender(CHAIN, RAINBAND, "1 worker", partial(rainband, "chain", 1, True)),
        Contender(CHAIN, RAINBAND, "2 workers", partial(rainband, "chain", 2, True)),
    ]
    motorway = partial(alone, motorway_peer.run, "word-count")
    others = [
        Contender(WORD_COUNT, "motorway", "3 steps in processes", motorway, slow=True),
        Contender(WORD_COUNT_FREE, "bytewax", "1 process", partial(alone, bytewax_peer.run, "word-count"), slow=True),
        Contender(
            WORD_COUNT_FREE, "bytewax", "1 process, in batches",
            partial(alone, bytewax_peer.run, "word-count", count="batch"), slow=True,
        ),
        Contender(WORD_COUNT_FREE, FLOOR, "no engine", partial(alone, floor.run, "word-count")),
    ]  # fmt: skip
    return [*ours, *others, *storms()]


def pyflink() -> Contender:
    measure = partial(alone, pyflink_peer.run, "word-count")
    return Contender(WORD_COUNT_FREE, "PyFlink", "process mode", measure, slow=True)


def storms() -> list[Contender]:
    """With two workers and without acking what was fastest before is in every round, the others now and then."""
    found = [
        Contender(contest, STORM, f"{profile}, {workers} worker{'s' if workers > 1 else ''}",
                  partial(storm, bench, workers, acking, profile), slow=profile not in often)
        for contest, bench, acking, workers, often in (
            (WORD_COUNT, "word-count", True, 1, PROFILES),
            (WORD_COUNT, "word-count", True, 2, ("defaults",)),
            (WORD_COUNT_FREE, "word-count", False, 1, ()),
            (CHAIN, "chain", True, 1, PROFILES),
            (CHAIN, "chain", True, 2, ("defaults",)),
        )
        for profile in PROFILES
    ]  # fmt: skip
    pipes = [
        Contender(WORD_COUNT, PYTHON_BOLTS, f"{title}, 1 worker", partial(storm, bench, 1, True, "defaults"), slow=True)
        for bench, title in PIPES.items()
    ]
    return [*found, *pipes]


def is_storm(contender: Contender) -> bool:
    return contender.engine in (STORM, PYTHON_BOLTS)


def find_pending(session: Session, chosen: Sequence[Contender], given: int | None) -> None:
    """The best topology.max.spout.pending for each of Storm's acked entries, or the one that was given."""
    wanted = [c.measure for c in chosen if is_storm(c)]
    with ExitStack() as stack:
        for measure in wanted:
            assert isinstance(measure, partial)
            bench, workers, acking, profile = measure.args
            if not acking:
                continue
            limit = given
            if bench in PIPES:
                limit = PIPES_PENDING
            if limit is None:
                if session.storm is None:
                    session.storm = stack.enter_context(StormCluster())
                limit = session.storm.search(bench, workers=workers, profile=profile, seconds=SEARCH_S)
            session.pending[f"{bench} {workers} {profile}"] = limit
    session.storm = None


def compete(chosen: Sequence[Contender], rounds: int, seconds: float, pending: int | None) -> list[Score]:
    """All rounds. What happens meanwhile is told on stderr."""
    session = Session(seconds)
    find_pending(session, chosen, pending)
    results: dict[str, list[Result]] = {contender.key: [] for contender in chosen}
    problems: dict[str, list[str]] = {contender.key: [] for contender in chosen}
    for number in range(rounds):
        now = [c for c in chosen if not c.slow or number % 5 == 0]
        for part in ([c for c in now if not is_storm(c)], [c for c in now if is_storm(c)])[:: 1 - 2 * (number % 2)]:
            with ExitStack() as stack:
                session.storm = stack.enter_context(StormCluster()) if part and is_storm(part[0]) else None
                for contender in part[:: 1 - 2 * (number % 2)]:
                    took = one(contender, session, results[contender.key], problems[contender.key])
                    print(f"round {number + 1}/{rounds}: {contender.key}: {took}", file=sys.stderr, flush=True)
    return [score(contender, results[contender.key], problems[contender.key]) for contender in chosen]


def one(contender: Contender, session: Session, results: list[Result], problems: list[str]) -> str:
    began = time.monotonic()
    try:
        found = contender.measure(session)
    except Exception as error:
        problems.append(f"{type(error).__name__}: {str(error)[:200]}")
        return problems[-1]
    results.append(found)
    return f"{rate_of(found):,} per s, {found['cpu_s_per_million']} CPU-s/M, {time.monotonic() - began:.0f} s"


def rate_of(found: Result) -> int:
    rate: int = found["acked_per_s"] if found["acking"] else found["tuples_per_s"]
    return rate


def score(contender: Contender, results: list[Result], problems: list[str]) -> Score:
    latencies = [found["latency_ms"] for found in results if found.get("latency_ms")]
    return Score(
        contender.contest,
        contender.engine,
        contender.title,
        rates=[rate_of(found) for found in results],
        cpu_s_per_million=[found["cpu_s_per_million"] for found in results if found["cpu_s_per_million"]],
        p50_ms=[latency["p50"] for latency in latencies],
        p99_ms=[latency["p99"] for latency in latencies],
        cores=[found["cores_used"] for found in results],
        cores_of_others=[found["cores_used_by_others"] for found in results],
        problems=problems,
        settings=next((found["settings"] for found in results if found.get("settings")), {}),
    )
