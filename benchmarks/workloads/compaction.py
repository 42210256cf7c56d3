"""Compaction: how fast it merges, and what saves feel of it meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import zstandard

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import Rows
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.engram import nodes

RUNS: Final = 3  # too few to be merged before we ask for it
REVISED: Final = 0.1  # share of each later run that revises memories of the first
ZSTD: Final = "zstd of the same text"
IDLE: Final = "idle"
FRAME_ROWS: Final = 64


def run(bench: Bench) -> Iterator[Line]:
    """Once alone, once under durable saves."""
    if Engram.name in bench.absent:
        return
    part = bench.scale.compaction_rows // RUNS
    with bench.scratch() as directory:
        store = Engram(directory)
        rows = _fill(bench, store.database, part)
        seconds = clock.stopwatch(store.database.compact)
        store.close()
    zstd = _zstd_rows_per_second(rows)
    yield Figure("compaction", ZSTD, "bare codec", zstd, "rows/s", detail="in and out, one thread")
    yield Figure(
        "compaction",
        f"{part * RUNS:,} rows of {RUNS} runs merged",
        Engram.name,
        part * RUNS / seconds,
        "rows/s",
        {ZSTD: zstd},
        Reach(150_000, "least"),
        f"{seconds:.2f} s, a tenth of the rows are revisions",
    )
    yield from _under_saves(bench, part)


def _fill(bench: Bench, database: Any, part: int) -> Rows:
    """Three bulk commits; a tenth of the second and the third revises memories of the first."""
    first: list[str] = []
    rows = bench.corpus.rows(part)
    for number in range(RUNS):
        rows = bench.corpus.rows(part, start=number * part)
        ids = list(rows.ids)
        if first:
            revised = int(part * REVISED)
            ids[:revised] = first[number * revised : (number + 1) * revised]
        database.save_columns(ids=ids, embeddings=rows.vectors, attributes=rows.columns)
        first = first or ids
    return rows


def _zstd_rows_per_second(rows: Rows) -> float:
    """The part of a merge that nobody can avoid: the attributes unpacked and packed again."""
    texts = rows.columns["text"]
    frames = [
        "".join(texts[start : start + FRAME_ROWS]).encode()
        for start in range(0, len(texts), FRAME_ROWS)
    ]
    packer, unpacker = zstandard.ZstdCompressor(3), zstandard.ZstdDecompressor()
    packed = [packer.compress(frame) for frame in frames]
    taken = clock.stopwatch(
        lambda: [packer.compress(unpacker.decompress(frame)) for frame in packed]
    )
    return len(texts) / taken


def _under_saves(bench: Bench, part: int) -> Iterator[Line]:
    with bench.scratch() as directory:
        store = Engram(directory)
        database = store.database
        _fill(bench, database, part)
        supply = nodes(bench.corpus.rows(min(20_000, part), start=RUNS * part))
        idle = clock.seconds_each(database.save, supply[: len(supply) // 4])
        busy = _save_during(database, supply[len(supply) // 4 :])
        store.close()
    for name, taken in ((IDLE, idle), ("during a compaction", busy)):
        p99 = float(np.percentile(taken, 99)) * 1e3
        during = name != IDLE
        yield Figure(
            "compaction",
            f"p99 of a durable save, {name}",
            Engram.name,
            p99,
            "ms",
            {IDLE: float(np.percentile(idle, 99)) * 1e3} if during else {},
            Reach(3, "most", IDLE) if during else None,
            f"p50 {clock.duration(float(np.median(taken)))}, longest "
            f"{clock.duration(float(taken.max()))}, {len(taken):,} saves",
        )


def _save_during(database: Any, supply: list[Any]) -> clock.Seconds:
    """Durable saves, as many as a compaction leaves time for."""
    errors: list[BaseException] = []

    def compact() -> None:
        try:
            database.compact()
        except BaseException as error:
            errors.append(error)

    merging = threading.Thread(target=compact)
    merging.start()
    taken: list[clock.Seconds] = []
    for node in supply:
        taken.append(clock.seconds_each(database.save, [node]))
        if not merging.is_alive():
            break
    merging.join()
    if errors:
        raise errors[0]
    return np.concatenate(taken)
