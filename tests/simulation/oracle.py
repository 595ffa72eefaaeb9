"""The truth about delivery, kept outside the product: every emit, execution, ack and verdict.

The oracle sees what components see. A *delivery* is one tuple (by uid) for one task; an *attempt* is one emit of a row
by a spout, with its tree of deliveries. Laws are named as in the catalogue of invariants: D1 no false ack, D2 no loss,
D3 one verdict, D4 timeouts in time, D5 each delivery once, and a row as often as it failed or its source began anew,
D6 ids unique, D7 pending bounded, D9 order, D10 groupings, D11 nothing from a place that was given up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from simulation.options import Options
from simulation.topologies import Load

OPEN, RUNNING, ACKED, FAILED = range(4)
TIMED_OUT, LOST = 1, 2
EARLY_S = 1e-6
PROMPT_S = 2.5
LATE_S = 0.5
STILL_SLACK_S = 0.6


class Violation(Exception):
    """A law was broken."""


class Attempt:
    """One emit of `row` by one spout task: `open` deliveries of its tree are not acked yet."""

    __slots__ = ("emissions", "failed", "failed_at", "incarnation", "open", "row", "settled", "started", "touched")

    def __init__(self, row: int, incarnation: int, now: float) -> None:
        self.row = row
        self.incarnation = incarnation
        self.open = 0
        self.emissions: list[Emission] = []
        self.failed = False
        self.failed_at = 0.0
        self.settled = False
        self.started = now
        self.touched = now


class Emission:
    """One emitted tuple: the attempts it belongs to, who sent it when, and what became of it at each target task.

    `place` is the placement number of its source, `places` are those of its targets, as the sender knew them.
    """

    __slots__ = (
        "address", "at", "attempts", "incarnation", "place", "places", "row", "source", "state", "stream", "to", "uid",
    )  # fmt: skip

    def __init__(
        self, uid: int, row: int, attempts: tuple[Attempt, ...], source: int, incarnation: int, address: str, at: float
    ) -> None:
        self.uid = uid
        self.row = row
        self.attempts = attempts
        self.source = source
        self.incarnation = incarnation
        self.address = address
        self.at = at
        self.place = 0
        self.stream = "default"
        self.state: dict[int, int] = {}
        self.places: dict[int, int] = {}
        self.to: dict[int, str] = {}


class Oracle:
    """What happened to one topology. `violations` grows; the world raises them after each event."""

    def __init__(
        self,
        load: Load,
        options: Options,
        note: Callable[[str], None],
        violations: list[str],
        undisturbed: Callable[[], bool] = lambda: True,
        deaths: dict[str, list[float]] | None = None,
    ) -> None:
        """`undisturbed()`: no process died and nothing moved so far; `deaths` are times of deaths by address."""
        self.undisturbed = undisturbed
        self.deaths = deaths if deaths is not None else {}
        self.load = load
        self.options = options
        self.note = note
        self.violations = violations
        self.tracked = options.ackers != 0
        self.uids = 0
        self.emissions: dict[int, Emission] = {}
        self.current: dict[tuple[int, int, int], Attempt] = {}
        self.unsettled: dict[tuple[int, int], dict[int, Attempt]] = {}
        self.attempts: dict[int, int] = {}
        self.fails: dict[tuple[int, int, int], int] = {}
        self.acked: set[int] = set()
        self.untrue: set[int] = set()
        self.dead: set[int] = set()
        self.arrived: set[int] = set()
        self.emitted: dict[tuple[int, int, int], int] = {}
        self.failed: dict[tuple[int, int, int], int] = {}
        self.executed: dict[int, set[str]] = {}
        self.lives: dict[int, dict[int, float]] = {}
        self.times: dict[tuple[int, str], int] = {}
        self.most = {name: load.most(name) for name in load.inputs}
        self.executions = 0
        self.timeouts = 0
        self.roots: set[int] = set()
        self.order: dict[tuple[int, int, int, int, int, str], int] = {}
        self.key_task: dict[tuple[str, str, int], int] = {}
        self.consumers: dict[tuple[str, str], list[tuple[str, str, range]]] = {}
        self.component_of = load.topology.plan.component_of

    def wrong(self, law: str, text: str) -> None:
        self.violations.append(f"{law}: {text}")

    # Emits

    def spout_emits(self, task: int, incarnation: int, address: str, row: int, now: float) -> Emission:
        known = self.current.get((incarnation, task, row))
        if known is not None and not known.settled:
            self.wrong("D3", f"row {row} was emitted again by task {task} before its verdict")
        attempt = Attempt(row, incarnation, now)
        self.current[incarnation, task, row] = attempt
        self.unsettled.setdefault((incarnation, task), {})[row] = attempt
        self.attempts[row] = self.attempts.get(row, 0) + 1
        key = (incarnation, task, row)
        self.emitted[key] = self.emitted.get(key, 0) + 1
        if self.emitted[key] > 1 + self.failed.get(key, 0):
            told = f"was told {self.failed.get(key, 0)} times that it failed"
            self.wrong("D5", f"task {task} emits row {row} {self.emitted[key]} times in one life, and {told}")
        return self.emission(row, (attempt,), task, incarnation, address, now)

    def emission(
        self, row: int, attempts: tuple[Attempt, ...], task: int, incarnation: int, address: str, now: float
    ) -> Emission:
        self.uids += 1
        found = Emission(self.uids, row, attempts, task, incarnation, address, now)
        self.emissions[found.uid] = found
        return found

    def sent(
        self, emission: Emission, tasks: tuple[int, ...], places: dict[int, int], addresses: dict[int, str]
    ) -> None:
        """The product says where the tuple goes."""
        emission.place = places.get(emission.source, 0)
        for task in tasks:
            if task in emission.state:
                self.wrong("D10", f"uid {emission.uid} of task {emission.source} was sent to task {task} twice")
            emission.state[task] = OPEN
            emission.places[task] = places.get(task, 0)
            emission.to[task] = addresses.get(task, "")
        for attempt in emission.attempts:
            attempt.open += len(tasks)
            attempt.emissions.append(emission)
        self.note(f"emit {emission.uid} row {emission.row} {emission.source}->{tasks}")

    def new_root(self, root: int) -> None:
        if root <= 0:
            self.wrong("D6", f"root id {root}")
        if root in self.roots:
            self.wrong("D6", f"root id {root:#x} was used before")
        self.roots.add(root)

    def check_grouping(self, emission: Emission, component: str, key: int, local: frozenset[int]) -> None:
        """D10, for the tuples of one plain emit."""
        consumers = self.consumers.get((component, emission.stream))
        if consumers is None:
            consumers = self.consumers[component, emission.stream] = [
                (consumer, kind, self.load.tasks[consumer])
                for consumer, inputs in self.load.inputs.items()
                for source, of, kind in inputs
                if (source, of) == (component, emission.stream)
            ]
        for consumer, kind, ids in consumers:
            got = [task for task in emission.state if task in ids]
            if not self._right(kind, consumer, component, key, got, ids, local):
                self.wrong("D10", f"{component} -{kind}-> {consumer} sent key {key} to {got} of {list(ids)}")

    def _right(
        self, kind: str, consumer: str, component: str, key: int, got: list[int], ids: range, local: frozenset[int]
    ) -> bool:
        """Whether a grouping may send to these tasks: to one task per key, to a local one where there is one."""
        if kind == "all":
            return got == list(ids)
        if len(got) != 1:
            return False
        if kind == "global":
            return got[0] == ids[0]
        if kind == "direct":
            return got[0] == ids[key % len(ids)]
        if kind in ("fields", "custom"):
            return self.key_task.setdefault((component, consumer, key), got[0]) == got[0]
        return kind != "local_or_shuffle" or got[0] in local or not any(task in local for task in ids)

    # Executions

    def called(self, task: int, life: int, now: float) -> None:
        """A4: user code of a task of an exclusive topology runs now. Once a life of it began no other goes on.

        Where two Nimbuses lead on one store, which its lock forbids, each confirms what the other gives away.
        """
        if "second_nimbus" in self.options.faults:
            return
        lives = self.lives.setdefault(task, {})
        began = lives.setdefault(life, now)
        newest = max(lives.values())
        if began < newest < now:
            self.wrong("A4", f"task {task} is exclusive, and runs {now - newest:.2f} s after another life of it began")

    def begins(
        self, uid: int, task: int, incarnation: int, now: float, gave_up: Callable[[Emission], bool]
    ) -> Emission | None:
        """A task is handed a tuple. `gave_up(emission)`: what was sent then from there counts no more."""
        emission = self.emissions.get(uid)
        state = emission.state.get(task) if emission is not None else None
        if emission is None or state is None:
            self.wrong("D5", f"task {task} executes uid {uid}, which was never sent to it")
            return None
        if state != OPEN:
            self.wrong("D5", f"task {task} executes uid {uid} of row {emission.row} a second time")
        emission.state[task] = RUNNING
        self.executions += 1
        if gave_up(emission):
            self.wrong("D11", f"task {task} executes uid {uid} of task {emission.source}, sent from a place given up")
        lane = (emission.incarnation, emission.source, incarnation, task, emission.places[task], emission.stream)
        if self.order.get(lane, 0) > uid:
            self.wrong("D9", f"task {task} executes uid {uid} after {self.order[lane]}, both of task {emission.source}")
        self.order[lane] = uid
        self._count(emission.row, self.component_of[task])
        self.note(f"exec {uid} {task}")
        return emission

    def _count(self, row: int, component: str) -> None:
        """D5 where things fail, too: a component executes a row as often as its graph says for each emit of it."""
        most = self.most.get(component)
        if most is None:
            return
        times = self.times[row, component] = self.times.get((row, component), 0) + 1
        emits = self.attempts.get(row, 0)
        if times > most * emits:
            self.wrong("D5", f"'{component}' executes row {row} the {times}th time, after {emits} emits of it")

    def ends(self, emission: Emission, task: int, done: bool, now: float) -> None:
        """A delivery was acked or failed by the component."""
        if emission.state.get(task) != RUNNING:
            self.wrong("D5", f"task {task} settled uid {emission.uid} in state {emission.state.get(task)}")
        emission.state[task] = ACKED if done else FAILED
        for attempt in emission.attempts:
            if done:
                attempt.open -= 1
            elif not attempt.failed:
                attempt.failed = True
                attempt.failed_at = now
        if done:
            self.executed.setdefault(emission.row, set()).add(self.component_of[task])

    def touched(self, emission: Emission, now: float) -> None:
        for attempt in emission.attempts:
            attempt.touched = now

    def overdue(self, incarnation: int, task: int, now: float, calm_since: float, quiet_since: float) -> None:
        """D4, for the rows a living spout task waits for, without faults since `calm_since`.

        Nothing died or moved since `quiet_since`: what fails is told at once.
        """
        longest_s = 1.1 * self.options.timeout_s + LATE_S
        for row, attempt in self.unsettled.get((incarnation, task), {}).items():
            if now > max(attempt.started, attempt.touched, calm_since) + longest_s:
                self.wrong("D4", f"row {row} of task {task} has waited {now - attempt.started:.2f} s for its verdict")
            elif attempt.failed and attempt.started > quiet_since and now > attempt.failed_at + PROMPT_S:
                self.wrong("D4", f"row {row} of task {task} failed {now - attempt.failed_at:.2f} s ago, untold")

    # Verdicts

    def verdict(
        self,
        task: int,
        incarnation: int,
        row: int,
        done: bool,
        reason: int,
        now: float,
        stood: list[tuple[float, float]],
    ) -> None:
        """`stood`: when the spout's process did not run (stopped by a signal); that time does not count."""
        attempt = self.current.get((incarnation, task, row))
        word = "ack" if done else ("fail", "timeout", "loss")[reason]
        self.note(f"{word} row {row} task {task}")
        if attempt is None:
            self.wrong("D3", f"{word} of row {row}, which task {task} never emitted")
            return
        if attempt.settled:
            self.wrong("D3", f"{word} of row {row} by task {task} after another verdict")
        attempt.settled = True
        self.unsettled[incarnation, task].pop(row, None)
        if not self.tracked:
            return
        if done:
            if self.options.id_bits < 62 and (attempt.failed or attempt.open):
                self.note(f"untrue ack of row {row}")
                self.untrue.add(row)
            elif attempt.failed:
                self.wrong("D1", f"row {row} is acked although a tuple of its tree failed")
            elif attempt.open:
                self.wrong("D1", f"row {row} is acked with {attempt.open} tuples of its tree not processed")
            self.acked.add(row)
            return
        key = (incarnation, task, row)
        self.failed[key] = self.failed.get(key, 0) + 1
        if reason != LOST:
            self.fails[key] = self.fails.get(key, 0) + 1
        if reason == TIMED_OUT:
            long = [(begin, end) for begin, end in stood if begin >= attempt.started and end - begin > 0.5]
            self._timed_out(attempt, now, sum(end - begin for begin, end in long))
        if reason == LOST and self.undisturbed():
            self.wrong("D5", f"row {row} is failed as lost, but no process died and nothing moved")

    def _timed_out(self, attempt: Attempt, now: float, still_s: float) -> None:
        self.timeouts += 1
        if self.options.prompt:
            for emission in attempt.emissions:
                for task, state in emission.state.items():
                    died = [at for at in self.deaths.get(emission.to[task], ()) if emission.at < at < now - PROMPT_S]
                    if state in (OPEN, RUNNING) and died:
                        ago = f"task {task} died {now - died[-1]:.1f} s ago"
                        self.wrong("D4", f"row {attempt.row} waited for its timeout, though {ago}")
        if now < attempt.started + self.options.timeout_s + max(0.0, still_s - STILL_SLACK_S) - EARLY_S:
            ran = f"{now - attempt.started:.3f} s, {still_s:.3f} s of which its process stood still"
            self.wrong("D4", f"row {attempt.row} timed out after {ran}")
        if self.options.calm:
            what = "had failed, and that was not told" if attempt.failed else f"has {attempt.open} tuples open"
            self.wrong("D4", f"row {attempt.row} timed out in a run without faults; it {what}")

    def buried(self, task: int, incarnation: int, row: int, retries: int) -> None:
        """A row became a dead letter."""
        made = self.load.made[self.component_of[task]]
        wanted = int(getattr(made, "max_retries", 0))
        if row not in self.dead:
            fails = self.fails.get((incarnation, task, row), 0) + 1
            if fails < wanted + 1 or retries < wanted:
                self.wrong("D2", f"row {row} is given up after {fails} fails and {retries} retries of {wanted}")
        self.dead.add(row)
        self.note(f"dead row {row}")

    # The end

    def unfinished(self) -> list[int]:
        """Rows that are neither acked nor dead letters."""
        return [row for row in self.load.all_rows() if row not in self.acked and row not in self.dead]

    def check_end(self) -> None:
        """D2, once everything has converged."""
        for row in self.load.all_rows():
            if row in self.dead:
                if self.load.letters and row not in self.arrived and row not in self.acked:
                    self.wrong("D2", f"the dead letter of row {row} never arrived")
                continue
            if row in self.untrue:
                continue
            missing = self.load.must_reach(row) - self.executed.get(row, set())
            if missing:
                self.wrong("D2", f"row {row} is acked but never came to {sorted(missing)}")
        if self.options.calm:
            self._check_calm()

    def _check_calm(self) -> None:
        """Without faults, exactly once: a row is emitted again only because a component failed it."""
        failed = sum(self.fails.values())
        extra = sum(self.attempts.values()) - len(self.attempts)
        if extra > failed:
            self.wrong("D5", f"{extra} replays for {failed} fails in a run without faults")


def anchors_of(oracle: Oracle, anchors: Any) -> tuple[Attempt, ...]:
    """The attempts behind the anchors of one emit, each once."""
    listed = anchors if isinstance(anchors, (list, tuple)) and not hasattr(anchors, "_source") else [anchors]
    found: dict[int, Attempt] = {}
    for tup in listed:
        emission = oracle.emissions.get(tup[1])
        if emission is not None:
            for attempt in emission.attempts:
                found[id(attempt)] = attempt
    return tuple(found.values())
