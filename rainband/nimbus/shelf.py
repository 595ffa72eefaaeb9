"""The code bundles: taken in, handed out, and forgotten when no topology has named them for a while."""

from __future__ import annotations

from collections.abc import Set

from rainband.cluster.blobs import Blobs
from rainband.records import Done, Download, Piece, Upload

CLEAN_S = 60.0


class Unnamed:
    """Since when nobody has named which digests; they are overdue after `expiry_s` seconds."""

    def __init__(self, expiry_s: float) -> None:
        self.expiry_s = expiry_s
        self._since: dict[str, float] = {}

    def touch(self, digest: str, now: float) -> None:
        """Somebody wants it, without naming it yet."""
        if digest in self._since:
            self._since[digest] = now

    def overdue(self, there: Set[str], named: Set[str], now: float) -> list[str]:
        """Those of what is `there` that can go."""
        self._since = {digest: self._since.get(digest, now) for digest in there - named}
        return [digest for digest, since in self._since.items() if now > since + self.expiry_s]


class Shelf:
    """Blobs with an expiry of `expiry_s` seconds for what nobody names: between upload and submit, after a kill."""

    def __init__(self, blobs: Blobs, expiry_s: float, now: float) -> None:
        self._blobs = blobs
        self._expiry_s = expiry_s
        self._cleaned_at = now
        self._unnamed = Unnamed(expiry_s)

    def has(self, digest: str) -> bool:
        return self._blobs.has(digest)

    def take(self, piece: Upload, now: float) -> Done:
        """Raises StoreError, as `Blobs.add_piece` does."""
        self._blobs.add_piece(piece.digest, piece.offset, piece.data, piece.done, now)
        return Done()

    def give(self, request: Download, now: float) -> Piece:
        """Raises StoreError when it is not here. Asking for it keeps a blob that nobody names yet."""
        data, size = self._blobs.read(request.digest, request.offset, request.length)
        self._unnamed.touch(request.digest, now)
        return Piece(data, size)

    def deadline(self) -> float:
        """When `clean` has something to do next."""
        return self._cleaned_at + min(CLEAN_S, self._expiry_s)

    def clean(self, named: Set[str], now: float) -> None:
        """Forget blobs that were in nobody's plan for the expiry, and uploads that stopped."""
        if now < self.deadline():
            return
        self._cleaned_at = now
        for digest in self._unnamed.overdue(self._blobs.digests(), named, now):
            self._blobs.delete(digest)
        self._blobs.expire(now - self._expiry_s)
