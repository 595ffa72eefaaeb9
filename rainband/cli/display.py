"""What a long command shows while it works: a progress bar with live words on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rainband.cli.output import say, shown
from rainband.clock import SystemClock

if TYPE_CHECKING:
    from rich.live import Live
    from rich.progress import Progress

REFRESH_S = 0.4
PLAIN_S = 2.0


class Display:
    """Lines of `label  text`, and between them, while `watching`, one moving picture."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live: Live | None = None
        self.bar: Progress | None = None
        self.total = 0
        self._clock = SystemClock()
        self._told_at = 0.0
        self._told = 0

    def line(self, label: str, text: str) -> None:
        if self.quiet:
            return
        if self.live is not None:
            self.live.console.print(shown(f"{label:<9} {text}"), markup=False, highlight=False)
        else:
            say(f"{label:<9} {text}")

    @contextlib.contextmanager
    def watching(self, total: int) -> Iterator[None]:
        """Within, `progress` shows how much of `total` lines is done."""
        self.total = total
        if self.quiet or not sys.stdout.isatty():
            yield
            return
        from rich.live import Live
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("lines    "), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns)
        self.bar.add_task("lines", total=total)
        with Live(self.bar, refresh_per_second=4) as self.live:
            yield
        self.live = None

    def progress(self, done: int, replayed: int, words: Sequence[tuple[str, int]]) -> None:
        """`done` lines are acked, `replayed` were sent again; `words` are the most frequent ones so far."""
        if self.quiet:
            return
        if self.live is not None and self.bar is not None:
            self.bar.update(self.bar.task_ids[0], completed=done)
            self.live.update(_picture(self.bar, replayed, words))
        elif done > self._told and (self._clock.now() - self._told_at >= PLAIN_S or done == self.total):
            self._told, self._told_at = done, self._clock.now()
            top = "  ".join(f"{word} {count:,}" for word, count in words[:5])
            say(f"{'lines':<9} {done:,} of {self.total:,} acked, {replayed:,} replayed; top words: {top}")

    def pause(self, seconds: float = REFRESH_S) -> None:
        """Until it is worth looking again."""
        threading.Event().wait(seconds)


def _picture(bar: Progress, replayed: int, words: Sequence[tuple[str, int]]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    top = max((count for _, count in words), default=1)
    for word, count in words:
        table.add_row(
            Text(f"          {word}"), Text(f"{count:,}", justify="right"), Text("━" * (30 * count // top), "cyan")
        )
    return Group(bar, table, Text(f"          {replayed:,} lines replayed"))
