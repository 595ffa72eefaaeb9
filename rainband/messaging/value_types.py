"""Values whose type is not built in: classes of the bundle, NumPy arrays and scalars, Arrow buffers.

A class travels as its name, "module:qualname", and is looked up again at the receiver among modules already imported
or found in the directories given to `trust_code`: a peer can name a class, never bring or import one of its choice.
"""

from __future__ import annotations

import dataclasses
import importlib
import re
import sys
from collections.abc import Sequence
from enum import Enum, Flag
from functools import cached_property
from importlib.machinery import PathFinder
from typing import Any

import msgspec

KNOWN_MAX = 4096
NAME_CHARS_MAX = 512
COPY_BYTES_MAX = 65_536
DIMENSIONS_MAX = 32
DTYPE = re.compile(r"[<>|=](?:[biufcSUV][0-9]{1,9}|[mM]8(?:\[[0-9A-Za-z/]{1,16}\])?)")
DUNDER = re.compile(r"__.*__")

ENUM = "enum"
FLAG = "flag"
NAMED_TUPLE = "named tuple"
STRUCT = "struct"
DATACLASS = "dataclass"

_code_directories: list[str] = []


def trust_code(directory: str) -> None:
    """Let classes be looked up in modules below `directory`, which must be on sys.path too."""
    if directory not in _code_directories:
        _code_directories.append(directory)


def type_name(kind: type) -> str:
    """The name a class travels under."""
    return f"{kind.__module__}:{kind.__qualname__}"


def find_class(name: str) -> type:
    """The class called "module:qualname". Raises LookupError, or whatever importing a module of the bundle raises."""
    module_name, _, path = name.partition(":")
    if not path or len(name) > NAME_CHARS_MAX:
        raise LookupError(f"bad class name {name[:80]!r}")
    module: Any = sys.modules.get(module_name)
    if module is None:
        package = module_name.partition(".")[0]
        if PathFinder.find_spec(package, _code_directories) is None:
            raise LookupError(f"module '{module_name[:80]}' is not in the bundle")
        module = importlib.import_module(module_name)
    found = module
    for part in path.split("."):
        found = vars(found).get(part)
        if found is None:
            break
    if not isinstance(found, type):
        raise LookupError(f"no class '{name[:80]}'")
    return found


class Known:
    """How instances of one class of the bundle are taken apart and put together again."""

    def __init__(self, kind: type, form: str, fields: tuple[str, ...]) -> None:
        self.kind: Any = kind
        self.name = type_name(kind)
        self.form = form
        self.fields = fields
        slotted = any("__slots__" in vars(base) for base in kind.__mro__)
        self.plain_dict = form == DATACLASS and not slotted

    def parts(self, value: Any) -> list[object]:
        """What is needed to build `value` again. Raises TypeError with the reason when that would lose something."""
        if self.form == ENUM:
            if self.kind.__members__.get(value.name) is not value:
                raise TypeError(f"{value!r} is not a member that {self.name} has by name")
            return [value.name]
        if self.form == FLAG:
            return [value.value]
        self._refuse_extras(value)
        if self.form == NAMED_TUPLE:
            return list(value)
        try:
            return [getattr(value, name) for name in self.fields]
        except AttributeError as error:
            raise TypeError(f"a {self.name} has a field without a value: {error}") from None

    def _refuse_extras(self, value: object) -> None:
        attributes = getattr(value, "__dict__", None)
        if not attributes or (len(attributes) == len(self.fields) and attributes.keys() == set(self.fields)):
            return
        for name in attributes:
            if name in self.fields or DUNDER.fullmatch(name):
                continue
            if not isinstance(getattr(self.kind, name, None), cached_property):
                raise TypeError(f"a {self.name} has the attribute '{name}', which is not one of its fields")

    def build(self, parts: list[Any]) -> object:
        """The value that `parts` came from, without running `__init__` (structs: with their `__post_init__`)."""
        if self.form == ENUM:
            (name,) = parts
            return self.kind[name]
        if self.form == FLAG:
            (number,) = parts
            return self.kind(number)
        if len(parts) != len(self.fields):
            raise ValueError(f"a {self.name} has {len(self.fields)} fields, not {len(parts)}")
        if self.form == NAMED_TUPLE:
            return tuple.__new__(self.kind, parts)
        if self.form == STRUCT:
            return self.kind(**dict(zip(self.fields, parts, strict=True)))
        made: object = object.__new__(self.kind)
        if self.plain_dict:
            made.__dict__.update(zip(self.fields, parts, strict=True))
        else:
            for name, part in zip(self.fields, parts, strict=True):
                object.__setattr__(made, name, part)
        return made


