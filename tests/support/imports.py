"""The circles in a graph of modules and their imports."""

from __future__ import annotations


def circles(graph: dict[str, set[str]]) -> list[set[str]]:
    """
    Give the modules that reach each other, a set for each circle, the largest first.

    A module on no circle is in none of the sets; one that imports itself is in one of its own.
    Modules that stand only on the right of the graph import nothing.
    """
    reached = {name: _reached_from(name, graph) for name in graph}
    found: list[set[str]] = []
    for name in sorted(graph):
        if name in reached[name] and not any(name in circle for circle in found):
            found.append({other for other in reached[name] if name in reached.get(other, set())})
    return sorted(found, key=len, reverse=True)


def _reached_from(name: str, graph: dict[str, set[str]]) -> set[str]:
    """Give all that a module imports, directly or by way of others."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        for other in graph.get(waiting.pop(), ()):
            if other not in reached:
                reached.add(other)
                waiting.append(other)
    return reached
