"""Cycles and levels of a graph of components. Pure; linear in components and edges."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def cycles(targets: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """The strongly connected parts of a graph, each sorted, every part after all that it leads to.

    `targets` has an entry for each node. Tarjan's algorithm, without recursion.
    """
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    stacked: set[str] = set()
    parts: list[tuple[str, ...]] = []
    for start in sorted(targets):
        if start in index:
            continue
        index[start] = low[start] = len(index)
        stack.append(start)
        stacked.add(start)
        work = [(start, iter(sorted(set(targets[start]))))]
        while work:
            node, rest = work[-1]
            for target in rest:
                if target not in index:
                    index[target] = low[target] = len(index)
                    stack.append(target)
                    stacked.add(target)
                    work.append((target, iter(sorted(set(targets[target])))))
                    break
                if target in stacked:
                    low[node] = min(low[node], index[target])
            else:
                work.pop()
                if work:
                    parent = work[-1][0]
                    low[parent] = min(low[parent], low[node])
                if low[node] == index[node]:
                    part = [stack.pop()]
                    while part[-1] != node:
                        part.append(stack.pop())
                    stacked.difference_update(part)
                    parts.append(tuple(sorted(part)))
    return parts


def part_of(parts: Iterable[tuple[str, ...]]) -> dict[str, int]:
    """The number of the part each node is in. An edge lies on a cycle exactly when both its ends are in one part."""
    return {node: number for number, part in enumerate(parts) for node in part}


def levels(targets: Mapping[str, Iterable[str]], parts: list[tuple[str, ...]]) -> dict[str, int]:
    """The greatest number of edges from each node to a sink, edges on cycles not counted: one level for each part."""
    number = part_of(parts)
    level: dict[str, int] = {}
    for mine, part in enumerate(parts):
        beyond = [level[target] + 1 for node in part for target in targets[node] if number[target] != mine]
        for node in part:
            level[node] = max(beyond, default=0)
    return level
