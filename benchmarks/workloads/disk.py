"""The bare disk: what no database on it can beat without cheating."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks import clock, host
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line

RECORD_BYTES: Final = 2_048
STREAM_BYTES: Final = 256 * 2**20
CHUNK_BYTES: Final = 8 * 2**20
APPEND: Final = "append + fdatasync"
PREALLOCATED: Final = "write + fdatasync, preallocated"

_fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class SyncedFile:
    """Writes records of 2 KB one after another and syncs each."""

    def __init__(self, path: str, preallocate_records: int = 0) -> None:
        self._record = np.random.default_rng(0).bytes(RECORD_BYTES)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        for number in range(preallocate_records):
            os.pwrite(self._fd, bytes(RECORD_BYTES), number * RECORD_BYTES)
        os.fsync(self._fd)
        self._offset = 0

    def write(self, _: object = None) -> None:
        """One record, durable."""
        os.pwrite(self._fd, self._record, self._offset)
        _fdatasync(self._fd)
        self._offset += RECORD_BYTES

    def write_unsynced(self, _: object = None) -> None:
        """One record, left to the operating system."""
        os.pwrite(self._fd, self._record, self._offset)
        self._offset += RECORD_BYTES

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


def run(bench: Bench) -> Iterator[Line]:
    """Synced appends, synced streaming, reading cold and warm."""
    scale = bench.scale
    with bench.scratch() as directory:
        kind = host.file_system(directory)
        append = SyncedFile(os.path.join(directory, "append"))
        ready = SyncedFile(os.path.join(directory, "ready"), scale.saves * scale.rounds)
        some = range(scale.saves)
        timings = clock.in_turn(
            {
                APPEND: lambda _: clock.seconds_each(append.write, some),
                PREALLOCATED: lambda _: clock.seconds_each(ready.write, some),
            },
            scale.rounds,
        )
        append.close()
        ready.close()
        for name, timing in timings.items():
            detail = f"2 KB, {timing.spread()}, {kind}"
            yield Figure("disk", name, "bare disk", timing.per_second(), "/s", detail=detail)
        yield from _stream(os.path.join(directory, "stream"), scale.rows)


def _stream(path: str, rows: int) -> Iterator[Line]:
    total = STREAM_BYTES if rows >= 50_000 else CHUNK_BYTES
    chunk = np.random.default_rng(0).bytes(CHUNK_BYTES)

    def write() -> None:
        with open(path, "wb", buffering=0) as file:
            for _ in range(total // CHUNK_BYTES):
                file.write(chunk)
            os.fsync(file.fileno())

    megabytes = total / 1e6
    written = np.median([clock.stopwatch(write) for _ in range(3)])
    yield _rate("sequential write, synced at the end", megabytes / float(written))
    cold = np.median([clock.stopwatch(lambda: host.read_through([path], cold=True)) for _ in "123"])
    yield _rate("sequential read, page cache dropped", megabytes / float(cold))
    warm = np.median(
        [clock.stopwatch(lambda: host.read_through([path], cold=False)) for _ in "123"]
    )
    yield _rate("sequential read, page cache warm", megabytes / float(warm))
    Path(path).unlink()


def _rate(what: str, value: float) -> Figure:
    return Figure("disk", what, "bare disk", value, "MB/s")
