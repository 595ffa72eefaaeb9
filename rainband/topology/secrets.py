"""Where `TopologyContext.secret` finds what it hands out, on the machine of the task and at the moment it is asked.

Secrets never travel: they are in no plan, bundle, setting, log or state, and nothing here shows a value.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from rainband.config import expanded
from rainband.errors import NotAllowed, UsageError, did_you_mean

ENV_PREFIX = "RAINBAND_SECRET_"
BYTES_MAX = 1 << 20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
NAMES = "Use 1 to 100 letters, digits, '_', '-' and '.', the first a letter or digit"


class Secrets:
    """Looks a secret up by name: in `given`, then as a file of `directory`, then as RAINBAND_SECRET_NAME in `env`."""

    def __init__(
        self,
        given: Mapping[str, str] | None = None,
        directory: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Raises UsageError for a name that cannot be one or a value that is no str; the value is not shown."""
        self._given = dict(given or {})
        self._directory = directory
        self._env = env or {}
        for name, value in self._given.items():
            check_name(name)
            if not isinstance(value, str):
                raise UsageError(f"the secret {name!r} is of type {type(value).__name__}", "Give a str")

    @staticmethod
    def here(given: Mapping[str, str] | Path | str | None) -> Secrets:
        """Those given, or those in the directory given, and RAINBAND_SECRET_* of this process. Raises as above."""
        if given is None or isinstance(given, Mapping):
            return Secrets(given, env=os.environ)
        return Secrets(directory=check_directory(Path(given)), env=os.environ)

    def stored(self, directory: Path) -> Path:
        """The directory these lie in; those that were given by name are written to `directory`, mode 0700, first."""
        if self._directory is not None:
            return self._directory
        directory.mkdir(mode=0o700)
        for name, value in self._given.items():
            descriptor = os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(value.encode() + b"\n")
        return directory

    def find(self, name: str) -> str:
        """Raises UsageError when there is none, NotAllowed when its file is open to other users."""
        check_name(name)
        if name in self._given:
            return self._given[name]
        value = None if self._directory is None else read_file(self._directory / name)
        if value is None:
            value = self._env.get(variable(name))
        if value is None:
            raise UsageError(f"no secret named {name!r}", did_you_mean(name, self._given) or self._fix(name))
        return value

    def _fix(self, name: str) -> str:
        place = f"{self._directory}/{name}" if self._directory is not None else "a file of that name in --secrets DIR"
        return f"Give it as {variable(name)} or {place} to the supervisor, or as secrets={{...}} to a LocalCluster"

    def __repr__(self) -> str:
        return f"Secrets({sorted(self._given)}, {self._directory})"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("secrets do not travel")


def check_name(name: object) -> None:
    """Raises UsageError for what cannot name a secret."""
    if not isinstance(name, str) or NAME.fullmatch(name) is None:
        raise UsageError(f"{name!r:.80} cannot name a secret", NAMES)


def variable(name: str) -> str:
    """The environment variable of a secret: 'db.password' -> 'RAINBAND_SECRET_DB_PASSWORD'."""
    return ENV_PREFIX + re.sub(r"[.-]", "_", name).upper()


def read_file(path: Path) -> str | None:
    """The text in the file without its last line end; None when there is no file. Raises NotAllowed, UsageError."""
    try:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            data = file.read(BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UsageError(f"cannot read the secret {path}: {error.strerror}", "It must be a file of mode 0600") from None
    if not stat.S_ISREG(found.st_mode) or is_open(found):
        raise NotAllowed(f"the secret {path} is open to other users", f"Run: chmod 600 {path}")
    if len(data) > BYTES_MAX:
        raise UsageError(f"the secret {path} has more than {BYTES_MAX:,} bytes")
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(f"the secret {path} is not UTF-8 text") from None


def check_directory(directory: Path) -> Path:
    """The directory, absolute, for a supervisor to name to its workers. Raises UsageError, NotAllowed."""
    path = expanded(str(directory)).absolute()
    try:
        found = path.stat()
    except OSError as error:
        raise UsageError(f"the directory of secrets {path} cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is no directory of secrets")
    if is_open(found):
        raise NotAllowed(f"the directory of secrets {path} is open to other users", f"Run: chmod 700 {path}")
    return path


def is_open(found: os.stat_result) -> bool:
    """Whether others than its owner, who must be this user or root, may touch it."""
    return found.st_uid not in (os.getuid(), 0) or bool(found.st_mode & 0o077)
