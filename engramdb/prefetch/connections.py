"""Where the strongest connections of a memory lead: a guess at what is loaded next, where nothing
is known of what was loaded after it."""

from __future__ import annotations

from typing import Final

from engramdb.lsm.adjacency import SegmentEdges
from engramdb.lsm.keys import from_list, split
from engramdb.lsm.records import is_connection
from engramdb.lsm.snapshot import Snapshot

_FEW: Final = 256
"""A memory with more connections than that in one run says nothing about which comes next."""


def strongest(snapshot: Snapshot, key: bytes, count: int) -> list[bytes]:
    """The memories that the strongest connections of a memory lead to, the strongest first.

    Only of runs whose connections somebody has followed already: their order is in memory then. An
    agent that does not follow connections is not going to load along them.
    """
    found: dict[bytes, float] = {}
    matrix = from_list([key])
    for table in snapshot.version.tables():
        if len(table.outgoing.get(key, ())) <= _FEW:
            for row in table.adjacent(key, snapshot.seq, incoming=False):
                _, target, _, strength = table.ends[row]
                found[target] = max(strength, found.get(target, 0.0))
    for segment in snapshot.version.segments:
        if not segment.is_followed:
            continue
        first, last = segment.by_source.stretch(key)
        if first == last or last - first > _FEW:
            continue
        edges = SegmentEdges(segment, snapshot.seq).expand(*split(matrix), incoming=False)
        targets = zip(edges.high.tolist(), edges.low.tolist(), strict=True)
        codes, strengths = edges.type_code.tolist(), edges.strength.tolist()
        for (far_high, far_low), code, strength in zip(targets, codes, strengths, strict=True):
            if is_connection(edges.types[code]):
                target = far_high.to_bytes(8, "big") + far_low.to_bytes(8, "big")
                found[target] = max(strength, found.get(target, 0.0))
    found.pop(key, None)
    return sorted(found, key=lambda target: (-found[target], target))[:count]
