"""The nearest vectors: by codes where there are some, else by scans."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from engramdb.errors import CorruptionError
from engramdb.index import approximate, exact
from engramdb.index.approximate import Codes
from engramdb.index.metric import Metric
from engramdb.index.top import Hit, Part
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import VectorRun
from engramdb.lsm.records import DEFAULT_SPACE

Floats32 = npt.NDArray[np.float32]
T = TypeVar("T")


def by_codes(
    indexer: Indexer | None,
    search: Callable[[Codes], T],
    space: str = DEFAULT_SPACE,
    queries: Iterable[Floats32] = (),
) -> T | None:
    """What a search by codes finds; None if there are none, or if they turned out to be damaged:
    then it takes a scan. The queries are those to be remembered as asked."""
    codes = None if indexer is None else indexer.codes()
    if indexer is None or not codes:
        return None
    for query in queries:
        indexer.asked(space, query)
    try:
        return search(codes)
    except CorruptionError as error:
        if not indexer.forget_damaged(error):
            raise
        return None


def search(
    indexer: Indexer | None,
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
) -> list[Hit]:
    """The best of all visible rows. Without an indexer: exact.search()."""
    wanted = (runs, seq, query, limit, threshold, metric)
    found = by_codes(indexer, lambda codes: approximate.search(*wanted, codes), queries=(query,))
    return exact.search(*wanted) if found is None else found


def search_many(
    indexer: Indexer | None,
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
) -> list[list[Hit]]:
    """The same for each of the queries."""
    wanted = (runs, seq, queries, limit, threshold, metric)
    found = by_codes(
        indexer, lambda codes: approximate.search_many(*wanted, codes), queries=queries
    )
    return exact.search_many(*wanted) if found is None else found


def search_among(
    indexer: Indexer | None,
    parts: Sequence[Part],
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
) -> list[Hit]:
    """The best of these rows."""
    wanted = (parts, query, limit, threshold, metric)
    found = by_codes(indexer, lambda codes: approximate.search_among(*wanted, codes))
    return exact.search_among(*wanted) if found is None else found
