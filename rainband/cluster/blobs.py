"""Large things by content: a blob's name is the SHA-256 of its bytes, in hexadecimal.

A blob grows in a file of its own under `incoming/`, is checked, synced and renamed, so its name either is not there
or is the whole blob. Reading checks it once more per process before the first piece is handed out.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
from pathlib import Path
from typing import Protocol

from rainband.cluster.sqlite import explain, make_private, sync_directory
from rainband.errors import NotUploaded, StoreError, UsageError

DIGEST = re.compile(r"[0-9a-f]{64}\Z")
BLOB_BYTES_MAX = 512 << 20
PIECE_BYTES_MAX = 4 << 20
INCOMING_MAX = 64


class Blobs(Protocol):
    """Blobs by digest. Pieces of an upload may be repeated, and two clients may upload the same blob at once."""

    def has(self, digest: str) -> bool:
        """Whether the whole blob is here."""

    def add_piece(self, digest: str, offset: int, data: bytes, done: bool, now: float) -> None:
        """Take one piece; the last one makes the blob visible. Raises StoreError (gap, too large, wrong digest)."""

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        """(up to `length` bytes from `offset`, size of the whole). Raises StoreError when unknown or corrupt.

        A corrupt one is not here any more: it may come again.
        """

    def digests(self) -> set[str]:
        """All whole blobs."""

    def delete(self, digest: str) -> None:
        """Forget a blob; fine when it is not there."""

    def expire(self, before: float) -> None:
        """Drop uploads whose last piece came before that monotonic time. Raises StoreError, once, for what stays."""


class MemoryBlobs:
    """`Blobs` as a dict."""

    def __init__(self) -> None:
        self._blobs: dict[str, bytes] = {}
        self._incoming: dict[str, tuple[bytearray, float]] = {}

    def has(self, digest: str) -> bool:
        return digest in self._blobs

    def add_piece(self, digest: str, offset: int, data: bytes, done: bool, now: float) -> None:
        if self.has(check_digest(digest)):
            return
        if digest not in self._incoming and len(self._incoming) >= INCOMING_MAX:
            raise too_many()
        content, _ = self._incoming.get(digest, (bytearray(), now))
        check_piece(digest, offset, data, len(content))
        content[offset : offset + len(data)] = data
        self._incoming[digest] = (content, now)
        if done:
            del self._incoming[digest]
            check_content(digest, hashlib.sha256(content).hexdigest())
            self._blobs[digest] = bytes(content)

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        check_range(offset, length)
        blob = self._blobs.get(digest)
        if blob is None:
            raise unknown(digest)
        return blob[offset : offset + length], len(blob)

    def digests(self) -> set[str]:
        return set(self._blobs)

    def delete(self, digest: str) -> None:
        self._blobs.pop(digest, None)

    def expire(self, before: float) -> None:
        self._incoming = {digest: kept for digest, kept in self._incoming.items() if kept[1] >= before}


class DirectoryBlobs:
    """`Blobs` as files (mode 0600) in `directory`. Uploads begun by an earlier process are dropped."""

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)
        self.incoming = self.directory / "incoming"
        make_private(self.directory)
        make_private(self.incoming)
        try:
            for left in self.incoming.iterdir():
                left.unlink()
        except OSError as error:
            raise UsageError(f"cannot clean {self.incoming}: {error.strerror}") from None
        self._sizes: dict[str, int] = {}
        self._last_piece: dict[str, float] = {}
        self._checked: set[str] = set()

    def has(self, digest: str) -> bool:
        return DIGEST.match(digest) is not None and (self.directory / digest).is_file()

    def add_piece(self, digest: str, offset: int, data: bytes, done: bool, now: float) -> None:
        if self.has(check_digest(digest)):
            return
        if digest not in self._sizes and len(self._sizes) >= INCOMING_MAX:
            raise too_many()
        size = self._sizes.get(digest, 0)
        check_piece(digest, offset, data, size)
        try:
            self._append(digest, offset, data)
            self._sizes[digest] = max(size, offset + len(data))
            self._last_piece[digest] = now
            if done:
                self._finish(digest)
        except OSError as error:
            with contextlib.suppress(OSError):
                self._drop(digest)
            need = f"blob {digest[:12]} needs {offset + len(data)} bytes in {self.directory}"
            raise StoreError(f"{need}: {error.strerror}", explain(error, self.directory)) from error

    def read(self, digest: str, offset: int, length: int) -> tuple[bytes, int]:
        check_range(offset, length)
        if not self.has(digest):
            raise unknown(digest)
        try:
            with open(self.directory / digest, "rb") as file:
                if digest not in self._checked:
                    found = hashlib.file_digest(file, "sha256").hexdigest()
                    if found != digest:
                        (self.directory / digest).unlink(missing_ok=True)
                        raise StoreError(
                            f"blob {digest} is corrupt: its content has the digest {found}",
                            "Submit the topology again from its source",
                        )
                    self._checked.add(digest)
                size = os.fstat(file.fileno()).st_size
                return os.pread(file.fileno(), length, offset), size
        except OSError as error:
            raise StoreError(f"blob {digest}: {error.strerror}", explain(error, self.directory)) from error

    def digests(self) -> set[str]:
        try:
            return {name for name in os.listdir(self.directory) if DIGEST.match(name)}
        except OSError as error:
            raise self._trouble(error) from error

    def delete(self, digest: str) -> None:
        try:
            (self.directory / check_digest(digest)).unlink(missing_ok=True)
        except OSError as error:
            raise self._trouble(error) from error
        self._checked.discard(digest)

    def expire(self, before: float) -> None:
        trouble: OSError | None = None
        for digest in [digest for digest, last in self._last_piece.items() if last < before]:
            try:
                self._drop(digest)
            except OSError as error:
                trouble = error
        if trouble is not None:
            raise self._trouble(trouble)

    def _trouble(self, error: OSError) -> StoreError:
        return StoreError(f"{self.directory}: {error.strerror}", explain(error, self.directory))

    def _append(self, digest: str, offset: int, data: bytes) -> None:
        descriptor = os.open(
            self.incoming / digest, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with open(descriptor, "wb", closefd=True) as file:
            file.seek(offset)
            file.write(data)

    def _finish(self, digest: str) -> None:
        path = self.incoming / digest
        with open(path, "rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
        if found != digest:
            self._drop(digest)
        check_content(digest, found)
        os.rename(path, self.directory / digest)
        sync_directory(self.directory)
        self._sizes.pop(digest)
        self._last_piece.pop(digest)
        self._checked.add(digest)

    def _drop(self, digest: str) -> None:
        self._sizes.pop(digest, None)
        self._last_piece.pop(digest, None)
        (self.incoming / digest).unlink(missing_ok=True)


def check_digest(digest: str) -> str:
    if DIGEST.match(digest) is None:
        raise StoreError(f"{digest[:80]!r} is not a digest: 64 hexadecimal digits")
    return digest


def check_piece(digest: str, offset: int, data: bytes, size: int) -> None:
    """Pieces may overlap what is here, but not leave a gap."""
    if not 0 <= offset <= size:
        raise NotUploaded(f"blob {digest[:12]}: a piece at {offset}, but only {size} bytes came", "Send it anew")
    if len(data) > PIECE_BYTES_MAX or offset + len(data) > BLOB_BYTES_MAX:
        raise StoreError(f"blob {digest[:12]}: larger than {BLOB_BYTES_MAX} bytes, or a piece over {PIECE_BYTES_MAX}")


def check_range(offset: int, length: int) -> None:
    if offset < 0 or not 0 <= length <= PIECE_BYTES_MAX:
        raise StoreError(f"cannot read {length} bytes from {offset}: at most {PIECE_BYTES_MAX}, from 0 on")


def check_content(digest: str, found: str) -> None:
    if found != digest:
        raise StoreError(f"blob {digest}: what came has the digest {found}", "Send it again")


def unknown(digest: str) -> StoreError:
    return StoreError(f"blob {digest[:80]} is not here")


def too_many() -> StoreError:
    return StoreError(f"{INCOMING_MAX} uploads are under way already", "Try again in a minute")
