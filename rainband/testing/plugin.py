"""The pytest plugin: fixtures `local_cluster` and `virtual_cluster`, and `--rainband-seed`.

Loaded by every run of pytest where rainband is installed, so it imports nothing until a fixture is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rainband.local.cluster import LocalCluster

SEED_MAX = 1 << 32


def pytest_addoption(parser: pytest.Parser) -> None:
    """A seed of one's own, or another one for every run."""
    parser.getgroup("rainband").addoption(
        "--rainband-seed",
        default="0",
        metavar="N",
        help="seed of the virtual_cluster fixture; 'random' draws one and shows it (default: 0)",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Settle the seed, once for the run."""
    given: str = config.getoption("--rainband-seed")
    if given == "random":
        from random import SystemRandom

        given = str(SystemRandom().randrange(SEED_MAX))
        config.option.rainband_seed = given
    if not given.isdecimal():
        raise pytest.UsageError(f"--rainband-seed is a whole number or 'random', not {given!r}")


def pytest_report_header(config: pytest.Config) -> list[str]:
    """The seed, when it is not the usual one."""
    seed: str = config.getoption("--rainband-seed")
    return [f"rainband: --rainband-seed={seed}"] if seed != "0" else []


@pytest.fixture
def virtual_cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """A LocalCluster under a virtual clock that records everything and raises the first error of user code."""
    from rainband.local.cluster import LocalCluster

    seed = int(request.config.getoption("--rainband-seed"))
    with LocalCluster(virtual_clock=True, seed=seed, record=True, raise_errors=True) as cluster:
        yield cluster


@pytest.fixture
def local_cluster() -> Iterator[LocalCluster]:
    """A LocalCluster in real time on a background thread, which records everything; errors are replayed."""
    from rainband.local.cluster import LocalCluster

    with LocalCluster(record=True) as cluster:
        yield cluster
