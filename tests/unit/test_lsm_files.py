"""Segments and vector files: what was written is found, by key, by row, by moment."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.errors import CorruptionError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.keys import from_list, split
from engramdb.lsm.marks import Marks
from engramdb.lsm.records import EDGE, MEMORY, META, NEVER
from engramdb.lsm.segment import Segment
from engramdb.lsm.segment_edges import edges_around
from engramdb.lsm.vector_file import VectorColumns, VectorFile
from tests.unit.lsm_support import (
    assert_consistent,
    columns,
    connect,
    core_of,
    delete,
    key,
    open_engine,
    patch,
    put,
    vec,
)


@pytest.fixture
def engine() -> Iterator[StorageEngine]:
    with open_engine(SimulatedDisk(), bulk_bytes_min=1) as engine:
        yield engine


def segment_of(engine: StorageEngine) -> Segment:
    (segment,) = core_of(engine).state.version.segments
    return segment


def fill(engine: StorageEngine) -> None:
    for round_ in range(3):
        for i in range(0, 300, 1 + round_):
            put(engine, i, b"%d/%d" % (i, round_), vec(i, round_))
    for i in range(0, 300, 7):
        connect(engine, i, i + 1, f"t{i % 3}")
    engine.flush()


def test_each_key_is_found_and_no_other(engine: StorageEngine) -> None:
    fill(engine)
    segment = segment_of(engine)
    for i in range(300):
        first, last = segment.find(MEMORY, key(i))
        rounds = [r for r in range(3) if i % (1 + r) == 0]
        assert [segment.payload(row) for row in range(first, last)] == [
            b"%d/%d" % (i, r) for r in reversed(rounds)
        ], "the newest first"
        assert {segment.key(row) for row in range(first, last)} == {key(i)}
    for other in (key(300), key(-1), bytes(15) + b"\1", b"\xff" * 16):
        first, last = segment.find(MEMORY, other)
        assert first == last
        assert segment.find(META, other) == (0, 0)
    assert segment.find(EDGE, key(1)) == (0, 0)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(st.integers(0, 2**128 - 1) | st.integers(0, 40) | st.integers(2**128 - 40, 2**128 - 1)),
    st.sets(st.integers(0, 2**128 - 1) | st.integers(0, 40) | st.integers(2**128 - 40, 2**128 - 1)),
)
def test_many_keys_are_found_at_once(held: set[int], wanted: set[int]) -> None:
    held = held | {5}
    with open_engine(MemoryEnvironment(), bulk_bytes_min=1) as engine:
        keys = [i.to_bytes(16, "big") for i in held]
        batch = columns(range(len(keys)), dimension=None)
        batch.keys = from_list(keys)
        engine.commit_columns(batch)
        segment = segment_of(engine)
        asked = [i.to_bytes(16, "big") for i in wanted | set(list(held)[:3])]
        where, rows = segment.find_many(MEMORY, *split(from_list(asked)))
        found = {asked[w]: segment.key(r) for w, r in zip(where.tolist(), rows.tolist())}  # noqa: B905
        assert found == {k: k for k in asked if k in keys}
        for one in asked:
            first, last = segment.find(MEMORY, one)
            assert last - first == (one in keys)


def test_payloads_by_row_by_stretch_and_through_the_cache(engine: StorageEngine) -> None:
    fill(engine)
    segment = segment_of(engine)
    listed = [segment.payload(row) for row in range(segment.rows)]
    assert segment.payloads(0, segment.rows).to_list() == listed
    for start, stop in [(0, 0), (0, 1), (63, 65), (64, 128), (100, 300), (5, 5)]:
        assert segment.payloads(start, stop).to_list() == listed[start:stop]
    cache = core_of(engine).cache
    hits = cache.hits
    assert segment.payload(3) == listed[3] and cache.hits == hits + 1


def test_adjacency_from_both_ends(engine: StorageEngine) -> None:
    fill(engine)
    segment = segment_of(engine)
    for i in range(302):
        out = [each.target for each in edges_around(segment, key(i), 10**9, incoming=False)]
        back = [each.source for each in edges_around(segment, key(i), 10**9, incoming=True)]
        assert out == ([key(i + 1)] if i % 7 == 0 and i < 300 else [])
        assert back == ([key(i - 1)] if (i - 1) % 7 == 0 and i <= 300 else [])


def test_types_that_no_edge_has_any_more_are_not_kept(engine: StorageEngine) -> None:
    connect(engine, 1, 2, "kept")
    connect(engine, 3, 4, "erased")
    engine.flush()
    assert segment_of(engine).edges.types == ["kept", "erased"]
    engine.purge([key(3)])
    assert segment_of(engine).edges.types == ["kept"]
    (edge,) = engine.latest().edges_from(key(1))
    assert edge.type == "kept"


def test_a_bulk_segment_has_the_seq_of_its_manifest_entry(engine: StorageEngine) -> None:
    put(engine, 500, b"x")
    commit = engine.commit_columns(columns(range(100)))
    segment = core_of(engine).state.version.segments[-1]
    assert segment.seq.extremes == (commit.seq, commit.seq)
    assert segment.time.extremes == (commit.time, commit.time)
    assert engine.latest().get(MEMORY, key(5))[1:3] == commit  # type: ignore[index]


def test_columns_say_what_was_superseded_before_and_since(engine: StorageEngine) -> None:
    put(engine, 1, b"a")
    put(engine, 1, b"b")
    put(engine, 2, b"c")
    engine.flush()
    put(engine, 1, b"d")
    delete(engine, 2)
    rows = segment_of(engine).columns()
    found = dict(zip(rows.seq.tolist(), rows.superseded.tolist(), strict=True))
    assert found == {1: 2, 2: 4, 3: 5}


def test_a_block_that_claims_to_be_huge_is_not_believed(
    engine: StorageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine)
    segment = segment_of(engine)
    bomb = zstandard.compress(bytes(1 << 20))
    real = segment.reader.part
    monkeypatch.setattr(
        segment.reader, "part", lambda name, *rest: bomb if name == "blocks" else real(name, *rest)
    )
    with pytest.raises(CorruptionError, match="payloads"):
        segment.payloads(0, 1)


# Vector files


def vector_files(engine: StorageEngine) -> tuple[VectorFile, ...]:
    return core_of(engine).state.version.vectors


def test_vectors_by_number_and_by_moment(engine: StorageEngine) -> None:
    for i in range(20):
        put(engine, i, b"x", vec(i, 1))
    put(engine, 3, b"y", vec(3, 3))
    patch(engine, 4, b"patched")
    engine.flush()
    delete(engine, 5)
    put(engine, 21, b"later", vec(21, 1))
    (file,) = vector_files(engine)
    assert [file.row_of(n) for n in (1, 21, 0, 22, 23)] == [0, 20, None, None, None]
    assert file.vector(20).tolist() == [3, 3]
    with pytest.raises(ValueError):
        file.vector(0)[0] = 1
    with pytest.raises(ValueError):
        file.matrix[0, 0] = 1
    for seq in range(24):
        hidden = file.hidden(seq)
        visible = set(range(21)) - set([] if hidden is None else hidden.tolist())
        born = {row for row in range(20) if row + 1 <= seq} | ({20} if seq >= 21 else set())
        dead = ({3} if seq >= 21 else set()) | ({5} if seq >= 23 else set())
        assert visible == born - dead, f"at {seq}"
        assert file.is_visible(seq) == bool(visible)
    assert file.keys(np.array([0, 20, 5])) == [key(0), key(3), key(5)]
    assert_consistent(engine)


def test_norms_stand_in_the_file(engine: StorageEngine) -> None:
    for i, scale in enumerate((0.0, 1e-30, 1.0, 1e30)):
        put(engine, i, b"x", vec(3 * scale, 4 * scale))
    engine.flush()
    (file,) = vector_files(engine)
    np.testing.assert_allclose(file.norms, [0, 5e-30, 5, 5e30], rtol=1e-6)
    np.testing.assert_allclose(file.inverse_norms, [0, 2e29, 0.2, 2e-31], rtol=1e-6)
    assert file.extreme_rows.tolist() == [1, 3]


@pytest.mark.parametrize("special", [-0.0, 1e-45, 3.4028235e38, 1 / 3])
def test_bits_survive_every_rewrite(engine: StorageEngine, special: float) -> None:
    vector = vec(special, 1, 2, 3)
    put(engine, 1, b"x", vector)
    for i in range(2, 60):
        put(engine, i, b"x", vec(i, i, i, i))
    for step in (engine.flush, engine.compact, lambda: engine.purge([key(9)])):
        step()
        assert engine.latest().vector(1).tobytes() == vector.tobytes()
    assert_consistent(engine)


def test_past_vectors_get_a_file_of_their_own_when_they_are_many(engine: StorageEngine) -> None:
    for round_ in range(4):
        for i in range(10):
            put(engine, i, b"x", vec(i, round_))
    engine.flush()
    current, past = vector_files(engine)
    assert (current.rows, past.rows) == (10, 30)
    assert current.hidden(40) is None and not past.is_visible(40) and past.is_visible(39)
    assert {run.rows for run in engine.latest().vector_runs()} == {10}
    for seq in range(1, 41):
        assert_consistent(engine, engine.at(seq))


def test_columns_of_vectors_join_and_pick() -> None:
    def some(*numbers: int) -> VectorColumns:
        array = np.array(numbers, np.uint64)
        return VectorColumns(array, array, array, array, array, array.astype(np.float32))

    joined = VectorColumns.concatenate([some(1, 2), some(3)])
    assert len(joined) == 3 and joined.take(np.array([2, 0])).number.tolist() == [3, 1]
    assert Marks().of(3) == NEVER
