"""EngramDB through its public facade, every commit synced (the default)."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Rows
from benchmarks.stores.base import Hits, Store, module


class Engram(Store):
    """Saves are synced before they return; scores are exact, and so is every search where there is
    no index yet."""

    name = "EngramDB"
    modules = ("engramdb", "engramdb.database")
    distribution = "engramdb"
    guarantee = (
        "every commit is synced (write-ahead log, fdatasync) before the call returns; a bulk load "
        "is synced and published as one commit"
    )
    synced = True
    settings: ClassVar[dict[str, Any]] = {}  # what it is opened with, where there is such a setting
    bulk_path = "save_columns with the matrix and the attribute columns, ids made by the database"

    def __init__(self, path: str, **settings: Any) -> None:
        chosen = self.settings | settings
        self.database: Any = module("engramdb").Database.file_based(path, **chosen)

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

    def scored(
        self, vector: npt.NDArray[np.float32], limit: int, **options: Any
    ) -> list[tuple[str, float]]:
        """What is found, with its scores."""
        found: list[tuple[str, float]] = self.database.search_similar(
            vector, limit, -1.0, **options
        )
        return found

    def load(self, row_id: str) -> Any:
        return self.database.load(row_id)

    def settle(self) -> None:
        build_index(self.database)

    def close(self) -> None:
        self.database.close()


class EngramNumpy(Engram):
    """With the index that needs nothing but numpy, whatever else is installed."""

    name = "EngramDB, numpy only"
    settings: ClassVar[dict[str, Any]] = {"index": "numpy"}

    @classmethod
    def missing(cls) -> str | None:
        if importlib.util.find_spec("turbovec") is None:
            return "turbovec is not installed: EngramDB itself needs numpy only"
        return super().missing() or _without(cls.settings)


class EngramFixed(Engram):
    """The same without adapting itself to what is asked."""

    name = "EngramDB, not adaptive"
    settings: ClassVar[dict[str, Any]] = {"adaptive": False}

    @classmethod
    def missing(cls) -> str | None:
        return super().missing() or _without(cls.settings)


def has_index() -> bool:
    """Whether this EngramDB can be told to build its index."""
    return hasattr(module("engramdb").Database, "build_index")


def build_index(database: Any) -> None:
    """Wait until everything stored has its index, if there is such a thing."""
    if has_index():
        database.build_index()


def _without(settings: dict[str, Any]) -> str | None:
    """Why this EngramDB cannot be opened so, or None if it can."""
    known = {field.name for field in fields(module("engramdb").DatabaseConfig)}
    lacking = sorted(settings.keys() - known)
    return f"this version has no setting {', '.join(lacking)}" if lacking else None


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
