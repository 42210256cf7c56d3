"""Small graphs, and a graph as plain dicts: what those of the database are compared with."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Collection, Iterable
from typing import Any

from engramdb import Database, MemoryNode

Name = tuple[str, str, str]
"""Source, target and type of a connection."""


def some(db: Database, count: int) -> list[str]:
    """Ids in ascending order."""
    return db.save_many([MemoryNode() for _ in range(count)])


def chain(db: Database, ids: list[str], **how: Any) -> None:
    """Connect each memory to the next."""
    for source, target in itertools.pairwise(ids):
        db.connect(source, target, **how)


def key_of(memory_id: str) -> bytes:
    """The 16-byte key of an id."""
    return uuid.UUID(memory_id).bytes


class PlainGraph:
    """Connections and their strengths. Memories are known by their ids."""

    def __init__(
        self, memories: Iterable[str] = (), edges: dict[Name, float] | None = None
    ) -> None:
        self.memories = set(memories)
        self.edges = dict(edges or {})

    def copy(self) -> PlainGraph:
        """The same, to be changed."""
        return PlainGraph(self.memories, self.edges)

    def delete(self, memory: str) -> None:
        """Remove a memory and its connections."""
        self.memories.discard(memory)
        self.edges = {name: s for name, s in self.edges.items() if memory not in name[:2]}

    def steps(
        self, types: Collection[str] | None, min_strength: float, direction: str
    ) -> list[tuple[str, str, float]]:
        """(from, to, strength) of every step that may be taken."""
        found = []
        for (source, target, kind), strength in self.edges.items():
            if (types is not None and kind not in types) or strength < min_strength:
                continue
            if direction in ("outgoing", "both"):
                found.append((source, target, strength))
            if direction == "incoming" or (direction == "both" and source != target):
                found.append((target, source, strength))
        return found

    def traverse(self, starts: Iterable[str], hops_max: int, **rule: Any) -> list[tuple[str, int]]:
        """(id, hops), ordered by hops and id."""
        steps = self.steps(**rule)
        frontier = seen = set(starts)
        visits = []
        for hops in range(1, hops_max + 1):
            frontier = {b for a, b, _ in steps if a in frontier} - seen
            seen = seen | frontier
            visits += [(each, hops) for each in sorted(frontier)]
        return visits

    def shortest_path(
        self, source: str, target: str, hops_max: int | None, **rule: Any
    ) -> list[str] | None:
        """The first in order of all shortest paths: found by making all of them."""
        steps = self.steps(**rule)
        paths = [[source]]
        for _ in range(len(self.memories) if hops_max is None else hops_max):
            reached = [path for path in paths if path[-1] == target]
            if reached:
                return min(reached)
            longer = {(*path, b) for path in paths for a, b, _ in steps if a == path[-1]}
            best: dict[str, tuple[str, ...]] = {}
            for path in sorted(longer):  # of those that end alike, the first goes on
                best.setdefault(path[-1], path)
            paths = [list(path) for path in best.values()]
        reached = [path for path in paths if path[-1] == target]
        return min(reached) if reached else None

    def activation(
        self, seeds: dict[str, float], decay: float, hops_max: int, least: float, **rule: Any
    ) -> dict[str, float]:
        """What has arrived at each memory, hop by hop."""
        steps = self.steps(**rule)
        energies, total = dict(seeds), dict(seeds)
        for _ in range(hops_max):
            arrived: dict[str, float] = {}
            for a, b, strength in steps:
                if energies.get(a, 0.0) * strength > 0.0:
                    arrived[b] = arrived.get(b, 0.0) + energies[a] * decay * strength
            energies = {each: energy for each, energy in arrived.items() if energy >= least}
            for each, energy in energies.items():
                total[each] = total.get(each, 0.0) + energy
        return total
