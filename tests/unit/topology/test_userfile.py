"""Importing users' files: what is found in them, and what each mistake is told. Nothing stays behind a failure."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rainband.errors import InvalidTopology, RainbandError, UsageError, UserCodeFailed
from rainband.topology import userfile
from rainband.topology.bundle import load_topology

GOOD = """
from rainband import Bolt, Spout, TopologyBuilder
from helper_of_wc import WORDS
class Words(Spout):
    outputs = ("word",)
    def next_tuple(self): self.emit([WORDS[0]], message_id=1)
def build(name, *words):
    builder = TopologyBuilder(name)
    builder.set_spout("words", Words(), config={"app": {"words": list(words)}})
    return builder.create_topology()
topology = build("plain")
def listed(args): return build(*args)
def annotated(words: "list[str]"): return build(*words)
def single(name: str): return build(name)
def builder(): return TopologyBuilder("x")
def nothing(): pass
def broken(): raise ValueError("no such\\nthing")
def leaves(): raise SystemExit(4)
def invalid(): return build("../x")
number = 7
"""


OTHER = """
from helper_of_wc import topology_name
from wc_parts import build
topology = build(topology_name)
"""


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    yield
    userfile._forget()
    assert sys.path == path
    assert not [name for name in set(sys.modules) - modules if name.startswith(("wc_", "helper_of_wc"))]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "wc_file.py").write_text(GOOD)
    (tmp_path / "helper_of_wc.py").write_text("WORDS = ['a']\n")
    return tmp_path


def test_a_topology_or_a_function_of_the_arguments(project: Path) -> None:
    file = project / "wc_file.py"
    plain = load_topology(file)
    assert plain.name == "plain"
    assert plain.project == project
    for name, arguments in (("build", ["n", "a", "b"]), ("listed", ["n", "a", "b"]), ("annotated", ["n", "a", "b"])):
        made = load_topology(str(file), name, arguments)
        assert made.name == "n"
        assert made.plan.components["words"].config == {"app": {"words": ["a", "b"]}}
    assert load_topology(file, "single", ["n"]).name == "n"


def test_components_are_pickled_by_reference(project: Path) -> None:
    made = load_topology(project / "wc_file.py")
    assert made.plan.components["words"].type_name == "wc_file:Words"
    (data,) = made.pickles.values()
    assert len(data) < 100
    assert type(pickle.loads(data)).__module__ == "wc_file"


def test_files_of_one_name_in_two_projects_each_get_their_own_helpers(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "wc_file.py").write_text(OTHER)
    (other / "helper_of_wc.py").write_text("topology_name = 'other'\n")
    (other / "wc_parts.py").write_text(GOOD.replace("from helper_of_wc import WORDS", "WORDS = ['b']"))
    assert load_topology(project / "wc_file.py").name == "plain"
    assert load_topology(other / "wc_file.py").name == "other"
    assert load_topology(project / "wc_file.py").name == "plain"


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("topolgy", [], "has no 'topolgy'. Did you mean 'topology'?"),
        ("zzz", [], "wc_file.py:topology"),
        ("topology", ["a"], "'topology' in {file} is not a function, and takes no arguments"),
        ("number", [], "'number' in {file} is no topology but 7"),
        ("Words", [], "is no topology but <class"),
        ("builder", [], "'builder()' in {file} is a TopologyBuilder. Call its create_topology()"),
        ("nothing", [], "'nothing()' in {file} is no topology but None"),
        ("single", ["a", "b"], "single(name: str) in {file} cannot take 2 arguments"),
        ("broken", [], "broken() in {file} failed: {file}:17: ValueError: no such thing"),
        ("leaves", [], "{file}:18 ends the program (4)"),
    ],
)
def test_what_is_wrong_with_the_name(project: Path, name: str, arguments: list[str], message: str) -> None:
    file = project / "wc_file.py"
    with pytest.raises(RainbandError) as caught:
        load_topology(file, name, arguments)
    assert type(caught.value) is (UserCodeFailed if name in ("broken", "leaves") else UsageError)
    assert message.format(file=file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_invalid_topology_keeps_its_problems(project: Path) -> None:
    with pytest.raises(InvalidTopology) as caught:
        load_topology(project / "wc_file.py", "invalid")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("wc_bad.py", "x = 1\ny = (\n", "wc_bad.py:2: SyntaxError: '(' was never closed"),
        ("wc_bad.py", "\nimport nothing_of_that_name\n", "wc_bad.py:2: ModuleNotFoundError: No module named"),
        ("wc_bad.py", "\n\n1 / 0\n", "wc_bad.py:3: ZeroDivisionError: division by zero"),
        ("wc_bad.py", "import sys\nsys.exit('bye')\n", "wc_bad.py:2 ends the program (bye)"),
        ("wc_bad.py", "import wc_bad_helper\n", "wc_bad_helper.py:1: NameError"),
        ("wc_bad.py", "\0", "wc_bad.py"),
        ("json.py", "", "would be imported as 'json', a name that is taken. Rename the file"),
        ("rainband.py", "", "a name that is taken"),
        ("__init__.py", "", "a name that is taken"),
        ("a.b.py", "", "a name that is taken"),
        ("pytest.py", "", "would be imported as 'pytest', which is"),
        ("wc_bad.txt", "", "is no .py file"),
        ("wc_bad", "", "is no .py file"),
        ("wc_bad.py", "from colorsys import mine\n", "Rename colorsys.py: the standard library has a module"),
        ("wc_bad.py", "import string\nstring.mine\n", "Rename string.py: the standard library has"),
        ("wc_empty.py", "", "has no 'topology'. Define topology = builder.create_topology()"),
    ],
)
def test_what_is_wrong_with_the_file(tmp_path: Path, name: str, content: str, message: str) -> None:
    (tmp_path / "wc_bad_helper.py").write_text("oops\n")
    for taken in ("colorsys.py", "string.py"):
        (tmp_path / taken).write_text("mine = 1\n")
    (tmp_path / name).write_text(content)
    with pytest.raises(RainbandError) as caught:
        load_topology(tmp_path / name)
    assert type(caught.value) is UsageError
    assert caught.value.exit_code == 2
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_takes_the_place_of_a_module_of_the_standard_library(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "stringprep", raising=False)
    (project / "stringprep.py").write_text("")
    (project / "wc_first.py").write_text("import wc_parts\n" + GOOD)
    (project / "wc_parts.py").write_text("import stringprep\nstringprep.in_table_a1\n")
    assert load_topology(project / "wc_first.py").name == "plain"
    assert sys.path[0] == str(project)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        load_topology(tmp_path / "none.py")
    with pytest.raises(UsageError, match="is a directory"):
        load_topology(tmp_path)
