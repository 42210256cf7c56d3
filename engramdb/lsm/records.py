"""What goes into the log and what comes out: batches, records, commits. Plain values, no I/O.

A key is 16 bytes. Each record belongs to a class: a memory (key: its UUID), an edge (key: a hash of
source, target and type, see `edge_key`) or meta (bookkeeping that keeps only its last version).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

MEMORY: Final = 0
EDGE: Final = 1
META: Final = 2
CLASSES: Final = (MEMORY, EDGE, META)

PUT: Final = 0
PATCH: Final = 1  # shares the vector of its immediate predecessor
TOMBSTONE: Final = 2

NO_VECTOR: Final = 0  # vector number of a record without one; real ones start at 1
NEVER: Final = 2**64 - 1  # superseded-at of a version that is current

Vector = npt.NDArray[np.float32]
Ends = tuple[bytes, bytes, str, float]  # of an edge: source, target, type, strength


class Record(NamedTuple):
    """One version. `superseded` is the seq of the next version of this key, or NEVER."""

    key: bytes
    seq: int
    time: int  # microseconds since the epoch
    kind: int
    payload: bytes
    vector: int  # vector number, or NO_VECTOR
    superseded: int


class Edge(NamedTuple):
    """One version of an edge. A tombstone keeps its ends, so that a diff can name them."""

    key: bytes
    seq: int
    time: int
    kind: int
    payload: bytes
    source: bytes
    target: bytes
    type: str
    strength: float
    superseded: int


class Commit(NamedTuple):
    """A commit that was sequenced: its number and its time in microseconds since the epoch."""

    seq: int
    time: int


class Change(NamedTuple):
    """A commit as others see it: which keys it wrote, as (class, key, kind)."""

    seq: int
    time: int
    operations: list[tuple[int, bytes, int]]


def edge_key(source: bytes, target: bytes, type: str) -> bytes:
    """The key of an edge: xxh3-128 over source, target and type (UTF-8). Parallel edges of
    different types have different keys."""
    return xxhash.xxh3_128_digest(source + target + type.encode())


def is_connection(type: str) -> bool:
    """Whether an edge of this type is a connection, which callers see. A type that starts with NUL
    is the database's own: callers cannot make one, and are not shown it."""
    return not type.startswith("\0")


@dataclass(slots=True)
class Operation:
    """One write of a batch. Only an edge uses source, target, type and strength."""

    record_class: int
    key: bytes
    kind: int
    payload: bytes = b""
    vector: Vector | None = None
    shares: int = NO_VECTOR  # vector number that `vector` equals bit for bit, if known
    source: bytes = b""
    target: bytes = b""
    type: str = ""
    strength: float = 0.0


@dataclass(slots=True)
class Batch:
    """The writes of one atomic commit. A later write of a key replaces an earlier one.

    `expect` maps (class, key) to the seq that the newest version must have when the commit is
    sequenced (0: there must be none, a tombstone counts as none); otherwise ConflictError.
    `guards` are called at that moment with a Snapshot of everything sequenced before; if one
    returns False the commit raises GuardFailed, nothing is written, and the caller builds anew; or,
    if there is a `rebuild`, that is called with the same snapshot to mend `operations` on the spot.
    """

    operations: dict[tuple[int, bytes], Operation] = field(default_factory=dict)
    expect: dict[tuple[int, bytes], int] = field(default_factory=dict)
    guards: list[Callable[[Any], bool]] = field(default_factory=list)
    rebuild: Callable[[Any], None] | None = None

    def put(
        self, key: bytes, payload: bytes, vector: Vector | None = None, shares: int = NO_VECTOR
    ) -> None:
        """Write a memory. With `shares` the engine stores no second copy of the vector if the
        newest version still has that vector number, and `vector` itself if it does not."""
        self.operations[MEMORY, key] = Operation(MEMORY, key, PUT, payload, vector, shares)

    def delete(self, key: bytes) -> None:
        """Write a memory's tombstone."""
        self.operations[MEMORY, key] = Operation(MEMORY, key, TOMBSTONE)

    def put_edge(
        self, source: bytes, target: bytes, type: str, strength: float, payload: bytes
    ) -> None:
        """Write an edge."""
        key = edge_key(source, target, type)
        self.operations[EDGE, key] = Operation(
            EDGE, key, PUT, payload, None, NO_VECTOR, source, target, type, strength
        )

    def delete_edge(self, source: bytes, target: bytes, type: str) -> None:
        """Write an edge's tombstone."""
        key = edge_key(source, target, type)
        self.operations[EDGE, key] = Operation(
            EDGE, key, TOMBSTONE, b"", None, NO_VECTOR, source, target, type
        )

    def put_meta(self, key: bytes, payload: bytes) -> None:
        """Write bookkeeping that keeps only its last version."""
        self.operations[META, key] = Operation(META, key, PUT, payload)


class GuardFailed(Exception):
    """A guard of the batch returned False: build the batch anew from a fresh snapshot."""
