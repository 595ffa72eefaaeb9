"""A cluster per module, described by its CLUSTER, and a topology per test, described by `@attacked(...)`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kit.chaos import Arena, Case


@pytest.fixture(scope="module")
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Real daemons; at the end of the module nothing of them may be left."""
    options = getattr(request.module, "CLUSTER", {})
    name = request.module.__name__.rpartition(".")[2].removeprefix("test_")
    with Arena(tmp_path_factory.mktemp(name), **options) as made:
        yield made
        made.end_cleanly()


@pytest.fixture
def case(cluster: Arena, request: pytest.FixtureRequest) -> Iterator[Case]:
    """A topology under load, named after its test."""
    marked = request.node.get_closest_marker("attacked")
    options = dict(marked.kwargs) if marked is not None else {}
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name.removeprefix("test_"))
    made = cluster.case(name[:60].strip("-"), **options)
    try:
        made.wait_flowing()
        yield made
    finally:
        made.kill()
