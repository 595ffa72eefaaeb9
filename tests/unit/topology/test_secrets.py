"""Where a task finds its secrets, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from rainband.errors import NotAllowed, UsageError
from rainband.topology.secrets import Secrets, check_directory, variable


def write(directory: Path, name: str, data: bytes, mode: int = 0o600) -> Path:
    path = directory / name
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "secrets"
    path.mkdir(mode=0o700)
    return path


def test_given_ones_come_before_files_and_files_before_variables(directory: Path) -> None:
    env = {variable(name): "of the environment" for name in ("one", "two", "db.pass-word")}
    write(directory, "one", b"of a file\n")
    write(directory, "two", b"of a file\n")
    secrets = Secrets({"one": "given"}, directory, env)
    assert variable("db.pass-word") == "RAINBAND_SECRET_DB_PASS_WORD"
    assert [secrets.find(name) for name in ("one", "two", "db.pass-word")] == [
        "given", "of a file", "of the environment",
    ]  # fmt: skip


def test_a_file_is_read_when_it_is_asked_for(directory: Path) -> None:
    secrets = Secrets(directory=directory)
    with pytest.raises(UsageError, match="no secret named 'token'"):
        secrets.find("token")
    write(directory, "token", b"first")
    assert secrets.find("token") == "first"
    write(directory, "token", b"two\nlines \n")
    assert secrets.find("token") == "two\nlines "


def test_one_that_is_missing_says_where_it_would_be_looked_for(directory: Path) -> None:
    for secrets, said in ((Secrets(), "--secrets DIR"), (Secrets(directory=directory), f"{directory}/token")):
        with pytest.raises(UsageError) as caught:
            secrets.find("token")
        assert said in caught.value.fix
        assert "RAINBAND_SECRET_TOKEN" in caught.value.fix
        assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match="Did you mean 'password'"):
        Secrets({"password": "x"}).find("pasword")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601])
def test_a_file_that_others_can_touch_is_refused(directory: Path, mode: int) -> None:
    path = write(directory, "token", b"x", mode)
    with pytest.raises(NotAllowed, match=f"chmod 600 {path}"):
        Secrets(directory=directory).find("token")


def test_files_that_hold_no_secret(directory: Path) -> None:
    (directory / "folder").mkdir(mode=0o700)
    write(directory, "binary", b"\xff\xfe")
    write(directory, "huge", b"x" * ((1 << 20) + 1))
    for name in ("folder", "binary", "huge"):
        with pytest.raises((UsageError, NotAllowed), match=name):
            Secrets(directory=directory).find(name)


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "../x", "a b", "x" * 101, "a\n", "é"])
def test_names_that_cannot_be(directory: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name a secret"):
        Secrets(directory=directory).find(name)
    with pytest.raises(UsageError, match="cannot name a secret"):
        Secrets({name: "x"})


def test_values_are_never_shown_and_never_travel() -> None:
    secrets = Secrets({"token": "hush"})
    assert "hush" not in repr(secrets)
    with pytest.raises(TypeError, match="do not travel"):
        pickle.dumps(secrets)
    with pytest.raises(UsageError) as caught:
        Secrets({"token": b"hush"})  # type: ignore[dict-item]
    assert "hush" not in str(caught.value)


def test_the_directory_of_a_supervisor(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(directory.parent)
    assert check_directory(Path("secrets")) == directory
    with pytest.raises(UsageError, match="nowhere"):
        check_directory(Path("nowhere"))
    with pytest.raises(UsageError, match="no directory"):
        check_directory(write(directory, "file", b""))
    directory.chmod(0o755)
    with pytest.raises(NotAllowed, match="chmod 700"):
        check_directory(directory)


def test_given_ones_are_stored_for_processes(tmp_path: Path) -> None:
    stored = Secrets({"token": "line\n"}).stored(tmp_path / "made")
    assert os.stat(stored).st_mode & 0o777 == 0o700
    assert os.stat(stored / "token").st_mode & 0o777 == 0o600
    assert Secrets(directory=stored).find("token") == "line\n"
