"""What goes into the log and what comes out: batches, records, commits. Plain values, no I/O.

A key is 16 bytes. Each record belongs to a class: a memory (key: its UUID), an edge (key: a hash of
source, target and type, see `edge_key`) or meta (bookkeeping that keeps only its last version).

A memory has at most one vector of its own, in the default space "". Each further one, in a space
with a name, belongs to an edge from the memory to itself, whose reserved type names the space and
the row (`vector_type`). So it begins and ends as edges do; such an edge is no connection.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.lsm.limits import SLOTS_MAX, SPACE_NAME_BYTES_MAX

MEMORY: Final = 0
EDGE: Final = 1
META: Final = 2
CLASSES: Final = (MEMORY, EDGE, META)

PUT: Final = 0
PATCH: Final = 1  # shares the vector of its immediate predecessor
TOMBSTONE: Final = 2

NO_VECTOR: Final = 0  # vector number of a record without one; real ones start at 1
NEVER: Final = 2**64 - 1  # superseded-at of a version that is current
DEFAULT_SPACE: Final = ""  # of the vectors that memories have themselves
_RESERVED: Final = "\0"  # a type that begins with it is nobody's but ours

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
    vector: int = NO_VECTOR  # vector number, if its type says that it carries one


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


def vector_type(space: str, slot: int) -> str:
    """The type of the edge that carries row `slot` of a memory's vectors in a named space."""
    return f"{_RESERVED}{space}{_RESERVED}{slot}"


def space_of(type: str) -> str | None:
    """The named space whose vector an edge of this type carries; None if it is a connection."""
    place = place_of(type)
    return None if place is None else place[0]


def place_of(type: str) -> tuple[str, int] | None:
    """Space and slot of the vector that an edge of this type carries; None for a connection."""
    if not type.startswith(_RESERVED):
        return None
    space, _, slot = type[1:].partition(_RESERVED)
    if not is_space_name(space) or not (slot.isascii() and slot.isdigit()) or len(slot) > 4:
        return None
    number = int(slot)
    return (space, number) if str(number) == slot and number < SLOTS_MAX else None


def is_connection(type: str) -> bool:
    """Whether an edge of this type is a connection between memories, and no carrier of a vector."""
    return not type.startswith(_RESERVED) or place_of(type) is None


def is_space_name(name: str) -> bool:
    """Whether a space may have this name: 1 to 64 bytes of UTF-8 without NUL."""
    if not name or _RESERVED in name or len(name) > SPACE_NAME_BYTES_MAX:
        return False
    return len(name.encode("utf-8", "surrogatepass")) <= SPACE_NAME_BYTES_MAX


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

    @property
    def space(self) -> str:
        """The space of its vector."""
        return DEFAULT_SPACE if self.record_class != EDGE else space_of(self.type) or DEFAULT_SPACE

    @property
    def owner(self) -> bytes:
        """The memory that its vector belongs to."""
        return self.source if self.record_class == EDGE else self.key


@dataclass(slots=True)
class Batch:
    """The writes of one atomic commit. A later write of a key replaces an earlier one.

    `expect` maps (class, key) to the seq that the newest version must have when the commit is
    sequenced (0: there must be none, a tombstone counts as none); otherwise ConflictError.
    `guards` are called at that moment with a Snapshot of everything sequenced before; if one
    returns False the commit raises GuardFailed, nothing is written, and the caller builds anew; or,
    if there is a `rebuild`, that is called with the same snapshot to mend `operations` on the spot.
    `knows_no_spaces`: it was built when no space had a name; GuardFailed if one has by then.
    """

    operations: dict[tuple[int, bytes], Operation] = field(default_factory=dict)
    expect: dict[tuple[int, bytes], int] = field(default_factory=dict)
    guards: list[Callable[[Any], bool]] = field(default_factory=list)
    rebuild: Callable[[Any], None] | None = None
    knows_no_spaces: bool = False

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

    def put_vector(self, memory: bytes, space: str, slot: int, vector: Vector) -> None:
        """Write one row of a memory's vectors in a named space. Remove it with delete_vector()."""
        type = vector_type(space, slot)
        key = edge_key(memory, memory, type)
        self.operations[EDGE, key] = Operation(
            EDGE, key, PUT, b"", vector, NO_VECTOR, memory, memory, type, 1.0
        )

    def delete_vector(self, memory: bytes, space: str, slot: int) -> None:
        """Remove one row of a memory's vectors in a named space."""
        self.delete_edge(memory, memory, vector_type(space, slot))

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
