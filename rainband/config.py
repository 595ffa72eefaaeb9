"""Every knob: its name, type, default, unit, limits, and where it may be set.

Keys are flat and dotted, as in Storm. A value is checked wherever it enters (builder, file, environment, command line,
Nimbus); what is unknown, ill-typed or out of range is refused with the key, the value and what is allowed. Settings of
the user's own live under the one key `app`. Precedence: command line > RAINBAND_* > file > builder > default, and the
settings of a component before those of its topology.
"""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rainband.errors import InvalidConfig, UsageError, closest, did_you_mean

APP = "app"
APP_DEPTH_MAX = 32
APP_NODES_MAX = 100_000
FILE_BYTES_MAX = 1 << 20
NAMED_MAX = 10
ENV_PREFIX = "RAINBAND_"
TRUTHS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}

TOPOLOGY = "topology"
COMPONENT = "component"
DAEMON = "daemon"

KIND_WORDS = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a string",
    "ints": "a list of whole numbers",
    "strs": "a list of strings",
    "dict": "a mapping",
}


@dataclass(frozen=True)
class Option:
    """One knob. `kind` is a key of KIND_WORDS; `low` and `high` are inclusive; None is allowed when it is the default.

    `scope`: "topology" (whole topology), "component" (topology or one component) or "daemon".
    """

    name: str
    kind: str
    default: Any
    doc: str
    scope: str = TOPOLOGY
    unit: str = ""
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] = ()

    @property
    def env(self) -> str:
        """The environment variable that sets it."""
        return "RAINBAND_" + self.name.upper().replace(".", "_")

    def allowed(self) -> str:
        """What may be written, for people."""
        words = KIND_WORDS[self.kind]
        if self.choices:
            words = "one of " + ", ".join(self.choices)
        if self.low is not None and self.high is not None:
            words += f" from {self.low:,g} to {self.high:,g}"
        elif self.low is not None:
            words += f" of at least {self.low:,g}"
        if self.unit:
            words += f", in {self.unit}"
        return words + (", or none" if self.default is None else "")


LONGEST_S = 10 * 365 * 86400.0


def _options() -> Iterator[Option]:
    yield Option("topology.name", "str", None, "name instead of the builder's")
    yield _whole("topology.workers", 1, 1, 10_000, "worker processes")
    yield _whole(
        "topology.acker.executors", None, 0, 4095, "ackers; none: one in each worker with a spout; 0: acked at once"
    )
    yield _seconds("topology.message.timeout.secs", 30.0, "a tuple tree not finished by then has failed")
    yield Option("topology.enable.message.timeouts", "bool", True, "whether trees time out")
    yield _whole(
        "topology.max.spout.pending", 65536, 1, 2**31, "ceiling of a spout task's pending window", "trees", COMPONENT
    )
    yield _seconds("topology.tick.tuple.freq.secs", None, "how often a bolt's tick() is called", COMPONENT)
    yield _whole(
        "topology.executor.receive.buffer.size", 4096, 1, 2**31, "credit of a sending worker at a task", "tuples"
    )
    yield _whole(
        "topology.max.task.parallelism", None, 1, 10_000, "upper limit of a component's executors", scope=COMPONENT
    )
    yield Option("topology.debug", "bool", False, "log every tuple that is emitted or executed", COMPONENT)
    yield _milliseconds("topology.spout.wait.ms", 1.0, "rest of a spout that had nothing to emit")
    yield _seconds("topology.error.throttle.interval.secs", 10.0, "window of the error throttle")
    yield _whole(
        "topology.max.error.report.per.interval", 5, 1, 10_000, "errors recorded per window and component"
    )
    yield Option("topology.exclusive", "bool", False, "no task in two places: end when cut off, end before a move")
    yield Option("topology.pickle.types", "strs", (), "types, as module:Class, whose values may travel as pickles")
    yield _whole("topology.max.value.bytes", 64 << 20, 1024, 1023 << 20, "largest value of a tuple, encoded", "bytes")
    yield _whole(
        "topology.transfer.buffer.bytes", 16 << 20, 65536, 2**40, "sent to a worker, not yet receipted", "bytes"
    )
    yield _whole("topology.batch.size", 1024, 1, 1_000_000, "most tuples per execute_batch", "tuples", COMPONENT)
    yield _milliseconds("topology.batch.timeout.ms", 0.0, "wait for a fuller batch; 0: never wait")
    yield Option(APP, "dict", {}, "settings of your own: strings, numbers, lists and mappings", COMPONENT)
    yield from _daemon_options()


