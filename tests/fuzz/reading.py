"""Opens a database that may be forged and does everything with it that anybody can do.

Only errors of EngramDB may escape from any call; they are counted. An answer that differs from what
was once saved is no fault: whoever can forge checksums can forge contents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, ParamSpec, TypeVar

import numpy as np

from engramdb import Database, MemoryNode
from engramdb.config import DatabaseConfig
from engramdb.errors import CorruptionError, EngramError, StoragePoisonedError
from engramdb.lsm import Batch, Snapshot, StorageEngine
from engramdb.lsm.environment import Environment
from engramdb.lsm.memory_run import MemoryRun
from engramdb.lsm.records import CLASSES, EDGE, MEMORY, Edge
from engramdb.lsm.retention import KeepLast
from engramdb.model.attributes import encode_memory
from engramdb.model.identifiers import format_key
from engramdb.query.attribute_filter import AttributeFilter
from engramdb.query.masks import matching, temporal, valid
from engramdb.query.temporal_filter import TemporalFilter
from engramdb.query.values import counts_of, numbers_of, values_of
from tests.fuzz.samples import IDEMPOTENCY_KEY, PATH, key

P = ParamSpec("P")
T = TypeVar("T")

KEYS_MAX: Final = 12
MOMENTS_MAX: Final = 5
_FILTERS: Final[tuple[dict[str, Any], ...]] = (
    {"n": {"$gt": 2}},
    {"text": {"$contains": "1"}},
    {"when": {"$lt": datetime(2030, 1, 1, tzinfo=UTC)}},
    {"tags": {"$contains": "a"}},
    {"score": {"$gte": 0.5, "$lt": 1}, "text": {"$in": ["x", "memory 4"]}},
    {"deep.er": {"$exists": True}},
)


class Reader:
    """Calls things, and counts the errors of EngramDB that come out by their types."""

    def __init__(self) -> None:
        self.errors: Counter[str] = Counter()
        self.damage: list[CorruptionError] = []

    def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T | None:
        try:
            return function(*arguments, **named)
        except EngramError as error:
            self.errors[type(error).__name__] += 1
            cause = error.cause if isinstance(error, StoragePoisonedError) else error
            if isinstance(cause, CorruptionError):
                self.damage.append(cause)
            assert str(error)
            return None


def open_database(disk: Environment, *, read_only: bool = False) -> Database:
    """A database without threads of its own and with a small memtable."""
    settings = DatabaseConfig(
        storage_dir=PATH,
        durability="os",
        background=False,
        memtable_bytes=2**16,
        read_only=read_only,
    )
    return Database(settings, environment=disk)


def exercise(disk: Environment) -> Reader:
    """Read only, then for writing: read all, write, merge, erase, and read again after reopening.
    Returns who knows the errors that came out."""
    call = Reader()
    only = call(open_database, disk, read_only=True)
    if only is not None:
        call(only.verify)
        call(only.list_all)
        call(only.refresh)
        call(only.close)
    database = call(open_database, disk)
    if database is None:
        return call
    read_engine(call, database._engine)
    read_facade(call, database)
    write(call, database)
    call(database.close)
    _let_go(database._engine)
    again = call(open_database, disk)
    if again is not None:
        read_engine(call, again._engine)
        call(again.close)
        _let_go(again._engine)
    return call


def _let_go(engine: StorageEngine) -> None:
    """A close that failed has let go of the lock all the same."""
    assert engine._core.closed


def moments(engine: StorageEngine) -> list[int]:
    """Some commits: the ends, the middle, what is tagged."""
    last, floor = engine.last_seq, engine._core.state.floor
    pinned = [commit.seq for commit in engine.pins().values()]
    return sorted({last, last - 1, floor, floor + 1, (floor + last) // 2, *pinned[:2]})[
        -MOMENTS_MAX:
    ]


def read_engine(call: Reader, engine: StorageEngine) -> None:
    """Every read of the storage engine, at some moments."""
    report = call(engine.verify)
    assert report is None or isinstance(report.problems, tuple)
    call(engine.stats)
    keys = {key(0), key(1), bytes(16), b"\xff" * 16}
    for seq in moments(engine):
        snapshot = call(engine.at, seq, partial=True)
        if snapshot is None:
            continue
        for record_class in CLASSES:
            found = call(_scan, snapshot, record_class)
            keys.update((found or [])[:KEYS_MAX])
        call(_run, snapshot)
        for run in call(snapshot.memory_runs) or ():
            _read_columns(call, run)
        for wanted in sorted(keys)[: 2 * KEYS_MAX]:
            for record_class in CLASSES:
                call(_single, snapshot, record_class, wanted)
            call(snapshot.edges_from, wanted)
            call(snapshot.edges_to, wanted)
        call(lambda snapshot=snapshot: snapshot.time)
        call(snapshot.touched, MEMORY, max(0, seq - 3))
    state = engine._core.state
    call(engine.changes, max(state.floor, state.seq - 100))
    for time in (-1, 0, state.time, state.time - 1, 2**62):
        call(engine.at_time, time, partial=True)


def _scan(snapshot: Snapshot, record_class: int) -> list[bytes]:
    keys: list[bytes] = []
    snapshot.count(record_class)
    for rows in snapshot.scan(record_class):
        keys += [row.tobytes() for row in rows.keys[:KEYS_MAX]]
        rows.payloads()
        if record_class == EDGE:
            edges = rows.edges()
            keys += [row.tobytes() for row in edges.sources()[:2]]
            assert max(edges.type_code.tolist(), default=-1) < len(edges.types)
    return keys


def _run(snapshot: Snapshot) -> None:
    for run in snapshot.vector_runs():
        query = np.ones(run.dimension, np.float32)
        assert len(run.product(query)) == len(run.inverse_norms) == run.rows
        assert run.matrix.shape == (run.rows, run.dimension)
        hidden = run.hidden(snapshot.seq)
        rows = np.arange(run.rows)
        run.keys(rows if hidden is None else np.delete(rows, hidden))
        assert not len(run.extreme_rows) or int(run.extreme_rows.max()) < run.rows


def _read_columns(call: Reader, run: MemoryRun) -> None:
    """Everything that reads columns of attributes."""
    rows = run.rows
    columns = call(run.columns)
    for path in list(columns.fields) if columns is not None else ():
        call(lambda path=path: columns.fields[path])  # type: ignore[union-attr]
        for read in (values_of, numbers_of, counts_of):
            call(read, run, rows, ".".join(path))
    for where in _FILTERS:
        found = call(matching, run, rows, AttributeFilter.from_dict(where))
        assert found is None or set(found.tolist()) <= set(rows.tolist())
    call(temporal, run, rows, TemporalFilter(0, 2**60), 0)
    call(valid, run, rows, 2**50)
    for read_rows in (run.keys, run.seqs, run.times, run.vectors, run.payloads):
        found_rows = call(read_rows, rows)
        assert found_rows is None or len(found_rows) == len(rows)


def _single(snapshot: Snapshot, record_class: int, wanted: bytes) -> None:
    snapshot.newest_seq(record_class, wanted)
    record = snapshot.get(record_class, wanted)
    history = snapshot.history(record_class, wanted)
    for version in [*([record] if record else []), *history[-3:]]:
        if not isinstance(version, Edge) and version.vector:
            snapshot.vector(version.vector)


def read_facade(call: Reader, database: Database) -> None:
    """Every read that a caller has."""
    listed = call(database.list_all) or []
    call(len, database)
    for memory_id in [*listed[:KEYS_MAX], format_key(key(1))]:
        node = call(database.load, memory_id)
        call(repr, node)
        for layer in call(database.history, memory_id) or ():
            call(repr, layer)
        call(database.get_connections, memory_id)
        call(database.get_connected_to, memory_id, "Knows")
    dimension = call(lambda: database.dimension) or 1
    query = [1.0] * dimension
    call(database.search_similar, query, 3)
    call(database.search_similar, query, 50, -1.0)
    call(database.search_many, [query, [0.0] * dimension], 4, -1.0)
    for where in _FILTERS:
        call(database.search_similar, query, 3, -1.0, where=where)
        call(lambda where=where: database.query().with_attribute_filter(where).execute())
    call(lambda: database.query().with_vector(query).with_limit(5).execute())
    floor = database._engine._core.state.floor
    for moment in (floor, database.last_seq, "here", datetime(2024, 1, 1, tzinfo=UTC)):
        past = call(database.as_of, moment)
        if past is not None:
            call(past.list_all)
            call(past.search_similar, query, 3)
            call(repr, past)
    call(database.diff, max(floor, database.last_seq - 20))
    call(database.changes, max(floor, database.last_seq - 20))
    call(database.tags)
    call(database.stats)


def write(call: Reader, database: Database) -> None:
    """Every kind of write, then every kind of rewriting."""
    engine = database._engine
    vector = [1.0] * (call(lambda: database.dimension) or 2)
    nodes = [call(database.get, i) for i in (call(database.list_all) or [])[:3]]
    for node in nodes:
        if node is not None:
            call(node.set_attribute, "changed", True)
            call(database.save, node)
    fresh = MemoryNode(vector, attributes={"a": 1}, id=format_key(key(77)))
    call(database.save, fresh)
    call(database.save_many, [MemoryNode(vector, id=format_key(key(i))) for i in (1, 78, 79)])
    call(database.connect, fresh.id, format_key(key(78)), "Knows")
    call(database.delete, format_key(key(3)))
    batch = Batch()
    batch.put(key(80), encode_memory(1, None, {}))
    call(engine.commit, batch, idempotency_key=IDEMPOTENCY_KEY)
    call(database.restore, format_key(key(3)), max(0, database.last_seq - 5))
    call(database.undo, 1)
    call(database.tag, "now")
    call(database.flush)
    call(_run, engine.latest())
    call(database.delete, format_key(key(78)))
    call(database.compact)
    call(database.save, MemoryNode(vector, id=format_key(key(2))))
    call(database.set_history, KeepLast(1))
    call(database.compact)
    call(database.purge, format_key(key(1)))
    call(database.clear_all)
    call(engine.verify)
