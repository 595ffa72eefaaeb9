"""The options that several commands share: one letter, one meaning."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from rainband.errors import InvalidConfig, UsageError, did_you_mean

if TYPE_CHECKING:
    from rainband.config import Config
    from rainband.nimbus.client import Client

EXECUTORS_MAX = 100_000
F = TypeVar("F", bound=Callable[..., Any])


def _seconds(ctx: click.Context, param: click.Parameter, value: float | None) -> float | None:
    if value is not None and not 0 <= value < float("inf"):
        raise UsageError(f"{param.opts[0]} is a number of seconds from 0 up, not {value}")
    return value


def _workers(ctx: click.Context, param: click.Parameter, value: int | None) -> int | None:
    from rainband.config import OPTIONS, check

    if value is not None:
        check(OPTIONS["topology.workers"], value, "-n")
    return value


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Answer with one JSON document per line.")(command)


def verbose_option(command: F) -> F:
    return click.option("-v", "--verbose", is_flag=True, help="Say more; errors come with their traceback.")(command)


def timeout_option(default: float | None, text: str) -> Callable[[F], F]:
    """--timeout SECONDS, 0 or more."""
    return click.option(
        "--timeout", "timeout_s", type=float, default=default, metavar="SECONDS", callback=_seconds, help=text,
        show_default=default is not None,
    )  # fmt: skip


wait_option = click.option(
    "-w", "--wait", "wait_s", type=float, metavar="SECONDS", callback=_seconds,
    help="At most this long for pending tuples to finish (default: the message timeout).",
)  # fmt: skip
workers_option = click.option(
    "-n", "--workers", type=int, metavar="N", callback=_workers, help="Number of workers, as topology.workers."
)
parallelism_option = click.option(
    "-e", "--parallelism", "parallelism", multiple=True, metavar="COMP=N", help="Executors of a component (repeatable)."
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
nimbus_option = click.option(
    "--nimbus", "seeds", multiple=True, metavar="HOST:PORT", help="Where Nimbus is (repeatable; default: nimbus.seeds)."
)


secrets_option = click.option(
    "--secrets", metavar="DIRECTORY", help="Where the workers find secrets, one file of mode 0600 each."
)


def settings_options(command: F, example: str = "topology.max.spout.pending=1000") -> F:
    """-c KEY=VALUE and --config FILE."""
    command = click.option("--config", "config_file", metavar="FILE", help="Settings from a TOML or YAML file.")(
        command
    )
    return click.option(
        "-c", "settings", multiple=True, metavar="KEY=VALUE", help=f"One setting, e.g. {example} (repeatable)."
    )(command)


def cluster_options(command: F) -> F:
    """--nimbus, -c and --config; the command gets the `client` that they make."""

    @wraps(command)
    def connected(
        *arguments: Any, seeds: tuple[str, ...], config_file: str | None, settings: tuple[str, ...], **given: Any
    ) -> Any:
        for key, _ in map(parse_setting, settings):
            if key.partition(".")[0] in ("topology", "app"):
                raise UsageError(f"'{key}' is a setting of topologies: this command changes none", "Give it to submit")
        return command(*arguments, client=connect(seeds, config_file, settings), **given)

    return nimbus_option(settings_options(cast(F, connected), example="keys.dir=DIRECTORY"))


def load_settings(config_file: str | None, settings: tuple[str, ...], **flags: object) -> dict[str, Any]:
    """Settings given outside the program: flags beat -c, which beats RAINBAND_*, which beats the file.

    `flags` maps keys with '_' for '.' to values; None means not given. Raises InvalidConfig.
    """
    from rainband import config

    given: dict[str, Any] = dict(parse_setting(text) for text in settings)
    given |= {name.replace("_", "."): value for name, value in flags.items() if value is not None}
    return config.load(Path(config_file) if config_file else None, os.environ, given)


def parse_setting(text: str) -> tuple[str, object]:
    """'a.b=3' -> ('a.b', '3'): a known key makes of the text what it wants. Values under `app` are JSON, or text."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not key:
        raise InvalidConfig(f"-c {text!r} is not KEY=VALUE", "Write -c topology.workers=2")
    if key.partition(".")[0] == "app":
        from rainband.config import from_json

        return key, from_json(key, value)
    return key, value


def parse_parallelism(texts: tuple[str, ...], known: tuple[str, ...] | None = None) -> dict[str, int]:
    """('count=4',) -> {'count': 4}. Raises UsageError; `known` components give a did-you-mean."""
    result = {}
    for text in texts:
        component, equals, number = text.rpartition("=")
        counted = number.isdecimal() and len(number) <= 20 and 1 <= int(number) <= EXECUTORS_MAX
        if not equals or not component or not counted:
            shown = text if len(text) <= 80 else text[:77] + "..."
            raise UsageError(f"-e {shown!r} is not COMPONENT=N with N from 1 to {EXECUTORS_MAX:,}", "Write -e count=4")
        if known is not None and component not in known:
            raise UsageError(
                f"no component {component!r}", did_you_mean(component, known) or f"There are {', '.join(known)}"
            )
        result[component] = int(number)
    return result


def connect(seeds: tuple[str, ...], config_file: str | None = None, settings: tuple[str, ...] = ()) -> Client:
    """A client of the Nimbus that --nimbus, -c, RAINBAND_NIMBUS_SEEDS or the settings file name."""
    from rainband.config import Config

    client = client_of(Config.layer(load_settings(config_file, settings)), seeds)
    click.get_current_context().call_on_close(client.close)
    return client


def client_of(config: Config, seeds: tuple[str, ...] = ()) -> Client:
    """A client as the settings say, of the Nimbuses at `seeds` if any are given. The caller closes it."""
    from rainband.messaging.keys import cluster_keys
    from rainband.nimbus.client import Client

    keys, timeout_s = cluster_keys(config["keys.dir"]), config["nimbus.client.timeout.secs"]
    return Client(*(seeds or config["nimbus.seeds"]), keys=keys, timeout_s=timeout_s)
