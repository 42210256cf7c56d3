"""Bugs of what is stored beside the memories themselves, one test each: attribute columns, named
vector spaces, derived files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from engramdb import Database, DatabaseConfig, MemoryNode
from engramdb.lsm.attribute_check import contradictions
from engramdb.lsm.attribute_columns import AttributeColumns
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.segment import Segment
from engramdb.model.attributes import encode_memory
from engramdb.model.shredding import shred


def test_a_row_with_a_wrong_time_takes_no_elements_of_other_rows() -> None:
    """Its list was counted with the lists of the others, which then had the elements of others."""
    wrong = msgspec.msgpack.encode([2**62, None, {"tags": [1, 2]}])
    sound = encode_memory(5, None, {"tags": [3]})
    columns = shred([wrong, b"", sound])
    field = columns.fields[("tags",)]
    assert field.counts.tolist() == [1]
    assert field.owners.tolist() == [2]
    again = AttributeColumns.concatenate([columns, shred([sound])])
    assert contradictions(again, shred([wrong, b"", sound, sound])) == []


@pytest.mark.parametrize("bulk_bytes_min", [1, 2**30], ids=["around the log", "through the log"])
@pytest.mark.parametrize("spaces_before", [{}, {"title": [3.0, 4.0]}])
def test_columns_take_the_vectors_that_came_meanwhile(
    bulk_bytes_min: int, spaces_before: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memory that got a vector in a named space while save_columns() replaced it was found by
    that vector, although it had it no more."""
    with Database.in_memory() as db:
        engine = db._engine
        core = engine._core
        core.options = replace(core.options, bulk_bytes_min=bulk_bytes_min)
        memory_id = db.save(MemoryNode([1.0, 0.0]))
        other_id = db.save(MemoryNode(vectors=spaces_before))
        commit_columns = engine.commit_columns

        def meanwhile(*arguments: Any, **named: Any) -> Any:
            monkeypatch.undo()
            node = db.load(memory_id)
            node.set_vector("title", [1.0, 2.0])
            db.save(node)
            return commit_columns(*arguments, **named)

        monkeypatch.setattr(engine, "commit_columns", meanwhile)
        assert db.save_columns([memory_id], [[0.0, 1.0]], [{"a": 1}]) == [memory_id]
        node = db.load(memory_id)
        assert (node.get_attribute("a"), dict(node.vectors)) == (1, {})
        hits = [found for found, _ in db.search_similar([1.0, 2.0], space="title")]
        assert hits == [other_id] * len(spaces_before)
        assert core.environment.list(f"{core.directory}/tmp") == []
        assert db.verify().ok


def test_many_spaces_do_not_each_get_room_for_a_whole_memtable() -> None:
    """255 of them took 16 GB of addresses, which a process with a limit does not have."""
    disk, spaces = SimulatedDisk(), 255
    config = DatabaseConfig(storage_dir="/db", background=False, memtable_bytes=2**24)
    db = Database(config, environment=disk)
    vectors = {f"s{number}": np.ones(384, np.float32) for number in range(spaces)}
    db.save(MemoryNode(vectors=vectors))
    with Database(config, environment=disk.crash()) as recovered:
        for each in (db, recovered):
            table = each._engine._core.state.version.tables()[-1]
            assert len(table.arenas) == spaces
            assert sum(arena._matrix.nbytes for arena in table.arenas.values()) < 8 * 2**24
    db.close()


def damaged(disk: SimulatedDisk, segment: Segment, section: str) -> None:
    """Eight bytes of a section of a closed file."""
    file = disk.open(segment.reader.path, "w")
    file.write_at(segment.reader.section(section).offset, b"\x55" * 8)
    file.close()


@pytest.mark.parametrize("vectors", [{}, {"title": [1.0]}])
def test_a_repair_says_that_what_has_lost_its_tombstone_is_gone(vectors: dict[str, Any]) -> None:
    """A connection or a vector of a memory that is deleted does not come back when its tombstone is
    lost. Its last version then ended, but no other followed, which verify() complained of."""
    disk = SimulatedDisk()
    config = DatabaseConfig(storage_dir="/db", background=False)
    with Database(config, environment=disk) as db:
        one, two = db.save_many([MemoryNode(vectors=vectors), MemoryNode()])
        db.connect(one, two)
        db.flush()
        db.delete(one)
        db.flush()
        segment = db._engine._core.state.version.segments[-1]
    damaged(disk, segment, "strength")
    report = Database.repair("/db", environment=disk)
    assert (report.restored, report.disconnected) == (0, 1)
    with Database(config, environment=disk) as db:
        assert db.list_all() == [two] and db.get_connected_to(two) == []
        assert db.verify().problems == ()
        db.compact()
        assert db.verify().problems == ()


def test_a_repair_ends_the_vectors_of_memories_that_are_lost() -> None:
    """The tombstones that it wrote for them referred to their vectors."""
    disk = SimulatedDisk()
    config = DatabaseConfig(storage_dir="/db", background=False)
    with Database(config, environment=disk) as db:
        db.save_many([MemoryNode(vectors={"title": [1.0, number]}) for number in range(200)])
        db.flush()
        segment = db._engine._core.state.version.segments[-1]
    damaged(disk, segment, "blocks")
    report = Database.repair("/db", environment=disk)
    with Database(config, environment=disk) as db:
        assert 0 < len(db) == 200 - report.versions_lost < 200
        hits = db.search_similar([1.0, 1.0], 200, -1.0, space="title")
        assert sorted(found for found, _ in hits) == db.list_all()
        assert db.verify().problems == ()
        db.compact()
        assert db.verify().problems == ()
