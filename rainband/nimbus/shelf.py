"""The code bundles: taken in, handed out, and forgotten when no topology has named them for a while."""

from __future__ import annotations

from collections.abc import Set

from rainband.cluster.blobs import Blobs
from rainband.records import Done, Download, Piece, Upload

CLEAN_S = 60.0


class Shelf:
    """Blobs with an expiry of `expiry_s` seconds for what nobody names: between upload and submit, after a kill."""

    def __init__(self, blobs: Blobs, expiry_s: float, now: float) -> None:
        self._blobs = blobs
        self._expiry_s = expiry_s
        self._cleaned_at = now
        self._unnamed: dict[str, float] = {}

    def has(self, digest: str) -> bool:
        return self._blobs.has(digest)

    def take(self, piece: Upload, now: float) -> Done:
        """Raises StoreError, as `Blobs.add_piece` does."""
        self._blobs.add_piece(piece.digest, piece.offset, piece.data, piece.done, now)
        return Done()

    def give(self, request: Download, now: float) -> Piece:
        """Raises StoreError when it is not here. Asking for it keeps a blob that nobody names yet."""
        data, size = self._blobs.read(request.digest, request.offset, request.length)
        if request.digest in self._unnamed:
            self._unnamed[request.digest] = now
        return Piece(data, size)

    def deadline(self) -> float:
        """When `clean` has something to do next."""
        return self._cleaned_at + min(CLEAN_S, self._expiry_s)

    def clean(self, named: Set[str], now: float) -> None:
        """Forget blobs that were in nobody's plan for the expiry, and uploads that stopped."""
        if now < self.deadline():
            return
        self._cleaned_at = now
        self._unnamed = {digest: self._unnamed.get(digest, now) for digest in self._blobs.digests() - named}
        for digest, since in self._unnamed.items():
            if now > since + self._expiry_s:
                self._blobs.delete(digest)
        self._blobs.expire(now - self._expiry_s)
