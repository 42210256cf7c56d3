"""Many versions at once, as columns: what a memtable becomes at its flush and compaction works
on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, KeyMatrix, Rows, from_list, join, split
from engramdb.lsm.records import DEFAULT_SPACE, EDGE, Ends, space_of

U8 = npt.NDArray[np.uint8]


@dataclass(slots=True)
class EdgeColumns:
    """What only edges have: one entry for each row of class EDGE, in the order of the rows."""

    source_high: U64
    source_low: U64
    target_high: U64
    target_low: U64
    type_code: U64  # index into types
    strength: npt.NDArray[np.float64]
    types: list[str]

    def __len__(self) -> int:
        return len(self.strength)

    @classmethod
    def empty(cls) -> EdgeColumns:
        """No edges."""
        none = np.empty(0, np.uint64)
        return cls(none, none, none, none, none, np.empty(0, np.float64), [])

    @classmethod
    def of(cls, ends: list[Ends]) -> EdgeColumns:
        """From the ends of edges, one after the other."""
        if not ends:
            return cls.empty()
        sources, targets, types, strengths = zip(*ends, strict=True)
        codes: dict[str, int] = {}
        return cls(
            *split(from_list(list(sources))),
            *split(from_list(list(targets))),
            np.array([codes.setdefault(name, len(codes)) for name in types], np.uint64),
            np.array(strengths, np.float64),
            list(codes),
        )

    def take(self, rows: Rows) -> EdgeColumns:
        """These edges, in this order."""
        return EdgeColumns(
            self.source_high[rows],
            self.source_low[rows],
            self.target_high[rows],
            self.target_low[rows],
            self.type_code[rows],
            self.strength[rows],
            self.types,
        )

    @staticmethod
    def concatenate(parts: list[EdgeColumns]) -> EdgeColumns:
        """One after another, under one table of types."""
        types: dict[str, int] = {}
        codes = []
        for part in parts:
            mapping = [types.setdefault(name, len(types)) for name in part.types]
            codes.append(np.array(mapping, np.uint64)[part.type_code.astype(np.int64)])
        return EdgeColumns(
            np.concatenate([part.source_high for part in parts]),
            np.concatenate([part.source_low for part in parts]),
            np.concatenate([part.target_high for part in parts]),
            np.concatenate([part.target_low for part in parts]),
            np.concatenate(codes),
            np.concatenate([part.strength for part in parts]),
            list(types),
        )

    def sources(self) -> KeyMatrix:
        """(n, 16) uint8."""
        return join(self.source_high, self.source_low)

    def targets(self) -> KeyMatrix:
        """(n, 16) uint8."""
        return join(self.target_high, self.target_low)


@dataclass(slots=True)
class RowColumns:
    """Versions. `superseded` is NEVER for a current one, `vector` NO_VECTOR for one without."""

    record_class: U8
    high: U64
    low: U64
    seq: U64
    time: U64
    kind: U8
    vector: U64
    superseded: U64
    edges: EdgeColumns

    def __len__(self) -> int:
        return len(self.seq)

    @classmethod
    def empty(cls) -> RowColumns:
        """No versions."""
        flags, none = np.empty(0, np.uint8), np.empty(0, np.uint64)
        return cls(flags, none, none, none, none, flags, none, none, EdgeColumns.empty())

    def order(self) -> Rows:
        """The permutation into (class, key, seq descending)."""
        return np.lexsort((~self.seq, self.low, self.high, self.record_class))

    def take(self, rows: Rows) -> RowColumns:
        """These rows, in this order."""
        edges = self.edges
        if len(edges):
            position = np.cumsum(self.record_class == EDGE) - 1
            edges = edges.take(position[rows[self.record_class[rows] == EDGE]])
        return RowColumns(
            self.record_class[rows],
            self.high[rows],
            self.low[rows],
            self.seq[rows],
            self.time[rows],
            self.kind[rows],
            self.vector[rows],
            self.superseded[rows],
            edges,
        )

    @staticmethod
    def concatenate(parts: list[RowColumns]) -> RowColumns:
        """One after another."""
        return RowColumns(
            np.concatenate([part.record_class for part in parts]),
            np.concatenate([part.high for part in parts]),
            np.concatenate([part.low for part in parts]),
            np.concatenate([part.seq for part in parts]),
            np.concatenate([part.time for part in parts]),
            np.concatenate([part.kind for part in parts]),
            np.concatenate([part.vector for part in parts]),
            np.concatenate([part.superseded for part in parts]),
            EdgeColumns.concatenate([part.edges for part in parts]),
        )

    def owners(self) -> tuple[U64, U64]:
        """(high, low) of the memory that the vector of each row belongs to: the row's own key, or
        the source of an edge."""
        at = np.flatnonzero(self.record_class == EDGE)
        if not len(at):
            return self.high, self.low
        high, low = self.high.copy(), self.low.copy()
        high[at], low[at] = self.edges.source_high, self.edges.source_low
        return high, low

    def spaces(self) -> npt.NDArray[np.object_]:
        """For each row the name of the space that its vector is in, if it has one; None for a
        connection."""
        made = np.full(len(self), DEFAULT_SPACE, np.object_)
        at = np.flatnonzero(self.record_class == EDGE)
        if len(at):
            names = np.array([space_of(name) for name in self.edges.types], np.object_)
            made[at] = names[self.edges.type_code.astype(np.int64)]
        return made

    def key_starts(self) -> npt.NDArray[np.bool_]:
        """True at the first row of each key; the rows are sorted."""
        starts = np.ones(len(self), np.bool_)
        starts[1:] = (
            (self.high[1:] != self.high[:-1])
            | (self.low[1:] != self.low[:-1])
            | (self.record_class[1:] != self.record_class[:-1])
        )
        return starts
