"""The door of the command line: finds the command, runs it, and turns every end into an exit code."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click

from rainband.cli.output import complain, note
from rainband.errors import RainbandError, UsageError, did_you_mean

# name -> (module, what it does); the order is the order of --help.
COMMANDS = {
    "demo": ("demo", "Count the words of Python's standard library on a cluster of its own, and prove it."),
    "local": ("local", "Run a topology in this process, until it is drained or Ctrl-C."),
    "up": ("daemons", "Start a whole cluster on this machine; Ctrl-C stops it."),
    "submit": ("submit", "Run a topology on the cluster."),
    "list": ("topologies", "Show the topologies of the cluster."),
    "monitor": ("watch", "Show what a topology does, each second."),
    "errors": ("watch", "Show the errors of a topology's components."),
    "logs": ("logs", "Show what the workers of a topology on this machine wrote."),
    "stacks": ("watch", "Show where the workers of a topology are in their code."),
    "activate": ("topologies", "Let the spouts of a topology go on."),
    "deactivate": ("topologies", "Pause the spouts of a topology."),
    "rebalance": ("topologies", "Change workers or parallelism of a running topology."),
    "chaos": ("chaos", "Kill workers of a running topology on purpose, and watch it recover."),
    "kill": ("topologies", "Stop a topology and remove it."),
    "nimbus": ("daemons", "Run the master of a cluster."),
    "supervisor": ("daemons", "Run this machine's workers for a cluster."),
    "keygen": ("keygen", "Make the key that lets a cluster use addresses beyond this machine."),
    "config": ("config", "Show every setting, its default and its meaning."),
    "doctor": ("doctor", "Check this machine: versions, ports, disk, the build."),
}

FIRST_STEPS = """\
rainband {version} ({built}). Type one of these first:

  rainband demo           count 31 MB of real text on a cluster of processes, with proof
  rainband up             start a cluster on this machine
  rainband --help         every command
"""


class ReaderGone(Exception):
    """Whoever read what we write has gone. (Click would end with 1 on a BrokenPipeError.)"""


@contextlib.contextmanager
def reader_may_go() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise ReaderGone from None


class Commands(click.Group):
    """Commands named in a table and imported only when used."""

    def make_context(self, *args: Any, **more: Any) -> click.Context:
        with reader_may_go():
            return super().make_context(*args, **more)

    def invoke(self, ctx: click.Context) -> Any:
        with reader_may_go():
            return super().invoke(ctx)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"rainband.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise UsageError(f"no command {args[0]!r}", did_you_mean(args[0], COMMANDS) or "See: rainband --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=Commands, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--version", is_flag=True, help="Show the version and which build runs.")
@click.pass_context
def rainband(ctx: click.Context, version: bool) -> None:
    """A Storm for Python: run topologies of spouts and bolts, here or on a cluster, and lose no tuple."""
    from rainband.build import VERSION, describe

    if version:
        click.echo(f"rainband {VERSION} ({describe()}), Python {sys.version.split()[0]}")
        ctx.exit()
    elif ctx.invoked_subcommand is None:
        click.echo(FIRST_STEPS.format(version=VERSION, built=describe()), nl=False)


def check_text(argv: Sequence[str]) -> None:
    """Raises UsageError for an argument that no message and no file of ours could carry."""
    for text in argv:
        if text.encode("utf-8", "replace").decode() != text:
            shown = text.encode("utf-8", "backslashreplace").decode()
            raise UsageError(f"the argument '{shown[:80]}' is not UTF-8 text", "Type it in UTF-8; is LANG set right?")


def run(argv: Sequence[str]) -> int:
    """Run one command line; returns its exit code. Never raises."""
    before_dashes = list(argv)[: list(argv).index("--")] if "--" in argv else list(argv)
    as_json = "--json" in before_dashes
    verbose = "-v" in before_dashes or "--verbose" in before_dashes
    try:
        check_text(before_dashes)
        code = rainband.main(args=list(argv), prog_name="rainband", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, click.Abort):
        return 130
    except (BrokenPipeError, ReaderGone):
        return 0  # without a word
    except click.exceptions.NoArgsIsHelpError as error:
        note(error.format_message())
        return 2
    except click.UsageError as error:
        message = error.format_message().rstrip(".")
        more = f"See: {error.ctx.command_path} --help" if error.ctx and not message.endswith("?") else ""
        return complain(UsageError(message, more), as_json)
    except click.ClickException as error:
        return complain(RainbandError(error.format_message().rstrip(".")), as_json)
    except Exception as error:
        return complain(error, as_json, with_traceback=verbose)
