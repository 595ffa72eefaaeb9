"""`rainband config`: every setting, what it is now, and what it means."""

from __future__ import annotations

import click

from rainband.cli import options
from rainband.cli.output import answer, say
from rainband.errors import UsageError, did_you_mean


@click.command("config")
@click.argument("key", required=False)
@options.settings_options
@options.json_option
@options.verbose_option
def config_command(
    key: str | None, config_file: str | None, settings: tuple[str, ...], as_json: bool, verbose: bool
) -> None:
    """Show every setting (or KEY): its value here, its default, its limits and its meaning.

    A setting comes from -c KEY=VALUE, else from its RAINBAND_ variable, else from --config FILE, else from the program.
    """
    from rainband.config import OPTIONS, Config

    if key is not None and key not in OPTIONS:
        raise UsageError(f"no setting {key!r}", did_you_mean(key, OPTIONS) or "See: rainband config")
    given = options.load_settings(config_file, settings)
    now = Config.layer(given)
    for name, option in OPTIONS.items():
        if key not in (None, name):
            continue
        value = now[name]
        if as_json:
            answer({"key": name, "value": value, "default": option.default, "set": name in given, "scope": option.scope,
                    "variable": option.env, "allowed": option.allowed(), "meaning": option.doc})  # fmt: skip
        else:
            star = "*" if name in given else " "
            say(f"{star} {name} = {_plain(value)}\n      {option.doc}; {option.allowed()} ({option.scope})")


def _plain(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else "none" if value is None else str(value)
