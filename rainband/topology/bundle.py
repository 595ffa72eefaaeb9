"""The code that goes with a plan: packed by clients, opened by supervisors, unpickled by workers alone.

A bundle is a zip of `code/` (the files of the project) and `components/<sha256>.pkl` (components and custom groupings).
The same files give the same bytes. Opening one trusts nothing: every entry is checked before the first is written, into
a fresh private directory that takes its final name only when complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
import shutil
import stat
import struct
import sys
import sysconfig
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from rainband.errors import InvalidTopology, Refused, UsageError
from rainband.topology.plan import ComponentPlan, Plan

if TYPE_CHECKING:
    from rainband.topology.graph import Topology

CODE = "code"
COMPONENTS = "components"
BYTES_MAX = 512 << 20
ENTRIES_MAX = 20_000
RATIO_MAX = 100
NAME_LENGTH_MAX = 1024
EPOCH = (1980, 1, 1, 0, 0, 0)
SKIPPED = frozenset({"__pycache__", "node_modules", "venv", "env"})
SKIPPED_SUFFIXES = (".pyc", ".pyo", ".egg-info")
END = struct.Struct("<4s4H2IH")
MALFORMED = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, NotImplementedError, RuntimeError)
PICKLE_NAME = re.compile(r"components/[0-9a-f]{64}\.pkl", re.ASCII)


def pack(topology: Topology, project: Path | None = None) -> tuple[Plan, bytes]:
    """The plan that names the bundle, and the bundle. Raises UsageError, InvalidTopology as `build_bundle` does."""
    data = build_bundle(topology, project)
    return msgspec.structs.replace(topology.plan, bundle=hashlib.sha256(data).hexdigest()), data


def build_bundle(topology: Topology, project: Path | None = None) -> bytes:
    """The bundle of a topology with the code in `project`, by default where its components' modules came from.

    Left out: hidden files, caches, virtual environments, rainband itself. Raises UsageError when the code is too large
    or cannot be read.
    """
    root = project if project is not None else project_of(topology)
    entries: dict[str, bytes | Path] = {f"{COMPONENTS}/{d}.pkl": data for d, data in topology.pickles.items()}
    if root is not None:
        _check_reach(topology, root)
        entries |= {f"{CODE}/{name}": path for name, path in project_files(root)}
    buffer = io.BytesIO()
    total = 0
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in sorted(entries):
            content = entries[name]
            data = content if isinstance(content, bytes) else _read(content)
            total += len(data)
            if total > BYTES_MAX:
                raise _too_large(root, f"more than {BYTES_MAX >> 20} MiB")
            _add(archive, name, data)
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    entry = zipfile.ZipInfo(name, EPOCH)
    entry.create_system = 3
    entry.external_attr = (stat.S_IFREG | 0o600) << 16
    packed = len(zlib.compress(data, 6))
    small = packed * RATIO_MAX < len(data) * 2  # stored whole, so that it cannot be taken for a bomb
    entry.compress_type = zipfile.ZIP_STORED if small or packed >= len(data) else zipfile.ZIP_DEFLATED
    archive.writestr(entry, data, compresslevel=6)


def project_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Names, relative and with '/', and paths of the files that belong to a project.

    Raises UsageError, or Refused for a directory that cannot be read.
    """
    if not root.is_dir():
        raise UsageError(f"no directory {root} to take the code from")
    try:
        yield from _walked(root)
    except OSError as error:
        fix = "Give this user the right to read it, or move it out of the project"
        raise Refused(f"cannot read {error.filename}, which would go to the cluster: {error.strerror}", fix) from None


def _walked(root: Path) -> Iterator[tuple[str, Path]]:
    def fail(error: OSError) -> None:
        raise error

    count = 0
    seen: set[str] = set()
    for here, directories, files in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(here)
        if real in seen:  # a link that leads back
            directories.clear()
            continue
        seen.add(real)
        directories[:] = sorted(name for name in directories if _belongs(Path(here, name)))
        for name in sorted(files):
            path = Path(here, name)
            if name.startswith(".") or name.endswith(SKIPPED_SUFFIXES) or not path.is_file():
                continue
            count += 1
            if count > ENTRIES_MAX - 1000:
                raise _too_large(root, f"more than {ENTRIES_MAX - 1000:,} files")
            relative = path.relative_to(root).as_posix()
            if _problem_of_name(f"{CODE}/{relative}"):
                raise UsageError(f"the file name {relative!r} cannot travel", "Rename it")
            yield relative, path


def _belongs(directory: Path) -> bool:
    name = directory.name
    if name.startswith(".") or name in SKIPPED or name.endswith(SKIPPED_SUFFIXES):
        return False
    return not os.path.exists(directory / "pyvenv.cfg") and os.path.realpath(directory) != _own_package()


