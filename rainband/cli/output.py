"""What the command line prints: answers on stdout, one clear line per error on stderr, tables for people."""

from __future__ import annotations

import contextlib
import json
import sys
import traceback
from collections.abc import Sequence

from rainband.errors import InvalidTopology, RainbandError


def answer(document: object) -> None:
    """One JSON document on one line of stdout. NaN and the infinities, which JSON has not, are null."""
    try:
        text = json.dumps(document, default=_plain, allow_nan=False)
    except ValueError:
        text = json.dumps(json.loads(json.dumps(document, default=_plain), parse_constant=lambda _: None))
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def say(text: str) -> None:
    """Lines for people on stdout."""
    sys.stdout.write(shown(text) + "\n")
    sys.stdout.flush()


def note(text: str) -> None:
    """Lines for people on stderr: progress, warnings, what to do next while stdout carries an answer.

    That nobody can read it changes nothing of what is done.
    """
    with contextlib.suppress(OSError):
        sys.stderr.write(shown(text) + "\n")
        sys.stderr.flush()


def shown(text: str) -> str:
    """The text with \\x1b and the like for what would command a terminal; newlines and tabs are kept.

    Errors, logs and names come from user code and from data: none may move the cursor, set a title or turn the text.
    """
    return text.translate(ESCAPES)


def one_line(text: str) -> str:
    """The text with a blank for each stretch of white space."""
    return " ".join(text.split())


COMMANDING = [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
HALVES = range(0xD800, 0xE000)  # of surrogates: what is no Unicode cannot be written at all
ESCAPES = {code: repr(chr(code))[1:-1] for code in [*COMMANDING, *HALVES] if chr(code) not in "\n\t"}


def complain(error: BaseException, as_json: bool, with_traceback: bool = False) -> int:
    """Print an error in one line (or as {code, message, fix}); returns the exit code."""
    if with_traceback:
        note("".join(traceback.format_exception(error)).rstrip())
    code, message, fix, exit_code = _describe(error)
    if as_json:
        note(json.dumps({"code": code, "message": message, "fix": fix}))
    elif isinstance(error, InvalidTopology):
        for problem in error.problems:
            note(f"error: {one_line(problem)}")
        if fix:
            note(f"error: {one_line(fix)}")
    else:
        note(f"error: {one_line(f'{message}. {fix}' if fix else message)}")
    return exit_code


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Columns padded to their widest cell; numbers to the right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(name), *(len(row[i]) for row in cells)) if cells else len(name) for i, name in enumerate(header)]
    right = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]

    def line(values: Sequence[str]) -> str:
        padded = [v.rjust(w) if r else v.ljust(w) for v, w, r in zip(values, widths, right, strict=True)]
        return "  ".join(padded).rstrip()

    return "\n".join([line([name.upper() for name in header]), *map(line, cells)])


def duration(seconds: float) -> str:
    """12.3s, 4m05s, 3h07m, 2d04h."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    days, hours_left = divmod(hours, 24)
    if days:
        return f"{days}d{hours_left:02d}h"
    return f"{hours}h{minutes_left:02d}m" if hours else f"{minutes}m{rest:02d}s"


def _describe(error: BaseException) -> tuple[str, str, str, int]:
    if isinstance(error, RainbandError):
        return error.code, error.message, error.fix, error.exit_code
    if isinstance(error, OSError) and error.strerror:
        named = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        return "os_error", named, "", 1
    return "internal", f"{type(error).__name__}: {error}", "Run again with -v for the traceback", 1


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _plain(value: object) -> object:
    import msgspec

    return msgspec.to_builtins(value)
