"""Saving memories one by one, many at once, and as whole arrays."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engramdb import ConflictError, Database, MemoryNode, MemoryNotFoundError

ATTRIBUTES = {
    "none": None,
    "bool": True,
    "int": 2**63 - 1,
    "float": -0.0,
    "infinity": float("inf"),
    "str": "grüße 🌍",
    "bytes": b"\x00\xff",
    "moment": datetime(2024, 5, 6, 7, 8, 9, 10, timezone(timedelta(hours=2))),
    "list": [1, 1.0, True, None, "1", [b""], {"deep": [{}]}],
    "dict": {"a": {"b": [datetime(1, 1, 1, tzinfo=UTC)]}},
}


def typed(value: Any) -> Any:
    """The value with all its types, so that 1, 1.0 and True are three."""
    if isinstance(value, dict):
        return {key: typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [typed(inner) for inner in value]
    return type(value), repr(value)


@pytest.fixture
def db() -> Any:
    with Database.in_memory() as database:
        yield database


def test_every_type_comes_back_as_it_went_in(db: Database) -> None:
    loaded = db.load(db.save(MemoryNode([1.0], attributes=ATTRIBUTES)))
    assert typed(dict(loaded.attributes)) == typed(ATTRIBUTES)


def test_a_vector_comes_back_bit_for_bit(db: Database) -> None:
    vector = np.array([0.1, -0.0, 1e-42, 3e37, -1 / 3], np.float32)
    loaded = db.load(db.save(MemoryNode(vector)))
    assert loaded.embeddings is not None and loaded.embeddings.tobytes() == vector.tobytes()
    assert not loaded.embeddings.flags.writeable


def test_a_memory_without_a_vector(db: Database) -> None:
    memory_id = db.save(MemoryNode(attributes={"a": 1}))
    assert db.load(memory_id).embeddings is None
    assert db.search_similar([1.0]) == []
    db.save(MemoryNode([1.0]))
    assert len(db.search_similar([1.0])) == 1 and len(db) == 2


def test_the_caller_may_choose_the_id(db: Database) -> None:
    chosen = uuid.uuid4()
    assert db.save(MemoryNode([1.0], id=chosen)) == str(chosen)
    assert chosen in db and str(chosen).upper() in db


def test_what_is_not_there(db: Database) -> None:
    missing = str(uuid.uuid4())
    assert db.get(missing) is None and missing not in db
    with pytest.raises(MemoryNotFoundError, match=missing):
        db.load(missing)
    with pytest.raises(KeyError):
        db.load(missing)


def test_each_save_is_a_layer(db: Database) -> None:
    node = MemoryNode([1.0, 2.0], attributes={"belief": "flat"})
    memory_id = db.save(node, reason="heard it")
    node.set_attribute("belief", "round")
    db.save(node, reason="saw a ship sink below the horizon")
    node.embeddings = [3.0, 4.0]
    db.save(node)
    layers = db.load(memory_id).temporal_layers()
    assert [layer.seq for layer in layers] == [1, 2, 3]
    assert [layer.attributes["belief"] for layer in layers] == ["flat", "round", "round"]
    assert [layer.reason for layer in layers] == [
        "heard it",
        "saw a ship sink below the horizon",
        None,
    ]
    assert [layer.embeddings.tolist() for layer in layers] == [[1, 2], [1, 2], [3, 4]]
    assert layers[0].timestamp < layers[1].timestamp < layers[2].timestamp
    assert node.temporal_layers()[-1].seq == 3
    assert db.load(memory_id).creation_timestamp == node.creation_timestamp


def test_what_a_node_holds_is_copied_when_it_is_saved(db: Database) -> None:
    node = MemoryNode([1.0], attributes={"list": [1]})
    memory_id = db.save(node)
    node.get_attribute("list").append(2)
    assert db.load(memory_id).get_attribute("list") == [1]


def test_expected_seq_notices_a_save_in_between(db: Database) -> None:
    node = MemoryNode([1.0])
    memory_id = db.save(node, expected_seq=0)
    with pytest.raises(ConflictError):
        db.save(node, expected_seq=0)
    db.save(node, expected_seq=1)
    with pytest.raises(ConflictError):
        db.save(node, expected_seq=1)
    db.delete(memory_id)
    with pytest.raises(ConflictError):
        db.save(node, expected_seq=2)
    db.save(node, expected_seq=0)
    assert [layer.seq for layer in db.history(memory_id)] == [1, 2, 3, 4]


def vector_bytes(db: Database, memory_id: str) -> list[bytes]:
    return [layer.embeddings.tobytes() for layer in db.history(memory_id) if not layer.deleted]


def test_an_unchanged_vector_is_stored_once(db: Database) -> None:
    node = MemoryNode(np.arange(1, 9, dtype=np.float32))
    memory_id = db.save(node)
    for number in range(3):
        loaded = db.load(memory_id)
        loaded.set_attribute("n", number)
        db.save(loaded)
        node.set_attribute("again", number)
        db.save(node)
        db.restore(memory_id, 1)
    key = node._key
    numbers = {record.vector for record in db._engine.latest().history(0, key)}
    assert len(numbers) == 1 and len(set(vector_bytes(db, memory_id))) == 1
    node.embeddings = np.arange(8, dtype=np.float32)
    db.save(node)
    assert len({record.vector for record in db._engine.latest().history(0, key)}) == 2
    assert db.search_similar(node.embeddings)[0] == (memory_id, 1.0)
    assert len(db.search_similar(node.embeddings, threshold=-1.0)) == 1


def test_a_vector_number_of_another_database_means_nothing(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "a") as db:
        node = MemoryNode([1.0, 0.0])
        db.save(node)
        with db.fork(tmp_path / "b") as fork:
            here, there = db.load(node.id), fork.load(node.id)
            here.embeddings, there.embeddings = [2.0, 0.0], [0.0, 3.0]
            db.save(here)
            fork.save(there)  # both have the same number now, and different vectors
            for moved in (db.load(node.id), copy.copy(db.load(node.id))):
                fork.save(moved)
                loaded = fork.load(node.id).embeddings
                assert loaded is not None and loaded.tolist() == [2.0, 0.0]
                fork.save(there)


def test_save_many_is_one_commit(db: Database) -> None:
    nodes = [MemoryNode([float(number)], attributes={"n": number}) for number in range(100)]
    assert db.save_many(nodes, reason="bulk") == [node.id for node in nodes]
    assert db.last_seq == 1 and len(db) == 100
    assert db.history(nodes[7].id)[0].reason == "bulk"
    assert db.save_many([]) == [] and db.last_seq == 1
    assert db.save_many(node for node in nodes[:2]) == [nodes[0].id, nodes[1].id]


def test_of_a_memory_given_twice_the_later_counts(db: Database) -> None:
    one, other = MemoryNode([1.0]), MemoryNode([2.0])
    twin = MemoryNode([3.0], id=one.id)
    db.save_many([one, other, twin])
    assert len(db) == 2 and len(db.history(one.id)) == 1
    assert db.load(one.id).embeddings.tolist() == [3.0]


@pytest.mark.parametrize("count", [3, 20_000])
def test_save_columns_takes_whole_arrays(tmp_path: Path, count: int) -> None:
    """The larger one goes around the log."""
    matrix = np.random.default_rng(1).normal(size=(count, 128)).astype(np.float32)
    names = [f"memory {number}" for number in range(count)]
    with Database.file_based(tmp_path / "db") as db:
        ids = db.save_columns(
            embeddings=matrix,
            attributes={
                "name": names,
                "n": np.arange(count),
                "x": np.linspace(0, 1, count),
                "even": np.arange(count) % 2 == 0,
            },
            reason="bulk",
        )
        assert db.last_seq == 1 and len(db) == count and db.list_all() == sorted(ids) == ids
    with Database.file_based(tmp_path / "db") as db:
        last = db.load(ids[-1])
        assert last.embeddings is not None and last.embeddings.tobytes() == matrix[-1].tobytes()
        assert typed(dict(last.attributes)) == typed(
            {"name": names[-1], "n": count - 1, "x": 1.0, "even": (count - 1) % 2 == 0}
        )
        assert db.search_similar(matrix[1], 1)[0][0] == ids[1]
        assert db.history(ids[0])[0].reason == "bulk"


def test_save_columns_with_ids_rows_and_no_vectors(db: Database) -> None:
    chosen = [str(uuid.uuid4()) for _ in range(3)]
    assert db.save_columns(chosen, attributes=[{"a": 1}, {}, {"b": [2]}]) == chosen
    assert [dict(db.load(each).attributes) for each in chosen] == [{"a": 1}, {}, {"b": [2]}]
    assert db.save_columns(chosen, [[1.0], [2.0], [3.0]]) == chosen
    assert [len(db.history(each)) for each in chosen] == [2, 2, 2]
    assert db.save_columns(embeddings=[]) == [] and db.save_columns(attributes=[]) == []
    assert db.last_seq == 2


def test_list_all_is_sorted_and_counts(db: Database) -> None:
    ids = [db.save(MemoryNode([1.0])) for _ in range(30)]
    assert db.list_all() == ids  # new ids sort by time
    assert db.delete(ids[3]) and not db.delete(ids[3])
    assert len(db) == 29 and ids[3] not in db


def test_clear_all_is_one_commit_and_history_stays(db: Database) -> None:
    ids = [db.save(MemoryNode([1.0])) for _ in range(5)]
    db.connect(ids[0], ids[1])
    before = db.last_seq
    assert db.clear_all() == 5
    assert db.last_seq == before + 1 and len(db) == 0 and db.list_all() == []
    assert db.get_connections(ids[0]) == [] and db.search_similar([1.0]) == []
    assert db.clear_all() == 0 and db.last_seq == before + 1
    assert len(db.as_of(before)) == 5
    db.undo()
    assert db.list_all() == ids and len(db.get_connections(ids[0])) == 1
