"""What the documentation shows is true: its programs run, its command lines parse, its settings and links exist."""

from __future__ import annotations

import os
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import click
import pytest

from rainband.cli.main import rainband as commands
from rainband.config import OPTIONS, read_file, validated

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`(rainband [^`\n]+)`")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)")
SETTING = re.compile(r"`((?:topology|nimbus|supervisor|worker|state|keys)\.[a-z.]+)[`=\s]")
NO_SETTINGS = {"state.db", "supervisor.json", "nimbus.log"}
PLACEHOLDERS = {"COMMAND": "list"}

pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> Iterator[tuple[int, str]]:
    """Line number of the first line, and text, of each block."""
    text = page.read_text()
    for found in BLOCK.finditer(text):
        if found[1] == language:
            yield text.count("\n", 0, found.start(2)), found[2]


def command_lines(page: Path) -> list[str]:
    """Every `rainband ...` in blocks without a language, without what follows ` # `."""
    lines = [line for _, block in blocks(page, "") for line in block.splitlines()]
    parts = [part.strip() for line in lines for part in line.split(" #")[0].split(";")]
    return [part for part in parts if part.startswith("rainband ")]


def parse(arguments: list[str], group: click.Command = commands, path: str = "rainband") -> click.Command:
    """The command that would run. Raises click.UsageError or a RainbandError if the line means nothing."""
    with group.make_context(path, list(arguments), resilient_parsing=False) as context:
        if not isinstance(group, click.Group):
            return group
        rest = [*context._protected_args, *context.args]
        if not rest:
            return group
        name, command, left = group.resolve_command(context, rest)
        assert command is not None, f"no command {name}"
        return parse(left, command, f"{path} {name}")


@pytest.fixture
def module(page: Path) -> Iterator[ModuleType]:
    """A module for the blocks of a page, which classes are pickled by reference to."""
    made = ModuleType(f"documented_{page.stem.lower()}")
    made.__file__ = str(page)
    sys.modules[made.__name__] = made
    yield made
    del sys.modules[made.__name__]


@pages
def test_programs_run(page: Path, module: ModuleType) -> None:
    for line, text in blocks(page, "python"):
        exec(compile("\n" * line + text, page, "exec"), vars(module))


@pages
def test_command_lines_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {})
    mentioned = INLINE.findall(page.read_text())
    for line in [*command_lines(page), *mentioned]:
        arguments = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
        try:
            parse(arguments)
        except Exception as error:
            shown_help = isinstance(error, click.exceptions.Exit) and error.exit_code == 0
            only_mentioned = isinstance(error, click.MissingParameter) and line in mentioned
            if not (shown_help or only_mentioned):
                raise AssertionError(f"{page.name}: {line}") from error


@pages
def test_settings_exist(page: Path, tmp_path: Path) -> None:
    named = set(SETTING.findall(page.read_text())) - NO_SETTINGS
    assert named <= OPTIONS.keys(), sorted(named - OPTIONS.keys())
    for _, text in blocks(page, "toml"):
        assert tomllib.loads(text)
        file = tmp_path / "settings.toml"
        file.write_text(text)
        assert validated(read_file(file))


@pages
def test_links_lead_somewhere(page: Path) -> None:
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert set(missing) <= {"docs/benchmarks.md"}


def test_every_command_is_shown() -> None:
    shown = {shlex.split(line)[1] for page in PAGES for line in command_lines(page) if " " in line}
    assert set(commands.list_commands(click.Context(commands))) <= shown
