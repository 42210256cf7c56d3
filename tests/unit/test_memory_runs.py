"""The visible memories run by run: in memtables and files, now and then, merged, erased, reopened,
in a transaction; and filters over them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb import Database, MemoryNode
from engramdb.lsm import Batch, Snapshot, verification
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.keys import to_list
from engramdb.lsm.memory_run import MemoryRun, SegmentMemories, TableMemories
from engramdb.lsm.records import MEMORY
from engramdb.model.attributes import decode_memory
from engramdb.model.identifiers import format_key
from engramdb.model.shredding import shred
from engramdb.query.attribute_filter import AttributeFilter as F
from engramdb.query.masks import matching
from engramdb.query.source import Source
from tests.unit.attribute_support import attributes, filters, payload_of
from tests.unit.lsm_support import connect, delete, key, open_engine, put


def by_columns(source: Source, where: F) -> list[bytes]:
    """The keys of the memories that match, by masks."""
    return sorted(
        each
        for run in source.memory_runs()
        for each in to_list(run.keys(matching(run, run.rows, where)))
    )


def row_by_row(source: Source, where: F) -> list[bytes]:
    """The same, by the payloads."""
    return sorted(
        each
        for rows in source.scan(MEMORY)
        for each, payload in zip(to_list(rows.keys), rows.payloads(), strict=True)
        if where.matches(decode_memory(payload).attributes)
    )


steps = st.one_of(
    st.tuples(st.just("put"), st.integers(0, 9), attributes),
    st.tuples(st.just("put"), st.integers(0, 9), attributes),
    st.tuples(st.just("delete"), st.integers(0, 9)),
    st.tuples(st.just("connect"), st.integers(0, 9)),
    st.tuples(st.sampled_from(["flush", "compact", "reopen", "purge"]), st.integers(0, 9)),
    st.tuples(st.just("many"), st.lists(attributes, min_size=1, max_size=4)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(steps, max_size=12), st.lists(filters, min_size=1, max_size=4))
def test_masks_answer_as_row_by_row_at_every_moment(
    taken: list[tuple[Any, ...]], asked: list[F]
) -> None:
    environment = MemoryEnvironment()
    engine = open_engine(environment, columns_of=shred)
    for what, *given_ in taken:
        if what == "put":
            put(engine, given_[0], payload_of(given_[1]))
        elif what == "delete":
            delete(engine, given_[0])
        elif what == "connect":
            connect(engine, given_[0], given_[0] + 1)
        elif what == "purge":
            engine.purge([key(given_[0])])
        elif what == "many":
            batch = Batch()
            for number in range(5, 75):
                batch.put(key(number), payload_of(given_[0][number % len(given_[0])]))
            engine.commit(batch)
        elif what == "reopen":
            engine.close()
            engine = open_engine(environment, columns_of=shred)
        else:
            getattr(engine, what)()
        for where in asked:
            assert by_columns(engine.latest(), where) == row_by_row(engine.latest(), where)
    for seq in range(engine.last_seq + 1):
        past = engine.at(seq)
        for where in asked:
            assert by_columns(past, where) == row_by_row(past, where)
    assert engine.verify().problems == ()
    engine.close()


def runs_with(snapshot: Snapshot, kind: type) -> list[MemoryRun]:
    return [run for run in snapshot.memory_runs() if isinstance(run, kind)]


def filled(count: int = 200, **options: Any) -> Any:
    engine = open_engine(MemoryEnvironment(), columns_of=shred, **options)
    for number in range(count):
        put(engine, number, payload_of({"n": number, "s": f"s{number % 5}"}), None)
        if number % 10 == 0:
            connect(engine, number, number + 1)
    return engine


def test_a_run_tells_of_its_rows_what_single_reads_tell() -> None:
    engine = filled()
    for moment in ("in the memtable", "flushed", "merged"):
        if moment != "in the memtable":
            engine.flush()
        if moment == "merged":
            put(engine, 3, payload_of({"n": 3}))
            engine.compact()
        seen = []
        for run in engine.latest().memory_runs():
            rows = np.random.default_rng(1).permutation(run.rows)
            keys, payloads = to_list(run.keys(rows)), run.payloads(rows)
            told = zip(
                keys, run.seqs(rows), run.times(rows), run.vectors(rows), payloads, strict=True
            )
            for each, seq, time, vector, payload in told:
                record = engine.latest().get(MEMORY, each)
                assert (seq, time, vector) == (record.seq, record.time, record.vector), moment
                assert payload == record.payload
            seen += keys
            assert len(run.columns()) > int(run.rows[-1])
            assert run.payloads(rows[:0]) == []
            assert run.keys(rows[:0]).shape == (0, 16)
        assert sorted(seen) == sorted(map(key, range(200))), moment
    engine.close()


def test_a_memtable_is_a_few_stretches_and_a_short_rest() -> None:
    engine = filled(1000)
    stretches = [len(run.columns()) for run in runs_with(engine.latest(), TableMemories)]
    assert sum(stretches) == 1100
    for number in range(1000, 1300):
        put(engine, number, payload_of({"n": number}))
        before = stretches
        stretches = [len(run.columns()) for run in runs_with(engine.latest(), TableMemories)]
        assert sum(stretches) == 1100 + number - 999
        told = [len(run.columns().fields) > 0 for run in engine.latest().memory_runs()]
        assert all(told) or (not told[-1] and stretches[-1] <= 64)
        assert len(stretches) <= 6
    assert stretches != before
    assert all(run.columns().rest is None for run in engine.latest().memory_runs()[:-1])
    assert engine.latest().memory_runs()[0].columns() is engine.latest().memory_runs()[0].columns()
    engine.close()


def test_a_past_moment_sees_the_rows_of_its_time() -> None:
    engine = filled(100)
    seq = engine.last_seq
    for number in range(0, 100, 2):
        put(engine, number, payload_of({"n": -1}))
    delete(engine, 1)
    for _ in range(2):
        assert len(by_columns(engine.at(seq), F.greater_or_equal("n", 0))) == 100
        assert len(by_columns(engine.latest(), F.greater_or_equal("n", 0))) == 49
        engine.compact()
    engine.close()


def test_a_run_without_some_memories() -> None:
    engine = filled(100)
    for _ in range(2):
        put(engine, 7, payload_of({"n": 7}))
        hidden = [key(3), key(7), key(1000)]
        runs = [run.without(hidden) for run in engine.latest().memory_runs()]
        left = {each for run in runs for each in to_list(run.keys(run.rows))}
        assert left == set(map(key, range(100))) - set(hidden)
        engine.flush()
    engine.close()


def test_files_without_columns_are_read_with_the_same_answers() -> None:
    environment = MemoryEnvironment()
    engine = open_engine(environment)
    for number in range(100):
        put(engine, number, payload_of({"n": number}))
    assert len(by_columns(engine.latest(), F.less_than("n", 10))) == 10
    engine.close()
    engine = open_engine(environment, columns_of=shred)
    (run,) = engine.latest().memory_runs()
    assert isinstance(run, SegmentMemories)
    assert list(run.columns().fields) == [("n",)]
    assert run.columns() is engine.latest().memory_runs()[0].columns()
    assert len(by_columns(engine.latest(), F.less_than("n", 10))) == 10
    put(engine, 1000, payload_of({"n": 5}))
    engine.compact()
    (segment,) = engine._core.state.version.segments
    assert segment.has_attributes
    assert len(by_columns(engine.latest(), F.less_than("n", 10))) == 11
    assert engine.verify().ok
    engine.close()


def test_columns_that_are_not_what_the_payloads_say_are_found() -> None:
    environment = MemoryEnvironment()
    engine = open_engine(
        environment,
        columns_of=lambda given: shred([each and payload_of({"n": 1}) for each in given]),
    )
    put(engine, 1, payload_of({"n": 2, "m": 1}))
    engine.close()
    engine = open_engine(environment, columns_of=shred)
    problems = engine.verify().problems
    assert [problem.split(": ", 1)[1] for problem in problems] == [
        "'n' is not what the payload of row 0 says",
        "'m' of row 0 is in no column",
    ]
    engine.close()


def test_of_a_large_file_some_blocks_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "_COMPARED_ROWS_MAX", 128)
    environment = MemoryEnvironment()
    right = filled(300)
    right.flush()
    assert right.verify().ok
    right.close()
    wrong = payload_of({"n": 1})
    engine = open_engine(
        environment, columns_of=lambda given: shred([each and wrong for each in given])
    )
    for number in range(300):
        put(engine, number, payload_of({"n": 2}))
    engine.close()
    engine = open_engine(environment, columns_of=shred)
    (problem,) = engine.verify().problems
    assert problem.endswith("'n' is not what the payload of row 0 says")
    engine.close()


def test_a_transaction_sees_its_writes() -> None:
    with Database.in_memory() as db:
        ids = db.save_many([MemoryNode([1.0], attributes={"n": i}) for i in range(100)])
        db.flush()
        with db.transaction() as tx:
            node = tx.load(ids[0])
            node.set_attribute("n", 1000)
            tx.save(node)
            tx.delete(ids[1])
            tx.save(MemoryNode([2.0], attributes={"n": 1001}))
            source = tx._source()
            assert len(by_columns(source, F.less_than("n", 100))) == 98
            assert len(by_columns(source, F.greater_than("n", 100))) == 2
            for run in source.memory_runs():
                for column in (run.seqs, run.times, run.vectors, run.payloads):
                    assert len(column(run.rows)) == len(run.rows)
            assert format_key(by_columns(source, F.equals("n", 1000))[0]) == ids[0]
            unsaved = source.memory_runs()[-1]
            left = unsaved.without(by_columns(source, F.equals("n", 1000)))
            assert len(left.rows) == len(unsaved.rows) - 1


@pytest.mark.parametrize("count", [10, 300])
def test_every_way_to_make_a_file_writes_columns(count: int, tmp_path: Any) -> None:
    with Database.file_based(tmp_path / "db", background=False) as db:
        db.save_many([MemoryNode([1.0], attributes={"n": i}) for i in range(count)])
        db.flush()
        db.save_columns(embeddings=None, attributes=[{"n": i} for i in range(count)])
        db.flush()
        segments = db._engine._core.state.version.segments
        assert all(segment.has_attributes for segment in segments)
        found = by_columns(db._source(), F.equals("n", 3))
        assert len(found) == 2
        db.compact()
        with db.fork(tmp_path / "fork") as fork:
            assert by_columns(fork._source(), F.equals("n", 3)) == found
