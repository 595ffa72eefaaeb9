"""KEY=VALUE and COMP=N as people type them."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import click
import pytest

from rainband.cli.main import run
from rainband.cli.options import connect, parse_parallelism, parse_setting
from rainband.errors import InvalidConfig, UsageError


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("k=3", "k", "3"),
        (" k =a=b", "k", "a=b"),
        ("k=", "k", ""),
        ("app.n=3", "app.n", 3),
        ("app.n=[1, true]", "app.n", [1, True]),
        ("app.n=words", "app.n", "words"),
        ("application=3", "application", "3"),
    ],
)
def test_values_are_text_and_under_app_json(text: str, key: str, value: object) -> None:
    assert parse_setting(text) == (key, value)


@pytest.mark.parametrize("text", ["k", "", "=3", " =3"])
def test_settings_without_key_or_value_are_refused(text: str) -> None:
    with pytest.raises(InvalidConfig, match="is not KEY=VALUE"):
        parse_setting(text)


def test_parallelism() -> None:
    assert parse_parallelism(("a=1", "b.c=20")) == {"a": 1, "b.c": 20}


@pytest.mark.parametrize("text", ["a", "a=", "=3", "a=0", "a=-1", "a=1.5", "a=x", "a=٣x"])
def test_bad_parallelism(text: str) -> None:
    with pytest.raises(UsageError, match="is not COMPONENT=N"):
        parse_parallelism((text,))


def test_unknown_component_gives_a_hint() -> None:
    with pytest.raises(UsageError, match="Did you mean 'count'"):
        parse_parallelism(("cuont=2",), ("count", "split"))


def test_a_client_tries_for_as_long_as_the_setting_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAINBAND_NIMBUS_CLIENT_TIMEOUT_SECS", "0.25")
    with click.Context(click.Command("list")):
        assert connect(("127.0.0.1:1",))._rpc.timeout_s == 0.25


CLUSTER = ["list", "monitor", "errors", "stacks", "activate", "deactivate", "rebalance", "kill", "chaos kill-worker"]


@pytest.mark.parametrize("command", CLUSTER)
def test_commands_find_the_cluster_by_its_settings(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.toml"
    file.write_text('[nimbus]\nseeds = ["127.0.0.1:1"]\n')
    words = [*command.split(), *([] if command == "list" else ["flow"])]
    given = ["--config", str(file), "-c", "nimbus.client.timeout.secs=0.01"]
    assert run([*words, *given]) == 4
    assert capsys.readouterr().err.startswith("error: no Nimbus answers at 127.0.0.1:1.")
    assert run([*words, *given, "-c", "nimbus.seeds=127.0.0.1:2"]) == 4
    assert capsys.readouterr().err.startswith("error: no Nimbus answers at 127.0.0.1:2.")
    assert run([*words, "-c", f"keys.dir={tmp_path}"]) == 5


@pytest.mark.parametrize("setting", ["topology.workers=3", "app.table=readings"])
def test_settings_of_topologies_are_for_submit(setting: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rebalance", "flow", "-c", setting]) == 2
    assert capsys.readouterr().err == (
        f"error: '{setting.partition('=')[0]}' is a setting of topologies: this command changes none. "
        "Give it to submit\n"
    )


LAUGHS = "app:\n  a: &a [ha]\n" + "".join(
    f"  {name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n" for last, name in pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (LAUGHS, "is not YAML: line 3: aliases are not allowed"),
        ("app: 1\napp: 2\n", "is not YAML: line 2: the key 'app' is there twice"),
    ],
)
def test_a_bad_settings_file_is_one_line(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    assert run(["config", "--config", str(file)]) == 2
    assert capsys.readouterr() == ("", f"error: the config file {file} {said}\n")


def test_settings_may_be_written_as_yaml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("topology:\n  workers: 3\n")
    assert run(["config", "topology.workers", "--config", str(file)]) == 0
    assert "* topology.workers = 3\n" in capsys.readouterr().out
