"""The promises of every store, kept by a real ZooKeeper, and what only several Nimbuses can meet."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from kit import zookeeper
from kit.zookeeper import Ensemble
from rainband.cluster.zookeeper import ZooKeeperStore

zookeeper.require()
CREDENTIALS = "rainband:a secret of the tests"


def contract() -> ModuleType:
    """The suite every backend passes."""
    file = Path(__file__).resolve().parents[1] / "unit" / "cluster" / "test_store.py"
    spec = importlib.util.spec_from_file_location("store_contract", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_contract"] = module
    spec.loader.exec_module(module)
    return module


suite = contract()
ROOTS = itertools.count()
SERVER: list[Ensemble] = []


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ensemble]:
    with zookeeper.ensemble(tmp_path_factory.mktemp("zookeeper")) as made:
        SERVER.append(made)
        yield made
        SERVER.clear()


def zookeeper_opener(directory: Path) -> suite.Reopen:  # type: ignore[name-defined]
    url = SERVER[0].url(f"/contract-{next(ROOTS)}/rainband")
    opened: list[ZooKeeperStore] = []

    def reopen() -> ZooKeeperStore:
        if opened:
            opened.pop().close()
        opened.append(ZooKeeperStore(url, CREDENTIALS, session_s=4.0))
        return opened[0]

    return reopen


@pytest.fixture
def reopen(tmp_path: Path) -> Iterator[object]:
    opener = zookeeper_opener(tmp_path)
    yield opener
    opener().close()


suite.BACKENDS.clear()
suite.BACKENDS["zookeeper"] = zookeeper_opener
for name, test in vars(suite).items():
    if name.startswith("test_") and name != "test_it_behaves_like_a_dict":
        globals()[name] = test
