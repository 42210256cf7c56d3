"""What a similarity search over a recovered database must find, worked out the long way."""

from __future__ import annotations

import math

import numpy as np

from engramdb.config import DatabaseConfig
from engramdb.database import Database
from engramdb.index.exact import search, search_many
from engramdb.lsm import Snapshot
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.model.attributes import decode_memory
from engramdb.model.identifiers import format_key
from tests.crash.driver import PATH, vector
from tests.crash.oracle import Oracle

LIMIT = 3
CLOSE = 1e-9
QUERY = vector(1.0, -0.5, 2.0)

Hits = list[tuple[bytes, float]]


def nearest(oracle: Oracle, seq: int) -> Hits:
    """Every memory with a vector as of a commit, the nearest to QUERY first, ties by key; worked
    out once."""
    found = oracle.nearest.get(seq)
    if found is None:
        found = oracle.nearest[seq] = _cosines(oracle, seq)
    return found


def _cosines(oracle: Oracle, seq: int) -> Hits:
    query = [float(number) for number in QUERY]
    found = []
    for key_, (_, _, stored) in oracle.memories(seq).items():
        if stored:
            floats = [float(number) for number in np.frombuffer(stored, np.float32)]
            lengths = math.sqrt(sum(x * x for x in floats) * sum(x * x for x in query))
            product = sum(x * y for x, y in zip(floats, query, strict=True))
            found.append((key_, product / lengths if lengths else 0.0))
    return sorted(found, key=lambda hit: (-round(hit[1], 9), hit[0]))


def agree(found: Hits, wanted: Hits) -> bool:
    """The same memories in the same order, with the same cosines but for rounding."""
    return [key_ for key_, _ in found] == [key_ for key_, _ in wanted] and all(
        abs(got - right) < CLOSE for (_, got), (_, right) in zip(found, wanted, strict=True)
    )


def check_search(snapshot: Snapshot, oracle: Oracle) -> None:
    """The exact search over the vector runs; of now, also a batch of queries."""
    wanted = nearest(oracle, snapshot.seq)
    runs = snapshot.vector_runs()
    found = search(runs, snapshot.seq, QUERY, LIMIT, -1.0)
    assert agree(found, wanted[:LIMIT]), f"search at {snapshot.seq}: {found} not {wanted[:LIMIT]}"
    if snapshot.seq < oracle.last_seq:
        return
    _, batched = search_many(runs, snapshot.seq, np.stack([-QUERY, QUERY]), len(wanted) + 1, -1.0)
    assert agree(batched, wanted), f"search_many at {snapshot.seq}: {batched} not {wanted}"


def check_facade(disk: SimulatedDisk, oracle: Oracle) -> None:
    """The same through a Database: searches of now and of a past moment; what is loaded, where the
    payloads are those of memories."""
    config = DatabaseConfig(storage_dir=PATH, background=False)
    database = Database(config, environment=disk)
    seqs = {oracle.last_seq, *oracle.pins.values()}
    for seq in sorted(seq for seq in seqs if seq and oracle.memories(seq)):
        wanted = [(format_key(key_), score) for key_, score in nearest(oracle, seq)]
        if wanted:
            found = database.search_similar(QUERY, LIMIT, -1.0, as_of=seq)
            assert [hit[0] for hit in found] == [hit[0] for hit in wanted[:LIMIT]], f"{seq}"
    for key_, (_, payload, stored) in oracle.memories(oracle.last_seq).items():
        if payload[:1] == b"\x93":  # an array of three, as memories have
            node = database.load(format_key(key_))
            assert node.attributes == decode_memory(payload)[2], f"{key_.hex()}: {node.attributes}"
            vectors = b"" if node.embeddings is None else node.embeddings.tobytes()
            assert vectors == stored, f"{key_.hex()}: {node.embeddings}"
    database.close()
