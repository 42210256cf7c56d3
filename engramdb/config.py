"""How a database is to be opened: one frozen value, checked hard before anything is touched."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, field
from typing import Final, TypedDict

from engramdb.errors import InvalidInputError
from engramdb.lsm.retention import History, KeepAll, check_history
from engramdb.model.limits import DIMENSION_MAX

INDEXES: Final = ("auto", "numpy", "exact")
INDEX_MEMORY_MAX: Final = 1024**4
DURABILITY_LEVELS: Final = ("sync", "interval", "os")
CACHE_SIZE_MAX: Final = 1_048_576
SYNC_INTERVAL_S_MAX: Final = 3_600.0
MEMTABLE_BYTES_MIN: Final = 1024
MEMTABLE_BYTES_MAX: Final = 4 * 1024**3
_SWITCHES: Final = (
    "use_memory_storage",
    "read_only",
    "background",
    "track_access",
    "adaptive",
    "prefetch",
)


class Settings(TypedDict, total=False):
    """The fields of `DatabaseConfig` that `Database.in_memory`, `file_based` and `open` take as
    keywords, beside the path."""

    cache_size: int
    durability: str
    sync_interval: float
    history: History
    dimension: int | None
    memtable_bytes: int
    background: bool
    track_access: bool
    recall_target: float
    index: str
    index_memory: int
    adaptive: bool
    prefetch: bool


@dataclass(frozen=True)
class DatabaseConfig:
    """Everything that is decided when a database is opened. A wrong value: InvalidInputError.

    use_memory_storage   keep everything in memory; nothing survives close()
    storage_dir          the directory of the database, created if it is not there
    cache_size           how many decompressed attribute blocks are kept in memory, from 1 on
    durability           what a save that returned can still lose:
                         "sync"      every commit is synced before it returns: nothing is lost,
                                     neither by a killed process nor by a power cut
                         "interval"  synced every `sync_interval` seconds: a killed process loses
                                     nothing, a power cut at most the last interval
                         "os"        left to the operating system: a killed process loses
                                     nothing, a power cut what the system had not written yet
    sync_interval        seconds, for durability "interval"
    history              KeepAll(), KeepLast(n) or KeepFor(timedelta): which older versions stay.
                         For a new database; one that is there keeps its own, see set_history()
    dimension            length of every vector; None: the first vector that is saved decides
    memtable_bytes       bytes of new memories held before they become a file of their own
    read_only            open to read while another process writes; every write: ReadOnlyError
    background           flush and compact in a thread of their own; False: inside the writes
    track_access         keep count of when memories are loaded: node.access_history
    recall_target        the share of the true nearest that a search has to find, in (0, 1], at a
                         confidence of 95%; 1.0: every search is a scan
    index                "auto"   large files get an index, with turbovec if it is installed
                         "numpy"  large files get an index, without turbovec
                         "exact"  every search is a scan
    index_memory         bytes that turbovec's codes may take; what does not fit is searched by
                         codes that are mapped
    adaptive             keep some of the queries that were asked, here and nowhere else, to tune
                         the index to them
    prefetch             learn what is loaded after what, and read ahead; needs files, background,
                         track_access and a cache_size of at least 32, and does nothing without
    """

    use_memory_storage: bool = False
    storage_dir: str | os.PathLike[str] | None = None
    cache_size: int = 256
    durability: str = "sync"
    sync_interval: float = 0.1
    history: History = field(default_factory=KeepAll)
    dimension: int | None = None
    memtable_bytes: int = 64 * 1024 * 1024
    read_only: bool = False
    background: bool = True
    track_access: bool = True
    recall_target: float = 0.99
    index: str = "auto"
    index_memory: int = 128 * 1024 * 1024
    adaptive: bool = True
    prefetch: bool = True

    def __post_init__(self) -> None:
        for name in _SWITCHES:
            if type(getattr(self, name)) is not bool:
                raise InvalidInputError(name, f"must be a bool, not {getattr(self, name)!r}")
        self._check_place()
        _check_int("cache_size", self.cache_size, 1, CACHE_SIZE_MAX)
        _check_int("memtable_bytes", self.memtable_bytes, MEMTABLE_BYTES_MIN, MEMTABLE_BYTES_MAX)
        if self.dimension is not None:
            _check_int("dimension", self.dimension, 1, DIMENSION_MAX)
        if self.durability not in DURABILITY_LEVELS:
            raise InvalidInputError(
                "durability", f"must be one of {DURABILITY_LEVELS}, not {self.durability!r}"
            )
        interval_s = self.sync_interval
        if (
            isinstance(interval_s, bool)
            or not isinstance(interval_s, int | float)
            or not math.isfinite(interval_s)
            or not 0 < interval_s <= SYNC_INTERVAL_S_MAX
        ):
            raise InvalidInputError(
                "sync_interval",
                f"must be seconds in (0, {SYNC_INTERVAL_S_MAX:g}], not {interval_s!r}",
            )
        check_history(self.history)
        if self.index not in INDEXES:
            raise InvalidInputError("index", f"must be one of {INDEXES}, not {self.index!r}")
        _check_int("index_memory", self.index_memory, 0, INDEX_MEMORY_MAX)
        target = self.recall_target
        if isinstance(target, bool) or not isinstance(target, int | float) or not 0 < target <= 1:
            raise InvalidInputError("recall_target", f"must be in (0, 1], not {target!r}")

    def _check_place(self) -> None:
        if self.use_memory_storage:
            if self.storage_dir is not None:
                raise InvalidInputError(
                    "storage_dir", "must be None together with use_memory_storage=True"
                )
            if self.read_only:
                raise InvalidInputError(
                    "read_only", "makes no sense together with use_memory_storage=True"
                )
        elif self.storage_dir is None:
            raise InvalidInputError(
                "storage_dir", "is needed, unless use_memory_storage=True; got None"
            )
        else:
            check_path("storage_dir", self.storage_dir)


def check_path(argument: str, path: object) -> str:
    """The path as an absolute str. Anything but a non-empty str or a path: InvalidInputError."""
    if not isinstance(path, str | os.PathLike):
        raise InvalidInputError(argument, f"must be a str or a path, not {type(path).__name__}")
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidInputError(argument, f"is not a usable path: {text!r}")
    return os.path.abspath(text)


def _check_int(name: str, value: object, lowest: int, highest: int) -> None:
    if type(value) is not int or not lowest <= value <= highest:
        raise InvalidInputError(name, f"must be an int from {lowest} to {highest:,}, not {value!r}")
