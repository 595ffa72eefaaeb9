"""Bundles behind a URL: whole or not there, checked, and any trouble told in one line."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from rainband.cluster.depot import Depot
from rainband.errors import StoreError, UsageError

DATA = b"PK" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["file", "memory"])
def depot(request: pytest.FixtureRequest, tmp_path: Path) -> Depot:
    path = tmp_path / "shared" / "bundles"
    return Depot(path.as_uri() if request.param == "file" else f"memory://{path}")


def test_what_was_put_is_there_until_it_is_deleted(depot: Depot) -> None:
    assert depot.digests() == set()
    depot.put(DIGEST, DATA)
    depot.put(DIGEST, DATA)
    assert depot.get(DIGEST) == DATA
    assert depot.digests() == {DIGEST}
    depot.delete(DIGEST)
    depot.delete(DIGEST)
    assert depot.digests() == set()
    with pytest.raises(StoreError, match=f"does not give bundle {DIGEST[:12]}: FileNotFoundError"):
        depot.get(DIGEST)


def test_another_one_sees_it(tmp_path: Path) -> None:
    one, other = Depot(tmp_path.as_uri()), Depot(tmp_path.as_uri())
    assert other.digests() == set()
    one.put(DIGEST, DATA)
    assert other.digests() == {DIGEST}


def test_what_is_half_written_or_corrupt_is_no_bundle(tmp_path: Path) -> None:
    depot = Depot(tmp_path.as_uri())
    (tmp_path / f"{DIGEST}.part").write_bytes(DATA[:10])
    assert depot.digests() == set()
    (tmp_path / DIGEST).write_bytes(DATA[:10])
    with pytest.raises(StoreError, match=f"its bundle {DIGEST[:12]} is corrupt"):
        depot.get(DIGEST)


def test_trouble_is_one_line_with_the_url(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    depot = Depot((tmp_path / "taken").as_uri())
    with pytest.raises(StoreError, match=f"file://.*taken cannot take bundle {DIGEST[:12]}: "):
        depot.put(DIGEST, DATA)


def test_a_url_of_no_known_kind_is_refused() -> None:
    with pytest.raises(UsageError, match=r"nimbus\.bundles\.url: nothing://x: Protocol not known"):
        Depot("nothing://x")
