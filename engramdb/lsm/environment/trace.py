"""What a simulated disk was asked to do, in order: enough to know what a power cut could leave.

Reads are not in it (they leave nothing). Files and directories go by their node numbers, because a
name is one of the things that a crash may take away. Markers say what the caller had issued and
what had been acknowledged to it, so that a checker knows at each point what must be there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from xxhash import xxh3_128_digest

from engramdb.lsm.environment.namespace import ROOT, Change

SECTOR_BYTES = 512


class Write(NamedTuple):
    """`data` was written at `offset`; pending until a sync."""

    file: int
    offset: int
    data: bytes

    @property
    def sectors(self) -> int:
        """How many 512-byte sectors of the file it touches."""
        return (self.offset + len(self.data) - 1) // SECTOR_BYTES - self.offset // SECTOR_BYTES + 1


class Truncate(NamedTuple):
    """The file was cut or extended to `length`; pending until a sync."""

    file: int
    length: int


class Sync(NamedTuple):
    """Everything pending in the file is durable, but for what an earlier failed sync lost."""

    file: int


class SyncFailed(NamedTuple):
    """A sync reported an error. What was pending is gone (`dropped`), or any part of it may be
    durable, and no later sync changes that."""

    file: int
    dropped: bool


class NamesChanged(NamedTuple):
    """Names changed, in one atomic step: create, link, rename or unlink; pending until the last
    entry's directory is synced. `makes_directory` is the number of a new, empty directory."""

    operation: str
    change: Change
    makes_directory: int | None = None


class SyncDirectory(NamedTuple):
    """The pending names of the directory are durable."""

    directory: int


class SyncDirectoryFailed(NamedTuple):
    """A directory sync reported an error: no later one helps what was pending."""

    directory: int


class Rot(NamedTuple):
    """A bit of the durable content flipped."""

    file: int
    bit: int


class Planted(NamedTuple):
    """The file holds `data` now, durably, whatever was pending in it."""

    file: int
    data: bytes


class NamePlanted(NamedTuple):
    """The name stands for `node` now (None: for nothing), durably, whatever was pending for it."""

    directory: int
    name: str
    node: int | None


class Issued(NamedTuple):
    """Marker: the caller is about to ask for `what`."""

    what: object


class Acknowledged(NamedTuple):
    """Marker: the caller was told that `what` is durable."""

    what: object


Event = (
    Write
    | Truncate
    | Sync
    | SyncFailed
    | NamesChanged
    | SyncDirectory
    | SyncDirectoryFailed
    | Rot
    | Planted
    | NamePlanted
    | Issued
    | Acknowledged
)


class Content:
    """The immutable bytes of a file in an image, shared between images, with their digest."""

    __slots__ = ("_digest", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._digest: bytes | None = None

    @property
    def digest(self) -> bytes:
        """xxh3-128 of the bytes."""
        if self._digest is None:
            self._digest = xxh3_128_digest(self.data)
        return self._digest


class Image(NamedTuple):
    """What a disk holds when nobody uses it: file contents and directories by node number. Nobody
    changes one. Equal fingerprints mean the same names with the same bytes."""

    files: dict[int, Content]
    directories: dict[int, dict[str, int]]
    fingerprint: bytes


EMPTY = Image({}, {ROOT: {}}, b"")


@dataclass(slots=True)
class Trace:
    """Everything a disk was asked since it was `base`. `generation` counts the crashes before."""

    base: Image = EMPTY
    seed: int = 0
    generation: int = 0
    events: list[Event] = field(default_factory=list)
