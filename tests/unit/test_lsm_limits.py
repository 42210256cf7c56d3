"""Each limit at its edge: the last that fits is taken, the next is refused and nothing written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from engramdb.errors import InvalidInputError
from engramdb.lsm import Batch, StorageEngine, log_format
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.limits import (
    CLOCK_MAX,
    DIMENSION_MAX,
    NAME_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    TIME_MAX,
    TYPE_BYTES_MAX,
)
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    assert_consistent,
    columns,
    connect,
    core_of,
    disconnect,
    key,
    open_engine,
    put,
    value,
    vec,
)


@pytest.fixture
def engine() -> Iterator[StorageEngine]:
    with open_engine(MemoryEnvironment()) as engine:
        yield engine


def test_a_payload(engine: StorageEngine) -> None:
    edge = bytes(PAYLOAD_BYTES_MAX)
    put(engine, 1, edge)
    with pytest.raises(InvalidInputError, match="attributes"):
        put(engine, 2, edge + b"!")
    assert engine.last_seq == 1
    engine.flush()
    assert value(engine.latest(), 1) == edge
    engine.compact()
    assert_consistent(engine)


def test_a_dimension(engine: StorageEngine) -> None:
    put(engine, 1, b"x", vec(*range(DIMENSION_MAX)))
    engine.flush()
    assert engine.latest().vector(1)[-1] == DIMENSION_MAX - 1
    assert_consistent(engine)
    with open_engine(MemoryEnvironment()) as other:
        for dimension in (0, DIMENSION_MAX + 1):
            with pytest.raises(InvalidInputError, match="dimension"):
                put(other, 1, b"x", vec(*range(dimension)))
        assert (other.last_seq, other.dimension) == (0, None)
        put(other, 1, b"x", vec(1))


def test_an_edge_type_in_bytes_not_characters(engine: StorageEngine) -> None:
    for name in ("x" * TYPE_BYTES_MAX, "ü" * (TYPE_BYTES_MAX // 2), ""):
        connect(engine, 1, 2, name)
        disconnect(engine, 1, 2, name)
    for name in ("x" * (TYPE_BYTES_MAX + 1), "ü" * (TYPE_BYTES_MAX // 2 + 1)):
        for act in (connect, disconnect):
            with pytest.raises(InvalidInputError, match="relationship_type"):
                act(engine, 1, 2, name)


def test_a_name_in_bytes_not_characters(engine: StorageEngine) -> None:
    engine.pin("ü" * (NAME_BYTES_MAX // 2))
    for name in ("", "x" * (NAME_BYTES_MAX + 1), "ü" * (NAME_BYTES_MAX // 2 + 1)):
        with pytest.raises(InvalidInputError, match="name"):
            engine.pin(name)
    assert len(engine.pins()) == 1


def test_a_key(engine: StorageEngine) -> None:
    for bad in (b"", b"x" * 15, b"x" * 17):
        batch = Batch()
        batch.put(key(1), b"good")
        batch.put(bad, b"bad")
        with pytest.raises(InvalidInputError, match="key"):
            engine.commit(batch)
    assert engine.last_seq == 0 and engine.latest().get(MEMORY, key(1)) is None


def test_a_batch(engine: StorageEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    # two gigabytes are too many for a test: the limit is lowered, the edge is the same
    batch = Batch()
    for i in range(3):
        batch.put(key(i), bytes(100))
    size = len(log_format.encode_body(list(batch.operations.values())))
    monkeypatch.setattr(log_format, "BATCH_BYTES_MAX", size)
    engine.commit(batch)
    batch.put(key(9), b"one more")
    with pytest.raises(InvalidInputError, match="too many for one commit"):
        engine.commit(batch)
    with pytest.raises(InvalidInputError, match="too many for one commit"):
        engine.commit(batch, idempotency_key="encoded later")
    assert engine.last_seq == 1
    put(engine, 9, b"still writable")
    assert_consistent(engine)


@pytest.mark.parametrize("extreme", [bytes(16), b"\xff" * 16, b"\0" * 15 + b"\1", b"x" + bytes(15)])
def test_the_first_and_the_last_key_there_can_be(engine: StorageEngine, extreme: bytes) -> None:
    for other in (key(1), extreme, key(2)):
        batch = Batch()
        batch.put(other, other, vec(1, 2))
        batch.put_edge(other, other, "self", 1.0, b"")
        engine.commit(batch)
    steps: list[Callable[[], object]] = [lambda: None, engine.flush, engine.compact]
    for step in steps:
        step()
        found = engine.latest().get(MEMORY, extreme)
        assert found is not None and found.payload == extreme
        assert [e.source for e in engine.latest().edges_from(extreme)] == [extreme]
        assert_consistent(engine)
    engine.purge([extreme])
    assert engine.latest().get(MEMORY, extreme) is None
    assert_consistent(engine)


def test_vector_numbers_and_seqs_above_2_to_the_53(engine: StorageEngine) -> None:
    core = core_of(engine)
    core.next_vector, core.last_seq = 2**63, 2**53
    for i in range(5):
        put(engine, i, b"x%d" % i, vec(i, 1))
    put(engine, 1, b"again", vec(7, 7))
    engine.flush()
    put(engine, 2, b"again", vec(8, 8))
    assert_consistent(engine)
    engine.compact()
    assert engine.last_seq == 2**53 + 7
    assert value(engine.at(2**53 + 5), 1) == b"x1" and value(engine.at(2**53 + 6), 1) == b"again"
    record = engine.latest().get(MEMORY, key(2))
    assert record is not None and record.vector == 2**63 + 6  # type: ignore[union-attr]
    for seq in range(2**53 + 1, 2**53 + 8):
        assert_consistent(engine, engine.at(seq))


def test_a_clock_that_is_thousands_of_years_ahead() -> None:
    """What is committed then can be read back: recovery takes such times for damage."""
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"in time")
    disk.step_clock(2**58)
    times = [put(engine, i, b"far ahead").time for i in (2, 3)]
    engine.commit_columns(columns(range(10, 14)))
    assert CLOCK_MAX == times[0] < times[1] == times[0] + 1 < TIME_MAX
    core_of(engine).close("as a killed process leaves it")
    for _ in range(2):
        engine = open_engine(disk)
        put(engine, 4, b"and on")
        assert value(engine.latest(), 3) == b"far ahead"
        engine.close()
