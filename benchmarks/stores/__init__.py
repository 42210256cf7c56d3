"""What is compared: EngramDB, four peers, and a bare file as the floor that nobody gets under."""

from __future__ import annotations

from benchmarks.stores.bare import Bare
from benchmarks.stores.base import Store
from benchmarks.stores.chroma import Chroma
from benchmarks.stores.engram import Engram
from benchmarks.stores.lance import Lance
from benchmarks.stores.qdrant import Qdrant
from benchmarks.stores.sqlite_vec import SqliteVec

PEERS: tuple[type[Store], ...] = (SqliteVec, Lance, Chroma, Qdrant)
_ALL: tuple[type[Store], ...] = (Engram, Bare, *PEERS)
STORES: dict[str, type[Store]] = {store.name: store for store in _ALL}

__all__ = ["PEERS", "STORES", "Bare", "Engram", "Store"]
