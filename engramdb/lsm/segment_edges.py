"""The visible connections of one memory, or between two, in a segment."""

from __future__ import annotations

from typing import Final

import numpy as np

from engramdb.lsm.keys import Rows
from engramdb.lsm.records import EDGE, Edge
from engramdb.lsm.segment import Segment

_FEW: Final = 64  # up to here one edge after the other is faster than arrays


def edges_around(segment: Segment, key: bytes, seq: int, *, incoming: bool) -> list[Edge]:
    """The connections that leave (or reach) a memory, visible at a seq."""
    start, stop = segment.ranges[EDGE]
    if start == stop:
        return []
    ends = segment.by_target if incoming else segment.by_source
    first, last = ends.stretch(key)
    if last - first > _FEW:
        return _visible(segment, ends.order[first:last], seq)
    if segment.carriers is not None:
        return _visible(segment, ends.order[first:last], seq)
    is_born, born = segment.entry.seq_max <= seq, segment.seq
    ends_at, kept_edge = segment.edge_until.view(), segment.kept_edge
    found = []
    for at in ends.view[first:last]:
        until = ends_at[at]
        if until > seq and (is_born or born[start + at] <= seq):
            found.append(kept_edge(start + at, until))
    return found


def edges_between(segment: Segment, source: bytes, target: bytes, seq: int) -> list[Edge]:
    """The connections from one memory to another, visible at a seq. One of the two may have many
    edges: the other is asked."""
    start, stop = segment.ranges[EDGE]
    if start == stop:
        return []
    by_source, by_target, edges = segment.by_source, segment.by_target, segment.edges
    first, last = by_source.stretch(source)
    first_back, last_back = by_target.stretch(target)
    if last - first <= last_back - first_back:
        at, far = by_source.order[first:last], target
        high, low = edges.target_high[at], edges.target_low[at]
    else:
        at, far = by_target.order[first_back:last_back], source
        high, low = edges.source_high[at], edges.source_low[at]
    far_high, far_low = np.frombuffer(far, ">u8").astype(np.uint64)
    return _visible(segment, at[(high == far_high) & (low == far_low)], seq)


def _visible(segment: Segment, at: Rows, seq: int) -> list[Edge]:
    """Those of these edges, by their numbers, that are visible at a seq and carry no vector."""
    carriers = segment.carriers
    if carriers is not None:
        at = at[~carriers[segment.edges.type_code[at].astype(np.int64)]]
    until = segment.edge_until.array()[at]
    rows = at + segment.ranges[EDGE][0]
    visible = until > np.uint64(seq)
    if segment.entry.seq_max > seq:
        visible &= segment.seq.take(rows) <= np.uint64(seq)
    return [
        segment.kept_edge(row, ends)
        for row, ends in zip(rows[visible].tolist(), until[visible].tolist(), strict=True)
    ]