def _own_package() -> str:
    return os.path.realpath(Path(__file__).parent.parent)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}, which would go to the cluster: {error.strerror}") from None


def _too_large(root: Path | None, what: str) -> UsageError:
    return UsageError(f"the code in {root} has {what}", "Keep the topology in a directory of its own, data elsewhere")


def project_of(topology: Topology) -> Path | None:
    """The directory whose modules a topology's pickles refer to; None when all of them are installed.

    Raises UsageError when they come from several.
    """
    if topology.project is not None:
        return topology.project
    kinds = [type(component) for component in topology.parts()]
    roots = sorted({root for root in (import_root(kind.__module__) for kind in kinds) if root is not None})
    if len(roots) > 1:
        listed = " and ".join(str(root) for root in roots)
        raise UsageError(f"the components come from several directories: {listed}", "Put them in one project")
    return roots[0] if roots else None


def _check_reach(topology: Topology, root: Path) -> None:
    for component in topology.parts():
        kind = type(component)
        home = import_root(kind.__module__)
        if home is not None and kind.__module__.partition(".")[0] in sys.stdlib_module_names:
            raise UsageError(
                f"{kind.__qualname__} comes from {kind.__module__}, which is the standard library's on the workers",
                "Rename the module",
            )
        if kind.__module__ != "__main__" and home is not None and home != root.resolve():
            raise UsageError(
                f"{kind.__qualname__} comes from {home}, which does not travel with {root}",
                "Put its module into the project, or install it on every host",
            )


def import_root(module: str) -> Path | None:
    """The directory on the path that a module was imported from; None for installed modules and rainband's own."""
    loaded = sys.modules.get(module)
    file = getattr(loaded, "__file__", None)
    if not isinstance(file, str) or module.partition(".")[0] == "rainband":
        return None
    path = Path(file).resolve()
    if module == "__main__":  # a script's own directory is on the path, a module run with -m lies below it
        levels = str(getattr(getattr(loaded, "__spec__", None), "name", "")).count(".")
    else:
        levels = module.count(".") + (path.name == "__init__.py")
    installed = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if any(place in path.parents for place in installed):
        return None
    return path.parents[levels] if levels < len(path.parents) else None


def open_bundle(data: bytes, directory: Path) -> None:
    """Unpack into `directory`, mode 0700; code and components that are there already are replaced.

    Raises InvalidTopology when the bundle breaks a rule (then nothing was written), OSError when the disk does.
    """
    fresh = directory.parent / f".{directory.name}.{secrets.token_hex(8)}"
    with _archive_of(data) as archive:
        entries = _checked(archive)
        fresh.mkdir(0o700)
        try:
            for entry in entries:
                _extract(archive, entry, fresh)
            (fresh / CODE).mkdir(0o700, exist_ok=True)
            _take_place(fresh, directory)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)


