"""What the tests of the storage engine share: keys, batches, small engines, and what they hold."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engramdb.lsm import Batch, ColumnBatch, Commit, Options, Snapshot, StorageEngine
from engramdb.lsm.core import Core
from engramdb.lsm.environment import Environment
from engramdb.lsm.records import EDGE, MEMORY

PATH = "/database"
ROOT = Path(__file__).parents[2]
Floats = npt.NDArray[np.float32]


def key(i: int) -> bytes:
    """The 16-byte key of a number: spread, so that neighbours differ in their first bytes."""
    return (i * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "big")


def vec(*values: float) -> Floats:
    """A float32 vector."""
    return np.array(values, np.float32)


def open_engine(
    environment: Environment | None, path: str = PATH, *, read_only: bool = False, **options: Any
) -> StorageEngine:
    """An engine without threads of its own, so that nothing happens by itself."""
    options.setdefault("background", False)
    options.setdefault("log_allocate_bytes", 4096)
    return StorageEngine.open(
        path, Options(**options), environment=environment, read_only=read_only
    )


def core_of(engine: StorageEngine) -> Core:
    """The insides, for what no caller can see."""
    return engine._core


def put(engine: StorageEngine, i: int, payload: bytes, vector: Floats | None = None) -> Commit:
    """Save one memory."""
    batch = Batch()
    batch.put(key(i), payload, vector)
    return engine.commit(batch)


def patch(engine: StorageEngine, i: int, payload: bytes) -> Commit:
    """Save a memory with its vector unchanged, as a save of a loaded memory does."""
    snapshot = engine.latest()
    record = snapshot.get(MEMORY, key(i))
    assert record is not None
    number = record.vector  # type: ignore[union-attr]
    batch = Batch()
    batch.put(key(i), payload, snapshot.vector(number), shares=number)
    return engine.commit(batch)


def delete(engine: StorageEngine, i: int) -> Commit:
    """Delete one memory."""
    batch = Batch()
    batch.delete(key(i))
    return engine.commit(batch)


def connect(
    engine: StorageEngine, source: int, target: int, type: str = "Association", strength: float = 1
) -> Commit:
    """Save one edge."""
    batch = Batch()
    batch.put_edge(key(source), key(target), type, strength, b"edge")
    return engine.commit(batch)


def disconnect(
    engine: StorageEngine, source: int, target: int, type: str = "Association"
) -> Commit:
    """Delete one edge."""
    batch = Batch()
    batch.delete_edge(key(source), key(target), type)
    return engine.commit(batch)


def columns(
    numbers: Iterable[int], payload: bytes = b"bulk", dimension: int | None = 4
) -> ColumnBatch:
    """A column batch: memory i has payload + str(i) and a vector full of i."""
    listed = list(numbers)
    keys = np.frombuffer(b"".join(map(key, listed)), np.uint8).reshape(-1, 16)
    vectors = None
    if dimension is not None:
        vectors = np.repeat(np.array(listed, np.float32)[:, None], dimension, 1)
    return ColumnBatch(keys, [payload + str(i).encode() for i in listed], vectors)


def value(snapshot: Snapshot, i: int) -> bytes | None:
    """The payload of a memory, or None."""
    record = snapshot.get(MEMORY, key(i))
    return None if record is None else record.payload


def contents(snapshot: Snapshot) -> dict[bytes, tuple[bytes, int, bytes | None]]:
    """Every visible memory: key to payload, seq and the bytes of its vector, read by scan."""
    found: dict[bytes, tuple[bytes, int, bytes | None]] = {}
    for rows in snapshot.scan(MEMORY):
        for i, payload in enumerate(rows.payloads()):
            number = int(rows.vectors[i])
            vector = snapshot.vector(number).tobytes() if number else None
            found[rows.keys[i].tobytes()] = (payload, int(rows.seqs[i]), vector)
    return found


def edge_set(snapshot: Snapshot) -> set[tuple[bytes, bytes, str, float]]:
    """Every visible edge, read by scan."""
    found = set()
    for rows in snapshot.scan(EDGE):
        edges = rows.edges()
        sources, targets = edges.sources(), edges.targets()
        for i in range(len(rows)):
            name = edges.types[int(edges.type_code[i])]
            found.add((sources[i].tobytes(), targets[i].tobytes(), name, float(edges.strength[i])))
    return found


def searchable(snapshot: Snapshot) -> dict[bytes, bytes]:
    """Key to vector bytes of every row that a similarity search would see; each key once."""
    found: dict[bytes, bytes] = {}
    for run in snapshot.vector_runs():
        hidden = run.hidden(snapshot.seq)
        rows = np.arange(run.rows)
        if hidden is not None:
            rows = np.delete(rows, hidden)
        for owner, row in zip(run.keys(rows), rows.tolist(), strict=True):
            assert owner not in found, "a memory is visible in two rows"
            found[owner] = run.matrix[row].tobytes()
    return found


def assert_consistent(engine: StorageEngine, snapshot: Snapshot | None = None) -> None:
    """Scan, get, count and the vector runs agree with each other, and verify finds nothing."""
    snapshot = snapshot or engine.latest()
    held = contents(snapshot)
    assert len(held) == snapshot.count(MEMORY)
    for owner, (payload, seq, _) in held.items():
        record = snapshot.get(MEMORY, owner)
        assert record is not None and (record.payload, record.seq) == (payload, seq)
    with_vector = {owner: vector for owner, (_, _, vector) in held.items() if vector is not None}
    assert searchable(snapshot) == with_vector
    report = engine.verify()
    assert report.ok, report.problems


def run_python(code: str, *arguments: str, timeout_s: float = 30) -> str:
    """Run a piece of Python in a process of its own; its output. Fails if it fails."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def start_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a piece of Python that is talked to over its standard input and output."""
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
