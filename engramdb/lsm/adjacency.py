"""Edges as arrays: from many memories at once, all visible edges that are one step away.

A Snapshot consists of runs, one for each memtable and segment that holds edges. Each visible edge
is visible in one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engramdb.lsm.keys import U64, KeyMatrix, Rows, positions, ranges, spans
from engramdb.lsm.records import EDGE
from engramdb.lsm.rows import EdgeColumns
from engramdb.lsm.segment import Segment


@dataclass(slots=True)
class Neighbours:
    """Edges, one entry each: `near` says which of the memories that were asked for it leaves, or
    reaches; `high` and `low` are the key of the memory at its other end."""

    near: Rows
    high: U64
    low: U64
    type_code: U64  # index into types
    strength: npt.NDArray[np.float64]
    types: Sequence[str]
    rows: Rows  # of the run, for keys()

    def __len__(self) -> int:
        return len(self.near)

    def take(self, chosen: Rows | npt.NDArray[np.bool_]) -> Neighbours:
        """These edges, by number or mask."""
        return Neighbours(
            self.near[chosen],
            self.high[chosen],
            self.low[chosen],
            self.type_code[chosen],
            self.strength[chosen],
            self.types,
            self.rows[chosen],
        )


class EdgeRun(Protocol):
    """Edges that a traversal follows."""

    def expand(self, high: U64, low: U64, *, incoming: bool) -> Neighbours:
        """The visible edges that leave (or reach) these memories, whose keys are sorted and
        distinct."""

    def keys(self, rows: Rows) -> KeyMatrix:
        """The keys of edges, by their `rows`: (n, 16) uint8."""


class SegmentEdges:
    """The edges of a segment that are visible at a seq."""

    __slots__ = ("_segment", "_seq")

    def __init__(self, segment: Segment, seq: int) -> None:
        self._segment = segment
        self._seq = seq

    def expand(self, high: U64, low: U64, *, incoming: bool) -> Neighbours:
        """See EdgeRun."""
        segment, seq = self._segment, np.uint64(self._seq)
        ends = segment.by_target if incoming else segment.by_source
        places, near = ranges(*spans(ends.high, ends.low, high, low))
        at = ends.order[places]
        rows = at + segment.ranges[EDGE][0]
        visible = segment.edge_until.array()[at] > seq
        if segment.entry.seq_max > self._seq:
            visible &= segment.seq.take(rows) <= seq
        if not bool(visible.all()):
            at, near, rows = at[visible], near[visible], rows[visible]
        return neighbours_of(segment.edges, at, near, rows, incoming=incoming)

    def keys(self, rows: Rows) -> KeyMatrix:
        """See EdgeRun."""
        return self._segment.keys(rows)


def neighbours_of(
    edges: EdgeColumns, at: Rows, near: Rows, rows: Rows, *, incoming: bool
) -> Neighbours:
    """The edges at these places of the columns."""
    far_high, far_low = (
        (edges.source_high, edges.source_low) if incoming else (edges.target_high, edges.target_low)
    )
    return Neighbours(
        near,
        far_high[at],
        far_low[at],
        edges.type_code[at],
        edges.strength[at],
        edges.types,
        rows,
    )


class ListedEdges:
    """A few edges, all of them visible: those that a transaction has not saved yet."""

    __slots__ = ("_edges", "_keys")

    def __init__(self, edges: EdgeColumns, keys: list[bytes]) -> None:
        self._edges = edges
        self._keys = keys

    def expand(self, high: U64, low: U64, *, incoming: bool) -> Neighbours:
        """See EdgeRun."""
        edges = self._edges
        near = positions(high, low, *ends_of(edges, incoming=incoming))
        at = np.flatnonzero(near >= 0)
        return neighbours_of(edges, at, near[at], at, incoming=incoming)

    def keys(self, rows: Rows) -> KeyMatrix:
        """See EdgeRun."""
        chosen = b"".join([self._keys[row] for row in rows.tolist()])
        return np.frombuffer(chosen, np.uint8).reshape(-1, 16)


class HiddenEdges:
    """A run without the edges of these keys, which are sorted: a transaction has written them."""

    __slots__ = ("_high", "_low", "_run")

    def __init__(self, run: EdgeRun, high: U64, low: U64) -> None:
        self._run = run
        self._high, self._low = high, low

    def expand(self, high: U64, low: U64, *, incoming: bool) -> Neighbours:
        """See EdgeRun."""
        found = self._run.expand(high, low, incoming=incoming)
        pair = self._run.keys(found.rows).view(">u8").astype(np.uint64)
        written = positions(self._high, self._low, pair[:, 0], pair[:, 1]) >= 0
        return found.take(~written) if bool(written.any()) else found

    def keys(self, rows: Rows) -> KeyMatrix:
        """See EdgeRun."""
        return self._run.keys(rows)


def ends_of(edges: EdgeColumns, *, incoming: bool) -> tuple[U64, U64]:
    """The keys at that end of edges from which they are followed."""
    if incoming:
        return edges.target_high, edges.target_low
    return edges.source_high, edges.source_low
