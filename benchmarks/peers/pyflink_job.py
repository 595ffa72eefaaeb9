"""What runs inside PyFlink: the word count as a DataStream job, started by pyflink_peer in PyFlink's venv.

`python pyflink_job.py LINES METERS MODE` runs in Flink's own mini cluster until it is stopped; MODE is
Flink's python.execution-mode. A sequence source numbers the lines, which the Python functions
hold in memory; the words are keyed and counted in a dict, without Flink's keyed state.
Totals go to METERS/*.json in the form that `meters` reads; no line is split any more when METERS/stop exists.
"""

# its package lives in a venv of its own
# mypy: disable-error-code="import-not-found, misc"
from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pyflink.common import Configuration, Types, WatermarkStrategy
from pyflink.datastream import StreamExecutionEnvironment
from pyflink.datastream.connectors.number_seq import NumberSequenceSource
from pyflink.datastream.functions import FilterFunction, FlatMapFunction, RuntimeContext

SNAPSHOT_PERIOD_S = 0.2


class Meter:
    """The totals of one function of this process, written a few times a second by a thread."""

    def __init__(self, directory: str, number: int) -> None:
        self.file = Path(directory, f"{os.getpid()}{number}.json")
        self.totals: Counter[str] = Counter()
        self.stopped = False
        threading.Thread(target=self._loop, daemon=True).start()

    def _loop(self) -> None:
        while True:
            partial = self.file.with_suffix(".tmp")
            partial.write_text(json.dumps({"time_ns": time.monotonic_ns(), **self.totals}))
            partial.replace(self.file)
            self.stopped = self.file.with_name("stop").exists()
            time.sleep(SNAPSHOT_PERIOD_S)


class Split(FlatMapFunction):
    """The number of a line into its words."""

    def __init__(self, lines: str, meters: str) -> None:
        self.path, self.meters = lines, meters

    def open(self, runtime_context: RuntimeContext) -> None:
        """In the process that will run it."""
        self.lines = Path(self.path).read_text(encoding="utf-8").split("\n")[:-1]
        self.meter = Meter(self.meters, 1)

    def flat_map(self, value: int) -> Iterator[str]:
        """Its words."""
        if self.meter.stopped:
            time.sleep(0.001)
            return
        words = self.lines[value % len(self.lines)].split()
        self.meter.totals["roots"] += 1
        self.meter.totals["emitted"] += len(words)
        yield from words


class Count(FilterFunction):
    """How often each word came; nothing goes on."""

    def __init__(self, meters: str) -> None:
        self.meters = meters

    def open(self, runtime_context: RuntimeContext) -> None:
        """In the process that will run it."""
        self.counts: dict[str, int] = {}
        self.meter = Meter(self.meters, 2)

    def filter(self, value: str) -> bool:
        """Count one word."""
        self.counts[value] = self.counts.get(value, 0) + 1
        self.meter.totals["reached"] += 1
        self.meter.totals["distinct"] = len(self.counts)
        return False


def main(lines: str, meters: str, mode: str) -> None:
    """Submit the job and stay with it."""
    conf = Configuration()
    conf.set_string("python.execution-mode", mode)
    conf.set_string("python.executable", sys.executable)
    conf.set_string("rest.port", "0")
    env = StreamExecutionEnvironment.get_execution_environment(conf)
    env.set_parallelism(1)
    numbers = env.from_source(
        NumberSequenceSource(0, 10**15), WatermarkStrategy.no_watermarks(), "lines", Types.LONG()
    )
    words = numbers.flat_map(Split(lines, meters), Types.STRING())
    words.key_by(lambda word: word, Types.STRING()).filter(Count(meters)).print()
    env.execute("word-count")


if __name__ == "__main__":
    main(*sys.argv[1:])
