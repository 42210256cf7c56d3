"""What the database must answer, in the plainest way: a dict of versions, and no cleverness.

A name is ("memory", id) or ("edge", (source, target, type)). Its versions are pairs (seq, state);
state None is a deletion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

Name = tuple[str, Any]


class WouldConflict(Exception):
    """The database must raise ConflictError."""


@dataclass(frozen=True)
class Memory:
    """A memory's state."""

    creation: datetime
    attributes: dict[str, Any]
    vector: tuple[float, ...] | None


@dataclass(frozen=True)
class Edge:
    """A connection's state."""

    creation: datetime
    strength: float
    attributes: dict[str, Any]


State = Memory | Edge | None


class Oracle:
    """All versions of everything, and the last seq."""

    def __init__(self) -> None:
        self.seq = 0
        self.versions: dict[Name, list[tuple[int, State]]] = {}
        self.tags: dict[str, int] = {}

    def copy(self) -> Oracle:
        other = Oracle()
        other.seq = self.seq
        other.versions = {name: list(versions) for name, versions in self.versions.items()}
        other.tags = dict(self.tags)
        return other

    # Writing

    def commit(self, seq: int, changes: dict[Name, State]) -> None:
        assert seq > self.seq
        self.seq = seq
        for name, state in changes.items():
            self.versions.setdefault(name, []).append((seq, state))

    def purge(self, memory_id: str) -> None:
        for name in list(self.versions):
            if name == ("memory", memory_id) or (name[0] == "edge" and memory_id in name[1][:2]):
                del self.versions[name]

    def crash(self, seq: int) -> None:
        """Commits after `seq` are lost."""
        self.seq = seq
        for name, versions in list(self.versions.items()):
            self.versions[name] = [version for version in versions if version[0] <= seq]
            if not self.versions[name]:
                del self.versions[name]
        self.tags = {name: at for name, at in self.tags.items() if at <= seq}

    # Reading

    def get(self, name: Name, seq: int | None = None) -> State:
        state: State = None
        for at, version in self.versions.get(name, ()):
            if seq is None or at <= seq:
                state = version
        return state

    def newest(self, name: Name) -> int:
        return self.versions[name][-1][0]

    def memories(self, seq: int | None = None) -> dict[str, Memory]:
        found = {}
        for name in self.versions:
            state = self.get(name, seq)
            if isinstance(state, Memory):
                found[name[1]] = state
        return found

    def edges(self, seq: int | None = None) -> dict[tuple[str, str, str], Edge]:
        found = {}
        for name in self.versions:
            state = self.get(name, seq)
            if isinstance(state, Edge):
                found[name[1]] = state
        return found

    def edges_of(self, memory_id: str, seq: int | None = None) -> list[Name]:
        return [("edge", ends) for ends in self.edges(seq) if memory_id in ends[:2]]

    def touched(self, since: int, until: int) -> list[Name]:
        return [
            name
            for name, versions in self.versions.items()
            if any(since < seq <= until for seq, _ in versions)
        ]

    def search(
        self, query: Iterable[float], limit: int, threshold: float, seq: int | None = None
    ) -> list[tuple[str, float]]:
        scored = []
        for memory_id, memory in self.memories(seq).items():
            if memory.vector is not None:
                score = cosine(tuple(query), memory.vector)
                if score >= threshold:
                    scored.append((memory_id, score))
        scored.sort(key=lambda hit: (-hit[1], hit[0]))
        return scored[:limit]

    # What a write comes to

    def deletion(self, memory_id: str) -> dict[Name, State]:
        """A memory and its connections, gone."""
        return dict.fromkeys([("memory", memory_id), *self.edges_of(memory_id)])

    def inverse(self, since: int, until: int) -> dict[Name, State]:
        """What brings back the state as of `since` of what (since, until] wrote."""
        changes: dict[Name, State] = {}
        for name in self.touched(since, until):
            if self.newest(name) > until:
                raise WouldConflict(name)
            old = self.get(name, since)
            if old is not None or self.get(name) is not None:
                changes[name] = old
        self._refuse_loose_ends(changes)
        return changes

    def _refuse_loose_ends(self, changes: dict[Name, State]) -> None:
        after = self.memories().keys() | {
            n[1] for n, s in changes.items() if n[0] == "memory" and s
        }
        after -= {n[1] for n, s in changes.items() if n[0] == "memory" and s is None}
        edges = {("edge", ends) for ends in self.edges()}
        edges |= {n for n, s in changes.items() if n[0] == "edge" and s is not None}
        edges -= {n for n, s in changes.items() if n[0] == "edge" and s is None}
        for _, (source, target, _) in edges:
            if source not in after or target not in after:
                raise WouldConflict((source, target))


def cosine(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """Rounded as the index rounds it, so that ties are ties."""
    norm = math.hypot(*one) * math.hypot(*other)
    if not norm:
        return 0.0
    return round(math.fsum(a * b for a, b in zip(one, other, strict=True)) / norm, 12)
