"""Zvec, embedded: one collection with a flat index, so that its search is exact."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, ClassVar, Final

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import DIMENSION, LABELS, Rows
from benchmarks.stores.base import Hits, Store, module

BATCH_ROWS = 1_000  # it takes 1,024 at a time
LINKS: Final = 16  # of the graph; more of them, or more candidates than this while it is built,
CANDIDATES: Final = 200  # was slower at the same recall, and builds for minutes
_FIELD = "embedding"


class Zvec(Store):
    """Cosine space, an inverted index on every label, otherwise its defaults."""

    name = "Zvec"
    modules = ("zvec",)
    distribution = "zvec"
    guarantee = (
        "an insert is written to the log and not synced (no sync call under strace): a killed "
        "process loses nothing, a power cut can lose whatever came after the last flush()"
    )
    synced = False
    bulk_path = "insert in batches of 1,000, then flush (making the documents is part of the time)"

    def __init__(self, path: str) -> None:
        self._zvec = module("zvec")
        self._zvec.init(log_level=self._zvec.LogLevel.ERROR)
        self._path = os.path.join(path, "memories")
        self._collection: Any = None
        if os.path.exists(self._path):
            self._collection = self._zvec.open(self._path)

    def _create(self, rows: Rows) -> None:
        kinds = self._zvec.DataType
        types = {str: kinds.STRING, int: kinds.INT64, float: kinds.DOUBLE}
        fields = [
            self._zvec.FieldSchema(
                name,
                types[type(column[0])],
                index_param=self._zvec.InvertIndexParam() if name in LABELS else None,
            )
            for name, column in rows.columns.items()
        ]
        vectors = self._zvec.VectorSchema(
            _FIELD, kinds.VECTOR_FP32, DIMENSION, index_param=self._index()
        )
        schema = self._zvec.CollectionSchema("memories", fields=fields, vectors=vectors)
        self._collection = self._zvec.create_and_open(self._path, schema)

    def _index(self) -> Any:
        return self._zvec.FlatIndexParam(metric_type=self._zvec.MetricType.COSINE)

    def _query(self, vector: npt.NDArray[np.float32]) -> Any:
        return self._zvec.Query(field_name=_FIELD, vector=vector)

    def prepare(self, rows: Rows) -> Sequence[Any]:
        if self._collection is None:
            self._create(rows)
        return [
            self._zvec.Doc(
                id=row_id, vectors={_FIELD: rows.vectors[row]}, fields=rows.attributes(row)
            )
            for row, row_id in enumerate(rows.ids)
        ]

    def insert(self, prepared: Any) -> None:
        self._check([self._collection.insert(prepared)])

    def insert_many(self, prepared: Sequence[Any]) -> None:
        self._check(self._collection.insert(list(prepared)))

    def _check(self, statuses: Sequence[Any]) -> None:
        for status in statuses:
            if not status.ok():
                raise RuntimeError(f"not inserted: {status.message()}")

    def bulk(self, rows: Rows) -> list[str]:
        for start in range(0, len(rows), BATCH_ROWS):
            self.insert_many(self.prepare(rows.part(start, start + BATCH_ROWS)))
        self._collection.flush()
        return rows.ids

    def search(self, vector: npt.NDArray[np.float32], limit: int) -> Hits:
        return self._ids(vector, limit, None)

    def search_where(
        self, vector: npt.NDArray[np.float32], limit: int, field: str, value: str
    ) -> Hits:
        return self._ids(vector, limit, f"{field} = '{value}'")

    def _ids(self, vector: npt.NDArray[np.float32], limit: int, condition: str | None) -> Hits:
        query = self._query(vector)
        found = self._collection.query(query, topk=limit, filter=condition, output_fields=[])
        return [hit.id for hit in found]

    def load(self, row_id: str) -> Any:
        return self._collection.fetch(row_id)[row_id]

    def close(self) -> None:
        if self._collection is not None:
            self._collection.close()
            self._collection = None


class ZvecGraph(Zvec):
    """The same with an HNSW graph instead of the flat index."""

    name = "Zvec HNSW"
    bulk_path = Zvec.bulk_path + f"; the graph (m={LINKS}, ef_construction={CANDIDATES}) afterwards"
    exact = False
    efforts: ClassVar[tuple[int, ...]] = (  # it refuses more than 2,048
        *(30, 40, 50, 60, 70, 80, 90, 100, 120, 140, 170, 200, 250, 300),
        *(400, 500, 700, 1_000, 1_400, 2_048),
    )
    effort_name = "ef"

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._grown = False
        self.tune(self.efforts[-1])

    def _index(self) -> Any:
        cosine = self._zvec.MetricType.COSINE
        return self._zvec.HnswIndexParam(metric_type=cosine, m=LINKS, ef_construction=CANDIDATES)

    def _query(self, vector: npt.NDArray[np.float32]) -> Any:
        return self._zvec.Query(field_name=_FIELD, vector=vector, param=self._searching)

    def tune(self, effort: int) -> None:
        self._searching = self._zvec.HnswQueryParam(ef=effort)

    def bulk(self, rows: Rows) -> list[str]:
        self._grown = True
        return super().bulk(rows)

    def settle(self) -> None:
        if self._grown:
            self._collection.optimize()
            self._grown = False
