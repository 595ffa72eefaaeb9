"""Settings: what is allowed, which layer wins, and what a mistake is told."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainband.config import DAEMON, DEFAULTS, OPTIONS, TOPOLOGY, Config, load, read_file, select, validated
from rainband.errors import InvalidConfig

NUMBERS = st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False)
SCALARS = st.none() | NUMBERS | st.text() | st.binary()
PLAIN = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


def test_every_default_is_allowed_and_explained() -> None:
    for option in OPTIONS.values():
        assert Config({option.name: option.default})[option.name] == option.default
        assert option.doc
        assert option.allowed()


def test_variables_are_distinct() -> None:
    assert len({option.env for option in OPTIONS.values()}) == len(OPTIONS)


BAD = [
    ({"topology.wrokers": 2}, "unknown config key 'topology.wrokers'. Did you mean 'topology.workers'?"),
    ({"my.setting": 2}, "unknown config key 'my.setting'. Settings of your own go under 'app'"),
    ({7: 2}, "unknown config key 7"),
    (
        {"topology.wrokers": 2, "topology.workers": 0, "my.setting": 2},
        "unknown config keys 'topology.wrokers' (did you mean 'topology.workers'?), 'my.setting'. Settings of your own",
    ),
    ({"topolgy.workers": 1, "keys.dri": ""}, "'?), 'keys.dri' (did you mean 'keys.dir'?)"),
    ({f"a{number}": 1 for number in range(12)}, "'a8', 'a9', 2 more. Settings of your own"),
    ({"topology.foo": 2}, "unknown config key 'topology.foo'. Settings of your own go under 'app'"),
    ({"topology.workers": 0}, "'topology.workers' cannot be 0. Write a whole number from 1 to 10,000"),
    ({"topology.workers": "2"}, "'topology.workers' cannot be '2'"),
    ({"topology.workers": True}, "'topology.workers' cannot be True"),
    ({"topology.workers": 1.0}, "'topology.workers' cannot be 1.0"),
    ({"topology.workers": None}, "'topology.workers' cannot be None"),
    ({"topology.acker.executors": -1}, "'topology.acker.executors' cannot be -1"),
    ({"topology.message.timeout.secs": 0}, "'topology.message.timeout.secs' cannot be 0"),
    ({"topology.message.timeout.secs": float("nan")}, "cannot be nan"),
    ({"topology.message.timeout.secs": float("inf")}, "cannot be inf"),
    ({"topology.message.timeout.secs": "30s"}, "cannot be '30s'"),
    ({"topology.max.spout.pending": 0}, "'topology.max.spout.pending' cannot be 0"),
    ({"topology.debug": 1}, "'topology.debug' cannot be 1. Write true or false"),
    ({"topology.pickle.types": "a:B"}, "'topology.pickle.types' cannot be 'a:B'. Write a list of strings"),
    ({"supervisor.slots.ports": [6700, 70000]}, "cannot be [6700, 70000]"),
    ({"nimbus.state": "redis"}, "Write one of sqlite, memory, zookeeper"),
    ({"nimbus.host": "a\0b"}, "'nimbus.host' cannot be"),
    ({"app": [1]}, "'app' cannot be [1]. Write a mapping"),
    ({"app": {1: 2}}, "'app' has the key 1, which is not a string"),
    ({"app": {"x": {3}}}, "'app.x' is {3} of type set"),
    ({"app": {"x": [Path("a")]}}, "'app.x[0]' is"),
    ({"app": {"x": 2**64}}, "'app.x' is 18446744073709551616 of type int"),
]


@pytest.mark.parametrize(("values", "message"), BAD)
def test_a_bad_setting_is_named_with_what_is_allowed(values: Mapping[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        Config(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_not_a_mapping() -> None:
    with pytest.raises(InvalidConfig, match="must be a mapping"):
        Config([("topology.workers", 2)])  # type: ignore[arg-type]


def test_too_deep_and_too_wide_app_settings_are_refused() -> None:
    deep: dict[str, object] = {}
    for _ in range(40):
        deep = {"x": deep}
    with pytest.raises(InvalidConfig, match="too deep or too large"):
        Config({"app": deep})
    with pytest.raises(InvalidConfig, match="too deep or too large"):
        Config({"app": {"x": [0] * 100_001}})


def test_scopes() -> None:
    with pytest.raises(InvalidConfig, match="a setting of the daemons"):
        validated({"nimbus.port": 1}, scope="topology")
    with pytest.raises(InvalidConfig, match="a setting of the whole topology"):
        validated({"topology.workers": 1}, scope="component")
    assert validated({"topology.debug": True}, scope="component") == {"topology.debug": True}
    mixed = {"nimbus.port": 1, "topology.workers": 1, "app": {}}
    assert select(mixed, DAEMON) == {"nimbus.port": 1}
    assert select(mixed, TOPOLOGY) == {"topology.workers": 1}


def test_later_layers_win_and_app_is_merged() -> None:
    config = Config.layer(
        {"topology.workers": 2, "topology.debug": True, "app": {"a": 1, "b": 1}},
        {"topology.workers": 3},
        {"app": {"b": 2}},
    )
    assert config["topology.workers"] == 3
    assert config["topology.debug"] is True
    assert config.app == {"a": 1, "b": 2}
    assert config["topology.message.timeout.secs"] == DEFAULTS["topology.message.timeout.secs"]
    assert config.plain() == {"app": {"a": 1, "b": 2}, "topology.debug": True, "topology.workers": 3}


def test_a_config_shares_nothing_with_what_made_it() -> None:
    given: dict[str, object] = {"app": {"list": [1]}}
    one, two = Config(given), Config(given)
    one["app"]["list"].append(2)
    assert two["app"]["list"] == [1]
    assert given == {"app": {"list": [1]}}
    assert Config()["app"] is not DEFAULTS["app"]


def test_a_config_is_a_mapping_that_copies_and_pickles() -> None:
    config = Config({"topology.workers": 2})
    assert set(config) == set(OPTIONS)
    assert dict(copy.deepcopy(config)) == dict(config) == dict(pickle.loads(pickle.dumps(config)))
    assert config.get("nothing") is None
    with pytest.raises(KeyError, match=r"Did you mean 'topology\.workers'"):
        config["topology.worker"]
    with pytest.raises(TypeError):
        config["topology.workers"] = 3  # type: ignore[index]


@given(st.dictionaries(st.text(), PLAIN))
def test_app_settings_come_out_as_they_went_in(app: dict[str, object]) -> None:
    assert Config(Config({"app": app}).plain())["app"] == app


def test_flags_beat_variables_which_beat_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rain.toml"
    lines = ["topology.workers = 2", '"topology.debug" = true', "nimbus.port = 1", "[app]", 'p = ["a"]', "n = {x = 1}"]
    file.write_text("\n".join(lines))
    env = {"RAINBAND_TOPOLOGY_WORKERS": "3", "RAINBAND_NIMBUS_PORT": "2", "RAINBAND_HOME": "/x", "PATH": "/bin"}
    assert load(file, env, {"topology.workers": 4, "app.n": 5}) == {
        "app": {"n": 5, "p": ["a"]},
        "nimbus.port": 2,
        "topology.debug": True,
        "topology.workers": 4,
    }
    assert load(None, {}, {}) == {}


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("topology.workers", "2", 2),
        ("topology.message.timeout.secs", "2.5", 2.5),
        ("topology.debug", "Yes", True),
        ("topology.debug", "0", False),
        ("topology.acker.executors", "none", None),
        ("topology.name", "007", "007"),
        ("nimbus.seeds", "a:1, b:2", ("a:1", "b:2")),
        ("nimbus.seeds", '["a:1"]', ("a:1",)),
        ("supervisor.slots.ports", "6700,6701", (6700, 6701)),
        ("app", '{"a": 1}', {"a": 1}),
    ],
)
def test_text_is_read_as_its_key_wants(key: str, text: str, value: object) -> None:
    assert load(None, {OPTIONS[key].env: text}, {}) == {key: value}
    assert load(None, {}, {key: text}) == {key: value}


@pytest.mark.parametrize(
    ("env", "flags", "message"),
    [
        ({"RAINBAND_TOPOLOGY_WROKERS": "1"}, {}, "Did you mean 'RAINBAND_TOPOLOGY_WORKERS'?"),
        ({"RAINBAND_TOPOLOGY_WORKERS": "many"}, {}, "cannot be 'many' (RAINBAND_TOPOLOGY_WORKERS)"),
        ({}, {"topology.workers": "1.5"}, "cannot be 1.5 (command line)"),
        ({}, {"topology.wrokers": "1"}, "unknown config key 'topology.wrokers' (command line)"),
        ({}, {"app": {"a": 1}, "app.a.b": 2}, "'app.a.b' lies inside a setting that is no mapping"),
    ],
)
def test_mistakes_outside_the_program_are_located(env: dict[str, str], flags: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidConfig) as caught:
        load(None, env, flags)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.toml", "topology.workers = ", "is not TOML"),
        ("a.toml", "topology.workers = 1\ntopology.workers = 2", "is not TOML"),
        ("a.toml", '"topology.workers" = 1\n[topology]\nworkers = 2', "'topology.workers' is there twice"),
        ("a.toml", "[topology]\nwrokers = 2", "unknown config key 'topology.wrokers'"),
        ("a.toml", "\x80", "is not TOML"),
        ("a.ini", "", "neither TOML nor YAML"),
        ("a.toml", "# " + "x" * (1 << 20), "more than 1,048,576"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, name: str, content: str, message: str) -> None:
    file = tmp_path / name
    file.write_bytes(content.encode("latin-1"))
    with pytest.raises(InvalidConfig) as caught:
        load(file, {}, {})
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="no config file"):
        load(tmp_path / "none.toml", {}, {})
    with pytest.raises(InvalidConfig, match="no config file"):
        load(tmp_path, {}, {})


def test_yaml_is_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("topology:\n  workers: 2\ntopology.debug: true\napp: {a: [1]}\n")
    assert read_file(file) == {"topology.workers": 2, "topology.debug": True, "app": {"a": [1]}}
    file.write_text("")
    assert read_file(file) == {}
    for content, message in (
        ("app: &a [1]\nx: *a\n", "aliases are not allowed"),
        ("topology.workers: 1\ntopology.workers: 2\n", "is there twice"),
        ("app: !!python/object:os.system {}\n", "is not YAML"),
        ("[1, 2]", "no mapping"),
        ("? [1]\n: 2\n", "is not YAML"),
        ("app: !!int ''\n", "is not YAML"),
        ("app: !!timestamp x\n", "is not YAML"),
        ("app: " + "[" * 100_000, "is not YAML"),
    ):
        file.write_text(content)
        with pytest.raises(InvalidConfig, match=message):
            read_file(file)
