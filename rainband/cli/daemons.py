"""Commands that stay: nimbus, supervisor, and up, which is both on one machine."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import click

from rainband.cli import options
from rainband.cli.output import answer, note, say

if TYPE_CHECKING:
    from rainband.config import Config

PARENT_POLL_S = 0.5
while_option = click.option("--while", "parent", type=int, hidden=True, help="Stop when this parent process is gone.")


def daemon_config(config_file: str | None, settings: tuple[str, ...], **flags: object) -> Config:
    """The settings of a daemon, defaults included. Raises InvalidConfig."""
    from rainband.config import Config

    return Config.layer(options.load_settings(config_file, settings, **flags))


def log_to_stderr(verbose: bool) -> None:
    """Send the daemon's log to stderr, with times."""
    import logging

    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("kazoo").setLevel(logging.WARNING)


def stop_with(parent: int | None) -> None:
    """Ask this process to stop, as a person would, once `parent` is no longer the one that started it."""
    if parent is None:
        return

    def watch() -> None:
        while os.getppid() == parent:
            threading.Event().wait(PARENT_POLL_S)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="watch-parent", daemon=True).start()


@click.command("nimbus")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on (nimbus.port).")
@click.option(
    "--state", metavar="DIRECTORY|URL", help="Where its state lies: a directory, or zookeeper://HOST:PORT[,...]/PATH."
)
@while_option
@options.settings_options
@options.json_option
@options.verbose_option
def nimbus_command(
    port: int | None,
    state: str | None,
    parent: int | None,
    config_file: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Run the master: it takes topologies in and says which supervisor runs what. Ctrl-C stops it; topologies go on."""
    shared = state if state is not None and "://" in state else None
    directory = state if shared is None else None
    config = daemon_config(config_file, settings, nimbus_port=port, nimbus_state=shared, state_dir=directory)
    log_to_stderr(verbose)
    stop_with(parent)
    from rainband.nimbus import service

    service.run(config)


@click.command("supervisor")
@click.option("--slots", type=click.IntRange(1, 1000), metavar="N", help="Number of workers this machine may run.")
@click.option("--state", type=click.Path(), metavar="DIRECTORY", help="Where its state lies (state.dir).")
@click.option("--stop-workers", is_flag=True, help="Stop the workers too when it stops (default: they go on).")
@options.secrets_option
@while_option
@options.nimbus_option
@options.settings_options
@options.json_option
@options.verbose_option
def supervisor_command(
    slots: int | None,
    state: str | None,
    stop_workers: bool,
    secrets: str | None,
    parent: int | None,
    seeds: tuple[str, ...],
    config_file: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Run this machine's workers. Ctrl-C stops it; its workers go on and are found again at the next start."""
    config = daemon_config(
        config_file, settings, state_dir=state, nimbus_seeds=list(seeds) or None, supervisor_secrets_dir=secrets
    )
    log_to_stderr(verbose)
    stop_with(parent)
    from rainband.supervisor import daemon

    daemon.run(config, slots=slots, stop_workers=stop_workers)


@click.command("up")
@click.option("--supervisors", type=click.IntRange(1, 100), default=1, show_default=True, metavar="N")
@click.option(
    "--slots", type=click.IntRange(1, 1000), default=4, show_default=True, metavar="N", help="Per supervisor."
)
@click.option("--port", type=click.IntRange(0, 65535), help="Port of Nimbus (nimbus.port; 0: any).")
@click.option("--state", type=click.Path(), metavar="DIRECTORY", help="Where all state lies (state.dir).")
@options.secrets_option
@options.settings_options
@options.json_option
@options.verbose_option
def up_command(
    supervisors: int,
    slots: int,
    port: int | None,
    state: str | None,
    secrets: str | None,
    config_file: str | None,
    settings: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Run Nimbus and supervisors on this machine until Ctrl-C, which stops them and all workers. State is kept."""
    from rainband.config import expanded
    from rainband.supervisor.embedded import EmbeddedCluster

    config = daemon_config(config_file, settings, nimbus_port=port, state_dir=state, supervisor_secrets_dir=secrets)
    directory = expanded(config["state.dir"]).resolve()
    own = {key: value for key, value in config.plain().items() if key not in OWN_KEYS}
    cluster = EmbeddedCluster(
        directory,
        supervisors=supervisors,
        slots=slots,
        host=config["nimbus.host"],
        port=config["nimbus.port"],
        settings=own,
        verbose=verbose,
    )
    try:
        with stopped_by_signals(), cluster:
            announce(cluster, as_json)
            while (failure := cluster.failure(wait_s=1.0)) is None:
                pass
            raise failure
    except KeyboardInterrupt:
        note(f"stopped; the state is kept in {directory}")
        raise


OWN_KEYS = ("state.dir", "nimbus.host", "nimbus.port", "nimbus.seeds", "supervisor.host", "supervisor.slots.ports")


def announce(cluster: Any, as_json: bool) -> None:
    """Say what runs where."""
    pids = {name: child.pid for name, child in cluster.children.items()}
    if as_json:
        answer({"nimbus": cluster.address, "state": str(cluster.state), "slots": cluster.slots, "pids": pids})
        return
    supervisors = len(pids) - 1
    say(f"nimbus      {cluster.address}")
    say(f"supervisors {supervisors}, {supervisors * cluster.slots} slots")
    say(f"state       {cluster.state}")
    where = "" if cluster.port == 6627 else f" --nimbus {cluster.address}"
    say(f"next:       rainband submit{where} FILE     (Ctrl-C stops everything; state is kept)")


@contextlib.contextmanager
def stopped_by_signals(told: Callable[[], None] | None = None) -> Iterator[None]:
    """SIGTERM and SIGHUP end the block as Ctrl-C does, so that what it started is stopped too; `told` is called first.

    SIGINT is set as well: a shell starts background jobs with it ignored.
    """

    def interrupt(number: int, frame: object) -> None:
        if told is not None:
            told()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