def _daemon_options() -> Iterator[Option]:
    yield Option("state.dir", "str", "~/.rainband", "where daemons keep what must survive them", DAEMON)
    yield Option("keys.dir", "str", None, "CURVE keys; needed on any address but loopback", DAEMON)
    yield Option("nimbus.seeds", "strs", ("127.0.0.1:6627",), "addresses of every nimbus", DAEMON)
    yield Option("nimbus.host", "str", "127.0.0.1", "address nimbus listens on", DAEMON)
    yield _whole("nimbus.port", 6627, 0, 65535, "port nimbus listens on; 0: any", scope=DAEMON)
    states = ("sqlite", "memory", "zookeeper://HOST:PORT[,HOST:PORT]/PATH")
    yield Option("nimbus.state", "str", "sqlite", "where nimbus keeps the truth", DAEMON, choices=states)
    yield Option("nimbus.bundles.url", "str", None, "where all Nimbuses keep code, e.g. s3://BUCKET/PATH", DAEMON)
    yield Option("nimbus.zookeeper.auth.file", "str", None, "file of mode 0600 with user:password", DAEMON)
    yield Option("nimbus.zookeeper.ca.file", "str", None, "certificates to trust: TLS to ZooKeeper", DAEMON)
    yield Option("nimbus.zookeeper.cert.file", "str", None, "own certificate, where ZooKeeper asks for one", DAEMON)
    yield Option("nimbus.zookeeper.key.file", "str", None, "its key, of mode 0600", DAEMON)
    session = "a leader silent for longer is replaced, up to a tick of ZooKeeper (2 s) later"
    yield Option("nimbus.zookeeper.session.secs", "float", 9.0, session, DAEMON, "seconds", 2, 60)
    yield _seconds("nimbus.monitor.freq.secs", 1.0, "how often liveness is looked at", DAEMON)
    yield _seconds("nimbus.supervisor.timeout.secs", 30.0, "a supervisor silent for longer is lost", DAEMON)
    yield _seconds("nimbus.task.launch.secs", 120.0, "a worker not heard of by then starts elsewhere", DAEMON)
    yield _seconds("nimbus.client.timeout.secs", 4.0, "how long a client tries all seeds", DAEMON)
    yield _seconds("nimbus.upload.expiry.secs", 600.0, "an upload untouched for longer is thrown away", DAEMON)
    yield Option("supervisor.id", "str", None, "its name; none: kept in its state directory", DAEMON)
    yield Option("supervisor.host", "str", "127.0.0.1", "address its workers listen on", DAEMON)
    ports = (6700, 6701, 6702, 6703)
    yield Option("supervisor.slots.ports", "ints", ports, "one slot, and its data port, each", DAEMON, "", 1, 65535)
    secrets = "directory of files of mode 0600, one for each secret its workers may read"
    yield Option("supervisor.secrets.dir", "str", None, secrets, DAEMON)
    yield _seconds("supervisor.heartbeat.frequency.secs", 1.0, "how often a supervisor reports", DAEMON)
    yield _seconds("supervisor.worker.timeout.secs", 30.0, "a stopped worker is restarted, a stuck one named", DAEMON)
    yield _seconds("supervisor.worker.start.timeout.secs", 120.0, "a worker must answer by then", DAEMON)
    yield _seconds("supervisor.worker.shutdown.sleep.secs", 3.0, "from asking a worker to stop to killing it", DAEMON)
    kept = "logs of a topology that is gone from a host are deleted there after that long"
    yield Option("logviewer.cleanup.age.mins", "float", 10080.0, kept, DAEMON, "minutes", 0, LONGEST_S / 60)
    reports = "how often a worker reports; while it works, five times as often"
    yield _seconds("worker.heartbeat.frequency.secs", 1.0, reports, DAEMON)


def _whole(
    name: str, default: int | None, low: int, high: int, doc: str, unit: str = "", scope: str = TOPOLOGY
) -> Option:
    return Option(name, "int", default, doc, scope, unit, low, high)


def _seconds(name: str, default: float | None, doc: str, scope: str = TOPOLOGY) -> Option:
    return Option(name, "float", default, doc, scope, "seconds", 0.001, LONGEST_S)


def _milliseconds(name: str, default: float, doc: str) -> Option:
    return Option(name, "float", default, doc, COMPONENT, "milliseconds", 0, 60_000)


OPTIONS: Mapping[str, Option] = MappingProxyType({option.name: option for option in _options()})
DEFAULTS: Mapping[str, Any] = MappingProxyType({option.name: option.default for option in OPTIONS.values()})


