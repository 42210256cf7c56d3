"""A commit as `changes()` tells of it: what it wrote, by name."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from engramdb.lsm.records import EDGE, MEMORY, TOMBSTONE, Edge, is_connection
from engramdb.model.identifiers import format_key
from engramdb.model.moments import from_microseconds

if TYPE_CHECKING:
    from engramdb.lsm import StorageEngine

Ends = tuple[str, str, str]
"""The name of a connection: source id, target id, relationship type."""


@dataclass(frozen=True, slots=True)
class Commit:
    """One atomic commit. `seq` is its number, `timestamp` its time (UTC). The names are sorted."""

    seq: int
    timestamp: datetime
    saved: list[str]
    deleted: list[str]
    connected: list[Ends]
    disconnected: list[Ends]


def commits_since(engine: StorageEngine, since_seq: int) -> list[Commit]:
    """The commits after `since_seq`, oldest first. What was purged is named nowhere any more."""
    snapshot = engine.latest()
    ends: dict[bytes, Ends | None] = {}
    commits = []
    for change in engine.changes(since_seq, snapshot.seq):
        commit = Commit(change.seq, from_microseconds(change.time), [], [], [], [])
        for record_class, key, kind in change.operations:
            gone = kind == TOMBSTONE
            if record_class == MEMORY:
                (commit.deleted if gone else commit.saved).append(format_key(key))
            elif record_class == EDGE:
                if key not in ends:  # every version of a connection has the same ends
                    ends[key] = _ends(snapshot.find(EDGE, key))
                name = ends[key]
                if name is not None:
                    (commit.disconnected if gone else commit.connected).append(name)
        for names in (commit.saved, commit.deleted, commit.connected, commit.disconnected):
            names.sort()
        commits.append(commit)
    return commits


def _ends(edge: object) -> Ends | None:
    if not isinstance(edge, Edge) or not is_connection(edge.type):
        return None
    return format_key(edge.source), format_key(edge.target), edge.type
