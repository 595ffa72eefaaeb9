"""The public names, and that having them costs nothing until they are used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import rainband

SOURCE = Path(rainband.__file__).with_name("__init__.py")


def test_the_three_lists_of_names_agree() -> None:
    tree = ast.parse(SOURCE.read_text())
    typed = {
        (node.module, alias.name)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert typed == {(home, name) for name, home in rainband._HOME_OF.items()}
    assert {name for _, name in typed} | {"__version__"} == set(rainband.__all__)
    assert sorted(rainband.__all__) == rainband.__all__


@pytest.mark.parametrize("name", rainband.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(rainband, name) is not None
    assert name in dir(rainband)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        rainband.Nothing  # noqa: B018


def test_importing_rainband_imports_nothing_else() -> None:
    code = "import sys, rainband; print([m for m in sys.modules if m.startswith(('rainband.', 'zmq', 'msgspec'))])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "['rainband.build']\n"
