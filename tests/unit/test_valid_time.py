"""When a fact holds in the world: saved, loaded, shown in the history, restored."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from engramdb import Database, InvalidInputError, MemoryNode

MARCH = datetime(2025, 3, 1, tzinfo=UTC)
JUNE = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("valid_from", "valid_to"), [(None, None), (MARCH, None), (None, JUNE), (MARCH, JUNE)]
)
def test_it_comes_back(valid_from: datetime | None, valid_to: datetime | None) -> None:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([1.0, 2.0], valid_from=valid_from, valid_to=valid_to))
        db.flush()
        loaded = db.load(memory_id)
        assert (loaded.valid_from, loaded.valid_to) == (valid_from, valid_to)
        layer = db.history(memory_id)[0]
        assert (layer.valid_from, layer.valid_to) == (valid_from, valid_to)


def test_a_fact_cannot_end_before_it_begins_and_nothing_is_written() -> None:
    with Database.in_memory() as db:
        node = MemoryNode([1.0], valid_from=JUNE, valid_to=MARCH)
        for save in (db.save, lambda wrong: db.save_many([wrong])):
            with pytest.raises(InvalidInputError, match=r"valid_to: .* is not after valid_from"):
                save(node)
        with pytest.raises(InvalidInputError):
            db.save(MemoryNode([1.0], valid_from=JUNE, valid_to=JUNE))
        assert len(db) == db.last_seq == 0


def test_its_end_is_a_change_that_diff_shows_and_undo_and_restore_take_back() -> None:
    with Database.in_memory() as db:
        memory_id = db.save(MemoryNode([1.0], valid_from=MARCH))
        node = db.load(memory_id)
        node.valid_to = JUNE
        db.save(node)
        (change,) = db.diff(1).changed
        assert change.validity_changed
        assert not change.attributes
        assert not change.embeddings_changed
        db.undo()
        assert db.load(memory_id).valid_to is None
        db.restore(memory_id, 2)
        assert db.load(memory_id).valid_to == JUNE
        with db.as_of(1) as past:
            assert past.load(memory_id).valid_to is None
