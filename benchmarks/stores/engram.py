"""EngramDB through its public facade, every commit synced (the default)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Rows
from benchmarks.stores.base import Hits, Store, module


class Engram(Store):
    """Saves are synced before they return; the search is exact."""

    name = "EngramDB"
    modules = ("engramdb", "engramdb.database")
    distribution = "engramdb"
    guarantee = (
        "every commit is synced (write-ahead log, fdatasync) before the call returns; a bulk load "
        "is synced and published as one commit"
    )
    synced = True
    bulk_path = "save_columns with the matrix and the attribute columns, ids made by the database"

    def __init__(self, path: str, **settings: Any) -> None:
        self.database: Any = module("engramdb").Database.file_based(path, **settings)

    def prepare(self, rows: Rows) -> Sequence[Any]:
        return nodes(rows)

    def insert(self, prepared: Any) -> None:
        self.database.save(prepared)

    def insert_many(self, prepared: Sequence[Any]) -> None:
        self.database.save_many(prepared)

    def bulk(self, rows: Rows) -> list[str]:
        ids: list[str] = self.database.save_columns(
            embeddings=rows.vectors, attributes=rows.columns
        )
        return ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        return [row_id for row_id, _ in self.database.search_similar(vector, limit, -1.0)]

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        found = self.database.search_similar(vector, limit, -1.0, where={field: value})
        return [row_id for row_id, _ in found]

    def load(self, row_id: str) -> Any:
        return self.database.load(row_id)

    def close(self) -> None:
        self.database.close()


def nodes(rows: Rows) -> list[Any]:
    """One new MemoryNode per row, with its attributes."""
    memory_node = module("engramdb").MemoryNode
    made = []
    for row in range(len(rows)):
        node = memory_node(rows.vectors[row])
        for name, column in rows.columns.items():
            node.set_attribute(name, column[row])
        made.append(node)
    return made
