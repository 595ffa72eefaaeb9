from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.cluster.blobs import BLOB_BYTES_MAX, INCOMING_MAX, PIECE_BYTES_MAX, Blobs, DirectoryBlobs, MemoryBlobs
from rainband.errors import StoreError

DATA = b"rainband" * 1000
DIGEST = hashlib.sha256(DATA).hexdigest()
KINDS: dict[str, Callable[[Path], Blobs]] = {"memory": lambda path: MemoryBlobs(), "directory": DirectoryBlobs}


@pytest.fixture(params=KINDS)
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Blobs:
    return KINDS[request.param](tmp_path / "blobs")


def add(blobs: Blobs, data: bytes, size: int = 1000, digest: str | None = None) -> None:
    name = digest or hashlib.sha256(data).hexdigest()
    for offset in range(0, max(len(data), 1), size):
        blobs.add_piece(name, offset, data[offset : offset + size], offset + size >= len(data), 0.0)


def test_a_blob_is_there_when_its_last_piece_is(blobs: Blobs) -> None:
    blobs.add_piece(DIGEST, 0, DATA[:5000], False, 0.0)
    assert not blobs.has(DIGEST)
    assert blobs.digests() == set()
    blobs.add_piece(DIGEST, 5000, DATA[5000:], True, 0.0)
    assert blobs.has(DIGEST)
    assert blobs.digests() == {DIGEST}
    assert blobs.read(DIGEST, 0, len(DATA)) == (DATA, len(DATA))
    assert blobs.read(DIGEST, 7990, 100) == (DATA[7990:], len(DATA))
    assert blobs.read(DIGEST, 0, 0) == (b"", len(DATA))
    assert blobs.read(DIGEST, 9000, 10) == (b"", len(DATA))


def test_pieces_may_be_repeated_and_two_may_upload_at_once(blobs: Blobs) -> None:
    for offset in (0, 0, 3000, 0, 3000, 6000):
        blobs.add_piece(DIGEST, offset, DATA[offset : offset + 3000], False, 0.0)
    blobs.add_piece(DIGEST, 6000, DATA[6000:], True, 0.0)
    add(blobs, DATA)
    assert blobs.read(DIGEST, 0, len(DATA))[0] == DATA


def test_wrong_content_is_thrown_away_and_may_come_again(blobs: Blobs) -> None:
    with pytest.raises(StoreError, match="what came has the digest"):
        add(blobs, b"something else", digest=DIGEST)
    assert not blobs.has(DIGEST)
    add(blobs, DATA)
    assert blobs.has(DIGEST)


NOT_DIGESTS = ["", "../../etc/passwd", DIGEST.upper(), DIGEST + "\n", "x" * 64, "incoming", DIGEST[:63]]


@pytest.mark.parametrize("digest", NOT_DIGESTS)
def test_only_digests_are_names(blobs: Blobs, digest: str) -> None:
    with pytest.raises(StoreError, match="not a digest"):
        blobs.add_piece(digest, 0, b"", True, 0.0)
    with pytest.raises(StoreError, match="is not here"):
        blobs.read(digest, 0, 1)
    assert not blobs.has(digest)


def test_a_gap_or_too_much_is_refused(blobs: Blobs) -> None:
    with pytest.raises(StoreError, match="only 0 bytes came"):
        blobs.add_piece(DIGEST, 1, b"x", False, 0.0)
    with pytest.raises(StoreError, match="only 0 bytes came"):
        blobs.add_piece(DIGEST, -1, b"x", False, 0.0)
    with pytest.raises(StoreError, match="a piece over"):
        blobs.add_piece(DIGEST, 0, b"x" * (PIECE_BYTES_MAX + 1), False, 0.0)
    with pytest.raises(StoreError, match="at most"):
        blobs.read(DIGEST, 0, BLOB_BYTES_MAX)


def test_unfinished_uploads_are_few_and_expire(blobs: Blobs) -> None:
    for number in range(INCOMING_MAX):
        blobs.add_piece(f"{number:064x}", 0, b"x", False, float(number))
    with pytest.raises(StoreError, match="under way already"):
        blobs.add_piece(DIGEST, 0, b"x", False, 0.0)
    blobs.expire(INCOMING_MAX / 2)
    add(blobs, DATA)
    assert blobs.has(DIGEST)


def test_deleting_is_idempotent(blobs: Blobs) -> None:
    add(blobs, DATA)
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)
    assert not blobs.has(DIGEST)


def test_an_empty_blob_is_one_too(blobs: Blobs) -> None:
    add(blobs, b"")
    assert blobs.read(hashlib.sha256(b"").hexdigest(), 0, 10) == (b"", 0)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_any_cutting_gives_the_same_blob(data: bytes, size: int) -> None:
    blobs = MemoryBlobs()
    add(blobs, data, size)
    assert blobs.read(hashlib.sha256(data).hexdigest(), 0, 1000)[0] == data


def test_a_flipped_bit_is_found_before_it_is_handed_out(tmp_path: Path) -> None:
    add(DirectoryBlobs(tmp_path), DATA)
    path = tmp_path / DIGEST
    path.write_bytes(b"R" + DATA[1:])
    with pytest.raises(StoreError, match=f"blob {DIGEST} is corrupt"):
        DirectoryBlobs(tmp_path).read(DIGEST, 0, 10)


def test_a_corrupt_blob_is_gone_once_it_was_found_and_may_come_again(tmp_path: Path) -> None:
    add(DirectoryBlobs(tmp_path), DATA)
    (tmp_path / DIGEST).write_bytes(b"R" + DATA[1:])
    blobs = DirectoryBlobs(tmp_path)
    with pytest.raises(StoreError, match="is corrupt"):
        blobs.read(DIGEST, 0, 0)
    assert not blobs.has(DIGEST)
    add(blobs, DATA)
    assert blobs.read(DIGEST, 0, len(DATA)) == (DATA, len(DATA))


def stuck(blobs: DirectoryBlobs, digest: str) -> Path:
    """Something at the place of a half upload that cannot be removed as a file."""
    path = blobs.incoming / digest
    path.unlink()
    path.mkdir()
    return path


def test_half_an_upload_that_cannot_be_removed_is_named_once_and_the_others_go(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    for digest in ("0" * 64, "1" * 64):
        blobs.add_piece(digest, 0, b"half", False, 0.0)
    stuck(blobs, "0" * 64)
    with pytest.raises(StoreError, match=str(tmp_path)):
        blobs.expire(1.0)
    assert [path.name for path in blobs.incoming.iterdir()] == ["0" * 64]
    blobs.expire(2.0)


def test_a_piece_that_cannot_be_written_or_removed_is_refused(tmp_path: Path) -> None:
    blobs = DirectoryBlobs(tmp_path)
    blobs.add_piece(DIGEST, 0, b"half", False, 0.0)
    stuck(blobs, DIGEST)
    with pytest.raises(StoreError, match=f"blob {DIGEST[:12]} needs"):
        blobs.add_piece(DIGEST, 4, b"more", False, 0.0)


def test_a_new_start_keeps_whole_blobs_and_drops_half_ones(tmp_path: Path) -> None:
    first = DirectoryBlobs(tmp_path)
    add(first, DATA)
    first.add_piece("0" * 64, 0, b"half", False, 0.0)
    second = DirectoryBlobs(tmp_path)
    assert second.digests() == {DIGEST}
    assert list(second.incoming.iterdir()) == []
    assert (tmp_path / DIGEST).stat().st_mode & 0o777 == 0o600