class Config(Mapping[str, Any]):
    """Immutable settings: every known key has a value, set or default. `explicit` holds only those that were set.

    Its own copies: nothing that was passed in is shared, so each task that is given a Config may do as it likes.
    """

    __slots__ = ("_values", "explicit")

    def __init__(self, values: Mapping[str, object] | None = None) -> None:
        """Raises InvalidConfig when a key is unknown or a value is not allowed."""
        self.explicit: Mapping[str, Any] = MappingProxyType(validated(values or {}))
        self._values = {**DEFAULTS, **self.explicit}
        self._values[APP] = copy.deepcopy(self._values[APP])

    @staticmethod
    def layer(*layers: Mapping[str, object]) -> Config:
        """All layers in one, later ones first in rank; `app` is merged key by key. Raises InvalidConfig."""
        merged: dict[str, object] = {}
        for values in layers:
            checked = validated(values)
            app = checked.pop(APP, None)
            merged.update(checked)
            if app is not None:
                earlier = merged.get(APP, {})
                assert isinstance(earlier, dict)
                merged[APP] = {**earlier, **app}
        return Config(merged)

    @property
    def app(self) -> dict[str, Any]:
        """The user's own settings."""
        app: dict[str, Any] = self._values[APP]
        return app

    def plain(self) -> dict[str, Any]:
        """Only what was set, sorted by key, as plain values that travel."""
        return {key: copy.deepcopy(self.explicit[key]) for key in sorted(self.explicit)}

    def __getitem__(self, key: str) -> Any:
        try:
            return self._values[key]
        except KeyError:
            raise KeyError(f"no config key '{key}'. {did_you_mean(key, OPTIONS)}".rstrip()) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Config({dict(self.explicit)!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (Config, (dict(self.explicit),))


def validated(values: Mapping[str, object], *, where: str = "", scope: str | None = None) -> dict[str, Any]:
    """The same settings, checked and normalised (lists become tuples, whole numbers floats where a float is meant).

    `where` says in messages where they come from. `scope` "topology" refuses daemon keys, "component" also those that
    only a whole topology can have. Raises InvalidConfig.
    """
    if not isinstance(values, Mapping):
        raise InvalidConfig(f"config must be a mapping of keys to values, not {type(values).__name__}{_at(where)}")
    unknown: list[object] = [key for key in values if key not in OPTIONS]
    if unknown:
        raise _unknown(unknown, where)
    result = {}
    for key, value in values.items():
        option = find(key, where)
        if scope in (TOPOLOGY, COMPONENT) and option.scope == DAEMON:
            raise InvalidConfig(
                f"'{key}' is a setting of the daemons, not of a topology{_at(where)}",
                "Put it in the cluster's --config file",
            )
        if scope == COMPONENT and option.scope != COMPONENT:
            raise InvalidConfig(
                f"'{key}' is a setting of the whole topology, not of one component{_at(where)}",
                "Pass it to TopologyBuilder",
            )
        result[key] = check(option, value, where)
    return result


def find(key: object, where: str = "") -> Option:
    """The option of that name. Raises InvalidConfig with a did-you-mean."""
    option = OPTIONS.get(key) if isinstance(key, str) else None
    if option is None:
        raise _unknown([key], where)
    return option


def _unknown(keys: list[object], where: str) -> InvalidConfig:
    """The error that names all of them, each with the key that may have been meant."""
    hints = [did_you_mean(key, OPTIONS) for key in keys]
    fix = "" if all(hints) else "Settings of your own go under 'app'"
    if len(keys) == 1:
        return InvalidConfig(f"unknown config key {keys[0]!r}{_at(where)}", hints[0] or fix)
    named = [f"{key!r}" + (f" (d{hint[1:]})" if hint else "") for key, hint in zip(keys, hints, strict=True)]
    named[NAMED_MAX:] = [f"{len(keys) - NAMED_MAX} more"] if len(keys) > NAMED_MAX else []
    return InvalidConfig(f"unknown config keys {', '.join(named)}{_at(where)}", fix)


def check(option: Option, value: object, where: str = "") -> Any:
    """`value` in the form the option has it. Raises InvalidConfig naming key, value and what is allowed."""
    if value is None and option.default is None:
        return None
    if option.kind == "dict":
        if isinstance(value, Mapping):
            return _plain(value, option.name, where, 0, [0])
    elif option.kind in ("ints", "strs"):
        if isinstance(value, (list, tuple)) and all(_fits(option, option.kind[:-1], item) for item in value):
            return tuple(value)
    elif _fits(option, option.kind, value):
        return float(value) if option.kind == "float" and isinstance(value, int) else value
    shown = repr(value) if len(repr(value)) <= 80 else repr(value)[:77] + "..."
    raise InvalidConfig(f"'{option.name}' cannot be {shown}{_at(where)}", f"Write {option.allowed()}")


def _fits(option: Option, kind: str, value: object) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "str":
        return isinstance(value, str) and "\0" not in value and _chosen(value, option.choices)
    if isinstance(value, bool) or not isinstance(value, int if kind == "int" else (int, float)):
        return False
    if isinstance(value, float) and not math.isfinite(value):
        return False
    return (option.low is None or value >= option.low) and (option.high is None or value <= option.high)


def _chosen(value: str, choices: tuple[str, ...]) -> bool:
    """Whether it is one of them; a choice with '://' stands for everything that begins as it does."""
    schemes = tuple([choice[: choice.index("://") + 3] for choice in choices if "://" in choice])
    return not choices or value in choices or value.startswith(schemes)


def _plain(value: object, path: str, where: str, depth: int, seen: list[int]) -> Any:
    """A copy made of None, bool, int (64 bits), float, str, bytes, list and dict only."""
    seen[0] += 1
    if depth > APP_DEPTH_MAX or seen[0] > APP_NODES_MAX:
        raise InvalidConfig(
            f"'{path}' is too deep or too large{_at(where)}",
            f"At most {APP_DEPTH_MAX} levels and {APP_NODES_MAX:,} values",
        )
    if isinstance(value, Mapping):
        bad = [key for key in value if not isinstance(key, str)]
        if bad:
            raise InvalidConfig(f"'{path}' has the key {bad[0]!r}, which is not a string{_at(where)}")
        return {key: _plain(item, f"{path}.{key}", where, depth + 1, seen) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{path}[{n}]", where, depth + 1, seen) for n, item in enumerate(value)]
    if value is None or type(value) in (bool, float, str, bytes):
        return value
    if type(value) is int and -(2**63) <= value < 2**64:
        return value
    raise InvalidConfig(
        f"'{path}' is {value!r:.80} of type {type(value).__name__}{_at(where)}",
        "Settings are None, bool, numbers of 64 bits, str, bytes, lists and mappings; write paths and dates as strings",
    )


def _at(where: str) -> str:
    return f" ({where})" if where else ""


def select(values: Mapping[str, Any], *scopes: str) -> dict[str, Any]:
    """Only the settings whose scope is one of `scopes`."""
    return {key: value for key, value in values.items() if find(key).scope in scopes}


def load(path: Path | None, env: Mapping[str, str], flags: Mapping[str, object]) -> dict[str, Any]:
    """What was set outside the program, checked: `flags` beat RAINBAND_* in `env`, which beat the file at `path`.

    Strings are read as what their key wants; `app.NAME` sets one of the user's own. Raises InvalidConfig.
    """
    try:
        layers = [
            validated(_nested_app(read_file(path), str(path)), where=str(path)) if path is not None else {},
            _from_env(env),
            validated(_nested_app(_typed(flags), "command line"), where="command line"),
        ]
        return Config.layer(*layers).plain()
    except RecursionError:
        raise InvalidConfig("a setting is nested too deeply", f"At most {APP_DEPTH_MAX} levels") from None


def from_json(key: str, text: str) -> object:
    """What the text says in JSON, or the text itself. Raises InvalidConfig when it is nested beyond all measure."""
    try:
        return json.loads(text)
    except ValueError:
        return text
    except RecursionError:
        raise InvalidConfig(f"'{key}' is nested too deeply", f"At most {APP_DEPTH_MAX} levels") from None


def expanded(path: str) -> Path:
    """The path with '~' made the home directory. Raises UsageError when this user has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        fix = "Set HOME, or write the whole path; state.dir (or --state) says where state lies"
        raise UsageError(f"{path} cannot be found: this user has no home directory", fix) from None


def _from_env(env: Mapping[str, str]) -> dict[str, Any]:
    """Variables that begin like a key but are none are refused; others, as RAINBAND_HOME, are not settings."""
    names = {option.env: option for option in OPTIONS.values()}
    families = {option.env.split("_")[1] for option in OPTIONS.values()} - {"APP", "STATE", "KEYS"}
    found: dict[str, Any] = {}
    for name, text in env.items():
        if name in names:
            found.update(validated(_typed({names[name].name: text}), where=name))
        elif name.startswith(ENV_PREFIX) and name.split("_")[1] in families:
            close = closest(name.removeprefix(ENV_PREFIX).lower().replace("_", "."), list(OPTIONS))
            fix = f"Did you mean '{OPTIONS[close].env}'?" if close else ""
            raise InvalidConfig(f"unknown variable {name}", fix)
    return found


def _typed(values: Mapping[str, object]) -> dict[str, object]:
    """Strings turned into what their key wants; what cannot be turned stays, for `validated` to refuse."""
    return {
        key: _from_text(OPTIONS[key], value) if isinstance(value, str) and key in OPTIONS else value
        for key, value in values.items()
    }


def _from_text(option: Option, text: str) -> object:
    if option.default is None and text.strip().lower() in ("", "none", "null"):
        return None
    if option.kind == "str":
        return text
    if option.kind == "bool":
        return TRUTHS.get(text.strip().lower(), text)
    if option.kind in ("ints", "strs") and not text.lstrip().startswith("["):
        items = [item.strip() for item in text.split(",") if item.strip()]
        return [int(item) if item.isdecimal() else item for item in items] if option.kind == "ints" else items
    return from_json(option.name, text)


def _nested_app(values: Mapping[str, object], where: str) -> dict[str, object]:
    """`app.a.b` keys gathered under `app`."""
    result = {key: value for key, value in values.items() if not _in_app(key)}
    app: dict[str, Any] = {}
    given = values.get(APP)
    if isinstance(given, Mapping):
        app.update(copy.deepcopy(dict(given)))
    for key in filter(_in_app, values):
        place = app
        *path, last = key.split(".")[1:]
        for name in path:
            place = place.setdefault(name, {})
            if not isinstance(place, dict):
                raise InvalidConfig(f"'{key}' lies inside a setting that is no mapping ({where})")
        place[last] = values[key]
    return {**result, APP: app} if app else result


def _in_app(key: object) -> bool:
    return isinstance(key, str) and key.startswith(APP + ".")


def read_file(path: Path) -> dict[str, object]:
    """The settings in a TOML (.toml) or YAML (.yaml, .yml) file, keys flat or nested. Raises InvalidConfig."""
    try:
        size = path.stat().st_size if path.is_file() else -1
        data = path.read_bytes() if 0 <= size <= FILE_BYTES_MAX else b""
    except OSError as error:
        raise InvalidConfig(f"cannot read the config file {path}: {error.strerror}") from None
    if size < 0:
        raise InvalidConfig(f"no config file {path}")
    if size > FILE_BYTES_MAX:
        raise InvalidConfig(f"the config file {path} has {size:,} bytes, more than {FILE_BYTES_MAX:,}")
    if path.suffix == ".toml":
        content = _read_toml(data, path)
    elif path.suffix in (".yaml", ".yml"):
        content = _read_yaml(data, path)
    else:
        raise InvalidConfig(f"the config file {path} is neither TOML nor YAML", "Name it .toml or .yaml")
    if not isinstance(content, dict):
        raise InvalidConfig(f"the config file {path} is no mapping of keys to values")
    flat: dict[str, object] = {}
    _flatten(content, "", flat, path)
    return flat


def _read_toml(data: bytes, path: Path) -> object:
    import tomllib

    try:
        return tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidConfig(f"the config file {path} is not TOML: {error}") from None


def _read_yaml(data: bytes, path: Path) -> object:
    """Plain data only: no tags, no anchors (which can blow up), no key twice."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            events: Any = self
            if events.check_event(yaml.events.AliasEvent):
                raise yaml.YAMLError(f"line {events.peek_event().start_mark.line + 1}: aliases are not allowed")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> Any:
            seen = set()
            for key, _ in node.value:
                if str(key.value) in seen:
                    raise yaml.YAMLError(f"line {key.start_mark.line + 1}: the key '{key.value}' is there twice")
                seen.add(str(key.value))
            return super().construct_mapping(node, deep)

    try:
        content = yaml.load(data, Loader)
    except (yaml.YAMLError, ValueError, RecursionError, LookupError, AttributeError, TypeError) as error:
        raise InvalidConfig(f"the config file {path} is not YAML: {' '.join(str(error).split())}") from None
    return {} if content is None else content


def _flatten(content: Mapping[Any, object], prefix: str, flat: dict[str, object], path: Path) -> None:
    for name, value in content.items():
        if not isinstance(name, str):
            raise InvalidConfig(f"{path}: the key {name!r} is not a string")
        key = prefix + name
        if isinstance(value, dict) and key != APP and key not in OPTIONS:
            if key.count(".") > 8:
                raise InvalidConfig(f"unknown config key {key!r} ({path})")
            _flatten(value, key + ".", flat, path)
        elif key in flat:
            raise InvalidConfig(f"the key '{key}' is there twice ({path})")
        else:
            flat[key] = value
