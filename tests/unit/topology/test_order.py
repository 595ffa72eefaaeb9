"""Cycles and levels of random graphs, compared with their definitions."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rainband.topology.order import cycles, levels, part_of

NODES = "abcdefg"


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, list[str]]:
    nodes = NODES[: draw(st.integers(1, len(NODES)))]
    return {node: draw(st.lists(st.sampled_from(nodes), max_size=4)) for node in nodes}


def reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(graph[start])
    while todo:
        node = todo.pop()
        if node not in seen:
            seen.add(node)
            todo.extend(graph[node])
    return seen


@given(graphs())
def test_two_nodes_share_a_part_exactly_when_each_reaches_the_other(graph: dict[str, list[str]]) -> None:
    number = part_of(cycles(graph))
    assert set(number) == set(graph)
    reach = {node: reachable(graph, node) for node in graph}
    for one in graph:
        for other in graph:
            mutual = one == other or (other in reach[one] and one in reach[other])
            assert (number[one] == number[other]) == mutual


@given(graphs())
def test_levels_fall_along_every_edge_between_parts_by_at_least_one(graph: dict[str, list[str]]) -> None:
    parts = cycles(graph)
    number, level = part_of(parts), levels(graph, parts)
    for part in parts:
        beyond = [level[target] + 1 for node in part for target in graph[node] if number[target] != number[node]]
        assert {level[node] for node in part} == {max(beyond, default=0)}


@given(graphs())
def test_the_order_of_nodes_and_edges_does_not_matter(graph: dict[str, list[str]]) -> None:
    other = {node: list(reversed(graph[node])) for node in reversed(list(graph))}
    assert sorted(cycles(graph)) == sorted(cycles(other))
    assert levels(graph, cycles(graph)) == levels(other, cycles(other))


def test_a_long_chain_needs_no_recursion() -> None:
    chain = {f"{n:05}": [f"{n + 1:05}"] for n in range(5_000)} | {"05000": []}
    assert levels(chain, cycles(chain))["00000"] == 5_000
