"""Key files: made 0600, refused when others can read them; exposure without keys is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rainband.errors import NotAllowed, UsageError
from rainband.messaging.keys import Keys, key_file
from rainband.messaging.sockets import check_exposure, is_loopback, split_address


def test_a_key_file_comes_back_as_it_was(tmp_path: Path) -> None:
    keys = Keys.generate()
    path = tmp_path / "cluster.key"
    mask = os.umask(0)
    try:
        keys.save(path)
    finally:
        os.umask(mask)
    assert path.stat().st_mode & 0o777 == 0o600
    loaded = Keys.load(path)
    assert (loaded.public, loaded.secret) == (keys.public, keys.secret)
    assert Keys.from_secret(keys.secret.decode()).public == keys.public


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "cluster.key"
    path.write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        Keys.generate().save(path)
    assert path.read_text() == "mine"
    with pytest.raises(UsageError, match="cannot write"):
        Keys.generate().save(tmp_path / "missing" / "cluster.key")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666, 0o700 | 0o010])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "cluster.key"
    Keys.generate().save(path)
    path.chmod(mode)
    with pytest.raises(NotAllowed, match="open to other users"):
        Keys.load(path)


def test_what_is_no_key_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match="cannot read"):
        Keys.load(tmp_path / "missing")
    path = tmp_path / "cluster.key"
    keys = Keys.generate()
    other = Keys.generate()
    for text in (b"", b"hello there\n", b"public " + keys.public + b"\nsecret " + other.secret + b"\n", b"\xff" * 3000):
        path.write_bytes(text)
        path.chmod(0o600)
        with pytest.raises(NotAllowed):
            Keys.load(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(NotAllowed):
        Keys.load(link)
    for wrong in ("", "x", "é" * 40, "~" * 40):
        with pytest.raises(NotAllowed):
            Keys.from_secret(wrong)
        with pytest.raises(NotAllowed):
            Keys(keys.public, wrong)


def test_the_secret_is_not_shown() -> None:
    keys = Keys.generate()
    assert keys.secret.decode() not in repr(keys)
    assert keys.public.decode() in repr(keys)


@pytest.mark.parametrize(("host", "expected"), [
    ("127.0.0.1", True), ("127.3.2.1", True), ("localhost", True), ("::1", True), ("[::1]", True),
    ("0.0.0.0", False), ("10.0.0.1", False), ("::", False), ("example.org", False), ("", False),
])
def test_only_loopback_is_safe_without_keys(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
    check_exposure(host, Keys.generate(), insecure=False)
    check_exposure(host, None, insecure=True)
    if expected:
        check_exposure(host, None, insecure=False)
    else:
        with pytest.raises(NotAllowed, match="there are no keys"):
            check_exposure(host, None, insecure=False)


def test_addresses() -> None:
    assert split_address("127.0.0.1:6627") == ("127.0.0.1", 6627)
    assert split_address("[::1]:1") == ("::1", 1)
    for wrong in ("", "host", "host:", ":1", "host:0", "host:65536", "host:-1", "host:١"):
        with pytest.raises(UsageError, match="is not an address"):
            split_address(wrong)


def test_the_key_file_is_found_from_any_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert key_file("keys") == tmp_path / "keys" / "cluster.key"
    assert key_file(None) is None
