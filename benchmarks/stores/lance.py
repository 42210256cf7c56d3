"""LanceDB: one table, no index, so that its search is exact."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import DIMENSION, LABELS, Rows
from benchmarks.stores.base import Hits, Store, module


class Lance(Store):
    """Every add writes a new fragment and a new manifest, and syncs neither."""

    name = "LanceDB"
    modules = ("lancedb", "pyarrow")
    distribution = "lancedb"
    guarantee = "nothing is synced (no fsync call under strace): a power cut can lose any insert"
    synced = False
    slow_inserts = True
    bulk_path = "create_table from one Arrow table (the conversion is part of the time)"

    def __init__(self, path: str) -> None:
        logging.getLogger("lance").setLevel(logging.ERROR)
        self._arrow = module("pyarrow")
        self._database = module("lancedb").connect(path)
        self._table: Any = None
        if "memories" in self._database.table_names():
            self._table = self._database.open_table("memories")

    def _convert(self, rows: Rows) -> Any:
        flat = self._arrow.array(rows.vectors.reshape(-1))
        vectors = self._arrow.FixedSizeListArray.from_arrays(flat, DIMENSION)
        return self._arrow.table({"id": rows.ids, "vector": vectors, **rows.columns})

    def _add(self, table: Any) -> None:
        if self._table is None:
            self._table = self._database.create_table("memories", table)
        else:
            self._table.add(table)

    def prepare(self, rows: Rows) -> Sequence[Any]:
        return [self._convert(rows.part(row, row + 1)) for row in range(len(rows))]

    def insert(self, prepared: Any) -> None:
        self._add(prepared)

    def insert_many(self, prepared: Sequence[Any]) -> None:
        self._add(self._arrow.concat_tables(prepared))

    def bulk(self, rows: Rows) -> list[str]:
        self._add(self._convert(rows))
        return rows.ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        return self._ids(self._table.search(vector).distance_type("cosine").limit(limit))

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        query = self._table.search(vector).distance_type("cosine").limit(limit)
        return self._ids(query.where(f"{field} = '{value}'", prefilter=True))

    def _ids(self, query: Any) -> Hits:
        found: Hits = query.select(["id", "_distance"]).to_arrow()["id"].to_pylist()
        return found

    def load(self, row_id: str) -> Any:
        return self._table.search().where(f"id = '{row_id}'").limit(1).to_arrow()

    def close(self) -> None:
        self._table = self._database = None


class LanceIndexed(Lance):
    """The same with a bitmap index on every label; its search among vectors stays exact."""

    name = "LanceDB, bitmap index"
    bulk_path = Lance.bulk_path + ", then an index on each label"

    def bulk(self, rows: Rows) -> list[str]:
        ids = super().bulk(rows)
        for name in rows.columns:
            if name in LABELS:
                self._table.create_scalar_index(name, index_type="BITMAP")
        return ids
