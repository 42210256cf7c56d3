"""What is compared: EngramDB, five peers, and a bare file as the floor that nobody gets under."""

from __future__ import annotations

from benchmarks.stores.bare import Bare
from benchmarks.stores.base import Store
from benchmarks.stores.chroma import Chroma
from benchmarks.stores.engram import Engram, EngramFixed, EngramNumpy
from benchmarks.stores.lance import Lance, LanceIndexed
from benchmarks.stores.qdrant import Qdrant
from benchmarks.stores.sqlite_vec import SqliteVec
from benchmarks.stores.zvec import Zvec, ZvecGraph

PEERS: tuple[type[Store], ...] = (SqliteVec, Lance, Chroma, Qdrant, Zvec)
_ALL: tuple[type[Store], ...] = (
    Engram,
    Bare,
    *PEERS,
    LanceIndexed,
    EngramNumpy,
    EngramFixed,
    ZvecGraph,
)
STORES: dict[str, type[Store]] = {store.name: store for store in _ALL}

__all__ = [
    "PEERS",
    "STORES",
    "Bare",
    "Engram",
    "EngramFixed",
    "EngramNumpy",
    "LanceIndexed",
    "Store",
    "Zvec",
    "ZvecGraph",
]
