"""Bundles at a place that all Nimbuses reach: a bucket or a network share, by fsspec.

Called on a thread that may wait: what is behind the URL can be slow, or away.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

from rainband.cluster.blobs import DIGEST, check_digest
from rainband.errors import StoreError, UsageError

PART = ".part"


class Depot:
    """Whole blobs by digest below `url`. Raises UsageError for a URL that fsspec cannot make anything of.

    A blob is written under another name and moved: it either is not there, or is the whole blob.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        try:
            from fsspec.core import url_to_fs
        except ImportError:
            raise UsageError("nimbus.bundles.url needs fsspec", "pip install 'rainband[bundles]'") from None
        try:
            self._files, self._root = url_to_fs(url)
        except Exception as error:  # unknown scheme, a driver that is not installed, credentials
            raise UsageError(f"nimbus.bundles.url: {url}: {error}", "See fsspec's documentation") from None

    def put(self, digest: str, data: bytes) -> None:
        """Raises StoreError."""
        with self._trouble(f"cannot take bundle {digest[:12]}"):
            path = self._path(digest)
            if not self._files.exists(path):
                self._files.makedirs(self._root, exist_ok=True)
                self._files.pipe_file(path + PART, data)
                self._files.mv(path + PART, path)

    def get(self, digest: str) -> bytes:
        """The whole blob, checked. Raises StoreError, also when it is not there."""
        with self._trouble(f"does not give bundle {digest[:12]}"):
            data: bytes = self._files.cat_file(self._path(digest))
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"{self.url}: its bundle {digest[:12]} is corrupt")
        return data

    def digests(self) -> set[str]:
        """All that are there. Raises StoreError."""
        with self._trouble("cannot be listed"):
            self._files.invalidate_cache()
            if not self._files.exists(self._root):
                return set()
            names: list[Any] = self._files.ls(self._root, detail=False)
        found = (str(name).rstrip("/").rpartition("/")[2] for name in names)
        return {name for name in found if DIGEST.match(name)}

    def delete(self, digest: str) -> None:
        """Fine when it is not there. Raises StoreError."""
        with self._trouble(f"cannot delete bundle {digest[:12]}"), contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(digest))

    def _path(self, digest: str) -> str:
        return f"{self._root}/{check_digest(digest)}"

    @contextlib.contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        try:
            yield
        except StoreError:
            raise
        except Exception as error:  # each driver has errors of its own
            raise StoreError(f"{self.url} {what}: {type(error).__name__}: {error}"[:500]) from error
