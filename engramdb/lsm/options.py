"""What an engine can be told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from engramdb.errors import InvalidInputError
from engramdb.lsm.attribute_columns import ColumnsOf
from engramdb.lsm.limits import DIMENSION_MAX
from engramdb.lsm.retention import History, KeepAll, check_history

SYNC: Final = "sync"  # every commit is synced before it is acknowledged
INTERVAL: Final = "interval"  # synced every sync_interval seconds
OS: Final = "os"  # left to the operating system
DURABILITIES: Final = (SYNC, INTERVAL, OS)


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of one opening; only the history policy and the dimension are kept in the files.

    durability: SYNC, INTERVAL or OS. sync_interval: seconds. memtable_bytes_max: when a memtable is
    flushed. bulk_bytes_min: a column batch from this size on goes around the log. cache_blocks:
    decompressed payload blocks kept. history: for a new database. background: flush and compaction
    in threads of their own; False runs them inline, which makes an engine deterministic.
    log_allocate_bytes: what a synced log is extended by; 0 appends. fan_in: runs merged at once.
    columns_of: makes attribute columns of the payloads of memories; None: there are none.
    on_files: called when the set of vector files has changed, and once when it is open: after a
    flush, a merge, a bulk load, a purge or a refresh() has shown the new files, by the thread that
    did it, without any lock. Not while the engine is being closed. It must be quick and must not
    raise: what it raises goes to threading.excepthook, and the engine goes on.
    """

    durability: str = SYNC
    sync_interval: float = 0.1
    memtable_bytes_max: int = 64 * 2**20
    bulk_bytes_min: int = 8 * 2**20
    cache_blocks: int = 256
    history: History = field(default_factory=KeepAll)
    dimension: int | None = None
    background: bool = True
    log_allocate_bytes: int = 2**20
    fan_in: int = 4
    columns_of: ColumnsOf | None = None
    on_files: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        if self.durability not in DURABILITIES:
            raise InvalidInputError("durability", f"one of {DURABILITIES}, not {self.durability!r}")
        if not 0 < self.sync_interval <= 3600:
            raise InvalidInputError("sync_interval", f"{self.sync_interval!r} seconds")
        for name, least in (
            ("memtable_bytes_max", 1024),
            ("bulk_bytes_min", 1),
            ("cache_blocks", 1),
            ("log_allocate_bytes", 0),
            ("fan_in", 2),
        ):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise InvalidInputError(name, f"a whole number from {least} on, not {value!r}")
        check_history(self.history)
        if self.dimension is not None and not 1 <= self.dimension <= DIMENSION_MAX:
            raise InvalidInputError("dimension", f"1 to {DIMENSION_MAX}, not {self.dimension!r}")
