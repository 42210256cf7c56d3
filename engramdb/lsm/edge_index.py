"""The edges of a memtable as arrays that grow with it, made by those who read.

The memtable is the truth; this follows it. Edge i of a memtable never changes, so its values are
written once, behind those that readers use already; two readers who do it at the same time write
the same. What readers hold is a state, replaced by one assignment: no lock is taken.

A prefix of the edges is sorted by source and by target; the rest, at most an eighth, is looked
through. So each edge is sorted some eight times while the memtable grows, however often it is read.
"""

from __future__ import annotations

from array import array
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from engramdb.lsm.adjacency import Neighbours, ends_of, neighbours_of
from engramdb.lsm.keys import (
    U64,
    KeyMatrix,
    Rows,
    from_list,
    order_of,
    positions,
    ranges,
    spans,
    split,
)
from engramdb.lsm.records import TOMBSTONE, Ends
from engramdb.lsm.rows import EdgeColumns

TAIL_MIN: Final = 2_048
"""Edges that are looked through rather than sorted, whatever the size of the rest."""

_COPY_SHARE: Final = 32  # below one in so many, single values are cheaper than the whole column


class _Sorted(NamedTuple):
    """The first edges, in the order of one of their ends."""

    order: Rows
    high: U64
    low: U64


class _State(NamedTuple):
    """`length` edges in arrays that may be longer."""

    length: int
    rows: Rows
    seq: U64
    lives: npt.NDArray[np.bool_]  # not a tombstone
    edges: EdgeColumns
    codes: dict[str, int]
    sorted_ends: tuple[_Sorted | None, _Sorted | None]  # by source, by target


def _room(count: int) -> _State:
    def column() -> U64:
        return np.empty(count, np.uint64)

    edges = EdgeColumns(
        column(), column(), column(), column(), column(), np.empty(count, np.float64), []
    )
    rows, lives = np.empty(count, np.int64), np.empty(count, np.bool_)
    return _State(0, rows, column(), lives, edges, {}, (None, None))


class EdgeTable(Protocol):
    """What the index follows; see engramdb.lsm.memtable.Memtable."""

    keys: list[bytes]
    seq: array[int]
    kind: array[int]
    superseded: array[int]
    ends: dict[int, Ends]
    edge_rows: array[int]
    edge_index: EdgeIndex


class EdgeIndex:
    """The arrays of one memtable, which comes with each call: a cycle would keep both alive."""

    __slots__ = ("_state",)

    def __init__(self) -> None:
        self._state = _room(0)

    def _follow(self, table: EdgeTable) -> _State:
        """A state with all edges that the memtable holds by now."""
        state = self._state
        stop = len(table.edge_rows)
        start = state.length
        if stop <= start:
            return state
        if stop > len(state.rows):
            state = _grown(state, max(64, 2 * stop))
        rows = table.edge_rows[start:stop]
        listed = rows.tolist()
        sources, targets, types, strengths = zip(*[table.ends[row] for row in listed], strict=True)
        edges, codes = state.edges, state.codes
        if not codes.keys() >= set(types):
            codes = dict(codes)  # others may be reading it
        part = slice(start, stop)
        edges.source_high[part], edges.source_low[part] = split(from_list(list(sources)))
        edges.target_high[part], edges.target_low[part] = split(from_list(list(targets)))
        # the code of a type is its rank by first occurrence: everybody comes to the same
        edges.type_code[part] = [codes.setdefault(name, len(codes)) for name in types]
        edges.strength[part] = strengths
        state.rows[part] = np.frombuffer(rows, np.int64)
        state.seq[part] = [table.seq[row] for row in listed]
        state.lives[part] = [table.kind[row] != TOMBSTONE for row in listed]
        if len(codes) != len(edges.types):
            edges = _with_types(edges, list(codes))
        self._state = state = state._replace(length=stop, edges=edges, codes=codes)
        return state

    def _sorted(self, state: _State, *, incoming: bool) -> _Sorted | None:
        """The sorted prefix of a state; sorted anew if what follows it has grown too long."""
        known = state.sorted_ends[incoming]
        length = 0 if known is None else len(known.order)
        if state.length - length <= max(TAIL_MIN, length // 8):
            return known
        high, low = ends_of(state.edges, incoming=incoming)
        high, low = high[: state.length], low[: state.length]
        order = order_of(high, low)
        known = _Sorted(order, high[order], low[order])
        both = (state.sorted_ends[0], known) if incoming else (known, state.sorted_ends[1])
        self._state = state._replace(sorted_ends=both)
        return known

    def expand(
        self, table: EdgeTable, high: U64, low: U64, seq: int, *, incoming: bool
    ) -> Neighbours:
        """The edges visible at a seq that leave (or reach) these memories; see EdgeRun."""
        state = self._follow(table)
        known = self._sorted(state, incoming=incoming)
        length = 0 if known is None else len(known.order)
        near_high, near_low = ends_of(state.edges, incoming=incoming)
        tail = positions(
            high, low, near_high[length : state.length], near_low[length : state.length]
        )
        at = np.flatnonzero(tail >= 0)
        near, at = tail[at], at + length
        if known is not None:
            places, whose = ranges(*spans(known.high, known.low, high, low))
            at = np.concatenate((known.order[places], at))
            near = np.concatenate((whose, near))
        visible = state.lives[at] & (state.seq[at] <= np.uint64(seq))
        at, near = at[visible], near[visible]
        rows = state.rows[at]
        visible = _values(table.superseded, rows) > np.uint64(seq)
        if not bool(visible.all()):
            at, near, rows = at[visible], near[visible], rows[visible]
        return neighbours_of(state.edges, at, near, rows, incoming=incoming)


class TableEdges:
    """The edges of a memtable that are visible at a seq; see EdgeRun."""

    __slots__ = ("_seq", "_table")

    def __init__(self, table: EdgeTable, seq: int) -> None:
        self._table = table
        self._seq = seq

    def expand(self, high: U64, low: U64, *, incoming: bool) -> Neighbours:
        """See EdgeRun."""
        table = self._table
        return table.edge_index.expand(table, high, low, self._seq, incoming=incoming)

    def keys(self, rows: Rows) -> KeyMatrix:
        """See EdgeRun."""
        return from_list([self._table.keys[row] for row in rows.tolist()])


def _grown(state: _State, size: int) -> _State:
    """The same edges in longer arrays; those who hold the old ones keep them."""
    new, count = _room(size), state.length
    new.rows[:count], new.seq[:count] = state.rows[:count], state.seq[:count]
    new.lives[:count] = state.lives[:count]
    for name in ("source_high", "source_low", "target_high", "target_low", "type_code", "strength"):
        getattr(new.edges, name)[:count] = getattr(state.edges, name)[:count]
    edges = _with_types(new.edges, state.edges.types)
    return new._replace(length=count, edges=edges, codes=state.codes, sorted_ends=state.sorted_ends)


def _with_types(edges: EdgeColumns, types: list[str]) -> EdgeColumns:
    return EdgeColumns(
        edges.source_high,
        edges.source_low,
        edges.target_high,
        edges.target_low,
        edges.type_code,
        edges.strength,
        types,
    )


def _values(column: array[int], rows: Rows) -> U64:
    """Values of a column that a writer appends to: it must never export its buffer, so the part is
    copied, or single values are."""
    if len(rows) > 1 and len(rows) * _COPY_SHARE < len(column):
        return np.array(itemgetter(*rows.tolist())(column), np.uint64)
    stop = int(rows.max()) + 1 if len(rows) else 0
    return np.frombuffer(column[:stop], np.uint64)[rows]