_known: dict[type, Known | str] = {}


def known_class(kind: type) -> Known | str:
    """How values of the class `kind` travel, or the reason why they do not ('' when it is of no special form)."""
    found = _known.get(kind)
    if found is None:
        found = _inspect(kind)
        if isinstance(found, Known) or not found:
            if len(_known) >= KNOWN_MAX:
                _known.clear()
            _known[kind] = found
    return found


def _inspect(kind: type) -> Known | str:
    form, fields = _form(kind)
    if not form:
        return ""
    name = type_name(kind)
    if "<locals>" in name:
        return f"the class {kind.__qualname__} is defined inside a function; define it at the top of a module"
    try:
        found = find_class(name)
    except Exception:
        found = None
    if found is not kind:
        return f"the class {name} cannot be found again by its name; define it in a module that the topology imports"
    if form == DATACLASS:
        try:
            object.__new__(kind)
        except TypeError:
            return f"the dataclass {name} is derived from a built-in type"
    return Known(kind, form, fields)


def _form(kind: type) -> tuple[str, tuple[str, ...]]:
    if issubclass(kind, Enum):
        return (FLAG if issubclass(kind, Flag) else ENUM), ()
    if issubclass(kind, tuple):
        fields = getattr(kind, "_fields", None)
        return (NAMED_TUPLE, tuple(fields)) if fields is not None else ("", ())
    if issubclass(kind, msgspec.Struct):
        return STRUCT, kind.__struct_fields__
    if dataclasses.is_dataclass(kind):
        return DATACLASS, tuple([field.name for field in dataclasses.fields(kind)])
    return "", ()


def build_known(name: str, parts: list[object]) -> object:
    """The instance of the class `name` made of `parts`. Raises LookupError, ValueError and what the class raises."""
    known = known_class(find_class(name))
    if isinstance(known, str):
        raise LookupError(f"values of {name[:80]} do not travel")
    return known.build(parts)


def is_numpy(value: object) -> bool:
    """Whether this is an array or a scalar of NumPy that travels. NumPy is never imported to find out."""
    kind = type(value)
    if kind.__module__ != "numpy":
        return False
    numpy: Any = sys.modules.get("numpy")
    if numpy is None:
        return False
    array: Any = value
    if kind is not numpy.ndarray and not isinstance(value, numpy.generic):
        return False
    dtype = array.dtype
    if dtype.names is not None or dtype.subdtype is not None or DTYPE.fullmatch(dtype.str) is None:
        return False
    return kind is numpy.ndarray or numpy.dtype(dtype.str).type is kind


def numpy_parts(array: Any) -> tuple[str, str, Sequence[int], bytes]:
    """dtype, order ("C", "F", or "" for a scalar), shape, and the bytes in that order."""
    scalar = type(array).__name__ != "ndarray"
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    data = array.tobytes(order)
    return array.dtype.str, "" if scalar else order, array.shape, data if array.dtype.itemsize else b""


def numpy_value(dtype: str, order: str, shape: list[int], data: memoryview) -> object:
    """The array (read-only) or scalar. A large array is a view of `data`. Raises ValueError when they do not fit."""
    numpy: Any = importlib.import_module("numpy")
    if DTYPE.fullmatch(dtype) is None or order not in ("", "C", "F") or len(shape) > DIMENSIONS_MAX:
        raise ValueError("bad array header")
    kind = numpy.dtype(dtype)
    items = 1
    for size in shape:
        if type(size) is not int or size < 0:
            raise ValueError("bad array shape")
        items *= size
    if items * kind.itemsize != len(data) or (not order and shape):
        raise ValueError("an array's shape does not fit its bytes")
    source = data if len(data) > COPY_BYTES_MAX else bytes(data)
    array = numpy.ndarray(tuple(shape), kind, source, order=order or "C")
    return array if order else array[()]


def is_arrow_buffer(value: object) -> bool:
    """Whether this is a pyarrow.Buffer. Arrow is never imported to find out."""
    arrow: Any = sys.modules.get("pyarrow")
    return arrow is not None and type(value) is arrow.Buffer


def arrow_buffer(data: memoryview) -> object:
    """A pyarrow.Buffer over `data`."""
    made: object = importlib.import_module("pyarrow").py_buffer(data)
    return made
