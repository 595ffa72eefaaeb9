"""`rainband logs`: what the workers of a topology on this machine printed, all of them in one stream."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import click

from rainband.cli import options
from rainband.cli.daemons import daemon_config
from rainband.cli.output import answer, say
from rainband.errors import TopologyNotFound

POLL_S = 0.3


class Tail:
    """The end of one log file, read on from where it was read before, also after it was turned over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.label = f"{path.parent.name}/{path.stem}"
        self.offset = 0
        self.inode = 0
        self.rest = b""

    def last(self, count: int) -> list[str]:
        """The last `count` lines; reading goes on after them."""
        lines = list(self.read())
        return lines[-count:] if count else []

    def read(self) -> Iterator[str]:
        """The complete lines written since the last call."""
        try:
            with self.path.open("rb") as file:
                inode = file.seek(0, 2) and self.path.stat().st_ino
                if inode != self.inode or file.tell() < self.offset:
                    self.offset, self.inode, self.rest = 0, inode, b""
                file.seek(self.offset)
                data = file.read()
        except OSError:
            return
        self.offset += len(data)
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace")


def find(state: Path, name: str) -> list[Path]:
    """The log files of every run of topology `name` whose supervisor keeps its state in `state` or right below."""
    own = re.compile(re.escape(name) + r"-\d+-\d+")
    found = [*state.glob("logs/*/worker-*.log"), *state.glob("*/logs/*/worker-*.log")]
    return sorted(path for path in found if own.fullmatch(path.parent.name) or path.parent.name == name)


@click.command("logs")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on, until Ctrl-C.")
@click.option("--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each worker.")
@click.option("--state", type=click.Path(), metavar="DIRECTORY", help="Where the supervisor's state lies (state.dir).")
@options.settings_options
@options.json_option
@options.verbose_option
def logs_command(
    name: str,
    follow: bool,
    lines: int,
    state: str | None,
    config_file: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Show what the workers of topology NAME on this machine wrote to stdout and stderr."""
    from rainband.config import expanded

    directory = expanded(daemon_config(config_file, settings, state_dir=state)["state.dir"])
    paths = find(directory, name)
    if not paths:
        raise TopologyNotFound(
            f"no logs of a topology {name!r} in {directory}", "Name the supervisor's state directory with --state"
        )

    def tell(tail: Tail, line: str) -> None:
        if as_json:
            answer({"worker": tail.label, "line": line})
        else:
            say(f"{tail.label}: {line.rstrip(chr(13))}")

    tails = {path: Tail(path) for path in paths}
    for tail in tails.values():
        for line in tail.last(lines):
            tell(tail, line)
    while follow:
        threading.Event().wait(POLL_S)
        for path in find(directory, name):
            tail = tails.setdefault(path, Tail(path))
            for line in tail.read():
                tell(tail, line)
