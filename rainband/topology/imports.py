"""A user's directory on the import path: before all that is installed, and never in place of the standard library.

A `select.py` of theirs would otherwise be what the runtime, or a package of it, gets for the `select` it imports later.
"""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
    SourcelessFileLoader,
)
from types import ModuleType

LOADERS = (
    (ExtensionFileLoader, EXTENSION_SUFFIXES),
    (SourceFileLoader, SOURCE_SUFFIXES),
    (SourcelessFileLoader, BYTECODE_SUFFIXES),
)


class OwnModules(FileFinder):
    """Finds the modules of a directory, but for those whose names the standard library has."""

    def find_spec(self, fullname: str, target: ModuleType | None = None) -> ModuleSpec | None:
        return None if fullname in sys.stdlib_module_names else super().find_spec(fullname, target)


def enter(directory: str) -> None:
    """Put `directory` first on the path."""
    sys.path.insert(0, directory)
    sys.path_importer_cache[directory] = OwnModules(directory, *LOADERS)
    importlib.invalidate_caches()


def leave(directory: str) -> None:
    """Undo `enter`."""
    if directory in sys.path:
        sys.path.remove(directory)
    sys.path_importer_cache.pop(directory, None)
