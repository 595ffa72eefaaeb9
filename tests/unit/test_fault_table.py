"""docs/faults.md and the tests of tests/faults agree: each fault has its row, each numbered test is in one."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAULTS = ROOT / "tests" / "faults"
ROW = re.compile(r"^\| (?P<names>[FA]\d+(?:, [FA]\d+)*) \|(?P<rest>.*)\|$", re.MULTILINE)
TEST = re.compile(r"`(test_\w+\.py)::(test_\w+)`")
NUMBERED = re.compile(r"test((?:_[fa]\d\d)+)_")
IN_ONE_PROCESS = "test_lifecycle.py"
WITHOUT = {30, 31, 53, 54}  # no checkpoints and no DRPC yet; a power cut is simulated
FAULTS_TOTAL = 57
ON_PROCESSES_MIN = 50


def rows() -> dict[str, set[tuple[str, str]]]:
    """Tests by fault or attack, as the page has them."""
    found: dict[str, set[tuple[str, str]]] = {}
    for row in ROW.finditer((ROOT / "docs" / "faults.md").read_text()):
        for name in row["names"].split(", "):
            assert name not in found, f"{name} has two rows"
            found[name] = set(TEST.findall(row["rest"]))
    return found


def written_tests() -> dict[str, set[tuple[str, str]]]:
    """Tests by fault or attack, as their names say."""
    found: dict[str, set[tuple[str, str]]] = {}
    for path in sorted(FAULTS.glob("test_*.py")):
        for node in ast.parse(path.read_text()).body:
            match = NUMBERED.match(node.name) if isinstance(node, ast.FunctionDef) else None
            for number in re.findall(r"[fa]\d\d", match[1] if match is not None else ""):
                assert isinstance(node, ast.FunctionDef)
                found.setdefault(f"{number[0].upper()}{int(number[1:])}", set()).add((path.name, node.name))
    return found


def test_every_fault_has_a_row_and_every_numbered_test_is_in_its_row() -> None:
    table, written = rows(), written_tests()
    assert {name for name in table if name[0] == "F"} == {f"F{number}" for number in range(1, FAULTS_TOTAL + 1)}
    for name in sorted(table.keys() | written.keys()):
        own = {(path, test) for path, test in table.get(name, set()) if name_in(name, test)}
        assert own == written.get(name, set()), name
        assert table.get(name, set()) <= set().union(*written.values()), name


def name_in(name: str, test: str) -> bool:
    return f"_{name[0].lower()}{int(name[1:]):02d}_" in test


def test_most_faults_are_done_to_real_processes() -> None:
    table = rows()
    without = {int(name[1:]) for name, found in table.items() if name[0] == "F" and not found}
    assert without == WITHOUT
    real = [name for name, found in table.items() if name[0] == "F" and {path for path, _ in found} - {IN_ONE_PROCESS}]
    assert len(real) >= ON_PROCESSES_MIN, len(real)
