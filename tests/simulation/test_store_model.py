"""The stores of the simulation keep what every store promises: the same suite as for memory, SQLite and ZooKeeper.

`disk` is the one of a lone Nimbus, `ensemble` the real ZooKeeperStore over the simulated servers.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import given, settings

from rainband.cluster.store import Change, Put, Store
from rainband.errors import StoreError
from simulation.chief import NimbusProcess
from simulation.disks import SimStore
from simulation.options import Options
from simulation.world import World

SUITE = Path(__file__).resolve().parent.parent / "unit" / "cluster" / "test_store.py"


class Unjudged:
    """In place of the laws: what the suite writes are no topologies."""

    def written(self, *given: object) -> None:
        """Whatever it is."""

    def believers(self) -> None:
        """Nobody leads here but the suite."""


class Opener:
    """The store of a new process on the same state again and again; the process before is dead then."""

    def __init__(self, nimbuses: int) -> None:
        self.world = World(Options(1, nimbuses=nimbuses), ())
        self.world.laws = Unjudged()  # type: ignore[assignment]

    def __call__(self) -> Store:
        raise NotImplementedError


class DiskOpener(Opener):
    """A lone Nimbus's disk, which forgets what was not synced."""

    def __init__(self, directory: Path) -> None:
        super().__init__(1)
        self.dies = ""

    def __call__(self) -> Store:
        self.world.disk.crash()
        return SimStore(cast(Any, self), self.world.disk)


class EnsembleOpener(Opener):
    """Nimbuses over simulated servers. None takes a turn of its own: time stands still."""

    def __init__(self, directory: Path) -> None:
        super().__init__(3)
        self.process: NimbusProcess | None = None

    def __call__(self) -> Store:
        if self.process is not None:
            self.process.kill()
        self.process = NimbusProcess(self.world, 0, 0)
        self.process.clock.begin()
        found: Store = self.process.store
        return found


def contract() -> ModuleType:
    """The suite every backend passes."""
    spec = importlib.util.spec_from_file_location("store_contract_of_models", SUITE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["store_contract_of_models"] = module
    spec.loader.exec_module(module)
    return module


suite = contract()
MODELS: dict[str, Callable[[Path], Opener]] = {"disk": DiskOpener, "ensemble": EnsembleOpener}
suite.BACKENDS.clear()
suite.BACKENDS.update(MODELS)
LAWS = {name: law for name, law in vars(suite).items() if name.startswith("test_") and "like_a_dict" not in name}
globals().update(LAWS)


@pytest.fixture(params=MODELS)
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Call it for a store on the same state as the last one, which must not be used any more."""
    return MODELS[request.param](tmp_path)


@pytest.mark.parametrize("backend", MODELS)
@settings(max_examples=8, deadline=None)
@given(batches=suite.batches)
def test_it_behaves_like_a_dict(
    backend: str, batches: list[list[Change]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    suite.test_it_behaves_like_a_dict.hypothesis.inner_test(backend, batches, tmp_path_factory)


def test_what_a_dead_nimbus_did_not_sync_is_lost(reopen: Opener) -> None:
    """The model's own part of the contract: a write is synced, so a death loses none of it."""
    store = reopen()
    store.write(store.lead(), [Put("counter", b"1")])
    assert reopen().read_all().values == {"counter": b"1"} == reopen.world.disk.values


def test_a_write_of_a_nimbus_that_was_replaced_fails_in_another_process(reopen: Opener) -> None:
    old = reopen()
    epoch = old.lead()
    new = reopen()
    new.write(new.lead(), [Put("counter", b"2")])
    with pytest.raises(StoreError):
        old.write(epoch, [Put("counter", b"1")])
    assert new.read_all().values == {"counter": b"2"}
