"""`rainband doctor`: is this machine fit to run rainband? Looks, changes nothing, says how to mend what is wrong."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import click

from rainband.build import VERSION, compiled, compiled_files
from rainband.cli import options
from rainband.cli.daemons import daemon_config
from rainband.cli.output import answer, say
from rainband.config import Config

PACKAGES = ("pyzmq", "msgspec", "cloudpickle", "psutil", "kazoo", "click", "rich")
DISK_FREE_MIN_BYTES = 1 << 30


class Finding(NamedTuple):
    """`state` is "ok", "warn" (works, could be better) or "bad" (does not work)."""

    what: str
    state: str
    text: str
    fix: str = ""


@click.command("doctor")
@options.nimbus_option
@options.settings_options
@options.json_option
@options.verbose_option
def doctor_command(
    seeds: tuple[str, ...], config_file: str | None, settings: tuple[str, ...], as_json: bool, verbose: bool
) -> int:
    """Check this machine: Python and packages, the build, ports, disk, and whether a Nimbus answers."""
    config = daemon_config(config_file, settings, nimbus_seeds=list(seeds) or None)
    findings = [finding for check in CHECKS for finding in check(config)]
    for finding in findings:
        if as_json:
            answer(finding._asdict())
        else:
            fix = f" -> {finding.fix}" if finding.fix else ""
            say(f"{finding.state:<4}  {finding.what:<10} {finding.text}{fix}")
    return 1 if any(finding.state == "bad" for finding in findings) else 0


def check_python(config: Config) -> Iterator[Finding]:
    good = sys.version_info >= (3, 11)
    yield Finding(
        "python", "ok" if good else "bad", f"{sys.version.split()[0]} at {sys.executable}", "" if good else "3.11+"
    )


def check_build(config: Config) -> Iterator[Finding]:
    if compiled():
        yield Finding("build", "ok", f"rainband {VERSION}, compiled: {len(compiled_files())} hot files")
    else:
        yield Finding(
            "build", "warn", f"rainband {VERSION}, not compiled: runs slower", "install a C compiler, then reinstall"
        )


def check_packages(config: Config) -> Iterator[Finding]:
    for package in PACKAGES:
        try:
            yield Finding("package", "ok", f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            yield Finding("package", "bad", f"{package} is missing", f"pip install {package}")
    yield from check_libzmq()


def check_libzmq() -> Iterator[Finding]:
    """The library behind pyzmq, which has its own version."""
    from rainband.errors import Refused
    from rainband.messaging.sockets import libzmq

    try:
        yield Finding("package", "ok", f"libzmq {libzmq()}")
    except Refused as error:
        yield Finding("package", "bad", error.message, error.fix)


def check_disk(config: Config) -> Iterator[Finding]:
    """Can the state directory, or the one it will be made in, be written, and is there room?"""
    from rainband.config import expanded

    state = expanded(config["state.dir"])
    place = next(path for path in (state, *state.parents) if path.exists())
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("disk", "bad", f"{state} cannot be written", "choose another with -c state.dir=DIRECTORY")
        return
    free = shutil.disk_usage(place).free
    state_of = "ok" if free >= DISK_FREE_MIN_BYTES else "warn"
    yield Finding("disk", state_of, f"{state}: {free / 1e9:.1f} GB free", "" if state_of == "ok" else "make room")
    with tempfile.TemporaryFile(dir=place) as file:
        file.write(b"rainband")
        os.fsync(file.fileno())


def check_ports(config: Config) -> Iterator[Finding]:
    """Could Nimbus and the slots listen where the settings say?"""
    for name, port in (
        ("nimbus", config["nimbus.port"]),
        *(("slot", port) for port in config["supervisor.slots.ports"]),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((config["nimbus.host"], port))
            except OSError:
                yield Finding(
                    "port", "warn", f"{port} ({name}) is in use", "fine if it is rainband; else choose another"
                )
            else:
                yield Finding("port", "ok", f"{port} ({name}) is free")


def check_nimbus(config: Config) -> Iterator[Finding]:
    """Does one answer? None is only worth a hint."""
    from rainband.errors import NotAllowed, RainbandError

    seeds = ", ".join(config["nimbus.seeds"])
    try:
        with options.client_of(config) as client:
            cluster = client.cluster()
    except NotAllowed as error:
        yield Finding("nimbus", "bad", error.message, error.fix)
        return
    except RainbandError:
        yield Finding("nimbus", "warn", f"none answers at {seeds}", "start one: rainband up")
        return
    alive = [s for s in cluster.supervisors if s.alive]
    yield Finding(
        "nimbus", "ok", f"{cluster.leader} leads; {len(alive)} supervisors, {sum(len(s.ports) for s in alive)} slots"
    )


def check_zookeeper(config: Config) -> Iterator[Finding]:
    """Where Nimbus keeps its state in ZooKeeper: is it reachable, may we in, and nobody else?"""
    if "://" not in config["nimbus.state"]:
        return
    from rainband.cluster.checkup import check
    from rainband.errors import RainbandError
    from rainband.nimbus.state import NotMadeYet, credentials, tls

    try:
        session_s = config["nimbus.zookeeper.session.secs"]
        for found in check(config["nimbus.state"], credentials(config, make=False), session_s, tls(config)):
            yield Finding("zookeeper", found.state, found.text, found.fix)
    except NotMadeYet as error:
        yield Finding("zookeeper", "warn", error.message, error.fix)
    except RainbandError as error:
        yield Finding("zookeeper", "bad", error.message, error.fix)


CHECKS: tuple[Callable[[Config], Iterator[Finding]], ...] = (
    check_python, check_build, check_packages, check_disk, check_ports, check_zookeeper, check_nimbus,
)  # fmt: skip