@contextlib.contextmanager
def _archive_of(data: bytes) -> Iterator[zipfile.ZipFile]:
    """The bundle to read; what breaks on the way becomes InvalidTopology."""
    _check_directory(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            yield archive
    except InvalidTopology:
        raise
    except MALFORMED as error:
        raise _refused(f"{type(error).__name__}: {error}") from None


def is_opened(bundle: Path, directory: Path, at_ns: int) -> bool:
    """Whether all that `bundle` holds lies in `directory`, no file shorter than it was, as a power cut leaves them.

    `at_ns` is the wall time at which it had been opened: what was shortened later is as its user wants it.
    """
    try:
        with zipfile.ZipFile(bundle) as archive:
            return (directory / CODE).is_dir() and not _lost(archive.infolist(), directory, at_ns)
    except (OSError, *MALFORMED):
        return False


def open_again(data: bytes, directory: Path, at_ns: int) -> None:
    """Put back, synced, what `is_opened` misses, and leave the rest alone. Raises as open_bundle does."""
    with _archive_of(data) as archive:
        for entry in _lost(_checked(archive), directory, at_ns):
            (directory / entry.filename).unlink(missing_ok=True)
            _extract(archive, entry, directory, sync=True)
    (directory / CODE).mkdir(0o700, exist_ok=True)


def _lost(entries: list[zipfile.ZipInfo], directory: Path, at_ns: int) -> list[zipfile.ZipInfo]:
    """Those of which there is no file, or one that is shorter and was not changed since."""
    lost = []
    for entry in entries:
        try:
            found = (directory / entry.filename).stat()
        except FileNotFoundError:
            lost.append(entry)
            continue
        if found.st_size < entry.file_size and found.st_mtime_ns <= at_ns:
            lost.append(entry)
    return lost


def _check_directory(data: bytes) -> None:
    """The central directory must be plain and small before zipfile makes objects of it. Raises InvalidTopology."""
    if len(data) < END.size or data[-END.size :][:4] != b"PK\x05\x06":
        raise _refused("it is no zip file")
    _, disk, start_disk, here, count, size, offset, comment = END.unpack(data[-END.size :])
    if disk or start_disk or comment or here != count or offset + size + END.size != len(data):
        raise _refused("its directory is not as it should be")
    if count > ENTRIES_MAX or data.count(b"PK\x01\x02", offset) > ENTRIES_MAX:
        raise _refused(f"more than {ENTRIES_MAX:,} entries")


def _refused(why: str) -> InvalidTopology:
    return InvalidTopology(f"the bundle is refused: {why}")


def _checked(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """All entries, none of which can write outside, twice, or too much. Raises InvalidTopology."""
    entries = archive.infolist()
    if sum(entry.file_size for entry in entries) > BYTES_MAX:
        raise _refused(f"more than {BYTES_MAX >> 20} MiB")
    names: set[str] = set()
    for entry in entries:
        problem = _problem_of_name(entry.filename) or _problem_of_entry(entry)
        if problem or entry.filename in names:
            raise _refused(f"entry {entry.filename!r:.120}: {problem or 'there twice'}")
        names.add(entry.filename)
    for name in names:
        parts = name.split("/")
        if any("/".join(parts[:length]) in names for length in range(1, len(parts))):
            raise _refused(f"entry {name!r:.120} lies inside a file")
    return entries


def _problem_of_name(name: str) -> str:
    if not 0 < len(name) <= NAME_LENGTH_MAX or not name.isprintable() or "\\" in name:
        return "a name that cannot be"
    parts = name.split("/")
    if any(part in ("", ".", "..") or len(part.encode(errors="replace")) > 255 for part in parts):
        return "a path that is not plain"
    if (parts[0] == CODE and len(parts) > 1) or PICKLE_NAME.fullmatch(name):
        return ""
    return f"neither under {CODE}/ nor a component"


def _problem_of_entry(entry: zipfile.ZipInfo) -> str:
    if entry.is_dir() or stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG):
        return "no regular file"
    if entry.flag_bits & 0x1:
        return "encrypted"
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "an unknown compression"
    if entry.file_size > RATIO_MAX * max(entry.compress_size, 1):
        return f"unpacks to more than {RATIO_MAX} times its size"
    return ""


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, directory: Path, *, sync: bool = False) -> None:
    path = directory / entry.filename
    path.parent.mkdir(0o700, parents=True, exist_ok=True)
    left = entry.file_size
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file, archive.open(entry) as source:
        while piece := source.read(1 << 20):
            left -= len(piece)
            if left < 0:
                raise _refused(f"entry {entry.filename!r:.120} is longer than it says")
            file.write(piece)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    if left:
        raise _refused(f"entry {entry.filename!r:.120} is shorter than it says")


def _take_place(fresh: Path, directory: Path) -> None:
    """Give `fresh` its final name; in a directory that is there already, replace only what bundles hold."""
    if not directory.exists():
        fresh.rename(directory)
        return
    for part in (CODE, COMPONENTS):
        if (directory / part).exists():
            (directory / part).rename(fresh / f"{part}.old")
        if (fresh / part).exists():
            (fresh / part).rename(directory / part)


def load_component(directory: Path, digest: str) -> Any:
    """Unpickle a component or custom grouping from an opened bundle. Runs the user's code: for workers alone.

    Raises InvalidTopology when the pickle is missing, damaged, or refers to what is not on the path.
    """
    import pickle

    path = directory / COMPONENTS / f"{digest}.pkl"
    if not PICKLE_NAME.fullmatch(f"{COMPONENTS}/{digest}.pkl"):
        raise InvalidTopology(f"{digest!r:.80} is no digest of a component")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidTopology(f"the bundle has no component {digest}: {error.strerror}") from None
    if hashlib.sha256(data).hexdigest() != digest:
        raise InvalidTopology(f"the component {path} is damaged: its bytes do not have that SHA-256")
    try:
        return pickle.loads(data)
    except Exception as error:
        raise InvalidTopology(
            f"the component {digest[:12]} cannot be read back: {type(error).__name__}: {error}",
            "Its modules must lie beside the topology's file, or be installed on every host",
        ) from error


def check_component(component: object, plan: ComponentPlan) -> None:
    """Raises InvalidTopology when a loaded component is not the one the plan describes."""
    from rainband.topology.builder import streams_of

    kind = f"{type(component).__module__}:{type(component).__qualname__}"
    declared, problems = streams_of(component)
    if problems or declared != plan.streams:
        raise InvalidTopology(
            f"component '{plan.id}' ({kind}) declares other outputs than its plan",
            "Submit the topology again: its code changed",
        )


def load_topology(file: str | Path, name: str = "topology", arguments: Sequence[str] = ()) -> Topology:
    """The topology that a user's file defines: see `userfile.load_topology`."""
    from rainband.topology import userfile

    return userfile.load_topology(file, name, arguments)
