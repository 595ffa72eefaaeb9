"""`rainband keygen`: the key file that lets a cluster use addresses beyond loopback."""

from __future__ import annotations

from pathlib import Path

import click

from rainband.cli import options
from rainband.cli.output import answer, say
from rainband.errors import UsageError


@click.command("keygen")
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path))
@options.json_option
@options.verbose_option
def keygen_command(directory: Path, as_json: bool, verbose: bool) -> None:
    """Write a new cluster key into DIRECTORY (made if need be), readable by you alone.

    Give a copy of the directory to every machine of the cluster and to those who submit, and name it in keys.dir.
    """
    from rainband.messaging.keys import KEY_FILE, Keys

    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot make {directory}: {error.strerror}") from None
    path = directory / KEY_FILE
    Keys.generate().save(path)
    if as_json:
        answer({"key_file": str(path)})
    else:
        say(f"{path}\nStart everything with RAINBAND_KEYS_DIR={directory}, or -c keys.dir={directory}")
