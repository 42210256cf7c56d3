"""A job of a process of its own (see child.py): searches while the index is built, and writes."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

LIMIT: Final = 10
LOAD_ROWS: Final = 50_000
WRITES: Final = 200
IDLE_SEARCHES: Final = 1_000


def search_while_indexing(path: str, queries: str, count: str, directory: str) -> dict[str, float]:
    """Load, search while the index is built and afterwards; then save, search, delete, search."""
    from benchmarks.corpus import Corpus
    from benchmarks.stores.engram import Engram, build_index, has_index, nodes

    corpus, vectors, total = Corpus(directory=directory or None), np.load(queries), int(count)
    store = Engram(path)
    database = store.database
    for start in range(0, total, LOAD_ROWS):
        database.save_columns(embeddings=corpus.vectors(min(LOAD_ROWS, total - start), start))
    endless = itertools.cycle(vectors)
    answer: dict[str, float] = {}
    if has_index():
        built, taken = _while(lambda: build_index(database), _searches(database, endless))
        answer |= _spread("busy", taken) | {"built_s": built}
    searches = _searches(database, endless)
    idle = [next(searches) for _ in range(min(IDLE_SEARCHES, 2 * len(vectors)))]
    answer |= _spread("idle", idle)
    supply = nodes(corpus.rows(min(WRITES, len(vectors)), start=total))
    answer |= _written(database, supply)
    store.close()
    return answer


def _searches(database: Any, vectors: Iterator[Any]) -> Iterator[float]:
    """The seconds of one search after the other."""
    for vector in vectors:
        start = time.perf_counter()
        database.search_similar(vector, LIMIT, -1.0)
        yield time.perf_counter() - start


def _while(call: Callable[[], object], searches: Iterator[float]) -> tuple[float, list[float]]:
    """Seconds of the call in a thread of its own, and of the searches meanwhile: one at least."""
    errors: list[BaseException] = []
    seconds: list[float] = []

    def work() -> None:
        start = time.perf_counter()
        try:
            call()
        except BaseException as error:
            errors.append(error)
        seconds.append(time.perf_counter() - start)

    thread = threading.Thread(target=work)
    thread.start()
    taken = [next(searches)]
    while thread.is_alive():
        taken.append(next(searches))
    thread.join()
    if errors:
        raise errors[0]
    return seconds[0], taken


def _spread(when: str, taken: list[float]) -> dict[str, float]:
    return {
        f"{when}_p50_s": float(np.median(taken)),
        f"{when}_p99_s": float(np.percentile(taken, 99)),
        f"{when}_searches": len(taken),
    }


def _written(database: Any, supply: list[Any]) -> dict[str, float]:
    """Each is saved, searched for, deleted and searched for."""
    seen, taken = 0, []
    for node in supply:
        row_id = database.save(node)
        start = time.perf_counter()
        found = database.search_similar(node.embeddings, 1, -1.0)
        taken.append(time.perf_counter() - start)
        seen += bool(found) and found[0][0] == row_id
        database.delete(row_id)
        found = database.search_similar(node.embeddings, 1, -1.0)
        seen += not found or found[0][0] != row_id
    return {
        "seen_share": seen / (2 * len(supply)),
        "after_save_s": float(np.median(taken)),
        "writes": len(supply),
    }
